"""What dense detectors score: joint quality, key-point heatmaps and the bins of a distance."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core import labels as labelled
from jaxloss._core.labels import Competing, Independent, competing, independent
from jaxloss._core.lean import Costs
from jaxloss._core.reduction import AxisName, reduce_labelled

__all__ = ["distribution_focal", "gaussian_focal", "quality_focal", "varifocal"]

Array = jax.Array


def quality_focal(
    logits: ArrayLike,
    quality: ArrayLike,
    *,
    beta: ArrayLike = 2.0,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the quality focal loss: the focal loss of a target that is a quality in `[0, 1]`.

    With `p = sigmoid(logits)` and `q` the quality (the overlap of the predicted box with its
    object, in the object's class; 0 elsewhere)::

        QFL = |q - p|^beta BCE(p, q)

    For `q` of 0 or 1 this is :func:`sigmoid_focal` with `gamma=beta`. The gradient flows through
    the weight too. Detectors divide the sum by the number of positives: `reduction="sum"`.

    Args:
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      quality: Targets in `[0, 1]` of the same shape; one outside gives NaN there, and only there.
      beta: Focusing exponent, at least 0; larger values discount good predictions more.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights`; None if there is none.
      where: Boolean, the rank of `logits` (or one less, without the class axis) with each dimension
        equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The value of elements to leave out, where `quality` holds integers.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist,
        `beta` is negative, or `ignore_index` comes with a float quality.

    Example:
      A quality met exactly, one underrated, and a false alarm:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, quality = jnp.array([0.0, 0.0, 4.0]), jnp.array([0.5, 0.9, 0.0])
      >>> print(jaxloss.quality_focal(logits, quality, reduction="none").round(4))
      [0.     0.1109 3.8749]

    Reference:
      Li et al. Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense
      Object Detection. NeurIPS 2020, equation 5. https://arxiv.org/abs/2006.04388
    """
    name = "quality_focal"
    checks.option(name, "activation", activation, ("sigmoid", None))
    options = (axis, where, weights, ignore_index, class_weights)
    data = _read(name, "quality", logits, quality, *options)
    exponent = checks.number(name, "beta", beta, data.logits.dtype, "[0, inf)")

    def cost(x: Array, q: Array, beta: Array) -> Array:
        q = _fraction(q)
        if activation is None:
            focus = numerics.power(numerics.absolute(q - x), beta)
        else:
            focus = _focused_gap(x, q, beta)
        return numerics.product(focus, sigmoid.entropy(x, q, 1 - q, activation is None))

    loss = sigmoid.costs(cost, data, exponent)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def varifocal(
    logits: ArrayLike,
    quality: ArrayLike,
    *,
    alpha: ArrayLike = 0.75,
    gamma: ArrayLike = 2.0,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the varifocal loss: only negatives are focused, positives weigh their quality.

    With `p = sigmoid(logits)` and `q` the quality (the overlap of the predicted box with its
    object, in the object's class; 0 elsewhere)::

        VFL = q BCE(p, q)                  where q > 0
              alpha p^gamma BCE(p, 0)      where q = 0

    The gradient flows through the weight `p^gamma` too. Detectors divide the sum by the number of
    positives, or by the sum of their qualities: `reduction="sum"`.

    Args:
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      quality: Targets in `[0, 1]` of the same shape; one outside gives NaN there, and only there.
      alpha: The weight of negatives, at least 0.
      gamma: Focusing exponent of negatives, at least 0.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights`; None if there is none.
      where: Boolean, the rank of `logits` (or one less, without the class axis) with each dimension
        equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The value of elements to leave out, where `quality` holds integers.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist, a
        number is out of its range, or `ignore_index` comes with a float quality.

    Example:
      A good and a poor match, and a false alarm:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, quality = jnp.array([0.0, 0.0, 4.0]), jnp.array([0.9, 0.1, 0.0])
      >>> print(jaxloss.varifocal(logits, quality, reduction="none").round(4))
      [0.6238 0.0693 2.9062]

    Reference:
      Zhang, Wang, Dayoub and Sunderhauf. VarifocalNet: An IoU-aware Dense Object Detector. CVPR
      2021, equation 2. https://arxiv.org/abs/2008.13367
    """
    name = "varifocal"
    checks.option(name, "activation", activation, ("sigmoid", None))
    options = (axis, where, weights, ignore_index, class_weights)
    data = _read(name, "quality", logits, quality, *options)
    log_pair = sigmoid.log_pair_of_probability if activation is None else sigmoid.log_pair
    parameters = (
        checks.number(name, "alpha", alpha, data.logits.dtype, "[0, inf)"),
        checks.number(name, "gamma", gamma, data.logits.dtype, "[0, inf)"),
    )

    def cost(x: Array, q: Array, alpha: Array, gamma: Array) -> Array:
        q = _fraction(q)
        hit, miss = log_pair(x)
        focus = jnp.exp(-gamma * numerics.finite(hit))  # p^gamma
        positive = numerics.product(q * q, hit) + numerics.product(q * (1 - q), miss)
        return jnp.where(q == 0, numerics.product(alpha * focus, miss), positive)

    loss = sigmoid.costs(cost, data, *parameters)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def gaussian_focal(
    logits: ArrayLike,
    heatmap: ArrayLike,
    *,
    alpha: ArrayLike = 2.0,
    beta: ArrayLike = 4.0,
    activation: str | None = "sigmoid",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the penalty-reduced focal loss of a heatmap with a bump around each key point.

    With `p = sigmoid(logits)` and `y` the heatmap, 1 at a key point and less around it::

        L = -(1 - p)^alpha log p                    where y = 1
            -(1 - y)^beta p^alpha log(1 - p)        elsewhere

    so that a detection beside its key point costs less than one far away. Nothing is added inside
    the logarithms, as others do with 1e-12. Detectors divide the sum by the number of key points:
    `reduction="sum"`.

    Args:
      logits: Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.
      heatmap: Targets in `[0, 1]` of the same shape; exactly 1 at the key points. One outside the
        range gives NaN there, and only there.
      alpha: Focusing exponent, at least 0.
      beta: How fast the cost falls off towards a key point, at least 0.
      activation: `"sigmoid"`, or None where `logits` already are probabilities: their logarithms
        are cut at -100, beyond which the gradient is 0. Prefer logits.
      axis: The class axis of `class_weights`; None if there is none.
      where: Boolean, the rank of `logits` (or one less, without the class axis) with each dimension
        equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      ignore_index: The value of elements to leave out, where `heatmap` holds integers.
      class_weights: One factor of value and denominator per class, shape `[C]`.
      reduction: `"mean"` (weighted, over the valid elements, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `logits` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match (they never broadcast), an axis or option does not exist, a
        number is out of its range, or `ignore_index` comes with a float heatmap.

    Example:
      The key point, a pixel beside it and one far away, all rated 0.5:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, heatmap = jnp.zeros(3), jnp.array([1.0, 0.8, 0.0])
      >>> print(jaxloss.gaussian_focal(logits, heatmap, reduction="none").round(4))
      [0.1733 0.0003 0.1733]

    Reference:
      Law and Deng. CornerNet: Detecting Objects as Paired Keypoints. ECCV 2018, equation 1.
      https://arxiv.org/abs/1808.01244
    """
    name = "gaussian_focal"
    checks.option(name, "activation", activation, ("sigmoid", None))
    options = (axis, where, weights, ignore_index, class_weights)
    data = _read(name, "heatmap", logits, heatmap, *options)
    log_pair = sigmoid.log_pair_of_probability if activation is None else sigmoid.log_pair
    parameters = (
        checks.number(name, "alpha", alpha, data.logits.dtype, "[0, inf)"),
        checks.number(name, "beta", beta, data.logits.dtype, "[0, inf)"),
    )

    def cost(x: Array, y: Array, alpha: Array, beta: Array) -> Array:
        y = _fraction(y)
        hit, miss = log_pair(x)
        p, q = (jnp.exp(-alpha * numerics.finite(surprise)) for surprise in (hit, miss))
        elsewhere = numerics.product(numerics.power(1 - y, beta) * p, miss)
        return jnp.where(y == 1, numerics.product(q, hit), elsewhere)

    loss = sigmoid.costs(cost, data, *parameters)
    return reduce_labelled(name, loss, reduction, data, axis_name)


def distribution_focal(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the distribution focal loss of a distance that is predicted as a softmax over bins.

    With `CE(c) = -log softmax(logits)_c`, `l = floor(t)`, `r = l + 1` and `t` the target::

        DFL = (r - t) CE(l) + (t - l) CE(r)

    the cross-entropy with the distribution over the two nearest bins whose mean is the target. The
    last bin is safe: there the target's weight is all on it. It is an index error in mmdet, while
    others move the target to 14.99 of 15.

    Args:
      logits: Unnormalised log-probabilities, shape `[..., bins]` (`bins` at `axis`), floating.
      target: Distances in bins, in `[0, bins - 1]`, shape `[...]`; one outside makes its position's
        loss and gradient NaN.
      axis: The axis of the bins; any axis works.
      where: Boolean, the rank of `target` with each dimension equal or 1. What is False reaches
        neither value nor gradient, not even as NaN.
      weights: Factors of value and denominator, shaped like `where`.
      class_weights: One factor of value and denominator per bin, shape `[bins]`.
      reduction: `"mean"` (weighted, over the valid positions, 0 if there are none), `"sum"` or
        `"none"`.
      axis_name: Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.

    Returns:
      A scalar, or the shape of `target` with `reduction="none"`; float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, or an axis or option does not exist.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, target = jnp.array([[0.0, 2.0, 0.0], [0.0, 2.0, 0.0]]), jnp.array([1.0, 1.5])
      >>> print(jaxloss.distribution_focal(logits, target, reduction="none").round(4))
      [0.2395 1.2395]

    Reference:
      Li et al. Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense
      Object Detection. NeurIPS 2020, equation 6. https://arxiv.org/abs/2006.04388
    """
    name = "distribution_focal"
    scores = checks.floating(name, "logits", logits)
    checks.minimum_rank(name, "logits", scores, 1, "one of them holds the bins")
    axis = checks.axis(name, axis, scores.ndim)
    t = checks.real(name, "target", target, checks.compute_dtype(scores))
    meaning = "that of the logits without the bins"
    checks.shape(name, "target", t, checks.without(scores.shape, axis), meaning)
    last = scores.shape[axis] - 1
    if last < 1:
        checks.fail(ValueError, name, "logits", f"of shape {scores.shape}", "two bins or more")
    t = jnp.expand_dims(jnp.where((t >= 0) & (t <= last), t, jnp.nan), axis)
    shares = _between_bins(t, scores.shape, axis)
    data = competing(
        name, scores, shares, axis=axis, where=where, weights=weights, class_weights=class_weights
    )

    def of_part(part: Competing) -> Costs:
        t = jnp.expand_dims(part.labels, axis)
        shares = _between_bins(t, part.logits.shape, axis)
        return softmax.entropy(part._replace(labels=shares), None)

    # The target is no id, but has the shape of ids: the shares fill the memory of a part only.
    loss = labelled.costs(of_part, data._replace(labels=t.squeeze(axis)))
    return reduce_labelled(name, loss, reduction, data, axis_name)


def _between_bins(t: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The shares of the bins, of which a target between two gives each as much as it is close."""
    lower = jnp.clip(jnp.floor(t), 0, shape[axis] - 2)
    bins = jax.lax.broadcasted_iota(t.dtype, shape, axis)
    return jnp.where(bins == lower, lower + 1 - t, jnp.where(bins == lower + 1, t - lower, 0 * t))


def _read(
    name: str, argument: str, logits: ArrayLike, target: ArrayLike, *options: Any
) -> Independent:
    """Reads logits and a target of their shape."""
    axis, where, weights, ignore_index, class_weights = options
    scores, array = checks.floating(name, "logits", logits), jnp.asarray(target)
    checks.shape(name, argument, array, scores.shape, "that of the logits")
    return independent(
        name,
        scores,
        array,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )


def _fraction(y: Array) -> Array:
    """The target, NaN where it is outside [0, 1]."""
    return jnp.where((y >= 0) & (y <= 1), y, jnp.nan)


@jax.custom_jvp
def _focused_gap(x: Array, y: Array, beta: Array) -> Array:
    """Returns `|y - p|^beta`, with derivative 0 where it is 0.

    Raised by autodiff, a gap that is nearly 0 would overflow in the derivatives.
    """
    p, q = sigmoid.probability_pair(x)
    return numerics.power(numerics.absolute(y * q - (1 - y) * p), beta)


@_focused_gap.defjvp
def _(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (x, y, beta), (t_x, t_y, t_beta) = primals, tangents
    p, q = sigmoid.probability_pair(x)
    value, gap = _focused_gap(x, y, beta), y * q - (1 - y) * p
    size = numerics.absolute(gap)
    rate = jnp.where(y == 1, p, jnp.where(y == 0, -q, numerics.divide(p * q, gap)))
    by_y = numerics.finite(numerics.divide(value, size)) * jnp.sign(gap)
    by_beta = value * jnp.log(jnp.where(size == 0, 1, size))
    return value, beta * (by_y * t_y - value * rate * t_x) + by_beta * t_beta
