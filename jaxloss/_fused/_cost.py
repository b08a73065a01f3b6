"""Cross-entropy of some positions' logits, and the numbers by which positions count.

Chunks of logits pass through `cross_entropy` inside a loop whose derivatives JAX takes a second
time. Neither it nor what it calls has a custom derivative: on JAX 0.10 a loop in the rule of one
custom JVP, around another, has wrong second derivatives, silently.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, labels, reading, sharding
from jaxloss._core.reduction import AxisName, everywhere

Array = jax.Array
Parameters = dict[str, Array]  # by the names of the options; what is missing is switched off

MASKED = -2  # the id of positions that do not count; those out of the range become -1 or C


class Positions(NamedTuple):
    """The target of each position and how much it counts.

    Attributes:
      ids: int32 in `[-1, C]`, or `MASKED`.
      factors: `where * weights`, in the rank of the ids with each dimension equal or 1.
    """

    ids: Array
    factors: Array


def read(
    ids: ArrayLike, shape: tuple[int, ...], classes: int, dtype: Any, options: Mapping[str, Any]
) -> Positions:
    """Reads the ids of positions of that shape, and merges masks and weights."""
    ids = checks.integer_ids("labels", ids)
    checks.shape("labels", ids, shape, "one id of each position")
    mask = reading.read_mask(options["where"], shape)
    mask = jnp.ones((1,) * len(shape), bool) if mask is None else mask
    if options["ignore_index"] is not None:
        mask = mask & reading.not_ignored(ids, options["ignore_index"])
    factors = reading.read_weights(options["weights"], shape, None, dtype)
    factors = jnp.ones_like(mask, dtype) if factors is None else factors
    ids = jnp.clip(labels.int32(ids), -1, classes)
    return Positions(jnp.where(mask, ids, MASKED), jnp.where(mask, factors, 0))


def cross_entropy(
    logits: Array,
    ids: Array,
    step: ArrayLike,
    parameters: Parameters,
    axis_name: AxisName | None = None,
) -> Array:
    """Returns the cost of each position, 0 where masked; the classes are the last axis.

    With `w` the class weights and `s` the share that smoothing spreads over the `C` classes::

        w_y ((1 - s) (-log p_y) + z_loss lse^2) + s / C sum_c w_c (-log p_c)

    Args:
      logits: In the dtype of the result. A class at -inf is removed.
      ids: As `read` gives them; among all classes, if they are split.
      step: The number of the loop's step.
      parameters: `bias`, `soft_cap`, `class_weights`, `label_smoothing`, `z_loss`.
      axis_name: The mesh axis over which the classes are split.
    """
    bias, absent = parameters.get("bias"), None
    if bias is not None:
        # -inf: the class is removed, a constant.
        absent = jax.lax.stop_gradient(jnp.where(bias == -jnp.inf, bias, 0))
        logits = logits + expanded(jnp.where(absent == 0, bias, 0), logits.ndim)
    if "soft_cap" in parameters:
        cap = parameters["soft_cap"]
        logits = cap * jnp.tanh(logits / cap)
    seen = compared(logits, absent, ids, step, axis_name)
    return of_compared(seen, logits, absent, ids, parameters, axis_name)


class Compared(NamedTuple):
    """What the logits of a position say of its target.

    Attributes:
      top: The largest logit, as `greatest` gives it.
      hit: Whether the class is the target, `[..., C]`.
      away: The exponentials of the logits minus the largest, 0 at the target, `[..., C]`.
      target: The target's logit minus the largest; -inf where it is removed.
      beside: The sum of `away`.
    """

    top: Array
    hit: Array
    away: Array
    target: Array
    beside: Array


def compared(
    logits: Array,
    absent: Array | None,
    ids: Array,
    step: ArrayLike,
    axis_name: AxisName | None = None,
) -> Compared:
    """Compares the logits; `absent` is -inf for a class that is removed, else 0."""
    present = logits if absent is None else logits + expanded(absent, logits.ndim)
    top = greatest(present, axis_name)
    hit = is_target(ids, logits.shape[-1], step, axis_name)
    # Products, no selections: a CPU's compiler keeps the constants of those in memory.
    away = jnp.exp(present - top[..., None]) * (~hit).astype(logits.dtype)
    target = everywhere((logits * hit.astype(logits.dtype)).sum(-1), axis_name) - top
    if absent is not None:
        target = target + of_target(absent, ids, axis_name)
    return Compared(top, hit, away, target, everywhere(away.sum(-1), axis_name))


def of_compared(
    seen: Compared,
    logits: Array,
    absent: Array | None,
    ids: Array,
    parameters: Parameters,
    axis_name: AxisName | None = None,
) -> Array:
    """Returns the cost as `cross_entropy` does, of logits that were compared."""
    hard = surprise(seen.target, seen.beside)
    weights, smoothing = parameters.get("class_weights"), parameters.get("label_smoothing")
    values = hard if smoothing is None else (1 - smoothing) * hard
    lse = seen.top + jnp.log(seen.beside + jnp.exp(seen.target))
    if "z_loss" in parameters:
        values = values + parameters["z_loss"] * lse**2
    if weights is not None:
        values = values * of_target(weights, ids, axis_name)
    if smoothing is not None:
        each = lse[..., None] - logits
        part = None if absent is None else (absent == 0).astype(logits.dtype)
        for factor in (part, weights):
            each = each if factor is None else each * expanded(factor, logits.ndim)
        among = logits.shape[-1] if part is None else part.sum()
        among = everywhere(jnp.asarray(among, logits.dtype), axis_name)
        values = values + smoothing / among * everywhere(each.sum(-1), axis_name)
    classes = logits.shape[-1] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    values = values * jnp.where((ids == -1) | (ids == classes), jnp.nan, jnp.ones_like(values))
    return jnp.where(ids == MASKED, 0, values)


def greatest(logits: Array, axis_name: AxisName | None = None) -> Array:
    """Returns each position's largest logit, a constant, 0 where all classes are removed."""
    top = jax.lax.stop_gradient(logits).max(-1)
    top = top if axis_name is None else jax.lax.pmax(top, axis_name)
    return jnp.where(top == -jnp.inf, 0, top)


def surprise(target: Array, beside: Array) -> Array:
    """Returns `-log p_y = log((exp(target) + beside) / exp(target))`, exact for p_y about 1 too.

    +inf with zero gradient for a removed target.

    Args:
      target: The target's logit minus the largest.
      beside: The sum of `exp` of such differences over all other classes.
    """
    removed = target == -jnp.inf
    target = jnp.where(removed, 0, target)
    near = target > -1
    confident = jnp.log1p(beside * jnp.exp(-jnp.where(near, target, 0)))
    values = jnp.where(near, confident, jnp.log(jnp.exp(target) + beside) - target)
    return jnp.where(removed, jnp.inf, values)


def is_target(
    ids: Array, classes: int, step: ArrayLike, axis_name: AxisName | None = None
) -> Array:
    """True where the class is the position's; `[..., C]`.

    Both sides count from the step: what does not change with it a compiler writes to memory once.
    """
    if axis_name is not None:
        ids = ids - jax.lax.axis_index(axis_name) * classes
    return (
        expanded(jnp.arange(classes, dtype=jnp.int32) + step, ids.ndim + 1)
        == (ids + step)[..., None]
    )


def of_target(per_class: Array, ids: Array, axis_name: AxisName | None = None) -> Array:
    """Returns the number of each position's class, that of some class for a bad id."""
    if axis_name is None:
        return _taken(per_class, ids)
    classes = len(per_class)
    ids = ids - jax.lax.axis_index(axis_name) * classes
    here = (ids >= 0) & (ids < classes)
    return everywhere(jnp.where(here, _taken(per_class, ids), 0), axis_name)


def _taken(per_class: Array, ids: Array) -> Array:
    """Takes the nearest class for a bad id; on a mesh of Explicit axes it is placed as the ids."""
    per_class = sharding.whole(per_class, (0,))
    return per_class.at[ids].get(mode="clip", out_sharding=sharding.placed(ids))


def count(
    ids: Array,
    factors: Array,
    class_weights: Array | None,
    class_axis_name: AxisName | None = None,
) -> Array:
    """Returns the sum of the positions' factors and class weights."""
    if class_weights is not None:
        factors = factors * of_target(class_weights, ids, class_axis_name)
    return factors.sum() * (ids.size / max(factors.size, 1))


def parameters(
    classes: int,
    dtype: Any,
    *,
    class_weights: ArrayLike | None,
    bias: ArrayLike | None = None,
    **numbers: Array | None,
) -> Parameters:
    """Reads the options of the cost; None is switched off."""
    found = {name: a for name, a in numbers.items() if a is not None}
    for name, value in (("bias", bias), ("class_weights", class_weights)):
        if value is not None:
            found[name] = checks.real(name, value, dtype)
            checks.shape(name, found[name], (classes,), "one number per class")
    return found


def devices(class_axis_name: AxisName | None) -> int:
    """Returns over how many devices the classes are split."""
    if class_axis_name is None:
        return 1
    try:
        return jax.lax.axis_size(class_axis_name)
    except NameError:
        expected = "a mesh axis of the shard_map around this call"
        checks.fail(ValueError, "class_axis_name", repr(class_axis_name), expected)


def expanded(per_class: Array, ndim: int) -> Array:
    """Shapes one number per class to broadcast against logits of that rank."""
    return per_class.reshape((1,) * (ndim - 1) + (-1,))
