"""EIoU and SIoU: oracles, cases and closed forms."""

import jax.numpy as jnp
import numpy as np

import jaxloss
from tests.boxes.pairs import invalid, oracle, samples
from tests.registry import Case, box_pairs


def eiou(p):
    return 1 - p.iou + p.offset + (((p.size - p.target) / p.hull) ** 2).sum(-1)


def _siou(p, theta=4.0):
    dx, dy = np.moveaxis(p.apart, -1, 0)
    angle = np.sin(2 * np.arcsin(np.abs(dy) / np.hypot(dx, dy)))
    distance = (1 - np.exp(-(2 - angle[..., None]) * (p.apart / p.hull) ** 2)).sum(-1)
    unlike = np.abs(p.size - p.target) / np.maximum(p.size, p.target)
    shape = ((1 - np.exp(-unlike)) ** theta).sum(-1)
    return 1 - p.iou + (distance + shape) / 2


CASES = {
    "eiou": Case(oracle(eiou), samples(), invalid(), {}, "smooth", 1.0),
    "siou": Case(
        oracle(_siou),
        (*samples(), box_pairs("theta", theta=2.5)),
        invalid(("theta", -1.0, "-1.0", "number in")),
        {"theta": (3.0, -1.0)},
        "smooth",
        2.25,
    ),
}

A, T = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])


def test_eiou_adds_the_sides_to_diou():
    """Not the differences of the centres, as in the code released with WIoU."""
    np.testing.assert_allclose(jaxloss.eiou(A, T), 0.8 + 2 / 25 + (2 / 4) ** 2, 1e-6)


def test_siou_of_one_pair():
    """Centres a diagonal step apart: the angle is 45 degrees, the exponent 1 of the two."""
    distance = (1 - np.exp(-1 / 9)) + (1 - np.exp(-1 / 16))
    shape = (1 - np.exp(-0.5)) ** 4
    np.testing.assert_allclose(jaxloss.siou(A, T), 0.8 + (distance + shape) / 2, 1e-6)


def test_mmdetection_10290_siou_grows_with_the_distance():
    """The sign of the exponent was wrong: boxes far apart cost 0."""
    shift = jnp.array([1.0, 0.0, 1.0, 0.0])
    boxes = jnp.stack([A + step * shift for step in (0.0, 1.0, 3.0, 30.0, 300.0)])
    values = jaxloss.siou(boxes, jnp.broadcast_to(A, boxes.shape), reduction="none")
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(values[-1], 1 + (1 - np.exp(-2 * (300 / 302) ** 2)) / 2, 1e-6)


def test_siou_along_an_axis_has_no_angle():
    value = jaxloss.siou(A + jnp.array([1.0, 0.0, 1.0, 0.0]), A)
    np.testing.assert_allclose(value, 2 / 3 + (1 - np.exp(-2 / 9)) / 2, 1e-6)
