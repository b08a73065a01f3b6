"""What dense detectors score: joint quality, key-point heatmaps and the bins of a distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, sigmoid, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.families import elements, regression
from jaxloss._core.labels import Competing, Independent, per_position
from jaxloss._core.platforms import bind
from jaxloss._core.reading import competing, independent
from jaxloss._core.reduction import reduce
from jaxloss.options import Elements, NonNegative, Numbers, Regression

__all__ = [
    "distribution_focal",
    "gaussian_focal",
    "matchability_aware",
    "quality_focal",
    "varifocal",
]

Array = jax.Array


@elements
def quality_focal(
    logits: Numbers,
    quality: Numbers,
    *,
    beta: NonNegative = 2.0,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[Elements],
) -> Array:
    """Computes the quality focal loss: the focal loss of a target that is a quality in `[0, 1]`.

    With `p = sigmoid(logits)` and `q` the quality (the overlap of the predicted box with its
    object, in the object's class; 0 elsewhere)::

        QFL = |q - p|^beta BCE(p, q)

    For `q` of 0 or 1 this is :func:`sigmoid_focal` with `gamma=beta`. The gradient flows through
    the weight too. Detectors divide the sum by the number of positives: `reduction="sum"`.

    Args:
      quality: Targets in `[0, 1]` of the same shape; one outside gives NaN there, and only there.
      beta: Focusing exponent, at least 0; larger values discount good predictions more.

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
    data = _read("quality", logits, quality, options, activation)
    formula = bind(_quality_focal, probabilities=data.are_probabilities)
    return reduce(sigmoid.cost(formula, data, beta), options, data)


@elements
def varifocal(
    logits: Numbers,
    quality: Numbers,
    *,
    alpha: NonNegative = 0.75,
    gamma: NonNegative = 2.0,
    detach_weight: bool = False,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[Elements],
) -> Array:
    """Computes the varifocal loss: only negatives are focused, positives weigh their quality.

    With `p = sigmoid(logits)` and `q` the quality (the overlap of the predicted box with its
    object, in the object's class; 0 elsewhere)::

        VFL = q BCE(p, q)                  where q > 0
              alpha p^gamma BCE(p, 0)      where q = 0

    The gradient flows through the weights `q` and `p^gamma` too, as in the authors' code; recent
    detectors (RT-DETR, D-FINE) hold them constant, `detach_weight=True`. Detectors divide the sum
    by the number of positives, or by the sum of their qualities: `reduction="sum"`.

    Args:
      quality: Targets in `[0, 1]` of the same shape; one outside gives NaN there, and only there.
      alpha: The weight of negatives, at least 0.
      gamma: Focusing exponent of negatives, at least 0.
      detach_weight: Whether the weights are constants for the derivative.

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
    data = _read("quality", logits, quality, options, activation)
    fixed = {"detach_weight": detach_weight, "probabilities": data.are_probabilities}
    formula = bind(_varifocal, **fixed)
    return reduce(sigmoid.cost(formula, data, alpha, gamma), options, data)


@elements
def matchability_aware(
    logits: Numbers,
    quality: Numbers,
    *,
    gamma: NonNegative = 1.5,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[Elements],
) -> Array:
    """Computes the matchability-aware loss: poor matches are punished for their confidence too.

    With `p = sigmoid(logits)` and `q` the quality (the overlap of the predicted box with its
    object, in the object's class; 0 elsewhere)::

        MAL = BCE(p, q^gamma)            where q > 0
              sg[p^gamma] BCE(p, 0)      where q = 0

    :func:`varifocal` weighs a match by its quality, so that a poor one hardly counts; here all
    matches weigh 1 and a poor one pushes its confidence down to `q^gamma`. The weight `p^gamma` is
    a constant for the derivative. A match of overlap 0 exactly is a negative here, where the
    authors weigh it 1. Detectors divide the sum by the number of objects: `reduction="sum"`.

    Args:
      quality: Targets in `[0, 1]` of the same shape; one outside gives NaN there, and only there.
      gamma: Exponent of qualities and of the weight of negatives, at least 0.

    Example:
      A good and a poor match, and a false alarm:

      >>> import jax.numpy as jnp, jaxloss
      >>> logits, quality = jnp.array([2.0, 2.0, 2.0]), jnp.array([0.9, 0.1, 0.0])
      >>> print(jaxloss.matchability_aware(logits, quality, reduction="none").round(4))
      [0.4193 2.0637 1.7582]

    Reference:
      Huang et al. DEIM: DETR with Improved Matching for Fast Convergence. CVPR 2025.
      https://arxiv.org/abs/2412.04234
    """
    data = _read("quality", logits, quality, options, activation)
    formula = bind(_matchability_aware, probabilities=data.are_probabilities)
    return reduce(sigmoid.cost(formula, data, gamma), options, data)


@elements
def gaussian_focal(
    logits: Numbers,
    heatmap: Numbers,
    *,
    alpha: NonNegative = 2.0,
    beta: NonNegative = 4.0,
    activation: Literal["sigmoid"] | None = "sigmoid",
    **options: Unpack[Elements],
) -> Array:
    """Computes the penalty-reduced focal loss of a heatmap with a bump around each key point.

    With `p = sigmoid(logits)` and `y` the heatmap, 1 at a key point and less around it::

        L = -(1 - p)^alpha log p                    where y = 1
            -(1 - y)^beta p^alpha log(1 - p)        elsewhere

    so that a detection beside its key point costs less than one far away. Nothing is added inside
    the logarithms, as others do with 1e-12. Detectors divide the sum by the number of key points:
    `reduction="sum"`.

    Args:
      heatmap: Targets in `[0, 1]` of the same shape; exactly 1 at the key points. One outside the
        range gives NaN there, and only there.
      alpha: Focusing exponent, at least 0.
      beta: How fast the cost falls off towards a key point, at least 0.

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
    data = _read("heatmap", logits, heatmap, options, activation)
    formula = bind(_gaussian_focal, probabilities=data.are_probabilities)
    return reduce(sigmoid.cost(formula, data, alpha, beta), options, data)


@regression
def distribution_focal(
    logits: Numbers,
    target: Numbers,
    *,
    axis: int = -1,
    class_weights: Numbers | None = None,
    **options: Unpack[Regression],
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
      class_weights: One factor of value and denominator per bin, shape `[bins]`.

    Returns:
      A scalar, or the shape of `target` with `reduction="none"`; float32 for half-precision input.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, target = jnp.array([[0.0, 2.0, 0.0], [0.0, 2.0, 0.0]]), jnp.array([1.0, 1.5])
      >>> print(jaxloss.distribution_focal(logits, target, reduction="none").round(4))
      [0.2395 1.2395]

    Reference:
      Li et al. Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense
      Object Detection. NeurIPS 2020, equation 6. https://arxiv.org/abs/2006.04388
    """
    every = {**options, "axis": axis, "class_weights": class_weights}
    cost, data = distribution_cost(logits, target, every)
    return reduce(cost, options, data)


def distribution_cost(
    logits: Numbers, target: Numbers, options: Mapping[str, Any]
) -> tuple[Cost, Competing]:
    """Returns what each distance costs, and what was read."""
    scores = checks.floating("logits", logits)
    checks.minimum_rank("logits", scores, 1, "one of them holds the bins")
    axis = checks.axis(options["axis"], scores.ndim)
    t = checks.real("target", target, checks.compute_dtype(scores))
    meaning = "that of the logits without the bins"
    checks.shape("target", t, checks.without(scores.shape, axis), meaning)
    last = scores.shape[axis] - 1
    if last < 1:
        checks.fail(ValueError, "logits", f"of shape {scores.shape}", "two bins or more")
    t = jnp.where((t >= 0) & (t <= last), t, jnp.nan)
    shares = _between_bins(jnp.expand_dims(t, axis), scores.shape, axis)
    data = competing(scores, shares, options)
    # The target is no id, but has the shape of ids: the shares fill the memory of a part only.
    return per_position(_distribution_focal, data._replace(labels=t)), data


def _quality_focal(x: Array, q: Array, beta: Array, *, probabilities: bool) -> Array:
    q = _fraction(q)
    if probabilities:
        focus = numerics.power(numerics.absolute(q - x), beta)
    else:
        focus = _focused_gap(x, q, beta)
    return numerics.product(focus, sigmoid.entropy(x, q, 1 - q, probabilities))


def _varifocal(
    x: Array, q: Array, alpha: Array, gamma: Array, *, detach_weight: bool, probabilities: bool
) -> Array:
    q = _fraction(q)
    weight, focus = q, _power_of_p(x, gamma, probabilities)
    if detach_weight:
        weight, focus = jax.lax.stop_gradient((weight, focus))
    positive = sigmoid.entropy(x, weight * q, weight * (1 - q), probabilities)
    negative = sigmoid.entropy(x, jnp.zeros_like(x), alpha * focus, probabilities)
    return jnp.where(q == 0, negative, positive)


def _matchability_aware(x: Array, q: Array, gamma: Array, *, probabilities: bool) -> Array:
    t = numerics.steep_power(_fraction(q), gamma)
    focus = jax.lax.stop_gradient(_power_of_p(x, gamma, probabilities))
    return jnp.where(
        q == 0,
        sigmoid.entropy(x, jnp.zeros_like(x), focus, probabilities),
        sigmoid.entropy(x, t, 1 - t, probabilities),
    )


def _power_of_p(x: Array, gamma: Array, probabilities: bool) -> Array:
    """`p^gamma`, in log space."""
    return jnp.exp(-gamma * numerics.finite(sigmoid.log_pair_of(x, probabilities)[0]))


def _gaussian_focal(x: Array, y: Array, alpha: Array, beta: Array, *, probabilities: bool) -> Array:
    y = _fraction(y)
    hit, miss = sigmoid.log_pair_of(x, probabilities)
    p, q = (jnp.exp(-alpha * numerics.finite(surprise)) for surprise in (hit, miss))
    elsewhere = numerics.product(numerics.power(1 - y, beta) * p, miss)
    return jnp.where(y == 1, numerics.product(q, hit), elsewhere)


def _distribution_focal(part: Competing) -> Cost:
    t = jnp.expand_dims(part.labels, part.axis)
    shares = _between_bins(t, part.logits.shape, part.axis)
    return softmax.cross_entropy(part._replace(labels=shares))


def _between_bins(t: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The shares of the bins, of which a target between two gives each as much as it is close."""
    lower = jnp.clip(jnp.floor(t), 0, shape[axis] - 2)
    bins = jax.lax.broadcasted_iota(t.dtype, shape, axis)
    return jnp.where(bins == lower, lower + 1 - t, jnp.where(bins == lower + 1, t - lower, 0 * t))


def _read(
    argument: str,
    logits: Numbers,
    target: Numbers,
    options: Mapping[str, Any],
    activation: str | None,
) -> Independent:
    """Reads logits and a target of their shape."""
    scores, array = checks.floating("logits", logits), jnp.asarray(target)
    checks.shape(argument, array, scores.shape, "that of the logits")
    return independent(scores, array, options, activation)


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
