"""Regression losses: oracles, cases and closed forms."""

import numpy as np
import pytest

import jaxloss
from tests.registry import Case, Invalid, reduced, values


def _l2(prediction, target, where=None, weights=None, reduction="mean"):
    return reduced((prediction - target) ** 2, reduction, where, weights)


def _huber(prediction, target, where=None, weights=None, reduction="mean", delta=1.0):
    size = np.abs(prediction - target)
    loss = np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return reduced(loss, reduction, where, weights)


ONES = np.ones((3,))
_INVALID = (
    Invalid((np.ones((3, 1)), ONES), {}, ValueError, ("targets", r"\(3,\)", r"\(3, 1\)")),
    Invalid((np.ones(3, int), ONES), {}, TypeError, ("predictions", "int", "floating")),
    Invalid((ONES, ONES), {"reduction": "avg"}, ValueError, ("reduction", "avg", "mean")),
    Invalid((ONES, ONES), {"where": ONES}, TypeError, ("where", "float", "bool")),
    Invalid((ONES, ONES), {"where": np.ones((1, 3), bool)}, ValueError, ("where", "shape", "rank")),
)

CASES = {
    "l2": Case(_l2, (values(),), _INVALID, {}, "smooth", 0.1),
    "huber": Case(
        _huber,
        (values(), values("wide", delta=3.0)),
        (
            *_INVALID,
            Invalid((ONES, ONES), {"delta": -1.0}, ValueError, ("delta", "-1", r"\[0, inf\)")),
        ),
        {"delta": (1.3, -1.0)},
        "kinked",
        1.1,
    ),
}


@pytest.mark.parametrize(
    "error, expected", [(0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (3.0, 2.5), (-1e20, 1e20)]
)
def test_huber_is_squared_near_and_linear_far(error, expected):
    assert jaxloss.huber([error], [0.0]) == np.float32(expected)


def test_huber_without_a_squared_part_is_zero():
    assert jaxloss.huber([3.0], [1.0], delta=0.0) == 0.0
