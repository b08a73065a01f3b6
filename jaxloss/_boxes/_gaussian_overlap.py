"""Losses on how much two rotated boxes, taken as normal distributions, overlap."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boxes import _normal_pair as normal
from jaxloss._boxes._normal_pair import NAMES
from jaxloss._core import checks, numerics
from jaxloss._core.labels import paired
from jaxloss._core.reduction import AxisName, reduce

__all__ = ["kfiou", "probiou"]

Array = jax.Array

_KNEE = 1 / 9


def probiou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    mode: str = "hellinger",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      boxes: Predicted boxes (cx, cy, w, h, radians), shape `[..., 5]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      mode: `"hellinger"` (the paper's L1) or `"bhattacharyya"` (L2).
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 5, shapes do not match (they never broadcast), or an
        option does not exist.

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
    first, second, mask, factor = paired(
        "probiou", boxes, target_boxes, names=NAMES, where=where, weights=weights, inner=1
    )
    checks.option("probiou", "mode", mode, ("hellinger", "bhattacharyya"))
    two = normal.compare("probiou", first, second)
    scaled = 3 * two.distance + two.shrink * jnp.log1p(two.spread) / 2
    stretch = two.reach / two.unit
    if mode == "hellinger":
        # Farther away B is above 1e16 and the distance 1 to the last digit.
        stretch = jnp.minimum(stretch, 1e9)
    loss = scaled * stretch * stretch
    if mode == "hellinger":
        loss = numerics.sqrt(-jnp.expm1(-loss))
    return reduce("probiou", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)


def kfiou(
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    *,
    fun: str = "linear",
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      boxes: Predicted boxes (cx, cy, w, h, radians), shape `[..., 5]`, floating, in any unit.
      target_boxes: True boxes of the same shape, in the same unit: pairs, never a matrix.
      fun: `"linear"`, `"exp"` or `"log"`.
      where: Boolean, the rank of `boxes.shape[:-1]` with each dimension equal or 1. What is False
        reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      reduction: `"mean"` (weighted, over the valid pairs, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or shape `[...]` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating or `where` not boolean.
      ValueError: If the last axis is not 5, shapes do not match (they never broadcast), or an
        option does not exist.

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
    first, second, mask, factor = paired(
        "kfiou", boxes, target_boxes, names=NAMES, where=where, weights=weights, inner=1
    )
    checks.option("kfiou", "fun", fun, ("linear", "exp", "log"))
    two = normal.compare("kfiou", first, second)
    areas = two.areas
    product = jnp.sqrt(areas[0] * areas[1])
    roots = jnp.sqrt(areas[0]) + jnp.sqrt(areas[1])
    unequal = (two.excess_area / roots) ** 2 / product
    widening = jnp.sqrt(1 + two.spread)
    # 1 / (3 K) - 1, of terms that are not negative.
    odds = (unequal * widening + 2 * two.spread / (1 + widening)) * (2 / 3)
    missing = odds / (1 + odds)
    loss = {"linear": missing, "exp": jnp.expm1(missing), "log": jnp.log1p(odds)}[fun]
    loss = loss + _centres(two)
    return reduce("kfiou", loss, reduction, mask=mask, weights=factor, axis_name=axis_name)


def _centres(two: normal.NormalPair) -> Array:
    """The smooth-L1 of the offset along the second box's axes, in its sides."""
    stretch = two.reach / two.unit
    offsets = [x * stretch / side for x, side in zip(two.offset, two.others, strict=True)]
    near = [jnp.clip(d, -_KNEE, _KNEE) for d in offsets]
    x, y = (n * (d - n / 2) / _KNEE for n, d in zip(near, offsets, strict=True))
    return x + y
