"""Focal EIoU and wise IoU: oracles, cases, closed forms and the running mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.boxes.pairs import B, detached, invalid, parts, samples
from tests.boxes.test_sides import eiou
from tests.registry import Case, Invalid, box_pairs

_focal_value, _focal_gradient = detached(
    lambda p, weight, gamma=0.5: weight * eiou(p), lambda p, gamma=0.5: p.iou**gamma
)
_wiou_value, _wiou_gradient = detached(
    lambda p, diagonal, **_: np.exp((p.apart**2).sum(-1) / diagonal) * (1 - p.iou),
    lambda p, **_: (p.hull**2).sum(-1),
)

CASES = {
    "focal_eiou": Case(
        _focal_value,
        (*samples(), box_pairs("gamma", gamma=1.5)),
        invalid(("gamma", -1.0, "-1.0", "number in")),
        {"gamma": (0.7, -1.0)},
        "detached",
        1.25,
        _focal_gradient,
    ),
    "wiou": Case(
        _wiou_value,
        samples(),
        (
            *invalid(("version", 4, "4", "1 or 2 or 3"), ("mean", 1.0, "given", "version 1")),
            Invalid((B, B), {"version": 2}, ValueError, ("mean", "None", "1.0 at first")),
            Invalid((B, B), {"version": 3}, ValueError, ("mean", "None", "version 3")),
            *(
                Invalid((B, B), {"version": version, "mean": 1.0} | wrong, ValueError, words)
                for version, wrong, words in (
                    (2, {"mean": -1.0}, ("mean", "-1.0")),
                    (2, {"mean": np.ones(2)}, ("mean", r"\(2,\)", "one number")),
                    (2, {"momentum": 1.5}, ("momentum", "1.5")),
                    (2, {"gamma": -1.0}, ("gamma", "-1.0")),
                    (3, {"alpha": 0.0}, ("alpha", "0.0")),
                    (3, {"delta": 0.0}, ("delta", "0.0")),
                )
            ),
        ),
        {},
        "detached",
        0.5,
        _wiou_gradient,
    ),
}


def test_focal_eiou_of_disjoint_boxes_is_nothing():
    a, b = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([2.0, 0.0, 3.0, 1.0])
    value, gradient = jax.value_and_grad(jaxloss.focal_eiou)(a, b)
    assert value == 0
    assert not gradient.any()


def test_focal_eiou_without_focus_is_eiou():
    a, b = box_pairs()[1:3]
    value = jaxloss.focal_eiou(a, b, gamma=0.0, reduction="none")
    np.testing.assert_allclose(value, jaxloss.eiou(a, b, reduction="none"), 1e-6)


def _wise(p, version, mean, momentum, alpha, delta, gamma, where=None):
    miss = 1 - p.iou
    mean = (1 - momentum) * mean + momentum * miss[slice(None) if where is None else where].mean()
    b = miss / mean
    focus = b**gamma if version == 2 else b / (delta * alpha ** (b - delta))
    return focus * np.exp(p.offset) * miss, mean


OPTIONS = {"momentum": 0.25, "alpha": 1.7, "delta": 2.7, "gamma": 0.75}


@pytest.mark.parametrize("version", [2, 3])
def test_wiou_with_a_running_mean(version):
    """Value, new mean, mask and gradient, which the focus only scales."""
    sample = box_pairs()
    where = np.arange(8) % 3 > 0
    p = parts(sample.prediction, sample.target)
    each, mean = _wise(p, version, 0.5, **OPTIONS, where=where)
    with jax.enable_x64(True):
        a, b = jnp.asarray(sample.prediction), jnp.asarray(sample.target)
        given = {"version": version, "mean": jnp.asarray(0.5), "where": where, **OPTIONS}
        loss = functools.partial(jaxloss.wiou, **given)

        @jax.jit
        def run(a):
            values, _ = loss(a, b, reduction="none")
            gradient, updated = jax.grad(loss, has_aux=True)(a, b)
            return values, gradient, updated, loss(a, b)[0]

        values, gradient, updated, total = run(a)
    np.testing.assert_allclose(updated, mean, 1e-12)
    np.testing.assert_allclose(values, np.where(where, each, 0), 1e-9)
    np.testing.assert_allclose(total, each[where].mean(), 1e-9)
    focus = each / (np.exp(p.offset) * (1 - p.iou))
    plain = _wiou_gradient(sample.prediction, sample.target)
    expected = np.where(where, focus, 0)[:, None] * plain / where.sum()
    np.testing.assert_allclose(gradient, expected, 1e-6, 1e-9)


def test_wiou_3_weighs_a_pair_of_the_rank_delta_with_one():
    a, b = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])
    value, mean = jaxloss.wiou(a, b, version=3, mean=0.8 / 3, momentum=0.0)
    np.testing.assert_allclose(value, jaxloss.wiou(a, b), 1e-6)
    np.testing.assert_allclose(mean, 0.8 / 3, 1e-6)


@pytest.mark.parametrize("version", [2, 3])
def test_wiou_keeps_its_mean_where_nothing_is_valid(version):
    boxes = jnp.ones((3, 4))
    nothing = jnp.zeros(3, bool)
    value, mean = jaxloss.wiou(boxes, boxes, version=version, mean=0.75, where=nothing)
    assert value == 0
    assert mean == 0.75


def test_wiou_carries_its_mean_through_a_scan():
    """One program; the mean moves towards that of the data, as the recursion says."""
    a, b = (jnp.asarray(x, jnp.float32) for x in box_pairs()[1:3])

    def step(mean, _):
        loss, mean = jaxloss.wiou(a, b, version=3, mean=mean, momentum=0.1)
        return mean, loss

    mean, losses = jax.lax.scan(step, jnp.float32(1), length=20)
    miss = float(jaxloss.iou(a, b))
    np.testing.assert_allclose(mean, miss + 0.9**20 * (1 - miss), 1e-5)
    assert losses.shape == (20,)
