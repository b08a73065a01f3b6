"""Boxes in `jaxloss.geometry`: formats, matrices of overlaps and non-maximum suppression."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxloss import geometry
from jaxloss._core.pairs import FORMATS
from tests.boxes.pairs import parts
from tests.compiling import usual_jit
from tests.test_goldens import assert_close, decode


def some(count, seed=0, format="xyxy"):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 6, (count, 2)), rng.uniform(1, 5, (count, 2))
    return np.float32(geometry.convert(np.concatenate([corner, corner + size], -1), "xyxy", format))


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_formats_convert_both_ways(source, target):
    boxes = jnp.array([[1.0, 2.0, 5.0, 8.0], [0.0, 0.0, 0.0, 3.0]])
    there = geometry.convert(boxes, source, target)
    np.testing.assert_allclose(geometry.convert(there, target, source), boxes, atol=1e-6)


ROTATED = np.array(
    [[1.0, 2.0, 4.0, 2.0, 0.5], [0.0, 0.0, 1.0, 3.0, -2.5], [5.0, 1.0, 2.0, 2.0, 3.0]]
)


def test_corners_of_rotated_boxes():
    """Half the sides turned by the angle, from the first corner on around the box."""
    x, y, w, h, angle = ROTATED.T
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    arms = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    expected = np.stack([x, y], -1)[:, None] + np.einsum("ijn,cjn->nci", turn, arms)
    found = geometry.convert(np.float32(ROTATED), "cxcywhr", "corners")
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    np.testing.assert_allclose(geometry.convert(found, "corners", "cxcywhr"), ROTATED, 1e-5, 1e-6)
    assert geometry.convert(found, "corners", "corners") is found


def test_corners_of_boxes_without_area():
    """A line without width has its direction from the other side; a point has none."""
    boxes = jnp.array(
        [[1.0, 2.0, 0.0, 3.0, 0.5], [1.0, 2.0, 3.0, 0.0, 0.5], [1.0, 2.0, 0.0, 0.0, 0.5]]
    )
    there = geometry.convert(boxes, "cxcywhr", "corners")
    back = geometry.convert(there, "corners", "cxcywhr")
    np.testing.assert_allclose(back, boxes.at[2, 4].set(0), 1e-5, 1e-6)
    both = lambda boxes: geometry.convert(
        geometry.convert(boxes, "cxcywhr", "corners"), "corners", "cxcywhr"
    )
    assert jnp.isfinite(jax.jit(jax.jacobian(both))(boxes)).all()


@pytest.mark.parametrize("unit", [1e-18, 1e18])
def test_corners_at_any_scale(unit):
    boxes = np.float32(ROTATED * [unit, unit, unit, unit, 1])
    back = geometry.convert(geometry.convert(boxes, "cxcywhr", "corners"), "corners", "cxcywhr")
    back = np.asarray(back) / [unit, unit, unit, unit, 1]
    np.testing.assert_allclose(back, ROTATED, 1e-5, 1e-6)


def test_rotated_formats_keep_the_dtype():
    there = geometry.convert(ROTATED.astype(np.float16), "cxcywhr", "corners")
    back = geometry.convert(there, "corners", "cxcywhr")
    assert there.dtype == back.dtype == jnp.float16


@pytest.mark.parametrize(
    "boxes, source, target, words",
    [
        (np.ones((3, 4)), "cxcywhr", "corners", r"boxes.*\(3, 4\).*five numbers"),
        (np.ones((3, 4, 3)), "corners", "cxcywhr", r"boxes.*\(3, 4, 3\).*four corners"),
        (np.ones(4), "corners", "cxcywhr", "boxes.*at least 2 axes"),
        (np.ones((3, 5)), "cxcywhr", "xyxy", "target.*'xyxy'.*'corners'"),
        (np.ones((3, 4)), "xyxy", "corners", "target.*'corners'.*'cxcywh'"),
        (np.ones((3, 4)), "yxyx", "xyxy", "source.*'yxyx'.*'corners'"),
    ],
)
def test_invalid_conversions_raise(boxes, source, target, words):
    with pytest.raises(ValueError, match=f"jaxloss.geometry.convert: `{words}"):
        geometry.convert(boxes, source, target)


def test_boxes_of_masks():
    """One pixel, a ring, a full mask and an empty one; every batch axis is kept."""
    masks = np.zeros((2, 2, 5, 7), bool)
    masks[0, 0, 3, 2] = True
    masks[0, 1, 1:4, 2:6] = True
    masks[0, 1, 2, 3:5] = False
    masks[1, 0] = True
    expected = [[[2, 3, 3, 4], [2, 1, 6, 4]], [[0, 0, 7, 5], [0, 0, 0, 0]]]
    boxes = geometry.masks_to_boxes(masks)
    assert boxes.dtype == jnp.float32
    np.testing.assert_array_equal(boxes, expected)
    assert geometry.masks_to_boxes(np.zeros((3, 0, 4), bool)).tolist() == [[0.0] * 4] * 3
    with pytest.raises(TypeError, match="jaxloss.geometry.masks_to_boxes: `masks.*bool"):
        geometry.masks_to_boxes(np.ones((3, 3)))
    with pytest.raises(
        ValueError, match="jaxloss.geometry.masks_to_boxes: `masks.*at least 2 axes"
    ):
        geometry.masks_to_boxes(np.ones(3, bool))


@pytest.mark.parametrize("format", FORMATS)
def test_area(format):
    boxes = geometry.convert(
        jnp.array([[1.0, 2.0, 5.0, 8.0], [3.0, 1.0, 3.0, 4.0]]), "xyxy", format
    )
    np.testing.assert_allclose(geometry.area(boxes, format=format), [24, 0], 1e-6)


PAIRWISE = {
    "pairwise_iou": geometry.iou,
    "pairwise_giou": geometry.giou,
    "pairwise_diou": geometry.diou,
    "pairwise_ciou": geometry.ciou,
}
pairwise = pytest.mark.parametrize("name", PAIRWISE)


@pairwise
@pytest.mark.parametrize("format", FORMATS)
def test_vision_6317_a_matrix_equals_a_double_loop(name, format):
    """distance_box_iou was wrong where the numbers of boxes differ: here 3 by 5, of any aspect."""
    first, second = some(3, format=format), some(5, seed=1, format=format)
    matrix = getattr(geometry, name)(first, second, format=format)
    rows = [np.broadcast_to(row, second.shape) for row in first]
    expected = [PAIRWISE[name](row, second, format=format) for row in rows]
    np.testing.assert_allclose(matrix, expected, 1e-6, 1e-7)


GOLDENS = pathlib.Path(__file__).parents[1] / "goldens/geometry.json"
ROWS = {row["loss"]: row for row in json.loads(GOLDENS.read_text())["rows"]}


@pairwise
def test_matrices_equal_torchvision(name):
    """Value, and gradient by the first boxes, without its epsilon."""
    row = ROWS[name]
    first, second = map(decode, row["args"])
    with jax.enable_x64(True):
        value, pull = jax.vjp(lambda x: getattr(geometry, name)(x, second), jnp.asarray(first))
        (gradient,) = pull(jnp.ones_like(value))
    assert_close(value, row["value"], 1e-9)
    assert_close(gradient, row["gradient"], 1e-9)


def test_boxes_of_masks_are_a_pixel_longer_than_torchvision():
    (mask,) = map(decode, ROWS["masks_to_boxes"]["args"])
    expected = decode(ROWS["masks_to_boxes"]["value"])
    expected[mask.any((1, 2)), 2:] += 1
    np.testing.assert_array_equal(geometry.masks_to_boxes(mask), expected)


def test_pairwise_iou_equals_the_definition():
    first, second = some(4), some(6, seed=1)
    expected = parts(np.float64(first)[:, None], np.float64(second)[None]).iou
    np.testing.assert_allclose(geometry.pairwise_iou(first, second), expected, 1e-5, 1e-6)


@pairwise
def test_matrices_at_any_scale_and_of_any_leading_axes(name):
    """torchvision's are NaN at 1e20 and 0 at 1e-25; these are the same to the last bit."""
    first, second = some(6).reshape(2, 3, 4), some(10, seed=1).reshape(2, 5, 4)
    run = jax.jit(jax.vmap(getattr(geometry, name)))
    units = 2.0 ** np.array([-60, 0, 60], np.float32).reshape(3, 1, 1, 1)
    matrices = run(first * units, second * units)
    assert matrices.shape == (3, 2, 3, 5)
    for matrix in matrices:
        np.testing.assert_array_equal(matrix, matrices[1])
    one = getattr(geometry, name)(first[1], second[1])
    np.testing.assert_allclose(matrices[1, 1], one, 1e-6, 1e-7)


@pytest.mark.parametrize("name", [name for name in PAIRWISE if name != "pairwise_ciou"])
def test_gradient_of_a_matrix(name):
    """That of CIoU, whose weight is a constant, is compared with `ciou` below."""
    first, second = some(4), some(5, seed=1)
    with jax.enable_x64(True):
        loss = lambda *pair: (jnp.sin(getattr(geometry, name)(*pair))).sum()
        pair, step = (jnp.float64(first), jnp.float64(second)), 1e-6
        run = jax.jit(jax.value_and_grad(loss, (0, 1)))
        gradients = run(*pair)[1]
        directions = [np.random.default_rng(i).normal(size=x.shape) for i, x in enumerate(pair)]
        ends = [
            run(*(x + sign * step * d for x, d in zip(pair, directions, strict=True)))[0]
            for sign in (1, -1)
        ]
        along = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
    slope = (float(ends[0]) - float(ends[1])) / (2 * step)
    np.testing.assert_allclose(along, slope, 1e-6)


def test_gradient_of_a_matrix_of_ciou():
    first, second = some(2), some(2, seed=1)
    matrix = lambda a, b: jnp.trace(geometry.pairwise_ciou(a, b))
    pairs = lambda a, b: geometry.ciou(a, b).sum()
    found, expected = (jax.jit(jax.grad(f, (0, 1)))(first, second) for f in (matrix, pairs))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-7)


@pairwise
def test_matrices_of_degenerate_boxes_have_finite_gradients(name):
    boxes = jnp.array(
        [[0.0, 0, 0, 0], [1, 1, 1, 3], [0, 0, 1e18, 1e18], [2, 2, 1, 1], [0, 0, 1, 1]]
    )
    loss = lambda *pair: getattr(geometry, name)(*pair).sum()
    for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1)))(boxes, boxes)):
        assert jnp.isfinite(leaf).all()


@pairwise
def test_empty_sets_have_empty_matrices(name):
    assert getattr(geometry, name)(some(3), jnp.zeros((0, 4))).shape == (3, 0)


@pairwise
def test_half_precision_matrices_are_float32(name):
    matrix = getattr(geometry, name)(some(3).astype(np.float16), some(2).astype(np.float16))
    assert matrix.dtype == jnp.float32


B = np.ones((3, 4))


@pairwise
@pytest.mark.parametrize(
    "arguments, options, error, words",
    [
        ((B[0], B), {}, ValueError, "boxes.*at least 2 axes"),
        ((B[None], B), {}, ValueError, r"target_boxes.*\(1, 3, 4\).*leading axes"),
        ((B[:, :3], B), {}, ValueError, "boxes.*four numbers"),
        ((B.astype(int), B), {}, TypeError, "boxes.*floating"),
        ((B, B), {"format": "yxyx"}, ValueError, "format.*'yxyx'"),
    ],
)
def test_invalid_calls_of_matrices_raise(name, arguments, options, error, words):
    with pytest.raises(error, match=f"jaxloss.geometry.{name}: `{words}"):
        getattr(geometry, name)(*arguments, **options)


def greedy(boxes, scores, threshold, score_threshold=-np.inf):
    """Non-maximum suppression by the definition."""
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] > score_threshold]
    kept = []
    for i in order:
        overlaps = parts(np.float64(boxes)[[i] * len(kept)], np.float64(boxes)[kept]).iou
        if not (overlaps > threshold).any():
            kept.append(i)
    return kept


def suppressed(boxes, scores, threshold, slots, **options):
    run = functools.partial(geometry.nms, iou_threshold=threshold, max_outputs=slots, **options)
    indices, valid = jax.device_get(run(jnp.float32(boxes), jnp.float32(scores)))
    np.testing.assert_array_equal(valid, indices >= 0)
    assert (np.diff(valid.astype(int)) <= 0).all()  # the empty slots come last
    return indices[valid].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_nms_equals_the_greedy_definition(threshold):
    """All boxes that survive, and the first few of them."""
    rng = np.random.default_rng(1)
    corner, size = rng.uniform(0, 30, (150, 2)), rng.uniform(1, 9, (150, 2))
    boxes, scores = np.concatenate([corner, corner + size], -1), rng.random(150)
    expected = greedy(np.float32(boxes), np.float32(scores), threshold)
    assert suppressed(boxes, scores, threshold, 150) == expected
    expected = greedy(np.float32(boxes), np.float32(scores), threshold, 0.4)
    assert suppressed(boxes, scores, threshold, 150, score_threshold=0.4) == expected


def test_nms_of_equal_scores_takes_the_first():
    """As torchvision's stable sort does."""
    boxes = np.array([[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6], [5, 5, 6, 6.1]])
    assert suppressed(boxes, np.ones(4), 0.5, 4) == [0, 2]


def test_nms_keeps_a_box_at_the_threshold():
    """An IoU of exactly 1/2 is not above 1/2."""
    boxes, scores = np.array([[0.0, 0, 2, 2], [0, 0, 2, 1]]), np.array([0.9, 0.8])
    assert suppressed(boxes, scores, 0.5, 2) == [0, 1]
    assert suppressed(boxes, scores, 0.499, 2) == [0]


def test_nms_fills_its_slots_with_the_best():
    boxes = np.array([[i, 0.0, i + 1, 1] for i in range(0, 20, 2)])
    scores = np.linspace(0, 1, 10)
    assert suppressed(boxes, scores, 0.5, 3) == [9, 8, 7]
    assert suppressed(boxes, scores, 0.5, 12) == list(range(9, -1, -1))
    assert suppressed(boxes, scores, 0.5, 0) == []


def test_nms_never_selects_a_nan_score():
    boxes = np.array([[i, 0.0, i + 1, 1] for i in range(0, 10, 2)])
    scores = np.array([np.nan, -np.inf, 3, np.inf, -5])
    assert suppressed(boxes, scores, 0.5, 5) == [3, 2, 4]
    assert suppressed(boxes, np.full(5, np.nan), 0.5, 5) == []


def test_nms_of_no_boxes():
    assert suppressed(np.zeros((0, 4)), np.zeros(0), 0.5, 3) == []


def test_nms_keeps_empty_boxes_and_formats_agree():
    """An empty box overlaps nothing, its equals included; so it is no duplicate of any."""
    boxes = np.array([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 4, 4], [0, 0, 4, 3]])
    scores = np.array([0.5, 0.6, 0.9, 0.8])
    for format in FORMATS:
        given = geometry.convert(jnp.float32(boxes), "xyxy", format)
        assert suppressed(given, scores, 0.5, 4, format=format) == [2, 1, 0]


def test_nms_by_class_is_that_of_each_class():
    """Far from the origin too, where classes moved apart by an offset would lose their digits."""
    boxes, rng = some(60) + np.float32(1e5), np.random.default_rng(3)
    scores, labels = rng.random(60).astype(np.float32), rng.integers(0, 3, 60)
    kept = [np.flatnonzero(labels == c) for c in range(3)]
    kept = np.concatenate([i[greedy(boxes[i], scores[i], 0.3)] for i in kept])
    expected = kept[np.argsort(-scores[kept])].tolist()
    assert suppressed(boxes, scores, 0.3, 60, labels=labels) == expected
    assert len(expected) > len(suppressed(boxes, scores, 0.3, 60))


def test_nms_under_vmap_with_traced_thresholds():
    """Per class: one set of boxes, a row of scores and a threshold for each."""
    boxes, scores = some(40), np.random.default_rng(2).random((3, 40)).astype(np.float32)
    thresholds = jnp.array([0.1, 0.4, 0.7])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def run(boxes, scores, threshold):
        return geometry.nms(
            boxes, scores, iou_threshold=threshold, max_outputs=10, score_threshold=threshold
        )

    indices, valid = jax.device_get(run(boxes, scores, thresholds))
    for row, score, threshold, kept in zip(indices, scores, thresholds, valid, strict=True):
        expected = greedy(boxes, score, float(threshold), float(threshold))[:10]
        assert row[kept].tolist() == expected


@pytest.mark.parametrize("by_class", [False, True])
def test_nms_of_images_on_a_mesh_with_explicit_axes(by_class):
    rng = np.random.default_rng(4)
    boxes, scores = some(4 * 12).reshape(4, 12, 4), rng.random((4, 12)).astype(np.float32)
    data = (boxes, scores) + ((rng.integers(0, 2, (4, 12)),) if by_class else ())

    @jax.jit
    @jax.vmap
    def run(boxes, scores, labels=None):
        return geometry.nms(boxes, scores, iou_threshold=0.3, max_outputs=6, labels=labels)

    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        place = functools.partial(
            jax.device_put, device=NamedSharding(mesh, PartitionSpec("batch"))
        )
        found = run(*map(place, data))
    jax.tree.map(np.testing.assert_array_equal, found, run(*data))


def test_nms_builds_no_matrix():
    """10,000 boxes: less memory than a hundredth of the matrix of their IoUs."""
    boxes = jax.ShapeDtypeStruct((10_000, 4), jnp.float32)
    scores = jax.ShapeDtypeStruct((10_000,), jnp.float32)
    run = functools.partial(geometry.nms, iou_threshold=0.5, max_outputs=300)
    compiled = usual_jit(run).lower(boxes, scores).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 10_000**2 / 100


NMS = {"iou_threshold": 0.5, "max_outputs": 3}


@pytest.mark.parametrize(
    "arguments, options, error, words",
    [
        ((B, np.ones(2)), {}, ValueError, r"scores.*\(2,\).*one score per box"),
        ((B[None], np.ones(1)), {}, ValueError, r"boxes.*\(1, 3, 4\).*vmap"),
        ((B, np.ones(3, int)), {}, TypeError, "scores.*floating"),
        ((B, np.ones(3)), {"max_outputs": 2.0}, TypeError, "max_outputs.*2.0.*integer"),
        ((B, np.ones(3)), {"max_outputs": -1}, ValueError, "max_outputs.*-1.*at least 0"),
        ((B, np.ones(3)), {"labels": np.ones(3)}, TypeError, "labels.*float.*integers"),
        ((B, np.ones(3)), {"labels": np.ones(2, int)}, ValueError, r"labels.*\(2,\).*one class"),
        ((B, np.ones(3)), {"iou_threshold": 1.5}, ValueError, "iou_threshold.*1.5"),
        ((B, np.ones(3)), {"format": "yxyx"}, ValueError, "format.*'yxyx'"),
    ],
)
def test_invalid_calls_of_nms_raise(arguments, options, error, words):
    with pytest.raises(error, match=f"jaxloss.geometry.nms: `{words}"):
        geometry.nms(*arguments, **NMS | options)
