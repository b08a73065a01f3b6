"""Box losses: oracles, cases and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import geometry
from tests.registry import Case, Invalid, box_pairs, reduced


def _parts(a, b, format="xyxy"):
    """IoU, enclosing size, centre difference and sizes, straight from the definitions."""
    a, b = (_corners(box, format) for box in (a, b))
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = size_a.prod(-1) + size_b.prod(-1) - shared
    hull = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return shared / union, union, hull, apart, size_a, size_b


def _corners(box, format):
    first, second = box[..., :2], box[..., 2:]
    if format == "cxcywh":
        return np.concatenate([first - second / 2, first + second / 2], -1)
    return np.concatenate([first, second if format == "xyxy" else first + second], -1)


def _giou(prediction, target, where=None, weights=None, reduction="mean", format="xyxy"):
    iou, union, hull, *_ = _parts(prediction, target, format)
    area = hull.prod(-1)
    return reduced(1 - iou + (area - union) / area, reduction, where, weights)


def _ciou_terms(prediction, target, format, gate):
    iou, _, hull, apart, a, b = _parts(prediction, target, format)
    turn = np.arctan(a[..., 0] / a[..., 1]) - np.arctan(b[..., 0] / b[..., 1])
    v = 4 / np.pi**2 * turn**2
    weight = v / (1 - iou + v)
    if gate is not None:
        weight = np.where(iou > gate, weight, 0)
    return 1 - iou + (apart**2).sum(-1) / (hull**2).sum(-1), v, weight


def _ciou(prediction, target, where=None, weights=None, reduction="mean", format="xyxy", gate=None):
    plain, v, weight = _ciou_terms(prediction, target, format, gate)
    return reduced(plain + weight * v, reduction, where, weights)


def _ciou_gradient(prediction, target, format="xyxy", gate=None):
    """The gradient of the sum by central differences, the weight of `v` held constant."""
    fixed = _ciou_terms(prediction, target, format, gate)[2]
    gradient, step = np.zeros(prediction.shape), 1e-6
    for index in np.ndindex(*prediction.shape):
        ends = []
        for sign in (1, -1):
            moved = prediction.copy()
            moved[index] += sign * step
            plain, v, _ = _ciou_terms(moved, target, format, gate)
            ends.append((plain + fixed * v).sum())
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


B = np.ones((3, 4))
_INVALID = (
    Invalid((B[:, :3], B[:, :3]), {}, ValueError, ("boxes", r"\(3, 3\)", "four numbers")),
    Invalid((B, B[:1]), {}, ValueError, ("target_boxes", r"\(1, 4\)", r"\(3, 4\)")),
    Invalid((B.astype(int), B), {}, TypeError, ("boxes", "int", "floating")),
    Invalid((B, B), {"format": "yxyx"}, ValueError, ("format", "'yxyx'", "'cxcywh'")),
    Invalid((B, B), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
    Invalid((B, B), {"where": np.ones(3)}, TypeError, ("where", "float", "bool")),
    Invalid((B, B), {"where": np.ones((3, 4), bool)}, ValueError, ("where", r"\(3, 4\)", "rank")),
)
_SAMPLES = (
    box_pairs(),
    box_pairs("centres", seed=1, format="cxcywh"),
    box_pairs("corners", seed=2, format="xywh"),
)

CASES = {
    "giou": Case(_giou, _SAMPLES, _INVALID, {}, "smooth", 4.4),
    "ciou": Case(
        _ciou,
        (*_SAMPLES, box_pairs("gated", gate=0.2)),
        (*_INVALID, Invalid((B, B), {"gate": 1.5}, ValueError, ("gate", "1.5", r"\[0, 1\]"))),
        {"gate": (0.1, -1.0)},
        "detached",
        7.0,
        _ciou_gradient,
    ),
}

LOSSES = (jaxloss.giou, jaxloss.ciou)


@pytest.mark.parametrize("loss", LOSSES)
def test_identical_boxes_cost_nothing_at_any_size(loss):
    sides = 10.0 ** jnp.arange(-18.0, 19.0, 2.0)
    boxes = jnp.stack([3 * sides, sides, 4 * sides, 3 * sides], -1)
    np.testing.assert_array_equal(loss(boxes, boxes, reduction="none"), 0 * sides)
    pixel = jnp.array([0.5, 0.5, 0.5 + 1 / 3840, 0.5 + 1 / 2160])
    assert loss(pixel, pixel) == 0.0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1e6, 1e15])
def test_losses_do_not_depend_on_the_unit(loss, scale):
    sample = box_pairs()
    a, b = (jnp.asarray(x, jnp.float32) for x in (sample.prediction, sample.target))
    scaled = loss(a * scale, b * scale, reduction="none")
    np.testing.assert_allclose(scaled, loss(a, b, reduction="none"), rtol=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_degenerate_boxes_have_finite_values_and_gradients(loss):
    extents = [0.0, 1e-18, 1.0, 1e18, -2.0]
    boxes = jnp.array(
        [
            [x, y, x + w, y + h]
            for x in (0.0, 5.0)
            for y in (0.0, 3.0)
            for w in extents
            for h in extents
        ]
    )
    pairs = jnp.stack(jnp.broadcast_arrays(boxes[:, None], boxes[None]))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))), static_argnames=())(
        *pairs.reshape(2, -1, 4)
    )
    assert jnp.isfinite(values).all()
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_disjoint_boxes_are_pulled_together(loss):
    boxes, targets = jnp.array([10.0, 0.0, 12.0, 1.0]), jnp.array([0.0, 0.0, 1.0, 2.0])
    gradient = jax.grad(loss)(boxes, targets)
    assert gradient[0] + gradient[2] > 0


def test_ciou_differs_from_diou_only_by_the_aspect():
    a, b = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])
    turn = np.arctan(1.0) - np.arctan(0.5)
    v = 4 / np.pi**2 * turn**2
    iou = 2 / 10
    np.testing.assert_allclose(geometry.diou(a, b), iou - 2 / 25, 1e-6)
    np.testing.assert_allclose(geometry.ciou(a, b), iou - 2 / 25 - v**2 / (1 - iou + v), 1e-6)


@pytest.mark.parametrize("source", geometry.FORMATS)
@pytest.mark.parametrize("target", geometry.FORMATS)
def test_formats_convert_both_ways(source, target):
    boxes = jnp.array([[1.0, 2.0, 5.0, 8.0], [0.0, 0.0, 0.0, 3.0]])
    there = geometry.convert(boxes, source, target)
    np.testing.assert_allclose(geometry.convert(there, target, source), boxes, atol=1e-6)
