"""Bounded and extended IoU: oracles, cases and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.boxes.pairs import corners, invalid, oracle, samples
from tests.registry import Case, box_pairs, reduced


def _smooth(r, beta):
    return np.where(r < beta, r**2 / (2 * beta), r - beta / 2)


def _bounded_iou(p, beta=0.2):
    far = 2 * np.abs(p.apart)
    centre = 1 - np.maximum((p.target - far) / (p.target + far), 0)
    side = 1 - np.minimum(p.size / p.target, p.target / p.size)
    return (_smooth(centre, beta) + _smooth(side, beta)).sum(-1)


def _extended_iou(
    prediction, target, where=None, weights=None, reduction="mean", format="xyxy", beta=0.1
):
    """As the paper's appendix and the docstring have it, all corners from the enclosing one."""
    a, b = corners(prediction, format), corners(target, format)
    e = np.minimum(a[..., :2], b[..., :2])
    i, j = np.maximum(a[..., :2], b[..., :2]) - e, np.minimum(a[..., 2:], b[..., 2:]) - e
    m, top = np.minimum(i, j), np.maximum(i, j)
    inter = j.prod(-1) + m.prod(-1) - i[..., 0] * top[..., 1] - top[..., 0] * i[..., 1]
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return reduced(_smooth(1 - inter / (areas - inter), beta), reduction, where, weights)


_WRONG_BETA = ("beta", 0.0, "0.0", "number in")

CASES = {
    "bounded_iou": Case(
        oracle(_bounded_iou),
        (*samples(), box_pairs("beta", beta=0.6)),
        invalid(_WRONG_BETA),
        {"beta": (0.3, -1.0)},
        "kinked",
        1.5,
    ),
    "extended_iou": Case(
        _extended_iou,
        (*samples(), box_pairs("beta", beta=0.6)),
        invalid(_WRONG_BETA),
        {"beta": (0.3, -1.0)},
        "smooth",
        0.5,
    ),
}


def test_bounded_iou_adds_a_bound_for_each_number():
    """A shift of 1 in a width of 2 leaves nothing certain; twice the height leaves a half."""
    a, b = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])
    expected = (1 - 0.1) + (4 / 6 - 0.1) + 0 + (0.5 - 0.1)
    np.testing.assert_allclose(jaxloss.bounded_iou(a, b), expected, 1e-6)


@pytest.mark.parametrize("shift, r", [(0.0, 0.0), (1.0, 2 / 3), (2.0, 1.0), (3.0, 1.2)])
def test_extended_iou_of_shifted_squares(shift, r):
    """With a gap of 1, I = -2 and A + A' - I = 10."""
    a = jnp.array([0.0, 0.0, 2.0, 2.0])
    value = jaxloss.extended_iou(a + jnp.array([shift, 0.0, shift, 0.0]), a)
    np.testing.assert_allclose(value, max(r - 0.05, 0), 1e-6)


def test_extended_iou_pulls_disjoint_boxes_and_iou_does_not():
    a, b = jnp.array([5.0, 0.0, 6.0, 1.0]), jnp.array([0.0, 0.0, 1.0, 1.0])
    gradient = jax.grad(jaxloss.extended_iou)(a, b)
    assert gradient[0] + gradient[2] > 0
    assert not jax.grad(jaxloss.iou)(a, b).any()
