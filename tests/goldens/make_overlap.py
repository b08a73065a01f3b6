"""Golden numbers of Dice, Jaccard and Tversky: writes overlap.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_overlap.py

MONAI and segmentation-models-pytorch run themselves.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
from monai.losses import DiceLoss, MaskedDiceLoss, TverskyLoss
from peers import (
    BINARY,
    MAP,
    MAP_IGNORING,
    MASK,
    MASK_IGNORING,
    MULTI_LABEL,
    PIXELS,
    PROBABILITIES,
    SOFT_MAP,
    VOLUME,
    VOLUME_IDS,
    golden,
    one_hot,
    seek,
    t,
    uniform,
    write,
)

smp = importlib.import_module("segmentation_models_pytorch.losses")


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
    seek(112)

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


def main():
    dice()
    jaccard()
    tversky()
    write("overlap.json")


if __name__ == "__main__":
    main()
