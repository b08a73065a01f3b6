"""IoU, GIoU, DIoU and CIoU: oracles, cases and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import geometry
from tests.boxes.pairs import detached, invalid, oracle, samples
from tests.registry import Case, box_pairs


def _iou(p, form="linear"):
    return {
        "linear": 1 - p.iou,
        "log": -np.log(np.maximum(p.iou, 1e-6)),
        "square": 1 - p.iou**2,
    }[form]


def _trade_off(p, gate=None):
    return p.trade_off if gate is None else np.where(p.iou > gate, p.trade_off, 0)


def _ciou(p, weight, gate=None):
    return 1 - p.iou + p.offset + weight * p.aspect


_ciou_value, _ciou_gradient = detached(_ciou, _trade_off)

CASES = {
    "iou": Case(
        oracle(_iou),
        (*samples(), box_pairs("log", form="log"), box_pairs("square", form="square")),
        invalid(("form", "cubic", "'cubic'", "'log'")),
        {},
        "smooth",
        0.25,
    ),
    "giou": Case(oracle(lambda p: 1 - p.iou + p.vacancy), samples(), invalid(), {}, "smooth", 0.5),
    "diou": Case(oracle(lambda p: 1 - p.iou + p.offset), samples(), invalid(), {}, "smooth", 0.5),
    "ciou": Case(
        _ciou_value,
        (*samples(), box_pairs("gated", gate=0.2)),
        invalid(("gate", 1.5, "1.5", r"\[0, 1\]")),
        {"gate": (0.1, -1.0)},
        "detached",
        1.0,
        _ciou_gradient,
    ),
}

A, T = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])


@pytest.mark.parametrize(
    "form, value", [("linear", 0.8), ("log", np.log(5)), ("square", 1 - 0.2**2)]
)
def test_iou_of_a_fifth(form, value):
    np.testing.assert_allclose(jaxloss.iou(A, T, form=form), value, 1e-6)


@pytest.mark.parametrize("form, value", [("linear", 1), ("log", -np.log(1e-6)), ("square", 1)])
def test_iou_of_disjoint_boxes_is_constant(form, value):
    """Touching ones included; the gradient is exactly 0."""
    far = jnp.array([[2.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 7.0], [2.0, 2.0, 3.0, 3.0]])
    loss = functools.partial(jaxloss.iou, form=form)
    values, gradient = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(A, far)
    np.testing.assert_allclose(values, value, 1e-6)
    np.testing.assert_array_equal(gradient[1], 0)


def test_iou_log_is_exact_near_a_perfect_prediction():
    """`1 - IoU` is not the difference of two areas, nor its logarithm that of a rounded IoU."""
    shift = 2.0**-20
    b = A + jnp.array([shift, 0.0, shift, 0.0])
    expected = 2 * shift / (2 + shift)
    np.testing.assert_allclose(jaxloss.iou(b, A), expected, 1e-6)
    np.testing.assert_allclose(jaxloss.iou(b, A, form="log"), -np.log1p(-expected), 1e-6)
    np.testing.assert_allclose(jaxloss.iou(b, A, form="square"), 2 * expected - expected**2, 1e-6)


def test_ciou_differs_from_diou_only_by_the_aspect():
    turn = np.arctan(1.0) - np.arctan(0.5)
    v = 4 / np.pi**2 * turn**2
    loss = 0.8 + 2 / 25
    np.testing.assert_allclose(jaxloss.diou(A, T), loss, 1e-6)
    np.testing.assert_allclose(jaxloss.ciou(A, T), loss + v**2 / (0.8 + v), 1e-6)
    np.testing.assert_allclose(jaxloss.ciou(A, T, gate=0.3), loss, 1e-6)


def test_losses_are_one_minus_the_coefficients():
    a, b = (jnp.asarray(x, jnp.float32) for x in box_pairs()[1:3])
    for name in ("iou", "giou", "diou", "ciou"):
        loss = getattr(jaxloss, name)(a, b, reduction="none")
        np.testing.assert_allclose(loss, 1 - getattr(geometry, name)(a, b), 1e-5, 1e-6)
