"""Pairs of boxes, exact at any size: what `jaxloss.geometry` and the box losses stand on.

The two axes of a pair are alike, so each is read into one `Span`. Areas are then taken in units of
the enclosing box, axis by axis, and what one box does not share with the other is a sum of
differences of edges, never the small difference of two areas. So there is no epsilon, boxes of
1e-18 and 1e+18 units are as exact as others, and identical boxes differ by exactly 0.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics

Array = jax.Array
Columns: TypeAlias = Sequence[Array]

FORMATS = ("xyxy", "cxcywh", "xywh")


class Span(NamedTuple):
    """One axis of a pair of boxes, the intervals `first` and `second`: lengths.

    Attributes:
      first: The size of the first.
      second: The size of the second.
      shared: The extent of the intersection; minus the gap where there is none.
      hull: The extent of the enclosing interval.
      only_first: `first - shared`, without cancellation.
      only_second: `second - shared`, without cancellation.
      wider: `first - second`, without cancellation.
      apart: The centre of the first minus that of the second.
      before: By how much the first begins earlier.
      after: By how much the first ends later.
    """

    first: Array
    second: Array
    shared: Array
    hull: Array
    only_first: Array
    only_second: Array
    wider: Array
    apart: Array
    before: Array
    after: Array

    def relative(self) -> "Span":
        """The lengths in units of about the enclosing interval."""
        shrink = numerics.per_unit(self.hull)
        return Span(*(length * shrink for length in self))

    def scaled(self, ratio: Array) -> "Span":
        """Both intervals scaled about their centres."""
        first, second, wider = (ratio * x for x in (self.first, self.second, self.wider))
        return _of_centres(self.apart, first, second, wider)


class Areas(NamedTuple):
    """Areas of a pair of boxes, in a unit of the pair.

    Attributes:
      both: The area of the intersection.
      one: The area that one box covers and the other does not.
    """

    both: Array
    one: Array

    @property
    def union(self) -> Array:
        """The area that the boxes cover."""
        return self.both + self.one

    @property
    def iou(self) -> Array:
        """Intersection over union, 0 where both boxes are empty."""
        return numerics.share(self.both, self.one)

    @property
    def loss(self) -> Array:
        """`1 - iou`, without cancellation."""
        return jnp.where(self.union == 0, 1, numerics.share(self.one, self.both))


def columns(boxes: Array) -> list[Array]:
    """Returns the `n` numbers of boxes `[..., n]` one by one."""
    return [boxes[..., i] for i in range(boxes.shape[-1])]


def read(boxes: Array, others: Array, format: str) -> tuple[Span, Span]:
    """Returns the horizontal and the vertical span of boxes `[..., 4]`, which may broadcast."""
    return spans(columns(boxes), columns(others), format)


def spans(boxes: Columns, others: Columns, format: str) -> tuple[Span, Span]:
    """Returns them of the numbers of boxes."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = boxes, others
    return _span((a0, a1), (c0, c1), format), _span((b0, b1), (d0, d1), format)


def measure(x: Span, y: Span) -> Areas:
    """Measures the areas of a pair of boxes, in units of that of the enclosing box."""
    x, y = x.relative(), y.relative()
    meet = (x.shared > 0) & (y.shared > 0)
    first = jnp.where(meet, x.only_first * y.first + x.shared * y.only_first, x.first * y.first)
    second = jnp.where(
        meet, x.only_second * y.second + x.shared * y.only_second, x.second * y.second
    )
    return Areas(both=jnp.where(meet, x.shared * y.shared, 0), one=first + second)


def vacancy(x: Span, y: Span) -> Array:
    """The share of the enclosing box that neither box covers; 0 if it has no area."""
    x, y = x.relative(), y.relative()
    meet = (x.shared > 0) & (y.shared > 0)
    corners = x.only_first * y.only_second + x.only_second * y.only_first
    vacant = jnp.where(meet, corners, corners - x.shared * y.shared)
    return numerics.divide(vacant, x.hull * y.hull)


def offset(x: Span, y: Span, *, constant_hull: bool = False) -> Array:
    """The squared distance of the centres over the squared diagonal of the enclosing box.

    Two equal points have no diagonal: 0 with zero gradient.
    """
    shrink = numerics.per_unit(jnp.maximum(x.hull, y.hull))
    distance = (x.apart * shrink) ** 2 + (y.apart * shrink) ** 2
    diagonal = (x.hull * shrink) ** 2 + (y.hull * shrink) ** 2
    if constant_hull:
        diagonal = jax.lax.stop_gradient(diagonal)
    return numerics.divide(distance, diagonal)


def aspect(x: Span, y: Span) -> Array:
    """`4 / pi^2` times the squared difference of `atan(width / height)`, a point's being 0."""
    (a, b), (c, d) = _direction(x.first, y.first), _direction(x.second, y.second)
    # Sine and cosine of the difference; between equal boxes no rounding leaves a sine.
    turn = jnp.arctan2(a * (d - b) - b * (c - a), a * c + b * d)
    return 4 / jnp.pi**2 * turn**2


def log_iou(areas: Areas) -> Array:
    """The logarithm of the IoU, accurate near 1; 0 with zero gradient where the boxes miss."""
    near = areas.loss < 0.5
    iou = jnp.where(near | (areas.iou == 0), 1, areas.iou)
    return jnp.where(near, jnp.log1p(-jnp.where(near, areas.loss, 0)), jnp.log(iou))


def aspect_weight(aspect: Array, areas: Areas, gate: Array | None = None) -> Array:
    """CIoU's trade-off `aspect / (1 - iou + aspect)`, a constant; 0 where `iou <= gate`."""
    weight = numerics.divide(aspect, areas.loss + aspect)
    if gate is not None:
        weight = jnp.where(areas.iou > gate, weight, 0 * gate)  # NaN stays NaN
    return jax.lax.stop_gradient(weight)


def _direction(width: Array, height: Array) -> tuple[Array, Array]:
    """The direction of a box's diagonal, its larger part about 1; that of a point is `(0, 1)`."""
    shrink = numerics.per_unit(jnp.maximum(width, height))
    point = (width == 0) & (height == 0)
    return jnp.where(point, 0, width * shrink), jnp.where(point, 1, height * shrink)


def _span(first: tuple[Array, Array], second: tuple[Array, Array], format: str) -> Span:
    """The span of two boxes along one axis, by their two numbers in it."""
    (a0, a1), (b0, b1) = first, second
    if format == "xyxy":
        (a0, a1), (b0, b1) = _ordered(a0, a1), _ordered(b0, b1)
        before, after = b0 - a0, a1 - b1
        wider, apart = before + after, (after - before) / 2
        return _of_edges((a0, a1), (b0, b1), a1 - a0, b1 - b0, wider, apart, before, after)
    apart = a0 - b0
    if format == "xywh":
        apart = apart + (a1 - b1) / 2
    a1, b1 = (jnp.where(size < 0, 0, size) for size in (a1, b1))
    return _of_centres(apart, a1, b1, a1 - b1)


def _ordered(low: Array, high: Array) -> tuple[Array, Array]:
    """An interval, an inverted one collapsed to its middle."""
    inverted, middle = high < low, low + (high - low) / 2
    return jnp.where(inverted, middle, low), jnp.where(inverted, middle, high)


def _of_centres(apart: Array, first: Array, second: Array, wider: Array) -> Span:
    """The span of two sizes: a corner would lose sizes below the rounding of the position."""
    a, b, half = first / 2, second / 2, wider / 2
    other = -apart - b, -apart + b
    return _of_edges((-a, a), other, first, second, wider, apart, half - apart, half + apart)


def _of_edges(
    a: tuple[Array, Array],
    b: tuple[Array, Array],
    first: Array,
    second: Array,
    wider: Array,
    apart: Array,
    before: Array,
    after: Array,
) -> Span:
    (begin, low), (high, end) = (numerics.in_order(*pair) for pair in zip(a, b, strict=True))
    earlier, later = numerics.positive(before), numerics.positive(after)
    return Span(
        first=first,
        second=second,
        shared=high - low,
        hull=end - begin,
        only_first=earlier + later,
        only_second=(earlier - before) + (later - after),
        wider=wider,
        apart=apart,
        before=before,
        after=after,
    )


def checked(argument: str, boxes: ArrayLike) -> Array:
    """Requires a floating array whose last axis is 4."""
    box = checks.floating(argument, boxes)
    checks.minimum_rank(argument, box, 1, "the last holds a box's four numbers")
    checks.shape(argument, box, (*box.shape[:-1], 4), "four numbers per box")
    return box


def convert(argument: str, boxes: ArrayLike, source: str, target: str) -> Array:
    """Converts boxes from one format to another, in their own dtype."""
    box = checked(argument, boxes)
    if source == target:
        return box
    first, second = box[..., :2], box[..., 2:]
    if source == "xyxy":
        corner, size = first, second - first
    elif source == "cxcywh":
        corner, size = first - second / 2, second
    else:
        corner, size = first, second
    if target == "xyxy":
        return jnp.concatenate([corner, corner + size], -1)
    return jnp.concatenate([corner if target == "xywh" else corner + size / 2, size], -1)
