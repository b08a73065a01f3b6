"""Cross-entropy in its three forms: from log-probabilities, softmax logits and sigmoid logits."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, sigmoid, softmax
from jaxloss._core import labels as labelled
from jaxloss._core.labels import Competing, Independent, competing, independent
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, reduce_labelled

__all__ = ["binary_cross_entropy", "cross_entropy", "nll"]

Array = jax.Array


def nll(
    log_probs: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
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
      TypeError: If `log_probs` is not floating or `where` not boolean.
      ValueError: If shapes do not match, an axis or option does not exist, or `ignore_index` comes
        with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> log_probs = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
      >>> print(jaxloss.nll(log_probs, jnp.array([0, 2]), reduction="none").round(4))
      [0.3567 0.2231]

    Reference:
      Fisher. On the Mathematical Foundations of Theoretical Statistics. Philosophical Transactions
      of the Royal Society A 1922.
    """
    data = competing(
        "nll",
        log_probs,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        prediction="log_probs",
    )

    def of_part(part: Competing) -> Array:
        surprise = -part.unmasked_logits()
        weighted = surprise if part.class_weights is None else surprise * part.class_weights
        return part.at_target(weighted)

    return reduce_labelled("nll", labelled.costs(of_part, data), reduction, data, axis_name)


def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    label_smoothing: ArrayLike = 0.0,
    z_loss: ArrayLike = 0.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
    PyTorch divides the weighted sum by the number of positions, not by their weights.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.
      labels: Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An id outside
        `[0, C)` that is not ignored makes its position's loss and gradient NaN.
      label_smoothing: The share of each target that is spread evenly over all classes, in `[0, 1)`.
      z_loss: Weight of the squared log-normaliser, at least 0; PaLM uses 1e-4.
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
      >>> logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
      >>> print(jaxloss.cross_entropy(logits, jnp.array([0, 2]), reduction="none").round(4))
      [0.4076 3.0949]

    Reference:
      Goodfellow, Bengio and Courville. Deep Learning. MIT Press 2016, section 6.2.2.
      Szegedy et al. Rethinking the Inception Architecture for Computer Vision (label smoothing).
      CVPR 2016. https://arxiv.org/abs/1512.00567
      Chowdhery et al. PaLM (z-loss). 2022. https://arxiv.org/abs/2204.02311
    """
    name = "cross_entropy"
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
    scale = checks.number(name, "z_loss", z_loss, data.logits.dtype, "[0, inf)")
    smoothing = spread(name, label_smoothing, data.logits.dtype)
    if checks.is_zero(z_loss):
        entropy = competing_entropy(data, smoothing)
        return reduce_labelled(name, entropy, reduction, data, axis_name)

    def of_part(part: Competing, smoothing: Array | None, scale: Array) -> Array:
        entropy = competing_entropy(part, smoothing)
        penalty = scale * softmax.log_sum_exp(part) ** 2
        penalty = penalty if part.normalizer is None else part.normalizer * penalty
        return labelled.at_once(entropy) + penalty

    loss = labelled.costs(of_part, data, smoothing, scale)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def binary_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the sigmoid cross-entropy of each logit.

    With `p = sigmoid(logits)` and `t = y (1 - label_smoothing) + label_smoothing / 2`::

        BCE = -pos_weight t log p - (1 - t) log(1 - p)

    Both logarithms are softplus functions of the logit: the gradient `p - t` never vanishes on a
    confident mistake, and an infinite logit on the right side costs 0.

    PyTorch divides a mean with `weight=` by the number of elements; here `weights` and
    `class_weights` enter the denominator, `pos_weight` does not.

    Args:
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 (another
        integer gives NaN). Or integer ids without the class axis: one class against the rest.
      pos_weight: Factor of the positive term: a scalar, one per class `[C]`, or the rank of
        `logits` with each dimension equal or 1; at least 0.
      label_smoothing: The share of each target that moves to 1/2, in `[0, 1)`.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights`, `pos_weight` and ids; None if there is none.
      where: Boolean, the rank of `logits` (or of the ids) with each dimension equal or 1. What is
        False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The integer label of elements (or ids of positions) to leave out.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        a number is out of its range, or `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([4.0, 0.0, -4.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.binary_cross_entropy(logits, labels, reduction="none").round(4))
      [0.0181 0.6931 4.0182]

    Reference:
      Cox. The Regression Analysis of Binary Sequences. Journal of the Royal Statistical Society B
      1958.
    """
    name = "binary_cross_entropy"
    checks.option(name, "activation", activation, ("sigmoid", None))
    data = independent(
        name,
        logits,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    positive = 1.0 if pos_weight is None else pos_weight
    positive = checks.number(name, "pos_weight", positive, data.logits.dtype, "[0, inf)")
    if positive.ndim > 0:
        shape = data.logits.shape
        positive = checks.per_class_or_element(name, "pos_weight", positive, shape, axis)
    loss = independent_entropy(
        name, data, label_smoothing, positive, probabilities=activation is None
    )
    return reduce_labelled(name, loss, reduction, data, axis_name)


def competing_entropy(
    data: Competing, smoothing: Array | None, probabilities: bool = False
) -> Costs:
    """Returns the cross-entropy of each position, from logits or from probabilities."""
    if probabilities or (data.has_ids and smoothing is None):
        return softmax.costs(
            lambda hit, miss: hit, data, smoothing=smoothing, probabilities=probabilities
        )
    return softmax.entropy(data, smoothing)


def spread(function: str, label_smoothing: ArrayLike, dtype: jnp.dtype) -> Array | None:
    """Returns the share of each target that is spread over all classes; None where none is."""
    smoothing = checks.number(function, "label_smoothing", label_smoothing, dtype, "[0, 1)")
    return None if checks.is_zero(label_smoothing) else smoothing


def independent_entropy(
    function: str,
    data: Independent,
    label_smoothing: ArrayLike,
    pos_weight: Array | None = None,
    probabilities: bool = False,
) -> Costs:
    """Returns the binary cross-entropy of each element, from logits or from probabilities."""
    dtype = data.logits.dtype
    smoothing = checks.number(function, "label_smoothing", label_smoothing, dtype, "[0, 1)")
    positive = jnp.ones((), dtype) if pos_weight is None else pos_weight

    def cost(x: Array, y: Array, smoothing: Array, positive: Array) -> Array:
        t = y * (1 - smoothing) + smoothing / 2
        return sigmoid.entropy(x, positive * t, 1 - t, probabilities)

    return sigmoid.costs(cost, data, smoothing, positive)
