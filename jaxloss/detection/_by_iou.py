"""Assigners that compare anchors with boxes by their overlap."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss.detection._assignment import UNROLL, Assignment, assignment, best_slot
from jaxloss.detection._declare import detection
from jaxloss.detection._targets import read_boxes
from jaxloss.options import Interval, Number, Numbers

__all__ = ["assign_atss", "assign_by_iou"]

Array = jax.Array
PositiveIoU: TypeAlias = Annotated[Number, Interval("(0, 1]")]
NegativeIoU: TypeAlias = Annotated[Number, Interval("[0, 1]", most="positive_iou")]

_ROUNDINGS = 16  # within which two IoUs are equal
_INSIDE = 0.01  # pixels by which an anchor's centre is inside a box


@detection
def assign_by_iou(
    anchors: Numbers,
    boxes: Numbers,
    *,
    valid: Numbers,
    positive_iou: PositiveIoU = 0.5,
    negative_iou: NegativeIoU = 0.4,
    low_quality: bool = True,
) -> Assignment:
    """Assigns to each anchor the box of the largest IoU with it, as RetinaNet does.

    With the largest IoU `u` of an anchor::

        u >= positive_iou                     foreground
        negative_iou <= u < positive_iou      ignored
        u < negative_iou                      background

    With `low_quality`, the anchors that overlap a box most are foreground too, so that every box
    that an anchor overlaps at all has one: each goes to its own best box. Ties count, anchors whose
    IoU with the box is the largest up to rounding. A box that no anchor overlaps gets none.
    Of boxes with an equal IoU an anchor takes the first slot. Slots that are not valid get nothing;
    without valid boxes all is background.

    Args:
      positive_iou: Foreground from this IoU on, in `(0, 1]`.
      negative_iou: Background below it, in `[0, 1]`, at most `positive_iou`.
      low_quality: Whether the best anchors of a box are foreground below `positive_iou`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> anchors = jnp.array([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [0.0, 8.0, 8.0, 16.0]])
      >>> boxes = jnp.array([[[0.0, 0.0, 8.0, 7.0], [0.0, 0.0, 0.0, 0.0]]])
      >>> found = detection.assign_by_iou(anchors, boxes, valid=jnp.array([[True, False]]))
      >>> print(found.index, found.foreground)
      [[0 0 0]] [[ True False False]]

    Reference:
      Lin et al. Focal Loss for Dense Object Detection. ICCV 2017. https://arxiv.org/abs/1708.02002
      Ren et al. Faster R-CNN. NeurIPS 2015. https://arxiv.org/abs/1506.01497
    """
    box, mask = read_boxes(boxes, valid)
    return by_iou(read_anchors(anchors, box), box, mask, positive_iou, negative_iou, low_quality)


@detection
def assign_atss(
    anchors: Numbers,
    boxes: Numbers,
    *,
    valid: Numbers,
    level_sizes: Sequence[int],
    top_k: int = 9,
) -> Assignment:
    """Assigns anchors to boxes by a threshold that each box sets itself (ATSS).

    The candidates of a box are the `top_k` anchors of each level whose centres are nearest to its
    own. Foreground are those with::

        IoU >= mean + std        of the IoUs of all candidates of the box (std with n - 1)

    whose centre is inside the box by more than 0.01 pixels. An anchor wanted by several boxes goes
    to the one of the largest IoU, of equal ones to the first slot; of anchors at equal distance the
    first are candidates. Slots that are not valid get nothing.

    Args:
      anchors: Anchors xyxy in pixels, `[N, 4]`, level after level.
      level_sizes: The number of anchors of each level, with the sum `N`.
      top_k: Candidates per level, all of a level that has fewer.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> anchors = detection.grid_anchors([(3, 3)], [8], [24], ratios=[1], scales=[1])
      >>> boxes = jnp.array([[[0.0, 0.0, 20.0, 20.0]]])
      >>> valid = jnp.array([[True]])
      >>> found = detection.assign_atss(anchors, boxes, valid=valid, level_sizes=[9])
      >>> print(found.foreground.reshape(3, 3))
      [[False False False] [False True False] [False False False]]

    Reference:
      Zhang et al. Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
      Training Sample Selection. CVPR 2020. https://arxiv.org/abs/1912.02424
    """
    box, mask = read_boxes(boxes, valid)
    anchor = read_anchors(anchors, box)
    expected = f"counts of anchors with the sum {len(anchor)}"
    if not isinstance(level_sizes, tuple):
        checks.fail(TypeError, "level_sizes", level_sizes, expected)
    sizes = tuple(checks.integer("level_sizes", size, 1) for size in level_sizes)
    if sum(sizes) != len(anchor):
        checks.fail(ValueError, "level_sizes", sizes, expected)
    index, foreground = _atss(anchor, box, mask, sizes, checks.integer("top_k", top_k, 1))
    return assignment(index, foreground, box.dtype)


def by_iou(
    anchors: Array, boxes: Array, valid: Array, positive: Array, negative: Array, low_quality: bool
) -> Assignment:
    """`assign_by_iou` of arrays that are checked."""
    checks.option("low_quality", low_quality, (True, False))
    positive, negative = (limit.astype(boxes.dtype) for limit in (positive, negative))

    def score(box: Array, valid: Array) -> Array:
        overlap = overlaps(anchors[None], box[:, None])
        return jnp.where(valid[:, None], overlap, -1)

    slots = boxes, valid
    index, best, highest = best_slot(score, slots)
    foreground = best >= positive
    if low_quality:
        nearly = highest * (1 - _ROUNDINGS * jnp.finfo(boxes.dtype).eps)
        least = jnp.where(highest > 0, nearly, jnp.inf)

        def step(wanted: Array, slot: tuple[Array, ...]) -> tuple[Array, None]:
            least, *data = slot
            return wanted | (score(*data) >= least[:, None]), None

        by_slot = tuple(jnp.moveaxis(x, 1, 0) for x in (least, *slots))
        foreground, _ = jax.lax.scan(step, foreground, by_slot, unroll=UNROLL)
    return assignment(index, foreground, boxes.dtype, ignore=best >= negative)


@functools.partial(jax.vmap, in_axes=(None, 0, 0, None, None))
def _atss(
    anchors: Array, boxes: Array, valid: Array, sizes: tuple[int, ...], top_k: int
) -> tuple[Array, Array]:
    """The slots of the anchors of one image, and which anchors have one."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    candidates = _nearest(centres, (boxes[:, :2] + boxes[:, 2:]) / 2, sizes, top_k)
    found = anchors[candidates]
    overlap = overlaps(found, boxes[:, None])
    over = overlap - overlap.min(1, keepdims=True)  # 0 of equal ones, whose mean would be rounded
    reached = over >= over.mean(1, keepdims=True) + _deviation(over)
    x, y = (centres[candidates][..., axis] for axis in (0, 1))
    x0, y0, x1, y1 = (boxes[:, side, None] for side in range(4))
    depth = functools.reduce(jnp.minimum, (x - x0, y - y0, x1 - x, y1 - y))
    chosen = reached & (depth > _INSIDE) & valid[:, None]

    # What several boxes want goes to the largest overlap, then to the first slot.
    claim = jnp.where(chosen, overlap, -1)
    best = jnp.full_like(anchors[:, 0], -1).at[candidates].max(claim)
    slot = jnp.arange(len(boxes), dtype=jnp.int32)[:, None]
    winner = chosen & (claim == best[candidates])
    index = jnp.full_like(best, len(boxes), jnp.int32)
    index = index.at[candidates].min(jnp.where(winner, slot, len(boxes)))
    return index, best >= 0


def _nearest(centres: Array, targets: Array, sizes: tuple[int, ...], count: int) -> Array:
    """The indices of the places of each level that are nearest to each target, `[M, K]`."""
    chosen, start = [], 0
    for size in sizes:
        apart = targets[:, None] - centres[None, start : start + size]
        near = -(apart[..., 0] ** 2 + apart[..., 1] ** 2)
        chosen.append(start + jax.lax.top_k(near, min(count, size))[1])
        start += size
    return jnp.concatenate(chosen, 1)


def _deviation(values: Array) -> Array:
    """The standard deviation along the last axis, of a sample; 0 of a single value."""
    deviation = values - values.mean(-1, keepdims=True)
    return jnp.sqrt((deviation**2).sum(-1, keepdims=True) / max(values.shape[-1] - 1, 1))


def overlaps(anchors: Array, boxes: Array) -> Array:
    """The IoU of boxes xyxy that broadcast, a constant; 0 where both have no area.

    The textbook's formula: exact for the whole numbers that anchors often are, so that thresholds
    and ties are those of other implementations. `geometry.iou` is exact for small boxes too.
    """
    low = [jnp.maximum(anchors[..., i], boxes[..., i]) for i in (0, 1)]
    high = [jnp.minimum(anchors[..., i], boxes[..., i]) for i in (2, 3)]
    width, height = (jnp.maximum(b - a, 0) for a, b in zip(low, high, strict=True))
    both = width * height
    return numerics.divide(both, _area(anchors) + _area(boxes) - both)


def _area(boxes: Array) -> Array:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def read_anchors(anchors: Numbers, boxes: Array) -> Array:
    """Requires anchors `[N, 4]`, which are the same for all images."""
    array = checks.real("anchors", anchors, boxes.dtype)
    checks.rank("anchors", array, 2, "anchors and their four numbers, the same for all images")
    expected = (max(len(array), 1), 4)
    checks.shape("anchors", array, expected, "four numbers per anchor, one anchor at least")
    return jax.lax.stop_gradient(array)
