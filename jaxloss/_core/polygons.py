"""Overlap of rotated boxes: the area that two rectangles share, exactly and for any shape."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss._core.pairs import Areas, Columns, columns

Array = jax.Array
Point = tuple[Array, Array]

FORMATS = ("cxcywhr", "corners")

_AROUND = ((-1, -1), (1, -1), (1, 1), (-1, 1))  # the corners of a box, in halves of its sides


class Pair(NamedTuple):
    """Two rotated boxes, in units of the size of the largest of their four sides.

    Attributes:
      offset: The difference of the centres along the axes of the image, in `reach`.
      sides: Width and height of the first box, in `unit`; a negative one is 0.
      other_sides: Width and height of the second.
      angle: The angle of the first.
      other_angle: The angle of the second.
      unit: The largest side, at least the smallest normal number, rounded to a power of two; a
        constant for the derivative.
      reach: The same of the largest of the sides and the difference of the centres.
    """

    offset: Point
    sides: Point
    other_sides: Point
    angle: Array
    other_angle: Array
    unit: Array
    reach: Array


def pair(boxes: Columns, others: Columns) -> Pair:
    """Relates boxes by their numbers: cx, cy, w, h, radians."""
    (x, y, *first, angle), (u, v, *second, other_angle) = boxes, others
    dx, dy = x - u, y - v
    sides = [jnp.where(side < 0, 0, side) for side in (*first, *second)]
    largest = functools.reduce(jnp.maximum, sides)
    farthest = functools.reduce(jnp.maximum, (largest, jnp.abs(dx), jnp.abs(dy)))
    per_unit, per_reach = numerics.per_unit(largest), numerics.per_unit(farthest)
    w, h, other_w, other_h = (side * per_unit for side in sides)
    return Pair(
        offset=(dx * per_reach, dy * per_reach),
        sides=(w, h),
        other_sides=(other_w, other_h),
        angle=angle,
        other_angle=other_angle,
        unit=numerics.unit(largest),
        reach=numerics.unit(farthest),
    )


def turned(point: Point, angle: Array) -> Point:
    """Coordinates along axes that are turned by an angle."""
    (x, y), c, s = point, jnp.cos(angle), jnp.sin(angle)
    return c * x + s * y, c * y - s * x


def measure(two: Pair) -> Areas:
    """Measures the areas of a pair of boxes, in squares of its unit.

    Two equal boxes without area share all that they have: there the unit is another.
    """
    areas = two.sides[0] * two.sides[1], two.other_sides[0] * two.other_sides[1]
    # Boxes four units apart are disjoint; farther ones would only lose digits, or overflow.
    stretch = jnp.minimum(two.reach * numerics.per_unit(two.unit), 4.0)
    offset = two.offset[0] * stretch, two.offset[1] * stretch
    shared = _shared(offset, two)
    smaller = numerics.minimum(*areas)
    shared = jnp.where(shared > smaller, smaller, shared)  # by rounding only
    same = (areas[0] == 0) & (areas[1] == 0) & _equal(two)
    one = areas[0] + areas[1] - 2 * shared
    return Areas(both=jnp.where(same, 1, shared), one=jnp.where(same, 0, one))


def _equal(two: Pair) -> Array:
    """Whether both boxes are the same numbers; points have no angle."""
    (x, y), (w, h), (v, g) = two.offset, two.sides, two.other_sides
    are_points = (w == 0) & (h == 0)
    turned_alike = are_points | (two.angle == two.other_angle)
    return (x == 0) & (y == 0) & (w == v) & (h == g) & turned_alike


def _shared(offset: Point, two: Pair) -> Array:
    """The area of the intersection, by the edges of the first box alone.

    In the axes of the second box `[-W, W] x [-H, H]` an edge `y(x)` of the first bounds the area
    between it and any fixed level, cut to `|x| <= W` and with `y` cut to `[-H, H]`. The sum over
    the edges, signed by their direction, is the area of the intersection. Each term is a continuous
    function of the edge's own ends, so no two of them need to agree on where edges meet, how
    corners are ordered or which of two coincident edges counts.
    """
    turn = two.angle - two.other_angle
    x, y = turned(offset, two.other_angle)
    c, s = jnp.cos(turn), jnp.sin(turn)
    half_w, half_h = (side / 2 for side in two.sides)
    width, height = (side / 2 for side in two.other_sides)
    arms = [(a * half_w, b * half_h) for a, b in _AROUND]
    xs = jnp.stack([x + (c * u - s * v) for u, v in arms])
    ys = jnp.stack([y + (s * u + c * v) for u, v in arms])
    next_xs, next_ys = (jnp.roll(corners, -1, 0) for corners in (xs, ys))
    area = _under((xs, ys), (next_xs, next_ys), width[None], height[None]).sum(0)

    # An axis of the second box that parts the boxes gives exactly 0 above; one of the first, here.
    (u, v), c, s = turned(offset, two.angle), jnp.abs(c), jnp.abs(s)
    apart = (jnp.abs(u) >= half_w + c * width + s * height) | (
        jnp.abs(v) >= half_h + s * width + c * height
    )
    return jnp.where(apart | (area < 0), 0, area)


def _under(start: Point, end: Point, width: Array, height: Array) -> Array:
    """The area between each edge and one level, positive for an edge that runs to the left.

    The part of an edge within `|x| <= width` counts, with `y` cut to `|y| <= height`.
    """
    (x0, y0), (x1, y1) = start, end
    first, last = (numerics.clip(x, -width, width) for x in (x0, x1))
    # A vertical edge has no part cut off: then its derivative by a turn is right too.
    per_x = _per(x1 - x0)
    y_first = y0 + (first - x0) * per_x * (y1 - y0)
    y_last = y1 - (x1 - last) * per_x * (y1 - y0)
    bottom, top = numerics.in_order(y_first, y_last)
    first_y, last_y = (numerics.clip(y, -height, height) for y in (y_first, y_last))
    middle = (first_y + last_y) / 2
    per_y = _per(top - bottom)
    above, below = (numerics.clip(y * per_y, 0, 1) for y in (top - height, -height - bottom))
    mean = middle + above * (height - middle) - below * (height + middle)
    # Any level is right, as the edges close: the middle of the corners' leaves the least to cancel.
    cut = jax.lax.stop_gradient(jnp.clip(y0, -height, height))
    level = (cut.max(0, keepdims=True) + cut.min(0, keepdims=True)) / 2
    return (first - last) * (mean - level)


def _per(extent: Array) -> Array:
    """The inverse of an edge's extent; 0 where that is too small to matter."""
    tiny = jnp.abs(extent) < jnp.sqrt(jnp.finfo(extent.dtype).tiny)
    return numerics.reciprocal(jnp.where(tiny, 0, extent))


def checked(argument: str, boxes: ArrayLike) -> Array:
    """Requires a floating array whose last axis is 5."""
    box = checks.floating(argument, boxes)
    checks.minimum_rank(argument, box, 1, "the last holds a box's five numbers")
    checks.shape(argument, box, (*box.shape[:-1], 5), "five numbers per box")
    return box


def convert(argument: str, boxes: ArrayLike, source: str, target: str) -> Array:
    """Converts rotated boxes from one format to another, in their own dtype."""
    if source == "cxcywhr":
        box = checked(argument, boxes)
        return box if source == target else _corners(box).astype(box.dtype)
    box = checks.floating(argument, boxes)
    checks.minimum_rank(argument, box, 2, "the last hold the coordinates of four corners")
    checks.shape(argument, box, (*box.shape[:-2], 4, 2), "four corners per box")
    return box if source == target else _of_corners(box).astype(box.dtype)


def _corners(boxes: Array) -> Array:
    x, y, w, h, angle = columns(boxes.astype(checks.compute_dtype(boxes)))
    c, s = jnp.cos(angle), jnp.sin(angle)
    arms = [(a * w / 2, b * h / 2) for a, b in _AROUND]
    points = [(x + (c * u - s * v), y + (s * u + c * v)) for u, v in arms]
    return jnp.stack([jnp.stack(point, -1) for point in points], -2)


def _of_corners(corners: Array) -> Array:
    corners = corners.astype(checks.compute_dtype(corners))
    first, second, third, fourth = (corners[..., i, :] for i in range(4))
    centre = first + ((second - first) + (third - first) + (fourth - first)) / 4
    along, across = (second - first + third - fourth) / 2, (third - second + fourth - first) / 2
    (ux, uy), (vx, vy) = columns(along), columns(across)
    width, height = numerics.length(ux, uy), numerics.length(vx, vy)
    x, y = jnp.where(width > 0, ux, vy), jnp.where(width > 0, uy, -vx)
    is_point = (x == 0) & (y == 0)
    angle = jnp.arctan2(jnp.where(is_point, 0, y), jnp.where(is_point, 1, x))
    return jnp.concatenate([centre, jnp.stack([width, height, angle], -1)], -1)
