"""The similarity of keypoints, as the COCO benchmark measures it."""

from __future__ import annotations

from typing import Annotated, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss._core.families import regression
from jaxloss._core.reading import paired
from jaxloss._core.reduction import reduce_values
from jaxloss._regression._elementwise import NAMES
from jaxloss.options import Interval, Numbers, Regression

__all__ = ["keypoint_similarity"]

Array = jax.Array
Sigmas: TypeAlias = Annotated[Numbers, Interval("(0, inf)", scalar=False)]


@regression
def keypoint_similarity(
    predictions: Numbers,
    targets: Numbers,
    areas: Numbers,
    sigmas: Sigmas,
    **options: Unpack[Regression],
) -> Array:
    """Computes 1 less the object keypoint similarity (OKS) of each object.

    With the distance `r` of a point from its target, over the visible points of an object::

        L = 1 - OKS = mean of  1 - exp(-r^2 / (2 (2 sigma)^2 area))               in [0, 1]

    An object without a visible point costs 0 and does not count in the mean over the objects, so
    that padding changes nothing; ultralytics' pose loss counts it, and adds 1e-9 to the area. An
    area of 0 is the limit: any distance costs 1, with zero gradient.

    Args:
      predictions: Predicted points, shape `[..., K, D]`: K points of D coordinates, floating.
      targets: True points, of the same shape.
      areas: The area of each object (its segment's; ultralytics takes its box's), in the square
        of the points' unit: shape `[...]` with each dimension equal or 1, or a scalar.
      sigmas: How far annotators are apart at each point, relative to the object's size, above 0:
        one number, or one per point, `[K]`.
      where: Boolean, which points are visible, shape `[..., K]` with each dimension equal or 1.
        What is False reaches neither value nor gradient, not even as NaN.
      weights: How much each point counts in the mean of its object, shaped like `where`.

    Returns:
      A scalar, or one value per object (`[...]`) with `reduction="none"`; float32 for
      half-precision input.

    Example:
      >>> import jaxloss
      >>> points, targets = [[[1.0, 2.0], [9.0, 9.0]]], [[[1.0, 4.0], [0.0, 0.0]]]
      >>> visible, sigmas = [[True, False]], [0.1, 0.05]
      >>> print(jaxloss.keypoint_similarity(points, targets, 100.0, sigmas, where=visible).round(4))
      0.3935

    Reference:
      Maji, Nagori, Mathew and Poddar. YOLO-Pose: Enhancing YOLO for Multi Person Pose Estimation
      Using Object Keypoint Similarity Loss. CVPR Workshops 2022. https://arxiv.org/abs/2204.06806
    """
    data = paired(predictions, targets, options, names=NAMES, inner=1)
    points = data.prediction
    checks.minimum_rank("predictions", points, 2, "the points of an object and their coordinates")
    if sigmas.ndim > 0:
        checks.shape("sigmas", sigmas, points.shape[-2:-1], "one per point, or one number")
        sigmas = sigmas.reshape((1,) * (points.ndim - 2) + sigmas.shape)
    area = checks.real("areas", areas, points.dtype)
    if area.ndim > 0:
        area = checks.broadcastable("areas", area, points.shape[:-2])[..., None]
    visible = jnp.ones((1,) * (points.ndim - 1), bool) if data.mask is None else data.mask
    v = visible.astype(points.dtype) * (1 if data.weights is None else data.weights)
    v = jnp.broadcast_to(v, points.shape[:-1])

    cost = jnp.where(visible, _unlike(points - data.target, jnp.where(visible, area, 1), sigmas), 0)
    n = v.sum(-1)
    loss = numerics.divide((v * cost).sum(-1), n)
    kind, axis_name = options["reduction"], options["axis_name"]
    return reduce_values(loss, kind, mask=n > 0, axis_name=axis_name)


def _unlike(apart: Array, area: Array, sigma: Array) -> Array:
    """What each point costs that lies `apart` from its target."""
    none = area <= 0  # NaN stays NaN
    unit = 2 * sigma * jnp.sqrt(2 * jnp.where(none, 1, area))
    far = ((apart / unit[..., None]) ** 2).sum(-1)
    return jnp.where(none, jnp.where(far == 0, far, 1), -numerics.expm1(-far))
