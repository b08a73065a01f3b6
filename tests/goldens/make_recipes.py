"""Golden numbers of calls of other libraries that are one line here: recipes.json beside this file.

Run by hand in the environment that peers.py describes, with further packages:

    peers/bin/pip install --no-deps timm==1.0.31 mmdet==3.3.0 nnunetv2==2.8.1
    peers/bin/pip install transformers==5.24.0
    peers/bin/python tests/goldens/make_recipes.py

tests/test_recipes.py holds the lines. nnU-Net's file needs nothing of its package but names.
"""

import importlib
import sys

import numpy as np
import torch.nn.functional as F
from monai.losses import DiceFocalLoss
from peers import (
    BITS,
    IDS,
    MAP,
    MULTI_LABEL,
    PIXELS,
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

for package in ("timm", "mmdet", "mmdet.models", "mmdet.models.losses"):
    without_init(package)
BinaryCrossEntropy = importlib.import_module("timm.loss.binary_cross_entropy").BinaryCrossEntropy
weight_reduce_loss = importlib.import_module("mmdet.models.losses.utils").weight_reduce_loss
stand_in("nnunetv2.utilities.ddp_allgather", AllGatherGrad=None)
DC_and_BCE_loss = importlib.import_module("nnunetv2.training.loss.compound_losses").DC_and_BCE_loss
sys.modules["torchvision"] = None  # transformers does without
HungarianMatcher = importlib.import_module(
    "transformers.loss.loss_for_object_detection"
).HungarianMatcher


def denominators():
    golden(
        "a denominator of one's own",
        "avg_factor 7",
        "mmdet.models.losses.utils.weight_reduce_loss",
        lambda x: weight_reduce_loss(F.cross_entropy(x, t(IDS), reduction="none"), avg_factor=7),
        [X, IDS],
        rtol=1e-7,  # it adds 1.2e-7 to the 7
        denominator=7,
    )
    golden(
        "sums over the classes",
        "timm",
        "timm.loss.BinaryCrossEntropy",
        lambda x: BinaryCrossEntropy(smoothing=0, sum_classes=True)(x, t(BITS)),
        [X, BITS],
    )


def activations():
    ids = np.array([3, 0, 1, 2, 3])  # no probability of 0
    golden(
        "probabilities where classes compete",
        "with zeros",
        "torch.nn.functional.nll_loss of torch.log",
        lambda p: F.nll_loss(p.log(), t(ids)),
        [SOFT, ids],
        gradient=False,  # ours is that of p over its sum
    )
    original = DiceFocalLoss(softmax=True, to_onehot_y=True, gamma=1.5)
    golden(
        "Dice under a softmax, focal under a sigmoid",
        "ids",
        "monai.losses.DiceFocalLoss",
        lambda x: original(x, t(MAP)[:, None]),
        [PIXELS, MAP],
        rtol=1e-6,  # its focal part is in float32
        gamma=1.5,
        smooth=1e-5,
    )
    golden(
        "smoothing over the classes, then a sigmoid",
        "ids",
        "timm.loss.BinaryCrossEntropy",
        lambda x: BinaryCrossEntropy(smoothing=0.1)(x, t(IDS)),
        [X, IDS],
        label_smoothing=0.1,
    )


def regions():
    """nnU-Net returns minus the score. Its last channel marks what is ignored."""
    ignored = (np.arange(MAP.size).reshape(MAP.shape) % 5 == 1).astype(float)
    target = t(np.concatenate([MULTI_LABEL, ignored[:, None]], 1))
    dice = {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False}
    golden(
        "regions of which some pixels are ignored",
        "nnU-Net",
        "nnunetv2.training.loss.compound_losses.DC_and_BCE_loss",
        lambda x: DC_and_BCE_loss({}, dice, use_ignore_label=True)(x, target),
        [PIXELS, MULTI_LABEL],
        shift=1,
        rtol=1e-6,  # labels become float32
        where=ignored == 0,
    )


def matching():
    """DETR's matcher, by the probabilities of the pairs that it returns."""
    logits, boxes = normal(7, 4), uniform(7, 4, low=0.2, high=0.6)
    labels, targets = np.array([2, 0, 1]), uniform(3, 4, low=0.2, high=0.6)
    aims = [{"class_labels": t(labels), "boxes": t(targets)}]

    def of_pairs(x):
        outputs = {"logits": x[None], "pred_boxes": t(boxes)[None]}
        queries, objects = HungarianMatcher(1.0, 5.0, 2.0)(outputs, aims)[0]
        return x.softmax(-1)[queries, t(labels)[objects]].sum()

    golden(
        "another matcher",
        "DETR",
        "transformers HungarianMatcher",
        of_pairs,
        [logits, boxes, labels, targets],
    )


if __name__ == "__main__":
    denominators()
    activations()
    regions()
    matching()
    write("recipes.json", "timm", "mmdet", "nnunetv2", "transformers")
