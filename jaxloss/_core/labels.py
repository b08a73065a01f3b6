"""What a loss sees of labels: targets and a mask.

A loss sees its data in one of two forms. Where classes compete (softmax), each *position* has
target ids or a soft distribution over the class axis: `Competing`. Where targets are independent
(sigmoid), each *element* of the logits has its own target in [0, 1]: `Independent`. Both merge
`where` and `ignore_index` into one mask, which the primitives apply where they read the logits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, numerics
from jaxloss._core.cost import Cost
from jaxloss._core.platforms import bind, by_platform
from jaxloss._core.sharding import is_split

Array = jax.Array


class Competing(NamedTuple):
    """Positions whose classes compete along `axis`.

    Ids are as they came: a masked one may be any number, and one outside `[0, C)` that is not
    masked makes value and gradient NaN.

    Attributes:
      half: The dtype of half precision in which the logits came; None: it is theirs, or they were
        computed.
    """

    logits: Array
    labels: Array
    mask: Array | None
    weights: Array | None
    class_weights: Array | None
    axis: int
    are_probabilities: bool = False
    half: Any = None

    def of(self, logits: Array) -> Competing:
        """The same positions with other logits, computed from these."""
        return self._replace(logits=logits, half=None)

    @property
    def has_ids(self) -> bool:
        """Whether `labels` holds ids rather than shares."""
        return self.labels.ndim < self.logits.ndim

    @property
    def normalizer(self) -> Array | None:
        """The class weight of each position; None: 1."""
        return None if self.class_weights is None else self.of_target(self.class_weights)

    def weighted(self, values: Array) -> Array:
        """Returns the value of each position times the class weight of its target."""
        return numerics.times(values, self.normalizer)

    def of_target(self, per_class: Array) -> Array:
        """Returns `sum_c y_c per_class_c` of each position, 0 where masked."""
        if not self.has_ids:
            return (self.dense_labels() * per_class).sum(self.axis)
        values = of_ids(jnp.broadcast_to(per_class, self.logits.shape), self.labels, self.axis)
        return numerics.masked(values, self.mask)

    def at_target(self, values: Array) -> Array:
        """Returns `sum_c y_c values_c` of each position, NaN for a bad id, 0 where masked."""
        if not self.has_ids:
            return numerics.product(self.dense_labels(), values).sum(self.axis)
        hits = is_target(self.labels, self.logits.shape, self.axis)
        hits = hits if self.mask is None else hits & jnp.expand_dims(self.mask, self.axis)
        spoiled = jnp.expand_dims(self.poison(), self.axis)
        return jnp.where(hits | jnp.isnan(spoiled), values * spoiled, 0).sum(self.axis)

    def dense_labels(self) -> Array:
        """The labels in the shape of the logits: ids as one-hot, a bad id as NaN, masked as 0."""
        if not self.has_ids:
            return self.masked(self.labels)
        return one_hot(self.labels, self.mask, self.logits, self.axis)

    def poison(self) -> Array:
        """A factor of 1, and NaN for a bad id: multiplied, it reaches value and gradient."""
        return poison(self.labels, self.mask, self.logits.shape[self.axis], self.logits.dtype)

    def unmasked_logits(self) -> Array:
        """The logits with 0 in masked positions."""
        return self.masked(self.logits)

    def masked(self, x: Array) -> Array:
        """Returns an array in the rank of the logits, with 0 in masked positions."""
        return x if self.mask is None else jnp.where(jnp.expand_dims(self.mask, self.axis), x, 0)


class Independent(NamedTuple):
    """Elements that each have a target of their own; all arrays broadcast to the logits.

    Attributes:
      targets: A number of each element, as it came, or ids, which have size 1 at their axis: `C` is
        no class and -1 a bad id.
      classes: The ids of all classes along that axis, with which `targets` are compared. None:
        these are numbers.
      are_probabilities: Whether `logits` already are probabilities.
      axis: The class axis; None: there is none.
      half: The dtype of half precision in which the logits came, or None.
    """

    logits: Array
    targets: Array
    mask: Array | None
    weights: Array | None
    class_weights: Array | None
    classes: Array | None = None
    are_probabilities: bool = False
    axis: int | None = None
    half: Any = None

    @property
    def labels(self) -> Array:
        """The target of each element, in the shape of the logits."""
        return of_each(self.targets, self.classes, self.logits.dtype)

    @property
    def normalizer(self) -> Array | None:
        """The class weight of each element; None: 1."""
        return self.class_weights


def of_each(targets: Array, ids: Array | None, dtype: jnp.dtype) -> Array:
    """The targets of some elements: numbers, or ids against those of their classes, a bad one NaN.

    Args:
      targets: The numbers or ids, as `Independent` has them.
      ids: Those of the elements' classes, which may be some of them only; None: numbers.
      dtype: That of the result.
    """
    if ids is None:
        return fractions(targets, dtype)
    return jnp.where(targets < 0, jnp.nan, (targets == ids).astype(dtype))


def per_position(
    formula: Callable[..., Array | Cost], data: Competing, *parameters: Array | None
) -> Cost:
    """Returns the cost `formula(part, *parameters)` of each position, 0 where masked.

    Args:
      formula: A function of some of the positions as `Competing`, without weights; gives one value
        for each of them, or the cost of which they are.
      data: All positions.
      *parameters: Arrays of the logits' rank that broadcast to them, or of another rank, or None;
        derivatives reach them.
    """
    labels = jnp.expand_dims(data.labels, data.axis) if data.has_ids else data.labels
    mask = None if data.mask is None else jnp.expand_dims(data.mask, data.axis)
    arrays = (data.logits, labels, mask, data.class_weights, *parameters)
    fixed = bind(
        _of_part,
        formula=formula,
        axis=data.axis,
        has_ids=data.has_ids,
        are_probabilities=data.are_probabilities,
    )
    return Cost(fixed, arrays, data.axis)


def _of_part(
    z: Array,
    labels: Array,
    mask: Array | None,
    class_weights: Array | None,
    *parameters: Any,
    formula: Callable[..., Array | Cost],
    axis: int,
    has_ids: bool,
    are_probabilities: bool,
) -> Array:
    given = axis
    if moved := _are_moved(z, axis):
        arrays = (z, labels, mask, class_weights, *parameters)
        z, labels, mask, class_weights, *rest = (
            _moved(a, axis) if a is not None and jnp.ndim(a) == z.ndim else a for a in arrays
        )
        parameters, axis = tuple(rest), z.ndim - 2
    part = unweighted(z, labels, mask, axis, has_ids)
    part = part._replace(class_weights=class_weights, are_probabilities=are_probabilities)
    values = formula(part, *parameters)
    values = jnp.expand_dims(values.now() if isinstance(values, Cost) else values, axis)
    values = numerics.masked(values, mask)
    return jnp.moveaxis(values, -2, given) if moved else values


def _are_moved(z: Array, axis: int) -> bool:
    """Whether few classes go behind all positions but the last.

    A CPU's compiler vectorises the last axis, which they do not fill, and reduces over the second
    of a single image several times slower than over the last but one.
    """
    last, single = z.ndim - 1 == axis > 1, z.shape[0] == axis == 1 < z.ndim - 2
    return z.shape[axis] <= classes.UNFILLED and (last or single)


def _moved(a: Array, axis: int) -> Array:
    """Moves them there, on a CPU before anything else: a fused loop would step through memory."""
    moved, copied = (bind(f, axis=axis) for f in (_behind, _copied_behind))
    if a.shape[axis] <= classes.FEW:  # whose planes it reads one by one
        return moved(a)
    return by_platform(a, cpu=copied, default=moved)


def _behind(a: Array, *, axis: int) -> Array:
    return jnp.moveaxis(a, axis, -2)


def _copied_behind(a: Array, *, axis: int) -> Array:
    return jax.lax.optimization_barrier(_behind(a, axis=axis))


def unweighted(z: Array, labels: Array, mask: Array | None, axis: int, has_ids: bool) -> Competing:
    """Positions of which ids and mask have a class axis of size 1, without weights."""
    return Competing(
        logits=z,
        labels=labels.squeeze(axis) if has_ids else labels,
        mask=None if mask is None else mask.squeeze(axis),
        weights=None,
        class_weights=None,
        axis=axis,
    )


class Paired(NamedTuple):
    """A prediction and a target of one shape, 0 where masked; mask and weights of the values."""

    prediction: Array
    target: Array
    mask: Array | None
    weights: Array | None

    @property
    def normalizer(self) -> None:
        """What a value counts beside its weight: 1."""
        return None


def per_value(
    formula: Callable[..., Array],
    data: Sequence[Array],
    mask: Array | None,
    *parameters: Array | None,
    inner: int | None = None,
) -> Cost:
    """Returns the cost `formula(*data, *parameters)` of each value, 0 where masked.

    Args:
      formula: Gives the shape of each of `data`, except that `inner` has size 1.
      data: Arrays of one shape.
      mask: Broadcasts to the values.
      *parameters: Arrays that broadcast to `data`, or of another rank, or None; derivatives reach
        them.
      inner: The axis of `data` that makes one value; None: each element does.
    """
    slots = mask if mask is None or inner is None else jnp.expand_dims(mask, inner)
    fixed = bind(_of_values, formula=formula, count=len(data))
    return Cost(fixed, (*data, slots, *parameters), inner)


def _of_values(*arrays: Any, formula: Callable[..., Array], count: int) -> Array:
    data, mask, parameters = arrays[:count], arrays[count], arrays[count + 1 :]
    return numerics.masked(formula(*data, *parameters), mask)


def poison(ids: Array, mask: Array | None, classes: int, dtype: jnp.dtype) -> Array:
    """A factor of 1, and NaN where an id is outside `[0, classes)` and not masked."""
    bad = is_bad(ids, mask, classes)
    return jnp.where(bad, jnp.nan, jnp.ones(bad.shape, dtype))


def is_bad(ids: Array, mask: Array | None, classes: int) -> Array:
    """Where an id is outside `[0, classes)` and not masked."""
    bad = (ids < 0) | (ids >= classes)
    return bad if mask is None else bad & mask


def one_hot(ids: Array, mask: Array | None, logits: Array, axis: int) -> Array:
    """Ids in the shape of the logits: 1 at the target, NaN for a bad id, 0 where masked."""
    hits = is_target(ids, logits.shape, axis)
    hits = hits if mask is None else hits & jnp.expand_dims(mask, axis)
    bad = jnp.expand_dims(is_bad(ids, mask, logits.shape[axis]), axis)
    return jnp.where(bad, jnp.nan, hits.astype(logits.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def of_ids(values: Array, ids: Array, axis: int) -> Array:
    """Returns the value of each position's id along `axis`, that of some class for a bad id.

    The derivative compares instead: a gather's would be a scatter. So does the value where the
    classes lie on several devices, and on a TPU, which writes to memory what it gathers from.
    """
    compared, taken = bind(_compared, axis=axis), bind(_taken, axis=axis)
    if is_split(values, axis) or classes.are_few(values, axis):
        return compared(values, ids)
    return by_platform(values, ids, default=taken, tpu=compared)


def _compared(values: Array, ids: Array, *, axis: int) -> Array:
    return classes.total(jnp.where(is_target(ids, values.shape, axis), values, 0), axis)


def _taken(values: Array, ids: Array, *, axis: int) -> Array:
    at = jnp.expand_dims(ids, axis)
    return jnp.take_along_axis(values, at, axis, mode="clip").squeeze(axis)


@of_ids.defjvp
def _(
    axis: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    values, ids = primals
    hits = is_target(ids, values.shape, axis)
    return of_ids(values, ids, axis), jnp.where(hits, tangents[0], 0).sum(axis)


def is_target(ids: Array, shape: tuple[int, ...], axis: int) -> Array:
    """True where the class index along `axis` equals the position's id."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis) == jnp.expand_dims(ids, axis)


def int32(ids: Array) -> Array:
    """Casts ids to int32 before any comparison: in uint8, 255 would equal -1."""
    if ids.dtype.itemsize >= 4 and ids.dtype != jnp.int32:
        limits = jnp.iinfo(jnp.int32)
        ids = jnp.clip(ids, max(jnp.iinfo(ids.dtype).min, limits.min), limits.max)
    return ids.astype(jnp.int32)


def fractions(labels: Array, dtype: jnp.dtype) -> Array:
    """Targets as numbers of `dtype`; an integer target that is neither 0 nor 1 becomes NaN."""
    if jnp.issubdtype(labels.dtype, jnp.floating) or labels.dtype == bool:
        return labels.astype(dtype)
    ids = int32(labels)
    return jnp.where((ids == 0) | (ids == 1), ids.astype(dtype), jnp.nan)
