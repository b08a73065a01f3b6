"""Bilinear resizing as one small matrix product per axis."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import checks

__all__ = ["resize_logits"]

Array = jax.Array


@checks.named
def resize_logits(
    logits: ArrayLike, shape: Sequence[int], *, axis: int = -1, align_corners: bool = True
) -> Array:
    """Resizes the pixels of logits by linear interpolation along each of their axes.

    Output pixel `i` of `new` reads the input of `size` pixels at::

        i (size - 1) / (new - 1)                   align_corners=True
        max((i + 1/2) size / new - 1/2, 0)         align_corners=False

    and mixes its two neighbours, the last pixel beyond the edge. Both are PyTorch's `interpolate`
    (bilinear, no antialiasing); where it enlarges, `align_corners=False` is `jax.image.resize` too.
    The result is what :func:`jaxloss.upsampled_cross_entropy` never holds; with any other loss use
    this helper. The products are exact to float32 on every platform. A logit of -inf or NaN makes
    all outputs of its row and column NaN.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      shape: The new size of each pixel axis, positive integers.
      axis: The class axis; any axis works (1 for NCHW). The first remaining axis is the image.
      align_corners: Whether the centres of the corner pixels stay in place; False: the edges do.

    Returns:
      Shape `[B, *shape, C]` (`C` at `axis`); float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `axis` no integer.
      ValueError: If `shape` does not hold one positive integer per pixel axis, a pixel axis is
        empty, or the axis does not exist.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[[0.0], [3.0]]])
      >>> print(jaxloss.resize_logits(logits, (4,))[0, :, 0])
      [0. 1. 2. 3.]
      >>> print(jaxloss.resize_logits(logits, (4,), align_corners=False)[0, :, 0])
      [0.   0.75 2.25 3.  ]

    Reference:
      PyTorch, torch.nn.functional.interpolate:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html
    """
    scores, at = checks.images(logits, logits, axis)
    assert at is not None
    require_option(align_corners)
    result = scores.astype(checks.compute_dtype(scores))
    pixels = [i for i in range(scores.ndim) if i != at][1:]
    sizes = tuple(scores.shape[i] for i in pixels)
    is_size = lambda n: isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0
    if len(shape) != len(sizes) or not all(map(is_size, shape)):
        expected = f"a positive integer for each of the {len(sizes)} pixel axes"
        checks.fail(ValueError, "shape", tuple(shape), expected)
    require_pixels(scores, sizes)
    for i, size, new in zip(pixels, sizes, shape, strict=True):
        result = along(jnp.asarray(matrix(size, int(new), align_corners), result.dtype), result, i)
    return result


def require_option(align_corners: object) -> None:
    """Requires True or False."""
    checks.option("align_corners", align_corners, (True, False))


def require_pixels(logits: Array, sizes: Sequence[int]) -> None:
    """Requires that there is a pixel to read."""
    if 0 in sizes:
        checks.fail(ValueError, "logits", f"of shape {logits.shape}", "at least one pixel")


class Neighbours(NamedTuple):
    """The two input pixels that each output pixel mixes, and the share of the second."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray


def neighbours(size: int, new: int, align_corners: bool) -> Neighbours:
    """Returns where each of `new` pixels reads `size` pixels."""
    index = np.arange(new)
    if align_corners:
        place = index * ((size - 1) / max(new - 1, 1))
    else:
        place = np.clip((index + 0.5) * (size / new) - 0.5, 0, None)
    low = np.minimum(place.astype(int), size - 1)
    return Neighbours(low, np.minimum(low + 1, size - 1), place - low)


@functools.lru_cache(maxsize=64)
def matrix(size: int, new: int, align_corners: bool) -> np.ndarray:
    """Returns the weights `[new, size]` of one axis."""
    low, high, share = neighbours(size, new, align_corners)
    weights = np.zeros((new, size))
    np.add.at(weights, (np.arange(new), low), 1 - share)
    np.add.at(weights, (np.arange(new), high), share)
    return weights


def along(weights: Array, x: Array, axis: int) -> Array:
    """Multiplies one axis by a matrix, in full precision."""
    product = jnp.tensordot(weights, x, (1, axis), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)
