"""Golden numbers from the original implementations: writes goldens.json beside this file.

Run by hand, in an environment of its own (nothing here is needed by the tests):

    python -m venv peers
    peers/bin/pip install "torch==2.13.0" "numpy==2.4.6" "scipy==1.17.1" "pillow==13.0.0"
    peers/bin/pip install --no-deps "torchvision==0.29.2" "monai==1.6.1" \
        "segmentation-models-pytorch==0.6.0"
    peers/bin/python tests/goldens/make.py

A CPU build of torch is enough. `--no-deps` keeps away what the loss modules do not use; the
packages' own __init__ files, which would ask for it, are not run (see `without_init`).
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, MaskedDiceLoss, TverskyLoss
from monai.losses.focal_loss import sigmoid_focal_loss as monai_sigmoid_focal
from monai.losses.focal_loss import softmax_focal_loss as monai_softmax_focal
from peers import (
    BINARY,
    BITS,
    CLASS_WEIGHTS,
    IDS,
    IGNORING,
    MAP,
    MAP_IGNORING,
    MAP_WEIGHTS,
    MASK,
    MASK_IGNORING,
    MULTI_LABEL,
    PIXELS,
    POSITIVE,
    PROBABILITIES,
    REDUCTIONS,
    SOFT,
    SOFT_MAP,
    UNIT,
    VOLUME,
    VOLUME_IDS,
    X,
    golden,
    normal,
    one_hot,
    t,
    uniform,
    write,
)
from scipy.ndimage import distance_transform_edt

smp = importlib.import_module("segmentation_models_pytorch.losses")
smp_functional = importlib.import_module("segmentation_models_pytorch.losses._functional")
tv_sigmoid_focal = importlib.import_module("torchvision.ops.focal_loss").sigmoid_focal_loss
tv_giou = importlib.import_module("torchvision.ops.giou_loss").generalized_box_iou_loss
tv_ciou = importlib.import_module("torchvision.ops.ciou_loss").complete_box_iou_loss


def regression():
    target = normal(5, 4)
    for reduction in REDUCTIONS:
        golden(
            "l2",
            reduction,
            "torch.nn.functional.mse_loss",
            lambda x: F.mse_loss(x, t(target), reduction=reduction),
            [X, target],
            reduction=reduction,
        )
        golden(
            "l2",
            f"weights {reduction}",
            "torch.nn.functional.mse_loss",
            lambda x: F.mse_loss(x, t(target), reduction=reduction, weight=t(POSITIVE)),
            [X, target],
            reduction=reduction,
            weights=POSITIVE,
        )
        golden(
            "huber",
            reduction,
            "torch.nn.functional.huber_loss",
            lambda x: F.huber_loss(x, t(target), reduction=reduction),
            [X, target],
            reduction=reduction,
        )
    for delta in (0.3, 2.5):
        golden(
            "huber",
            f"delta {delta}",
            "torch.nn.functional.huber_loss",
            lambda x: F.huber_loss(x, t(target), delta=delta),
            [X, target],
            delta=delta,
        )
    # torch's weighted Huber divides by the count (its weighted l2 does not): ours by the weights.
    golden(
        "huber",
        "weights mean",
        "torch.nn.functional.huber_loss",
        lambda x: F.huber_loss(x, t(target), weight=t(POSITIVE)),
        [X, target],
        scale=POSITIVE.size / POSITIVE.sum(),
        weights=POSITIVE,
    )


def other_errors():
    target = normal(*X.shape)
    counts, rate = np.floor(uniform(*X.shape, low=0, high=6)), uniform(*X.shape, low=0.3, high=4)
    variance = uniform(*X.shape, low=0.2, high=3)
    plain = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
    for name, original in plain.items():
        for reduction in REDUCTIONS:
            golden(
                name,
                reduction,
                f"torch.nn.functional.{name}_loss",
                lambda x: original(x, t(target), reduction=reduction),
                [X, target],
                reduction=reduction,
            )
    golden(
        "smooth_l1",
        "beta 0.3",
        "torch.nn.functional.smooth_l1_loss",
        lambda x: F.smooth_l1_loss(x, t(target), beta=0.3),
        [X, target],
        beta=0.3,
    )
    for full in (False, True):
        golden(
            "gaussian_nll",
            f"full {full}",
            "torch.nn.functional.gaussian_nll_loss",
            lambda x: F.gaussian_nll_loss(x, t(target), t(variance), full=full),
            [X, target, variance],
            full=full,
        )
        for log_input, prediction in ((True, X), (False, rate)):
            golden(
                "poisson_nll",
                f"full {full} log {log_input}",
                "torch.nn.functional.poisson_nll_loss",
                # eps=0: torch adds 1e-8 to the rate.
                lambda x: F.poisson_nll_loss(x, t(counts), log_input=log_input, full=full, eps=0.0),
                [prediction, counts],
                full=full,
                log_input=log_input,
            )
    golden(
        "cosine",
        "along the last axis",
        "torch.nn.functional.cosine_similarity",
        lambda x: -F.cosine_similarity(x, t(target), dim=-1),
        [X, target],
        shift=1.0,
        reduction="none",
    )


def nll():
    source = "torch.nn.functional.nll_loss"
    log_probs = np.round(np.log(uniform(5, 4, low=0.05, high=0.95)), 3)
    log_map = np.round(np.log(uniform(2, 3, 3, 4, low=0.05, high=0.95)), 3)
    for reduction in REDUCTIONS:
        golden(
            "nll",
            reduction,
            source,
            lambda x: F.nll_loss(x, t(IDS), reduction=reduction),
            [log_probs, IDS],
            reduction=reduction,
        )
        golden(
            "nll",
            f"class weights ignore {reduction}",
            source,
            lambda x: F.nll_loss(
                x, t(MAP_IGNORING), weight=t(MAP_WEIGHTS), ignore_index=255, reduction=reduction
            ),
            [log_map, MAP_IGNORING],
            axis=1,
            class_weights=MAP_WEIGHTS,
            ignore_index=255,
            reduction=reduction,
        )


def cross_entropy():
    source = "torch.nn.functional.cross_entropy"

    def ids(case, logits, labels, torch_options=(), **options):
        golden(
            "cross_entropy",
            case,
            source,
            lambda x: F.cross_entropy(x, t(labels), **dict(torch_options)),
            [logits, labels],
            **options,
        )

    for reduction in REDUCTIONS:
        ids(reduction, X, IDS, {"reduction": reduction}, reduction=reduction)
        ids(
            f"class weights {reduction}",
            X,
            IDS,
            {"weight": t(CLASS_WEIGHTS), "reduction": reduction},
            class_weights=CLASS_WEIGHTS,
            reduction=reduction,
        )
        ids(
            f"ignore {reduction}",
            X,
            IGNORING,
            {"reduction": reduction},
            ignore_index=-100,
            reduction=reduction,
        )
        ids(
            f"smoothing {reduction}",
            X,
            IDS,
            {"label_smoothing": 0.1, "reduction": reduction},
            label_smoothing=0.1,
            reduction=reduction,
        )
        # Class weights enter the smoothed sum class by class, the denominator by the true label.
        ids(
            f"smoothing class weights {reduction}",
            X,
            IDS,
            {"label_smoothing": 0.3, "weight": t(CLASS_WEIGHTS), "reduction": reduction},
            label_smoothing=0.3,
            class_weights=CLASS_WEIGHTS,
            reduction=reduction,
        )
        ids(
            f"image smoothing class weights ignore {reduction}",
            PIXELS,
            MAP_IGNORING,
            {
                "label_smoothing": 0.2,
                "weight": t(MAP_WEIGHTS),
                "ignore_index": 255,
                "reduction": reduction,
            },
            axis=1,
            label_smoothing=0.2,
            class_weights=MAP_WEIGHTS,
            ignore_index=255,
            reduction=reduction,
        )
        golden(
            "cross_entropy",
            f"soft {reduction}",
            source,
            lambda x: F.cross_entropy(x, t(SOFT), reduction=reduction),
            [X, SOFT],
            reduction=reduction,
        )
    ids("image", PIXELS, MAP, axis=1)
    ids(
        "image class weights",
        PIXELS,
        MAP,
        {"weight": t(MAP_WEIGHTS)},
        axis=1,
        class_weights=MAP_WEIGHTS,
    )
    ids("image ignore", PIXELS, MAP_IGNORING, {"ignore_index": 255}, axis=1, ignore_index=255)
    ids("volume", VOLUME, VOLUME_IDS, axis=1)
    ids("large logits", np.round(60 * X, 3), IDS)
    golden(
        "cross_entropy",
        "one-hot image",
        source,
        lambda x: F.cross_entropy(x, t(one_hot(MAP, 3))),
        [PIXELS, one_hot(MAP, 3)],
        axis=1,
    )
    golden(
        "cross_entropy",
        "soft smoothing",
        source,
        lambda x: F.cross_entropy(x, t(SOFT), label_smoothing=0.1),
        [X, SOFT],
        label_smoothing=0.1,
    )
    # For soft labels torch divides by the number of positions, weights or not: ours by the
    # weights of the labels before smoothing.
    positions_per_weight = len(SOFT) / (SOFT * CLASS_WEIGHTS).sum()
    for smoothing in (0.0, 0.2):
        golden(
            "cross_entropy",
            f"soft class weights smoothing {smoothing}",
            source,
            lambda x: F.cross_entropy(
                x, t(SOFT), weight=t(CLASS_WEIGHTS), label_smoothing=smoothing
            ),
            [X, SOFT],
            scale=positions_per_weight,
            class_weights=CLASS_WEIGHTS,
            label_smoothing=smoothing,
        )
    # This one's mean counts the ignored positions too.
    golden(
        "cross_entropy",
        "image smoothing ignore, smp",
        "segmentation_models_pytorch.losses.SoftCrossEntropyLoss",
        lambda x: smp.SoftCrossEntropyLoss(smooth_factor=0.1, ignore_index=255)(x, t(MAP_IGNORING)),
        [PIXELS, MAP_IGNORING],
        scale=MAP.size / (MAP_IGNORING != 255).sum(),
        axis=1,
        label_smoothing=0.1,
        ignore_index=255,
    )


def binary_cross_entropy():
    source = "torch.nn.functional.binary_cross_entropy_with_logits"
    bce = F.binary_cross_entropy_with_logits
    for reduction in REDUCTIONS:
        golden(
            "binary_cross_entropy",
            reduction,
            source,
            lambda x: bce(x, t(BITS), reduction=reduction),
            [X, BITS],
            reduction=reduction,
        )
        golden(
            "binary_cross_entropy",
            f"pos_weight {reduction}",
            source,
            lambda x: bce(x, t(BITS), pos_weight=t(3.0), reduction=reduction),
            [X, BITS],
            pos_weight=3.0,
            reduction=reduction,
        )
        golden(
            "binary_cross_entropy",
            f"probabilities {reduction}",
            "torch.nn.functional.binary_cross_entropy",
            lambda x: F.binary_cross_entropy(x, t(BITS), reduction=reduction),
            [UNIT, BITS],
            activation=None,
            reduction=reduction,
        )
    golden("binary_cross_entropy", "soft", source, lambda x: bce(x, t(SOFT)), [X, SOFT])
    golden(
        "binary_cross_entropy",
        "large logits",
        source,
        lambda x: bce(x, t(BITS)),
        [np.round(60 * X, 3), BITS],
    )
    golden(
        "binary_cross_entropy",
        "pos_weight per class",
        source,
        lambda x: bce(x, t(BITS), pos_weight=t(CLASS_WEIGHTS)),
        [X, BITS],
        pos_weight=CLASS_WEIGHTS,
    )
    golden(
        "binary_cross_entropy",
        "pos_weight soft",
        source,
        lambda x: bce(x, t(SOFT), pos_weight=t(0.4)),
        [X, SOFT],
        pos_weight=0.4,
    )
    golden(
        "binary_cross_entropy",
        "image",
        source,
        lambda x: bce(x, t(MULTI_LABEL)),
        [PIXELS, MULTI_LABEL],
        axis=1,
    )
    golden(
        "binary_cross_entropy",
        "no class axis",
        source,
        lambda x: bce(x, t(MASK)),
        [BINARY, MASK],
        axis=None,
    )
    golden(
        "binary_cross_entropy",
        "probabilities soft",
        "torch.nn.functional.binary_cross_entropy",
        lambda x: F.binary_cross_entropy(x, t(SOFT)),
        [UNIT, SOFT],
        activation=None,
    )
    # Values only: torch's backward pass puts 1e-12 into the denominator p(1-p).
    golden(
        "binary_cross_entropy",
        "probabilities 0 and 1",
        "torch.nn.functional.binary_cross_entropy",
        lambda x: F.binary_cross_entropy(x, t(BITS[:2]), reduction="none"),
        [np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), BITS[:2]],
        activation=None,
        reduction="none",
        gradient=False,
    )
    # torch divides by the count of elements, ours by the sum of the weights.
    golden(
        "binary_cross_entropy",
        "weights mean",
        source,
        lambda x: bce(x, t(BITS), weight=t(POSITIVE)),
        [X, BITS],
        scale=POSITIVE.size / POSITIVE.sum(),
        weights=POSITIVE,
    )
    golden(
        "binary_cross_entropy",
        "weights sum",
        source,
        lambda x: bce(x, t(BITS), weight=t(POSITIVE), reduction="sum"),
        [X, BITS],
        weights=POSITIVE,
        reduction="sum",
    )
    golden(
        "binary_cross_entropy",
        "class weights",
        source,
        lambda x: bce(x, t(BITS), weight=t(CLASS_WEIGHTS)),
        [X, BITS],
        scale=4 / CLASS_WEIGHTS.sum(),
        class_weights=CLASS_WEIGHTS,
    )
    golden(
        "binary_cross_entropy",
        "image class weights",
        source,
        lambda x: bce(x, t(MULTI_LABEL), weight=t(MAP_WEIGHTS)[:, None, None]),
        [PIXELS, MULTI_LABEL],
        scale=3 / MAP_WEIGHTS.sum(),
        axis=1,
        class_weights=MAP_WEIGHTS,
    )
    # Its smooth_factor is half of ours (targets 0 and 1 become s and 1-s), and its mean counts
    # the ignored elements.
    golden(
        "binary_cross_entropy",
        "smoothing ignore, smp",
        "segmentation_models_pytorch.losses.SoftBCEWithLogitsLoss",
        lambda x: smp.SoftBCEWithLogitsLoss(smooth_factor=0.05, ignore_index=255)(
            x, t(MASK_IGNORING)
        ),
        [BINARY, MASK_IGNORING],
        scale=MASK.size / (MASK_IGNORING != 255).sum(),
        axis=None,
        label_smoothing=0.1,
        ignore_index=255,
    )
    golden(
        "binary_cross_entropy",
        "smoothing, smp",
        "segmentation_models_pytorch.losses.SoftBCEWithLogitsLoss",
        lambda x: smp.SoftBCEWithLogitsLoss(smooth_factor=0.1)(x, t(BITS)),
        [X, BITS],
        label_smoothing=0.2,
    )


def sigmoid_focal():
    tv = "torchvision.ops.sigmoid_focal_loss"
    monai = "monai.losses.focal_loss.sigmoid_focal_loss"
    for gamma in (0.0, 0.5, 1.5, 2.0, 5.0):
        for alpha in (None, 0.25):
            # torchvision spells "no alpha" -1.
            golden(
                "sigmoid_focal",
                f"gamma {gamma} alpha {alpha}",
                tv,
                lambda x: tv_sigmoid_focal(
                    x, t(BITS), -1 if alpha is None else alpha, gamma, "mean"
                ),
                [X, BITS],
                gamma=gamma,
                alpha=alpha,
            )
    for reduction in REDUCTIONS:
        golden(
            "focal",
            f"{reduction} auto sigmoid",
            tv,
            lambda x: tv_sigmoid_focal(x, t(BITS), -1, 2.0, reduction),
            [X, BITS],
            reduction=reduction,
        )
        golden(
            "sigmoid_focal",
            f"soft {reduction}",
            tv,
            lambda x: tv_sigmoid_focal(x, t(SOFT), 0.75, 1.5, reduction),
            [X, SOFT],
            gamma=1.5,
            alpha=0.75,
            reduction=reduction,
        )
    golden(
        "sigmoid_focal",
        "image",
        tv,
        lambda x: tv_sigmoid_focal(x, t(MULTI_LABEL), 0.25, 2.0, "mean"),
        [PIXELS, MULTI_LABEL],
        axis=1,
        alpha=0.25,
    )
    # Smoothing is that of the targets, y(1-e) + e/2, before anything else.
    golden(
        "sigmoid_focal",
        "smoothing",
        tv,
        lambda x: tv_sigmoid_focal(x, t(BITS) * 0.8 + 0.1, -1, 2.0, "mean"),
        [X, BITS],
        label_smoothing=0.2,
    )
    # torchvision's gradient is NaN on saturated logits for gamma < 1; MONAI stays in log space.
    for gamma in (0.5, 2.0):
        golden(
            "sigmoid_focal",
            f"large logits gamma {gamma}",
            monai,
            lambda x: monai_sigmoid_focal(x, t(BITS), gamma, 0.25).mean(),
            [np.round(10 * X, 3), BITS],
            gamma=gamma,
            alpha=0.25,
        )
    golden(
        "sigmoid_focal",
        "no class axis ignore, smp",
        "segmentation_models_pytorch.losses.FocalLoss",
        lambda x: smp.FocalLoss("binary", alpha=0.25, gamma=1.5, ignore_index=255)(
            x, t(MASK_IGNORING)
        ),
        [BINARY, MASK_IGNORING],
        axis=None,
        alpha=0.25,
        gamma=1.5,
        ignore_index=255,
    )
    # Its "multiclass" mode is no softmax but one class against the rest, by sigmoids.
    golden(
        "focal",
        "ids one against the rest ignore, smp",
        "segmentation_models_pytorch.losses.FocalLoss",
        lambda x: smp.FocalLoss("multiclass", ignore_index=255)(x, t(MAP_IGNORING)),
        [PIXELS, MAP_IGNORING],
        axis=1,
        activation="sigmoid",
        ignore_index=255,
    )
    golden(
        "sigmoid_focal",
        "class weights, smp",
        "segmentation_models_pytorch.losses.FocalLoss",
        lambda x: smp.FocalLoss("multilabel", class_weights=MAP_WEIGHTS)(x, t(MULTI_LABEL)),
        [PIXELS, MULTI_LABEL],
        axis=1,
        class_weights=MAP_WEIGHTS,
    )


def softmax_focal():
    monai = "monai.losses.focal_loss.softmax_focal_loss"
    functional = "segmentation_models_pytorch.losses._functional.softmax_focal_loss_with_logits"
    smp_focal = smp_functional.softmax_focal_loss_with_logits

    for gamma in (0.0, 0.5, 1.5, 2.0, 5.0):
        golden(
            "softmax_focal",
            f"gamma {gamma}, smp",
            functional,
            lambda x: smp_focal(x, t(IDS), gamma),
            [X, IDS],
            gamma=gamma,
        )
        # MONAI keeps a term per class, all 0 but the label's: the sum over classes is ours.
        golden(
            "softmax_focal",
            f"image gamma {gamma}",
            monai,
            lambda x: monai_softmax_focal(x, t(one_hot(MAP, 3)), gamma).sum(1).mean(),
            [PIXELS, MAP],
            axis=1,
            gamma=gamma,
        )
    for reduction in REDUCTIONS:
        golden(
            "focal",
            f"{reduction} auto softmax, smp",
            functional,
            lambda x: smp_focal(x, t(MAP), 2.0, reduction),
            [PIXELS, MAP],
            axis=1,
            reduction=reduction,
        )
    golden(
        "focal",
        "one-hot softmax, smp",
        functional,
        lambda x: smp_focal(x, t(MAP), 1.5),
        [PIXELS, one_hot(MAP, 3)],
        axis=1,
        activation="softmax",
        gamma=1.5,
    )
    golden(
        "softmax_focal",
        "soft",
        monai,
        lambda x: monai_softmax_focal(x, t(SOFT), 2.0).sum(1).mean(),
        [X, SOFT],
    )
    golden(
        "softmax_focal",
        "soft none",
        monai,
        lambda x: monai_softmax_focal(x, t(SOFT), 1.5).sum(1),
        [X, SOFT],
        gamma=1.5,
        reduction="none",
    )
    alpha = t([0.2, 0.9, 0.4])
    golden(
        "softmax_focal",
        "image alpha per class",
        monai,
        lambda x: monai_softmax_focal(x, t(one_hot(MAP, 3)), 2.0, alpha).sum(1).mean(),
        [PIXELS, MAP],
        axis=1,
        alpha=alpha.numpy(),
    )
    # MONAI's number alpha means [1-alpha, alpha, alpha, ...]: class 0 is background there.
    golden(
        "softmax_focal",
        "image alpha of background",
        monai,
        lambda x: monai_softmax_focal(x, t(one_hot(MAP, 3)), 2.0, 0.75).sum(1).mean(),
        [PIXELS, MAP],
        axis=1,
        alpha=np.array([0.25, 0.75, 0.75]),
    )
    # alpha divided out of the mean is what we call class weights.
    golden(
        "softmax_focal",
        "class weights",
        monai,
        lambda x: monai_softmax_focal(x, t(one_hot(IDS, 4)), 2.0, t(CLASS_WEIGHTS)).sum(1).mean(),
        [X, IDS],
        scale=len(IDS) / CLASS_WEIGHTS[IDS].sum(),
        class_weights=CLASS_WEIGHTS,
    )
    golden(
        "softmax_focal",
        "smoothing",
        monai,
        lambda x: monai_softmax_focal(x, 0.9 * t(one_hot(IDS, 4)) + 0.1 / 4, 2.0).sum(1).mean(),
        [X, IDS],
        label_smoothing=0.1,
    )
    # The class computes in float32, and its mean counts every class: 3 times smaller than ours.
    # With ignored pixels it counts the pixels only, so that no factor is left.
    golden(
        "softmax_focal",
        "image, class",
        "monai.losses.FocalLoss",
        lambda x: FocalLoss(to_onehot_y=True, use_softmax=True)(x, t(MAP)[:, None]),
        [PIXELS, MAP],
        scale=3,
        axis=1,
        rtol=2e-6,
    )
    golden(
        "softmax_focal",
        "image ignore, class",
        "monai.losses.FocalLoss",
        lambda x: FocalLoss(to_onehot_y=True, use_softmax=True, ignore_index=255)(
            x, t(MAP_IGNORING)[:, None]
        ),
        [PIXELS, MAP_IGNORING],
        axis=1,
        ignore_index=255,
        rtol=2e-6,
    )


# MONAI adds smooth_nr to 2I and smooth_dr to P + T: our `smooth` is both of them.
def monai_dice(smooth=1.0, **options):
    return DiceLoss(smooth_nr=smooth, smooth_dr=smooth, **options)


def monai_tversky(smooth=1.0, **options):
    return TverskyLoss(smooth_nr=smooth, smooth_dr=smooth, **options)


def dice():
    source = "monai.losses.DiceLoss"

    def ids(case, monai_options=(), logits=PIXELS, labels=MAP, scale=1.0, **options):
        monai_options = dict(monai_options)
        if "squared_pred" in monai_options:
            # MONAI's own one-hot is float32, in which the norm it squares is rounded.
            target = t(one_hot(labels, logits.shape[1]))
        else:
            target = t(labels)[:, None]
            monai_options["to_onehot_y"] = True
        original = monai_dice(softmax=True, **monai_options)
        golden(
            "dice",
            case,
            source,
            lambda x: original(x, target),
            [logits, labels],
            scale=scale,
            axis=1,
            **options,
        )

    ids("softmax")
    ids("softmax sum", {"reduction": "sum"}, reduction="sum")
    for smooth in (0.0, 1e-5, 10.0):
        ids(f"softmax smooth {smooth}", {"smooth": smooth}, smooth=smooth)
    ids("softmax squared", {"squared_pred": True}, squared=True)
    ids("softmax pooled", {"batch": True}, per_image=False)
    ids("softmax foreground", {"include_background": False}, include_background=False)
    ids(
        "softmax foreground pooled squared",
        {"include_background": False, "batch": True, "squared_pred": True},
        include_background=False,
        per_image=False,
        squared=True,
    )
    ids("softmax ignore", {"ignore_index": 255}, labels=MAP_IGNORING, ignore_index=255)
    ids(
        "softmax ignore foreground pooled",
        {"ignore_index": 255, "include_background": False, "batch": True},
        labels=MAP_IGNORING,
        ignore_index=255,
        include_background=False,
        per_image=False,
    )
    ids("volume", logits=VOLUME, labels=VOLUME_IDS)
    ids(
        "volume squared foreground",
        {"squared_pred": True, "include_background": False},
        logits=VOLUME,
        labels=VOLUME_IDS,
        squared=True,
        include_background=False,
    )
    # MONAI multiplies by the weights and divides by the number of classes: ours by their sum.
    weights = np.array([0.5, 2.0, 1.5])
    ids(
        "softmax class weights", {"weight": weights}, scale=3 / weights.sum(), class_weights=weights
    )
    ids("absent class", labels=np.where(MAP == 2, 0, MAP))
    golden(
        "dice",
        "softmax none",
        source,
        lambda x: monai_dice(softmax=True, to_onehot_y=True, reduction="none")(x, t(MAP)[:, None])[
            ..., 0, 0
        ],
        [PIXELS, MAP],
        axis=1,
        reduction="none",
    )
    golden(
        "dice",
        "sigmoid",
        source,
        lambda x: monai_dice(sigmoid=True)(x, t(MULTI_LABEL)),
        [PIXELS, MULTI_LABEL],
        axis=1,
    )
    golden(
        "dice",
        "sigmoid soft",
        source,
        lambda x: monai_dice(sigmoid=True)(x, t(SOFT_MAP)),
        [PIXELS, SOFT_MAP],
        axis=1,
    )
    golden(
        "dice",
        "sigmoid soft squared",
        source,
        lambda x: monai_dice(sigmoid=True, squared_pred=True)(x, t(SOFT_MAP)),
        [PIXELS, SOFT_MAP],
        axis=1,
        squared=True,
    )
    golden(
        "dice",
        "ids one against the rest",
        source,
        lambda x: monai_dice(sigmoid=True, to_onehot_y=True)(x, t(MAP)[:, None]),
        [PIXELS, MAP],
        axis=1,
        activation="sigmoid",
    )
    golden(
        "dice",
        "one-hot softmax",
        source,
        lambda x: monai_dice(softmax=True)(x, t(one_hot(MAP, 3))),
        [PIXELS, one_hot(MAP, 3)],
        axis=1,
        activation="softmax",
    )
    golden(
        "dice",
        "last axis",
        source,
        lambda x: monai_dice(softmax=True, to_onehot_y=True)(x.movedim(-1, 1), t(MAP)[:, None]),
        [np.moveaxis(PIXELS, 1, -1), MAP],
    )
    golden(
        "dice",
        "probabilities",
        source,
        lambda x: monai_dice()(x, t(MULTI_LABEL)),
        [PROBABILITIES, MULTI_LABEL],
        axis=1,
        activation=None,
    )
    golden(
        "dice",
        "no class axis",
        source,
        lambda x: monai_dice(sigmoid=True)(x[:, None], t(MASK)[:, None]),
        [BINARY, MASK],
        axis=None,
    )
    golden(
        "dice",
        "no class axis none",
        source,
        lambda x: monai_dice(sigmoid=True, reduction="none")(
            x[:, None], t(MASK)[:, None]
        ).flatten(),
        [BINARY, MASK],
        axis=None,
        reduction="none",
    )
    where = MAP_IGNORING != 255
    golden(
        "dice",
        "where",
        "monai.losses.MaskedDiceLoss",
        lambda x: MaskedDiceLoss(softmax=True, smooth_nr=1.0, smooth_dr=1.0)(
            x, t(one_hot(MAP, 3)), t(where[:, None].astype(float))
        ),
        [PIXELS, MAP],
        axis=1,
        where=where,
    )

    # SMP sums over the batch before the ratio, and its smooth is half of ours:
    # (I + s)/(I + FP/2 + FN/2 + s) = (2I + 2s)/(P + T + 2s).
    source = "segmentation_models_pytorch.losses.DiceLoss"
    golden(
        "dice",
        "softmax pooled, smp",
        source,
        lambda x: smp.DiceLoss("multiclass", smooth=0.5)(x, t(MAP)),
        [PIXELS, MAP],
        axis=1,
        smooth=1.0,
        per_image=False,
    )
    golden(
        "dice",
        "softmax pooled ignore class weights, smp",
        source,
        lambda x: smp.DiceLoss("multiclass", smooth=0.5, ignore_index=255, class_weights=weights)(
            x, t(MAP_IGNORING)
        ),
        [PIXELS, MAP_IGNORING],
        axis=1,
        smooth=1.0,
        per_image=False,
        ignore_index=255,
        class_weights=weights,
    )
    golden(
        "dice",
        "sigmoid pooled, smp",
        source,
        lambda x: smp.DiceLoss("multilabel", smooth=0.5)(x, t(MULTI_LABEL)),
        [PIXELS, MULTI_LABEL],
        axis=1,
        smooth=1.0,
        per_image=False,
    )
    golden(
        "dice",
        "no class axis pooled ignore, smp",
        source,
        lambda x: smp.DiceLoss("binary", ignore_index=255)(x[:, None], t(MASK_IGNORING)),
        [BINARY, MASK_IGNORING],
        axis=None,
        smooth=0.0,
        per_image=False,
        ignore_index=255,
    )


def jaccard():
    # MONAI: (2I + s)/(2U + s), so its smooth is twice ours.
    source = "monai.losses.DiceLoss(jaccard=True)"

    def monai_jaccard(smooth=1.0, **options):
        return monai_dice(jaccard=True, smooth=2 * smooth, **options)

    def ids(case, monai_options=(), labels=MAP, **options):
        original = monai_jaccard(softmax=True, to_onehot_y=True, **dict(monai_options))
        golden(
            "jaccard",
            case,
            source,
            lambda x: original(x, t(labels)[:, None]),
            [PIXELS, labels],
            axis=1,
            **options,
        )

    ids("softmax")
    ids("softmax sum", {"reduction": "sum"}, reduction="sum")
    ids("softmax smooth 1e-5", {"smooth": 1e-5}, smooth=1e-5)
    ids("softmax pooled", {"batch": True}, per_image=False)
    ids("softmax foreground", {"include_background": False}, include_background=False)
    ids("softmax ignore", {"ignore_index": 255}, labels=MAP_IGNORING, ignore_index=255)
    ids("absent class", labels=np.where(MAP == 2, 0, MAP))
    golden(
        "jaccard",
        "softmax none",
        source,
        lambda x: monai_jaccard(softmax=True, to_onehot_y=True, reduction="none")(
            x, t(MAP)[:, None]
        )[..., 0, 0],
        [PIXELS, MAP],
        axis=1,
        reduction="none",
    )
    golden(
        "jaccard",
        "sigmoid soft",
        source,
        lambda x: monai_jaccard(sigmoid=True)(x, t(SOFT_MAP)),
        [PIXELS, SOFT_MAP],
        axis=1,
    )
    golden(
        "jaccard",
        "volume probabilities",
        source,
        lambda x: monai_jaccard()(x, t(one_hot(VOLUME_IDS, 2))),
        [uniform(*VOLUME.shape), one_hot(VOLUME_IDS, 2)],
        axis=1,
        activation=None,
    )

    # SMP sums over the batch before the ratio.
    source = "segmentation_models_pytorch.losses.JaccardLoss"
    golden(
        "jaccard",
        "softmax pooled ignore, smp",
        source,
        lambda x: smp.JaccardLoss("multiclass", smooth=1.0, ignore_index=255)(x, t(MAP_IGNORING)),
        [PIXELS, MAP_IGNORING],
        axis=1,
        per_image=False,
        ignore_index=255,
    )
    golden(
        "jaccard",
        "no class axis pooled, smp",
        source,
        lambda x: smp.JaccardLoss("binary")(x[:, None], t(MASK)),
        [BINARY, MASK],
        axis=None,
        smooth=0.0,
        per_image=False,
    )


def tversky():
    source = "monai.losses.TverskyLoss"

    def ids(case, monai_options=(), labels=MAP, **options):
        original = monai_tversky(softmax=True, to_onehot_y=True, **dict(monai_options))
        golden(
            "tversky",
            case,
            source,
            lambda x: original(x, t(labels)[:, None]),
            [PIXELS, labels],
            axis=1,
            **options,
        )

    ids("softmax")
    ids("softmax sum", {"reduction": "sum"}, reduction="sum")
    ids(
        "softmax none",
        {"reduction": "none", "alpha": 0.3, "beta": 0.7},
        alpha=0.3,
        beta=0.7,
        reduction="none",
    )
    ids("softmax alpha 0.3 beta 0.7", {"alpha": 0.3, "beta": 0.7}, alpha=0.3, beta=0.7)
    ids(
        "softmax alpha 0.9 beta 0.2 smooth 1e-5",
        {"alpha": 0.9, "beta": 0.2, "smooth": 1e-5},
        alpha=0.9,
        beta=0.2,
        smooth=1e-5,
    )
    ids(
        "softmax pooled foreground",
        {"alpha": 0.3, "beta": 0.7, "batch": True, "include_background": False},
        alpha=0.3,
        beta=0.7,
        per_image=False,
        include_background=False,
    )
    ids(
        "softmax ignore",
        {"alpha": 0.3, "beta": 0.7, "ignore_index": 255},
        labels=MAP_IGNORING,
        alpha=0.3,
        beta=0.7,
        ignore_index=255,
    )
    golden(
        "tversky",
        "sigmoid soft",
        source,
        lambda x: monai_tversky(sigmoid=True, alpha=0.7, beta=0.3)(x, t(SOFT_MAP)),
        [PIXELS, SOFT_MAP],
        axis=1,
        alpha=0.7,
        beta=0.3,
    )
    golden(
        "tversky",
        "volume probabilities",
        source,
        lambda x: monai_tversky(alpha=0.3, beta=0.7)(x, t(one_hot(VOLUME_IDS, 2))),
        [uniform(*VOLUME.shape), one_hot(VOLUME_IDS, 2)],
        axis=1,
        activation=None,
        alpha=0.3,
        beta=0.7,
    )
    golden(
        "tversky",
        "softmax pooled, smp",
        "segmentation_models_pytorch.losses.TverskyLoss",
        lambda x: smp.TverskyLoss("multiclass", smooth=1.0, alpha=0.2, beta=0.9)(x, t(MAP)),
        [PIXELS, MAP],
        axis=1,
        alpha=0.2,
        beta=0.9,
        per_image=False,
    )


def boxes():
    # Boxes of 20 to 300 pixels: torchvision's 1e-7 in the union and in the diagonal is then below
    # 1e-9 of them. Where it can be passed, eps is 0. Overlapping, disjoint, one in the other.
    box = np.array(
        [
            [10.0, 20.0, 110.0, 80.0],
            [15.0, 30.0, 45.0, 190.0],
            [300.0, 40.0, 420.0, 90.0],
            [50.0, 60.0, 350.0, 260.0],
            [120.0, 110.0, 180.0, 140.0],
            [5.0, 7.0, 64.0, 301.0],
        ]
    )
    target = np.array(
        [
            [30.0, 10.0, 140.0, 95.0],
            [25.0, 20.0, 75.0, 150.0],
            [20.0, 200.0, 90.0, 240.0],
            [100.0, 90.0, 160.0, 240.0],
            [80.0, 70.0, 300.0, 200.0],
            [11.0, 3.0, 71.0, 290.0],
        ]
    )
    box += uniform(6, 4)
    target += uniform(6, 4)

    def corners(b):
        return torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], -1)

    def centres(b):
        return np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], -1)

    for name, source, peer in [
        ("giou", "torchvision.ops.generalized_box_iou_loss", tv_giou),
        ("ciou", "torchvision.ops.complete_box_iou_loss", tv_ciou),
    ]:
        for reduction in REDUCTIONS:
            golden(
                name,
                reduction,
                source,
                lambda b: peer(b, t(target), reduction, eps=0.0),
                [box, target],
                reduction=reduction,
            )
        golden(
            name,
            "cxcywh",
            source,
            lambda b: peer(corners(b), t(target), "mean", eps=0.0),
            [centres(box), centres(target)],
            format="cxcywh",
        )


def dice_cross_entropy():
    source = "monai.losses.DiceCELoss"

    def ids(case, monai_options=(), logits=PIXELS, labels=MAP, **options):
        monai_options = {"smooth_nr": 1.0, "smooth_dr": 1.0} | dict(monai_options)
        original = DiceCELoss(softmax=True, to_onehot_y=True, **monai_options)
        golden(
            "dice_cross_entropy",
            case,
            source,
            lambda x: original(x, t(labels)[:, None]),
            [logits, labels],
            axis=1,
            **options,
        )

    ids("ids")
    ids("sum", {"reduction": "sum"}, reduction="sum")
    ids("smooth 1e-5", {"smooth_nr": 1e-5, "smooth_dr": 1e-5}, smooth=1e-5)
    ids(
        "two weights",
        {"lambda_dice": 0.3, "lambda_ce": 1.7},
        dice_weight=0.3,
        cross_entropy_weight=1.7,
    )
    ids(
        "foreground pooled",
        {"include_background": False, "batch": True},
        include_background=False,
        per_image=False,
    )
    # These weights sum to the number of classes, so that the two ways to average Dice agree.
    ids("class weights", {"weight": t(MAP_WEIGHTS)}, class_weights=MAP_WEIGHTS)
    # Only the cross-entropy is smoothed.
    ids("smoothing", {"label_smoothing": 0.1}, label_smoothing=0.1)
    ids("volume", logits=VOLUME, labels=VOLUME_IDS)
    golden(
        "dice_cross_entropy",
        "one-hot softmax",
        source,
        lambda x: DiceCELoss(softmax=True, smooth_nr=1.0, smooth_dr=1.0)(x, t(one_hot(MAP, 3))),
        [PIXELS, one_hot(MAP, 3)],
        axis=1,
        activation="softmax",
    )
    golden(
        "dice_cross_entropy",
        "squared",
        source,
        lambda x: DiceCELoss(softmax=True, squared_pred=True, smooth_nr=1.0, smooth_dr=1.0)(
            x, t(one_hot(MAP, 3))
        ),
        [PIXELS, MAP],
        axis=1,
        squared=True,
    )
    golden(
        "dice_cross_entropy",
        "no class axis",
        source,
        lambda x: DiceCELoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(
            x[:, None], t(MASK)[:, None]
        ),
        [BINARY, MASK],
        axis=None,
    )


def signed_distance(mask):
    """Kervadec's map: outside +d, inside -(d - 1); 0 where the mask is empty or full.

    The authors' one_hot2dist writes the distances into an integer array, as its data loader
    hands it an integer one-hot, and so truncates them; theirs are meant to be floats, as here.
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return np.where(mask, 1 - distance_transform_edt(mask), distance_transform_edt(~mask))


def boundary():
    source = "mean of phi * p (1812.07032), phi by scipy.ndimage.distance_transform_edt"
    logits = normal(2, 3, 6, 7)
    ids = np.zeros((2, 6, 7), int)
    ids[0, 1:5, 1:4] = 1
    ids[0, 3:, 5:] = 2
    ids[1, :4, 2:] = 2  # class 1 is absent from this image: its map is 0
    classes = one_hot(ids, 3)
    overlapping = classes.copy()
    overlapping[:, 1, 2:4, 3:6] = 1
    overlapping[1, 0] = 1  # a full mask: its map is 0
    phi = np.stack([[signed_distance(c == 1) for c in image] for image in classes])
    phi_overlapping = np.stack([[signed_distance(c == 1) for c in image] for image in overlapping])
    given = normal(2, 3, 6, 7)

    golden(
        "boundary",
        "ids",
        source,
        lambda x: (t(phi) * x.softmax(1))[:, 1:].mean(),
        [logits, ids],
        axis=1,
    )
    golden(
        "boundary",
        "ids none",
        source,
        lambda x: (t(phi) * x.softmax(1))[:, 1:].mean((2, 3)),
        [logits, ids],
        axis=1,
        reduction="none",
    )
    golden(
        "boundary",
        "ids with background",
        source,
        lambda x: (t(phi) * x.softmax(1)).mean(),
        [logits, ids],
        axis=1,
        include_background=True,
    )
    golden(
        "boundary",
        "one-hot softmax",
        source,
        lambda x: (t(phi) * x.softmax(1))[:, 1:].mean(),
        [logits, classes],
        axis=1,
        activation="softmax",
    )
    golden(
        "boundary",
        "sigmoid",
        source,
        lambda x: (t(phi_overlapping) * x.sigmoid()).mean(),
        [logits, overlapping],
        axis=1,
    )
    golden(
        "boundary",
        "probabilities",
        source,
        lambda p: (t(phi_overlapping) * p).mean(),
        [uniform(*logits.shape), overlapping],
        axis=1,
        activation=None,
        include_background=True,
    )
    golden(
        "boundary",
        "no class axis",
        source,
        lambda x: (t(phi[:, 1]) * x.sigmoid()).mean(),
        [logits[:, 1], classes[:, 1]],
        axis=None,
    )
    golden(
        "boundary",
        "given map",
        "mean of phi * p (1812.07032)",
        lambda x: (t(given) * x.softmax(1))[:, 1:].mean(),
        [logits, ids],
        axis=1,
        distance_map=given,
    )
    volume = np.zeros((1, 4, 4, 5))
    volume[0, 1:4, 1:3, 1:4] = 1
    golden(
        "boundary",
        "volume",
        source,
        lambda x: (t(signed_distance(volume[0] == 1)) * x.sigmoid()).mean(),
        [normal(*volume.shape), volume],
        axis=None,
    )


def main():
    regression()
    nll()
    cross_entropy()
    binary_cross_entropy()
    sigmoid_focal()
    softmax_focal()
    dice()
    jaccard()
    tversky()
    boxes()
    dice_cross_entropy()
    boundary()
    other_errors()  # last: the numbers of the rows above stay what they were
    write("goldens.json")


if __name__ == "__main__":
    main()
