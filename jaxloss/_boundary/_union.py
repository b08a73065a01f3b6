"""Boundary difference over union."""

from __future__ import annotations

import functools
from typing import Annotated, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boundary._maps import neighbours, scored
from jaxloss._core import numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation_elements
from jaxloss._core.images import difference, read
from jaxloss._core.scores import score
from jaxloss.options import Activation, Elements, Interval, NonNegative, Number, Numbers

__all__ = ["boundary_dou"]

Array = jax.Array


@segmentation_elements
def boundary_dou(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha_max: Annotated[Number, Interval("[0, 1)")] = 0.8,
    smooth: NonNegative = 1e-5,
    activation: Activation = "auto",
    per_image: bool = True,
    include_background: bool = True,
    **options: Unpack[Elements],
) -> Array:
    """Computes the boundary difference over union: the error over what of the union is interior.

    With `S = sum y` the size of the target and `C` the number of its pixels that have fewer than
    `2 d` face neighbours in it, in `d` dimensions, over an image's valid pixels::

        a = min(1 - 2 C / S, alpha_max)
        boundary_dou = (sum p^2 + S - 2 sum p y) / (sum p^2 + S - (1 + a) sum p y + smooth)

    Of a large target (`a` near 1) most of the intersection leaves the denominator, so that its
    boundary decides; of a small one (`a` may be negative) it stays. The difference in the numerator
    is 0 for a perfect prediction: the authors add `smooth` to it too. All classes take part,
    the background included, as in their code. `C` is a constant for the derivative. Outside of the
    image is not target, nor is a pixel that does not count.

    Args:
      alpha_max: Largest `a`, in `[0, 1)`.
      smooth: Added to the denominator, at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> y = jnp.zeros((1, 8, 8)).at[:, 1:7, 1:7].set(1.0)
      >>> p = y.at[:, 1].set(0.0)
      >>> print(jaxloss.boundary_dou(p, y, axis=None, activation=None).round(4))
      0.1525

    Reference:
      Sun, Luo and Li. Boundary Difference Over Union Loss for Medical Image Segmentation. MICCAI
      2023. https://arxiv.org/abs/2308.00220
    """
    own = {"activation": activation, "per_image": per_image}
    pixels, _ = scored(read(logits, labels, {**options, **own}), include_background)
    target = pixels.targets() > 0.5
    if pixels.weight is not None:
        target = target & (pixels.weight != 0)
    inner = functools.reduce(jnp.logical_and, neighbours(target, pixels.spatial))
    contour = pixels.total((target & ~inner).astype(pixels.dtype))
    return score(_boundary_dou, pixels, options, contour, alpha_max, smooth, more=_apart)


def _boundary_dou(counts: Confusion, contour: Array, alpha_max: Array, smooth: Array) -> Array:
    alpha = jnp.minimum(1 - 2 * numerics.divide(contour, counts.actual), alpha_max)
    (difference,) = counts.more
    return numerics.share(difference, (1 - alpha) * counts.tp + smooth)


def _apart(p: Array, q: Array, y: Array) -> tuple[Array]:
    return (difference(p, q, y) ** 2 + y * (1 - y),)
