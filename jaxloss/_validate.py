"""Checks of values under any transform: what a loss would answer with NaN, said in words.

Losses check shapes, dtypes and options while tracing, and never values. `validate` looks at the
values. What an argument should hold follows from its name in the loss's signature, so that every
loss is covered by a few rules.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss import _boundary, _boxes, _compound, _distribution, _fused, _region, _regression
from jaxloss._core import checks, reading
from jaxloss._core.reduction import AxisName
from jaxloss._hints import are_shares, of_numbers, of_probabilities, tolerance
from jaxloss._report import Check, Hint, Report, holds, look
from jaxloss._validate_heads import HEADS, report_of_head

__all__ = ["validate"]

Array = jax.Array

_FAMILIES = (_boundary, _boxes, _compound, _distribution, _fused, _region, _regression)
_LOSSES: dict[str, Callable[..., Any]] = {
    name: function
    for family in _FAMILIES
    for name, function in vars(family).items()
    if inspect.isfunction(function) and "reduction" in inspect.signature(function).parameters
} | HEADS
_OF_IMAGES = {name for family in (_boundary, _compound, _region) for name in vars(family)}
_SIGMOID = ("hinge", "lovasz_hinge", "sigmoid_focal", "squared_hinge")  # without `activation`


class _Rule(NamedTuple):
    """What an option of numbers should hold.

    Attributes:
      interval: Where the numbers lie.
      per_position: Whether there is one for each position, so that masks count.
      some: Whether one of them must be above 0.
    """

    interval: str
    per_position: bool = False
    some: bool = False


_FINITE, _POSITIVE, _AT_LEAST_0 = "(-inf, inf)", "(0, inf)", "[0, inf)"
_RULES = {
    "bias": _Rule("[-inf, inf)"),  # -inf removes a class
    "class_counts": _Rule(_AT_LEAST_0, some=True),
    "class_weights": _Rule(_AT_LEAST_0),
    "counts": _Rule(_AT_LEAST_0),
    "distance_map": _Rule(_FINITE, per_position=True),
    "distances": _Rule(_AT_LEAST_0),
    "kernel": _Rule(_FINITE),
    "pos_weight": _Rule(_AT_LEAST_0),
    "priors": _Rule(_AT_LEAST_0, some=True),
    "variance": _Rule(_POSITIVE, per_position=True),
    "weights": _Rule(_AT_LEAST_0, per_position=True),
}


class _Call(NamedTuple):
    """The structure of a call of a loss."""

    function: str
    prediction: str
    target: str
    activation: str | None
    axis: int | None
    ignore_index: int | None
    background_index: int | None
    format: str | None
    log_input: bool
    axis_name: AxisName | None
    class_axis_name: AxisName | None


@checks.named
def validate(loss: str | Callable[..., Any], /, *args: Any, **options: Any) -> Report:
    """Checks the values that a call of a loss would read, and returns what it found as a pytree.

    `validate("focal", logits, labels, gamma=2)` looks at what `focal(logits, labels, gamma=2)`
    would read; the report leaves `jit`, `vmap`, `scan` or `shard_map` as any other result, and
    `report.throw()` raises on the host. What is expected:

    ==============================  ================================================================
    logits, log-probabilities       finite, or -inf for a class without target mass
    cosines                         the same, in `[-1, 1]` up to rounding
    probabilities                   in `[0, 1]`
    ids                             in `[0, C)`, or the `ignore_index`
    targets of the logits' shape    in `[0, 1]`; where classes compete, with a sum of 1 within 0.001
                                    (0.008 for bfloat16)
    regression                      finite; counts and rates of `poisson_nll` at least 0
    boxes                           finite, sizes at least 0
    of a head of `detection`        in valid slots: labels in `[0, C)`, boxes finite, with an area,
                                    inside the image (where the head knows its size)
    weights, class weights, counts  finite, at least 0
    variance, areas                 finite, above 0
    distance maps                   finite
    features, kernels, small logits finite; a bias may be -inf
    ==============================  ================================================================

    More lines of `str(report)` may be hints, which count as nothing bad: where every row of labels
    of the logits' shape adds up to 1 and no `activation` is given, so that a sigmoid scores each
    class by itself; where a softmax has one class; where an axis of images of three axes that is
    about as long as the other is taken for classes; where what looks like one image, as `vmap`
    leaves it, is taken for images of one row; where logits look like probabilities (rows add up
    to 1, or all lie in [0, 1]) and log-probabilities are above 0; where angles are beyond a full
    turn, depths are not above 0 and so left out, or all boxes of a head lie in [0, 1], as they are
    pixels.

    What `where` or `ignore_index` leaves out is not looked at. A weight of 0 hides nothing, here as
    in a loss. Shapes, dtypes, options and concrete hyper-parameters raise as they do in the loss,
    while tracing; a traced hyper-parameter out of its range makes the loss NaN and is not reported.

    On a CPU sound values cost one reduction of each array, and bad ones, a removed class included,
    one more; under `vmap` both. Under `shard_map` a report is that of one shard. With the loss's
    own `axis_name` its counts are global, and the first bad value is that of the first shard that
    has one, at its index in that shard.

    Args:
      loss: A loss of `jaxloss`, a head of `jaxloss.detection`, a `functools.partial` of one, a
        jitted one, or its name.
      args: The positional arguments of the loss.
      options: The options of the loss.

    Returns:
      A `jaxloss.Report`. `report.ok` is a boolean array, `report.count` the number of bad values;
      `report.findings` holds, for each check, count, first index and value.

    Raises:
      TypeError: If `loss` is no loss of `jaxloss`, or as the loss does.
      ValueError: If there is no loss of that name, or as the loss does.

    Example:
      >>> import jax, jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros((2, 3, 21)), jnp.array([[0, 5, 20], [1, 255, 3]])
      >>> report = jax.jit(lambda *pair: jaxloss.validate("focal", *pair))(logits, labels)
      >>> print(report.ok, report.count)
      False 1
      >>> print(jaxloss.validate("focal", logits, labels, ignore_index=255).ok)
      True
      >>> report.throw()
      Traceback (most recent call last):
      ValueError: jaxloss.focal: `labels` is 255 at index (1, 1) (1 bad value), expected an id in
      [0, 21), or its number as `ignore_index`

    Reference:
      JAX's checkify, which carries errors out of compiled programs as values too:
      https://docs.jax.dev/en/latest/debugging/checkify_guide.html
    """
    name, args, options = _resolve(loss, args, options)
    function = _LOSSES[name]
    jax.eval_shape(lambda: function(*args, **options))  # raises what the loss raises
    bound = inspect.signature(function).bind(*args, **options)
    bound.apply_defaults()
    given = bound.arguments
    if name in HEADS:
        return report_of_head(name, given)
    prediction, target, *_ = (name for name in given if name != "kernel")
    call = _Call(
        function=name,
        prediction=prediction,
        target=target,
        activation=given.get("activation", "sigmoid" if name in _SIGMOID else "softmax"),
        axis=given.get("axis"),
        ignore_index=given.get("ignore_index"),
        background_index=given.get("background_index"),
        format=given.get("format"),
        log_input=given.get("log_input", True),
        axis_name=given.get("axis_name"),
        class_axis_name=given.get("class_axis_name"),
    )
    read = (prediction, target, "where", "areas", *_RULES)
    arrays = {key: jnp.asarray(given[key]) for key in read if given.get(key) is not None}
    return _report(arrays, call)


def _resolve(
    loss: object, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Returns the name of a loss and its whole arguments."""
    if isinstance(loss, str):
        if loss not in _LOSSES:
            near = difflib.get_close_matches(loss, _LOSSES, cutoff=0.5) or ["cross_entropy", "dice"]
            expected = f"the name of a loss, such as {' or '.join(map(repr, near))}"
            checks.fail(ValueError, "loss", repr(loss), expected)
        return loss, args, options
    names = {inspect.unwrap(function): name for name, function in _LOSSES.items()}
    inner: Any = loss
    while True:
        if isinstance(inner, functools.partial):
            args, options, inner = (*inner.args, *args), inner.keywords | options, inner.func
        elif hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        else:
            break
    if not callable(inner) or inner not in names:
        expected = "a loss of jaxloss, a functools.partial of one, or its name"
        checks.fail(TypeError, "loss", repr(loss), expected)
    return names[inner], args, options


@functools.partial(jax.jit, static_argnames="call")
def _report(arrays: dict[str, Array], call: _Call) -> Report:
    """Runs the checks of a call."""
    reader = {"boxes": _read_boxes, "predictions": _read_values}.get(call.prediction, _read_scores)
    reader = _read_fused if hasattr(_fused, call.function) else reader
    kept, of_data = reader(call, arrays)
    findings = [look(check, call.axis_name, shared=False) for check in of_data]
    for name, rule in _RULES.items():
        if name in arrays:
            x = arrays[name]
            of_option = _numbers(name, x, kept.of(x) if rule.per_position else None, rule.interval)
            if rule.some:
                of_option += _numbers(f"{name}.sum()", x.sum(), None, _POSITIVE)
            shared = not rule.per_position
            findings += [look(check, call.axis_name, shared) for check in of_option]
    hints = (*_hints(call, arrays, kept), *_hints_of_values(call, arrays, kept))
    return Report(tuple(findings), hints, call.function)


class _Kept(NamedTuple):
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


_Reading = tuple[_Kept, Iterable[Check]]


def _hints(call: _Call, arrays: dict[str, Array], kept: _Kept) -> tuple[Hint, ...]:
    """Labels of the logits' shape get a sigmoid along their axis; neither may be meant."""
    x, y = arrays[call.prediction], arrays[call.target]
    hints = []
    always = jnp.ones_like(x, bool, shape=())
    sides = x.shape if call.axis is None else checks.without(x.shape, call.axis % max(x.ndim, 1))
    rows = call.function in _OF_IMAGES and len(sides) == 2
    if rows and min(sides) >= 16 and max(sides) <= 4 * min(sides):  # it may well be an image
        text = (
            f"hint: shape {x.shape} is taken for {sides[0]} images of one row; a single image, "
            "such as `vmap` leaves, is x[None]"
        )
        hints.append(Hint(always, text))
    softmax = call.prediction == "logits" and call.activation == "softmax"
    if softmax and call.axis is not None and x.shape[call.axis] == 1:
        text = (
            f"hint: `{call.prediction}` of shape {x.shape} has one class, whose softmax is always "
            "1: nothing is learnt; a binary problem takes a sigmoid, as binary_cross_entropy has"
        )
        hints.append(Hint(always, text))
    if call.activation == "softmax" or call.axis is None or y.shape != x.shape:
        return tuple(hints)
    if call.activation == "auto":
        test = functools.partial(are_shares, axis=call.axis)
        text = (
            f"hint: every row of `{call.target}` adds up to 1, and labels of this shape are scored "
            'class by class, with a sigmoid; classes that compete need `activation="softmax"`'
        )
        hints.append(Hint(holds(test, _operands(y, kept.mask), call.axis_name), text))
    if rows and x.shape[call.axis] >= max(8, sides[1] / 2):  # it may well be no axis of classes
        text = (
            f"hint: axis {call.axis % x.ndim} of shape {x.shape} is taken for {x.shape[call.axis]} "
            "classes; masks of one class, [B, H, W], need `axis=None`"
        )
        hints.append(Hint(always, text))
    return tuple(hints)


def _hints_of_values(call: _Call, arrays: dict[str, Array], kept: _Kept) -> Iterable[Hint]:
    """Probabilities for logits, and numbers of another unit."""
    yield from of_numbers(call.function, arrays, kept.mask, call.axis_name)
    x, y = arrays[call.prediction], arrays[call.target]
    if call.prediction != "logits" or hasattr(_fused, call.function):
        return
    axis = None if call.axis is None or x.ndim == 0 else call.axis % x.ndim
    activation, compete = reading.resolve(call.activation, x, y, axis)
    if activation is None:
        return
    instead = "their logarithm, jnp.log(p)"
    if not compete:
        takes_them = "activation" in inspect.signature(_LOSSES[call.function]).parameters
        instead = "`activation=None`" if takes_them else "jax.scipy.special.logit(p)"
    scores = {"logits": x} | ({call.target: y} if call.function == "distillation" else {})
    for name, z in scores.items():
        along = axis if compete else None
        yield of_probabilities(name, z, kept.mask, along, instead, call.axis_name)


def _read_fused(call: _Call, arrays: dict[str, Array]) -> _Reading:
    """Features of tokens, or logits of another size than their ids, which all are read."""
    x, ids = arrays[call.prediction], arrays[call.target]
    kept = jnp.ones((1,) * ids.ndim, bool) & arrays.get("where", True)
    if call.ignore_index is not None:
        kept = kept & (ids != call.ignore_index)
    of_tokens = "kernel" in arrays
    classes = arrays["kernel"].shape[1] if of_tokens else x.shape[call.axis or 0]
    if call.class_axis_name is not None:
        classes *= jax.lax.axis_size(call.class_axis_name)
    expected = f"an id in [0, {classes})"
    expected += ", or its number as `ignore_index`" if call.ignore_index is None else ""
    checks_of_ids = _numbers(call.target, ids, kept, f"[0, {classes})", expected)
    mask = kept[..., None] if of_tokens else None
    return _Kept(kept, None), [*_numbers(call.prediction, x, mask, _FINITE), *checks_of_ids]


def _read_boxes(call: _Call, arrays: dict[str, Array]) -> _Reading:
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
        box = _masked(box, mask)
        negative = sizes(box) < 0
        before, after = jnp.zeros_like(negative), jnp.zeros_like(box[..., 4:], bool)
        return ~jnp.isfinite(box) | jnp.concatenate([before, negative, after], -1)

    return _Kept(mask, -1), [
        Check(name, expected, _operands(arrays[name], mask), bad)
        for name in (call.prediction, call.target)
    ]


def _read_values(call: _Call, arrays: dict[str, Array]) -> _Reading:
    """Regression: finite numbers, of which some may not be negative."""
    x, y = arrays[call.prediction], arrays[call.target]
    mask, axis = arrays.get("where"), call.axis
    if mask is not None and mask.ndim < x.ndim:  # one for each vector
        axis = -1 if axis is None else axis
        mask = jnp.expand_dims(mask, axis)
    of_target = "[0, 1]" if call.target == "mask" else _FINITE
    of_target = _AT_LEAST_0 if call.function == "poisson_nll" else of_target
    findings = [
        *_numbers(call.prediction, x, mask, _FINITE if call.log_input else _AT_LEAST_0),
        *_numbers(call.target, y, mask, of_target),
    ]
    if "areas" in arrays:  # one for each object, of several points
        area = arrays["areas"]
        seen = None if mask is None or area.ndim == 0 else mask.any((-2, -1))
        findings += _numbers("areas", area, seen, _POSITIVE)
    return _Kept(mask, axis), findings


def _read_scores(call: _Call, arrays: dict[str, Array]) -> _Reading:
    """Scores of classes beside ids, shares or independent targets."""
    x, y, where = arrays[call.prediction], arrays[call.target], arrays.get("where")
    axis = None if call.axis is None or x.ndim == 0 else call.axis % x.ndim
    last = 0 if axis is None else x.shape[axis] - 1
    if call.function == "distribution_focal":
        assert axis is not None
        kept = _Kept(None if where is None else jnp.expand_dims(where, axis), axis)
        checks_of_target = _numbers(call.target, y, where, f"[0, {last}]")
        return kept, [_score(call, x, y, kept.mask, axis), *checks_of_target]
    if call.function == "distillation":
        assert axis is not None
        kept = _Kept(None if where is None else jnp.expand_dims(where, axis), axis)
        teacher = call._replace(prediction=call.target)
        pairs = ((call, x, y > -jnp.inf), (teacher, y, jnp.zeros_like(y)))
        return kept, [_score(of, z, mass, kept.mask, axis) for of, z, mass in pairs]

    activation, compete = reading.resolve(call.activation, x, y, axis)
    masks: dict[str, Any] = {"axis": axis, "where": where, "ignore_index": call.ignore_index}
    if compete:
        assert axis is not None
        mask = reading.competing(x, y, masks).mask
        mask = None if mask is None else jnp.expand_dims(mask, axis)
    else:
        mask = reading.independent(x, y, masks).mask
    kept = _Kept(mask, axis)
    if activation is None:
        of_prediction = _numbers(call.prediction, x, mask, "[0, 1]")
    else:
        of_prediction = [_score(call, x, y, mask, axis)]
    of_target: list[Check]
    if y.ndim < x.ndim:
        classes = f"[0, {last + 1})"
        expected = f"an id in {classes}"
        expected += ", or its number as `ignore_index`" if call.ignore_index is None else ""
        known = kept.of(y)
        if call.background_index is not None:
            named = y != call.background_index
            known = named if known is None else known & named
        of_target = _numbers(call.target, y, known, classes, expected)
    else:
        of_target = _numbers(call.target, y, mask, "[0, 1]")
        if compete and jnp.issubdtype(y.dtype, jnp.floating):
            sums = y.sum(axis, dtype=checks.compute_dtype(y))
            sums = jnp.where(jnp.isnan(sums), 1, sums)  # a NaN is found already
            near = tolerance(y.dtype)
            expected = f"1, as shares of the classes add up to (within {near:.2g})"
            name = f"{call.target}.sum({call.axis})"
            interval = f"[{1 - near}, {1 + near}]"
            of_target += _numbers(name, sums, kept.of(sums), interval, expected)
    return kept, [*of_prediction, *of_target]


def _score(call: _Call, x: Array, y: Array, mask: Array | None, axis: int | None) -> Check:
    """Scores are finite, or -inf where a class is removed, which is not to be the target."""
    end = 1 + tolerance(x.dtype) if call.prediction == "cosines" else None
    expected = "a finite number" if end is None else "a number in [-1, 1]"
    expected += ", or -inf for a class without target mass"

    def within(x: Array) -> Array:
        return jnp.isfinite(x) if end is None else jnp.abs(x) <= end

    def wanted(y: Array) -> Array:
        if y.ndim == x.ndim:
            return y > 0 if y.dtype != bool else y
        assert axis is not None
        classes = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
        if jnp.issubdtype(y.dtype, jnp.floating):  # between two bins
            return jnp.abs(classes.astype(y.dtype) - jnp.expand_dims(y, axis)) < 1
        return classes == jnp.expand_dims(y.astype(jnp.int32), axis)

    def sound(x: Array, y: Array, mask: Array | None = None) -> Array:
        return _finite(_masked(x, mask))

    def bad(x: Array, y: Array, mask: Array | None = None) -> Array:
        x = _masked(x, mask)
        return ~within(x) & ((x != -jnp.inf) | wanted(y))

    quick = sound if end is None else None
    return Check(call.prediction, expected, (x, *_operands(y, mask)), bad, quick)


def _numbers(
    argument: str,
    x: Array,
    mask: Array | None,
    interval: str = _FINITE,
    expected: str | None = None,
) -> list[Check]:
    """Numbers lie in an interval, such as `"[0, inf)"`, whose ends hold 1 between them."""
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if x.dtype == bool or (interval == _FINITE and not floating):
        return []
    if x.dtype.itemsize < 4 and not floating:
        x = x.astype(jnp.int32)  # whose range holds the ends
    if expected is None:
        expected = "a finite number" if interval == _FINITE else f"a number in {interval}"
    low, high = (float(end) if floating else _whole(end) for end in interval[1:-1].split(","))

    def sound(x: Array, mask: Array | None = None) -> Array:
        return _finite(_masked(x, mask))

    def bad(x: Array, mask: Array | None = None) -> Array:
        read = _masked(x, mask, 1)
        inside = jnp.ones_like(read, bool)
        if low is not None:
            inside &= read > low if interval[0] == "(" else read >= low
        if high is not None:
            inside &= read < high if interval[-1] == ")" else read <= high
        return ~inside

    quick = sound if interval == _FINITE else None
    return [Check(argument, expected, _operands(x, mask), bad, quick)]


def _whole(end: str) -> int | None:
    """The end of an interval of integers; None: there is none."""
    return None if "inf" in end else int(end)


def _operands(x: Array, mask: Array | None) -> tuple[Array, ...]:
    return (x,) if mask is None else (x, mask)


def _masked(x: Array, mask: Array | None, fill: float = 0) -> Array:
    return x if mask is None else jnp.where(mask, x, fill)


def _finite(x: Array) -> Array:
    """True only if all is finite: a sum at the speed of memory, which may overflow."""
    return jnp.isfinite(x.sum(dtype=checks.compute_dtype(x)))
