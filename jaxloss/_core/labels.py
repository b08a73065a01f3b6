"""Labels in, targets and a mask out.

A loss sees its data in one of two forms. Where classes compete (softmax), each *position* has
target ids or a soft distribution over the class axis: `Competing`. Where targets are independent
(sigmoid), each *element* of the logits has its own target in [0, 1]: `Independent`. Both merge
`where` and `ignore_index` into one mask, which the primitives apply where they read the logits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import checks, classes, numerics
from jaxloss._core.cost import Cost
from jaxloss._core.platforms import bind
from jaxloss._core.sharding import is_split

Array = jax.Array

ACTIVATIONS = ("auto", "softmax", "sigmoid", None)


class Competing(NamedTuple):
    """Positions whose classes compete along `axis`.

    Ids are as they came: a masked one may be any number, and one outside `[0, C)` that is not
    masked makes value and gradient NaN.

    Attributes:
      given: The dtype of half precision in which the logits came; None: it is theirs, or they were
        computed.
    """

    logits: Array
    labels: Array
    mask: Array | None
    weights: Array | None
    class_weights: Array | None
    axis: int
    are_probabilities: bool = False
    given: Any = None

    def of(self, logits: Array) -> Competing:
        """The same positions with other logits, computed from these."""
        return self._replace(logits=logits, given=None)

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
        return values if self.class_weights is None else values * self.of_target(self.class_weights)

    def of_target(self, per_class: Array) -> Array:
        """Returns `sum_c y_c per_class_c` of each position, 0 where masked."""
        if not self.has_ids:
            return (self.dense_labels() * per_class).sum(self.axis)
        values = of_ids(jnp.broadcast_to(per_class, self.logits.shape), self.labels, self.axis)
        return values if self.mask is None else jnp.where(self.mask, values, 0)

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
            if self.mask is None:
                return self.labels
            return jnp.where(jnp.expand_dims(self.mask, self.axis), self.labels, 0)
        return one_hot(self.labels, self.mask, self.logits, self.axis)

    def poison(self) -> Array:
        """A factor of 1, and NaN for a bad id: multiplied, it reaches value and gradient."""
        return poison(self.labels, self.mask, self.logits.shape[self.axis], self.logits.dtype)

    def unmasked_logits(self) -> Array:
        """The logits with 0 in masked positions."""
        if self.mask is None:
            return self.logits
        return jnp.where(jnp.expand_dims(self.mask, self.axis), self.logits, 0)


class Independent(NamedTuple):
    """Elements that each have a target of their own; all arrays broadcast to the logits.

    Attributes:
      targets: A number of each element, as it came, or ids, which have size 1 at their axis: `C` is
        no class and -1 a bad id.
      classes: The ids of all classes along that axis, with which `targets` are compared. None:
        these are numbers.
      are_probabilities: Whether `logits` already are probabilities.
      axis: The class axis; None: there is none.
      given: The dtype of half precision in which the logits came, or None.
    """

    logits: Array
    targets: Array
    mask: Array | None
    weights: Array | None
    class_weights: Array | None
    classes: Array | None = None
    are_probabilities: bool = False
    axis: int | None = None
    given: Any = None

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
        return _fractions(targets, dtype)
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
            jnp.moveaxis(a, axis, -2) if a is not None and jnp.ndim(a) == z.ndim else a
            for a in arrays
        )
        parameters, axis = tuple(rest), z.ndim - 2
    part = unweighted(z, labels, mask, axis, has_ids)
    part = part._replace(class_weights=class_weights, are_probabilities=are_probabilities)
    values = formula(part, *parameters)
    values = jnp.expand_dims(values.now() if isinstance(values, Cost) else values, axis)
    values = values if mask is None else jnp.where(mask, values, 0)
    return jnp.moveaxis(values, -2, given) if moved else values


def _are_moved(z: Array, axis: int) -> bool:
    """Whether few classes go behind all positions but the last.

    A CPU's compiler vectorises the last axis, which they do not fill, and reduces over the second
    of a single image several times slower than over the last but one.
    """
    last, single = z.ndim - 1 == axis > 1, z.shape[0] == axis == 1 < z.ndim - 2
    return z.shape[axis] <= classes.UNFILLED and (last or single)


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


def resolve(
    activation: str | None, logits: ArrayLike, labels: ArrayLike, axis: int | None
) -> tuple[str | None, bool]:
    """Decides `"auto"`: ids compete, targets of the logits' own shape are independent.

    Returns the activation, and whether classes compete: under a softmax, and where ids come with
    probabilities.
    """
    checks.option("activation", activation, ACTIVATIONS)
    if axis is None and activation == "softmax":
        expected = "the class axis, over which a softmax competes"
        checks.fail(ValueError, "axis", None, expected)
    same = axis is None or np.shape(labels) == np.shape(logits)
    if activation == "auto":
        activation = "sigmoid" if same else "softmax"
    return activation, activation == "softmax" or (activation is None and not same)


def read(
    logits: ArrayLike, labels: ArrayLike, activation: str | None, options: Mapping[str, Any]
) -> Competing | Independent:
    """Reads logits and labels whose classes compete or not, as activation and shapes say."""
    activation, compete = resolve(activation, logits, labels, options["axis"])
    if compete:
        return competing(logits, labels, options)._replace(are_probabilities=activation is None)
    return independent(logits, labels, options, activation)


def competing(
    logits: ArrayLike, labels: ArrayLike, options: Mapping[str, Any], *, prediction: str = "logits"
) -> Competing:
    """Reads logits and labels whose classes compete along `options["axis"]`."""
    if options.get("background_index") is not None:
        expected = 'None where classes compete, as those of ids do unless `activation="sigmoid"`'
        checks.fail(ValueError, "background_index", options["background_index"], expected)
    scores = checks.scores(prediction, logits, labels)
    checks.minimum_rank(prediction, scores, 1, "one of them holds the classes")
    axis = checks.axis(options["axis"], scores.ndim)
    if scores.shape[axis] == 0:
        checks.fail(ValueError, prediction, f"of shape {scores.shape}", "one class at least")
    targets = _matching(labels, scores, axis, prediction)
    scores, given = _computed(scores)
    positions = checks.without(scores.shape, axis)

    mask = read_mask(options.get("where"), positions)
    if options.get("ignore_index") is not None:
        kept = not_ignored(targets, options["ignore_index"])
        kept = kept if targets.ndim < scores.ndim else kept.all(axis)
        mask = kept if mask is None else mask & kept
    has_ids = targets.ndim < scores.ndim
    targets = int32(targets) if has_ids else _fractions(targets, scores.dtype)
    return Competing(
        logits=scores,
        labels=targets,
        mask=mask,
        weights=read_weights(
            options.get("weights"), positions, mask, scores.dtype, classes=scores.shape[axis]
        ),
        class_weights=per_class("class_weights", options.get("class_weights"), scores, axis),
        axis=axis,
        given=given,
    )


def independent(
    logits: ArrayLike,
    labels: ArrayLike,
    options: Mapping[str, Any],
    activation: str | None = "sigmoid",
) -> Independent:
    """Reads logits and labels whose elements are independent; ids are one against the rest."""
    checks.option("activation", activation, ("sigmoid", None))
    scores = checks.scores("logits", logits, labels)
    axis = None
    if options["axis"] is not None and scores.ndim > 0:
        axis = checks.axis(options["axis"], scores.ndim)
    targets = _matching(labels, scores, axis)
    scores, given = _computed(scores)

    mask = read_mask(options.get("where"), scores.shape, axis)
    at = axis if targets.ndim < scores.ndim else None  # the axis that ids do not have
    if options.get("ignore_index") is not None:
        kept = not_ignored(targets, options["ignore_index"])
        kept = kept if at is None else jnp.expand_dims(kept, at)
        mask = kept if mask is None else mask & kept
    classes = None
    if at is not None:
        sizes = [n if i == at else 1 for i, n in enumerate(scores.shape)]
        classes = jax.lax.broadcasted_iota(jnp.int32, sizes, at)
        targets = jnp.expand_dims(_against_the_rest(targets, classes.size, options), at)
    elif options.get("background_index") is not None:
        got = f"{options['background_index']} with labels of the shape of the logits"
        checks.fail(ValueError, "background_index", got, "None, or ids without the class axis")
    return Independent(
        logits=scores,
        targets=targets,
        mask=mask,
        weights=read_weights(options.get("weights"), scores.shape, mask, scores.dtype, axis),
        class_weights=per_class("class_weights", options.get("class_weights"), scores, axis),
        classes=classes,
        are_probabilities=activation is None,
        axis=axis,
        given=given,
    )


def _computed(scores: Array) -> tuple[Array, Any]:
    """Scores in the dtype of computing, and the one in which they came if that is another."""
    dtype = checks.compute_dtype(scores)
    return scores.astype(dtype), None if scores.dtype == dtype else scores.dtype


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


def paired(
    first: ArrayLike,
    second: ArrayLike,
    options: Mapping[str, Any],
    *,
    names: tuple[str, str],
    inner: int = 0,
) -> Paired:
    """Reads a prediction and a target of one shape, of which the last `inner` axes make one value.

    Both come in the compute dtype.
    """
    prediction = checks.floating(names[0], first)
    checks.minimum_rank(names[0], prediction, inner, "the last make one value")
    target = jnp.asarray(second)
    checks.shape(names[1], target, prediction.shape, f"the shape of `{names[0]}`")
    prediction = prediction.astype(checks.compute_dtype(prediction))
    target = checks.real(names[1], target, prediction.dtype)
    shape = prediction.shape[: prediction.ndim - inner]
    mask = read_mask(options["where"], shape)
    if mask is not None:
        slots = mask.reshape(mask.shape + (1,) * inner)
        prediction, target = jnp.where(slots, prediction, 0), jnp.where(slots, target, 0)
    return Paired(
        prediction, target, mask, read_weights(options["weights"], shape, mask, prediction.dtype)
    )


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
    values = formula(*data, *parameters)
    return values if mask is None else jnp.where(mask, values, 0)


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
    classes lie on several devices.
    """
    if is_split(values, axis) or classes.are_few(values, axis):
        return classes.total(jnp.where(is_target(ids, values.shape, axis), values, 0), axis)
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


def per_class(
    argument: str, value: ArrayLike | None, logits: Array, axis: int | None
) -> Array | None:
    """Checks one number per class, shape `[C]`, and shapes it to broadcast against the logits."""
    if value is None:
        return None
    if axis is None:
        checks.fail(ValueError, argument, "given", "None, as there is no class axis")
    array = checks.real(argument, value, logits.dtype)
    meaning = "one number per class"
    if array.ndim > 1 and array.size == max(array.shape) == logits.shape[axis]:
        meaning += f": {argument}.reshape(-1)?"
    checks.shape(argument, array, (logits.shape[axis],), meaning)
    return array.reshape([-1 if i == axis else 1 for i in range(logits.ndim)])


def _matching(
    labels: ArrayLike, logits: Array, axis: int | None, prediction: str = "logits"
) -> Array:
    """Requires labels of the logits' shape, or ids without the class axis."""
    array = jnp.asarray(labels)
    if array.shape == logits.shape:
        return array
    is_ids = jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool
    expected = f"shape {logits.shape}, that of the {prediction}"
    if axis is not None:
        ids_shape = checks.without(logits.shape, axis)
        if array.shape == ids_shape and is_ids:
            if logits.shape[axis] == 1:
                checks.fail(
                    ValueError,
                    "labels",
                    f"of shape {array.shape}, ids against a single class",
                    "two classes or more; for a binary problem drop that axis of the "
                    f"{prediction} and pass axis=None",
                )
            return array
        expected += f", or integer ids of shape {ids_shape}"
    got = f"of shape {array.shape} and dtype {array.dtype}"
    checks.fail(ValueError, "labels", got, expected + _advice(array, logits.shape, axis, is_ids))


def _advice(labels: Array, shape: tuple[int, ...], axis: int | None, is_ids: bool) -> str:
    """What is likely to be meant by labels that do not fit, or nothing."""
    without = functools.partial(checks.without, shape)
    ids_shape = shape if axis is None else without(axis)
    if labels.shape == ids_shape and axis is not None and shape[axis] == 1:
        return f"; of one class: jnp.expand_dims(labels, {axis})?"
    if labels.shape == ids_shape:  # floats, or they would fit
        return "; class ids are integers: labels.astype(int)?"
    one = next((i for i, n in enumerate(labels.shape) if n == 1), None)
    if one is not None and checks.without(labels.shape, one) == ids_shape:
        return f"; their axis {one} of size 1 is one too many: labels.squeeze({one})?"
    fitting = [i for i in range(len(shape)) if labels.shape == without(i)]
    if axis is None:
        single = next((i for i in fitting if shape[i] == 1), None)
        return "" if single is None else f"; of one class: jnp.expand_dims(labels, {single})?"
    places = range(labels.ndim)
    moved = [i for i in places if checks.without(labels.shape, i) == ids_shape]
    if moved and labels.shape[moved[-1]] == shape[axis]:
        given = f"jnp.moveaxis(labels, {moved[-1]}, {axis})"
        return f"; their classes are along axis {moved[-1]}: {given}?"
    if fitting and is_ids:
        likely = 1 if 1 in fitting else fitting[-1]
        return f"; they fit classes along another axis: did you mean axis={likely}?"
    return ""


def int32(ids: Array) -> Array:
    """Casts ids to int32 before any comparison: in uint8, 255 would equal -1."""
    if ids.dtype.itemsize >= 4 and ids.dtype != jnp.int32:
        limits = jnp.iinfo(jnp.int32)
        ids = jnp.clip(ids, max(jnp.iinfo(ids.dtype).min, limits.min), limits.max)
    return ids.astype(jnp.int32)


def _against_the_rest(ids: Array, classes: int, options: Mapping[str, Any]) -> Array:
    """Ids as `Independent` has them: `classes` is no class, and -1 one that does not exist."""
    known = int32(ids)
    known = jnp.where((known >= 0) & (known < classes), known, -1)
    background = options.get("background_index")
    if background is None:
        return known
    background = checks.integer("background_index", background)
    if 0 <= background < classes or background == options.get("ignore_index"):
        expected = f"an integer outside [0, {classes}), other than `ignore_index`"
        checks.fail(ValueError, "background_index", background, expected)
    return jnp.where(_equals(ids, background), classes, known)


def _fractions(labels: Array, dtype: jnp.dtype) -> Array:
    """Targets as numbers of `dtype`; an integer target that is neither 0 nor 1 becomes NaN."""
    if jnp.issubdtype(labels.dtype, jnp.floating) or labels.dtype == bool:
        return labels.astype(dtype)
    ids = int32(labels)
    return jnp.where((ids == 0) | (ids == 1), ids.astype(dtype), jnp.nan)


def not_ignored(labels: Array, ignore_index: int) -> Array:
    ignore_index = checks.integer("ignore_index", ignore_index)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        got = f"{ignore_index} with labels of dtype {labels.dtype}"
        checks.fail(ValueError, "ignore_index", got, "None, or integer labels; `where` masks any")
    return ~_equals(labels, ignore_index)


def _equals(labels: Array, index: int) -> Array:
    """Where integer labels are a number, which may be beyond what they can hold."""
    labels = labels.astype(jnp.int32) if labels.dtype == bool else labels
    limits = jnp.iinfo(labels.dtype)
    if not limits.min <= index <= limits.max:
        return jnp.zeros(labels.shape, bool)
    return labels == jnp.asarray(index, labels.dtype)


def read_mask(
    where: ArrayLike | None, shape: tuple[int, ...], axis: int | None = None
) -> Array | None:
    if where is None:
        return None
    array = checks.boolean("where", where)
    return checks.broadcastable("where", array, shape, axis)


def read_weights(
    weights: ArrayLike | None,
    shape: tuple[int, ...],
    mask: Array | None,
    dtype: jnp.dtype,
    axis: int | None = None,
    classes: int | None = None,
) -> Array | None:
    if weights is None:
        return None
    if jnp.asarray(weights).dtype == bool:
        checks.fail(TypeError, "weights", "of dtype bool", "real numbers; a mask is `where`")
    array = checks.real("weights", weights, dtype)
    array = checks.broadcastable("weights", array, shape, axis, classes)
    return array if mask is None else jnp.where(mask, array, 0)
