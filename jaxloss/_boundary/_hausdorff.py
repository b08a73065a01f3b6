"""Hausdorff losses: squared errors that cost more the farther they lie from the boundary."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss._boundary._maps import Sampling, neighbours, poison, scored, spacing_of
from jaxloss._core import checks, confusion, maps, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["hausdorff_dt", "hausdorff_erosion"]

Array = jax.Array
State = tuple[Array, Array]


def hausdorff_dt(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 2.0,
    log: bool = False,
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
    """Computes the Hausdorff loss by distance transforms: errors weighted by their distance.

    With the distances `d_p` and `d_y` to the boundaries of prediction (`p > 0.5`) and target, on
    both sides of them, over an image's valid pixels::

        hausdorff_dt = mean (p - y)^2 (d_p^alpha + d_y^alpha)
        log=True:      log(1 + hausdorff_dt), of each image and class

    See :func:`jaxloss.distance.compute_edts_for_hausdorff_loss` for the maps. They are exact, made
    inside the compiled program, and constants for the derivative. An empty mask has the map 0, a
    full one the distance to the outside of the image: so a full prediction of an empty target, and
    an empty one of a full target, costs. In MONAI it costs nothing, and SciPy measures full masks
    to a point that does not exist. Other code that keeps the inside of each map alone gives an
    error no price for its distance to the target; this is the sum of both sides.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      alpha: Power of the distances, at least 0. The paper's best is 2.
      log: Whether to take `log1p` of each image's and class's loss, as MONAI's `LogHausdorffDTLoss`
        does of the reduced one.
      distance_map: The distances `d_y`, if computed before, in the shape of `logits`.
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
      >>> y = jnp.array([[[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> near = jnp.array([[[0.0, 0.0, 0.0, 0.9, 1.0, 1.0]]])
      >>> far = jnp.array([[[0.9, 0.0, 0.0, 0.0, 1.0, 1.0]]])
      >>> for p in (near, far):
      ...     print(jaxloss.hausdorff_dt(p, y, axis=None, activation=None).round(3))
      0.27
      2.295

    Reference:
      Karimi and Salcudean. Reducing the Hausdorff Distance in Medical Image Segmentation with
      Convolutional Neural Networks. IEEE TMI 2020. https://arxiv.org/abs/1904.10030
    """
    name = "hausdorff_dt"
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
    loss = hausdorff_of(name, pixels, alpha, log, distance_map, sampling, include_background)
    return confusion.reduce(name, *loss, reduction)


def hausdorff_erosion(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    erosions: int = 10,
    alpha: ArrayLike = 2.0,
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
    """Computes the Hausdorff loss by erosion: errors weighted by the erosions that they survive.

    With the cross kernel `B` of `2 d + 1` ones over its sum in `d` dimensions and zeros outside of
    the image, over an image's valid pixels::

        e_0 = (p - y)^2
        e_k = relu(B * e_(k-1) - 1/2), then scaled to [0, 1] in each image and class
        hausdorff_erosion = mean sum_(k=1..erosions) k^alpha e_k

    An error that is constant is not scaled. Thin errors vanish at the first erosion: add a region
    loss. It is differentiable throughout, the scaling included, and needs no distance map; the
    kernel has as many dimensions as the image (SegLoss computes the loss outside of autograd, and
    its 3-D kernel is a 2-D one). Pixels that do not count are outside of the image.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      erosions: How many, at least 1: about the radius in pixels of the largest error.
      alpha: Power of the number of the erosion, at least 0.
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
      >>> y = jnp.zeros((1, 7, 7))
      >>> for side in (1, 3, 5):
      ...     p = y.at[:, 1 : 1 + side, 1 : 1 + side].set(1.0)
      ...     print(jaxloss.hausdorff_erosion(p, y, axis=None, activation=None).round(3))
      0.0
      0.167
      1.798

    Reference:
      Karimi and Salcudean. Reducing the Hausdorff Distance in Medical Image Segmentation with
      Convolutional Neural Networks. IEEE TMI 2020. https://arxiv.org/abs/1904.10030
    """
    name = "hausdorff_erosion"
    if isinstance(erosions, bool) or not isinstance(erosions, int):
        checks.fail(TypeError, name, "erosions", repr(erosions), "an integer")
    if erosions < 1:
        checks.fail(ValueError, name, "erosions", erosions, "1 or more")
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
    power = checks.number(name, "alpha", alpha, pixels.p.dtype, "[0, inf)")
    error = (pixels.p - jnp.where(jnp.isnan(pixels.y), pixels.p, pixels.y)) ** 2
    valid = None if pixels.weight is None else jnp.broadcast_to(pixels.weight != 0, error.shape)
    eroded = _eroded(error, valid, power, axes=pixels.spatial, erosions=erosions)
    total = pixels.total(eroded + poison(pixels.p, pixels.y))
    loss = numerics.divide(total, pixels.valid())
    return confusion.reduce(name, loss, pixels, pixels.total(pixels.y), reduction)


def hausdorff_of(
    function: str,
    pixels: confusion.Pixels,
    alpha: ArrayLike,
    log: bool,
    distance_map: ArrayLike | None,
    sampling: Sampling,
    include_background: bool | None,
) -> tuple[Array, confusion.Pixels, Array]:
    """Returns the loss of each image and class that is scored, their pixels and target sizes."""
    checks.option(function, "log", log, (False, True))
    pixels, given = scored(function, pixels, include_background, distance_map)
    dtype, axes = pixels.p.dtype, pixels.spatial
    power = checks.number(function, "alpha", alpha, dtype, "[0, inf)")
    spacing = spacing_of(function, sampling, dtype, len(axes))
    masks = [lax.stop_gradient(pixels.p) > 0.5]
    if given is None:
        masks.append(pixels.y > 0.5)
    found = maps.to_boundary(jnp.stack(masks), spacing, axes=tuple(axis + 1 for axis in axes))
    of_p, of_y = found[0], found[1] if given is None else given
    square = isinstance(alpha, (int, float)) and alpha == 2
    cost = sum(d * d if square else numerics.power(d, power) for d in (of_p, of_y))
    loss = numerics.divide(pixels.total((pixels.p - pixels.y) ** 2 * cost), pixels.valid())
    return jnp.log1p(loss) if log else loss, pixels, pixels.total(pixels.y)


@functools.partial(jax.jit, static_argnames=("axes", "erosions"))
def _eroded(
    error: Array, valid: Array | None, alpha: Array, *, axes: tuple[int, ...], erosions: int
) -> Array:
    """Returns the weighted sum of the erosions; compiled once, also when called eagerly."""

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def erode(state: State, weight: Array) -> tuple[State, None]:
        e, total = state
        spread = e + sum(neighbours(e, axes))
        e = jax.nn.relu(spread / (2 * len(axes) + 1) - 0.5)
        # The derivative of a maximum looks for what equals it: computed anew, nothing might.
        e = lax.optimization_barrier(e)
        if valid is not None:
            e = jnp.where(valid, e, 0)
        high = jnp.max(e, axis=axes, keepdims=True)
        low = jnp.min(e if valid is None else jnp.where(valid, e, high), axis=axes, keepdims=True)
        e = jnp.where(high > low, numerics.divide(e - low, high - low), e)
        if valid is not None:
            e = jnp.where(valid, e, 0)
        return (e, total + weight * e), None

    if valid is not None:
        error = jnp.where(valid, error, 0)
    if error.size == 0:
        return error
    weights = jnp.arange(1, erosions + 1, dtype=error.dtype) ** alpha
    return lax.scan(erode, (error, jnp.zeros_like(error)), weights)[0][1]
