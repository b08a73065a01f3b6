"""Heads and assigners that look at the predictions against the numbers of their originals."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import detection
from jaxloss.detection import _detr, _sampling
from jaxloss.detection._targets import read_targets
from tests.compiling import quick_jit
from tests.detection.scenes import projections, waves

FILE = pathlib.Path(__file__).parents[1] / "goldens" / "detection_sets.json"
ROWS = json.loads(FILE.read_text())["rows"]
SIZE, STRIDES = (64, 96), (8, 16, 32)
GRIDS = [(SIZE[0] // s, SIZE[1] // s) for s in STRIDES]
POINTS = np.asarray(detection.grid_points(GRIDS, STRIDES))
UNITS = np.repeat(np.array(STRIDES, np.float32), [rows * columns for rows, columns in GRIDS])


def rows(*functions):
    chosen = [row for row in ROWS if row["function"] in functions]
    names = [f"{row['function']}-{row['case']}" for row in chosen]
    return pytest.mark.parametrize("row", chosen, ids=names)


in_both_dtypes = pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)


def targets(row, dtype):
    """Boxes, labels and `valid`; NaN and impossible labels in the slots that are not valid."""
    boxes, labels = np.array(row["boxes"], dtype), np.array(row["labels"], np.int32)
    valid = np.arange(boxes.shape[1]) < np.array(row["counts"])[:, None]
    boxes[~valid], labels[~valid] = np.nan, 77
    return boxes, labels, valid


def levels(row, channels, phase, size, shift=0.0):
    shapes = [(len(row["counts"]), *grid, *channels) for grid in GRIDS]
    return [waves(shape, phase + i, size) + shift for i, shape in enumerate(shapes)]


def yolo(row, dtype):
    """Predictions, and the head as a function of them and of the targets."""
    bins = row["reg_max"]
    options = {"strides": STRIDES, "reg_max": bins}
    x = levels(row, (4 * bins + row["classes"],), 0, 1.5, 1.0 if bins == 1 else 0.0)
    if row["function"] == "yolo_v8":
        return x, lambda x, *y, valid: detection.yolo_v8(x, *y, valid=valid, **options)
    head = lambda x, *y, valid: detection.yolo_v8_rotated(x[:3], x[3:], *y, valid=valid, **options)
    return x + levels(row, (), 5, 1.0), head


def queries(row, dtype):
    images, count, _ = row["shape"]
    options = row["options"] | {"image_size": SIZE}
    middle = np.array([0.5, 0.5, 1.0, 1.0])
    x = [waves(row["shape"], 0), middle + waves((images, count, 4), 1, 0.1)]
    known = row.get("known", 0)

    def head(x, boxes, labels, *, valid):
        true = boxes, labels
        total, parts = detection.detr(*(a[:, known:] for a in x), *true, valid=valid, **options)
        if known:
            slot = jnp.arange(known)[None] % 8
            noised = slot < valid.sum(1, keepdims=True)
            weight = noised.astype(dtype)
            given = detection.Assignment(
                jnp.where(noised, slot, 0), noised, weight, jnp.zeros_like(noised)
            )
            more, others = detection.detr(
                *(a[:, :known] for a in x),
                *true,
                valid=valid,
                assignment=given,
                normalizer=2 * valid.sum(),
                **options,
            )
            total, parts = total + more, jax.tree.map(jnp.add, parts, others)
        return total, parts

    return x, head


def agree(row, dtype, x, head, true):
    """Parts and gradients, compiled once."""
    with jax.enable_x64(dtype == "float64"):
        run = quick_jit(
            jax.value_and_grad(lambda x, *y, valid: head(x, *y, valid=valid), has_aux=True)
        )
        x = [jnp.asarray(a, dtype) for a in x]
        (total, parts), gradients = run(x, *true[:-1], valid=true[-1])
    assert total.dtype == dtype
    np.testing.assert_allclose(total, sum(row["parts"].values()), rtol=1e-5)
    assert set(parts) == set(row["parts"])
    for name, part in parts.items():
        np.testing.assert_allclose(part, row["parts"][name], rtol=1e-5, atol=1e-12, err_msg=name)
    scale = np.abs(row["gradient"]).max()
    found = projections(gradients)
    np.testing.assert_allclose(found, row["gradient"], rtol=1e-5, atol=1e-5 * scale)


@rows("yolo_v8", "yolo_v8_rotated", "detr")
@in_both_dtypes
def test_heads(row, dtype):
    made = (queries if row["function"] == "detr" else yolo)(row, dtype)
    agree(row, dtype, *made, targets(row, dtype))


@rows("detr")
@in_both_dtypes
def test_matching_of_detr(row, dtype):
    """Index for index."""
    if "index" not in row:
        pytest.skip("denoising queries are not matched")
    options = row["options"]
    images, _, classes = row["shape"]
    softmax = options["classification"] == "softmax"
    count = {"images": images, "classes": classes - softmax}

    def match(scores, predicted, *true):
        truth = read_targets(*true, **count, dtype=scores.dtype)
        truth = truth._replace(boxes=_detr.relative(truth, jnp.asarray(SIZE, dtype)))
        factors = options.get("cost_class", 1.0), 5.0, 2.0
        groups = options.get("groups", 1)
        return _detr.match(scores, predicted, truth, factors, softmax=softmax, groups=groups)

    with jax.enable_x64(dtype == "float64"):
        x = [jnp.asarray(a, dtype) for a in queries(row, dtype)[0]]
        found = quick_jit(match)(*x, *targets(row, dtype))
    np.testing.assert_array_equal(np.where(found.foreground, found.index, -1), row["index"])


@rows("mask_set")
@in_both_dtypes
def test_mask_set(row, dtype, monkeypatch):
    """At the points of the original: any that depend on nothing but their number."""

    def spots(key, images, shapes, dtype):
        points = [0.5 + 0.5 * np.sin(waves((shape[-1], 2), shape[-1], 40.0)) for shape in shapes]
        spread = [(images, *shape, 2) for shape in shapes]
        return [
            jnp.broadcast_to(jnp.asarray(x, dtype), s) for x, s in zip(points, spread, strict=True)
        ]

    monkeypatch.setattr(_sampling, "anywhere", spots)
    logits, maps, masks = row["shapes"]
    x = [waves(logits, 0), waves(maps, 1, 3.0)]
    true = waves(masks, 2) > 0.5
    valid = np.arange(masks[1]) < np.array(row["counts"])[:, None]
    labels = np.where(valid, np.array(row["labels"], np.int32), -3)
    true = np.where(valid[..., None, None], true, np.nan).astype(dtype)

    def head(x, *y, valid):
        key = jax.random.key(0)
        return detection.mask_set(*x, *y, valid=valid, key=key, points=row["points"])

    agree(row, dtype, x, head, (true, labels, valid))


@rows("yolo_v8")
@in_both_dtypes
def test_task_alignment(row, dtype):
    """Index for index, of the points with a weight: others are a matter of memory order there."""
    (x, _), bins = yolo(row, dtype), row["reg_max"]
    x = np.concatenate([a.reshape(len(a), -1, a.shape[-1]) for a in x], 1)
    distances, logits = x[..., : 4 * bins].reshape(*x.shape[:2], 4, bins), x[..., 4 * bins :]
    exp = np.exp(distances)
    mean = (exp * np.arange(bins)).sum(-1) / exp.sum(-1) if bins > 1 else distances[..., 0]
    sides = mean * UNITS[None, :, None]
    predicted = np.concatenate([POINTS - sides[..., :2], POINTS + sides[..., 2:]], -1)
    with jax.enable_x64(dtype == "float64"):
        data = [jnp.asarray(a, dtype) for a in (1 / (1 + np.exp(-logits)), predicted, POINTS)]
        boxes, labels, valid = targets(row, dtype)
        assign = quick_jit(detection.assign_task_aligned)
        found = assign(*data, boxes, labels, valid=valid, minimum_side=16.0)
        assert found.weight.dtype == dtype
    weighty = np.array(row["weight"]) > 1e-12
    np.testing.assert_array_equal(
        np.where(weighty, found.index, -1), np.where(weighty, row["index"], -1)
    )
    assert found.foreground[weighty].all()
    np.testing.assert_allclose(found.weight, row["weight"], rtol=1e-4, atol=1e-6)


@rows("assign_sim_ota")
@in_both_dtypes
def test_sim_ota(row, dtype):
    """Index for index."""
    images, places = len(row["counts"]), len(POINTS)
    sides = 1.5 * np.exp(waves((images, places, 4), 1, 0.6)) * UNITS[None, :, None]
    predicted = np.concatenate([POINTS - sides[..., :2], POINTS + sides[..., 2:]], -1)
    scores = 1 / (1 + np.exp(-waves((images, places, row["classes"]), 0)))
    options = dict(row["options"])
    if "candidate_topk" in options:
        options["candidates"] = options.pop("candidate_topk")
    with jax.enable_x64(dtype == "float64"):
        data = [jnp.asarray(a, dtype) for a in (scores, predicted, POINTS)]
        boxes, labels, valid = targets(row, dtype)
        found = detection.assign_sim_ota(
            *data, boxes, labels, valid=valid, strides=UNITS.astype(dtype), **options
        )
        assert found.weight.dtype == dtype
    np.testing.assert_array_equal(np.where(found.foreground, found.index, -1), row["index"])
    np.testing.assert_allclose(found.weight, row["weight"], rtol=1e-5, atol=1e-7)
