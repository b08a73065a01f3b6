"""Angular and cosine margins: oracles, cases, closed forms and the ends of the cosine."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import jaxloss
from tests.oracles import competing, invalid_classifications, out_of_range
from tests.registry import Case, ids, soft


def _each_class(cosines, axis, target_logit, scale):
    """The cross-entropy of every class as the target, whose own logit is changed."""
    x = np.moveaxis(cosines, axis, -1)
    loss = np.empty(x.shape)
    for c in range(x.shape[-1]):
        z = x.copy()
        z[..., c] = target_logit(x[..., c])
        loss[..., c] = -log_softmax(scale * z, -1)[..., c]
    return np.moveaxis(loss, -1, axis), 0.0


def _arcface_cost(cosines, axis, scale=64.0, margin=0.5):
    return _each_class(cosines, axis, lambda c: np.cos(np.arccos(c) + margin), scale)


def _cosface_cost(cosines, axis, scale=64.0, margin=0.35):
    return _each_class(cosines, axis, lambda c: c - margin, scale)


def _cosines(sample):
    return sample._replace(prediction=0.95 * np.tanh(sample.prediction))


_SAMPLES = (
    _cosines(ids(scale=2.0)),
    _cosines(ids("default", axis=1)),
    _cosines(ids("smoothed", scale=4.0, label_smoothing=0.1)),
    _cosines(soft("soft", scale=4.0, margin=0.2)),
)
_INVALID = (
    *invalid_classifications("cosines"),
    *out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1)),
    *out_of_range(("scale", 0.0), ("scale", -1.0), ("margin", -0.1), ("margin", jnp.array(-0.1))),
)
_PARAMETERS = {"scale": (6.0, -1.0), "margin": (0.3, -0.1), "label_smoothing": (0.1, 1.5)}

CASES = {
    "arcface": Case(
        competing(_arcface_cost),
        _SAMPLES,
        (*_INVALID, *out_of_range(("margin", 3.2))),
        _PARAMETERS,
        "smooth",
        0.105,
    ),
    "cosface": Case(competing(_cosface_cost), _SAMPLES, _INVALID, _PARAMETERS, "smooth", 0.1),
}

LOSSES = [jaxloss.arcface, jaxloss.cosface]


@pytest.mark.parametrize(
    "theta, margin, scale",
    [(0.3, 0.5, 8.0), (1.2, 0.5, 64.0), (2.5, 0.2, 4.0), (3.0, 0.5, 4.0), (1.0, 3.0, 2.0)],
)
def test_arcface_closed_form(theta, margin, scale):
    """Against one rival at a right angle; also where theta + margin exceeds pi."""
    value = jaxloss.arcface([[math.cos(theta), 0.0]], [0], margin=margin, scale=scale)
    expected = math.log1p(math.exp(-scale * math.cos(theta + margin)))
    np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize(
    "cosine, rival, margin, scale", [(0.5, 0.5, 0.35, 8.0), (0.9, -0.2, 0.1, 30.0), (0, 1, 2, 1)]
)
def test_cosface_closed_form(cosine, rival, margin, scale):
    value = jaxloss.cosface([[float(cosine), float(rival)]], [0], margin=margin, scale=scale)
    expected = math.log1p(math.exp(scale * (rival - cosine + margin)))
    np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_margin_is_cross_entropy_of_the_scaled_cosines(loss):
    sample = _SAMPLES[0]
    x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
    value = loss(x, y, margin=0.0, scale=5.0, reduction="none")
    np.testing.assert_allclose(
        value, jaxloss.cross_entropy(5 * x, y, reduction="none"), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_ends_are_finite_in_value_and_gradient(loss):
    """A feature on its centre, or opposite to it, or on another's; so do their neighbours."""
    near = np.float32(1) - np.float32(2) ** -np.arange(1, 25, dtype=np.float32)
    ends = np.concatenate([near, [1.0], -near, [-1.0]]).astype(np.float32)
    target, rival = (x.reshape(-1) for x in np.meshgrid(ends, [-1.0, 0.0, 1.0]))
    rows = jnp.stack([target, rival], -1).astype(jnp.float32)
    run = jax.jit(jax.vmap(jax.value_and_grad(lambda x: loss(x, 0))))
    value, gradient = run(rows)
    assert jnp.isfinite(value).all()
    assert jnp.isfinite(gradient).all()
    forward = jax.jit(jax.vmap(jax.jacfwd(lambda x: loss(x, 0))))(rows)
    np.testing.assert_allclose(forward, gradient, rtol=1e-5, atol=1e-6)


def test_gradient_at_the_end_is_that_of_the_cosine():
    """At `theta = 0` the sine's infinite slope counts as 0: what is left is `cos(margin)`."""
    cosines = jnp.array([1.0, 0.9])
    value, gradient = jax.value_and_grad(lambda x: jaxloss.arcface(x, 0, scale=4.0))(cosines)
    logits = 4 * np.array([math.cos(0.5), 0.9])
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(value, -math.log(p[0]), rtol=1e-6)
    np.testing.assert_allclose(gradient, 4 * p[1] * np.array([-math.cos(0.5), 1]), rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_cosines_outside_by_rounding_are_the_ends(loss):
    """`arccos(1.0000001)` is NaN; here value and gradient are those at 1."""
    over = np.nextafter(np.float32(1), np.float32(2))
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        at = jax.value_and_grad(loss)(jnp.array(signs, jnp.float32), 0)
        outside = jax.value_and_grad(loss)(jnp.array(signs, jnp.float32) * over, 0)
        jax.tree.map(np.testing.assert_array_equal, outside, at)
        assert jnp.isfinite(outside[1]).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_removed_classes(loss):
    """-inf as a rival costs nothing, as the target +inf with zero gradient."""
    run = jax.value_and_grad(functools.partial(loss, scale=4.0))
    value, gradient = run(jnp.array([0.5, -jnp.inf, 0.2]), 0)
    expected, slope = run(jnp.array([0.5, 0.2]), 0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope[0], 0, slope[1]], rtol=1e-6)
    value, gradient = run(jnp.array([0.5, -jnp.inf, 0.2]), 1)
    assert value == jnp.inf
    assert not gradient.any()
    one_hot = jnp.array([1.0, 0.0, 0.0])
    value, gradient = run(jnp.array([0.5, -jnp.inf, 0.2]), one_hot)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope[0], 0, slope[1]], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_soft_labels_mix_the_losses_of_ids(loss):
    x = jnp.asarray(_SAMPLES[0].prediction[0, 0, 0], jnp.float32)
    mixed = loss(x, jnp.array([0.3, 0.0, 0.7]), scale=4.0)
    parts = [loss(x, c, scale=4.0) for c in (0, 2)]
    np.testing.assert_allclose(mixed, 0.3 * parts[0] + 0.7 * parts[1], rtol=1e-6)


@pytest.mark.parametrize(
    "name, margin, expected",
    [("cosface", 2.0, 12.8), ("cosface", 3.0, 76.8), ("arcface", 3.0, 3.3932)],
)
def test_a_margin_that_takes_back_a_lead_of_any_size(name, margin, expected):
    """Few classes: the lead of 115 scaled logits is no number's reciprocal."""
    cosines, ids = jnp.array([[0.9, -0.9]]), jnp.array([0])
    value, slope = jax.value_and_grad(getattr(jaxloss, name))(cosines, ids, margin=margin)
    np.testing.assert_allclose(value, expected, 1e-3)
    assert slope[0, 1] > 0


@pytest.mark.parametrize("name", ["arcface", "cosface"])
@pytest.mark.parametrize("classes", [2, 4, 8, 9])
def test_few_classes_and_many_give_the_same(name, classes):
    """Few are computed at once, many in parts: more, removed, change nothing."""
    rng = np.random.default_rng(0)
    cosines = jnp.asarray(rng.uniform(-1, 1, (5, classes)), jnp.float32)
    ids, where = jnp.asarray(rng.integers(0, classes, 5)), np.array([True, True, False, True, True])
    cosines = cosines.at[2].set(jnp.nan)
    loss = jax.jit(jax.value_and_grad(lambda x: getattr(jaxloss, name)(x, ids, where=where)))
    wide = jnp.concatenate([cosines, jnp.full((5, 20), -jnp.inf)], -1)
    (value, slope), (expected, wide_slope) = loss(cosines), loss(wide)
    np.testing.assert_allclose(value, expected, 1e-6)
    np.testing.assert_allclose(slope, wide_slope[:, :classes], 1e-5, 1e-7)
