"""What the data of a loss should hold: boxes, values, scores of classes, features of tokens."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, reading
from jaxloss._validation._call import FUSED, Call
from jaxloss._validation._numbers import (
    AT_LEAST_0,
    FINITE,
    POSITIVE,
    ids,
    numbers,
    operands,
    scores,
    tolerance,
)
from jaxloss._validation._report import Check

Array = jax.Array


class Kept(NamedTuple):
    """What of the data is read.

    Attributes:
      mask: Broadcasts to the prediction; None: all.
      axis: The axis that arrays with one number per position lack.
    """

    mask: Array | None
    axis: int | None

    def of(self, x: Array) -> Array | None:
        """Which elements of `x` belong to a position that is read; broadcasts to it."""
        mask = self.mask
        if mask is None or x.ndim == 0:
            return None
        lacks = x.ndim < mask.ndim
        shape = list(x.shape)
        if lacks:
            assert self.axis is not None
            shape.insert(self.axis % mask.ndim, 1)
        shared = tuple(i for i, n in enumerate(shape) if n == 1 and mask.shape[i] > 1)
        mask = mask.any(shared, keepdims=True)
        return mask.squeeze(self.axis) if lacks else mask


_Reading = tuple[Kept, Iterable[Check]]


def read(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Returns what of the data of a call is read, and the checks of it."""
    if call.function in FUSED:
        return _fused(call, arrays)
    kinds = {
        "boxes": _boxes,
        "predictions": _values,
        "distribution_focal": _bins,
        "distillation": _teacher,
    }
    kind = kinds.get(call.prediction) or kinds.get(call.function) or _scores
    return kind(call, arrays)


def _fused(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Features of tokens, or logits of another size than their ids, which all are read."""
    x, y = arrays[call.prediction], arrays[call.target]
    kept = jnp.ones((1,) * y.ndim, bool) & arrays.get("where", True)
    if call.ignore_index is not None:
        kept = kept & (y != call.ignore_index)
    of_tokens = "kernel" in arrays
    classes = arrays["kernel"].shape[1] if of_tokens else x.shape[call.axis or 0]
    if call.class_axis_name is not None:
        classes *= jax.lax.axis_size(call.class_axis_name)
    mask = kept[..., None] if of_tokens else None
    of_prediction = numbers(call.prediction, x, mask, FINITE)
    return Kept(kept, None), [*of_prediction, *ids(call, y, kept, classes)]


def _boxes(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Boxes: all numbers finite, the second corner not before the first, sizes not negative."""
    where = arrays.get("where")
    mask = None if where is None else where[..., None]
    corners = call.format == "xyxy"
    ordered = "x2 >= x1 and y2 >= y1" if corners else "width and height at least 0"
    expected = f"a finite number, {ordered}"
    if call.format is not None:
        expected += f" (format={call.format!r})"

    def sizes(box: Array) -> Array:
        return box[..., 2:4] - box[..., :2] if corners else box[..., 2:4]

    def bad(box: Array, mask: Array | None = None) -> Array:
        box = numerics.masked(box, mask)
        negative = sizes(box) < 0
        before, after = jnp.zeros_like(negative), jnp.zeros_like(box[..., 4:], bool)
        return ~jnp.isfinite(box) | jnp.concatenate([before, negative, after], -1)

    return Kept(mask, -1), [
        Check(name, expected, operands(arrays[name], mask), bad)
        for name in (call.prediction, call.target)
    ]


def _values(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Regression: finite numbers, of which some may not be negative."""
    x, y = arrays[call.prediction], arrays[call.target]
    mask, axis = arrays.get("where"), call.axis
    if mask is not None and mask.ndim < x.ndim:  # one for each vector
        axis = -1 if axis is None else axis
        mask = jnp.expand_dims(mask, axis)
    of_target = "[0, 1]" if call.target == "mask" else FINITE
    of_target = AT_LEAST_0 if call.function == "poisson_nll" else of_target
    found = [
        *numbers(call.prediction, x, mask, FINITE if call.log_input else AT_LEAST_0),
        *numbers(call.target, y, mask, of_target),
    ]
    if "areas" in arrays:  # one for each object, of several points
        area = arrays["areas"]
        seen = None if mask is None or area.ndim == 0 else mask.any((-2, -1))
        found += numbers("areas", area, seen, POSITIVE)
    return Kept(mask, axis), found


def _bins(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Scores of the bins of a distance, which may lie between two."""
    x, y = arrays[call.prediction], arrays[call.target]
    kept = _of_classes(call, arrays)
    assert kept.axis is not None
    of_target = numbers(call.target, y, arrays.get("where"), f"[0, {x.shape[kept.axis] - 1}]")
    return kept, [scores(call, x, y, kept.mask, kept.axis), *of_target]


def _teacher(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Scores of a student beside those of its teacher, who may remove a class alone."""
    x, y = arrays[call.prediction], arrays[call.target]
    kept = _of_classes(call, arrays)
    teacher = call._replace(prediction=call.target)
    pairs = ((call, x, y > -jnp.inf), (teacher, y, jnp.zeros_like(y)))
    return kept, [scores(of, z, mass, kept.mask, kept.axis) for of, z, mass in pairs]


def _of_classes(call: Call, arrays: dict[str, Array]) -> Kept:
    """What is read where each position has one row of classes, and is masked as a whole."""
    x, where = arrays[call.prediction], arrays.get("where")
    assert call.axis is not None
    axis = call.axis % x.ndim
    return Kept(None if where is None else jnp.expand_dims(where, axis), axis)


def _scores(call: Call, arrays: dict[str, Array]) -> _Reading:
    """Scores of classes beside ids, shares or independent targets."""
    x, y = arrays[call.prediction], arrays[call.target]
    axis = None if call.axis is None or x.ndim == 0 else call.axis % x.ndim
    activation, compete = reading.resolve(call.activation, x, y, axis)
    masks: dict[str, Any] = {"axis": axis, "where": arrays.get("where")}
    masks["ignore_index"] = call.ignore_index
    if compete:
        assert axis is not None
        mask = reading.competing(x, y, masks).mask
        mask = None if mask is None else jnp.expand_dims(mask, axis)
    else:
        mask = reading.independent(x, y, masks).mask
    kept = Kept(mask, axis)
    if activation is None:
        of_prediction = numbers(call.prediction, x, mask, "[0, 1]")
    else:
        of_prediction = [scores(call, x, y, mask, axis)]
    if y.ndim < x.ndim:
        assert axis is not None
        known = kept.of(y)
        if call.background_index is not None:
            named = y != call.background_index
            known = named if known is None else known & named
        of_target = ids(call, y, known, x.shape[axis])
    else:
        of_target = numbers(call.target, y, mask, "[0, 1]")
        if compete and jnp.issubdtype(y.dtype, jnp.floating):
            of_target += _sums(call, y, kept)
    return kept, [*of_prediction, *of_target]


def _sums(call: Call, shares: Array, kept: Kept) -> list[Check]:
    """Shares of classes that compete add up to 1 at each position."""
    sums = shares.sum(kept.axis, dtype=checks.compute_dtype(shares))
    sums = jnp.where(jnp.isnan(sums), 1, sums)  # a NaN is found already
    near = tolerance(shares.dtype)
    expected = f"1, as shares of the classes add up to (within {near:.2g})"
    name, interval = f"{call.target}.sum({call.axis})", f"[{1 - near}, {1 + near}]"
    return numbers(name, sums, kept.of(sums), interval, expected)
