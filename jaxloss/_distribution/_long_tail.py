"""Losses for classes of very different frequency, whose counts change the logits.

Soft labels give `sum_c y_c` times the loss of class `c`: for one-hot labels that of the id.
"""

from __future__ import annotations

import functools
import math
from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics, sigmoid, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.families import classification
from jaxloss._core.labels import Competing, is_target, of_ids, per_position
from jaxloss._core.reading import competing, per_class
from jaxloss._core.reduction import reduce
from jaxloss._distribution._class_weights import class_totals
from jaxloss._distribution._margins import centred, margin_entropy, of_changed, of_target
from jaxloss.options import ClassCounts, Classification, NonNegative, Numbers, Positive, Share

__all__ = ["ldam", "logit_adjusted", "seesaw"]

Array = jax.Array


@classification
def ldam(
    logits: Numbers,
    labels: Numbers,
    class_counts: ClassCounts,
    *,
    max_margin: NonNegative = 0.5,
    scale: Positive = 30.0,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
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
      class_counts: Training samples of each class, shape `[C]`, at least 0 and not all 0.
      max_margin: The margin of the rarest class, at least 0.
      scale: What the logits are multiplied by after the margin, positive.

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
    data = competing(logits, labels, options)
    n = _per_class("class_counts", class_counts, data)
    rarest = jnp.where(n > 0, n, jnp.inf).min()
    margin = max_margin * jnp.where(n == 0, 1, numerics.divide(rarest, n)) ** 0.25
    return reduce(of_changed(_ldam, data, scale, margin, label_smoothing), options, data)


@classification
def logit_adjusted(
    logits: Numbers,
    labels: Numbers,
    priors: ClassCounts,
    *,
    tau: NonNegative = 1.0,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
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
      priors: Frequencies or counts of the classes, shape `[C]`, at least 0 and not all 0.
      tau: How strongly the priors act, at least 0; 0 is the cross-entropy.

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
    data = competing(logits, labels, options)
    pi = _per_class("priors", priors, data)
    present = pi != 0
    log_prior = jnp.log(jnp.where(present, pi, 1)) - jnp.log(pi.sum())
    shift = numerics.product(tau, jnp.where(present, log_prior, -jnp.inf))
    return reduce(of_changed(_logit_adjusted, data, shift, label_smoothing), options, data)


@classification
def seesaw(
    logits: Numbers,
    labels: Numbers,
    class_counts: ClassCounts,
    *,
    p: NonNegative = 0.8,
    q: NonNegative = 2.0,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
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
      class_counts: Samples of each class, shape `[C]`, at least 0 and not all 0.
      p: Exponent of the mitigation, at least 0; 0 switches it off.
      q: Exponent of the compensation, at least 0; 0 switches it off.

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
    data = competing(logits, labels, options)
    log_counts = jnp.log(jnp.maximum(_per_class("class_counts", class_counts, data), 1))
    constants = jax.lax.stop_gradient((p, q, log_counts))
    return reduce(per_position(_seesaw, data, label_smoothing, *constants), options, data)


def _ldam(part: Competing, scale: Array, margin: Array, smoothing: Array | None) -> Cost:
    margin = of_target(margin, part, smoothing)
    return margin_entropy(centred(part), scale, margin, smoothing)


def _logit_adjusted(part: Competing, shift: Array, smoothing: Array | None) -> Cost:
    shifted = jnp.where(shift == -jnp.inf, -jnp.inf, centred(part).logits + shift)
    return softmax.cross_entropy(part.of(shifted), smoothing)


def _seesaw(part: Competing, smoothing: Array | None, *constants: Array) -> Array:
    z, axis = part.unmasked_logits(), part.axis
    if part.has_ids and smoothing is None:
        odds = _seesaw_odds(z, part.labels, *constants, axis=axis)
        return part.weighted(sigmoid.log_pair(odds * part.poison())[0])
    t = softmax.smoothed(part, smoothing)
    t = numerics.times(t, part.class_weights)
    odds = _seesaw_odds_of_classes(z, *constants, axis=axis)
    return numerics.product(t, sigmoid.log_pair(odds)[0]).sum(axis)


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
    odds = jnp.where(alone, jnp.inf, lead - numerics.log(jnp.where(alone, 1, rest)))
    return jnp.where(removed, -jnp.inf, odds)


def _per_class(argument: str, value: Numbers, data: Competing) -> Array:
    """Counts or frequencies of the classes, to broadcast against the logits."""
    totals = class_totals(argument, value, data.logits.dtype)
    shaped = per_class(argument, totals, data.logits, data.axis)
    assert shaped is not None
    return shaped
