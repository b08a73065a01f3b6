"""Divergences between a target distribution and the softmax, free of cancellation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core import checks, log_softmax, numerics
from jaxloss._core.families import classification, regression
from jaxloss._core.labels import Competing, per_position
from jaxloss._core.platforms import bind
from jaxloss._core.reading import competing
from jaxloss._core.reduction import reduce
from jaxloss.options import Classification, Numbers, Positive, Regression

__all__ = ["distillation", "js_divergence", "kl_divergence"]

Array = jax.Array


@classification
def kl_divergence(
    logits: Numbers,
    targets: Numbers,
    **options: Unpack[Classification],
) -> Array:
    """Computes the Kullback-Leibler divergence of the softmax from each position's target.

    With `p = softmax(logits)` and `0 log 0 = 0` in value and gradient::

        KL = sum_c y_c log(y_c / p_c)

    It is the cross-entropy less the entropy of the target, but evaluated as a sum of terms that
    cannot be negative, `y_c log(y_c / p_c) - y_c + p_c`: the difference of the two is negative by
    rounding where target and prediction agree. Targets are shares of their sum `s`, so that its
    rounding costs nothing: the value is `s KL(y / s, p)`, and 0 for a target without mass.

    A logit of -inf is a class that has been removed: it costs nothing where the target has no mass,
    and +inf with zero gradient where it has. Class weights multiply a position's whole divergence
    by `sum_c w_c y_c`, which keeps its minimum at `p = y`. PyTorch's `kl_div` takes
    log-probabilities, and its `"mean"` divides by the number of elements: `"batchmean"` is ours.

    Args:
      targets: The distribution of each position, in the shape of `logits`.
      ignore_index: The integer target of positions to leave out.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, targets = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.array([0.5, 0.5, 0.0])
      >>> print(jaxloss.kl_divergence(logits, targets).round(4))
      0.2899

    Reference:
      Kullback and Leibler. On Information and Sufficiency. Annals of Mathematical Statistics 1951.
    """
    return _reduced(_kl_of_targets, logits, targets, options)


@regression
def distillation(
    logits: Numbers,
    teacher_logits: Numbers,
    *,
    temperature: Positive = 4.0,
    axis: int = -1,
    class_weights: Numbers | None = None,
    **options: Unpack[Regression],
) -> Array:
    """Computes how far a student's softmax is from its teacher's, both at a temperature.

    With `p = softmax(logits / T)` and `q = softmax(teacher_logits / T)`::

        T^2 sum_c q_c log(q_c / p_c)

    which is `T^2` :func:`kl_divergence`, so that gradients keep their size at any temperature. It
    is usually added to the cross-entropy of the labels. The derivative by `teacher_logits` is that
    of the formula; one by `logits` alone holds the teacher constant.

    A class that the teacher has removed (a logit of -inf) has no mass; one that only the student
    has removed costs +inf with zero gradient. Class weights multiply a position's whole loss by
    `sum_c w_c q_c`.

    Args:
      logits: The student's logits, shape `[..., C]` (`C` at `axis`), floating.
      teacher_logits: The teacher's, of the same shape, floating.
      temperature: Above 0; the paper uses 1 to 20.
      axis: The class axis; any axis works (1 for NCHW).
      class_weights: One factor per class, shape `[C]`, of value and denominator.

    Returns:
      A scalar, or the shape of the logits without `axis` with `reduction="none"`; float32 for
      half-precision input.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, teacher_logits = jnp.array([2.0, 0.0, 0.0]), jnp.array([4.0, 1.0, 0.0])
      >>> print(jaxloss.distillation(logits, teacher_logits).round(4))
      0.3256

    Reference:
      Hinton, Vinyals and Dean. Distilling the Knowledge in a Neural Network. 2015.
      https://arxiv.org/abs/1503.02531
    """
    teacher = checks.floating("teacher_logits", teacher_logits)
    every = {**options, "axis": axis, "class_weights": class_weights}
    data = _read(logits, teacher, every, "teacher_logits")
    cost = per_position(_distillation, data, temperature)
    return reduce(cost, options, _softened(data, temperature)[0])


@classification
def js_divergence(
    logits: Numbers,
    targets: Numbers,
    **options: Unpack[Classification],
) -> Array:
    """Computes the Jensen-Shannon divergence between the softmax and each position's target.

    With `p = softmax(logits)`, `m = (y + p) / 2` and `0 log 0 = 0` in value and gradient::

        JS = 1/2 sum_c (y_c log(y_c / m_c) + p_c log(p_c / m_c))

    It is symmetric in `y` and `p`, lies between 0 and `log 2`, and stays finite where one of them
    is 0: a removed class (a logit of -inf) that has target mass costs `log 2` times half its mass.
    Where `y` and `p` almost agree, the two logarithms cancel to second order; the term is then the
    power series of `m h(d)`, `d = (p - y) / (p + y)`, whose terms are all positive. Class weights
    multiply a position's whole divergence by `sum_c w_c y_c`.

    Args:
      targets: The distribution of each position, in the shape of `logits`.
      ignore_index: The integer target of positions to leave out.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, targets = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.array([0.5, 0.5, 0.0])
      >>> print(jaxloss.js_divergence(logits, targets).round(4))
      0.0762

    Reference:
      Lin. Divergence Measures Based on the Shannon Entropy. IEEE Transactions on Information Theory
      1991.
    """
    return _reduced(_js, logits, targets, options)


def _reduced(
    divergence: Callable[..., Array], logits: Numbers, targets: Numbers, options: Mapping[str, Any]
) -> Array:
    """Reduces each position's divergence, times the class weight of its target."""
    data = _read(logits, targets, options, "targets")
    return reduce(per_position(bind(_weighted, divergence=divergence), data), options, data)


def _read(
    logits: Numbers, targets: Numbers, options: Mapping[str, Any], argument: str
) -> Competing:
    """Reads logits and targets of their shape."""
    if np.shape(targets) != np.shape(logits):
        expected = f"{np.shape(logits)}, that of the logits"
        checks.fail(ValueError, argument, f"of shape {np.shape(targets)}", expected)
    return competing(logits, targets, options)


def _distillation(part: Competing, temperature: Array) -> Array:
    present = (part.dense_labels() > -jnp.inf).any(part.axis, keepdims=True)
    part, log_q = _softened(part, temperature)
    z = numerics.product(1 / temperature, part.unmasked_logits())
    total = present.astype(z.dtype)  # 1, which the sum of the rounded `q` is not, or 0
    return part.weighted(temperature**2 * _kl(z, part.labels, log_q, total, part.axis))


def _softened(data: Competing, temperature: Array) -> tuple[Competing, Array]:
    """The teacher's probabilities in place of its logits, and their logarithms."""
    softened = numerics.product(1 / temperature, data.dense_labels())
    log_q, q, _ = log_softmax.log_probability(softened, data.axis)
    return data._replace(labels=q), log_q


def _weighted(part: Competing, *, divergence: Callable[..., Array]) -> Array:
    return part.weighted(divergence(part.unmasked_logits(), part.dense_labels(), part.axis))


def _kl_of_targets(z: Array, y: Array, axis: int) -> Array:
    held, total = y != 0, y.sum(axis, keepdims=True)
    share = numerics.divide(y, total)
    return _kl(z, y, jnp.log(jnp.where(held, share, 1)), total, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _kl(z: Array, y: Array, log_share: Array, total: Array, axis: int) -> Array:
    """Sums `y log(y / (s p)) - y + s p`, none of which is negative, with `s` the sum of `y`.

    Derivatives by `y` include those through its logarithm and its sum.
    """
    log_p, p, _ = log_softmax.log_probability(z, axis)
    excess, near = _excess(log_p, y, log_share)
    x = jnp.where(near, excess, 0)
    apart = numerics.product(y, excess - 1) + total * p
    return jnp.where(near, y * x * x * _curve(x), apart).sum(axis)


@_kl.defjvp
def _(axis: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    z, y, log_share, total = primals
    log_p, p, _ = log_softmax.log_probability(z, axis)
    excess, near = _excess(log_p, y, log_share)
    x, value = jnp.where(near, excess, 0), _kl(*primals, axis)
    by_z = jnp.where(near, y * x * (x * _curve(x) - 1), total * p - y)  # y expm1(-x)
    # +inf is constant, in all its classes.
    infinite = jnp.expand_dims(jnp.isinf(value), axis)
    by_z = jnp.where((log_p == -jnp.inf) | infinite, 0, by_z)
    by_y = jnp.where(jnp.isinf(excess), 0, excess)
    return value, (by_z * tangents[0] + by_y * tangents[1]).sum(axis)


def _excess(log_p: Array, y: Array, log_share: Array) -> tuple[Array, Array]:
    """Returns `log(y / (s p))`, 0 where `y = 0`, and where it is small."""
    held = y != 0
    excess = jnp.where(held, log_share - log_p, 0)
    return excess, held & (jnp.abs(excess) < 0.5)


def _curve(x: Array) -> Array:
    """Returns `(exp(-x) - 1 + x) / x^2` of a small number."""
    series = jnp.zeros_like(x)
    for k in reversed(range(8 if x.dtype.itemsize == 4 else 14)):
        series = 1 / math.factorial(k + 2) - x * series
    return series


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _js(z: Array, y: Array, axis: int) -> Array:
    """Sums `(y log(y / m) + p log(p / m)) / 2` with `m = (y + p) / 2`."""
    _, p, _ = log_softmax.log_probability(z, axis)
    tilt, near = _tilt(p, y)
    x = tilt**2
    series = jnp.zeros_like(x)
    for k in reversed(range(1, 12 if x.dtype.itemsize == 4 else 25)):
        series = series * x + 1 / (k * (2 * k - 1))
    apart = y * _log_of_share(y, p) + p * _log_of_share(p, y)
    return (jnp.where(near, (y + p) * x * series, apart * 2) / 4).sum(axis)


@_js.defjvp
def _(
    axis: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    z, y = primals
    at = functools.partial(log_softmax.log_probability, axis=axis)
    (_, p, _), (_, t, _) = jax.jvp(at, (z,), tangents[:1])
    tangent = _log_of_share(p, y) * t + _log_of_share(y, p) * tangents[1]
    return _js(z, y, axis), tangent.sum(axis) / 2


def _tilt(x: Array, other: Array) -> tuple[Array, Array]:
    """Returns `(x - other) / (x + other)` where it is small, else 0, and where it is."""
    near = jnp.abs(x - other) < 0.5 * (x + other)
    return numerics.divide(jnp.where(near, x - other, 0), x + other), near


def _log_of_share(x: Array, other: Array) -> Array:
    """Returns `log(x / ((x + other) / 2))`, 0 where `x = 0`."""
    tilt, near = _tilt(x, other)
    apart = (x != 0) & ~near
    share = numerics.divide(jnp.where(apart, 2 * x, 0), x + other)
    return jnp.where(near, jnp.log1p(tilt), jnp.log(jnp.where(apart, share, 1)))
