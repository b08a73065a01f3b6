"""Losses for classes of very different frequency, whose counts change the logits.

Soft labels give `sum_c y_c` times the loss of class `c`: for one-hot labels that of the id.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core import labels as labelled
from jaxloss._core.labels import Competing, competing, is_target, of_ids, per_class
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, reduce_labelled
from jaxloss._distribution._class_weights import class_totals
from jaxloss._distribution._cross_entropy import competing_entropy, spread
from jaxloss._distribution._margins import centred, margin_entropy

__all__ = ["ldam", "logit_adjusted", "seesaw"]

Array = jax.Array


def ldam(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: ArrayLike,
    *,
    max_margin: ArrayLike = 0.5,
    scale: ArrayLike = 30.0,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the label-distribution-aware margin loss: rare classes must win by more.

    With `n_c` the number of training samples of class `c`::

        m_c  = max_margin (min_k n_k / n_c)^(1/4)
        z_j  = scale (x_j - m_y [j = y])
        LDAM = -log softmax(z)_y

    Soft labels give `sum_c y_c` times the loss of class `c`, which for one-hot labels is that of
    the id. The rarest class with samples has the largest margin; a class without any has the same.
    Only ratios of counts matter. The paper's logits are cosines, of normalised features and
    weights; `scale` is the authors' `s`, which their text leaves out.

    Args:
      logits: Cosines or other scores before scaling, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      class_counts: Training samples of each class, shape `[C]`, at least 0 and not all 0.
      max_margin: The margin of the rarest class, at least 0.
      scale: What the logits are multiplied by after the margin, positive.
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
      Equal logits cost more for the rare class:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> print(jaxloss.ldam(logits, labels, [81, 1], scale=6.0, reduction="none").round(4))
      [1.3133 3.0486]

    Reference:
      Cao, Wei, Gaidon, Arechiga and Ma. Learning Imbalanced Datasets with Label-Distribution-Aware
      Margin Loss. NeurIPS 2019, equations 10 and 13. https://arxiv.org/abs/1906.07413
    """
    name = "ldam"
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
    largest = checks.number(name, "max_margin", max_margin, dtype, "[0, inf)")
    scale = checks.number(name, "scale", scale, dtype, "(0, inf)")
    counts = _per_class(name, "class_counts", class_counts, data)
    rarest = jnp.where(counts > 0, counts, jnp.inf).min()
    ratio = jnp.where(counts == 0, 1, numerics.divide(rarest, counts))
    margin = largest * ratio**0.25
    smoothing = spread(name, label_smoothing, dtype)

    def of_part(part: Competing, scale: Array, margin: Array, smoothing: Array | None) -> Costs:
        if part.has_ids and smoothing is None:
            margin = of_ids(jnp.broadcast_to(margin, part.logits.shape), part.labels, part.axis)
        return margin_entropy(centred(part), scale, margin, smoothing)

    loss = labelled.costs(of_part, data, scale, margin, smoothing)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def logit_adjusted(
    logits: ArrayLike,
    labels: ArrayLike,
    priors: ArrayLike,
    *,
    tau: ArrayLike = 1.0,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the cross-entropy of logits that are shifted by the log of the class priors.

    With `pi` the priors, which are normalised to sum 1 first::

        LA = -log softmax(logits + tau log pi)_y

    The shift belongs to training: without it, the trained logits are those of a balanced problem.
    With `tau=1` and `priors` the class counts this is the balanced softmax (Ren et al.).

    A prior of 0 removes its class, unless `tau` is 0: like a logit of -inf it costs nothing where
    the label has no mass (smoothing spreads over the other classes), and +inf with zero gradient
    where it has.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      priors: Frequencies or counts of the classes, shape `[C]`, at least 0 and not all 0.
      tau: How strongly the priors act, at least 0; 0 is the cross-entropy.
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
      Equal logits cost what the prior says:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> print(jaxloss.logit_adjusted(logits, labels, [0.9, 0.1], reduction="none").round(4))
      [0.1054 2.3026]

    Reference:
      Menon et al. Long-tail Learning via Logit Adjustment. ICLR 2021, equation 10.
      https://arxiv.org/abs/2007.07314
      Ren et al. Balanced Meta-Softmax for Long-Tailed Visual Recognition. NeurIPS 2020.
      https://arxiv.org/abs/2007.10740
    """
    name = "logit_adjusted"
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
    strength = checks.number(name, "tau", tau, data.logits.dtype, "[0, inf)")
    priors = _per_class(name, "priors", priors, data)
    present = priors != 0
    log_prior = jnp.log(jnp.where(present, priors, 1)) - jnp.log(priors.sum())
    shift = numerics.product(strength, jnp.where(present, log_prior, -jnp.inf))
    smoothing = spread(name, label_smoothing, data.logits.dtype)

    def of_part(part: Competing, shift: Array, smoothing: Array | None) -> Costs:
        shifted = jnp.where(shift == -jnp.inf, -jnp.inf, centred(part).logits + shift)
        return competing_entropy(part._replace(logits=shifted), smoothing)

    loss = labelled.costs(of_part, data, shift, smoothing)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def seesaw(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: ArrayLike,
    *,
    p: ArrayLike = 0.8,
    q: ArrayLike = 2.0,
    label_smoothing: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the seesaw loss: frequent classes push rare rivals down less.

    With `N_c` the samples of class `c` seen so far, at least 1, and `s = softmax(logits)`::

        M_j    = min(1, (N_j / N_y)^p)                    mitigation
        C_j    = max(1, s_j / max(s_y, 0.01))^q           compensation
        z_j    = x_j + log(M_j C_j)                       j != y
        z_y    = x_y
        Seesaw = -log softmax(z)_y

    Mitigation lessens the punishment that a rare rival `j` takes from samples of a frequent class,
    compensation gives it back where the rival wins. Both factors are constants for the derivative,
    by the logits and by the numbers. There is no hidden state: the caller adds each batch to
    `class_counts`, which must be counts, not frequencies.

    Soft labels give `sum_c y_c` times the loss of class `c`, as mixing samples wants it; for
    one-hot labels that is the loss of the id. It compares every pair of classes: prefer ids.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      class_counts: Samples of each class, shape `[C]`, at least 0 and not all 0.
      p: Exponent of the mitigation, at least 0; 0 switches it off.
      q: Exponent of the compensation, at least 0; 0 switches it off.
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
      Equal logits cost less where the rival is rare:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> print(jaxloss.seesaw(logits, labels, [100, 1], reduction="none").round(4))
      [0.0248 0.6931]

    Reference:
      Wang et al. Seesaw Loss for Long-Tailed Instance Segmentation. CVPR 2021, equations 3 to 6.
      https://arxiv.org/abs/2008.10032
    """
    name = "seesaw"
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
    p = checks.number(name, "p", p, dtype, "[0, inf)")
    q = checks.number(name, "q", q, dtype, "[0, inf)")
    smoothing = spread(name, label_smoothing, dtype)
    log_counts = jnp.log(jnp.maximum(_per_class(name, "class_counts", class_counts, data), 1))

    def of_part(part: Competing, smoothing: Array | None, *constants: Array) -> Array:
        if part.has_ids and smoothing is None:
            odds = _seesaw_odds(part.unmasked_logits(), part.labels, *constants, axis=part.axis)
            loss = sigmoid.log_pair(odds * part.poison())[0]
            return loss if part.normalizer is None else loss * part.normalizer
        shares = softmax.smoothed(part, smoothing)
        shares = shares if part.class_weights is None else shares * part.class_weights
        odds = _seesaw_odds_of_classes(part.unmasked_logits(), *constants, axis=part.axis)
        return numerics.product(shares, sigmoid.log_pair(odds)[0]).sum(part.axis)

    constants = jax.lax.stop_gradient((p, q, log_counts))
    loss = labelled.costs(of_part, data, smoothing, *constants)
    return reduce_labelled(name, loss, reduction, data, axis_name)


@functools.partial(jax.jit, static_argnames="axis")
def _seesaw_odds_of_classes(
    logits: Array, p: Array, q: Array, log_counts: Array, *, axis: int
) -> Array:
    """The log-odds of every class as the target, in the shape of the logits."""
    like = logits.max(axis)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_class(index: Array) -> Array:
        ids = jnp.zeros_like(like, jnp.int32) + index
        return _seesaw_odds(logits, ids, p, q, log_counts, axis=axis)

    # One class after another: all pairs at once would take C times the memory of the logits.
    each = jax.lax.map(of_class, jnp.arange(logits.shape[axis], dtype=jnp.int32))
    return jnp.moveaxis(each, 0, axis)


def _seesaw_odds(
    logits: Array, ids: Array, p: Array, q: Array, log_counts: Array, *, axis: int
) -> Array:
    """The log-odds of each position's target after the change of the logits."""

    def level_of(x: Array, top: Array) -> Array:
        return jnp.where(x == jnp.inf, 0, x - top)

    top = jax.lax.stop_gradient(logits).max(axis, keepdims=True)
    top = jnp.where(top == -jnp.inf, 0, top)
    total = jnp.exp(level_of(jax.lax.stop_gradient(logits), top)).sum(axis)
    own = level_of(of_ids(logits, ids, axis), top.squeeze(axis))
    # log max(s_y, 0.01) and how far the factor of the top logit can rise, both below the top.
    base = jnp.maximum(jax.lax.stop_gradient(own), math.log(0.01) + jnp.log(jnp.maximum(total, 1)))
    rise = q * jnp.maximum(-base, 0)
    count = of_ids(jnp.broadcast_to(log_counts, logits.shape), ids, axis)

    def rivals(logits: Array, *constants: Array) -> Array:
        top, base, rise, count = (jnp.expand_dims(x, axis) for x in constants[:4])
        ids, p, q, log_counts = constants[4:]
        level = level_of(logits, top)
        mitigation = p * jnp.minimum(log_counts - count, 0)
        compensation = q * jnp.maximum(level - base, 0)
        factor = jax.lax.stop_gradient(mitigation + compensation)
        terms = jnp.exp(level + factor - rise)
        return jnp.where(is_target(ids, logits.shape, axis), 0, terms).sum(axis)

    rest = rivals(logits, top.squeeze(axis), base, rise, count, ids, p, q, log_counts)
    alone, removed = rest == 0, own == -jnp.inf
    lead = jnp.where(removed, 0, own) - rise
    odds = jnp.where(alone, jnp.inf, lead - jnp.log(jnp.where(alone, 1, rest)))
    return jnp.where(removed, -jnp.inf, odds)


def _per_class(function: str, argument: str, value: ArrayLike, data: Competing) -> Array:
    """Counts or frequencies of the classes, to broadcast against the logits."""
    totals = class_totals(function, argument, value, data.logits.dtype)
    shaped = per_class(function, argument, totals, data.logits, data.axis)
    assert shaped is not None
    return shaped
