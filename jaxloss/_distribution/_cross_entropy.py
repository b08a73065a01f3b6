"""Cross-entropy in its three forms: from log-probabilities, softmax logits and sigmoid logits."""

from __future__ import annotations

from typing import Literal, Unpack

import jax

from jaxloss._core import checks, sigmoid, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.families import classification, one_versus_rest
from jaxloss._core.labels import Competing, Independent, per_position
from jaxloss._core.platforms import bind
from jaxloss._core.reading import competing, independent
from jaxloss._core.reduction import reduce
from jaxloss.options import (
    Classification,
    Factor,
    Numbers,
    OneVersusRest,
    PerClass,
    Share,
)

__all__ = ["binary_cross_entropy", "cross_entropy", "nll"]

Array = jax.Array


@classification
def nll(
    log_probs: Numbers,
    labels: Numbers,
    **options: Unpack[Classification],
) -> Array:
    """Computes the negative log-likelihood of each position's label.

    With `w` the class weights::

        NLL  = -w_y log_probs_y                      integer labels
        NLL  = -sum_c w_c y_c log_probs_c            labels of the shape of `log_probs`
        mean = sum NLL / sum (sum_c w_c y_c)

    The input is used as it is: it need not be normalised. A log-probability of -inf costs nothing
    where the label has no mass.

    Args:
      log_probs: Log-probabilities, shape `[..., C]` (`C` at `axis`), floating.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> log_probs = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
      >>> print(jaxloss.nll(log_probs, jnp.array([0, 2]), reduction="none").round(4))
      [0.3567 0.2231]

    Reference:
      Fisher. On the Mathematical Foundations of Theoretical Statistics. Philosophical Transactions
      of the Royal Society A 1922.
    """
    data = competing(log_probs, labels, options, prediction="log_probs")
    return reduce(per_position(_nll, data), options, data)


@classification
def cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    label_smoothing: Share = 0.0,
    z_loss: Factor = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the softmax cross-entropy of each position.

    With `p = softmax(logits)`, smoothed targets `t` and class weights `w`::

        t    = (1 - label_smoothing) y + label_smoothing / C
        CE   = -sum_c w_c t_c log p_c + z_loss (log sum_c exp z_c)^2 (sum_c w_c y_c)
        mean = sum CE / sum (sum_c w_c y_c)

    `-log p_c` is the softplus of the target margin `log sum_{j != c} exp(z_j) - z_c`, which keeps
    its relative accuracy on confident samples where `logsumexp(z) - z_c` rounds to 0. A logit of
    -inf is a class that has been removed: it costs nothing where the label has no mass (smoothing
    spreads over the other classes), and +inf with zero gradient where it has.

    For ids and any `class_weights` and `label_smoothing` this is PyTorch's value. For soft labels
    PyTorch divides the weighted sum by the number of positions, not by their weights. Probabilities
    go in, and into every softmax loss, as `jnp.log(p)`: the value is exact where `p` is 0 or 1, the
    gradient needs `p > 0`, so prefer logits.

    Args:
      z_loss: Weight of the squared log-normaliser, at least 0; PaLM uses 1e-4.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
      >>> print(jaxloss.cross_entropy(logits, jnp.array([0, 2]), reduction="none").round(4))
      [0.4076 3.0949]

    Reference:
      Goodfellow, Bengio and Courville. Deep Learning. MIT Press 2016, section 6.2.2.
      Szegedy et al. Rethinking the Inception Architecture for Computer Vision (label smoothing).
      CVPR 2016. https://arxiv.org/abs/1512.00567
      Chowdhery et al. PaLM (z-loss). 2022. https://arxiv.org/abs/2204.02311
    """
    data = competing(logits, labels, options)
    if z_loss is None:
        cost = cross_entropy_of(data, label_smoothing)
    else:
        cost = per_position(_with_z_loss, data, label_smoothing, z_loss)
    return reduce(cost, options, data)


@one_versus_rest
def binary_cross_entropy(
    logits: Numbers,
    labels: Numbers,
    *,
    pos_weight: PerClass | None = None,
    label_smoothing: Share = 0.0,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the sigmoid cross-entropy of each logit.

    With `p = sigmoid(logits)` and `t = y (1 - label_smoothing) + label_smoothing / 2`::

        BCE = -pos_weight t log p - (1 - t) log(1 - p)

    Both logarithms are softplus functions of the logit: the gradient `p - t` never vanishes on a
    confident mistake, and an infinite logit on the right side costs 0.

    PyTorch divides a mean with `weight=` by the number of elements; here `weights` and
    `class_weights` enter the denominator, `pos_weight` does not. timm smooths ids over the classes:
    `binary_cross_entropy(logits, smooth_labels(ids, 0.1, num_classes=C))`; big_vision, and timm's
    `sum_classes`, sum over them: `binary_cross_entropy(..., reduction="none").sum(-1).mean()`.

    Args:
      pos_weight: Factor of the positive term: a scalar, one per class `[C]`, or the rank of
        `logits`, with or without the class axis, each dimension equal or 1; at least 0.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([4.0, 0.0, -4.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.binary_cross_entropy(logits, labels, reduction="none").round(4))
      [0.0181 0.6931 4.0182]

    Reference:
      Cox. The Regression Analysis of Binary Sequences. Journal of the Royal Statistical Society B
      1958.
    """
    data = independent(logits, labels, options, activation)
    return reduce(cross_entropy_of(data, label_smoothing, pos_weight), options, data)


def cross_entropy_of(
    data: Competing | Independent,
    label_smoothing: Array | None = None,
    pos_weight: Array | None = None,
) -> Cost:
    """Returns the cross-entropy of each position where classes compete, else of each element."""
    if isinstance(data, Competing):
        return softmax.cross_entropy(data, label_smoothing)
    formula = bind(_binary_cross_entropy, probabilities=data.are_probabilities)
    of_finite = None if data.are_probabilities else _of_finite
    parameters = label_smoothing, weight_of_positives(pos_weight, data)
    return sigmoid.cost(formula, data, *parameters, of_finite=of_finite)


def _nll(part: Competing) -> Array:
    surprise = -part.unmasked_logits()
    return part.at_target(surprise if part.class_weights is None else part.class_weights * surprise)


def _with_z_loss(part: Competing, smoothing: Array | None, z_loss: Array) -> Array:
    penalty = z_loss * softmax.log_sum_exp(part) ** 2
    return softmax.cross_entropy(part, smoothing).now() + part.weighted(penalty)


def _binary_cross_entropy(
    x: Array, y: Array, smoothing: Array | None, pos_weight: Array | None, *, probabilities: bool
) -> Array:
    return weighted_entropy(x, towards_half(y, smoothing), pos_weight, probabilities)


def _of_finite(x: Array, y: Array, smoothing: Array | None, pos_weight: Array | None) -> Array:
    return sigmoid.entropy_of_finite(x, *hits_and_misses(towards_half(y, smoothing), pos_weight))


def weighted_entropy(x: Array, t: Array, pos_weight: Array | None, probabilities: bool) -> Array:
    """Returns `-pos_weight t log p - (1 - t) log(1 - p)`."""
    return sigmoid.entropy(x, *hits_and_misses(t, pos_weight), probabilities)


def hits_and_misses(t: Array, pos_weight: Array | None) -> tuple[Array, Array]:
    """Returns the factors of `-log p` and `-log(1 - p)` in a binary cross-entropy."""
    return t if pos_weight is None else pos_weight * t, 1 - t


def weight_of_positives(pos_weight: Array | None, data: Independent) -> Array | None:
    """Shapes one number, one per class or one per element to broadcast against the logits."""
    if pos_weight is None:
        return None
    return checks.per_class_or_element("pos_weight", pos_weight, data.logits.shape, data.axis)


def towards_half(y: Array, smoothing: Array | None) -> Array:
    """Moves a share of each target to 1/2."""
    return y if smoothing is None else y * (1 - smoothing) + smoothing / 2
