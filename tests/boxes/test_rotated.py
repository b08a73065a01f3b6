"""The exact overlap of rotated boxes: oracle, case, closed forms and hazards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import geometry
from tests.boxes.rotated_pairs import (
    INVALID,
    B,
    corners,
    in_blocks,
    random_boxes,
    rotated_pairs,
    shifted_and_renamed,
)
from tests.registry import Case, Invalid, reduced


def _cross(u, v):
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _clipped(polygon, start, end):
    """The part of a polygon to the left of a line (Sutherland and Hodgman)."""
    kept = []
    for p, q in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        a, b = (_cross(end - start, r - start) for r in (p, q))
        if a >= 0:
            kept.append(p)
        if a * b < 0:
            kept.append(p + a / (a - b) * (q - p))
    return np.array(kept)


def _shared(first, second):
    for start, end in zip(second, np.roll(second, -1, 0), strict=True):
        if len(first):
            first = _clipped(first, start, end)
    return _cross(first, np.roll(first, -1, 0)).sum() / 2 if len(first) else 0.0


def _iou(a, b):
    pairs = zip(corners(a), corners(b), strict=True)
    shared = np.array([_shared(*pair) for pair in pairs])
    return shared / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)


def _rotated_iou(prediction, target, where=None, weights=None, reduction="mean", form="linear"):
    iou = _iou(prediction, target)
    values = {"linear": 1 - iou, "square": 1 - iou**2, "log": -np.log(np.maximum(iou, 1e-6))}
    return reduced(values[form], reduction, where, weights)


CASES = {
    "rotated_iou": Case(
        _rotated_iou,
        (
            rotated_pairs(),
            rotated_pairs("log", seed=1, form="log"),
            rotated_pairs("square", seed=2, form="square"),
        ),
        (*INVALID, Invalid((B, B), {"form": "cubic"}, ValueError, ("form", "'cubic'", "'log'"))),
        {},
        "smooth",
        6.1,
    )
}


# One process for all tests here, which share a program.
pytestmark = pytest.mark.xdist_group("rotated boxes")


@functools.cache
def _program():
    """Values and gradients by both boxes, for rows of pairs."""
    return jax.jit(jax.vmap(jax.value_and_grad(jaxloss.rotated_iou, (0, 1))))


def _rows(first, second):
    return in_blocks(_program(), first, second)


@pytest.mark.parametrize("angle", [0.0, 0.01, 0.3, np.pi / 4, 1.0, np.pi / 2])
def test_two_squares_on_one_centre_share_an_octagon(angle):
    shared = 2 / (1 + np.cos(angle) + np.sin(angle))
    square = np.array([1.0, 2.0, 1.0, 1.0, 0.25], np.float32)
    turned = square + np.array([0, 0, 0, 0, angle], np.float32)
    (loss,), _ = _rows(turned, square)
    np.testing.assert_allclose(1 - loss, shared / (2 - shared), atol=3e-7)


@pytest.mark.parametrize(
    "box, target, iou",
    [
        ([0, 0, 4, 2, 0], [1, 0, 4, 2, 0], 6 / 10),
        ([0, 0, 4, 2, 0], [0, 0, 2, 1, 0.5], 1 / 4),  # one inside the other
        ([0, 0, 8, 0.1, 0], [0, 0, 8, 0.1, np.pi / 2], 0.01 / 1.59),  # a cross
        ([0, 0, 8, 0.1, 0], [0, 0, 8, 0.1, np.pi / 6], 0.02 / 1.58),  # shares a rhombus
        ([0, 0, 2, 2, 0], [2, 0, 2, 2, 0], 0),  # a common edge
        ([0, 0, 2, 2, 0], [2, 2, 2, 2, 0], 0),  # a common corner
        ([0, 0, 2, 2, 0], [1 + np.sqrt(2), 0, 2, 2, np.pi / 4], 0),  # a corner on an edge
        ([0, 0, 2, 2, 0], [9, 0, 2, 2, 0.3], 0),
        ([0, 0, 4, 4, np.pi / 4], [2.6, 2.6, 4, 0.5, -np.pi / 4], 0),  # only their hulls meet
        ([0, 0, 0, 2, 0], [0, 0, 2, 2, 0], 0),  # a segment
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0.3], 1),  # two equal points, which have no angle
        ([0, 0, 0, 0, 0], [1, 0, 0, 0, 0], 0),  # two points
        ([0, 0, 0, 2, 0.3], [0, 0, 0, 2, 0.3], 1),  # two equal segments
        ([0, 0, 0, 2, 0.3], [0, 0, 0, 2, 0.4], 0),  # two segments
        ([0, 0, -2, 2, 0], [0, 0, 2, 2, 0], 0),  # a negative side is none
    ],
)
def test_closed_forms(box, target, iou):
    (loss, other), gradients = _rows([box, target], [target, box])
    np.testing.assert_allclose([loss, other], [1 - iou] * 2, atol=2e-7)
    if iou == 0:
        assert loss == other == 1
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_angle_zero_is_the_axis_aligned_iou():
    rng = np.random.default_rng(0)
    a, b = (random_boxes(rng, 200).astype(np.float32) for _ in range(2))
    a[:, 4] = b[:, 4] = 0
    value = geometry.rotated_iou(a, b)
    expected = geometry.iou(a[:, :4], b[:, :4], format="cxcywh")
    np.testing.assert_allclose(value, expected, atol=3e-7)


def test_forms_are_functions_of_the_coefficient():
    sample = rotated_pairs()
    pair = [jnp.asarray(x, jnp.float32) for x in (sample.prediction, sample.target)]
    iou = geometry.rotated_iou(*pair)
    loss = functools.partial(jaxloss.rotated_iou, reduction="none")
    np.testing.assert_allclose(loss(*pair), 1 - iou, atol=3e-7)
    np.testing.assert_allclose(loss(*pair, form="square"), 1 - iou**2, atol=3e-7)
    log = -jnp.log(jnp.maximum(iou, 1e-6))
    np.testing.assert_allclose(loss(*pair, form="log"), log, atol=1e-6)


def test_identical_boxes_cost_nothing_at_any_size():
    """Exactly, with a gradient of a few roundings; implementations with epsilons do neither."""
    sides = 10.0 ** np.arange(-18.0, 19.0, 2.0)
    rng = np.random.default_rng(1)
    rows = np.concatenate([random_boxes(rng, 500), random_boxes(rng, len(sides))])
    rows[500:, :4] *= sides[:, None]
    values, gradients = _rows(rows, rows)
    np.testing.assert_array_equal(values, 0)
    for gradient in gradients:
        assert np.abs(gradient[:500]).max() < 3e-6
        size = rows[500:, 2:3]
        assert np.abs(gradient[500:] * [1, 1, 1, 1, 0] * size).max() < 3e-6


def test_one_box_has_many_names():
    """Up to the rounding of the angle, which moves a corner by half the diagonal times that."""
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 50), random_boxes(rng, 50)
    values, _ = _rows(a, b)
    swapped, _ = _rows(b, a)
    np.testing.assert_allclose(swapped, values, atol=5e-7)
    renamed = [(other, b) for other in shifted_and_renamed(a)]
    renamed += [(a, other) for other in shifted_and_renamed(b)]
    for pair in renamed:
        other, _ = _rows(*pair)
        np.testing.assert_allclose(other, values, atol=3e-6)


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e18])
def test_the_loss_has_no_unit(scale):
    sample = rotated_pairs()
    factor = np.array([scale] * 4 + [1])
    pairs = (sample.prediction, sample.target), (sample.prediction * factor, sample.target * factor)
    plain, scaled = (_rows(*pair) for pair in pairs)
    np.testing.assert_allclose(scaled[0], plain[0], rtol=2e-6)
    np.testing.assert_allclose(scaled[1][0] * factor, plain[1][0], rtol=1e-4, atol=1e-5)


def test_boxes_far_from_the_origin_lose_nothing():
    """Coordinates enter as one difference; pixels of a large mosaic are no worse than others."""
    rng = np.random.default_rng(3)
    a, b = (np.round(4 * random_boxes(rng, 100)) / 4 for _ in range(2))
    shift = np.array([2.0**20, -(2.0**20), 0, 0, 0])
    values, gradients = _rows(a, b)
    moved, slopes = _rows(a + shift, b + shift)
    np.testing.assert_array_equal(moved, values)
    np.testing.assert_array_equal(slopes, gradients)


def test_degenerate_pairs_have_finite_values_and_gradients():
    """Parallel edges, coincident ones, points, segments, and sizes far apart."""
    extents = [0.0, 1e-18, 1e-4, 1.0, 1e18, -2.0]
    rows = [
        (x, 0.0, w, h, angle)
        for x in (0.0, 0.5, 1.0, 1e18)
        for w in extents
        for h in extents
        for angle in (0.0, 0.4, np.pi / 2)
    ]
    rows = np.array(rows)
    first, second = np.meshgrid(np.arange(len(rows)), np.arange(0, len(rows), 7))
    first, second = first.ravel(), second.ravel()
    values, gradients = _rows(rows[first], rows[second])
    assert ((values >= 0) & (values <= 1)).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    same, gradients = _rows(rows, rows)
    np.testing.assert_array_equal(same, 0)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_nan_sides_stay_where_they_are():
    bad = np.array([0, 0, np.nan, 1, 0])
    good = np.array([0, 0, 1.0, 1, 0.2])
    values, gradients = _rows([bad, good, good], [good, bad, good])
    assert np.isnan(values[:2]).all()
    assert values[2] == 0
    assert all(np.isfinite(gradient[2]).all() for gradient in gradients)


def test_edges_that_almost_coincide_are_no_special_case():
    """An edge inside or outside by a rounding: neither counted twice nor lost."""
    rng = np.random.default_rng(4)
    boxes = random_boxes(rng, 2000).astype(np.float32)
    boxes[:, :2] = 0
    noise = 10.0 ** rng.uniform(-8, -3, (2000, 1)) * rng.normal(size=(2000, 5))
    moved = (boxes + noise).astype(np.float32)
    values, gradients = _rows(moved, boxes)
    expected = 1 - _iou(moved.astype(float), boxes.astype(float))
    np.testing.assert_allclose(values, expected, atol=1e-6)
    # Each side moves the IoU by at most its length over the area, the angle by its diagonal.
    assert all(np.abs(gradient).max() < 20 for gradient in gradients)


def test_the_gradient_of_coincident_edges_is_the_mean_of_both_sides():
    """Two boxes of one height, side by side and overlapping: I = s h, s = 3 at the start."""
    box, target = np.array([0.0, 0, 4, 2, 0]), np.array([1.0, 0, 4, 2, 0])
    _, (gradient, _) = _rows(box, target)
    union = 16 - 6
    shares = lambda slope, area: -(slope * union - 6 * (area - slope)) / union**2
    by_x = shares(2.0, 0.0)
    by_w = shares(1.0, 2.0)
    by_h = (shares(0.0, 4.0) + shares(3.0, 4.0)) / 2  # an edge outside, an edge inside
    np.testing.assert_allclose(gradient[0, :4], [by_x, 0, by_w, by_h], atol=1e-6)


def test_a_segment_grows():
    """A box without width has a gradient as long as it lies inside."""
    _, (gradient, _) = _rows([0, 0, 0, 1, 0.3], [0, 0, 2, 2, 0])
    np.testing.assert_allclose(gradient[0, 2], -1 / 4, rtol=1e-5)


@pytest.mark.slow
def test_second_derivatives_are_finite_everywhere():
    rows = np.array(
        [[0, 0, 2, 1, 0.3], [0, 0, 2, 1, 0], [1, 0, 2, 1, 0], [9, 0, 2, 1, 0], [0, 0, 0, 0, 0]],
        np.float32,
    )
    targets = np.stack([rows[0], rows[1], rows[1], rows[1], rows[4]])
    slopes = np.random.default_rng(5).normal(size=rows.shape).astype(np.float32)

    @jax.jit
    @jax.vmap
    def curvature(box, target, slope):
        gradient = jax.grad(lambda box: jaxloss.rotated_iou(box, target))
        return jax.jvp(gradient, (box,), (slope,))[1]

    assert np.isfinite(curvature(rows, targets, slopes)).all()


def _shapely_iou(a, b):
    shapely = pytest.importorskip("shapely")
    first, second = (shapely.polygons(corners(boxes)) for boxes in (a, b))
    shared = shapely.area(shapely.intersection(first, second))
    return shared / (shapely.area(first) + shapely.area(second) - shared)


def _slender(rng, count):
    """Boxes of aspect up to 1e4, on top of each other."""
    boxes = random_boxes(rng, count, spread=1)
    boxes[:, 3] *= 10.0 ** rng.uniform(-4, 0, count)
    return boxes


@pytest.mark.parametrize("make", [functools.partial(random_boxes, spread=6), _slender])
def test_ten_thousand_pairs_equal_shapely(make):
    rng = np.random.default_rng(6)
    a, b = make(rng, 10_000), make(rng, 10_000)
    with jax.enable_x64(True):
        value = geometry.rotated_iou(a, b)
        np.testing.assert_allclose(value, _shapely_iou(a, b), atol=1e-12)
    a, b = a.astype(np.float32), b.astype(np.float32)
    value = geometry.rotated_iou(a, b)
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, _shapely_iou(a.astype(float), b.astype(float)), atol=1e-6)
