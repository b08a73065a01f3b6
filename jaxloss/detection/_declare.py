"""What heads and assigners share: one program for each structure, and the meaning of arguments."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypedDict, get_args

from jaxloss import _boxes
from jaxloss._core.declare import Family, family
from jaxloss.options import Interval, Numbers

Sizes: TypeAlias = Annotated[Numbers, Interval("(0, inf)", scalar=False)]
BoxLoss: TypeAlias = Literal["ciou", "diou", "giou", "iou"]
BOX_LOSSES = {name: getattr(_boxes, name) for name in get_args(BoxLoss)}


class _Options(TypedDict):
    """There are none that all share."""


detection = family(
    Family(
        _Options,
        {
            "anchors": "Anchors xyxy in pixels, `[N, 4]`, the same for all images.",
            "axis_name": "Mesh axis over which all sums and counts, the batch's size too, are "
            "global inside `shard_map` or `pmap`.",
            "background_weight": "The weight of unmatched queries in the cross-entropy.",
            "box_gain": "Factor of the boxes.",
            "boxes": "Boxes xyxy in pixels, `[B, M, 4]`.",
            "class_gain": "Factor of the classification.",
            "cost_class": "Factor of the class in the cost.",
            "distribution_gain": "Factor of the distributions.",
            "labels": "Their classes, integer ids `[B, M]`. One that is none of the classes, on a "
            "valid slot, makes the loss, or an assigner's weights, NaN.",
            "points": "Points (x, y) in pixels, `[N, 2]`, the same for all images.",
            "predicted_boxes": "Boxes xyxy in pixels, `[B, N, 4]`, floating.",
            "reg_max": "Bins of each distance.",
            "strides": "Pixels per cell, one number for each level.",
            "top_k": "Points for each box, at most.",
            "valid": "Which slots are taken, bool `[B, M]`.",
        },
        "An `Assignment` with weight 1 in the foreground. No gradient passes.",
        {
            "TypeError": "If predictions (of assigners without them: boxes) are not floating, "
            "labels not integers, `valid` not boolean, or an option unknown or of another type.",
            "ValueError": "If shapes or numbers of levels do not match, an option does not exist, "
            "or a number is out of its range.",
        },
    )
)
