"""What the heads and assigners on anchors and points promise beside their formulas."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxloss import detection
from tests.compiling import quick_jit
from tests.detection.scenes import boxes, waves

IMAGES, SLOTS, CLASSES, GRID = 4, 3, 3, (4, 4)
POINTS = np.asarray(detection.grid_points([GRID], [8]))
ANCHORS = np.asarray(detection.grid_anchors([GRID], [8], [16], ratios=[0.5, 2], scales=[1]))
SHAPES = np.array([[[12.0, 12.0], [24.0, 10.0]]], np.float32)
HEADS = {
    "yolo_v5": lambda x, *y, **o: detection.yolo_v5(
        x, *y, anchors=SHAPES, strides=[8], balance=[1.0], **o
    ),
    "retinanet": lambda x, *y, **o: detection.retinanet(*x, *y, anchors=ANCHORS, **o),
    "fcos": lambda x, *y, **o: detection.fcos(
        *x, *y, points=POINTS, strides=np.full(len(POINTS), 8, np.float32), **o
    ),
}
BATCH = PartitionSpec("batch")
every_head = pytest.mark.parametrize("name", HEADS)


def predictions(name, dtype=jnp.float32):
    sizes = {
        "yolo_v5": [(2, *GRID, 5 + CLASSES)],
        "retinanet": [(len(ANCHORS), CLASSES), (len(ANCHORS), 4)],
        "fcos": [(len(POINTS), CLASSES), (len(POINTS), 4), (len(POINTS),)],
    }[name]
    made = [waves((IMAGES, *size), i) for i, size in enumerate(sizes)]
    if name == "fcos":
        made[1] = np.exp(made[1])
    return [jnp.asarray(x, dtype) for x in made]


def targets():
    """Boxes of four images, the second without any, with slots that are not valid between them."""
    box, label = boxes(IMAGES, SLOTS, (32, 32), 1, least=9.0)
    valid = np.array([[True, False, True], [False] * 3, [True] * 3, [False, True, False]])
    return jnp.asarray(box, jnp.float32), jnp.asarray(label % CLASSES, jnp.int32), jnp.array(valid)


@functools.cache
def program(name):
    """Total, parts and gradients, compiled once for all tests."""

    def loss(x, box, label, valid):
        return HEADS[name](x, box, label, valid=valid)

    return quick_jit(jax.value_and_grad(loss, has_aux=True))


@every_head
def test_slots_that_are_not_valid_reach_nothing(name):
    box, label, valid = targets()
    expected = program(name)(predictions(name), *targets())
    for junk, id_ in ((np.nan, -7), (np.inf, 10**6)):
        other = jnp.where(valid[..., None], box, junk), jnp.where(valid, label, id_)
        found = program(name)(predictions(name), *other, valid)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    inverted = jnp.where(valid[..., None], box, box[..., ::-1])
    found = program(name)(predictions(name), inverted, label, valid)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    (total, parts), _ = expected
    np.testing.assert_allclose(total, sum(parts.values()), rtol=1e-6)
    assert min(parts.values()) > 0


@every_head
def test_no_targets(name):
    """Only what background costs is left, finite, with a zero gradient of the boxes."""
    box, label, valid = targets()
    (total, parts), gradients = program(name)(
        predictions(name), box * jnp.nan, label, jnp.zeros_like(valid)
    )
    assert parts.pop("box") == 0
    background = "objectness" if name == "yolo_v5" else "classification"
    assert total == parts.pop(background) > 0
    assert set(map(float, parts.values())) <= {0}
    assert all(np.isfinite(g).all() for g in gradients)
    shapes = jax.eval_shape(
        HEADS[name], predictions(name), box[:, :0], label[:, :0], valid=valid[:, :0]
    )
    assert shapes[0].shape == ()


@every_head
@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_a_label_outside_the_classes_is_nan(name, wrong):
    box, label, valid = targets()
    (total, parts), _ = program(name)(predictions(name), box, label.at[0, 2].set(wrong), valid)
    assert np.isnan([total, *parts.values()]).any()
    assert np.isnan(total)


@every_head
def test_forward_and_mapped(name):
    """The directional derivative is that of the gradient; `vmap` is a loop."""
    x, y = predictions(name), targets()
    (total, _), gradients = program(name)(x, *y)
    direction = [jnp.asarray(waves(p.shape, 5), p.dtype) for p in x]

    def loss(x, box, label, valid):
        return HEADS[name](x, box, label, valid=valid)[0]

    @quick_jit
    def run(x, y, direction):
        forward = jax.jvp(lambda x: loss(x, *y), (x,), (direction,))
        stacked = jax.tree.map(lambda a: jnp.stack([a, a[::-1]]), (x, y))
        return forward, jax.vmap(lambda x, y: loss(x, *y))(*stacked)

    (value, slope), mapped = run(x, y, direction)
    expected = sum(jnp.vdot(g, d) for g, d in zip(gradients, direction, strict=True))
    np.testing.assert_allclose(value, total, rtol=1e-6)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
    np.testing.assert_allclose(mapped, [total, total], rtol=1e-5)


@every_head
def test_half_precision_is_computed_in_float32(name):
    x, y = predictions(name, jnp.bfloat16), targets()
    (total, _), gradients = program(name)(x, *y)
    wide = [p.astype(jnp.float32) for p in x]
    (expected, _), slopes = program(name)(wide, *y)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(gradient.astype(jnp.float32), slope, rtol=1e-2, atol=1e-6)


@every_head
def test_sharded_over_devices(name):
    """`axis_name` makes total, parts and the gradient of what is shared the whole batch's."""
    x, y = predictions(name), targets()

    def loss(scale, x, box, label, valid, axis_name):
        return HEADS[name]([p * scale for p in x], box, label, valid=valid, axis_name=axis_name)

    @quick_jit
    @functools.partial(
        jax.shard_map,
        mesh=jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,)),
        in_specs=(PartitionSpec(), BATCH, BATCH, BATCH, BATCH),
        out_specs=PartitionSpec(),
    )
    def sharded(scale, *data):
        whole = functools.partial(loss, axis_name="batch")
        return jax.value_and_grad(whole, has_aux=True)(scale, *data)

    (total, parts), slope = sharded(jnp.float32(1), x, *y)
    (expected, expected_parts), gradients = program(name)(x, *y)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for key, part in parts.items():
        np.testing.assert_allclose(part, expected_parts[key], rtol=1e-5)
    along = sum(jnp.vdot(g, p) for g, p in zip(gradients, x, strict=True))
    np.testing.assert_allclose(slope, along, rtol=1e-4)


@every_head
def test_wide_types_and_callbacks_are_nowhere(name):
    x, y = predictions(name), targets()
    with jax.enable_x64(True):
        run = jax.grad(lambda x, y: HEADS[name](x, *y[:2], valid=y[2])[0])
        program = str(jax.make_jaxpr(run)(x, y))
    assert not [line for line in program.splitlines() if re.search(r"f64\[\d", line)]
    assert "callback" not in program


def test_normalizers_of_retinanet():
    """The batch's, and a running one; both parts are divided by them."""
    x, (box, label, valid) = predictions("retinanet"), targets()

    def loss(**options):
        return HEADS["retinanet"](x, box, label, valid=valid, **options)[1]

    found = detection.assign_by_iou(ANCHORS, box, valid=valid)
    positives = float(found.foreground.sum())
    batch, given = quick_jit(lambda: (loss(normalize="batch"), loss(normalizer=10.0)))()
    for name, part in batch.items():
        np.testing.assert_allclose(10 * given[name], part * positives, rtol=1e-5)


def error(name, words, kind=ValueError, **changes):
    return pytest.param(name, words, kind, changes, id=f"{name}-{words}")


@pytest.mark.parametrize("zero", [0, np.float32(0), jnp.zeros(())], ids=["int", "NumPy", "JAX"])
def test_a_gamma_of_0_is_the_cross_entropy_whatever_number_it_is(zero):
    x, fixed = predictions("yolo_v5"), {"anchors": SHAPES, "strides": [8], "balance": [1.0]}
    box, label, valid = targets()
    plain = detection.yolo_v5(x, box, label, valid=valid, **fixed)[0]
    np.testing.assert_allclose(
        detection.yolo_v5(x, box, label, valid=valid, gamma=zero, **fixed)[0], plain, rtol=1e-6
    )


@pytest.mark.parametrize(
    "name, words, kind, changes",
    [
        error("yolo_v5", "anchors", anchors=np.ones((2, 2, 2))),
        error("yolo_v5", "anchors.*4 anchors|anchors.*2 anchors", anchors=np.ones((1, 4, 2))),
        error("yolo_v5", "strides", strides=[8, 16]),
        error("yolo_v5", "strides", strides=[0]),
        error("yolo_v5", "strides", strides=[float("nan")]),
        error("yolo_v5", "balance", balance=[4, 1, 0.4]),
        error("yolo_v5", "box_loss", box_loss="siou"),
        error("retinanet", "anchors", anchors=np.ones((7, 4))),
        error("retinanet", "negative_iou", negative_iou=0.6),
        error("retinanet", "normalize", normalize="device"),
        error("retinanet", "box_loss", box_loss="l2"),
        error("retinanet", "low_quality", low_quality="no"),
        error("fcos", "points", points=np.ones((7, 2))),
        error("fcos", "strides", strides=np.ones(7)),
        error("fcos", "size_ranges", size_ranges="level"),
        error("fcos", "size_ranges", size_ranges=np.ones((7, 2))),
        error("fcos", "center_radius", center_radius=0),
        *(error(name, "valid", valid=np.ones((IMAGES, 2), bool)) for name in HEADS),
        *(error(name, "valid", TypeError, valid=np.ones((IMAGES, SLOTS))) for name in HEADS),
        *(error(name, "labels", TypeError, labels=np.ones((IMAGES, SLOTS))) for name in HEADS),
        *(error(name, "labels", labels=np.ones((IMAGES, 1), np.int32)) for name in HEADS),
        *(error(name, "boxes", boxes=np.ones((1, SLOTS, 4))) for name in HEADS),
    ],
)
def test_bad_input_raises_while_tracing(name, words, kind, changes):
    box, label, valid = targets()
    keywords = {
        "yolo_v5": {"anchors": SHAPES, "strides": [8], "balance": [1.0]},
        "retinanet": {"anchors": ANCHORS},
        "fcos": {"points": POINTS, "strides": np.full(len(POINTS), 8.0)},
    }[name]
    keywords |= {"boxes": box, "labels": label, "valid": valid} | changes
    x = predictions(name)
    arguments = [x] if name == "yolo_v5" else x
    with pytest.raises(kind, match=rf"jaxloss\.detection\.{name}: `(?s:.)*{words}") as caught:
        getattr(detection, name)(
            *arguments, keywords.pop("boxes"), keywords.pop("labels"), **keywords
        )
    assert "expected" in str(caught.value)


def test_fcos_takes_the_smaller_of_boxes_that_hardly_differ():
    """torchvision's `1e8 - area` has steps of 8 square pixels, and drops what is above 1e8."""
    points, strides = np.array([[500.0, 500.0]], np.float32), np.array([100.0], np.float32)
    box = jnp.array([[[0, 0, 1000, 1000.002], [0, 0, 1000, 1000], [-6e3, -6e3, 7e3, 7e3]]])
    logits, label = jnp.zeros((1, 1, 3)), jnp.array([[0, 1, 2]])

    @quick_jit
    @jax.grad
    def slope(x, valid):
        distances, centerness = jnp.ones((1, 1, 4)), jnp.zeros((1, 1))
        data = x, distances, centerness, box, label
        return detection.fcos(*data, valid=valid, points=points, strides=strides)[0]

    for valid, expected in (((True, True, True), 1), ((False, False, True), 2)):
        gradient = slope(logits, jnp.array([valid]))[0, 0]
        assert np.argmin(gradient) == expected
        assert (gradient < 0).sum() == 1


def test_a_box_that_overlaps_no_anchor_has_none():
    """torchvision makes all anchors positive for it."""
    outside = jnp.array([[[900.0, 900.0, 950.0, 950.0], [3.0, 3.0, 4.0, 4.0]]])
    found = detection.assign_by_iou(ANCHORS, outside, valid=jnp.array([[True, False]]))
    assert not found.foreground.any()
    assert not found.ignore.any()
    found = detection.assign_by_iou(ANCHORS, outside, valid=jnp.array([[True, True]]))
    assert 0 < found.foreground.sum() < 10
    np.testing.assert_array_equal(found.index, found.foreground)


def test_low_quality_matches_tie_and_go_to_the_anchors_own_best_box():
    anchors = jnp.array([[0.0, 0.0, 10.0, 10.0], [10.1, 0.0, 20.1, 10.0], [40.0, 0.0, 50.0, 10.0]])
    small = [8.05, 4.0, 12.05, 6.0]  # 1.95 in the one, 1.95 in the other, but for rounding
    box = jnp.array([[small, [10.1, 0.0, 17.0, 9.0], [0.0, 0.0, 0.0, 0.0]]])
    valid = jnp.array([[True, True, False]])
    found = detection.assign_by_iou(anchors, box, valid=valid)
    np.testing.assert_array_equal(found.foreground, [[True, True, False]])
    np.testing.assert_array_equal(found.index, [[0, 1, 0]])
    without = detection.assign_by_iou(anchors, box, valid=valid, low_quality=False)
    np.testing.assert_array_equal(without.foreground, [[False, True, False]])


def test_assignment_by_ratio_against_loops():
    """Candidates of every box by the rules themselves; a contested place has the first slot."""
    edges = [[8, 8, 24, 24], [0, 0, 16, 16], [4, 4, 20, 12], [16, 16, 32, 32], [-10, -6, 6, 10]]
    box = np.array([edges, boxes(1, 5, (32, 48), 3)[0][0]], np.float32)
    valid = np.array([[True] * 5, [True, True, False, True, True]])
    grids, strides = [(4, 6), (2, 3)], [8, 16]
    shapes = np.array([[[12, 12], [24, 10]], [[30, 20], [20, 40]]], np.float32)
    assign = functools.partial(detection.assign_by_anchor_ratio, strides=strides, grids=grids)
    found = quick_jit(assign)(shapes, np.where(valid[..., None], box, np.nan), valid=valid)
    expected = []
    for corners, use in zip(box.astype(float), valid, strict=True):
        slots = []
        for (rows, columns), stride, level in zip(grids, strides, shapes, strict=True):
            taken = np.full((len(level), rows, columns), -1)
            for m in np.flatnonzero(use)[::-1]:
                x, y = (corners[m, :2] + corners[m, 2:]) / 2 / stride
                cells = [(0, 0)]
                cells += [(-1, 0)] * bool(x % 1 < 0.5 and x > 1)
                cells += [(0, -1)] * bool(y % 1 < 0.5 and y > 1)
                cells += [(1, 0)] * bool((columns - x) % 1 < 0.5 and columns - x > 1)
                cells += [(0, 1)] * bool((rows - y) % 1 < 0.5 and rows - y > 1)
                for a, anchor in enumerate(level):
                    ratio = (corners[m, 2:] - corners[m, :2]) / anchor
                    if max(*ratio, *(1 / ratio)) < 4:
                        for i, j in cells:
                            row = np.clip(int(y + j / 2), 0, rows - 1)
                            column = np.clip(int(x + i / 2), 0, columns - 1)
                            taken[a, row, column] = m
            slots.append(taken.ravel())
        expected.append(np.concatenate(slots))
    np.testing.assert_array_equal(np.where(found.foreground, found.index, -1), expected)


@pytest.mark.parametrize(
    "assign",
    [
        lambda *y, **o: detection.assign_by_iou(ANCHORS, *y, **o),
        lambda *y, **o: detection.assign_atss(ANCHORS, *y, level_sizes=[len(ANCHORS)], **o),
        lambda *y, **o: detection.assign_by_anchor_ratio(
            SHAPES, *y, strides=[8], grids=[GRID], **o
        ),
    ],
    ids=["iou", "atss", "ratio"],
)
def test_assigners_have_fixed_shapes(assign):
    box, _, valid = targets()
    assign = quick_jit(assign)
    found = assign(box, valid=valid)
    assert found.index.shape == found.weight.shape == (IMAGES, len(ANCHORS))
    assert found.foreground[0].any()
    assert not found.foreground[1].any()
    assert valid[np.arange(IMAGES)[:, None], found.index][found.foreground].all()
    junk = assign(jnp.where(valid[..., None], box, jnp.nan), valid=valid)
    jax.tree.map(np.testing.assert_array_equal, junk, found)
    half = jax.eval_shape(assign, box.astype(jnp.bfloat16), valid=valid)
    assert half.weight.dtype == jnp.float32
    with pytest.raises(ValueError, match="valid"):
        assign(box, valid=valid[:, :1])


def test_all_candidates_of_one_overlap_reach_their_mean():
    """Each anchor of the level holds the box, of any size: rounding left a quarter without one."""
    anchors = detection.grid_anchors([(3, 3)], [8], [64], ratios=[1], scales=[1])
    half = np.linspace(9, 10, 100, dtype=np.float32)[:, None, None] * np.ones(2, np.float32)
    box = np.concatenate([12 - half, 12 + half], -1)
    assign = quick_jit(functools.partial(detection.assign_atss, level_sizes=[9]))
    assert assign(anchors, box, valid=np.ones((100, 1), bool)).foreground.all()


@pytest.mark.parametrize(
    "options, words",
    [({"level_sizes": [3, 4]}, "level_sizes"), ({"level_sizes": [32], "top_k": 0}, "top_k")],
)
def test_levels_of_atss(options, words):
    box, _, valid = targets()
    with pytest.raises(ValueError, match=rf"jaxloss\.detection\.assign_atss: `{words}"):
        detection.assign_atss(ANCHORS, box, valid=valid, **options)


@every_head
def test_mesh_with_explicit_axes(name):
    (expected, _), gradients = program(name)(predictions(name), *targets())
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        place = functools.partial(jax.device_put, device=NamedSharding(mesh, BATCH))
        x, (box, label, valid) = jax.tree.map(place, (predictions(name), targets()))
        loss = lambda x, box, label, valid: HEADS[name](x, box, label, valid=valid)[0]
        total, slopes = quick_jit(jax.value_and_grad(loss))(x, box, label, valid)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for slope, gradient in zip(slopes, gradients, strict=True):
        np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-7)
