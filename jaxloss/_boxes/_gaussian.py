"""Losses on the distance between two rotated boxes, taken as normal distributions."""

from __future__ import annotations

from typing import Annotated, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._normal_pair import Function, bounded, compare, excess
from jaxloss._boxes._per_pair import per_rotated_pair
from jaxloss._core import checks, numerics, polygons
from jaxloss._core.families import regression
from jaxloss._core.platforms import bind
from jaxloss.options import Interval, Number, Numbers, Regression

__all__ = ["bhattacharyya", "gwd", "kld"]

Array = jax.Array
Tau: TypeAlias = Annotated[Number, Interval("[1, inf)")]


@regression
def gwd(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    fun: Function = "log1p",
    tau: Tau = 1.0,
    normalize: bool = False,
    **options: Unpack[Regression],
) -> Array:
    """Computes the Gaussian Wasserstein distance loss of each pair of rotated boxes.

    With the centres' difference `D` and the covariances `S = R diag(w^2 / 4, h^2 / 4) R^T`::

        d^2 = |D|^2 + tr S + tr S' - 2 sqrt(tr(S S') + 2 sqrt(det S det S'))
        GWD = 1 / tau - 1 / (tau + fun(d^2))                      in [0, 1 / tau)

    The distance does not depend on how a box is named: `(w, h, a)`, `(w, h, a + pi)` and
    `(h, w, a + pi / 2)` are one box, and a square has no angle. Identical boxes cost exactly 0.
    Where the boxes have a length, not an aspect, the distance has a unit: `normalize` divides
    `d^2` by `sqrt(w h w' h')`. Without it, squares of lengths must fit the dtype.

    Sides are floored at 1e-6 of the pair's largest one; a negative side counts as 0. With `tau=1`
    this is the paper's `1 - 1 / (tau + fun(d^2))`; for other `tau` that formula is
    `1 - 1 / tau` larger, which mmrotate's `GDLoss_v1` keeps. The paper's best is `fun="sqrt"`,
    `tau=2`. mmrotate's `GDLoss` takes `d` where this takes `d^2` (its `"none"` is `"sqrt"` here)
    and normalises by default.

    Args:
      fun: What is applied to the distance: `"log1p"`, `"sqrt"` (derivative 0 at 0) or `"none"`.
      tau: Number in `[1, inf)`; the larger, the flatter.
      normalize: Whether `d^2` is divided by the geometric mean of both areas.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [1.0, 0.0, 4.0, 2.0, 0.5]]
      >>> targets = [[0.0, 0.0, 2.0, 4.0, 1.57079633], [0.0, 0.0, 4.0, 2.0, 0.0]]
      >>> print(jaxloss.gwd(boxes, targets, reduction="none").round(4))
      [0.     0.4695]

    Reference:
      Yang et al. Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss.
      ICML 2021. https://arxiv.org/abs/2101.11952
    """
    checks.option("normalize", normalize, (True, False))
    formula = bind(_gwd, fun=fun, normalize=normalize)
    return per_rotated_pair(formula, boxes, target_boxes, options, tau)


@regression
def kld(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    fun: Function = "log1p",
    tau: Tau = 1.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the Kullback-Leibler divergence loss of each pair of rotated boxes.

    With the centres' difference `D` and the covariances `S = R diag(w^2 / 4, h^2 / 4) R^T`, `S'`
    that of the target::

        d   = 1/2 (D^T S'^-1 D + tr(S'^-1 S) + log(det S' / det S)) - 1
        KLD = 1 / tau - 1 / (tau + fun(d))                        in [0, 1 / tau)

    `d` is the divergence of the prediction from the target, `KL(prediction || target)`: an offset
    counts relative to the target's sides, and exchanging the boxes changes the value. It has no
    unit. `(w, h, a)`, `(w, h, a + pi)` and `(h, w, a + pi / 2)` are one box, and a square has no
    angle. Identical boxes cost exactly 0. Sides are floored at 1e-6 of the pair's largest one; a
    negative side counts as 0.

    mmrotate's `GDLoss_v1` leaves out the half: its distance is `2 d`. mmrotate's `GDLoss` and the
    authors' code compute `KL(target || prediction)`, which is this loss with the boxes
    exchanged, and take its root unless told not to (`fun` of `sqrt(d)`). For `tau` above 1 the
    paper's `1 - 1 / (tau + fun(d))` is `1 - 1 / tau` larger.

    Args:
      fun: What is applied to the distance: `"log1p"`, `"sqrt"` (derivative 0 at 0) or `"none"`.
      tau: Number in `[1, inf)`; the larger, the flatter.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [1.0, 0.0, 4.0, 2.0, 0.5]]
      >>> targets = [[0.0, 0.0, 2.0, 4.0, 1.57079633], [0.0, 0.0, 4.0, 2.0, 0.0]]
      >>> print(jaxloss.kld(boxes, targets, reduction="none").round(4))
      [0.     0.2451]

    Reference:
      Yang et al. Learning High-Precision Bounding Box for Rotated Object Detection via
      Kullback-Leibler Divergence. NeurIPS 2021. https://arxiv.org/abs/2106.01883
    """
    return per_rotated_pair(bind(_kld, fun=fun), boxes, target_boxes, options, tau)


@regression
def bhattacharyya(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    fun: Function = "log1p",
    tau: Tau = 1.0,
    **options: Unpack[Regression],
) -> Array:
    """Computes the Bhattacharyya distance loss of each pair of rotated boxes.

    With the centres' difference `D`, the covariances `S = R diag(w^2 / 4, h^2 / 4) R^T` and
    `M = (S + S') / 2`::

        d    = 1/8 D^T M^-1 D + 1/2 log(det M / sqrt(det S det S'))
        loss = 1 / tau - 1 / (tau + fun(d))                       in [0, 1 / tau)

    It is symmetric and has no unit. `(w, h, a)`, `(w, h, a + pi)` and `(h, w, a + pi / 2)` are one
    box, and a square has no angle. Identical boxes cost exactly 0. Sides are floored at 1e-6 of
    the pair's largest one; a negative side counts as 0.

    mmrotate (`GDLoss_v1`, `"bcd"`) gives the same where the distance is above its floor of 1e-6;
    for `tau` above 1 its `1 - 1 / (tau + fun(d))` is `1 - 1 / tau` larger. :func:`probiou` is the
    same distance of wider distributions.

    Args:
      fun: What is applied to the distance: `"log1p"`, `"sqrt"` (derivative 0 at 0) or `"none"`.
      tau: Number in `[1, inf)`; the larger, the flatter.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 4.0, 2.0, 0.0], [1.0, 0.0, 4.0, 2.0, 0.5]]
      >>> targets = [[0.0, 0.0, 2.0, 4.0, 1.57079633], [0.0, 0.0, 4.0, 2.0, 0.0]]
      >>> print(jaxloss.bhattacharyya(boxes, targets, reduction="none").round(4))
      [0.     0.0855]

    Reference:
      Yang et al. Detecting Rotated Objects as Gaussian Distributions and Its 3-D Generalization.
      IEEE Transactions on Pattern Analysis and Machine Intelligence 2022.
      https://arxiv.org/abs/2209.10839
    """
    return per_rotated_pair(bind(_bhattacharyya, fun=fun), boxes, target_boxes, options, tau)


def _gwd(pair: polygons.Pair, tau: Array, fun: Function, normalize: bool) -> Array:
    two = compare(pair)
    (w, h), (v, g) = two.sides, two.others
    middle = w * v + h * g
    turned = two.turn * two.anisotropy
    # A difference of a root and its square's: the quotient does not cancel.
    twist = numerics.divide(turned, middle + numerics.sqrt(middle**2 - turned))
    shape = ((w - v) ** 2 + (h - g) ** 2 + 2 * twist) / 4
    distance = two.offset[0] ** 2 + two.offset[1] ** 2 + two.shrink * shape
    if normalize:
        area, other = two.areas
        return bounded(distance / jnp.sqrt(area * other), (two.reach, two.unit), fun, tau)
    length = two.reach * numerics.sqrt(jax.lax.stop_gradient(distance))
    longest = jnp.maximum(length, 1)
    ratio = numerics.divide(two.reach, longest)
    return bounded(distance * ratio * ratio, (longest, jnp.ones_like(length)), fun, tau)


def _kld(pair: polygons.Pair, tau: Array, fun: Function) -> Array:
    two = compare(pair)
    (w, h), (v, g), (x, y) = two.sides, two.others, two.offset
    per_area = numerics.reciprocal(v * g)
    twist = two.turn * ((w - h) * (w + h) * per_area) * ((v - g) * (v + g) * per_area)
    shape = (excess(w, v) + excess(h, g) + twist) / 2
    squares = [numerics.divide(d, side) ** 2 for d, side in ((x, v), (y, g))]
    distance = 2 * (squares[0] + squares[1]) + two.shrink * shape
    return bounded(distance, (two.reach, two.unit), fun, tau)


def _bhattacharyya(pair: polygons.Pair, tau: Array, fun: Function) -> Array:
    two = compare(pair)
    distance = two.distance + two.shrink * jnp.log1p(two.widening) / 2
    return bounded(distance, (two.reach, two.unit), fun, tau)
