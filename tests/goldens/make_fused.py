"""Golden numbers of losses whose logits never exist: writes fused.json beside this file.

Run by hand in the environment that peers.py describes.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import numpy as np
import torch.nn.functional as F
from peers import REDUCTIONS, golden, t, write

RNG = np.random.default_rng(0)
FEATURES, KERNEL = RNG.normal(size=(6, 4)).round(3), RNG.normal(size=(4, 5)).round(3)
TOKENS = np.array([0, 4, 2, 1, 3, 2])
SMALL = RNG.normal(size=(2, 3, 3, 4)).round(3)
PIXELS = RNG.integers(0, 3, (2, 7, 8))
IGNORED = 2
CLASS_WEIGHTS = np.array([1.0, 2.0, 0.5])
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resized():
    """Larger, smaller, unchanged; lines, images, volumes."""
    source = "torch.nn.functional.interpolate"
    for shape, new in (
        ((2, 2, 5), (9,)),
        ((1, 2, 3, 4), (7, 8)),
        ((1, 2, 6, 5), (3, 1)),
        ((1, 1, 2, 3, 1), (3, 3, 4)),
    ):
        x = RNG.normal(size=shape).round(3)
        for align_corners in (True, False):
            golden(
                "resize_logits",
                f"{len(new)} axes to {new} align_corners {align_corners}",
                source,
                lambda x: F.interpolate(x, new, mode=MODES[len(new)], align_corners=align_corners),
                [x],
                shape=new,
                axis=1,
                align_corners=align_corners,
            )


def upsampled():
    """Cross-entropy of what `interpolate` returns."""
    source = "torch.nn.functional.cross_entropy of interpolate"
    for align_corners in (True, False):
        for reduction in REDUCTIONS:
            golden(
                "upsampled_cross_entropy",
                f"align_corners {align_corners} {reduction}",
                source,
                lambda x: F.cross_entropy(
                    F.interpolate(x, (7, 8), mode="bilinear", align_corners=align_corners),
                    t(PIXELS),
                    weight=t(CLASS_WEIGHTS),
                    ignore_index=IGNORED,
                    label_smoothing=0.1,
                    reduction=reduction,
                ),
                [SMALL, PIXELS],
                axis=1,
                align_corners=align_corners,
                class_weights=CLASS_WEIGHTS,
                ignore_index=IGNORED,
                label_smoothing=0.1,
                reduction=reduction,
            )


def linear():
    """Cross-entropy of what `linear` returns."""
    for reduction in REDUCTIONS:
        golden(
            "linear_cross_entropy",
            reduction,
            "torch.nn.functional.cross_entropy of linear",
            lambda x: F.cross_entropy(
                F.linear(x, t(KERNEL.T)),
                t(TOKENS),
                ignore_index=IGNORED,
                label_smoothing=0.1,
                reduction=reduction,
            ),
            [FEATURES, KERNEL, TOKENS],
            ignore_index=IGNORED,
            label_smoothing=0.1,
            reduction=reduction,
        )


resized()
upsampled()
linear()
write("fused.json")
