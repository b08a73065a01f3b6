"""What the heads whose assignment looks at the predictions promise beside their formulas."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxloss import detection, geometry
from tests.compiling import quick_jit
from tests.detection.scenes import boxes, waves

IMAGES, SLOTS, CLASSES, QUERIES = 4, 3, 3, 5
GRIDS, STRIDES, BINS = [(4, 4), (2, 2)], (8, 16), 4
PLACES = 20
KEY = jax.random.key(1)
HEADS = {
    "yolo_v8": lambda x, *y, **o: detection.yolo_v8(x, *y, strides=STRIDES, reg_max=BINS, **o),
    "yolo_v8_rotated": lambda x, *y, **o: detection.yolo_v8_rotated(
        x[:2], x[2:], *y, strides=STRIDES, reg_max=BINS, **o
    ),
    "detr": lambda x, *y, **o: detection.detr(*x, *y, image_size=(32, 32), **o),
    "mask_set": lambda x, *y, **o: detection.mask_set(*x, *y, **{"key": KEY, "points": 32} | o),
}
BATCH = PartitionSpec("batch")
every_head = pytest.mark.parametrize("name", HEADS)


def predictions(name, dtype=jnp.float32):
    levels = [waves((IMAGES, *grid, 4 * BINS + CLASSES), i) for i, grid in enumerate(GRIDS)]
    angles = [waves((IMAGES, *grid), 4, 1.0) for grid in GRIDS]
    logits = waves((IMAGES, QUERIES, CLASSES + 1), 0)
    wide = np.array([0.5, 0.5, 0.8, 0.8]) + waves((IMAGES, QUERIES, 4), 1, 0.1)
    made = {
        "yolo_v8": levels,
        "yolo_v8_rotated": levels + angles,
        "detr": [logits, wide],
        "mask_set": [logits, waves((IMAGES, QUERIES, 6, 5), 2)],
    }[name]
    return [jnp.asarray(x, dtype) for x in made]


def targets(name):
    """What is true in four images, nothing in the second; slots that are not valid between."""
    box, label = boxes(IMAGES, SLOTS, (32, 32), 1, least=9.0)
    valid = np.array([[True, False, True], [False] * 3, [True] * 3, [False, True, False]])
    if name == "yolo_v8_rotated":
        middle, sides = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
        box = np.concatenate([middle, sides, waves((IMAGES, SLOTS, 1), 3)], -1)
    if name == "mask_set":
        box = (waves((IMAGES, SLOTS, 8, 8), 3) > 0).astype(float)
    return jnp.asarray(box, jnp.float32), jnp.asarray(label % CLASSES, jnp.int32), jnp.array(valid)


@functools.cache
def program(name):
    """Total, parts and gradients, compiled once for all tests."""

    def loss(x, box, label, valid):
        return HEADS[name](x, box, label, valid=valid)

    return quick_jit(jax.value_and_grad(loss, has_aux=True))


def per_slot(valid, box):
    return valid.reshape(*valid.shape, *[1] * (box.ndim - 2))


@every_head
def test_slots_that_are_not_valid_reach_nothing(name):
    box, label, valid = targets(name)
    expected = program(name)(predictions(name), *targets(name))
    for junk, id_ in ((np.nan, -7), (np.inf, 10**6), (-5.0, CLASSES)):
        other = jnp.where(per_slot(valid, box), box, junk), jnp.where(valid, label, id_)
        found = program(name)(predictions(name), *other, valid)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    (total, parts), _ = expected
    np.testing.assert_allclose(total, sum(parts.values()), rtol=1e-6)
    assert min(parts.values()) > 0


@every_head
def test_no_targets(name):
    """Only the classes are left, finite, with a zero gradient of all else."""
    box, label, valid = targets(name)
    nothing = box * jnp.nan, label, jnp.zeros_like(valid)
    (total, parts), gradients = program(name)(predictions(name), *nothing)
    assert total == parts.pop("classification") > 0
    assert set(map(float, parts.values())) == {0}
    assert all(np.isfinite(g).all() for g in gradients)
    shapes = jax.eval_shape(
        HEADS[name], predictions(name), box[:, :0], label[:, :0], valid=valid[:, :0]
    )
    assert shapes[0].shape == ()


@every_head
@pytest.mark.parametrize("wrong", [-1, CLASSES + 1])
def test_a_label_outside_the_classes_is_nan(name, wrong):
    box, label, valid = targets(name)
    x = predictions(name)
    (total, _), _ = program(name)(x, box, label.at[0, 2].set(wrong), valid)
    assert np.isnan(total)


@every_head
def test_forward_and_mapped(name):
    """The directional derivative is that of the gradient; `vmap` is a loop."""
    x, y = predictions(name), targets(name)
    (total, _), gradients = program(name)(x, *y)
    direction = [jnp.asarray(waves(p.shape, 5), p.dtype) for p in x]
    loss = lambda x, box, label, valid: HEADS[name](x, box, label, valid=valid)[0]

    @quick_jit
    def run(x, y, direction):
        forward = jax.jvp(lambda x: loss(x, *y), (x,), (direction,))
        stacked = jax.tree.map(lambda a: jnp.stack([a, a]), (x, y))
        return forward, jax.vmap(lambda x, y: loss(x, *y))(*stacked)

    (value, slope), mapped = run(x, y, direction)
    expected = sum(jnp.vdot(g, d) for g, d in zip(gradients, direction, strict=True))
    np.testing.assert_allclose(value, total, rtol=1e-6)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
    np.testing.assert_allclose(mapped, [total, total], rtol=1e-5)


@every_head
def test_half_precision_is_computed_in_float32(name):
    x, y = predictions(name, jnp.bfloat16), targets(name)
    (total, _), gradients = program(name)(x, *y)
    wide = [p.astype(jnp.float32) for p in x]
    (expected, _), slopes = program(name)(wide, *y)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            gradient.astype(jnp.float32), slope, rtol=3e-2, atol=1e-3 * np.abs(slope).max()
        )


@pytest.mark.parametrize("name", ["yolo_v8", "yolo_v8_rotated", "detr"])
def test_sharded_over_devices(name):
    """`axis_name` makes total, parts and the gradient of what is shared the whole batch's."""
    x, y = predictions(name), targets(name)

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


def test_mask_set_sharded_over_devices():
    """Where nothing depends on the points: constant masks."""
    x, (mask, label, valid) = predictions("mask_set"), targets("mask_set")
    x[1] = x[1][:, :, :1, :1]
    mask = jnp.ones_like(mask)
    within = lambda x: jnp.pad(x, ((0, 0), (0, 0), (99, 99), (99, 99)), mode="edge")

    def loss(x, maps, mask, label, valid, axis_name=None):
        whole = within(maps), within(mask)
        return HEADS["mask_set"]([x, whole[0]], whole[1], label, valid=valid, axis_name=axis_name)

    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    whole = functools.partial(loss, axis_name="batch")
    sharded = jax.shard_map(whole, mesh=mesh, in_specs=(BATCH,) * 5, out_specs=PartitionSpec())
    found, expected = (quick_jit(f)(*x, mask, label, valid) for f in (sharded, loss))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0.05), found, expected)


@every_head
def test_mesh_with_explicit_axes(name):
    (expected, _), gradients = program(name)(predictions(name), *targets(name))
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        place = functools.partial(jax.device_put, device=NamedSharding(mesh, BATCH))
        x, (box, label, valid) = jax.tree.map(place, (predictions(name), targets(name)))
        loss = lambda x, box, label, valid: HEADS[name](x, box, label, valid=valid)[0]
        total, slopes = quick_jit(jax.value_and_grad(loss))(x, box, label, valid)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for slope, gradient in zip(slopes, gradients, strict=True):
        np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-6)


@every_head
def test_wide_types_and_callbacks_are_nowhere(name):
    x, y = predictions(name), targets(name)
    with jax.enable_x64(True):
        run = jax.grad(lambda x, y: HEADS[name](x, *y[:2], valid=y[2])[0])
        program = str(jax.make_jaxpr(run)(x, y))
    assert not [line for line in program.splitlines() if re.search(r"f64\[\d", line)]
    assert "callback" not in program


@every_head
def test_nan_predictions_stay_in_their_image(name):
    """Nothing hangs; the gradients of the other images stay finite."""
    x = [p.at[2].set(jnp.nan) for p in predictions(name)]
    (total, _), gradients = program(name)(x, *targets(name))
    assert np.isnan(total)
    for gradient in gradients:
        assert np.isfinite(gradient[np.array([0, 1, 3])]).all()


def test_detr_leaves_denoising_queries_to_their_own_call():
    """transformers PR 48528: the main loss was computed over the denoising queries."""
    (logits, box), (true, label, valid) = predictions("detr"), targets("detr")
    options = {"valid": valid, "image_size": (32, 32), "classification": "varifocal"}
    none = jnp.zeros(logits.shape[:2], bool)
    given = detection.Assignment(none.astype(jnp.int32), none, none.astype(jnp.float32), ~none)
    run = quick_jit(functools.partial(detection.detr, **options))
    total, parts = run(logits[..., :3], box, true, label, assignment=given)
    assert total == 0  # all are ignored: no query has a class or a box
    slots = jnp.broadcast_to(jnp.arange(QUERIES, dtype=jnp.int32)[None] % SLOTS, none.shape)
    given = given._replace(index=slots, foreground=~none, ignore=none)
    total, parts = run(logits[..., :3], box, true, label, assignment=given)
    chosen = np.asarray(valid)[np.arange(IMAGES)[:, None], slots]
    corners = np.asarray(true)[np.arange(IMAGES)[:, None], slots] / 32
    middle = np.concatenate(
        [(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1
    )
    apart = np.where(chosen, np.abs(np.asarray(box) - middle).sum(-1), 0).sum()
    np.testing.assert_allclose(parts["l1"], 5 * apart / np.sum(np.asarray(valid)), rtol=1e-5)


def test_detr_focal_takes_alpha_as_alpha():
    """RT-DETR's `loss_labels_focal` passes it on as the number of boxes."""
    (logits, box), (true, label, valid) = predictions("detr"), targets("detr")

    @quick_jit
    def entropy(alpha):
        options = {"valid": valid & False, "image_size": (32, 32), "classification": "focal"}
        return detection.detr(logits[..., :3], box, true, label, alpha=alpha, **options)[1]

    x = np.asarray(logits[..., :3], float)
    p = 1 / (1 + np.exp(-x))
    for alpha in (0.25, 0.6):
        expected = ((1 - alpha) * p**2 * np.logaddexp(0, x)).sum()
        np.testing.assert_allclose(entropy(alpha)["classification"], expected, rtol=1e-5)


def test_detr_class_loss_of_a_pair_that_does_not_meet():
    """Its class is one of the others, as in `varifocal`; transformers has no loss there."""
    box = jnp.array([[[0.1, 0.1, 0.1, 0.1]]])
    true = jnp.array([[[20.0, 20.0, 30.0, 30.0]]]), jnp.array([[1]])
    logits = jnp.array([[[0.3, -0.8, 1.2]]])
    p = 1 / (1 + np.exp(-np.asarray(logits, float)))
    for kind, alpha, gamma in (("varifocal", 0.75, 2), ("matchability_aware", 1, 1.5)):
        options = {"valid": jnp.array([[True]]), "image_size": (32, 32), "classification": kind}
        found = quick_jit(functools.partial(detection.detr, **options))(logits, box, *true)[1]
        expected = (alpha * p**gamma * -np.log1p(-p)).sum()
        np.testing.assert_allclose(found["classification"], expected, rtol=1e-5)


def test_detr_of_images_of_different_sizes():
    """Boxes are divided by their own image's height and width."""
    x, (true, label, valid) = predictions("detr"), targets("detr")
    sizes = np.array([[32, 64], [16, 32], [64, 32], [40, 40]], np.float32)
    factor = np.tile(sizes[:, None, ::-1] / 32, 2)
    run = quick_jit(
        lambda true, size: detection.detr(*x, true, label, valid=valid, image_size=size)
    )
    found = run(true * factor, sizes)[0]
    np.testing.assert_allclose(found, program("detr")(x, true, label, valid)[0][0], rtol=1e-5)


def test_task_alignment_against_loops():
    """The rules themselves, with boxes that want the same points and points of metric 0."""
    points = np.asarray(detection.grid_points([(4, 4)], [8]), float)
    box = np.array([[0, 0, 30, 30], [2, 2, 28, 30], [9, 9, 15, 15], [0, 0, 32, 32]], float)
    valid = np.array([True, True, True, False])
    label, top_k = np.array([0, 1, 0, 1]), 5
    reach = 6 + 5 * np.abs(waves((16, 4), 0, 1.0))
    predicted = np.concatenate([points - reach[:, :2], points + reach[:, 2:]], -1)
    score = 1 / (1 + np.exp(-waves((16, 2), 3)))
    pair = lambda f: np.stack([f(*np.broadcast_arrays(predicted, b)) for b in box])
    ciou = quick_jit(lambda a, b: geometry.ciou(a, b))
    u = np.maximum(pair(lambda a, b: np.asarray(ciou(a, b), float)), 0)
    edge = np.stack(
        [
            points[:, 0] - box[:, None, 0],
            points[:, 1] - box[:, None, 1],
            box[:, None, 2] - points[:, 0],
            box[:, None, 3] - points[:, 1],
        ]
    )
    u = np.where((edge.min(0) > 0) & valid[:, None], u, 0)
    t = np.sqrt(score[:, label].T) * u**6
    wants = np.zeros_like(t, bool)
    for m in range(len(box)):
        best = np.argsort(-t[m], kind="stable")[:top_k]
        wants[m, best] = t[m, best] > 0
    several = wants.sum(0) > 1
    assert several.any()
    wants[:, several] = np.arange(len(box))[:, None] == u.argmax(0)[several]
    t, u = t * wants, u * wants
    weight = (t / (t.max(1, keepdims=True) + 1e-9) * u.max(1, keepdims=True)).max(0)
    data = [jnp.asarray(a, jnp.float32)[None] for a in (score, predicted)]
    true = jnp.asarray(box, jnp.float32)[None], jnp.asarray(label, jnp.int32)[None]
    assign = quick_jit(functools.partial(detection.assign_task_aligned, top_k=top_k))
    found = assign(*data, jnp.asarray(points, jnp.float32), *true, valid=jnp.asarray(valid)[None])
    expected = np.where(wants.any(0), wants.argmax(0), -1)
    np.testing.assert_array_equal(np.where(found.foreground, found.index, -1)[0], expected)
    np.testing.assert_allclose(found.weight[0], weight, rtol=1e-4)


ASSIGNERS = {
    "assign_task_aligned": detection.assign_task_aligned,
    "assign_sim_ota": functools.partial(
        detection.assign_sim_ota, strides=np.full(16, 8, np.float32)
    ),
}


@pytest.mark.parametrize("name", ASSIGNERS)
def test_assigners(name):
    """Fixed shapes, NaN nowhere that counts, NaN weights for a label outside the classes."""
    points = jnp.asarray(detection.grid_points([(4, 4)], [8]))
    box, label, valid = targets("yolo_v8")
    scores = jnp.asarray(1 / (1 + np.exp(-waves((IMAGES, 16, CLASSES), 0))), jnp.float32)
    reach = jnp.asarray(np.exp(waves((IMAGES, 16, 4), 1, 0.5)) * 8, jnp.float32)
    predicted = jnp.concatenate([points[None] - reach[..., :2], points[None] + reach[..., 2:]], -1)
    assign = quick_jit(ASSIGNERS[name])
    data = scores, predicted, points
    expected = assign(*data, box, label, valid=valid)
    assert expected.foreground[0].any()
    assert not expected.foreground[1].any()
    assert valid[np.arange(IMAGES)[:, None], expected.index][expected.foreground].all()
    assert expected.index.dtype == jnp.int32
    assert not expected.ignore.any()
    assert ((expected.weight > 0) == expected.foreground).all()
    junk = jnp.where(valid[..., None], box, jnp.nan), jnp.where(valid, label, 99)
    jax.tree.map(np.testing.assert_array_equal, assign(*data, *junk, valid=valid), expected)
    wrong = assign(*data, box, label.at[0, 0].set(CLASSES), valid=valid)
    assert np.isnan(wrong.weight).any()
    lost = assign(
        scores.at[0, ::2].set(jnp.nan),
        predicted.at[2].set(jnp.nan),
        *data[2:],
        box,
        label,
        valid=valid,
    )
    assert not lost.foreground[0, ::2].any()
    assert not lost.foreground[2].any()
    np.testing.assert_array_equal(lost.index[3], expected.index[3])


@pytest.mark.parametrize("name", ASSIGNERS)
def test_assigners_on_a_mesh_with_explicit_axes(name):
    points = detection.grid_points([(4, 4)], [8])
    box, label, valid = targets("yolo_v8")
    scores = jnp.asarray(1 / (1 + np.exp(-waves((IMAGES, 16, CLASSES), 0))), jnp.float32)
    predicted = jnp.concatenate([points - 9, points + 9], -1)[None] + jnp.zeros((IMAGES, 1, 1))
    data = scores, predicted, box, label, valid
    assign = quick_jit(lambda s, p, b, y, valid: ASSIGNERS[name](s, p, points, b, y, valid=valid))
    expected = assign(*data)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        place = functools.partial(jax.device_put, device=NamedSharding(mesh, BATCH))
        found = assign(*jax.tree.map(place, data))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
