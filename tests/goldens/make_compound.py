"""Golden numbers of the compound losses: writes compound.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_compound.py

MONAI and PyTorch run themselves. What has no package, or one that differs from its paper, is
written anew here in PyTorch from the paper and differentiated by it.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, FocalLoss
from peers import (
    BINARY,
    MAP,
    MAP_IGNORING,
    MAP_WEIGHTS,
    MASK,
    MULTI_LABEL,
    PIXELS,
    PROBABILITIES,
    SOFT_MAP,
    VOLUME,
    VOLUME_IDS,
    golden,
    one_hot,
    t,
    write,
)

unified = importlib.import_module("monai.losses.unified_focal_loss")

ONE = {"smooth_nr": 1.0, "smooth_dr": 1.0}
HOT = one_hot(MAP, 3)
ROUNDED = 2e-6  # MONAI's FocalLoss rounds its input to float32
PAIR = (MAP == 1).astype(int)  # two classes


def dice_of(p, y, smooth=1.0):
    """1 - Dice of each image and class, channels second."""
    axes = tuple(range(2, p.ndim))
    return 1 - (2 * (p * y).sum(axes) + smooth) / (p.sum(axes) + y.sum(axes) + smooth)


def dice_focal():
    golden(
        "dice_focal",
        "multi-label",
        "monai.losses.DiceFocalLoss",
        lambda x: DiceFocalLoss(sigmoid=True, **ONE)(x, t(MULTI_LABEL)),
        [PIXELS, MULTI_LABEL],
        rtol=ROUNDED,
        axis=1,
    )
    golden(
        "dice_focal",
        "multi-label options",
        "monai.losses.DiceFocalLoss",
        lambda x: DiceFocalLoss(
            sigmoid=True, gamma=0.5, alpha=0.3, lambda_dice=0.4, lambda_focal=1.7, batch=True, **ONE
        )(x, t(MULTI_LABEL)),
        [PIXELS, MULTI_LABEL],
        rtol=ROUNDED,
        axis=1,
        gamma=0.5,
        alpha=0.3,
        dice_weight=0.4,
        focal_weight=1.7,
        per_image=False,
    )
    golden(
        "dice_focal",
        "no class axis",
        "monai.losses.DiceFocalLoss",
        lambda x: DiceFocalLoss(sigmoid=True, **ONE)(x[:, None], t(MASK)[:, None]),
        [BINARY, MASK],
        rtol=ROUNDED,
        axis=None,
    )
    for gamma in (0.5, 2.0):
        golden(
            "dice_focal",
            f"ids gamma {gamma}",
            # DiceFocalLoss(softmax=True) has a sigmoid focal loss; FocalLoss divides by classes.
            "monai.losses.DiceLoss + 3 FocalLoss(use_softmax=True)",
            lambda x: (
                DiceLoss(softmax=True, **ONE)(x, t(HOT))
                + 3 * FocalLoss(use_softmax=True, gamma=gamma)(x, t(HOT))
            ),
            [PIXELS, MAP],
            rtol=ROUNDED,
            axis=1,
            gamma=gamma,
        )


def dice_top_k():
    source = "monai.losses.DiceLoss + the mean of torch.topk(cross_entropy)"

    def ids(case, count, labels=MAP, **options):
        kept = labels != 255
        clean = np.where(kept, labels, 0)
        hot, shown = one_hot(clean, 3), t(kept.astype(float))[:, None]

        def original(x):
            dice = dice_of(x.softmax(1) * shown, t(hot) * shown).mean()
            each = F.cross_entropy(x, t(labels), reduction="none", ignore_index=255)
            return dice + each.flatten().topk(count)[0].mean()

        golden("dice_top_k", case, source, original, [PIXELS, labels], axis=1, **options)

    ids("ids", 2)  # a tenth of 24 pixels
    ids("ids half", 12, fraction=0.5)
    ids("ignored", 10, MAP_IGNORING, fraction=0.5, ignore_index=255)  # of 21
    golden(
        "dice_top_k",
        "multi-label",
        "monai.losses.DiceLoss + the mean of torch.topk(binary_cross_entropy_with_logits)",
        lambda x: (
            DiceLoss(sigmoid=True, **ONE)(x, t(MULTI_LABEL))
            + F.binary_cross_entropy_with_logits(x, t(MULTI_LABEL), reduction="none")
            .flatten()
            .topk(18)[0]
            .mean()
        ),
        [PIXELS, MULTI_LABEL],
        axis=1,
        fraction=0.25,
    )


def combo():
    source = "alpha CE - (1 - alpha) Dice (1805.02798), plus 1 - alpha"

    def original(p, y, alpha, beta):
        entropy = -(beta * y * p.log() + (1 - beta) * (1 - y) * (1 - p).log()).mean()
        return alpha * entropy - (1 - alpha) * (1 - dice_of(p, y)).mean()

    for alpha, beta in ((0.5, 0.5), (0.3, 0.8)):
        options = {"alpha": alpha, "beta": beta, "axis": 1, "shift": 1 - alpha}
        case = f"alpha {alpha} beta {beta}"
        golden(
            "combo",
            f"ids {case}",
            source,
            lambda x: original(x.softmax(1), t(HOT), alpha, beta),
            [PIXELS, MAP],
            **options,
        )
        golden(
            "combo",
            f"multi-label {case}",
            source,
            lambda x: original(x.sigmoid(), t(MULTI_LABEL), alpha, beta),
            [PIXELS, MULTI_LABEL],
            **options,
        )
        golden(
            "combo",
            f"probabilities {case}",
            source,
            lambda x: original(x, t(SOFT_MAP), alpha, beta),
            [np.clip(PROBABILITIES, 0.02, 0.98), SOFT_MAP],
            activation=None,
            **options,
        )


def exp_log():
    source = "w_dice mean (-ln D)^g + w_ce mean w_l (-ln p_l)^g, w_l = sqrt(n / n_l) (1809.00076)"

    def original(x, ids, gamma, w_dice=0.8, w_ce=0.2):
        p, y = x.softmax(1), t(one_hot(ids, x.shape[1]))
        axes = (0, *range(2, x.ndim))
        weight = (y.sum() / y.sum(axes)).sqrt().reshape(1, -1, *[1] * (x.ndim - 2))
        dice = (-(1 - dice_of(p, y)).log()) ** gamma
        entropy = (weight * y).sum(1) * (-(p * y).sum(1).log()) ** gamma
        return w_dice * dice.mean() + w_ce * entropy.mean()

    for gamma in (0.3, 1.0, 2.0):
        golden(
            "exp_log",
            f"gamma {gamma}",
            source,
            lambda x: original(x, MAP, gamma),
            [PIXELS, MAP],
            axis=1,
            gamma=gamma,
        )
    golden(
        "exp_log",
        "volume",
        source,
        lambda x: original(x, VOLUME_IDS, 0.3, 0.4, 1.6),
        [VOLUME, VOLUME_IDS],
        axis=1,
        w_dice=0.4,
        w_cross_entropy=1.6,
    )


def unified_focal():
    for weight, delta, gamma in ((0.5, 0.6, 0.5), (0.3, 0.7, 0.25)):
        numbers = {"delta": delta, "gamma": gamma}
        # MONAI's focal part divides by the two classes, which the authors' does not.
        original = lambda p, y: (
            weight * 2 * unified.AsymmetricFocalLoss(**numbers)(p, y)
            + (1 - weight) * unified.AsymmetricFocalTverskyLoss(**numbers)(p, y)
        )
        golden(
            "unified_focal",
            f"two classes weight {weight} delta {delta} gamma {gamma}",
            "monai.losses.unified_focal_loss, its two parts",
            lambda x: original(x.softmax(1), t(one_hot(PAIR, 2))),
            [PIXELS[:, :2], PAIR],
            axis=1,
            weight=weight,
            **numbers,
        )
        golden(
            "unified_focal",
            f"no class axis weight {weight} delta {delta} gamma {gamma}",
            "monai.losses.unified_focal_loss, its two parts",
            lambda x: original(torch.stack([1 - x.sigmoid(), x.sigmoid()], 1), t(one_hot(PAIR, 2))),
            [BINARY, MASK],
            axis=None,
            weight=weight,
            **numbers,
        )

    def symmetric(p, y, weight, delta, gamma, e=1e-7):
        axes = tuple(range(2, p.ndim))
        tp, fn, fp = ((a * b).sum(axes) for a, b in ((y, p), (y, 1 - p), (1 - y, p)))
        tversky = 1 - (tp + e) / (tp + delta * fn + (1 - delta) * fp + e)
        balance = t([1 - delta] + [delta] * (p.shape[1] - 1)).reshape(1, -1, *[1] * len(axes))
        focal = -(balance * y * (1 - p) ** gamma * p.log()).sum(1)
        return weight * focal.mean() + (1 - weight) * (tversky ** (1 - gamma)).mean()

    golden(
        "unified_focal",
        "symmetric",
        "the symmetric unified focal loss (2102.04525)",
        lambda x: symmetric(x.softmax(1), t(HOT), 0.3, 0.7, 0.25),
        [PIXELS, MAP],
        axis=1,
        asymmetric=False,
        weight=0.3,
        delta=0.7,
        gamma=0.25,
    )


def structural_similarity_cross_entropy():
    source = "the structural similarity loss (1910.08711), by torch.nn.functional.unfold"

    def original(x, y, window, sigma, c, beta, weight):
        taps = torch.exp(-((torch.arange(window) - window // 2) ** 2) / (2 * sigma**2))
        kernel = torch.outer(taps, taps).reshape(1, -1, 1)
        kernel = kernel / kernel.sum()

        def standing(image):
            flat = image.reshape(-1, 1, *image.shape[2:])
            wide = F.pad(flat, [window // 2] * 4, mode="replicate")
            patches = F.unfold(wide, window)
            mean = (kernel * patches).sum(1, keepdim=True)
            deviation = (kernel * (patches - mean) ** 2).sum(1).sqrt()
            mean, deviation = (m.reshape(image.shape) for m in (mean, deviation))
            return (image - mean + c) / (deviation + c)

        error = (standing(y) - standing(x.sigmoid())).abs().detach()
        chosen = error > beta * error.amax((2, 3), keepdim=True)
        entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none")
        similarity = (error * chosen * entropy).sum() / chosen.sum().clamp(min=1)
        return weight * entropy.mean() + (1 - weight) * similarity

    for window, sigma, c, beta, weight in ((3, 1.5, 0.01, 0.1, 0.5), (5, 0.8, 0.1, 0.3, 0.0)):
        options = {"window": window, "sigma": sigma, "beta": beta, "weight": weight}
        for case, labels, target in (("ids", MAP, HOT), ("soft", SOFT_MAP, SOFT_MAP)):
            golden(
                "structural_similarity_cross_entropy",
                f"{case} window {window}",
                source,
                lambda x: original(x, t(target), window, sigma, c, beta, weight),
                [PIXELS, labels],
                axis=1,
                stability=c,
                **options,
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


def main():
    dice_focal()
    dice_top_k()
    combo()
    exp_log()
    unified_focal()
    structural_similarity_cross_entropy()
    dice_cross_entropy()
    write("compound.json")


if __name__ == "__main__":
    main()
