"""What `validate` looks at in the heads of `jaxloss.detection`: the boxes of slots that are valid.

A head says NaN to a label that is none of its classes. Boxes outside of the image or without an
area train on nonsense in silence.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxloss._core.labels import int32
from jaxloss._core.reduction import AxisName
from jaxloss._validation._hints import of_angles
from jaxloss._validation._report import Check, Hint, Report, holds, look

Array = jax.Array

_ROUNDING = 1e-5  # of the image's side, by which a box may leave it


def report_of_head(name: str, given: Mapping[str, Any]) -> Report:
    """Looks at the boxes and labels of a head's call, whose arguments are `given` by name."""
    arrays = {key: jnp.asarray(given[key]) for key in ("labels", "valid")}
    for key in ("boxes", "masks"):
        if key in given:
            arrays[key] = jnp.asarray(given[key])
    if name == "detr":
        arrays["predicted_boxes"] = jnp.asarray(given["predicted_boxes"])
    size = _size(name, given)
    if size is not None:
        arrays["size"] = size.reshape(-1, 1, 2)
    return _report(arrays, name=name, classes=_classes(name, given), axis_name=given["axis_name"])


def _classes(name: str, given: Mapping[str, Any]) -> int:
    """How many classes the predictions have."""
    if "predictions" in given:
        others = 5 if name == "yolo_v5" else 4 * given["reg_max"]
        return jnp.shape(given["predictions"][0])[-1] - others
    background = name == "mask_set" or given.get("classification") == "softmax"
    return jnp.shape(given["logits"])[-1] - background


def _size(name: str, given: Mapping[str, Any]) -> Array | None:
    """Width and height of the image, `[2]`, or of each, `[B, 2]`; None where a head has neither."""
    if "predictions" in given:
        grid = jnp.shape(given["predictions"][0])[-3:-1]
        return jnp.array(grid[::-1], jnp.float32) * given["strides"][0]
    if name == "detr":
        return jnp.asarray(given["image_size"], jnp.float32)[..., ::-1]
    if name == "fcos":  # The points are the centres of cells that fill the image.
        half = jnp.asarray(given["strides"], jnp.float32)[:, None] / 2
        return (jnp.asarray(given["points"], jnp.float32) + half).max(0)
    return None


@functools.partial(jax.jit, static_argnames=("name", "classes", "axis_name"))
def _report(
    arrays: dict[str, Array], *, name: str, classes: int, axis_name: AxisName | None
) -> Report:
    valid = arrays["valid"]
    bad_labels = functools.partial(_bad_labels, classes)
    hints = []
    found = [Check("labels", f"in [0, {classes})", (arrays["labels"], valid), bad_labels)]
    if "boxes" in arrays:
        boxes = arrays["boxes"]
        centred = boxes.shape[-1] == 5
        expected = "a finite box with an area"
        operands: tuple[Array, ...] = (boxes, valid)
        if "size" in arrays:
            expected += f", its {'centre' if centred else 'corners'} inside the image"
            operands += (arrays["size"].astype(boxes.dtype),)
        found.append(Check("boxes", expected, operands, _bad_centred if centred else _bad_corners))
        applies = holds(_are_relative, operands, axis_name)
        text = "hint: all `boxes` lie in [0, 1]; they are in pixels of the input"
        hints.append(Hint(applies, text))
        if centred:
            hints.append(of_angles(boxes, valid[..., None], axis_name))
        if "predicted_boxes" in arrays:
            text = (
                "hint: some `predicted_boxes` leave [0, 1]; they are centres and sides over those "
                "of the image, as of a sigmoid"
            )
            inside = holds(_are_of_a_sigmoid, (arrays["predicted_boxes"],), axis_name)
            hints.append(Hint(~inside, text))
    elif arrays["masks"].dtype != bool:
        found.append(Check("masks", "a number in [0, 1]", (arrays["masks"], valid), _bad_masks))
    findings = tuple(look(check, axis_name, shared=False) for check in found)
    return Report(findings, tuple(hints), f"detection.{name}")


def _bad_labels(classes: int, labels: Array, valid: Array) -> Array:
    """Which valid labels are none of the classes, whose number need not fit into their dtype."""
    ids = int32(labels)
    return valid & ((ids < 0) | (ids >= classes))


def _bad_corners(boxes: Array, valid: Array, size: Array | None = None) -> Array:
    """Which numbers xyxy of valid boxes are not finite, not behind the first, or outside."""
    first, second = boxes[..., :2], boxes[..., 2:]
    bad = jnp.concatenate([jnp.zeros_like(first, bool), ~(second > first)], -1)
    if size is not None:
        bad |= jnp.concatenate([first < -_ROUNDING * size, second > (1 + _ROUNDING) * size], -1)
    return valid[..., None] & (bad | ~jnp.isfinite(boxes))


def _bad_masks(masks: Array, valid: Array) -> Array:
    """Which pixels of valid masks are outside of [0, 1]."""
    return valid[..., None, None] & ~((masks >= 0) & (masks <= 1))


def _are_relative(boxes: Array, valid: Array, size: Array | None = None) -> Array:
    """Whether there are valid boxes, and all lie in the unit square, which is not the image."""
    inside = ((boxes[..., :4] >= 0) & (boxes[..., :4] <= 1)).all(-1)
    relative = valid.any() & (inside | ~valid).all()
    return relative if size is None else relative & (size > 1).any()


def _bad_centred(boxes: Array, valid: Array, size: Array | None = None) -> Array:
    """The same of cxcywh and an angle."""
    centre, sides = boxes[..., :2], boxes[..., 2:4]
    outside = jnp.zeros_like(centre, bool)
    if size is not None:
        outside = (centre < 0) | (centre > size)
    bad = jnp.concatenate([outside, ~(sides > 0), jnp.zeros_like(boxes[..., 4:], bool)], -1)
    return valid[..., None] & (bad | ~jnp.isfinite(boxes))


def _are_of_a_sigmoid(boxes: Array) -> Array:
    """Whether no number of predicted boxes is outside of [0, 1]; NaN is not."""
    return ~((boxes < 0) | (boxes > 1)).any()
