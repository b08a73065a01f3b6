"""Cross-entropies, focal loss and margins: Optax's classification losses."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core.labels import Competing, is_target, of_ids
from jaxloss._core.platforms import bind
from jaxloss._core.reading import independent
from jaxloss._distribution import binary_cross_entropy, multiclass_hinge
from jaxloss._distribution._focal import sigmoid_focal_of
from jaxloss._distribution._noise_robust import poly1_of
from jaxloss.optax_compat import _reading
from jaxloss.optax_compat._reading import Axes

__all__ = [
    "hinge_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

Array = jax.Array


@checks.named
def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Computes the sigmoid cross-entropy of each logit: `jaxloss.binary_cross_entropy`.

    An infinite logit on the side of its label costs 0, where Optax gives NaN.

    Args:
      logits: Log-odds, any shape, floating.
      labels: Targets in `[0, 1]`, which broadcast against the logits.

    Returns:
      One value for each element, in the dtype of the logits.

    Raises:
      TypeError: If `logits` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> logits, labels = jnp.array([4.0, 0.0, jnp.inf]), jnp.array([1, 0, 1])
      >>> print(losses.sigmoid_binary_cross_entropy(logits, labels).round(4))
      [0.0181 0.6931 0.    ]
    """
    scores = checks.floating("logits", logits)
    _, (x, y) = _reading.together(scores, labels)
    return binary_cross_entropy(x, y, axis=None, reduction="none").astype(scores.dtype)


@checks.named
def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
) -> Array:
    """Computes the focal loss of each logit: `jaxloss.sigmoid_focal`.

    The gradient by a label of 0 or 1 is that of the formula, of which Optax loses a part.

    Args:
      logits: Log-odds, any shape, floating.
      labels: Targets in `[0, 1]`, which broadcast against the logits.
      alpha: Weight of positives, in `[0, 1]`; negatives weigh `1 - alpha`. None: 1 and 1.
      gamma: Focusing exponent, at least 0. Both may be arrays that broadcast to the logits.

    Returns:
      One value for each element.

    Raises:
      TypeError: If `logits` is not floating.
      ValueError: If a concrete `alpha` or `gamma` is out of its range, which Optax does not check.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> logits, labels = jnp.array([4.0, 0.0, -4.0]), jnp.array([1, 1, 1])
      >>> print(losses.sigmoid_focal_loss(logits, labels, alpha=0.25).round(4))
      [0.     0.0433 0.9687]
    """
    scores = checks.floating("logits", logits)
    _, (x, y) = _reading.together(scores, labels)
    dtype, _ = _reading.in_one_dtype(scores, gamma, 1.0 if alpha is None else alpha)
    focus = _for_each(checks.number("gamma", gamma, x.dtype, "[0, inf)"), x)
    balance = None
    if alpha is not None:
        balance = _for_each(checks.number("alpha", alpha, x.dtype, "[0, 1]"), x)
    data = independent(x, y, {"axis": None})
    formula = bind(sigmoid_focal_of, probabilities=False)
    return sigmoid.cost(formula, data, focus, balance, None, None).each().astype(dtype)


@checks.named
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes the softmax cross-entropy of each position: `jaxloss.cross_entropy`.

    A logit of -inf is a class that has been removed: it costs nothing where the label has no mass
    (Optax: NaN), and +inf where it has. Labels need not sum to 1.

    Args:
      logits: Unnormalised log-probabilities, floating.
      labels: The share of each class, which broadcasts against the logits.
      axis: The class axis, several of them, or None for all.
      where: Boolean. Of the rank of the logits it leaves classes out of softmax and sum, of another
        rank whole positions; a position without a class costs 0. What is False reaches neither
        value nor gradient, not even as NaN.

    Returns:
      One value for each position: the shape without `axis`.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match or an axis does not exist.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> logits = jnp.array([[1.2, -0.8, -0.5], [0.9, -jnp.inf, 1.1]])
      >>> labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
      >>> print(losses.softmax_cross_entropy(logits, labels))
      [0.2761 0.5981]
    """
    return _of_shares(logits, labels, axis, where)


@checks.named
def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Computes :func:`softmax_cross_entropy` along the last axis, which here is safe already.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., C]`, floating.
      labels: The share of each class, which broadcasts against the logits.

    Returns:
      One value for each position, shape `[...]`.

    Raises:
      TypeError: If `logits` is not floating.
      ValueError: If shapes do not match.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> logits, labels = jnp.array([-jnp.inf, 0.0, 0.0]), jnp.array([0.0, 0.5, 0.5])
      >>> print(losses.safe_softmax_cross_entropy(logits, labels).round(4))
      0.6931
    """
    return _of_shares(logits, labels, -1, None)


@checks.named
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int | tuple[int, ...] = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes the softmax cross-entropy of each position's id: `jaxloss.cross_entropy`.

    An id outside `[0, C)` makes the loss and gradient of its position NaN; in Optax a negative one
    counts from the last class. A confident sample keeps all digits of its loss.

    Args:
      logits: Unnormalised log-probabilities, floating.
      labels: Integer ids, in the shape of the logits without `axis`.
      axis: The class axis. Of several, the id is the flat index into them, in the order given.
      where: Boolean. Of the rank of the logits it leaves classes out of the softmax, of another
        rank whole positions; a position without a class costs 0. An id whose own class is left out
        is still held against the others, as in Optax: the loss may then be negative.

    Returns:
      One value for each position, in the dtype of the logits.

    Raises:
      TypeError: If `logits` is not floating, `labels` not integer or `where` not boolean.
      ValueError: If shapes do not match or an axis does not exist.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> x, ids = jnp.array([[1.2, -0.8, -0.5], [0.9, -1.2, 1.1]]), jnp.array([0, 1])
      >>> print(losses.softmax_cross_entropy_with_integer_labels(x, ids))
      [0.2761 2.9518 ]
    """
    if axis is None:
        checks.fail(ValueError, "axis", None, "an integer or a tuple of them")
    scores = checks.floating("logits", logits)
    dtype, (x,) = _reading.in_one_dtype(scores)
    found = _reading.positions(x, axis, where, x.ndim)
    data = _reading.with_ids(found, labels)
    if found.classes is None or not data.has_ids:
        return softmax.cost(sigmoid.surprise, data).each().astype(dtype)
    own = is_target(data.labels, data.logits.shape, data.axis)
    classes = jnp.broadcast_to(found.classes, data.logits.shape)
    data = data.of(jnp.where(classes | own, data.logits, -jnp.inf))
    among = (classes & own).any(data.axis)
    return softmax.cost(_surprise_among, data, among).each().astype(dtype)


@checks.named
def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Computes the cross-entropy with another weight of its leading term: `jaxloss.poly1`.

    Args:
      logits: Unnormalised log-probabilities, floating.
      labels: The share of each class, floating, which broadcasts against the logits.
      epsilon: What is added to the factor of `1 - p_y`; may be an array of the result's shape.
      axis: The class axis, several of them, or None for all.
      where: Boolean, of classes or positions as in :func:`softmax_cross_entropy`.

    Returns:
      One value for each position: the shape without `axis`.

    Raises:
      TypeError: If `logits` or `labels` is not floating or `where` not boolean.
      ValueError: If shapes do not match or an axis does not exist.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> logits = jnp.array([[4.0, 2.0, 1.0], [0.0, 5.0, 1.0]])
      >>> labels = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.8, 0.2]])
      >>> print(losses.poly_loss_cross_entropy(logits, labels))
      [0.4823 1.2567 ]
    """
    checks.floating("labels", labels)
    return _of_shares(logits, labels, axis, where, epsilon)


@checks.named
def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Computes the hinge loss of each score; `jaxloss.hinge` takes labels 0 and 1 instead.

    Args:
      predictor_outputs: Scores, any shape.
      targets: -1 or 1, which broadcast against the scores.

    Returns:
      One value for each element.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> print(losses.hinge_loss(jnp.array([2.0, 0.5, 0.5]), jnp.array([1, 1, -1])))
      [0.  0.5 1.5]
    """
    dtype, (scores, signs) = _reading.together(predictor_outputs, targets)
    return jnp.maximum(1 - numerics.product(signs, scores), 0).astype(dtype)


@checks.named
def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Computes the hinge loss of Crammer and Singer: `jaxloss.multiclass_hinge`.

    An id outside `[0, C)` makes its position NaN. A score of -inf is a class that has been removed
    (Optax: NaN).

    Args:
      scores: Scores, shape `[..., C]`, floating.
      labels: Integer ids, shape `[...]`.

    Returns:
      One value for each position, shape `[...]`; float32 for half precision, as in Optax.

    Raises:
      TypeError: If `scores` is not floating or `labels` not integer.
      ValueError: If shapes do not match.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> scores = jnp.array([[2.0, 0.5, 0.0], [2.0, 1.5, 0.0], [2.0, 3.0, 0.0]])
      >>> print(losses.multiclass_hinge_loss(scores, jnp.array([0, 0, 0])))
      [0.  0.5 2. ]
    """
    dtype, data = _of_scores(scores, labels)
    loss = multiclass_hinge(data.logits, data.labels, axis=data.axis, reduction="none")
    return loss.astype(dtype)


@checks.named
def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Computes by how much the best class leads the target of each position.

    An id outside `[0, C)` makes its position NaN. A score of -inf is a class that has been removed
    (Optax: NaN).

    Args:
      scores: Scores, shape `[..., C]`, floating.
      labels: Integer ids, shape `[...]`.

    Returns:
      One value for each position, shape `[...]`; float32 for half precision, as in Optax.

    Raises:
      TypeError: If `scores` is not floating or `labels` not integer.
      ValueError: If shapes do not match.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> scores = jnp.array([[2.0, 0.5, 0.0], [2.0, 3.0, -jnp.inf]])
      >>> print(losses.multiclass_perceptron_loss(scores, jnp.array([0, 0])))
      [0. 1.]
    """
    dtype, data = _of_scores(scores, labels)
    x, at = data.logits, data.axis
    if not data.has_ids:
        return (data.labels * (x - x)).sum(at).astype(dtype)
    own = numerics.finite(of_ids(x, data.labels, at))
    ahead = jnp.where(x == -jnp.inf, -jnp.inf, x - jnp.expand_dims(own, at))
    idle = is_target(data.labels, x.shape, at)
    lead = jnp.where(idle, 0, ahead) * jnp.expand_dims(data.poison(), at)
    return lead.max(at).astype(dtype)


def _for_each(parameter: Array, x: Array) -> Array:
    return parameter if parameter.ndim == 0 else jnp.broadcast_to(parameter, x.shape)


def _surprise_among(hit: Array, miss: Array, among: Array) -> Array:
    """`-log p`; for a target that is not among the classes, less the log of what that changes."""
    return jnp.where(among, hit, hit - miss)


def _of_shares(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axes,
    where: ArrayLike | None,
    epsilon: ArrayLike | None = None,
) -> Array:
    """The cross-entropy of labels that are shares, plus `epsilon (1 - p)`."""
    dtype, data = _reading.with_shares(logits, labels, axis, where)
    shape = checks.without(data.logits.shape, data.axis)
    if epsilon is not None:
        dtype, _ = _reading.in_one_dtype(jnp.zeros((), dtype), epsilon)
    if data.logits.shape[data.axis] == 0:
        return jnp.zeros(shape, dtype)
    if epsilon is None:
        return softmax.cost(sigmoid.surprise, data).each().astype(dtype)
    factor = checks.real("epsilon", epsilon, data.logits.dtype)
    if factor.ndim > 0:
        factor = jnp.expand_dims(jnp.broadcast_to(factor, shape), data.axis)
    return softmax.cost(poly1_of, data, factor).each().astype(dtype)


def _of_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[Any, Competing]:
    """Reads scores `[..., C]` and ids; Optax's result has the dtype of its one-hot labels too."""
    hot = jnp.zeros(())
    dtype, (x, _) = _reading.in_one_dtype(checks.floating("scores", scores), hot)
    return dtype, _reading.with_ids(_reading.positions(x, -1, None, x.ndim), labels)
