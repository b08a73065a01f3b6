"""Golden numbers of cross-entropies: writes cross_entropy.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_cross_entropy.py

PyTorch and segmentation-models-pytorch run themselves.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
import torch.nn.functional as F
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
    REDUCTIONS,
    SOFT,
    UNIT,
    VOLUME,
    VOLUME_IDS,
    X,
    golden,
    one_hot,
    seek,
    t,
    uniform,
    write,
)

smp = importlib.import_module("segmentation_models_pytorch.losses")


def nll():
    source = "torch.nn.functional.nll_loss"
    seek(20)
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


def main():
    nll()
    cross_entropy()
    binary_cross_entropy()
    write("cross_entropy.json")


if __name__ == "__main__":
    main()
