"""Which loss a call is of, and the structure of the call."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxloss import (
    _boundary,
    _boxes,
    _compound,
    _distribution,
    _fused,
    _region,
    _regression,
    detection,
)
from jaxloss._core import checks
from jaxloss._core.reduction import AxisName

_FAMILIES = (_boundary, _boxes, _compound, _distribution, _fused, _region, _regression)
_HEADS = ("yolo_v5", "yolo_v8", "yolo_v8_rotated", "retinanet", "fcos", "detr", "mask_set")
_SIGMOID = ("hinge", "lovasz_hinge", "sigmoid_focal", "squared_hinge")  # without `activation`

HEADS: dict[str, Callable[..., Any]] = {name: getattr(detection, name) for name in _HEADS}
LOSSES: dict[str, Callable[..., Any]] = {
    name: function
    for family in _FAMILIES
    for name, function in vars(family).items()
    if inspect.isfunction(function) and "reduction" in inspect.signature(function).parameters
} | HEADS
FUSED = {name for name in LOSSES if name in vars(_fused)}
OF_IMAGES = {name for family in (_boundary, _compound, _region) for name in vars(family)}


class Call(NamedTuple):
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


def structure(name: str, given: Mapping[str, Any]) -> Call:
    """The structure of a call of a loss, whose arguments are `given` by name."""
    prediction, target, *_ = (argument for argument in given if argument != "kernel")
    return Call(
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


def resolve(
    loss: object, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Returns the name of a loss and its whole arguments."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            near = difflib.get_close_matches(loss, LOSSES, cutoff=0.5) or ["cross_entropy", "dice"]
            expected = f"the name of a loss, such as {' or '.join(map(repr, near))}"
            checks.fail(ValueError, "loss", repr(loss), expected)
        return loss, args, options
    names = {inspect.unwrap(function): name for name, function in LOSSES.items()}
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
