"""What a head predicts of a box, and the box of what it predicts."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import checks, pairs

__all__ = [
    "decode_deltas",
    "decode_distances",
    "decode_distribution",
    "encode_deltas",
    "encode_distances",
]

Array = jax.Array

LARGEST = math.log(1000 / 16)  # of the logarithms of sides, in decoding


@checks.named
def encode_deltas(
    boxes: ArrayLike, anchors: ArrayLike, *, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Array:
    """Encodes boxes as offsets from anchors, in units of the anchors.

    Of centres `(x, y)` and sides `(w, h)`, the anchor's with index `a`::

        dx = (x - xa) / wa      dy = (y - ya) / ha      dw = log(w / wa)      dh = log(h / ha)

    each times its weight. A side of length 0 has a logarithm of -inf.

    Args:
      boxes: Boxes xyxy, `[..., 4]`, floating.
      anchors: Anchors xyxy whose shape broadcasts to that of the boxes; with an area.
      weights: Factors of dx, dy, dw and dh.

    Returns:
      Offsets (dx, dy, dw, dh), `[..., 4]`; float32 for half-precision input.

    Raises:
      TypeError: If the boxes are not floating.
      ValueError: If a last axis is not 4, or there are not four weights.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.encode_deltas([[0.0, 0.0, 8.0, 4.0]], [[0.0, 0.0, 4.0, 4.0]]).round(4))
      [[0.5 0. 0.6931 0. ]]

    Reference:
      Girshick et al. Rich Feature Hierarchies. CVPR 2014. https://arxiv.org/abs/1311.2524
    """
    box, anchor = _pair("boxes", boxes, "anchors", anchors)
    (centre, size), (origin, unit) = _centre_and_size(box), _centre_and_size(anchor)
    deltas = jnp.concatenate([(centre - origin) / unit, jnp.log(size / unit)], -1)
    return deltas * _weights(weights, deltas)


@checks.named
def decode_deltas(
    deltas: ArrayLike,
    anchors: ArrayLike,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    largest: float = LARGEST,
) -> Array:
    """Decodes offsets from anchors into boxes, the inverse of `encode_deltas`.

    Args:
      deltas: Offsets (dx, dy, dw, dh), `[..., 4]`, floating.
      anchors: Anchors xyxy whose shape broadcasts to that of the deltas.
      weights: Factors of dx, dy, dw and dh in the encoding.
      largest: Logarithms of sides above it are taken as it, with zero gradient, so that no box
        overflows: 62.5 times the anchor's side by default.

    Returns:
      Boxes xyxy, `[..., 4]`; float32 for half-precision input.

    Raises:
      TypeError: If the deltas are not floating.
      ValueError: If a last axis is not 4, or there are not four weights.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.decode_deltas([[0.5, 0.0, 0.0, 0.0]], [[0.0, 0.0, 4.0, 4.0]]))
      [[2. 0. 6. 4.]]

    Reference:
      Girshick et al. Rich Feature Hierarchies. CVPR 2014. https://arxiv.org/abs/1311.2524
    """
    delta, anchor = _pair("deltas", deltas, "anchors", anchors)
    shift, logarithm = jnp.split(delta / _weights(weights, delta), 2, -1)
    origin, unit = _centre_and_size(anchor)
    logarithm = jnp.where(logarithm > largest, largest, logarithm)
    centre, half = origin + shift * unit, jnp.exp(logarithm) * unit / 2
    return jnp.concatenate([centre - half, centre + half], -1)


@checks.named
def encode_distances(boxes: ArrayLike, points: ArrayLike, *, strides: ArrayLike = 1.0) -> Array:
    """Encodes boxes as the distances of their four sides from points.

    `l = (x - x0) / s`, `t = (y - y0) / s`, `r = (x1 - x) / s`, `b = (y1 - y) / s`: all positive
    where the point is inside the box.

    Args:
      boxes: Boxes xyxy, `[..., 4]`, floating.
      points: Points (x, y), `[..., 2]`, that broadcast to the boxes.
      strides: The unit `s` of each point, a number or `[...]`.

    Returns:
      Distances (l, t, r, b), `[..., 4]`; float32 for half-precision input.

    Raises:
      TypeError: If the boxes are not floating.
      ValueError: If a last axis is not 4 or 2.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.encode_distances([[0.0, 0.0, 8.0, 4.0]], [[2.0, 2.0]], strides=2))
      [[1. 1. 3. 1.]]

    Reference:
      Tian et al. FCOS: Fully Convolutional One-Stage Object Detection. ICCV 2019.
      https://arxiv.org/abs/1904.01355
    """
    box, point = _pair("boxes", boxes, "points", points, 2)
    distances = jnp.concatenate([point - box[..., :2], box[..., 2:] - point], -1)
    return distances / _units(strides, distances)


@checks.named
def decode_distances(distances: ArrayLike, points: ArrayLike, *, strides: ArrayLike = 1.0) -> Array:
    """Decodes distances from points into boxes, the inverse of `encode_distances`.

    Args:
      distances: Distances (l, t, r, b), `[..., 4]`, floating.
      points: Points (x, y), `[..., 2]`, that broadcast to the distances.
      strides: The unit of the distances at each point, a number or `[...]`.

    Returns:
      Boxes xyxy, `[..., 4]`; float32 for half-precision input.

    Raises:
      TypeError: If the distances are not floating.
      ValueError: If a last axis is not 4 or 2.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.decode_distances([[1.0, 1.0, 3.0, 1.0]], [[2.0, 2.0]], strides=2))
      [[0. 0. 8. 4.]]

    Reference:
      Tian et al. FCOS: Fully Convolutional One-Stage Object Detection. ICCV 2019.
      https://arxiv.org/abs/1904.01355
    """
    distance, point = _pair("distances", distances, "points", points, 2)
    outward = jnp.asarray([-1, -1, 1, 1], distance.dtype)
    outward = outward.reshape((1,) * (distance.ndim - 1) + (4,))
    return jnp.concatenate([point, point], -1) + outward * distance * _units(strides, distance)


@checks.named
def decode_distribution(logits: ArrayLike) -> Array:
    """Decodes a distribution over whole distances into its expectation.

    `sum_k k p_k` with `p = softmax(logits)` over the bins `k = 0, ..., n - 1`.

    Args:
      logits: Scores of the bins on the last axis, `[..., n]`, floating. A head's
        `[..., 4 * n]` is reshaped to `[..., 4, n]`.

    Returns:
      Distances, `[...]`, in `[0, n - 1]`; float32 for half-precision input.

    Raises:
      TypeError: If the logits are not floating.
      ValueError: If there is no axis of bins.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.decode_distribution([[0.0, 0.0, 0.0]]))
      [1.]

    Reference:
      Li et al. Generalized Focal Loss. NeurIPS 2020. https://arxiv.org/abs/2006.04388
    """
    scores = checks.floating("logits", logits)
    checks.minimum_rank("logits", scores, 1, "the last holds the bins")
    return _expectation(scores.astype(checks.compute_dtype(scores)))


@jax.custom_jvp
def _expectation(scores: Array) -> Array:
    shares = _shares(scores)
    return (shares * _bins(scores)).sum(-1) / shares.sum(-1)


@_expectation.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """One quotient: what comes back from a box loss is then computed once, not for each bin."""
    (scores,), (t,) = primals, tangents
    mean, shares = _expectation(scores), _shares(scores)
    return mean, (shares * (_bins(scores) - mean[..., None]) * t).sum(-1) / shares.sum(-1)


def _shares(scores: Array) -> Array:
    """Exponentials, of which the largest is 1."""
    return jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))


def _bins(scores: Array) -> Array:
    """How far each bin is from the first, in the rank of the scores."""
    count = scores.shape[-1]
    return jnp.arange(count, dtype=scores.dtype).reshape((1,) * (scores.ndim - 1) + (count,))


def _pair(
    name: str, value: ArrayLike, of: str, origins: ArrayLike, numbers: int = 4
) -> tuple[Array, Array]:
    """Arrays `[..., 4]` and `[..., numbers]` of one rank, in the compute dtype of the first."""
    first = pairs.checked(name, value)
    first = first.astype(checks.compute_dtype(first))
    second = checks.real(of, origins, first.dtype)
    checks.minimum_rank(of, second, 1, f"the last holds {numbers} numbers")
    second = second.reshape((1,) * (first.ndim - second.ndim) + second.shape)
    full = (*first.shape[:-1], numbers)
    if second.shape[-1] != numbers:
        checks.fail(ValueError, of, f"of shape {second.shape}", f"shape {full}")
    return first, checks.broadcastable(of, second, full)


def _centre_and_size(boxes: Array) -> tuple[Array, Array]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def _weights(weights: Sequence[float], like: Array) -> Array:
    numbers = np.asarray(weights, like.dtype) if isinstance(weights, Sequence) else weights
    factors = checks.number("weights", numbers, like.dtype, "(0, inf)")
    checks.shape("weights", factors, (4,), "factors of dx, dy, dw and dh")
    return factors.reshape((1,) * (like.ndim - 1) + (4,))


def _units(strides: ArrayLike, like: Array) -> Array:
    units = checks.number("strides", strides, like.dtype, "(0, inf)")
    units = units.reshape((1,) * (like.ndim - 1 - units.ndim) + units.shape)
    return checks.broadcastable("strides", units, like.shape[:-1])[..., None]
