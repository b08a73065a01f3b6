"""Margin losses: the target's score must win by a margin, in angle or in cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics, sigmoid, softmax, turned
from jaxloss._core.cost import Cost
from jaxloss._core.families import classification
from jaxloss._core.labels import Competing, is_target, of_ids, per_position
from jaxloss._core.reading import competing
from jaxloss._core.reduction import reduce
from jaxloss.options import (
    Classification,
    Interval,
    NonNegative,
    Number,
    Numbers,
    Positive,
    Share,
)

__all__ = ["arcface", "cosface"]

Array = jax.Array
Formula = Callable[..., Cost]
Angle: TypeAlias = Annotated[Number, Interval(f"[0, {math.pi}]")]


@classification
def arcface(
    cosines: Numbers,
    labels: Numbers,
    *,
    scale: Positive = 64.0,
    margin: Angle = 0.5,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the additive angular margin loss.

    With `theta_c = arccos(cosines_c)` the angle between a feature and the centre of class `c`::

        z_y     = scale cos(theta_y + margin)
        z_j     = scale cos(theta_j)                      j != y
        ArcFace = -log softmax(z)_y

    Soft labels give `sum_c y_c` times the loss of class `c`, which for one-hot labels is that of
    the id. The cosine is that of the paper for every angle: where `theta_y + margin` exceeds pi it
    rises again, so that an opposite feature costs a little less than one at `pi - margin`. Releases
    with a fallback go on there with `cos(theta_y) - margin sin(margin)`.

    The target's logit is `cos(theta) cos(margin) - sin(theta) sin(margin)`, which needs no arccos.
    The slope of `sin(theta)` is infinite at a cosine of 1 or -1; it counts as 0 there, so that
    value and gradient are finite everywhere. A cosine outside `[-1, 1]` by rounding is treated as
    the end, and one of -inf is a removed class: it costs nothing where the label has no mass, and
    +inf with zero gradient where it has.

    Args:
      cosines: Cosines between the features and the class centres, shape `[..., C]` (`C` at `axis`),
        floating.
      scale: What the cosines are multiplied by (the paper's `s`), positive.
      margin: The angle in radians that is added to the target's, in `[0, pi]`.

    Example:
      The same angle to both centres still costs, because of the margin:

      >>> import jax.numpy as jnp, jaxloss
      >>> cosines = jnp.array([[0.9, 0.1], [0.5, 0.5]])
      >>> print(jaxloss.arcface(cosines, jnp.array([0, 0]), scale=8.0, reduction="none").round(4))
      [0.0211 3.8331]

    Reference:
      Deng, Guo, Xue and Zafeiriou. ArcFace: Additive Angular Margin Loss for Deep Face Recognition.
      CVPR 2019, equation 3. https://arxiv.org/abs/1801.07698
    """
    data = competing(cosines, labels, options, prediction="cosines")
    return reduce(of_changed(_arcface, data, scale, margin, label_smoothing), options, data)


@classification
def cosface(
    cosines: Numbers,
    labels: Numbers,
    *,
    scale: Positive = 64.0,
    margin: NonNegative = 0.35,
    label_smoothing: Share = 0.0,
    **options: Unpack[Classification],
) -> Array:
    """Computes the additive cosine margin loss, also known as AM-Softmax.

    With `z` the scaled cosines::

        z_y     = scale (cosines_y - margin)
        z_j     = scale cosines_j                         j != y
        CosFace = -log softmax(z)_y

    Soft labels give `sum_c y_c` times the loss of class `c`, which for one-hot labels is that of
    the id. A cosine outside `[-1, 1]` by rounding is treated as the end, and one of -inf is a
    removed class: it costs nothing where the label has no mass, and +inf with zero gradient where
    it has.

    Args:
      cosines: Cosines between the features and the class centres, shape `[..., C]` (`C` at `axis`),
        floating.
      scale: What the cosines are multiplied by (the paper's `s`), positive.
      margin: What is subtracted from the target's cosine, at least 0.

    Example:
      The same angle to both centres still costs, because of the margin:

      >>> import jax.numpy as jnp, jaxloss
      >>> cosines = jnp.array([[0.9, 0.1], [0.5, 0.5]])
      >>> print(jaxloss.cosface(cosines, jnp.array([0, 0]), scale=8.0, reduction="none").round(4))
      [0.0270 2.8590]

    Reference:
      Wang et al. CosFace: Large Margin Cosine Loss for Deep Face Recognition. CVPR 2018,
      equation 4. https://arxiv.org/abs/1801.09414
      Wang, Cheng, Liu and Liu. Additive Margin Softmax for Face Verification. IEEE Signal
      Processing Letters 2018. https://arxiv.org/abs/1801.05599
    """
    data = competing(cosines, labels, options, prediction="cosines")
    return reduce(of_changed(_cosface, data, scale, margin, label_smoothing), options, data)


def of_changed(formula: Formula, data: Competing, *parameters: Array | None) -> Cost:
    """Returns a cost of logits that are changed first.

    Of few classes at once, by all ways of the cross-entropy; of many in parts, so that the changed
    logits are not written to memory.
    """
    if turned.pays(data.logits, data.axis):
        return formula(data, *parameters)
    return per_position(formula, data, *parameters)


def _arcface(part: Competing, scale: Array, margin: Array, smoothing: Array | None) -> Cost:
    part = part.of(_within_ends(part.unmasked_logits()))
    # Any finite value does for a removed class, whose own cost is infinite.
    cosine = jnp.where(part.logits == -jnp.inf, 0, part.logits)
    cosine = of_target(cosine, part, smoothing)
    sine = numerics.sqrt((1 - cosine) * (1 + cosine))
    drop = cosine * (2 * jnp.sin(margin / 2) ** 2) + sine * jnp.sin(margin)
    return margin_entropy(part, scale, drop, smoothing)


def _cosface(part: Competing, scale: Array, margin: Array, smoothing: Array | None) -> Cost:
    part = part.of(_within_ends(part.unmasked_logits()))
    return margin_entropy(part, scale, margin, smoothing)


def margin_entropy(data: Competing, scale: Array, margin: Array, smoothing: Array | None) -> Cost:
    """Returns `sum_c w_c y_c CE_c` of each position, `CE_c` that of `scale (x - margin_c e_c)`.

    `e_c` is the unit vector of class `c`: each class has its margin while it is the target. A lower
    target logit lowers the log-odds by the same amount, so of many classes no logits are made for
    it.

    Args:
      data: The logits before scaling, and their labels.
      scale: A scalar.
      margin: A scalar, or what `of_target` gives.
      smoothing: `y` becomes `(1 - e) y + e / C`; None: 0.
    """
    scaled = data.of(numerics.product(scale, data.unmasked_logits()))
    if _are_few_ids(data, smoothing):
        hit = is_target(data.labels, data.logits.shape, data.axis)
        return softmax.cross_entropy(data.of(scaled.logits - jnp.where(hit, scale * margin, 0)))
    return softmax.cost(_lowered, scaled, scale * margin, label_smoothing=smoothing)


def _lowered(hit: Array, miss: Array, drop: Array) -> Array:
    return sigmoid.log_pair(miss - hit - drop)[0]


def of_target(values: Array, data: Competing, smoothing: Array | None) -> Array:
    """Returns the number of each position's target for ids of many classes, else all numbers."""
    if not data.has_ids or smoothing is not None or _are_few_ids(data, smoothing):
        return values
    return of_ids(jnp.broadcast_to(values, data.logits.shape), data.labels, data.axis)


def _are_few_ids(data: Competing, smoothing: Array | None) -> bool:
    return data.has_ids and smoothing is None and turned.pays(data.logits, data.axis)


def centred(data: Competing) -> Competing:
    """Subtracts from each position's logits one of them: so a large offset rounds nothing away.

    The target's for ids, which costs no pass over the logits, the largest for labels of their
    shape. A constant, on which no softmax depends.
    """
    logits = jax.lax.stop_gradient(data.unmasked_logits())
    if data.has_ids:
        zero = jnp.expand_dims(of_ids(logits, data.labels, data.axis), data.axis)
    else:
        zero = logits.max(data.axis, keepdims=True)
    return data.of(data.logits - jnp.where(jnp.isinf(zero), 0, zero))


@jax.custom_jvp
def _within_ends(cosines: Array) -> Array:
    """Cosines in `[-1, 1]` or -inf; what rounding left outside keeps its gradient."""
    return jnp.where(cosines == -jnp.inf, cosines, jnp.clip(cosines, -1, 1))


@_within_ends.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _within_ends(*primals), tangents[0]
