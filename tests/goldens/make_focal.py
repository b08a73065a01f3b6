"""Golden numbers of focal losses: writes focal.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_focal.py

torchvision, MONAI and segmentation-models-pytorch run themselves.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
from monai.losses import FocalLoss
from monai.losses.focal_loss import sigmoid_focal_loss as monai_sigmoid_focal
from monai.losses.focal_loss import softmax_focal_loss as monai_softmax_focal
from peers import (
    BINARY,
    BITS,
    CLASS_WEIGHTS,
    IDS,
    MAP,
    MAP_IGNORING,
    MAP_WEIGHTS,
    MASK_IGNORING,
    MULTI_LABEL,
    PIXELS,
    REDUCTIONS,
    SOFT,
    X,
    golden,
    one_hot,
    t,
    write,
)

smp = importlib.import_module("segmentation_models_pytorch.losses")
smp_functional = importlib.import_module("segmentation_models_pytorch.losses._functional")
tv_sigmoid_focal = importlib.import_module("torchvision.ops.focal_loss").sigmoid_focal_loss


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


def main():
    sigmoid_focal()
    softmax_focal()
    write("focal.json")


if __name__ == "__main__":
    main()
