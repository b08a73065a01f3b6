"""Depth maps: oracle, case and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.registry import Case, Invalid, Sample


def _scale_invariant_log(
    prediction, target, where=None, weights=None, reduction="mean", variance_focus=0.85
):
    valid = (prediction > 0) & (target > 0) & (True if where is None else where)
    costs = []
    for p, t, v, w in zip(
        prediction, target, valid, np.ones(valid.shape) if weights is None else weights, strict=True
    ):
        if (v * w).any():
            d, w = np.log(p[v]) - np.log(t[v]), w[v] / w[v].sum()
            costs.append(np.sqrt((w * d**2).sum() - variance_focus * (w * d).sum() ** 2))
        else:
            costs.append(np.nan)
    costs = np.array(costs)
    if reduction == "none":
        return np.nan_to_num(costs)
    if reduction == "sum":
        return np.nansum(costs)
    return np.nanmean(costs)


def _depths(name, **options):
    prediction, target = np.random.default_rng(0).uniform(0.3, 9, (2, 4, 3, 5))
    return Sample(name, prediction, target, options, prediction.shape)


def _gaps(name, **options):
    """Pixels without a depth, of the target or of the prediction."""
    sample = _depths(name, **options)
    rng = np.random.default_rng(1)
    target = np.where(rng.random(sample.target.shape) < 0.3, -2, sample.target)
    prediction = np.where(rng.random(sample.target.shape) < 0.2, -1, sample.prediction)
    return sample._replace(prediction=prediction, target=target)


X = np.ones((2, 3))
CASES = {
    "scale_invariant_log": Case(
        _scale_invariant_log,
        (_depths("depths"), _gaps("gaps", variance_focus=0.5)),
        (
            Invalid((X.astype(int), X), {}, TypeError, ("predictions", "int", "floating")),
            Invalid((X, X[:1]), {}, ValueError, ("targets", r"\(1, 3\)", "predictions")),
            Invalid((X[0], X[0]), {}, ValueError, ("predictions", r"x\[None\]")),
            Invalid((X, X), {"where": X}, TypeError, ("where", "float", "bool")),
            Invalid((X, X), {"weights": X[0]}, ValueError, ("weights", "rank")),
            Invalid((X, X), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
            Invalid((X, X), {"variance_focus": 1.5}, ValueError, ("variance_focus", "number in")),
        ),
        {"variance_focus": (0.6, 1.5)},
        "smooth",
        3.0,
    ),
}


def test_one_factor_costs_its_logarithm():
    """All of it, the square root of what the focus leaves, or nothing."""
    target = np.random.default_rng(0).uniform(1, 9, (1, 50)).astype(np.float32)
    for focus, share in ((0.0, 1.0), (0.75, 0.5), (1.0, 0.0)):
        loss = jaxloss.scale_invariant_log(2 * target, target, variance_focus=focus)
        np.testing.assert_allclose(loss, share * np.log(2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("focus", [0.85, 1.0])
def test_exact_depths_cost_nothing_with_zero_gradient(focus):
    """The root of 0 has an infinite derivative."""
    depth = jnp.array([[1.0, 2.0, 7.0], [3.0, 3.0, 3.0]])
    run = lambda x: jaxloss.scale_invariant_log(x, depth, variance_focus=focus)
    value, gradient = jax.value_and_grad(run)(depth)
    assert value == 0
    assert not gradient.any()


def test_pixels_without_depth_reach_nothing():
    """Nor does an image that has no other ones count in the mean."""
    depth = jnp.array([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]])
    target = jnp.array([[2.0, 0.0, 5.0], [0.0, -1.0, 0.0]])
    value, gradient = jax.value_and_grad(jaxloss.scale_invariant_log)(depth, target)
    expected = jaxloss.scale_invariant_log([[1.0, 3.0]], [[2.0, 5.0]])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert gradient[0, 1] == 0
    assert not gradient[1].any()
    assert gradient[0, ::2].all()


def test_bad_depths_are_not_hidden():
    """NaN is no measurement that is missing."""
    bad = jnp.array([[1.0, jnp.nan]])
    fine = jnp.ones((1, 2))
    assert jnp.isnan(jaxloss.scale_invariant_log(bad, fine))
    assert jnp.isnan(jaxloss.scale_invariant_log(fine, bad))


def test_nearly_exact_depths_keep_their_digits():
    """mean d^2 - (mean d)^2 cancels: about 0.7 plus or minus 1e-4 nothing would be left of it."""
    target = np.array([[1.0, 1.0, 1.0, 1.0]], np.float32)
    depth = (2 * (1 + 1e-4 * np.array([[1, -1, 1, -1]]))).astype(np.float32)
    d = np.log(depth.astype(np.float64))
    loss = jaxloss.scale_invariant_log(depth, target, variance_focus=1.0)
    np.testing.assert_allclose(loss, d.std(), rtol=2e-3)  # the logarithms have 7 digits
