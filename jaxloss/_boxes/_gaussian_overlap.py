"""Losses on how much two rotated boxes, taken as normal distributions, overlap."""

from __future__ import annotations

from typing import Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._normal_pair import NormalPair, compare
from jaxloss._boxes._per_pair import per_rotated_pair
from jaxloss._core import checks, numerics, polygons
from jaxloss._core.families import regression
from jaxloss._core.platforms import bind
from jaxloss.options import Numbers, Regression

__all__ = ["kfiou", "probiou"]

Array = jax.Array

_KNEE = 1 / 9
_FAR = 1e3  # a distance from which on the loss is 1 in any dtype


@regression
def probiou(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    mode: Literal["hellinger", "bhattacharyya"] = "hellinger",
    **options: Unpack[Regression],
) -> Array:
    """Computes the probabilistic IoU loss of each pair of rotated boxes.

    With the centres' difference `D`, the covariances `S = R diag(w^2 / 12, h^2 / 12) R^T` of
    uniform distributions over the boxes and `M = (S + S') / 2`::

        B    = 1/8 D^T M^-1 D + 1/2 log(det M / sqrt(det S det S'))
        loss = sqrt(1 - exp(-B))        "hellinger": the Hellinger distance, in [0, 1]
             = B                        "bhattacharyya"

    It is symmetric and has no unit. `(w, h, a)`, `(w, h, a + pi)` and `(h, w, a + pi / 2)` are one
    box, and a square has no angle. Identical boxes cost exactly 0 with zero gradient; around them
    the Hellinger distance grows like `|D|`, far from them its gradient vanishes: the paper starts
    with `B`, which grows like `|D|^2`. Sides are floored at 1e-6 of the pair's largest one; a
    negative side counts as 0.

    ultralytics adds an epsilon under the root and in the quotients: there identical boxes cost
    0.0005.

    Args:
      mode: `"hellinger"` (the paper's L1) or `"bhattacharyya"` (L2).

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [1.0, 0.0, 4.0, 2.0, 0.5]]
      >>> targets = [[0.0, 0.0, 2.0, 4.0, 1.57079633], [0.0, 0.0, 4.0, 2.0, 0.0]]
      >>> print(jaxloss.probiou(boxes, targets, reduction="none").round(4))
      [0.    0.398]

    Reference:
      Llerena et al. Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object
      Detection. 2021. https://arxiv.org/abs/2106.06072
    """
    checks.option("mode", mode, ("hellinger", "bhattacharyya"))
    return per_rotated_pair(bind(_probiou, mode=mode), boxes, target_boxes, options)


@regression
def kfiou(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    fun: Literal["linear", "exp", "log"] = "linear",
    **options: Unpack[Regression],
) -> Array:
    """Computes the Kalman filter IoU loss of each pair of rotated boxes.

    With the covariances `S = R diag(w^2 / 4, h^2 / 4) R^T`, the areas `V = w h` and that of the
    product of both distributions, moved onto one centre::

        V* = 4 sqrt(det S det S' / det(S + S'))
        K  = V* / (V + V' - V*)                                   in (0, 1/3]
        loss = 1 - 3 K              "linear"
             = exp(1 - 3 K) - 1     "exp"
             = -log(3 K)            "log"
             + the sum over both axes of smooth-L1 (beta 1/9) of R'^T D / (w', h')

    The last term pulls the centres together, along the target's axes and in its sides. Identical
    boxes cost exactly 0. `(w, h, a)`, `(w, h, a + pi)` and `(h, w, a + pi / 2)` are one box. The
    overlap of a square does not depend on its angle; only the centres' term has the target's axes.
    Sides are floored at 1e-6 of the pair's largest one; a negative side counts as 0.

    The paper and mmrotate take `1 - K`, `exp(1 - K) - 1` and `-log K` of `K <= 1/3`, so that a
    perfect prediction costs 2/3, 0.948 or 1.099; theirs is `(2 + ours) / 3` for `"linear"`, ours
    plus `log 3` for `"log"`. Their centres' term takes the offsets as the head encodes them.

    Args:
      fun: `"linear"`, `"exp"` or `"log"`.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [1.0, 0.0, 4.0, 2.0, 0.5]]
      >>> targets = [[0.0, 0.0, 2.0, 4.0, 1.57079633], [0.0, 0.0, 4.0, 2.0, 0.0]]
      >>> print(jaxloss.kfiou(boxes, targets, reduction="none").round(4))
      [0.     0.2716]

    Reference:
      Yang et al. The KFIoU Loss for Rotated Object Detection. ICLR 2023.
      https://arxiv.org/abs/2201.12558
    """
    checks.option("fun", fun, ("linear", "exp", "log"))
    return per_rotated_pair(bind(_kfiou, fun=fun), boxes, target_boxes, options)


def _probiou(pair: polygons.Pair, mode: str) -> Array:
    two = compare(pair)
    distance = 3 * two.distance + two.shrink * jnp.log1p(two.widening) / 2
    stretch = two.reach * numerics.per_unit(two.unit)
    if mode == "bhattacharyya":
        return distance * stretch * stretch
    stretch = jnp.minimum(stretch, 1e9)
    exponent = distance * stretch * stretch
    return numerics.sqrt(-numerics.expm1(-jnp.where(exponent > _FAR, _FAR, exponent)))


def _kfiou(pair: polygons.Pair, fun: str) -> Array:
    two = compare(pair)
    area, other = two.areas
    product = numerics.sqrt(area * other)
    roots = numerics.sqrt(area) + numerics.sqrt(other)
    unequal = numerics.divide(numerics.divide(two.excess_area, roots) ** 2, product)
    root = numerics.sqrt(1 + two.widening)
    # 1 / (3 K) - 1, of terms that are not negative.
    odds = (unequal * root + 2 * numerics.divide(two.widening, 1 + root)) * (2 / 3)
    missing = numerics.share(odds, jnp.ones_like(odds))
    overlap = {"linear": missing, "exp": jnp.expm1(missing), "log": jnp.log1p(odds)}[fun]
    return overlap + _centres(two)


def _centres(two: NormalPair) -> Array:
    """The smooth-L1 of the offset along the second box's axes, in its sides."""
    stretch = two.reach * numerics.per_unit(two.unit)
    offsets = [
        numerics.divide(x * stretch, side) for x, side in zip(two.offset, two.others, strict=True)
    ]
    near = [numerics.clip(d, -_KNEE, _KNEE) for d in offsets]
    x, y = (n * (d - n / 2) / _KNEE for n, d in zip(near, offsets, strict=True))
    return x + y
