"""The loss of YOLOv5: boxes, objectness and classes on anchors of three or more levels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks, sigmoid
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss._distribution import binary_cross_entropy, sigmoid_focal
from jaxloss.detection._assignment import at_least_one, highest
from jaxloss.detection._by_ratio import ShapeRatio, candidates, read_shapes
from jaxloss.detection._declare import BOX_LOSSES, BoxLoss, detection
from jaxloss.detection._places import Grids, above_0_per_level, of_levels, one_per_level
from jaxloss.detection._targets import Targets, finish, read_targets
from jaxloss.options import Factor, Fraction, Levels, NonNegative, Numbers, Share

__all__ = ["yolo_v5"]

Array = jax.Array

_BALANCE = {3: (4.0, 1.0, 0.4)}
_BALANCE_OF_MORE = (4.0, 1.0, 0.25, 0.06, 0.02)
_FOCAL_ALPHA = 0.25


@detection
def yolo_v5(
    predictions: Levels,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    anchors: Numbers,
    strides: Sequence[float],
    anchor_threshold: ShapeRatio = 4.0,
    box_gain: NonNegative = 0.05,
    objectness_gain: NonNegative = 1.0,
    class_gain: NonNegative = 0.5,
    label_smoothing: Share = 0.0,
    gamma: Factor = 0.0,
    balance: Sequence[float] | None = None,
    objectness_ratio: Fraction = 1.0,
    box_loss: BoxLoss = "ciou",
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the whole loss of YOLOv5: assignment, boxes, objectness and classes.

    The head predicts `t = (tx, ty, tw, th, to, classes)` at each place. With the corner of its cell
    and an anchor of sides `a`, in cells::

        centre = corner + 2 sigmoid(txy) - 1/2        sides = a (2 sigmoid(twh))^2

    Boxes take places by `assign_by_anchor_ratio`. With the means over the pairs of a box and a
    place of level `l`, `B` images, and the gains `g`::

        box             B g_box    sum_l mean(1 - CIoU)
        objectness      B g_obj    sum_l balance_l mean(BCE(to, q))     over all places
        classification  B g_class  sum_l mean(BCE(classes, one-hot))    over classes too

    `q` is the CIoU of the prediction (a constant, at least 0) at a place that has a box, of several
    the largest, and 0 at the others. Boxes that share a place all count in the two other parts.
    Gains for other image sizes, numbers of levels and classes are the caller's:
    YOLOv5 scales them by `3 / levels`, `C / 80` and `(size / 640)^2`.

    An image without boxes has the objectness alone. Invalid slots reach nothing.

    Args:
      predictions: One array per level, `[B, A, H, W, 5 + C]`, floating; the image has the size of
        the grid times the stride.
      anchors: Sides (w, h) of the anchors in pixels, `[levels, A, 2]`.
      anchor_threshold: The ratio of sides from which on box and anchor do not fit, above 1.
      objectness_gain: Factor of the objectness.
      label_smoothing: `s` in targets `1 - s/2` for the class and `s/2` for the others, in `[0, 1)`.
      gamma: Above 0, objectness and classes have the focal loss of this gamma, with alpha 0.25.
      balance: Factors of the levels' objectness. None: 4, 1, 0.4 for three levels, for others the
        first of 4, 1, 0.25, 0.06, 0.02.
      objectness_ratio: `r` in the objectness target `1 - r + r q`, in `[0, 1]`.
      box_loss: `"ciou"`, `"diou"`, `"giou"` or `"iou"`, in the boxes' part and in `q`.

    Returns:
      The total, and its parts `box`, `objectness` and `classification` (0 for one class), with
      gains and batch size in them; float32 for half-precision input.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> total, parts = detection.yolo_v5(
      ...     [jnp.zeros((1, 1, 2, 2, 7))],
      ...     jnp.array([[[6.0, 6.0, 14.0, 14.0]]]),
      ...     jnp.array([[1]]),
      ...     valid=jnp.array([[True]]),
      ...     anchors=[[[8.0, 8.0]]],
      ...     strides=[8],
      ...     balance=[1.0],
      ... )
      >>> print({name: round(float(part), 4) for name, part in parts.items()})
      {'box': 0.0452, 'classification': 0.3466, 'objectness': 0.6931}

    Reference:
      Jocher. YOLOv5, 2020. https://doi.org/10.5281/zenodo.3908559
      Zheng et al. Distance-IoU Loss. AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    levels, grids = _read_levels(predictions)
    dtype, images, classes = levels[0].dtype, len(levels[0]), levels[0].shape[-1] - 5
    targets = read_targets(boxes, labels, valid, images=images, classes=classes, dtype=dtype)
    shapes = read_shapes(anchors, len(levels), targets.boxes)
    if shapes.shape[1] != levels[0].shape[1]:
        expected = f"{levels[0].shape[1]} anchors for each level, as the predictions have"
        checks.fail(ValueError, "anchors", f"of shape {shapes.shape}", expected)
    above_0_per_level(len(levels), strides=strides)
    if balance is None:
        balance = _BALANCE.get(len(levels), _BALANCE_OF_MORE[: len(levels)])
    one_per_level(len(levels), balance=balance)
    checks.option("box_loss", box_loss, BOX_LOSSES)

    batch = everywhere(jnp.asarray(images, dtype), axis_name)
    pairs = _pairs(levels, grids, targets, shapes, strides, anchor_threshold, axis_name)
    objectness = jnp.concatenate([jax.lax.collapse(level[..., 4], 1) for level in levels], 1)
    weights = _balanced(levels, balance) / batch

    taken = pairs.share > 0
    decoded = _decode(jnp.where(taken[..., None], pairs.raw, 0), pairs.anchor)
    costs = BOX_LOSSES[box_loss](
        decoded, pairs.offset, format="cxcywh", where=taken, reduction="none"
    )
    q = jnp.maximum(1 - jax.lax.stop_gradient(costs), 0)
    q = jnp.where(taken, 1 - objectness_ratio + objectness_ratio * q, 0)
    truth = highest(jnp.zeros_like(objectness), pairs.place, q)
    entropy = functools.partial(_entropy, gamma=gamma, axis_name=axis_name)
    parts = {
        "box": everywhere((pairs.share * costs).sum(), axis_name),
        "objectness": entropy(objectness, truth, axis=None, weights=weights),
        "classification": jnp.zeros((), dtype),
    }
    if classes > 1:
        parts["classification"] = entropy(
            pairs.logits,
            pairs.label[..., None] == jnp.arange(classes, dtype=jnp.int32).reshape(1, 1, -1),
            where=taken[..., None],
            weights=pairs.share[..., None] / classes,
            label_smoothing=0.0 if label_smoothing is None else label_smoothing,
        )
    gains = {"box": box_gain, "objectness": objectness_gain, "classification": class_gain}
    parts = {name: batch * gains[name] * part for name, part in parts.items()}
    return finish(parts, targets, axis_name)


def _entropy(logits: Array, truth: Array, *, gamma: Array | None, **options: Any) -> Array:
    """The summed cross-entropies; where `gamma` is above 0, the focal losses."""
    plain = binary_cross_entropy(logits, truth, reduction="sum", **options)
    if gamma is None:
        return plain
    focal = sigmoid_focal(
        logits, truth, gamma=gamma, alpha=_FOCAL_ALPHA, reduction="sum", **options
    )
    return jnp.where(gamma == 0, plain, focal)


def _balanced(levels: list[Array], balance: Sequence[float]) -> Array:
    """What each place counts in the sum of the means over levels, `[1, N]`."""
    counts = [level.shape[1] * level.shape[2] for level in levels]
    each = zip(counts, balance, strict=True)
    factors = [jnp.full((1, n), factor, levels[0].dtype) / n for n, factor in each]
    return jnp.concatenate(factors, 1)


class _Pairs(NamedTuple):
    """Pairs of a box and a place, `[B, K]` each.

    Attributes:
      place: The index of the place.
      raw: What is predicted there of the box, `[B, K, 4]`.
      logits: And of the classes, `[B, K, C]`.
      offset: The box, `[B, K, 4]`, in cells from the place's.
      anchor: The sides of the place's anchor, `[B, K, 2]`, in cells.
      label: The class of the box.
      share: What the pair counts in the mean over its level, 0 where there is none.
    """

    place: Array
    raw: Array
    logits: Array
    offset: Array
    anchor: Array
    label: Array
    share: Array


def _pairs(
    levels: list[Array],
    grids: Grids,
    targets: Targets,
    anchors: Array,
    strides: Sequence[float],
    threshold: Array,
    axis_name: AxisName | None,
) -> _Pairs:
    """The pairs of all levels, whose rows and columns are one axis."""
    pairs = candidates(targets.boxes, targets.valid, anchors, strides, grids, threshold)
    times, full = pairs.times.astype(anchors.dtype), pairs.place.shape
    counts = at_least_one(times.sum((0, 2, 3, 4), keepdims=True), axis_name)
    sides = anchors / jnp.asarray(strides, anchors.dtype)[:, None, None]
    chosen = [_at_cells(level, pairs.cell[:, i]) for i, level in enumerate(levels)]
    joined = lambda numbers: jnp.stack([rows[..., numbers] for rows in chosen], 1)
    filled = _Pairs(
        place=pairs.place,
        raw=joined(slice(4)),
        logits=joined(slice(5, None)),
        offset=pairs.offset,
        anchor=jnp.broadcast_to(sides[None, :, None, None], (*full, 2)),
        label=jnp.broadcast_to(targets.labels[:, None, None, :, None], full),
        share=times / counts,
    )
    return _Pairs(*(jax.lax.collapse(x, 1, 5) for x in filled))


@jax.vmap
def _at_cells(level: Array, cell: Array) -> Array:
    """What all anchors of a level `[B, A, N, 5 + C]` predict in cells, `[B, 3, M, A, 5 + C]`."""
    return jnp.moveaxis(level.at[:, cell].get(mode="promise_in_bounds"), 0, 2)


def _decode(raw: Array, anchors: Array) -> Array:
    """Boxes cxcywh from the corner of the cell, in cells."""
    centre, sides = jnp.split(2 * sigmoid.probability_pair(raw)[0], 2, -1)
    return jnp.concatenate([centre - 0.5, sides**2 * anchors], -1)


def _read_levels(predictions: Levels) -> tuple[list[Array], Grids]:
    """Requires predictions `[B, A, H, W, 5 + C]` of each level, alike but for their grids.

    They are returned as `[B, A, H W, 5 + C]`: of a gradient in one shape for all that is read, a
    CPU makes no copy.
    """
    levels = of_levels("predictions", predictions)
    dtype, first = checks.compute_dtype(levels[0]), levels[0].shape
    meaning = "images, anchors, rows, columns, and box, objectness and classes"
    for level in levels:
        checks.rank("predictions", level, 5, meaning)
        expected = (*first[:2], *level.shape[2:4], max(first[4], 6))
        checks.shape("predictions", level, expected, meaning)
    grids = [level.shape[2:4] for level in levels]
    return [jax.lax.collapse(level, 2, 4).astype(dtype) for level in levels], grids
