"""Heads and assigners on anchors and points against the numbers of their originals."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import detection
from tests.compiling import quick_jit
from tests.detection.scenes import projections, waves

FILE = pathlib.Path(__file__).parents[1] / "goldens" / "detection_anchors.json"
ROWS = json.loads(FILE.read_text())["detection"]
HYPER = {  # yolov5's names
    "fl_gamma": "gamma",
    "label_smoothing": "label_smoothing",
    "gr": "objectness_ratio",
}
MATCHING = {"positive": "positive_iou", "negative": "negative_iou", "low_quality": "low_quality"}


def rows(*functions):
    chosen = [row for row in ROWS if row["function"] in functions]
    return pytest.mark.parametrize(
        "row", chosen, ids=[f"{row['function']}-{row['case']}" for row in chosen]
    )


in_both_dtypes = pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)


def targets(row, dtype):
    """Boxes, labels and `valid`; NaN and impossible labels in the slots that are not valid."""
    boxes, labels = np.array(row["boxes"], dtype), np.array(row["labels"], np.int32)
    valid = np.arange(boxes.shape[1]) < np.array(row["counts"])[:, None]
    boxes[~valid], labels[~valid] = np.nan, 77
    return boxes, labels, valid


def predictions(row, dtype):
    if row["function"] == "yolo_v5":
        made = [waves(shape, i) for i, shape in enumerate(row["shapes"])]
    else:
        images = len(row["counts"])
        places = len(row["anchors"] if row["function"] == "retinanet" else row["points"])
        made = [
            waves((images, places, row["classes"]), 0) - 2,
            waves((images, places, 4), 1, 1.0),
            waves((images, places), 2),
        ]
        if row["function"] == "retinanet":
            made.pop()
        else:
            made[1] = np.exp(made[1])
    return [jnp.asarray(x, dtype) for x in made]


def head(row, dtype):
    """The head as a function of a list of predictions and of the targets."""
    name = row["function"]
    if name == "yolo_v5":
        options = {HYPER[key]: value for key, value in row["hyper"].items()}
        options |= {"anchors": np.array(row["anchors"], dtype), "strides": row["strides"]}
        if len(row["strides"]) == 2:
            options["balance"] = [4.0, 1.0]
        return lambda x, boxes, labels, valid: detection.yolo_v5(
            x, boxes, labels, valid=valid, **options
        )
    if name == "retinanet":
        options = {MATCHING[key]: value for key, value in row["matching"].items()}
        options |= {"box_loss": row["box_loss"], "delta_weights": row["weights"]}
        options["anchors"] = np.array(row["anchors"], dtype)
    else:
        points = np.array(row["points"], dtype)
        options = row["options"] | {"points": points[:, :2], "strides": points[:, 2]}
        if "size_ranges" in row:
            options["size_ranges"] = np.array(row["size_ranges"], dtype)
    function = getattr(detection, name)
    return lambda x, boxes, labels, valid: function(*x, boxes, labels, valid=valid, **options)


@rows("yolo_v5", "retinanet", "fcos")
@in_both_dtypes
def test_heads(row, dtype):
    """Parts and gradients, compiled once, both in the dtype of the original and in float32."""
    with jax.enable_x64(dtype == "float64"):
        run = quick_jit(jax.value_and_grad(head(row, dtype), has_aux=True))
        (total, parts), gradients = run(predictions(row, dtype), *targets(row, dtype))
    assert total.dtype == dtype
    np.testing.assert_allclose(total, sum(row["parts"].values()), rtol=1e-5)
    assert set(parts) == set(row["parts"])
    for name, part in parts.items():
        np.testing.assert_allclose(part, row["parts"][name], rtol=1e-5, err_msg=name)
    scale = np.abs(row["gradient"]).max()
    np.testing.assert_allclose(
        projections(gradients), row["gradient"], rtol=1e-5, atol=1e-5 * scale
    )


def assert_matches(found, matches):
    """Index for index; -1 is background, -2 ignored."""
    matches = np.array(matches)
    np.testing.assert_array_equal(
        np.where(found.foreground, found.index, -1), np.maximum(matches, -1)
    )
    np.testing.assert_array_equal(found.ignore, matches == -2)
    np.testing.assert_array_equal(found.weight, found.foreground)
    assert found.index.dtype == np.int32


@rows("retinanet")
@in_both_dtypes
def test_assignment_by_iou(row, dtype):
    with jax.enable_x64(dtype == "float64"):
        boxes, _, valid = targets(row, dtype)
        options = {MATCHING[key]: value for key, value in row["matching"].items()}
        found = detection.assign_by_iou(
            np.array(row["anchors"], dtype), boxes, valid=valid, **options
        )
        assert found.weight.dtype == dtype
    assert_matches(found, row["matches"])


@rows("assign_atss")
@in_both_dtypes
def test_atss(row, dtype):
    with jax.enable_x64(dtype == "float64"):
        boxes, _, valid = targets(row, dtype)
        anchors = np.array(row["anchors"], dtype)
        found = detection.assign_atss(
            anchors, boxes, valid=valid, level_sizes=row["level_sizes"], top_k=row["top_k"]
        )
    assert_matches(found, row["matches"])
