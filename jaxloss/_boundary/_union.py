"""Boundary difference over union."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._boundary._maps import neighbours, scored
from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["boundary_dou"]

Array = jax.Array


def boundary_dou(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha_max: ArrayLike = 0.8,
    smooth: ArrayLike = 1e-5,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      alpha_max: Largest `a`, in `[0, 1)`.
      smooth: Added to the denominator, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

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
    name = "boundary_dou"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    pixels, _ = scored(name, pixels, include_background)
    dtype = pixels.p.dtype
    limit = checks.number(name, "alpha_max", alpha_max, dtype, "[0, 1)")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")
    target = pixels.y > 0.5
    if pixels.weight is not None:
        target = target & (pixels.weight != 0)
    inner = functools.reduce(jnp.logical_and, neighbours(target, pixels.spatial))
    contour = pixels.total((target & ~inner).astype(dtype))

    def apart(p: Array, y: Array) -> tuple[Array]:
        return ((p - y) ** 2 + y * (1 - y),)

    def loss(counts: confusion.Confusion, contour: Array, limit: Array, smooth: Array) -> Array:
        a = jnp.minimum(1 - 2 * numerics.divide(contour, counts.actual), limit)
        difference = counts.more[0]
        return numerics.divide(difference, difference + (1 - a) * counts.tp + smooth)

    return confusion.score(name, loss, pixels, reduction, contour, limit, smooth, more=apart)
