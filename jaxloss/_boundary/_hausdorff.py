"""Hausdorff losses: squared errors that cost more the farther they lie from the boundary."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._boundary._maps import Sampling, neighbours, poison, scored, spacing_of
from jaxloss._core import checks, maps, numerics, scores
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import boundary
from jaxloss._core.images import Pixels, difference, read
from jaxloss._core.platforms import bind
from jaxloss._core.scores import score
from jaxloss.options import Boundary, Exponent, NonNegative, Numbers

__all__ = ["hausdorff_dt", "hausdorff_erosion"]

Array = jax.Array
State = tuple[Array, Array]


@boundary
def hausdorff_dt(
    logits: Numbers,
    labels: Numbers,
    *,
    alpha: Exponent = 2.0,
    log: bool = False,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    **options: Unpack[Boundary],
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
      alpha: Exponent of the distances, at least 0. The paper's best is 2.
      log: Whether to take `log1p` of each image's and class's loss, as MONAI's `LogHausdorffDTLoss`
        does of the reduced one.
      distance_map: The distances `d_y` of the shape of `logits`, if made before:
        `jaxloss.distance.compute_edts_for_hausdorff_loss` of the mask of each class, `axes` those
        of the pixels: `(1, 2)` for `[B, H, W, C]`.

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
    pixels = read(logits, labels, options)
    return hausdorff_of(pixels, options, alpha, log, distance_map, sampling)


@boundary
def hausdorff_erosion(
    logits: Numbers,
    labels: Numbers,
    *,
    erosions: int = 10,
    alpha: NonNegative = 2.0,
    **options: Unpack[Boundary],
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
      erosions: How many, at least 1: about the radius in pixels of the largest error.
      alpha: Exponent of the number of the erosion, at least 0.

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
    erosions = checks.integer("erosions", erosions, 1)
    pixels, _ = scored(read(logits, labels, options), options["include_background"])
    *_, p, q, y = pixels.form(*pixels.arrays, axis=pixels.axis)
    bad = jnp.isnan(y)
    error = difference(p, q, jnp.where(bad, p, y)) ** 2
    valid = None if pixels.weight is None else jnp.broadcast_to(pixels.weight != 0, error.shape)
    eroded = _eroded(error, valid, alpha, axes=pixels.spatial, erosions=erosions)
    total = pixels.total(eroded + poison(p, y))
    loss = numerics.divide(total, pixels.valid())
    return scores.reduce(loss, pixels, pixels.total(y), options)


def hausdorff_of(
    pixels: Pixels,
    options: Mapping[str, Any],
    alpha: Array | float,
    log: bool,
    distance_map: Array | None,
    sampling: Array | None,
) -> Array:
    """Returns the reduced Hausdorff loss by distance transforms."""
    checks.option("log", log, (False, True))
    pixels, given = scored(pixels, options["include_background"], distance_map)
    axes = pixels.spatial
    spacing = spacing_of(sampling, pixels.dtype, len(axes))
    p, y = pixels.both()
    masks = [lax.stop_gradient(p) > 0.5]
    if given is None:
        masks.append(y > 0.5)
    found = maps.to_boundary(jnp.stack(masks), spacing, axes=tuple(axis + 1 for axis in axes))
    of_p, of_y = found[0], found[1] if given is None else given
    far = _power(of_p, alpha) + _power(of_y, alpha)
    mean = bind(_hausdorff, log=log)
    return score(mean, pixels, options, pixels.valid(), more=_weighted_errors, maps=(far,))


def _power(d: Array, alpha: Array | float) -> Array:
    """A power of distances; a float is the 2 of `Exponent`."""
    return d * d if isinstance(alpha, float) else numerics.power(d, alpha)


def _hausdorff(counts: Confusion, n: Array, *, log: bool) -> Array:
    mean = numerics.divide(counts.more[0], n)
    return jnp.log1p(mean) if log else mean


def _weighted_errors(p: Array, q: Array, y: Array, far: Array) -> tuple[Array]:
    return (difference(p, q, y) ** 2 * far,)


@functools.partial(jax.jit, static_argnames=("axes", "erosions"))
def _eroded(
    error: Array, valid: Array | None, alpha: Array, *, axes: tuple[int, ...], erosions: int
) -> Array:
    """Returns the weighted sum of the erosions; compiled once."""

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
