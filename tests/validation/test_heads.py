import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import detection

POINTS = detection.grid_points([(4, 4)], [8])  # of an image of 32 x 32 pixels
ANCHORS = detection.grid_anchors([(4, 4)], [8], [16.0], [1.0], [1.0])
CLASSES = 3


def levels(numbers):
    return [jnp.zeros((2, 4, 4, numbers))]


def dense(classes=CLASSES):
    return jnp.zeros((2, 16, classes)), jnp.ones((2, 16, 4))


HEADS = {
    "yolo_v5": (
        ([jnp.zeros((2, 1, 4, 4, 5 + CLASSES))],),
        {"anchors": [[[8.0, 8.0]]], "strides": [8], "balance": [1.0]},
    ),
    "yolo_v8": ((levels(16 + CLASSES),), {"strides": [8], "reg_max": 4}),
    "yolo_v8_rotated": (
        (levels(16 + CLASSES), [jnp.zeros((2, 4, 4))]),
        {"strides": [8], "reg_max": 4},
    ),
    "retinanet": (dense(), {"anchors": ANCHORS}),
    "fcos": ((*dense(), jnp.zeros((2, 16))), {"points": POINTS, "strides": jnp.full(16, 8.0)}),
    "detr": (dense(CLASSES + 1), {"image_size": (32, 32)}),
    "detr, focal": (dense(), {"image_size": (32, 32), "classification": "focal"}),
}


def truth(name):
    """Sound boxes, and slots that are not valid full of nonsense."""
    boxes = np.array([[[0, 0, 32, 32], [4, 8, 12, 9]], [[1, 2, 3, 5], [np.nan, -9, np.inf, -99]]])
    if name == "yolo_v8_rotated":
        boxes = np.array([[[9, 9, 4, 60, 1], [0, 0, 1, 1, 0]], [[9, 9, 4, 2, 2], [np.nan] * 5]])
    labels, valid = np.array([[0, 2], [1, 99]], np.int32), np.array([[True, True], [True, False]])
    return boxes.astype(np.float32), labels, valid


def report(name, boxes, labels, valid):
    predictions, options = HEADS[name]
    head = functools.partial(getattr(detection, name.split(",")[0]), **options)
    return jaxloss.validate(head, *predictions, boxes, labels, valid=valid)


@pytest.mark.parametrize("name", HEADS)
def test_heads_name_bad_labels_and_boxes_of_valid_slots(name):
    boxes, labels, valid = truth(name)
    sound = report(name, boxes, labels, valid)
    assert sound.ok
    sound.throw()

    labels[1, 0] = CLASSES
    boxes[0, 1, 2] = boxes[0, 1, 0] if boxes.shape[-1] == 4 else 0  # without area
    found = report(name, boxes, labels, valid)
    assert found.count == 2
    with pytest.raises(ValueError) as error:
        found.throw()
    function = name.split(",")[0]
    assert f"jaxloss.detection.{function}: `labels` is 3 at index (1, 0)" in str(error.value)
    assert f"jaxloss.detection.{function}: `boxes` is {boxes[0, 1, 2]} at index (0, 1, 2)" in str(
        error.value
    )


@pytest.mark.parametrize("dtype, classes", [("int8", 200), ("uint8", 300), ("uint32", 3)])
def test_classes_that_the_dtype_of_the_labels_does_not_hold(dtype, classes):
    """200 in int8 is -56, and 300 in uint8 is 44: below labels that are sound."""
    boxes, labels, valid = truth("retinanet")
    labels[0] = min(100, classes - 1)
    data = *dense(classes), boxes, labels.astype(dtype)
    assert jaxloss.validate(detection.retinanet, *data, valid=valid, anchors=ANCHORS).ok


def test_mask_set_names_bad_labels_of_valid_slots():
    _, labels, valid = truth("detr")
    data = jnp.zeros((2, 4, CLASSES + 1)), jnp.zeros((2, 4, 3, 3)), np.ones((2, 2, 6, 6), bool)
    check = functools.partial(jaxloss.validate, detection.mask_set, *data, key=jax.random.key(0))
    assert check(labels, valid=valid).ok
    labels[1, 0] = CLASSES
    with pytest.raises(ValueError, match=r"detection\.mask_set: `labels` is 3 at index \(1, 0\)"):
        check(labels, valid=valid).throw()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_of_255(dtype):
    """They are named, and the loss is NaN; in a slot that is not valid they reach nothing."""
    _, labels, valid = truth("detr")
    masks = np.ones((2, 2, 6, 6), dtype)
    masks[1, 1] = 255
    data = jnp.zeros((2, 4, CLASSES + 1)), jnp.zeros((2, 4, 3, 3)), masks, labels
    options = {"valid": valid, "key": jax.random.key(0), "points": 16}
    assert jaxloss.validate("mask_set", *data, **options).ok
    assert jnp.isfinite(detection.mask_set(*data, **options)[0])
    masks[0, 1, 2:] = 255
    found = jaxloss.validate("mask_set", *data, **options)
    assert found.count == 24
    with pytest.raises(ValueError, match=r"`masks` is 255(\.0)? at index \(0, 1, 2, 0\)"):
        found.throw()
    assert jnp.isnan(detection.mask_set(*data, **options)[0])


@pytest.mark.parametrize("name", HEADS)
def test_relative_boxes_get_a_hint(name):
    boxes, labels, valid = truth(name)
    assert "hint" not in str(report(name, boxes, labels, valid))
    boxes[0] = 0.5
    boxes[..., 2:4] = 0.75
    boxes[1, 0, :2] = 0
    assert "hint: all `boxes` lie in [0, 1]" in str(report(name, boxes, labels, valid))
    nothing = np.zeros_like(valid)
    assert "hint" not in str(report(name, boxes, labels, nothing))


def test_relative_boxes_in_an_image_of_size_one_get_no_hint():
    """As those who come from transformers leave them."""
    boxes, labels, valid = truth("detr")
    data = *dense(CLASSES + 1), boxes / 32, labels
    for size, hint in (((1, 1), False), ([[1, 1]] * 2, False), ((32, 32), True)):
        found = jaxloss.validate("detr", *data, image_size=size, valid=valid)
        assert found.ok
        assert ("hint: all `boxes` lie in [0, 1]" in str(found)) == hint


def test_predicted_boxes_in_pixels_get_a_hint():
    options = {"image_size": (32, 32), "valid": truth("detr")[2]}
    logits, predicted = dense(CLASSES + 1)
    for scale, hint in ((1, False), (32, True), (-1, True)):
        found = jaxloss.validate("detr", logits, scale * predicted, *truth("detr")[:2], **options)
        assert found.ok
        assert ("some `predicted_boxes` leave [0, 1]" in str(found)) == hint


def test_degrees_get_a_hint():
    boxes, labels, valid = truth("yolo_v8_rotated")
    boxes[0, 0, 4] = 45
    assert "angles of `boxes` are beyond" in str(report("yolo_v8_rotated", boxes, labels, valid))
    valid[0, 0] = False
    assert "hint" not in str(report("yolo_v8_rotated", boxes, labels, valid))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "retinanet"])
def test_boxes_outside_of_the_image(name):
    boxes, labels, valid = truth(name)
    place = 0 if boxes.shape[-1] == 5 else 3
    boxes[0, 0, place] = 32.5
    found = report(name, boxes, labels, valid)
    assert found.count == 1
    np.testing.assert_array_equal(found.findings[1].index, [0, 0, place])


def test_reports_leave_jit_and_come_by_name():
    boxes, labels, valid = truth("detr")
    labels[0, 0] = -1
    predictions, options = HEADS["detr"]
    check = jax.jit(functools.partial(jaxloss.validate, "detr", **options))
    with pytest.raises(ValueError, match="`labels` is -1 at index"):
        check(*predictions, boxes, labels, valid=valid).throw()


def test_what_a_head_raises_is_raised():
    boxes, labels, valid = truth("detr")
    with pytest.raises(ValueError, match="jaxloss.detection.detr: `valid`"):
        report("detr", boxes, labels, valid[:, :1])
