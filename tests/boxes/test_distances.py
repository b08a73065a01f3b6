"""Losses on distances in a unit of their own: oracles, cases and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.boxes.pairs import invalid, oracle, samples
from tests.registry import Case, box_pairs


def _size(image_size):
    return np.broadcast_to(np.asarray(image_size, float), (2,))


def _mpdiou(p, image_size):
    first, last = p.apart - (p.size - p.target) / 2, p.apart + (p.size - p.target) / 2
    return 1 - p.iou + (first**2 + last**2).sum(-1) / (_size(image_size) ** 2).sum()


def _nwd(p, constant):
    squares = (p.apart**2).sum(-1) + ((p.size - p.target) ** 2).sum(-1) / 4
    return 1 - np.exp(-np.sqrt(squares) / constant)


def _sqrt_size_l2(p):
    return (p.apart**2 + (np.sqrt(p.size) - np.sqrt(p.target)) ** 2).sum(-1)


def _area_scaled_l2(p, image_size=(1.0, 1.0)):
    scale = 2 - p.target.prod(-1) / _size(image_size).prod()
    return scale * (p.apart**2 + (p.size - p.target) ** 2).sum(-1)


_IMAGE = np.array([6.0, 8.0])
_WRONG_SHAPE = ("image_size", np.ones(3), r"\(3,\)", "height and width")

CASES = {
    "mpdiou": Case(
        oracle(_mpdiou),
        (*samples(image_size=7.0), box_pairs("oblong", image_size=_IMAGE)),
        invalid(("image_size", 0.0, "0.0", "number in"), _WRONG_SHAPE, image_size=2.0),
        {"image_size": (5.0, -1.0)},
        "smooth",
        1.25,
    ),
    "nwd": Case(
        oracle(_nwd),
        samples(constant=2.5),
        invalid(("constant", 0.0, "0.0", "number in"), constant=2.0),
        {"constant": (3.0, -1.0)},
        "smooth",
        0.5,
    ),
    "sqrt_size_l2": Case(oracle(_sqrt_size_l2), samples(), invalid(), {}, "smooth", 3.25),
    "area_scaled_l2": Case(
        oracle(_area_scaled_l2),
        (*samples(), box_pairs("oblong", image_size=_IMAGE)),
        invalid(("image_size", -1.0, "-1.0", "number in"), _WRONG_SHAPE),
        {"image_size": (5.0, -1.0)},
        "smooth",
        2.25,
    ),
}

A, T = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])


@pytest.mark.parametrize("name, argument", [("mpdiou", "image_size"), ("nwd", "constant")])
def test_a_scale_that_has_no_default_must_be_given(name, argument):
    loss = getattr(jaxloss, name)
    with pytest.raises(TypeError, match=f"{name}: `{argument}` is missing"):
        loss(A, T)


def test_mpdiou_of_one_pair():
    """The corners are 1 and sqrt(5) apart, in an image whose diagonal is 10."""
    value = jaxloss.mpdiou(A, T, image_size=(6, 8))
    np.testing.assert_allclose(value, 0.8 + (1 + 5) / 100, 1e-6)
    np.testing.assert_allclose(jaxloss.mpdiou(A, T, image_size=jnp.array([8.0, 6.0])), value)


def test_mpdiou_in_a_unit_whose_squares_overflow():
    value = jaxloss.mpdiou(1e18 * A, 1e18 * T, image_size=(6e18, 8e18))
    np.testing.assert_allclose(value, 0.86, 1e-6)


def test_nwd_of_one_pair():
    """Centres 1 across and 1 down, heights 2 apart."""
    value = jaxloss.nwd(A, T, constant=2.0)
    np.testing.assert_allclose(value, 1 - np.exp(-np.sqrt(1 + 1 + 4 / 4) / 2), 1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e-18, 1e18, 1e25])
def test_nwd_in_a_unit_whose_squares_vanish_or_overflow(scale):
    run = jax.value_and_grad(lambda a: jaxloss.nwd(a, scale * T, constant=2.0 * scale))
    value, gradient = run(scale * A)
    np.testing.assert_allclose(value, 1 - np.exp(-np.sqrt(3) / 2), 1e-6)
    assert jnp.isfinite(gradient).all()


def test_nwd_of_identical_boxes_has_no_gradient():
    assert not jax.grad(jaxloss.nwd)(A, A, 2.0).any()


def test_sqrt_size_l2_of_one_pair():
    value = jaxloss.sqrt_size_l2(A, T)
    np.testing.assert_allclose(value, 1 + 1 + (np.sqrt(2) - 2) ** 2, 1e-6)


def test_sqrt_size_l2_of_boxes_without_size_has_a_finite_gradient():
    """The root of a side has an infinite derivative at 0: 0 here; a negative side is 0."""
    boxes = jnp.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, -2.0, 1.0]])
    targets = jnp.array([[1.0, 1.0, 4.0, 9.0], [1.0, 1.0, 4.0, 1.0]])
    loss = lambda x: jaxloss.sqrt_size_l2(x, targets, format="cxcywh", reduction="none")
    values, pull = jax.vjp(loss, boxes)
    np.testing.assert_allclose(values, [4 + 9, 4], 1e-6)
    np.testing.assert_array_equal(pull(jnp.ones(2))[0], 0)


def test_area_scaled_l2_scales_small_targets_up():
    boxes = jnp.array([[0.5, 0.5, 0.2, 0.2]] * 2)
    targets = jnp.array([[0.6, 0.5, 0.5, 0.8], [0.6, 0.5, 0.0, 0.0]])
    value = jaxloss.area_scaled_l2(boxes, targets, format="cxcywh", reduction="none")
    expected = [(2 - 0.4) * (0.01 + 0.09 + 0.36), 2 * (0.01 + 0.04 + 0.04)]
    np.testing.assert_allclose(value, expected, 1e-5)
    pixels = jnp.array([[8.0, 6.0, 8.0, 6.0]])
    scaled = jaxloss.area_scaled_l2(
        boxes * pixels, targets * pixels, format="cxcywh", image_size=(6, 8), reduction="none"
    )
    by_axis = [0.01 * 64 + 0.09 * 64 + 0.36 * 36, 0.01 * 64 + 0.04 * 64 + 0.04 * 36]
    np.testing.assert_allclose(scaled, np.array([1.6, 2]) * by_axis, 1e-5)


@pytest.mark.parametrize("shift", [1e-6, 1e-3])
@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (jaxloss.nwd, {"constant": 2.0}),
        (jaxloss.sqrt_size_l2, {}),
        (jaxloss.area_scaled_l2, {"image_size": 5.0}),
        (jaxloss.bounded_iou, {}),
        (jaxloss.inner_iou, {"base": "giou"}),
        (jaxloss.eiou, {}),
        (jaxloss.siou, {}),
    ],
)
def test_what_nearly_equal_boxes_differ_by_keeps_its_digits(loss, options, shift):
    """Against 64 bits of the same numbers: sides are never rounded before they are compared."""
    rng = np.random.default_rng(0)
    corner, size = rng.normal(size=(200, 2)), rng.uniform(0.5, 3, (200, 2))
    b = np.concatenate([corner, corner + size], 1).astype(np.float32)
    a = (b + shift * rng.normal(size=b.shape)).astype(np.float32)
    run = lambda a, b: (
        loss(a, b, reduction="none", **options),
        jax.grad(lambda a: loss(a, b, reduction="sum", **options))(a),
    )
    value, slope = map(np.asarray, run(a, b))
    with jax.enable_x64(True):
        exact, exact_slope = map(np.asarray, run(a.astype(np.float64), b.astype(np.float64)))
    np.testing.assert_allclose(value, exact, rtol=5e-6)
    assert (np.abs(slope - exact_slope).max(1) < 1e-5 * np.abs(exact_slope).max(1)).all()
