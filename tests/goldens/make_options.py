"""Golden numbers of options and losses that later peers have: writes options.json beside this file.

Run by hand in the environment that peers.py describes, with further packages:

    peers/bin/pip install --no-deps timm==1.0.31 kornia==0.9.0 kornia-rs==0.2.0 \\
        mmsegmentation==1.2.2
    peers/bin/pip install transformers==5.24.0
    peers/bin/python tests/goldens/make_options.py

All originals run themselves. mmseg's need nothing of mmcv and mmengine but names.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F
from kornia.losses.focal import binary_focal_loss_with_logits
from peers import (
    BITS,
    CLASS_WEIGHTS,
    IDS,
    MAP,
    MAP_IGNORING,
    MULTI_LABEL,
    PIXELS,
    REDUCTIONS,
    SOFT,
    X,
    golden,
    normal,
    stand_in,
    t,
    uniform,
    without_init,
    write,
)

unregistered = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
stand_in("mmcv")
stand_in("mmcv.ops", sigmoid_focal_loss=None)
stand_in("mmengine")
stand_in("mmengine.fileio", load=None)
for package in ("mmseg", "mmseg.models", "mmseg.models.losses"):
    without_init(package)
stand_in("mmseg.registry", MODELS=unregistered, TASK_UTILS=unregistered)
without_init("mmseg.structures")
mmseg_focal = importlib.import_module("mmseg.models.losses.focal_loss").py_sigmoid_focal_loss
sampler = importlib.import_module("mmseg.structures.sampler").OHEMPixelSampler

without_init("timm")
timm = importlib.import_module("timm.loss.asymmetric_loss")
sys.modules["torchvision"] = None  # transformers does without
hugging_face = importlib.import_module("transformers.loss.loss_deimv2")
box_iou = importlib.import_module("transformers.loss.loss_for_object_detection").box_iou
corners = importlib.import_module("transformers.image_transforms").center_to_corners_format
RTDetrLoss = importlib.import_module("transformers.loss.loss_rt_detr").RTDetrLoss


ALPHAS = np.array([0.25, 1.0, 0.75, 0.125])


def focal():
    """The weight of positives beside alpha, and alphas of classes, for hard targets."""
    for alpha in (None, 0.25):
        golden(
            "sigmoid_focal",
            f"pos_weight alpha {alpha}",
            "kornia.losses.binary_focal_loss_with_logits",
            lambda x: binary_focal_loss_with_logits(
                x, t(MULTI_LABEL), alpha=alpha, gamma=1.5, pos_weight=t(CLASS_WEIGHTS[:3])
            ),
            [PIXELS, MULTI_LABEL],
            axis=1,
            gamma=1.5,
            alpha=alpha,
            pos_weight=CLASS_WEIGHTS[:3],
            reduction="none",
        )
    for reduction in REDUCTIONS:
        golden(
            "focal",
            f"alpha per class {reduction}",
            "mmseg.models.losses.focal_loss.py_sigmoid_focal_loss",
            lambda x: mmseg_focal(x, t(BITS), alpha=ALPHAS.tolist(), reduction=reduction),
            [X, BITS],
            alpha=ALPHAS,
            reduction=reduction,
        )


def hard_examples():
    """The pixels that mmseg's sampler keeps, of which HRNet's loss is the mean."""
    entropy = torch.nn.CrossEntropyLoss(reduction="none", ignore_index=255)
    context = types.SimpleNamespace(ignore_index=255)
    for name, labels in (("all", MAP), ("ignoring", MAP_IGNORING)):
        for threshold, kept in ((0.3, 2), (0.05, 4), (0.9, 2), (0.2, 100)):
            ids = t(labels)
            kept_of_batch = kept * len(labels)
            weight = sampler(context, threshold, kept).sample(t(PIXELS), ids[:, None])
            if kept_of_batch >= (labels != 255).sum():  # it leaves out the easiest
                weight = (ids != 255).to(weight)
            golden(
                "top_k_cross_entropy",
                f"threshold {threshold} kept {kept} {name}",
                "mmseg OHEMPixelSampler, the mean of what it keeps",
                lambda x: (entropy(x, ids) * weight).sum() / weight.sum(),
                [PIXELS, labels],
                axis=1,
                ignore_index=255,
                threshold=threshold,
                min_kept=kept_of_batch,
            )


def asymmetric():
    """Timm's two forms, which differentiate the focal factors; the first one in float32."""
    for detached in (False, True):
        original = timm.AsymmetricLossMultiLabel(
            eps=1e-38, reduction="none", disable_torch_grad_focal_loss=detached
        )
        golden(
            "asymmetric",
            f"multi label detached {detached}",
            "timm.loss.AsymmetricLossMultiLabel",
            lambda x: original(x, t(BITS)).double(),
            [X, BITS],
            rtol=1e-5,
            detach_weight=detached,
            reduction="none",
        )
    for smoothing in (0.0, 0.1):
        for positive, negative in ((1, 4), (0, 2)):
            original = timm.AsymmetricLossSingleLabel(
                positive, negative, eps=smoothing, reduction="none"
            )
            golden(
                "asymmetric",
                f"single label {positive} {negative} smoothed {smoothing}",
                "timm.loss.AsymmetricLossSingleLabel",
                lambda x: original(x, t(IDS)),
                [X, IDS],
                gamma_positive=float(positive),
                gamma_negative=float(negative),
                label_smoothing=smoothing,
                detach_weight=False,
                reduction="none",
            )


def detectors():
    """The class losses of RT-DETR and DEIMv2, for queries that match boxes; their sums."""
    boxes = torch.cat([t(uniform(1, 6, 2)), t(uniform(1, 6, 2, low=0.2, high=0.5))], -1)
    shifted = boxes + 0.05 * t(normal(1, 6, 4, scale=1.0))
    logits, objects = normal(1, 6, 3), torch.tensor([0, 2, 3])
    classes = torch.tensor([1, 0, 2])
    outputs = {"pred_boxes": shifted}
    targets = [{"boxes": boxes[0, objects], "class_labels": classes}]
    indices = [(objects, torch.arange(3))]
    overlaps = box_iou(corners(shifted[0, objects]), corners(boxes[0, objects]))[0].diag()
    quality = torch.zeros(1, 6, 3)
    quality[0, objects, classes] = overlaps
    self = types.SimpleNamespace(
        num_classes=3,
        alpha=0.75,
        gamma=2.0,
        mal_alpha=None,
        _get_source_permutation_idx=lambda indices: (torch.zeros(3, dtype=int), objects),
    )
    arguments = (targets, indices, 1)
    golden(
        "varifocal",
        "detached",
        "transformers RTDetrLoss.loss_labels_vfl",
        lambda x: RTDetrLoss.loss_labels_vfl(self, outputs | {"logits": x}, *arguments)["loss_vfl"],
        [logits, quality.numpy()],
        detach_weight=True,
        reduction="sum",
    )
    for gamma in (1.5, 1.0):
        self.gamma = gamma
        golden(
            "matchability_aware",
            f"gamma {gamma}",
            "transformers Deimv2Loss.loss_labels_mal",
            lambda x: hugging_face.Deimv2Loss.loss_labels_mal(
                self, outputs | {"logits": x}, *arguments
            )["loss_mal"],
            [logits, quality.numpy()],
            gamma=gamma,
            reduction="sum",
        )


def distillation():
    """PyTorch's divergence, times the temperature squared as in the paper."""
    teacher = np.log(SOFT + 0.01).round(3)
    for temperature in (4.0, 1.0):
        golden(
            "distillation",
            f"temperature {temperature}",
            "torch.nn.functional.kl_div",
            lambda x: F.kl_div(
                (x / temperature).log_softmax(-1),
                (t(teacher) / temperature).log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            ),
            [X, teacher],
            scale=temperature**2,
            temperature=temperature,
        )


if __name__ == "__main__":
    focal()
    hard_examples()
    asymmetric()
    detectors()
    distillation()
    write("options.json", "timm", "kornia", "mmsegmentation", "transformers")
