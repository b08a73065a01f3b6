"""Optax's conventions, read into those of jaxloss: dtypes, broadcasting, axes and masks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks
from jaxloss._core.labels import Competing
from jaxloss._core.reading import competing

Array = jax.Array
Axes = int | tuple[int, ...] | None


def in_one_dtype(*values: ArrayLike) -> tuple[Any, list[Array]]:
    """Returns the dtype that Optax returns, and the values in the one that jaxloss computes in."""
    arrays = [jnp.asarray(value) for value in values]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
        floating = jnp.issubdtype(dtype, jnp.floating)
        compute = jnp.promote_types(dtype, jnp.float32) if floating else jnp.float32
    return dtype, [array.astype(compute) for array in arrays]


def together(*values: ArrayLike) -> tuple[Any, list[Array]]:
    """Does the same, and broadcasts the values to one shape."""
    dtype, arrays = in_one_dtype(*values)
    return dtype, list(jnp.broadcast_arrays(*arrays))


def axes_of(axis: Axes, rank: int) -> tuple[int, ...]:
    """Returns the axes as non-negative integers; None: all."""
    if axis is None:
        return tuple(range(rank))
    return checks.axes(axis, rank, "axis")


def merged(values: Array, axes: tuple[int, ...]) -> tuple[Array, int]:
    """Makes several axes the last one; one alone stays where it is."""
    if len(axes) == 1:
        return values, axes[0]
    rest = tuple(i for i in range(values.ndim) if i not in axes)
    shape = tuple(values.shape[i] for i in rest)
    return values.transpose(rest + axes).reshape((*shape, -1)), len(rest)


class Positions(NamedTuple):
    """Logits with one class axis.

    Attributes:
      logits: The logits; those of classes that are masked are still there.
      mask: Which positions have a class left; broadcasts to them. None: all.
      classes: Which classes are left, in the shape of `logits`; None: all.
      axis: The class axis.
    """

    logits: Array
    mask: Array | None
    classes: Array | None
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value per position."""
        return checks.without(self.logits.shape, self.axis)


def positions(logits: Array, axis: Axes, where: ArrayLike | None, rank: int) -> Positions:
    """Reads logits with a mask: of classes if it has the rank given, else of positions."""
    axes = axes_of(axis, logits.ndim)
    mask = classes = None
    if where is not None:
        mask = checks.boolean("where", where)
        of_classes = mask.ndim == rank
        missing = logits.ndim - mask.ndim - (0 if of_classes else len(axes))
        mask = mask.reshape((1,) * missing + mask.shape)
        mask = mask if of_classes else jnp.expand_dims(mask, axes)
        if all(mask.shape[i] == 1 for i in axes):
            mask = mask.squeeze(axes)
        else:
            full = jnp.broadcast_to(mask, logits.shape)
            mask, (classes, _) = full.any(axes), merged(full, axes)
    scores, at = merged(logits, axes)
    return Positions(scores, mask, classes, at)


def with_shares(
    logits: ArrayLike, labels: ArrayLike, axis: Axes, where: ArrayLike | None
) -> tuple[Any, Competing]:
    """Reads labels that are shares of all classes; returns the dtype of the result too."""
    rank = checks.floating("logits", logits).ndim
    dtype, (scores, shares) = in_one_dtype(logits, labels)
    shape = jnp.broadcast_shapes(scores.shape, shares.shape)
    axes = axes_of(axis, len(shape))
    missing = len(shape) - rank
    if any(i < missing or scores.shape[i - missing] != shape[i] for i in axes):
        expected = f"one with all classes of `labels`, of shape {shares.shape}"
        checks.fail(ValueError, "logits", f"of shape {scores.shape}", expected)
    found = positions(jnp.broadcast_to(scores, shape), axis, where, rank)
    scores, (shares, _) = found.logits, merged(jnp.broadcast_to(shares, shape), axes)
    if found.classes is not None:
        scores = jnp.where(found.classes, scores, -jnp.inf)
        shares = jnp.where(found.classes, shares, 0)
    return dtype, competing(scores, shares, {"axis": found.axis, "where": found.mask})


def with_ids(found: Positions, labels: ArrayLike) -> Competing:
    """Reads labels that are ids and broadcast to the positions, or those to them."""
    ids = jnp.asarray(labels)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        checks.fail(TypeError, "labels", f"of dtype {ids.dtype}", "an integer dtype")
    shape, at = jnp.broadcast_shapes(found.shape, ids.shape), found.axis
    if len(shape) != len(found.shape):
        expected = f"at most {len(found.shape)} axes, those of the positions"
        checks.fail(ValueError, "labels", f"of shape {ids.shape}", expected)
    classes = found.logits.shape[at]
    scores = jnp.broadcast_to(found.logits, (*shape[:at], classes, *shape[at:]))
    ids = jnp.broadcast_to(ids, shape)
    if classes == 1:  # where jaxloss refuses ids
        ids = jnp.expand_dims(jnp.where(ids == 0, 1.0, jnp.nan), at)
    return competing(scores, ids, {"axis": at, "where": found.mask})
