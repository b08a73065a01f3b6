"""Losses on competing classes that trust a label less than the cross-entropy does."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core import labels as labelled
from jaxloss._core.labels import Competing, competing
from jaxloss._core.reduction import AxisName, reduce_labelled
from jaxloss._distribution._cross_entropy import spread
from jaxloss._distribution._tempered import log_t

__all__ = ["generalized_cross_entropy", "poly1", "symmetric_cross_entropy"]

Array = jax.Array


def generalized_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    q: ArrayLike = 0.7,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the generalised cross-entropy of each position, which no wrong label can dominate.

    With `p = softmax(logits)` and targets `t = (1 - label_smoothing) y + label_smoothing / C`::

        GCE = (1 - P^q) / q        P = sum_c t_c p_c

    where `P` is `p_y` for ids. `q = 1` is half the absolute error of `p`, `q = 0`, the limit, the
    cross-entropy `-log P`. No sample costs more than `1 / q`, which a target on a removed class
    (a logit of -inf) does. Value and gradient come from the log-odds of `P`: they keep their
    relative accuracy on confident samples, where `1 - P^q` rounds to 0. Class weights multiply a
    position's whole loss by `sum_c w_c y_c`.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      q: How far to move from the cross-entropy (0) to the absolute error (1), in `[0, 1]`.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
      axis: The class axis; any axis works (1 for NCHW).
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The id of positions to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid positions, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, a number is out of its
        range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 40.0]]), jnp.array([0, 0, 0])
      >>> loss = jaxloss.generalized_cross_entropy(logits, labels, reduction="none")
      >>> print(loss.round(4))
      [0.018  0.5492 1.4286]

    Reference:
      Zhang and Sabuncu. Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
      Labels. NeurIPS 2018. https://arxiv.org/abs/1805.07836
    """
    name = "generalized_cross_entropy"
    data = competing(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    dtype = data.logits.dtype
    q = checks.number(name, "q", q, dtype, "[0, 1]")
    smoothing = spread(name, label_smoothing, dtype)
    if data.has_ids and smoothing is None:
        values = softmax.costs(lambda hit, miss, q: -log_t(-hit, q), data, q)
        return reduce_labelled(name, values, reduction, data, axis_name)

    def of_part(part: Competing, smoothing: Array | None, q: Array) -> Array:
        shares = softmax.smoothed(part, smoothing)
        hit, _ = sigmoid.log_pair(_mixture_log_odds(part.unmasked_logits(), shares, part.axis))
        return _weighted(-log_t(-hit, q), part)

    loss = labelled.costs(of_part, data, smoothing, q)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def symmetric_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.1,
    beta: ArrayLike = 1.0,
    log_zero: ArrayLike = -4.0,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the cross-entropy of each position plus the reverse one, which is bounded.

    With `p = softmax(logits)`, targets `t = (1 - label_smoothing) y + label_smoothing / C` and
    class weights `w`::

        CE  = -sum_c w_c t_c log p_c
        RCE = -sum_c p_c max(log t_c, log_zero)
        SCE = alpha CE + beta RCE (sum_c w_c y_c)

    For ids without smoothing `RCE` is `-log_zero (1 - p_y)`. The paper writes `log 0` as -4 with
    `(alpha, beta)` of `(0.1, 1)` for CIFAR-10 and `(6, 0.1)` for CIFAR-100; its code cuts the
    targets at 1e-4 instead, which is `log_zero=-9.21`.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      alpha: Weight of the cross-entropy, at least 0.
      beta: Weight of the reverse cross-entropy, at least 0.
      log_zero: The least logarithm of a target, at most 0 and finite.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
      axis: The class axis; any axis works (1 for NCHW).
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The id of positions to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid positions, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, a number is out of its
        range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 40.0]]), jnp.array([0, 0, 0])
      >>> loss = jaxloss.symmetric_cross_entropy(logits, labels, reduction="none")
      >>> print(loss.round(4))
      [0.0738 2.0693 8.    ]

    Reference:
      Wang, Ma, Chen, Luo, Yi and Bailey. Symmetric Cross Entropy for Robust Learning with Noisy
      Labels. ICCV 2019. https://arxiv.org/abs/1908.06112
    """
    name = "symmetric_cross_entropy"
    data = competing(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    dtype = data.logits.dtype
    alpha = checks.number(name, "alpha", alpha, dtype, "[0, inf)")
    beta = checks.number(name, "beta", beta, dtype, "[0, inf)")
    log_zero = checks.number(name, "log_zero", log_zero, dtype, "(-inf, 0]")
    smoothing = spread(name, label_smoothing, dtype)
    if data.has_ids and smoothing is None:

        def both(hit: Array, miss: Array, alpha: Array, scale: Array) -> Array:
            return numerics.product(alpha, hit) + scale * jnp.exp(-miss)

        values = softmax.costs(both, data, alpha, -beta * log_zero)
        return reduce_labelled(name, values, reduction, data, axis_name)

    def of_part(part: Competing, smoothing: Array | None, *parameters: Array) -> Array:
        alpha, beta, log_zero = parameters
        z, shares = part.unmasked_logits(), softmax.smoothed(part, smoothing)
        hit, _ = sigmoid.log_pair(softmax.log_odds(z, *softmax.scale(z, part.axis)))
        weighted = shares if part.class_weights is None else shares * part.class_weights
        forward = numerics.product(weighted, hit).sum(part.axis)
        reverse = (_surprise(shares, log_zero) * jnp.exp(-hit)).sum(part.axis)
        return numerics.product(alpha, forward) + beta * _weighted(reverse, part)

    loss = labelled.costs(of_part, data, smoothing, alpha, beta, log_zero)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def poly1(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the cross-entropy of each position with another weight of its leading term.

    The cross-entropy is the sum of `(1 - p_y)^j / j`; Poly-1 adds `epsilon` to the first factor.
    With `p = softmax(logits)`, `t = (1 - label_smoothing) y + label_smoothing / C` and class
    weights `w`::

        PL1 = sum_c w_c t_c (-log p_c + epsilon (1 - p_c))

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      epsilon: What is added to the factor of `1 - p_y`. The paper takes 2 for ImageNet and -1 for
        detection; from -1 on the loss cannot be negative.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
      axis: The class axis; any axis works (1 for NCHW).
      where: Boolean, the rank of the ids with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The id of positions to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid positions, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of the ids with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, a number is out of its
        range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([[4.0, 0.0], [0.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0, 0])
      >>> print(jaxloss.poly1(logits, labels, reduction="none").round(4))
      [0.0541 1.6931 5.9822]

    Reference:
      Leng, Tan, Liu, Cubuk, Shi, Cheng and Anguelov. PolyLoss: A Polynomial Expansion Perspective
      of Classification Loss Functions. ICLR 2022. https://arxiv.org/abs/2204.12511
    """
    data = competing(
        "poly1",
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    dtype = data.logits.dtype
    epsilon = checks.number("poly1", "epsilon", epsilon, dtype, "(-inf, inf)")
    loss = softmax.costs(
        lambda hit, miss, epsilon: hit + epsilon * jnp.exp(-miss),
        data,
        epsilon,
        smoothing=spread("poly1", label_smoothing, dtype),
    )
    return reduce_labelled("poly1", loss, reduction, data, axis_name)


def _weighted(loss: Array, data: Competing) -> Array:
    """Multiplies each position by the class weight of its target."""
    return loss if data.normalizer is None else loss * data.normalizer


def _surprise(targets: Array, log_zero: Array) -> Array:
    """Returns `-max(log t, log_zero)`; below the cut the gradient by the target is 0."""
    inside = ~(targets <= jnp.exp(log_zero))  # NaN stays NaN
    surprise = jnp.where(inside, -jnp.log(jnp.where(inside, targets, 1)), -log_zero)
    return jnp.where(jnp.isnan(log_zero), jnp.nan, surprise)


def _mixture_log_odds(z: Array, shares: Array, axis: int) -> Array:
    """Returns the log-odds of `sum_c t_c p_c`, whose complement is `sum_c (1 - t_c) p_c`."""
    (top, total), (other_top, other_total) = (
        _scaled_sum(z, share, axis) for share in (shares, 1 - shares)
    )
    lead = jnp.where(top == other_top, 0, top - jnp.where(top == other_top, 0, other_top))
    log: Callable[[Array], Array] = lambda x: jnp.log(jnp.where(x == 0, 1, x))
    odds = lead + log(total) - log(other_total)
    return jnp.where(total == 0, -jnp.inf, jnp.where(other_total == 0, jnp.inf, odds))


def _scaled_sum(z: Array, share: Array, axis: int) -> tuple[Array, Array]:
    """Returns the largest logit that has a share, as a constant, and `sum_c t_c exp(z_c - top)`."""
    held = jnp.where(share == 0, -jnp.inf, jax.lax.stop_gradient(z))
    top = held.max(axis, keepdims=True)
    infinite = jnp.isinf(top)
    level = z - jnp.where(infinite, 0, top)
    level = jnp.where(infinite & (z == top), 0, jnp.where(infinite, -jnp.inf, level))
    # A class without a share may lie far above: its derivative by the share must stay a number.
    level = jnp.minimum(level, 0.45 * jnp.log(jnp.finfo(z.dtype).max))
    total = numerics.product(share, jnp.exp(level)).sum(axis)
    return top.squeeze(axis), jnp.where(top.squeeze(axis) == -jnp.inf, 0, total)
