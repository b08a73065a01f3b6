"""Dice losses as Optax has them: Tversky sums per class, class weights that are not normalised."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks
from jaxloss._core.scores import complement
from jaxloss.optax_compat import _reading

__all__ = ["binary_dice_loss", "dice_loss", "multiclass_generalized_dice_loss"]

Array = jax.Array


@checks.named
def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: int | Sequence[int] | None = None,
) -> Array:
    """Computes the Tversky loss of each class: `jaxloss.tversky`, which takes ids and masks too.

    `jaxloss.dice` counts `smooth` half: `dice_loss(smooth=s)` is `jaxloss.dice(smooth=2 * s)`. The
    sums are float32 for half precision (Optax's overflow float16), an empty class with `smooth=0`
    costs 1 (Optax: NaN), and `apply_softmax=False` works under `jit` and with one class.

    Args:
      predictions: Logits, shape `[..., C]`; the class axis of 1 may be missing in either array.
      targets: One-hot or soft labels of the same shape.
      class_weights: Factors of the classes, shape `[C]`, which are not normalised.
      smooth: Added to numerator and denominator, at least 0.
      alpha: Price of false positives, at least 0.
      beta: Price of false negatives, at least 0.
      apply_softmax: Whether predictions are logits, for a softmax, or with one class a sigmoid.
        Probabilities that are not traced must sum to 1, or with one class lie in `[0, 1]`.
      reduction: `"mean"` or `"sum"` over the classes, or `"none"`.
      ignore_background: Whether to leave out class 0; one alone stays.
      axis: The axes of the pixels; None: all but the first and the last.

    Returns:
      The shape of `predictions` without `axis`, and without the classes if they are reduced.

    Raises:
      ValueError: If shapes differ, an axis or option does not exist, a number is out of its range,
        or probabilities are none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> labels = jax.nn.one_hot(jnp.array([[0, 1, 1, 2]]), 3)
      >>> print(losses.dice_loss(2 * labels, labels))
      [0.1233]
    """
    scores, aims = jnp.asarray(predictions), jnp.asarray(targets)
    if scores.ndim == aims.ndim - 1:
        scores = scores[..., None]
    if aims.ndim == scores.ndim - 1:
        aims = aims[..., None]
    checks.shape("targets", aims, scores.shape, "the shape of `predictions`")
    options = {"smooth": smooth, "alpha": alpha, "beta": beta}
    if class_weights is not None:
        class_weights = jnp.asarray(class_weights)
        if class_weights.ndim != 1:
            got = f"of shape {class_weights.shape}"
            checks.fail(ValueError, "class_weights", got, "one number per class")
    extra = [value for value in (*options.values(), class_weights) if value is not None]
    dtype, (x, y, *_) = _reading.in_one_dtype(scores, aims, *extra)
    if not apply_softmax:
        floating = jnp.issubdtype(scores.dtype, jnp.floating)
        _require_probabilities(x, jnp.finfo(scores.dtype).eps if floating else 0)
    elif x.shape[-1] == 1:
        x = jax.nn.sigmoid(x)
    else:
        x = jax.nn.softmax(x, -1)
    smooth, alpha, beta = (
        checks.number(key, value, x.dtype, "[0, inf)") for key, value in options.items()
    )
    axes = tuple(range(1, x.ndim - 1)) if axis is None else checks.axes(axis, x.ndim, "axis")
    tp, fp, fn = (counts.sum(axes) for counts in (x * y, x * (1 - y), (1 - x) * y))
    tp, fp, fn, smooth, alpha, beta = jnp.broadcast_arrays(tp, fp, fn, smooth, alpha, beta)
    loss = complement(alpha * fp + beta * fn, tp + smooth)
    if class_weights is not None:
        loss = loss * jnp.broadcast_to(class_weights.astype(x.dtype), loss.shape)
    if ignore_background and x.shape[-1] > 1:
        loss = loss[..., 1:]
    checks.option("reduction", reduction, ("mean", "sum", "none"))
    if reduction != "none":
        loss = loss.mean(-1) if reduction == "mean" else loss.sum(-1)
    return loss.astype(dtype)


@checks.named
def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Array:
    """Computes the mean of :func:`dice_loss` with weights from the batch's class sizes.

    This is Optax's function, not the loss of Sudre and others that it names, which is
    `jaxloss.generalized_dice`: it averages ratios, where theirs is a ratio of sums. A class that no
    target holds has almost all of the weight; the numbers are kept.

    Args:
      predictions: Logits, shape `[..., C]`.
      targets: One-hot or soft labels of the same shape.
      smooth: Added to numerator and denominator, at least 0.
      apply_softmax: Whether predictions are logits, as in :func:`dice_loss`.
      ignore_background: Whether to leave out class 0.

    Returns:
      A scalar.

    Raises:
      ValueError: If shapes differ, `smooth` is negative, or probabilities are none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> labels = jax.nn.one_hot(jnp.array([[0, 1, 1, 2]]), 3)
      >>> print(losses.multiclass_generalized_dice_loss(2 * labels, labels).round(4))
      0.1275
    """
    scores, aims = jnp.asarray(predictions), jnp.asarray(targets)
    checks.shape("targets", aims, scores.shape, "the shape of `predictions`")
    dtype, (_, y) = _reading.in_one_dtype(scores, aims)
    weights = 1 / (y.sum(tuple(range(y.ndim - 1))) ** 2 + 1e-7)
    weights = weights / weights.sum() * weights.size
    loss = dice_loss(
        scores,
        aims,
        class_weights=weights,
        smooth=smooth,
        apply_softmax=apply_softmax,
        reduction="none",
        ignore_background=ignore_background,
    )
    return loss.mean().astype(dtype)


@checks.named
def binary_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
) -> Array:
    """Computes :func:`dice_loss` of one class against the rest.

    Optax refuses all probabilities (`apply_sigmoid=False`), as one of them alone does not sum to 1.

    Args:
      predictions: Logits, shape `[...]` or `[..., 1]`.
      targets: Binary labels of the same shape.
      smooth: Added to numerator and denominator, at least 0.
      apply_sigmoid: Whether predictions are logits; else they must lie in `[0, 1]`.

    Returns:
      One value for each index of the first axis.

    Raises:
      ValueError: If shapes differ, `smooth` is negative, or probabilities are none.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(losses.binary_dice_loss(p, y, apply_sigmoid=False).round(4))
      [0.1923]
    """
    scores, aims = jnp.asarray(predictions), jnp.asarray(targets)
    if scores.ndim == aims.ndim and scores.shape[-1] != 1:
        scores, aims = scores[..., None], aims[..., None]
    return dice_loss(scores, aims, smooth=smooth, apply_softmax=apply_sigmoid)


def _require_probabilities(p: Array, eps: Any) -> None:
    """Requires distributions over the classes, or one probability, where the values are known."""
    if isinstance(p, jax.core.Tracer) or not p.is_fully_addressable or p.size == 0:
        return
    if p.shape[-1] == 1:
        if not bool(jnp.all((p >= 0) & (p <= 1))):
            got = f"in [{float(p.min()):.6f}, {float(p.max()):.6f}]"
            checks.fail(ValueError, "predictions", got, "valid probabilities in [0, 1]")
        return
    sums = p.sum(-1)
    if not bool(jnp.all(jnp.abs(sums - 1) <= max(1e-5, float(eps)))):
        got = f"of sums in [{float(sums.min()):.6f}, {float(sums.max()):.6f}]"
        expected = "valid probability distributions that sum to 1 along the class axis"
        checks.fail(ValueError, "predictions", got, expected)
