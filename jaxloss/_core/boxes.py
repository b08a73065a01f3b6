"""Pairs of boxes, exact at any size: what `jaxloss.geometry` and the box losses stand on.

The two axes of a pair are alike, so each is read into one `Span`. Areas are then taken in units of
the enclosing box, axis by axis, and what one box does not share with the other is a sum of
differences of edges, never the small difference of two areas. So there is no epsilon, boxes of
1e-18 and 1e+18 units are as exact as others, and identical boxes differ by exactly 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics

Array = jax.Array

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
    apart: Array
    before: Array
    after: Array

    def relative(self) -> "Span":
        """The lengths in units of the enclosing interval, which is a constant."""
        largest = unit(self.hull)
        return Span(*(length / largest for length in self))

    def scaled(self, ratio: Array) -> "Span":
        """Both intervals scaled about their centres."""
        return _of_centres(self.apart, ratio * self.first, ratio * self.second)


class Overlap(NamedTuple):
    """Areas of a pair of boxes, in units of the area of the enclosing box.

    Attributes:
      both: The area of the intersection.
      one: The area that one box covers and the other does not.
      none: The area of the enclosing box that neither covers.
      hull: The area of the enclosing box: 1, or 0 if it has none. It moves with the boxes.
    """

    both: Array
    one: Array
    none: Array
    hull: Array

    @property
    def union(self) -> Array:
        """The area that the boxes cover."""
        return self.both + self.one

    @property
    def iou(self) -> Array:
        """Intersection over union, 0 where both boxes are empty."""
        return numerics.divide(self.both, self.union)

    @property
    def loss(self) -> Array:
        """`1 - iou`, without cancellation."""
        union = self.union
        return jnp.where(union == 0, 1, numerics.divide(self.one, union))

    @property
    def vacancy(self) -> Array:
        """The share of the enclosing box that neither box covers; 0 if it has no area."""
        return numerics.divide(self.none, self.hull)


def read(boxes: Array, others: Array, format: str) -> tuple[Span, Span]:
    """Returns the horizontal and the vertical span of boxes `[..., 4]`, which may broadcast."""
    return _read(boxes, others, 0, format), _read(boxes, others, 1, format)


def measure(x: Span, y: Span) -> Overlap:
    """Measures the areas of a pair of boxes."""
    x, y = x.relative(), y.relative()
    meet = (x.shared > 0) & (y.shared > 0)
    both = x.shared * y.shared
    first = jnp.where(meet, x.only_first * y.first + x.shared * y.only_first, x.first * y.first)
    second = jnp.where(
        meet, x.only_second * y.second + x.shared * y.only_second, x.second * y.second
    )
    corners = x.only_first * y.only_second + x.only_second * y.only_first
    return Overlap(
        both=jnp.where(meet, both, 0),
        one=first + second,
        none=jnp.where(meet, corners, corners - both),
        hull=x.hull * y.hull,
    )


def offset(x: Span, y: Span, *, constant_hull: bool = False) -> Array:
    """The squared distance of the centres over the squared diagonal of the enclosing box.

    Two equal points have no diagonal: 0 with zero gradient.
    """
    largest = unit(jnp.maximum(x.hull, y.hull))
    distance = (x.apart / largest) ** 2 + (y.apart / largest) ** 2
    diagonal = (x.hull / largest) ** 2 + (y.hull / largest) ** 2
    if constant_hull:
        diagonal = jax.lax.stop_gradient(diagonal)
    return numerics.divide(distance, diagonal)


def aspect(x: Span, y: Span) -> Array:
    """`4 / pi^2` times the squared difference of `atan(width / height)`, a point's being 0."""
    (a, b), (c, d) = _direction(x.first, y.first), _direction(x.second, y.second)
    # Sine and cosine of the difference; between equal boxes no rounding leaves a sine.
    turn = jnp.arctan2(a * (d - b) - b * (c - a), a * c + b * d)
    return 4 / jnp.pi**2 * turn**2


def log_iou(areas: Overlap) -> Array:
    """The logarithm of the IoU, accurate near 1; 0 with zero gradient where the boxes miss."""
    near = areas.loss < 0.5
    iou = jnp.where(near | (areas.iou == 0), 1, areas.iou)
    return jnp.where(near, jnp.log1p(-jnp.where(near, areas.loss, 0)), jnp.log(iou))


def aspect_weight(aspect: Array, areas: Overlap, gate: Array | None = None) -> Array:
    """CIoU's trade-off `aspect / (1 - iou + aspect)`, a constant; 0 where `iou <= gate`."""
    weight = numerics.divide(aspect, areas.loss + aspect)
    if gate is not None:
        weight = jnp.where(areas.iou > gate, weight, 0 * gate)  # NaN stays NaN
    return jax.lax.stop_gradient(weight)


def unit(length: Array) -> Array:
    """A length to divide by, which is a constant: 1 where it is 0."""
    length = jax.lax.stop_gradient(length)
    return jnp.where(length == 0, 1, length)


def larger(a: Array, b: Array) -> Array:
    """The maximum; at a tie each has half the derivative, as with `jnp.maximum`.

    On a CPU the derivative takes half the time.
    """
    return jnp.where(a > b, a, jnp.where(a < b, b, a + (b - a) / 2))


def smaller(a: Array, b: Array) -> Array:
    """The minimum, as `larger`."""
    return jnp.where(a < b, a, jnp.where(a > b, b, a + (b - a) / 2))


def _direction(width: Array, height: Array) -> tuple[Array, Array]:
    """The direction of a box's diagonal, its larger part 1; that of a point is `(0, 1)`."""
    largest = unit(jnp.maximum(width, height))
    point = (width == 0) & (height == 0)
    return jnp.where(point, 0, width / largest), jnp.where(point, 1, height / largest)


def _read(boxes: Array, others: Array, axis: int, format: str) -> Span:
    first, second = ((box[..., axis], box[..., axis + 2]) for box in (boxes, others))
    if format == "xyxy":
        (a0, a1), (b0, b1) = _ordered(*first), _ordered(*second)
        return _of_edges((a0, a1), (b0, b1), a1 - a0, b1 - b0, ((a0 - b0) + (a1 - b1)) / 2)
    (a, size_a), (b, size_b) = first, second
    shift = (size_a - size_b) / 2 if format == "xywh" else 0
    apart = (a - b) + shift
    return _of_centres(apart, jnp.where(size_a < 0, 0, size_a), jnp.where(size_b < 0, 0, size_b))


def _ordered(low: Array, high: Array) -> tuple[Array, Array]:
    """An interval, an inverted one collapsed to its middle."""
    inverted, middle = high < low, low + (high - low) / 2
    return jnp.where(inverted, middle, low), jnp.where(inverted, middle, high)


def _of_centres(apart: Array, first: Array, second: Array) -> Span:
    """The span of two sizes: a corner would lose sizes below the rounding of the position."""
    a, b = first / 2, second / 2
    return _of_edges((-a, a), (-apart - b, -apart + b), first, second, apart)


def _of_edges(
    a: tuple[Array, Array], b: tuple[Array, Array], first: Array, second: Array, apart: Array
) -> Span:
    (a0, a1), (b0, b1) = a, b
    low, high = larger(a0, b0), smaller(a1, b1)
    return Span(
        first=first,
        second=second,
        shared=high - low,
        hull=larger(a1, b1) - smaller(a0, b0),
        only_first=(low - a0) + (a1 - high),
        only_second=(low - b0) + (b1 - high),
        apart=apart,
        before=b0 - a0,
        after=a1 - b1,
    )


def checked(function: str, argument: str, boxes: ArrayLike) -> Array:
    """Requires a floating array whose last axis is 4."""
    box = checks.floating(function, argument, boxes)
    checks.minimum_rank(function, argument, box, 1, "the last holds a box's four numbers")
    checks.shape(function, argument, box, (*box.shape[:-1], 4), "four numbers per box")
    return box


def convert(function: str, argument: str, boxes: ArrayLike, source: str, target: str) -> Array:
    """Converts boxes from one format to another, in their own dtype."""
    box = checked(function, argument, boxes)
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
