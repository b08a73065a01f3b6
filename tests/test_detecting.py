"""The code and the claims of docs/detecting.md."""

import contextlib
import functools
import io
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from scipy.optimize import linear_sum_assignment

from jaxloss import detection, geometry
from tests.compiling import quick_jit
from tests.detection.scenes import boxes as make_boxes
from tests.detection.scenes import waves

nnx = pytest.importorskip("flax.nnx")

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "detecting.md").read_text()
BLOCKS = re.findall(r"```(python|text)\n(.*?)```", PAGE, re.DOTALL)
IMAGES, SLOTS, CLASSES, SIDE = 4, 3, 3, 32
VALID = np.array([[True, False, True], [False] * 3, [True] * 3, [False, True, False]])


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Users promote ranks and types; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def page():
    """The names that the page's code defines, and what it prints."""
    found, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for kind, code in BLOCKS:
            if kind == "python":
                exec(compile(code, "docs/detecting.md", "exec"), found)
    return found, printed.getvalue()


def recipe(name):
    return page()[0][name]


def truth():
    box, label = make_boxes(IMAGES, SLOTS, (SIDE, SIDE), 1, least=9.0)
    return box.astype(np.float32), (label % CLASSES).astype(np.int32), VALID


def queries(classes=CLASSES + 1, count=6, images=IMAGES):
    wide = np.array([0.5, 0.5, 0.8, 0.8]) + waves((images, count, 4), 1, 0.1)
    return waves((images, count, classes), 0).astype(np.float32), wide.astype(np.float32)


def assert_close(found, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected
    )


def test_the_page_prints_what_it_says():
    assert page()[1] == "".join(text for kind, text in BLOCKS if kind == "text")


def test_ragged_targets_are_padded():
    samples = [
        (np.zeros((8, 8, 3)), [[0, 0, 4, 4], [1, 2, 3, 5]], [2, 1]),
        (np.ones((8, 8, 3)), [], []),
    ]
    images, box, label, valid = recipe("collate")(samples, 3)
    assert images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(valid, [[True, True, False], [False] * 3])
    np.testing.assert_array_equal(box[0, :2], samples[0][1])
    np.testing.assert_array_equal(label[0], [2, 1, 0])
    with pytest.raises(ValueError, match="broadcast"):
        recipe("collate")(samples, 1)


def test_a_network_learns():
    """The parts add up to the total; the boxes of one batch are found after some steps."""
    rng = np.random.default_rng(0)
    box = np.array([[4.0, 4, 20, 28]], np.float32), np.array([[16.0, 8, 30, 30]], np.float32)
    samples = [(rng.normal(size=(32, 32, 3)).astype(np.float32), b, [i]) for i, b in enumerate(box)]
    images, *true = recipe("collate")(samples, 2)
    model = recipe("Detector")(CLASSES, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    totals = []
    for _ in range(60):
        total, parts = recipe("train_step")(model, optimizer, images, *true)
        totals.append(total)
    np.testing.assert_allclose(total, sum(parts.values()), rtol=1e-6)
    assert totals[-1] < 0.5 * totals[0]
    found, scores, labels, valid = recipe("predict")(model, images)
    assert found.shape == (2, 100, 4)
    assert valid[:, 0].all()
    np.testing.assert_array_equal(labels[:, 0], [0, 1])
    assert (geometry.iou(found[:, 0], np.concatenate(box)) > 0.6).all()
    assert (scores[valid] > 0.05).all()


# Decoders give the boxes that their heads compare: with those as truth, boxes cost nothing.


def _one_truth(decoded, place):
    """The box that one place of each image predicts, as the only target."""
    return jnp.asarray(decoded)[:, place : place + 1]


def _as_truth(head, decoded, place):
    label, valid = jnp.zeros((len(decoded), 1), jnp.int32), jnp.ones((len(decoded), 1), bool)
    return head(_one_truth(decoded, place), label, valid=valid)[1]


def test_decoded_boxes_of_fcos():
    points = detection.grid_points([(1, 1)], [8])
    x = [waves((2, 1, n), n).astype(np.float32) for n in (CLASSES, 4)]
    x = x[0], np.exp(x[1]) + 0.2, x[0][..., 0]
    places = {"points": points, "strides": jnp.full(1, 8.0)}
    boxes, scores = recipe("decode_fcos")(*x, **places)
    assert scores.shape == (2, 1, CLASSES)
    head = functools.partial(detection.fcos, *x, **places, center_radius=None)
    assert abs(_as_truth(head, boxes, 0)["box"]) < 1e-5


def test_decoded_boxes_of_retinanet():
    anchors = detection.grid_anchors([(2, 2)], [16], [16], [1.0], [1.0])
    x = [waves((2, 4, n), n, 0.2).astype(np.float32) for n in (CLASSES, 4)]
    boxes, _ = recipe("decode_retinanet")(*x, anchors=anchors)
    head = functools.partial(detection.retinanet, *x, anchors=anchors, positive_iou=0.6)
    assert abs(_as_truth(head, boxes, 3)["box"]) < 1e-5


def test_decoded_boxes_of_yolo_v8():
    bins, grids, strides = 8, [(4, 4), (2, 2)], (8, 16)
    x = [
        waves((2, *grid, 4 * bins + CLASSES), i, 3.0).astype(np.float32)
        for i, grid in enumerate(grids)
    ]
    boxes, scores = recipe("decode_yolo_v8")(x, strides=strides, reg_max=bins)
    assert boxes.shape == (2, 20, 4)
    assert scores.shape == (2, 20, CLASSES)
    head = functools.partial(detection.yolo_v8, x, strides=strides, reg_max=bins, top_k=1)
    assert abs(_as_truth(head, boxes, 5)["box"]) < 1e-4


def test_decoded_boxes_of_yolo_v8_rotated():
    grid, stride = (4, 4), 8.0
    distances = np.exp(waves((2, *grid, 4), 2, 0.4)).astype(np.float32)
    x = np.concatenate([distances, waves((2, *grid, CLASSES), 1)], -1).astype(np.float32)
    angles = waves((2, *grid), 3, 1.0).astype(np.float32)
    points = detection.grid_points([grid], [stride])
    flat = distances.reshape(2, 16, 4), angles.reshape(2, 16)
    boxes = recipe("decode_rotated")(*flat, points, strides=jnp.full(16, stride))
    options = {"strides": (stride,), "reg_max": 1, "top_k": 1}
    head = functools.partial(detection.yolo_v8_rotated, [x], [angles], **options)
    parts = _as_truth(head, boxes, 6)
    assert abs(parts["box"]) < 1e-3
    assert abs(parts["angle"]) < 1e-5


def test_decoded_boxes_of_yolo_v5():
    strides, anchors = (8, 16), [[[12.0, 14], [20, 16]], [[28.0, 24], [24, 36]]]
    x = [waves((2, 2, *grid, 5 + CLASSES), i, 0.2) for i, grid in enumerate([(4, 4), (2, 2)])]
    x = [level.astype(np.float32) for level in x]
    boxes, scores = recipe("decode_yolo_v5")(x, anchors=anchors, strides=strides)
    assert boxes.shape == (2, 40, 4)
    assert scores.shape == (2, 40, CLASSES)

    def objectness(place):
        """How well the prediction of one place fits: 1 where it is the truth."""
        logits = [jnp.asarray(level) for level in x]
        options = {"anchors": anchors, "strides": strides}
        label, valid = jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1), bool)

        def part(logits):
            true = _one_truth(boxes, place), label
            return detection.yolo_v5(logits, *true, valid=valid, **options)[1]["objectness"]

        slopes = jax.grad(part)(logits)
        counts = [2 * 16, 2 * 4]
        factors = {0: 4.0, 1: 1.0}
        found = [
            (jax.nn.sigmoid(level[..., 4]) - slope[..., 4] * count / factors[i]).reshape(2, -1)
            for i, (level, slope, count) in enumerate(zip(logits, slopes, counts, strict=True))
        ]
        return jnp.concatenate(found, 1)[:, place]

    np.testing.assert_allclose(objectness(5), 1, rtol=1e-5)


def test_decoded_boxes_of_detr():
    for classification in ("softmax", "focal"):
        logits, predicted = queries(CLASSES + (classification == "softmax"))
        decode = functools.partial(recipe("decode_detr"), classification=classification)
        boxes, scores = decode(logits, predicted, image_size=(24, 40))
        assert scores.shape == (*logits.shape[:2], CLASSES)
        options = {"image_size": (24, 40), "classification": classification, "cost_l1": 100}
        head = functools.partial(detection.detr, logits, predicted, **options)
        parts = _as_truth(head, boxes, 2)
        assert abs(parts["l1"]) < 1e-5
        assert abs(parts["giou"]) < 1e-5


# Sets


def test_layers_of_a_decoder():
    logits, predicted = queries()
    layers = [(logits / 2, predicted), (logits, predicted)]
    total, parts = recipe("decoder_loss")(layers, *truth(), image_size=(SIDE, SIDE))
    box, label, valid = truth()
    each = [
        detection.detr(*layer, box, label, valid=valid, image_size=(SIDE, SIDE)) for layer in layers
    ]
    assert_close(total, each[0][0] + each[1][0])
    assert_close(parts["l1"], each[0][1]["l1"] + each[1][1]["l1"])


def test_denoising_queries():
    """As if each group's better copies were matched to their slots, worse ones to nothing."""
    groups, (box, label, valid) = 2, truth()
    logits, predicted = queries(CLASSES, 2 * groups * SLOTS)
    options = {"image_size": (SIDE, SIDE), "classification": "focal"}
    total, parts = recipe("denoising_loss")(
        logits, predicted, box, label, valid, groups=groups, **options
    )
    slots = np.arange(SLOTS)
    better = np.concatenate([g * 2 * SLOTS + slots for g in range(groups)])
    found = np.take_along_axis(predicted, better[None, :, None], 1)
    true = np.tile(geometry.convert(box / SIDE, "xyxy", "cxcywh"), (1, groups, 1))
    mask = np.tile(valid, (1, groups))
    count = groups * valid.sum()
    assert_close(parts["l1"], 5 * (np.abs(found - true).sum(-1) * mask).sum() / count)
    hits = np.zeros(logits.shape)
    for image, query in zip(*np.nonzero(mask), strict=True):
        hits[image, better[query], label[image, query % SLOTS]] = 1
    p = 1 / (1 + np.exp(-logits.astype(float)))
    focal = hits * 0.25 * (1 - p) ** 2 * -np.log(p) + (1 - hits) * 0.75 * p**2 * -np.log(1 - p)
    assert_close(parts["classification"], focal.sum() / count)
    assert_close(total, sum(parts.values()))


def test_more_slots_than_queries_are_refused():
    logits, predicted = queries(count=2)
    box, label, valid = truth()
    with pytest.raises(ValueError, match="at most 2 slots"):
        detection.detr(logits, predicted, box, label, valid=valid, image_size=(SIDE, SIDE))


# Many devices, micro-batches

ANCHORS = detection.grid_anchors([(4, 4)], [8], [12], [1.0], [1.0])
IMAGE = waves((8, 16, 4), 6).astype(np.float32)
PARAMS = {"logits": waves((4, CLASSES), 7), "deltas": waves((4, 4), 8, 0.3)}
PARAMS = {name: x.astype(np.float32) for name, x in PARAMS.items()}


def apply(params, images):
    """A network's scores and offsets of the 16 anchors."""
    return images @ params["logits"], images @ params["deltas"]


def eight():
    box, label, valid = (np.concatenate([x, x]) for x in truth())
    return IMAGE, box, label, valid


def test_devices_see_the_whole_batch():
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    options = {"anchors": ANCHORS, "normalize": "batch"}
    found = recipe("in_shard_map")(apply, mesh, **options)(PARAMS, eight())

    def alone(params):
        images, *true, valid = eight()
        return detection.retinanet(*apply(params, images), *true, valid=valid, **options)

    assert_close(found, quick_jit(jax.value_and_grad(alone, has_aux=True))(PARAMS))


def halves(*arrays):
    return [x.reshape(2, -1, *x.shape[1:]) for x in arrays]


def uneven():
    """The first half has many boxes, the other one."""
    images, box, label, valid = eight()
    return images, box, label, np.concatenate([np.ones((4, SLOTS), bool), VALID[[1, 1, 1, 3]]])


def _retinanet(params, images, box, label, valid, **options):
    found = apply(params, images)
    return detection.retinanet(*found, box, label, valid=valid, anchors=ANCHORS, **options)[0]


def test_micro_batches_of_retinanet():
    batch, run = uneven(), quick_jit(jax.value_and_grad(_retinanet))
    micro = list(zip(*halves(*batch), strict=True))
    mean = jax.tree.map(lambda *x: sum(x) / 2, *[run(PARAMS, *m) for m in micro])
    assert_close(mean, run(PARAMS, *batch))

    whole = quick_jit(jax.value_and_grad(functools.partial(_retinanet, normalize="batch")))
    count = recipe("positives")(ANCHORS, batch[1], batch[3])
    part = quick_jit(jax.value_and_grad(functools.partial(_retinanet, normalizer=count)))
    added = jax.tree.map(lambda *x: sum(x), *[part(PARAMS, *m) for m in micro])
    assert_close(added, whole(PARAMS, *batch))


@pytest.mark.parametrize("classification", ["softmax", "focal"])
def test_micro_batches_of_detr(classification):
    _, box, label, valid = uneven()
    logits, predicted = queries(CLASSES + (classification == "softmax"), images=8)
    options = {"image_size": (SIDE, SIDE), "classification": classification}
    whole = detection.detr(logits, predicted, box, label, valid=valid, **options)[0]
    rest = {"count": valid.sum(), **options}
    micro = zip(*halves(logits, predicted, box, label, valid), strict=True)
    if classification == "softmax":
        added = sum(recipe("share_of_detr")(*m, images=8, **rest) for m in micro)
    else:
        head = functools.partial(detection.detr, normalizer=valid.sum(), **options)
        added = sum(head(*m[:-1], valid=m[-1])[0] for m in micro)
    assert_close(added, whole)


def test_predictions_of_all_micro_batches():
    """For heads without a `normalizer`; a mean of the parts is another number."""
    batch = uneven()
    points, units = detection.grid_points([(4, 4)], [8]), jnp.full(16, 8.0)

    def head(found, box, label, valid):
        logits, distances = found
        places = {"points": points, "strides": units}
        middle = logits[..., 0]
        return detection.fcos(
            logits, jnp.exp(distances), middle, box, label, valid=valid, **places
        )[0]

    def accumulated(params):
        images = halves(batch[0])[0]
        return head(recipe("predictions_of_batch")(apply, params, images), *batch[1:])

    def whole(params, images, *true):
        return head(apply(params, images), *true)

    expected = quick_jit(jax.value_and_grad(whole))(PARAMS, *batch)
    assert_close(quick_jit(jax.value_and_grad(accumulated))(PARAMS), expected)
    micro = [whole(PARAMS, *m) for m in zip(*halves(*batch), strict=True)]
    assert not np.allclose(np.mean(micro), expected[0], rtol=1e-2)


def test_totals_of_yolo_grow_with_the_batch():
    box, label, valid = truth()
    x = [waves((IMAGES, 4, 4, 4 * 4 + CLASSES), 1).astype(np.float32)]
    run = functools.partial(detection.yolo_v8, strides=(8,), reg_max=4)
    once = run(x, box, label, valid=valid)[0]
    twice = run(
        [np.concatenate(x * 2)],
        *(np.concatenate([a, a]) for a in (box, label)),
        valid=np.concatenate([valid, valid]),
    )[0]
    assert_close(twice, 2 * once)


# Other libraries


def test_running_mean_of_positives():
    box, label, valid = truth()
    logits, deltas = apply(PARAMS, IMAGE[:4])
    true = box, label, valid
    total, (parts, running) = recipe("detectron2_retinanet")(logits, deltas, *true, ANCHORS, 100.0)
    count = recipe("positives")(ANCHORS, box, valid)
    assert count > 1
    assert_close(running, 90 + 0.1 * count)
    options = {"anchors": ANCHORS, "box_loss": "smooth_l1", "beta": 0.1, "normalize": "batch"}
    _, whole = detection.retinanet(logits, deltas, box, label, valid=valid, **options)
    assert_close(parts, jax.tree.map(lambda part: part * count / running, whole))
    assert_close(total, sum(parts.values()))


def test_scenic():
    """Scenic's cost and terms, as its source has them, for each image by SciPy."""
    logits, predicted = queries()
    valid = np.array([[True, True, True], [True, False, False], [False] * 3, [True, True, False]])
    box = np.asarray(geometry.convert(truth()[0] / SIDE, "xyxy", "cxcywh")) * valid[..., None]
    labels = np.where(valid, truth()[1] + 1, 0)
    _, parts = recipe("scenic_detr")(logits, predicted, {"boxes": box, "labels": labels})

    log_p = np.asarray(jax.nn.log_softmax(logits))
    classes = giou = weights = 0.0
    for x, b, true, label in zip(log_p, predicted, box, labels, strict=True):
        corners = [geometry.convert(a, "cxcywh", "xyxy") for a in (b, true)]
        overlap = np.asarray(geometry.pairwise_giou(*corners))
        apart = np.abs(b[:, None] - true[None]).sum(-1)
        cost = (5 * apart - np.exp(x)[:, label] - 2 * overlap)[:, label > 0]
        rows, columns = linear_sum_assignment(cost)
        target = np.zeros(len(x), int)
        target[rows] = label[label > 0][columns]
        weight = np.where(target == 0, 0.1, 1.0)
        classes -= (weight * x[np.arange(len(x)), target]).sum()
        weights += weight.sum()
        giou += (1 - overlap[:, label > 0][rows, columns]).sum()
    assert_close(parts["classification"], classes / weights)
    assert_close(parts["giou"], 2 * giou / (labels > 0).sum())
