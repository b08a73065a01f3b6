"""Boundary (surface) loss."""

import jax
from jax.typing import ArrayLike

from jaxloss._boundary._maps import Sampling, poison, scored, spacing_of
from jaxloss._core import confusion, maps, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["boundary"]

Array = jax.Array


def boundary(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    distance_map: ArrayLike | None = None,
    sampling: Sampling = None,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the boundary loss: probabilities weighted by the distance to the true boundary.

    With the signed distance `phi` to each class's boundary (positive outside, negative inside, 0 on
    the inner rim; see :func:`jaxloss.distance.signed_distance`), over an image's valid pixels::

        boundary = mean phi p

    It is the mean distance that separates the predicted region from the true boundary, up to a
    constant: it may be negative and its minimum depends on the target. It has almost no gradient on
    empty predictions, so train it together with a region loss, whose weight falls over time.

    The map is exact, computed inside the compiled program, and a constant for the derivative. A
    class whose target is empty or full has no boundary: its map and loss are 0. The authors' data
    loader rounds its maps to integers; these are not.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      distance_map: The signed distances, if computed before, in the shape of `logits`.
      sampling: Size of a pixel along each spatial axis, one number or one per axis; None: 1.
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
      include_background: Whether class 0 takes part in the mean; None: unless classes compete.
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
      >>> labels = jnp.array([[[0, 0, 0, 1, 1]]])
      >>> near = jnp.array([[[0.0, 0.0, 0.9, 0.9, 0.9]]])
      >>> far = jnp.array([[[0.9, 0.0, 0.0, 0.9, 0.9]]])
      >>> for p in (near, far):
      ...     print(jaxloss.boundary(jnp.stack([1 - p, p], -1), labels, activation=None).round(4))
      0.0
      0.36

    Reference:
      Kervadec et al. Boundary Loss for Highly Unbalanced Segmentation. MIDL 2019.
      https://arxiv.org/abs/1812.07032
    """
    name = "boundary"
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
    pixels, phi = scored(name, pixels, include_background, distance_map)
    return boundary_of(name, pixels, phi, sampling, reduction)


def boundary_of(
    function: str,
    pixels: confusion.Pixels,
    phi: Array | None,
    sampling: Sampling,
    reduction: str,
) -> Array:
    """Returns the reduced loss; without a map it is computed."""
    if phi is None:
        spacing = spacing_of(function, sampling, pixels.p.dtype, len(pixels.spatial))
        phi = maps.signed(pixels.y > 0.5, spacing, axes=pixels.spatial)

    def moved(p: Array, y: Array, phi: Array) -> tuple[Array]:
        return (phi * p + poison(p, y),)

    def loss(counts: confusion.Confusion, valid: Array) -> Array:
        return numerics.divide(counts.more[0], valid)

    return confusion.score(
        function, loss, pixels, reduction, pixels.valid(), more=moved, extra=(phi,)
    )
