"""YOLOv5's assigner: by the shape of anchors, in the cell of a box and the cells beside it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxloss._core import checks
from jaxloss.detection._assignment import Assignment, assignment, lowest
from jaxloss.detection._declare import detection
from jaxloss.detection._places import Grids, read_grids
from jaxloss.detection._targets import read_boxes
from jaxloss.options import Interval, Number, Numbers

__all__ = ["assign_by_anchor_ratio"]

Array = jax.Array
_MOVED = ((False, False), (True, False), (False, True))  # along x and y, for each of three cells
ShapeRatio: TypeAlias = Annotated[Number, Interval("(1, inf)")]


class Candidates(NamedTuple):
    """Pairs of a box and a place, for `L` levels, 3 cells and `A` anchors.

    Attributes:
      cell: The index of row and column in their order, `[B, L, 3, M]`.
      place: The index of level, anchor, row and column in their order, `[B, L, 3, M, A]`.
      offset: The centre of the box from the corner of the cell, and its sides, in cells,
        `[B, L, 3, M, A, 4]`.
      times: How often the pair counts, `[B, L, 3, M, A]`: 0, 1, and up to 3 where the centre is on
        an edge.
    """

    cell: Array
    place: Array
    offset: Array
    times: Array


@detection
def assign_by_anchor_ratio(
    anchors: Numbers,
    boxes: Numbers,
    *,
    valid: Numbers,
    strides: Sequence[float],
    grids: Grids,
    anchor_threshold: ShapeRatio = 4.0,
) -> Assignment:
    """Assigns boxes to the anchors of about their shape in up to three cells (YOLOv5).

    A box of sides `(w, h)` fits the anchors of sides `(wa, ha)` with::

        max(w / wa, wa / w, h / ha, ha / h) < anchor_threshold

    on every level. It takes them in the cell that holds its centre and in the nearest of the
    cells to its left and right, and above and below. A centre outside of the grid counts for the
    cell at its edge. A place that several boxes take has the first slot of them; `yolo_v5` itself
    counts them all.

    Args:
      anchors: Sides (w, h) in pixels, `[levels, A, 2]`.
      grids: The size (rows, columns) of each level.
      anchor_threshold: The ratio of sides from which on they do not fit, above 1.

    Returns:
      An `Assignment` of places in the order level, anchor, row, column, with weight 1 in the
      foreground.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> boxes = jnp.array([[[6.0, 6.0, 14.0, 14.0]]])
      >>> found = detection.assign_by_anchor_ratio(
      ...     [[[8.0, 8.0]]], boxes, valid=jnp.array([[True]]), strides=[8], grids=[(2, 2)]
      ... )
      >>> print(found.foreground.reshape(2, 2))
      [[False True] [ True True]]

    Reference:
      Jocher. YOLOv5, 2020. https://doi.org/10.5281/zenodo.3908559
    """
    box, mask = read_boxes(boxes, valid)
    read_grids(grids, strides=strides)
    shapes = read_shapes(anchors, len(grids), box)
    most = anchor_threshold.astype(box.dtype)
    slot = jnp.arange(box.shape[1], dtype=jnp.int32).reshape(1, 1, 1, -1, 1)
    pairs = candidates(box, mask, shapes, strides, grids, most)
    claims = jnp.where(pairs.times > 0, slot, slot.size)
    places = shapes.shape[1] * sum(rows * columns for rows, columns in grids)
    unclaimed = jnp.full_like(claims, slot.size, shape=(len(box), places))
    index = lowest(unclaimed, pairs.place, claims)
    return assignment(index, index < slot.size, box.dtype)


def candidates(
    boxes: Array,
    valid: Array,
    anchors: Array,
    strides: Sequence[float],
    grids: Grids,
    threshold: Array,
) -> Candidates:
    """Returns the pairs of boxes and places.

    A box has its own cell, one beside it, left or right, and one above or below. A centre on the
    edge of two cells has both neighbours of that axis, one of them its own cell once more.

    Args:
      valid: Which slots hold a box.
      anchors: Sides in pixels, `[L, A, 2]`.
      strides: Pixels per cell of each level.
      grids: Rows and columns of each level.
      threshold: The ratio of sides from which on they do not fit.
    """
    sizes = jnp.asarray(grids, jnp.int32)
    places = [0, *(anchors.shape[1] * rows * columns for rows, columns in grids[:-1])]
    first = jnp.cumsum(jnp.asarray(places, jnp.int32))
    units = jnp.asarray(strides, boxes.dtype)
    return _of_level(boxes, valid, anchors, units, sizes, first, threshold)


@functools.partial(jax.vmap, in_axes=(None, None, 0, 0, 0, 0, None), out_axes=1)
def _of_level(
    boxes: Array,
    valid: Array,
    anchors: Array,
    unit: Array,
    grid: Array,
    first: Array,
    threshold: Array,
) -> Candidates:
    """The pairs of one level, whose places are counted from `first` on."""
    corner, end = boxes[..., :2] / unit, boxes[..., 2:] / unit
    size = end - corner
    centre = corner + size / 2
    limit = grid[::-1].astype(boxes.dtype).reshape(1, 1, 2)

    ratio = size[:, :, None] / (anchors / unit)[None, None]
    fits = jnp.maximum(ratio, 1 / ratio).max(-1) < threshold
    fits &= valid[..., None]

    before = (_fraction(centre) < 0.5) & (centre > 1)
    after = (_fraction(limit - centre) < 0.5) & (limit - centre > 1)
    moved = jnp.asarray(_MOVED).reshape(1, 3, 1, 2)
    own = ~moved.any(-1)
    again = jnp.where(own[..., None], (before & after)[:, None], moved & (before | after)[:, None])
    times = own.astype(jnp.int32) + again.sum(-1, dtype=jnp.int32)

    half = jnp.asarray(0.5, boxes.dtype)
    step = jnp.where(before, -half, jnp.where(after, half, 0))
    steps = jnp.where(moved, step[:, None], 0)
    corner = jnp.clip(jnp.trunc(centre[:, None] + steps), 0, (limit - 1)[:, None])
    sides = jnp.broadcast_to(size[:, None], corner.shape)
    offset = jnp.concatenate([centre[:, None] - corner, sides], -1)
    column, row = (corner[..., axis].astype(jnp.int32) for axis in (0, 1))
    cell = row * grid[1] + column
    anchor = jnp.arange(len(anchors), dtype=jnp.int32).reshape(1, 1, 1, -1)
    return Candidates(
        cell=cell,
        place=first + anchor * (grid[0] * grid[1]) + cell[..., None],
        offset=jnp.broadcast_to(offset[..., None, :], (*cell.shape, len(anchors), 4)),
        times=jnp.where(fits[:, None], times[..., None], 0),
    )


def _fraction(x: Array) -> Array:
    return x - jnp.floor(x)


def read_shapes(anchors: Numbers, levels: int, boxes: Array) -> Array:
    """Requires the sides of anchors for each level, `[levels, A, 2]`."""
    array = checks.real("anchors", anchors, boxes.dtype)
    meaning = "levels, anchors of a level, and their two sides"
    checks.rank("anchors", array, 3, meaning)
    checks.shape("anchors", array, (levels, array.shape[1], 2), meaning)
    return jax.lax.stop_gradient(array)
