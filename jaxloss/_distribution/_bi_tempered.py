"""The bi-tempered logistic loss: a bounded logarithm of a heavy-tailed softmax."""

from __future__ import annotations

import functools
from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.families import classification
from jaxloss._core.labels import Competing, per_position
from jaxloss._core.reading import competing
from jaxloss._core.reduction import reduce
from jaxloss._distribution._tempered import log_derivative, log_t, phi, surprise
from jaxloss.options import Classification, Fraction, Numbers, Positive, Share

__all__ = ["bi_tempered"]

Array = jax.Array

_STEPS = 50  # a dozen are the most ever seen, at t2 = 0.001


@classification
def bi_tempered(
    logits: Numbers,
    labels: Numbers,
    *,
    t1: Fraction = 0.8,
    t2: Positive = 1.2,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the bi-tempered logistic loss of each position.

    With logarithm and exponential at a temperature, and the `lam` for which `p` sums to 1::

        log_t(u) = (u^(1-t) - 1) / (1 - t)        exp_t(u) = max(1 + (1-t) u, 0)^(1/(1-t))
        p_c      = exp_t2(z_c - lam)              t = (1 - e C/(C-1)) y + e/(C-1)
        BT       = sum_c t_c (log_t1 t_c - log_t1 p_c) - (t_c^(2-t1) - p_c^(2-t1)) / (2 - t1)

    and `e = label_smoothing`. `t1 < 1` bounds the cost of an outlier by `1/(1-t1)`; `t2 > 1` gives
    the softmax a heavy tail, so that mislabelled samples near the boundary weigh less; `t2 < 1` a
    finite support. `t1 = t2 = 1`, the limit, is the Kullback-Leibler divergence, for ids the
    cross-entropy.

    `lam` is solved to the precision of the dtype for every `t2`; the authors' five iterations leave
    the sum of `p` over 1000 normal logits of scale 3 off by up to 2 per cent. The terms of the loss
    cancel to second order in `1 - p_y`; they are evaluated so that a confident sample keeps its
    digits. A logit of -inf is a removed class: smoothing spreads over the others, and a target on
    it costs what a probability of 0 costs (+inf at `t1 = 1`), constant in its own logit. Class
    weights multiply a position's whole loss by `sum_c w_c y_c`.

    Args:
      t1: Temperature of the logarithm, in `[0, 1]`.
      t2: Temperature of the exponential, above 0.
      label_smoothing: The share of each target that moves to the other classes, in `[0, 1)`. (The
        other losses spread it over all classes: `e C/(C-1)` here is their `e`.)

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 40.0]]), jnp.array([0, 0, 0])
      >>> print(jaxloss.bi_tempered(logits, labels, reduction="none").round(4))
      [0.025  0.5394 4.4444]

    Reference:
      Amid, Warmuth, Anil and Koren. Robust Bi-Tempered Logistic Loss Based on Bregman Divergences.
      NeurIPS 2019. https://arxiv.org/abs/1906.03361
    """
    data = competing(logits, labels, options)
    return reduce(per_position(_bi_tempered, data, label_smoothing, t1, t2), options, data)


def _bi_tempered(part: Competing, smoothing: Array | None, t1: Array, t2: Array) -> Array:
    z, y = part.unmasked_logits(), part.dense_labels()
    top = jax.lax.stop_gradient(z).max(part.axis, keepdims=True)
    lead = _lead(z, top, t2 - 1, part.axis)
    log_p = -lead - _behind(z, top, lead, t2 - 1)
    if smoothing is not None:
        y = _smoothed(y, z, smoothing, part.axis)
    return part.weighted(_divergence(log_p, y, 1 - t1).sum(part.axis))


def _gap(z: Array, top: Array, lead: Array, rate: Array) -> Array:
    """How far each logit lies below the largest, over `p_top^-rate`: inf for a removed class."""
    certain = jnp.isinf(top)
    gap = jnp.where(certain & (z == jnp.inf), 0, jnp.where(certain, jnp.inf, top - z))
    removed = gap == jnp.inf
    return jnp.where(removed, jnp.inf, jnp.where(removed, 0, gap) * jnp.exp(-rate * lead))


def _behind(z: Array, top: Array, lead: Array, rate: Array) -> Array:
    """Returns `log(p_top / p_c)`, where `lead` is `-log p_top`.

    The ratio is `exp_t2` of the scaled gap: no digit of a small gap is lost against `lam`.
    """
    return surprise(_gap(z, top, lead, rate), rate)


def _smoothed(targets: Array, z: Array, smoothing: Array, axis: int) -> Array:
    present = z > -jnp.inf
    count = present.sum(axis, keepdims=True).astype(z.dtype)
    share = numerics.divide(smoothing, count - 1)
    return (1 - count * share) * targets + jnp.where(present, share, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _lead(z: Array, top: Array, rate: Array, axis: int) -> Array:
    """Returns `-log p` of the largest logit, at least 0, for which the probabilities sum to 1.

    Newton's method for `lam` on `(sum p)^-rate`, which is linear where all logits are equal and
    convex or concave elsewhere, so that every step stays below the root. The sum's difference from
    1 is formed without a subtraction, which keeps the relative accuracy of a small result.
    """
    return _solve(z, top, rate, axis=axis)


@functools.partial(jax.jit, static_argnames="axis")
def _solve(z: Array, top: Array, rate: Array, *, axis: int) -> Array:
    largest = (z == top).sum(axis, keepdims=True)
    ties = jnp.maximum(largest - 1, 0).astype(z.dtype)
    precise = 0.03 * jnp.sqrt(jnp.finfo(z.dtype).eps)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        lead, step, count = state
        return jnp.any(step > precise * lead) & jnp.all(count < _STEPS)

    def newton(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        lead, _, count = state
        behind = _behind(z, top, lead, rate)
        others = ties + jnp.where(behind > 0, jnp.exp(-behind), 0).sum(axis, keepdims=True)
        surplus = jnp.expm1(-lead) + jnp.exp(-lead) * others
        slope = jnp.exp(-(1 + rate) * behind).sum(axis, keepdims=True)
        excess = log_t(jnp.log1p(surplus), rate) * jnp.exp(lead)
        step = surprise(numerics.divide((1 + surplus) * excess, slope), rate)
        return lead + step, step, count + 1

    start = jnp.zeros_like(top + rate)
    return jax.lax.while_loop(
        unfinished, newton, (start, jnp.full_like(start, jnp.inf), jnp.zeros_like(start))
    )[0]


@_lead.defjvp
def _(
    axis: int, primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    z, top, rate = primals
    lead = _lead(z, top, rate, axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(z: Array, top: Array, lead: Array, rate: Array, *directions: Array) -> Array:
        t, t_rate = directions
        behind, gap = _behind(z, top, lead, rate), _gap(z, top, lead, rate)
        escort = jnp.exp(-(1 + rate) * behind)
        kept = escort > 0
        behind, gap = jnp.where(kept, behind, 0), jnp.where(kept, gap, 0)
        by_rate = log_derivative(behind, rate, 1) + lead * gap
        total = (escort * (jnp.exp(-rate * lead) * t + by_rate * t_rate)).sum(axis, keepdims=True)
        return numerics.divide(total, escort.sum(axis, keepdims=True))

    return lead, linear(z, top, lead, rate, tangents[0], tangents[2])


@jax.custom_jvp
def _divergence(log_p: Array, y: Array, rate: Array) -> Array:
    """Returns a class's term of the loss, at least 0, from `log p`; `rate = 1 - t1`."""
    log_y, ratio, near = _compared(log_p, y, rate)
    close = jnp.exp((rate + 1) * log_y) * phi(ratio, rate)
    apart = numerics.product(y, log_t(log_y, rate) - log_t(log_p, rate))
    apart = apart - (log_t(log_y, rate + 1) - log_t(log_p, rate + 1))
    absent = jnp.exp((rate + 1) * log_p) / (rate + 1)
    return jnp.where(y == 0, absent, jnp.where(near, close, apart))


@_divergence.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    log_p, y, rate = primals
    t_log_p, t_y, t_rate = tangents
    log_y, ratio, near = _compared(log_p, y, rate)
    alive = log_p > -jnp.inf
    log_q = jnp.where(alive, log_p, 0)
    short = jnp.where(near, y * jnp.expm1(jnp.where(near, ratio, 0)), jnp.exp(log_q) - y)
    by_p = jnp.where(alive, jnp.exp(rate * log_q) * short, 0)
    apart = log_t(log_y, rate) - log_t(log_p, rate)
    close = -jnp.exp(rate * log_y) * log_t(jnp.where(near, ratio, 0), rate)
    by_y = jnp.where(near, close, jnp.where((y == 0) & (rate == 0), 0, apart))  # 0 log 0 = 0
    by_y = numerics.finite(by_y)
    by_rate = y * (_slope(log_y, rate) - _slope(log_p, rate))
    by_rate -= _slope(log_y, rate + 1) - _slope(log_p, rate + 1)
    value = _divergence(log_p, y, rate)
    return value, by_p * t_log_p + by_y * t_y + by_rate * t_rate


def _slope(log_u: Array, rate: Array) -> Array:
    """The derivative of `log_t` by the rate, finite so that it can meet y = 0."""
    return numerics.finite(log_derivative(log_u, rate, 1))


def _compared(log_p: Array, y: Array, rate: Array) -> tuple[Array, Array, Array]:
    """Returns `log y`, `log(p / y)`, and where `p` and `y` almost agree."""
    held = ~(y <= 0)  # NaN stays NaN
    log_y = jnp.where(held, jnp.log(jnp.where(held, y, 1)), -jnp.inf)
    ratio = log_p - jnp.where(held, log_y, 0)
    return log_y, ratio, held & (jnp.abs(ratio) * (rate + 1) < 1)
