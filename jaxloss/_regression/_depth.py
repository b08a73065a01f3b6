"""Errors of depth maps, whose scale a single image hardly tells."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics
from jaxloss._core.families import regression
from jaxloss._core.images import Frame
from jaxloss._core.reading import paired
from jaxloss._core.reduction import reduce_values
from jaxloss._regression._elementwise import NAMES
from jaxloss.options import Fraction, Numbers, Regression

__all__ = ["scale_invariant_log"]

Array = jax.Array


@regression
def scale_invariant_log(
    predictions: Numbers,
    targets: Numbers,
    *,
    variance_focus: Fraction = 0.85,
    **options: Unpack[Regression],
) -> Array:
    """Computes the scale-invariant logarithmic error of the depths of each image.

    With `d = log predictions - log targets` and means over an image's valid pixels::

        SILog = sqrt(mean d^2 - variance_focus (mean d)^2)
              = sqrt(mean (d - mean d)^2 + (1 - variance_focus) (mean d)^2)

    in the second form, which does not cancel. `variance_focus=1` costs nothing where all depths are
    wrong by one factor, 0 is the root mean square of `d`. A pixel whose target or prediction is not
    above 0 has no logarithm and is left out, like one that is masked: let the network predict
    depths above 0, as by a softplus. The derivative at an exact match is 0.

    BTS and AdaBins multiply by 10, AdaBins divides the variance by n - 1. Eigen et al. take no
    root, with `variance_focus=0.5`.

    Args:
      predictions: Predicted depths, shape `[B, ...]` with at least one pixel axis, floating. The
        first axis is the image.
      targets: True depths, of the same shape; 0 where there is none.
      variance_focus: How much of the common factor is forgiven, in `[0, 1]`.

    Returns:
      A scalar, the mean over the images that have a valid pixel; with `reduction="none"` shape
      `[B]`. float32 for half-precision input.

    Example:
      >>> import jaxloss
      >>> depths, targets = [[2.0, 4.0, 5.0], [1.0, 2.0, 3.0]], [[1.0, 2.0, 0.0], [1.0, 2.0, 3.0]]
      >>> print(jaxloss.scale_invariant_log(depths, targets, reduction="none").round(4))
      [0.2685 0.    ]
      >>> print(jaxloss.scale_invariant_log(depths, targets, variance_focus=1.0))
      0.0

    Reference:
      Eigen, Puhrsch and Fergus. Depth Map Prediction from a Single Image using a Multi-Scale Deep
      Network. NeurIPS 2014. https://arxiv.org/abs/1406.2283
      Lee, Han, Ko and Suh. From Big to Small: Multi-Scale Local Planar Guidance for Monocular Depth
      Estimation (the root, 0.85). 2019. https://arxiv.org/abs/1907.10326
    """
    data = paired(predictions, targets, options, names=NAMES)
    depth, target, weight = data.prediction, data.target, data.weights
    checks.minimum_rank("predictions", depth, 2, "images and their pixels (one is x[None])")
    measured = ~((depth <= 0) | (target <= 0))  # NaN stays NaN
    if data.mask is not None:
        measured &= data.mask
    v = measured.astype(depth.dtype) * (1 if weight is None else weight)
    d = numerics.log(jnp.where(measured, depth, 1)) - jnp.log(jnp.where(measured, target, 1))

    frame = Frame(depth.ndim, None, per_image=True, axis_name=None)
    n = frame.total(v)
    mean = numerics.divide(frame.total(v * d), n)
    spread = numerics.divide(frame.total(v * (d - frame.over_pixels(mean)) ** 2), n)
    loss = numerics.sqrt(spread + (1 - variance_focus) * mean**2)
    kind, axis_name = options["reduction"], options["axis_name"]
    return reduce_values(loss, kind, mask=n > 0, axis_name=axis_name)
