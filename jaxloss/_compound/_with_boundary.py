"""Dice beside a loss of the boundary."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import jax
from jax import lax

from jaxloss._boundary._hausdorff import hausdorff_of
from jaxloss._boundary._maps import Sampling
from jaxloss._boundary._surface import boundary_of
from jaxloss._compound._parts import read
from jaxloss._core import numerics
from jaxloss._core.families import compound_boundary
from jaxloss._region._generalized import Weighting, generalized_of
from jaxloss._region._overlap import Squared, dice_of
from jaxloss.options import Boundary, Exponent, Fraction, NonNegative, Numbers

__all__ = ["dice_boundary", "dice_hausdorff"]

Array = jax.Array


@compound_boundary
def dice_boundary(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha: Fraction = 0.5,
    weighting: Weighting = "square",
    smooth: NonNegative = 1e-5,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    **options: Unpack[Boundary],
) -> Array:
    """Computes a blend of generalised Dice and the boundary loss.

    Dice finds the object, the boundary loss moves its outline::

        alpha generalized_dice + (1 - alpha) boundary

    The boundary loss alone finds no object from a random start. The paper's schedule has `alpha`
    fall from 1 by 0.01 an epoch down to 0.01. `alpha` may be traced: inside a compiled train step
    the value of an Optax schedule costs no second compilation::

        alpha = optax.linear_schedule(1.0, 0.01, transition_steps=99)(step // steps_per_epoch)

    Its minimum depends on the target and may be negative, as that of :func:`jaxloss.boundary`;
    Dice is :func:`jaxloss.generalized_dice`. Both leave out class 0 where classes compete, unless
    `include_background` says otherwise.

    Args:
      alpha: Share of Dice, in `[0, 1]`; the boundary loss has the rest.
      weighting: The weight of a class in Dice: `"square"`, one over its squared size, `"simple"`,
        one over its size, or `"uniform"`.
      smooth: Added to Dice's numerator and denominator, at least 0.
      distance_map: The signed distances of the shape of `logits`, if made before, as in
        :func:`jaxloss.boundary`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> p = jnp.array([[[0.5, 0.0, 0.5, 0.8, 0.8]]])
      >>> for alpha in (1.0, 0.5, 0.01):
      ...     print(jaxloss.dice_boundary(p, y, alpha=alpha, axis=None, activation=None).round(4))
      0.3043
      0.2722
      0.2406

    Reference:
      Kervadec et al. Boundary Loss for Highly Unbalanced Segmentation. MIDL 2019.
      https://arxiv.org/abs/1812.07032
    """
    pixels = read(logits, labels, options)
    scored = pixels.foreground(options["include_background"])
    every: dict[str, Any] = {**options, "include_background": True, "absent": "score"}
    dice = generalized_of(scored, every, weighting, smooth)
    return alpha * dice + (1 - alpha) * boundary_of(pixels, options, distance_map, sampling)


@compound_boundary
def dice_hausdorff(
    logits: Numbers,
    labels: Numbers,
    *,
    dice_weight: NonNegative | Literal["adaptive"] = 1.0,
    hausdorff_weight: NonNegative = 1.0,
    smooth: NonNegative = 1.0,
    squared: Squared = False,
    alpha: Exponent = 2.0,
    log: bool = False,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    **options: Unpack[Boundary],
) -> Array:
    """Computes the sum of soft Dice and the Hausdorff loss by distance transforms.

    Dice finds the object, the Hausdorff loss pulls in what is far from it::

        dice_weight dice + hausdorff_weight hausdorff_dt
        dice_weight="adaptive": the factor hausdorff_dt / dice, a constant for the derivative

    The Hausdorff loss grows with the square of the distances, Dice stays below 1: `"adaptive"`
    keeps both equal, as the paper does. Where Dice is 0 that factor is 0.

    Args:
      dice_weight: Factor of Dice, at least 0, or `"adaptive"`.
      hausdorff_weight: Factor of the Hausdorff loss, at least 0.
      smooth: Added to Dice's numerator and denominator, at least 0.
      squared: Dice's form: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      alpha: Exponent of the distances in the Hausdorff loss, at least 0.
      log: Whether to take `log1p` of each image's and class's Hausdorff loss.
      distance_map: The distances of the target of the shape of `logits`, if made before, as in
        :func:`jaxloss.hausdorff_dt`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.array([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> p = jnp.array([[[0.9, 0.0, 0.0, 0.9, 0.9]]])
      >>> for weight in (1.0, "adaptive"):
      ...     options = {"dice_weight": weight, "axis": None, "activation": None}
      ...     print(jaxloss.dice_hausdorff(p, y, **options).round(4))
      1.833
      3.28

    Reference:
      Karimi and Salcudean. Reducing the Hausdorff Distance in Medical Image Segmentation with
      Convolutional Neural Networks. IEEE TMI 2020. https://arxiv.org/abs/1904.10030
    """
    pixels = read(logits, labels, options)
    hausdorff = hausdorff_of(pixels, options, alpha, log, distance_map, sampling)
    dice = dice_of(pixels, options, smooth, squared)
    if isinstance(dice_weight, str):
        dice_weight = lax.stop_gradient(numerics.divide(hausdorff, dice))
    return dice_weight * dice + hausdorff_weight * hausdorff
