"""Two rotated boxes as normal distributions: what the Gaussian box losses are made of.

A box is the normal distribution with its centre as mean and the covariance
`S = R diag(w^2 / 4, h^2 / 4) R^T`. Everything is taken along the axes of the two boxes and as sums
of terms that are not negative, so that nothing cancels: two equal boxes differ by exactly 0.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, polygons

Array = jax.Array
Function = Literal["log1p", "sqrt", "none"]

_FLOOR = 1e-6
_TERMS = 11  # of a series in s^2 <= 0.04: to float64 precision


class NormalPair(NamedTuple):
    """Two boxes, sides in units of about the largest one and floored at 1e-6 of it.

    Attributes:
      sides: Width and height of the first, called so that it is turned by at most 45 degrees.
      others: Width and height of the second.
      turn: The squared sine of the angle between the axes, at most 1/2.
      offset: The difference of the centres along the axes of the second box, in `reach`.
      near: The same along the axes of the first box.
      unit: The size of the largest side, a power of two; a constant for the derivative.
      reach: The size of the largest of the sides and the difference of the centres, as `unit`.
    """

    sides: polygons.Point
    others: polygons.Point
    turn: Array
    offset: polygons.Point
    near: polygons.Point
    unit: Array
    reach: Array

    @property
    def shrink(self) -> Array:
        """The factor that turns the square of a `unit` into that of a `reach`: `(u / r)^2`."""
        return (self.unit * numerics.per_unit(self.reach)) ** 2

    @property
    def anisotropy(self) -> Array:
        """What the squared sine of the angle multiplies: `(w^2 - h^2) (w'^2 - h'^2)`."""
        (w, h), (v, g) = self.sides, self.others
        return (w - h) * (w + h) * ((v - g) * (v + g))

    @property
    def areas(self) -> polygons.Point:
        """The areas of both boxes."""
        return self.sides[0] * self.sides[1], self.others[0] * self.others[1]

    @property
    def excess_area(self) -> Array:
        """The difference of the areas, exact where the boxes are almost equal."""
        (w, h), (v, g) = self.sides, self.others
        return (w - v) * h + v * (h - g)

    @property
    def _excess_determinant(self) -> tuple[Array, Array]:
        """Sixteen times `det(S + S') - 4 sqrt(det S det S')`, at least 0, and the subtrahend."""
        (w, h), (v, g) = self.sides, self.others
        cross = g * (w - v) + v * (g - h)
        first, second = self.areas
        excess = self.excess_area**2 + cross**2 + self.turn * self.anisotropy
        return excess, 4 * first * second

    @property
    def widening(self) -> Array:
        """`det((S + S') / 2) / sqrt(det S det S') - 1`, at least 0."""
        return numerics.divide(*self._excess_determinant)

    @property
    def distance(self) -> Array:
        """`D^T (4 (S + S'))^-1 D` of the centres' difference, in squares of `reach / unit`."""
        (w, h), (v, g) = self.sides, self.others
        (x, y), (p, q) = self.offset, self.near
        far = (g * x) ** 2 + (v * y) ** 2 + (h * p) ** 2 + (w * q) ** 2
        return numerics.divide(far, jnp.add(*self._excess_determinant))


def compare(two: polygons.Pair) -> NormalPair:
    """Compares two boxes of any size and distance."""
    largest = functools.reduce(numerics.maximum, (*two.sides, *two.other_sides))
    # Two boxes without any size are squares of the smallest one.
    floor = jnp.where(largest > 0, _FLOOR * largest, 1)
    w, h, v, g = (numerics.maximum(side, floor) for side in (*two.sides, *two.other_sides))

    angle = two.angle - two.other_angle
    sine, cosine = jnp.sin(angle) ** 2, jnp.cos(angle) ** 2
    quarter = sine > cosine
    offset = polygons.turned(two.offset, two.other_angle)
    p, q = polygons.turned(offset, angle)
    return NormalPair(
        (jnp.where(quarter, h, w), jnp.where(quarter, w, h)),
        (v, g),
        jnp.where(quarter, cosine, sine),
        offset,
        (jnp.where(quarter, q, p), jnp.where(quarter, p, q)),
        two.unit,
        two.reach,
    )


def excess(side: Array, other: Array) -> Array:
    """Returns `t - 1 - log t` of `t = (side / other)^2`, without cancellation near 1."""
    sine = numerics.divide((side - other) * (side + other), side**2 + other**2)
    near = jnp.abs(sine) < 0.2
    s = jnp.where(near, sine, 0)
    # log t = 2 artanh s, whose series loses its first term to t - 1 = 2 s / (1 - s).
    series = functools.reduce(
        lambda total, k: total * s**2 + 1 / (2 * k + 3), reversed(range(_TERMS)), jnp.zeros_like(s)
    )
    t = numerics.divide(side, other) ** 2
    return jnp.where(near, 2 * s**2 * (1 / (1 - s) - s * series), t - 1 - jnp.log(t))


def bounded(scaled: Array, stretch: tuple[Array, Array], fun: Function, tau: Array) -> Array:
    """Returns `1 / tau - 1 / (tau + fun(distance))` of a distance that may not fit the dtype.

    Args:
      scaled: The distance over `(first / second)^2` of `stretch`, near 1 where those differ.
      stretch: Two lengths, the first at least the second; constants for the derivative.
      fun: `"log1p"`, `"sqrt"` or `"none"`.
      tau: At least 1.
    """
    checks.option("fun", fun, ("log1p", "sqrt", "none"))
    shrink = numerics.divide(stretch[1], stretch[0])
    if fun == "log1p":
        growth = 2 * (jnp.log(stretch[0]) - jnp.log(stretch[1]))
        changed = growth + jnp.log1p(scaled + (shrink**2 - 1))
        return numerics.share(changed, tau) / tau
    if fun == "sqrt":
        return numerics.share(numerics.sqrt(scaled), tau * shrink) / tau
    return numerics.share(scaled, tau * shrink**2) / tau
