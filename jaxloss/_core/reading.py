"""What users pass, read and checked once: logits and labels, masks, weights, numbers per class."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics, sharding
from jaxloss._core.labels import Competing, Independent, Paired, fractions, int32

Array = jax.Array

ACTIVATIONS = ("auto", "softmax", "sigmoid", None)


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
    beside = functools.partial(sharding.beside, scores, axis=axis)
    targets = beside(_matching(labels, scores, axis, prediction))
    scores, half = _computed(scores)
    positions = checks.without(scores.shape, axis)

    mask = beside(read_mask(options.get("where"), positions))
    if options.get("ignore_index") is not None:
        kept = not_ignored(targets, options["ignore_index"])
        kept = kept if targets.ndim < scores.ndim else kept.all(axis)
        mask = kept if mask is None else mask & kept
    has_ids = targets.ndim < scores.ndim
    targets = int32(targets) if has_ids else fractions(targets, scores.dtype)
    return Competing(
        logits=scores,
        labels=targets,
        mask=mask,
        weights=beside(
            read_weights(
                options.get("weights"), positions, mask, scores.dtype, classes=scores.shape[axis]
            )
        ),
        class_weights=per_class("class_weights", options.get("class_weights"), scores, axis),
        axis=axis,
        half=half,
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
    beside = functools.partial(sharding.beside, scores, axis=axis)
    targets = beside(_matching(labels, scores, axis))
    scores, half = _computed(scores)

    mask = beside(read_mask(options.get("where"), scores.shape, axis))
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
        weights=beside(
            read_weights(options.get("weights"), scores.shape, mask, scores.dtype, axis)
        ),
        class_weights=per_class("class_weights", options.get("class_weights"), scores, axis),
        classes=classes,
        are_probabilities=activation is None,
        axis=axis,
        half=half,
    )


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
    beside = functools.partial(sharding.beside, prediction)
    target = beside(checks.real(names[1], target, prediction.dtype))
    shape = prediction.shape[: prediction.ndim - inner]
    mask = beside(read_mask(options["where"], shape))
    slots = None if mask is None else mask.reshape(mask.shape + (1,) * inner)
    prediction, target = (numerics.masked(x, slots) for x in (prediction, target))
    weights = beside(read_weights(options["weights"], shape, mask, prediction.dtype))
    return Paired(prediction, target, mask, weights)


def _computed(scores: Array) -> tuple[Array, Any]:
    """Scores in the dtype of computing, and the one in which they came if that is another."""
    dtype = checks.compute_dtype(scores)
    return scores.astype(dtype), None if scores.dtype == dtype else scores.dtype


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
    return numerics.masked(array, mask)
