"""The bi-tempered logistic loss: oracle, case, the normaliser, limits and hazards."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxloss
from jaxloss._distribution import _bi_tempered
from tests.compiling import usual_jit
from tests.oracles import invalid_classifications, out_of_range, shaped
from tests.registry import Case, dense, ids, reduced, soft


def _probabilities(z, t2, axis):
    """The tempered softmax; the normaliser by bisection in float64."""
    rate = t2 - 1
    exp_t = lambda u: np.exp(u) if rate == 0 else np.maximum(1 - rate * u, 0) ** (-1 / rate)
    low = z.max(axis, keepdims=True)
    width = 1.0
    while (exp_t(z - low - width).sum(axis) > 1).any():
        width *= 2
    high = low + width
    for _ in range(100):
        middle = (low + high) / 2
        above = exp_t(z - middle).sum(axis, keepdims=True) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return exp_t(z - low)


def _log_t(u, t):
    return np.log(u) if t == 1 else (u ** (1 - t) - 1) / (1 - t)


def _oracle(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    label_smoothing=0.0,
    t1=0.8,
    t2=1.2,
):
    y, classes = dense(target, prediction, axis), prediction.shape[axis]
    v = (shaped(class_weights, prediction, axis) * y).sum(axis)
    t = (1 - label_smoothing * classes / (classes - 1)) * y + label_smoothing / (classes - 1)
    p = _probabilities(prediction, t2, axis)
    cost = np.where(t > 0, t * (_log_t(np.where(t > 0, t, 1), t1) - _log_t(p, t1)), 0)
    loss = (cost - (t ** (2 - t1) - p ** (2 - t1)) / (2 - t1)).sum(axis)
    return reduced(v * loss, reduction, where, weights, v)


CASES = {
    "bi_tempered": Case(
        _oracle,
        (
            ids(),
            soft("soft", t1=0.3),
            ids("smoothed", label_smoothing=0.2, axis=1, t2=0.9),
            soft("limit", t1=0.6, t2=1.0),
        ),
        (
            *invalid_classifications("logits"),
            *out_of_range(
                ("label_smoothing", 1.0), ("t1", -0.1), ("t1", 1.1), ("t2", 0.0), ("t2", -1.0)
            ),
        ),
        {"label_smoothing": (0.1, 1.5), "t1": (0.7, 1.5), "t2": (1.3, 0.0)},
        "smooth",
        0.22,
    )
}


def exact(z, y, t1, t2):
    """The loss of one position from its formula in 60 digits, and the largest `-log p`."""
    with mpmath.workdps(60):
        z, y = ([mpmath.mpf(float(x)) for x in row] for row in (z, y))
        t1, rate = mpmath.mpf(float(t1)), mpmath.mpf(float(t2)) - 1

        def exp_t(u):
            if rate == 0:
                return mpmath.exp(u)
            base = 1 - rate * u
            return base ** (-1 / rate) if base > 0 else mpmath.mpf(0)

        log_t = lambda u: mpmath.log(u) if t1 == 1 else (u ** (1 - t1) - 1) / (1 - t1)
        gaps, low = [x - max(z) for x in z], mpmath.mpf(0)
        for _ in range(200):  # Newton from below, each step exact where all logits are equal
            p = [exp_t(gap - low) for gap in gaps]
            slope, total = sum(x ** (1 + rate) for x in p if x), sum(p)
            step = total * (mpmath.log(total) if rate == 0 else (total**rate - 1) / rate) / slope
            low += step
            if step <= low * mpmath.mpf(10) ** -45:
                break
        p = [exp_t(gap - low) for gap in gaps]
        loss = sum(
            (c * (log_t(c) - log_t(x)) if c else 0) - (c ** (2 - t1) - x ** (2 - t1)) / (2 - t1)
            for c, x in zip(y, p, strict=True)
        )
        return float(loss), max(1.0, *(-float(mpmath.log(x)) for x in p if x))


@pytest.mark.parametrize(
    "t1, t2",
    [(0.8, 1.2), (0.0, 4.0), (1.0, 1.0), (0.9, 1.0), (0.3, 0.5), (0.5, 0.05), (0.5, 1.001)],
)
def test_fifty_digits(t1, t2):
    """Hard and soft labels, from nearly equal logits to margins of 200.

    Within 16 ulp, times the largest `-log p`: an ulp of a logit changes `p` by as many.
    """
    rng = np.random.default_rng(1)
    scales = np.repeat([0.1, 1.0, 10.0, 60.0], 4)[:, None]
    z = (scales * (rng.normal(size=(16, 5)) + [1, 0, 0, 0, 0])).astype(np.float32)
    y = rng.dirichlet(np.ones(5), 16).astype(np.float32)
    y[::2] = np.eye(5)[rng.integers(0, 2, 8)]
    loss = functools.partial(jaxloss.bi_tempered, t1=t1, t2=t2, reduction="none")
    value = usual_jit(loss)(z, y)
    rows = [exact(*row, np.float32(t1), np.float32(t2)) for row in zip(z, y, strict=True)]
    expected, condition = np.array(rows).T
    tiny = expected < 1e-36  # below the numbers of float32 that have all their digits
    assert (value[tiny] <= 1e-36).all()
    ulps = np.abs(value - expected) / np.where(tiny, np.inf, expected) / 2**-23
    assert (ulps <= 16 * condition).all(), (ulps / condition).max()


@pytest.mark.parametrize(
    "t2", [1.2, *(pytest.param(t, marks=pytest.mark.slow) for t in (0.3, 1, 4))]
)
def test_a_thousand_classes(t2):
    """The authors' five iterations leave the probabilities' sum up to 2 per cent off at 1.2."""
    z = (np.random.default_rng(0).normal(size=(3, 1000)) * 3).astype(np.float32)
    z[0] = 0
    loss = lambda x: jaxloss.bi_tempered(x, jnp.arange(3), t2=t2, reduction="none")
    y = np.eye(1000)[:3]
    expected = [exact(*row, np.float32(0.8), np.float32(t2))[0] for row in zip(z, y, strict=True)]
    np.testing.assert_allclose(loss(z), expected, rtol=1e-6)

    p = _probabilities(z.astype(float), np.float32(t2), -1)
    rate = float(np.float32(t2)) - 1
    power = rate + float(np.float32(0.2))
    d = (p - y) * np.where(p > 0, np.where(p > 0, p, 1) ** power, 0)  # p = 0 from t2 < 1
    escort = p ** (1 + rate) / (p ** (1 + rate)).sum(-1, keepdims=True)
    gradient = jax.jit(jax.grad(lambda x: loss(x).sum()))(z)
    np.testing.assert_allclose(
        gradient, d - escort * d.sum(-1, keepdims=True), rtol=3e-4, atol=1e-8
    )


LEAD = jax.jit(lambda z, t2: _bi_tempered._lead(z, z.max(-1, keepdims=True), t2 - 1, -1))


@pytest.mark.parametrize("classes", [1, 2, 10_000])
def test_the_normaliser_of_equal_logits(classes):
    """Every probability is 1 / C, whatever the temperature."""
    for t2 in (0.01, 0.5, 1.0, 1.2, 3.0):
        lead = LEAD(jnp.zeros((1, classes)), t2)
        np.testing.assert_allclose(lead, math.log(classes), rtol=1e-6)


def test_the_normaliser_converges_at_every_scale():
    """Probabilities sum to 1, from nearly equal logits to those of a thousand."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(64, 300)), jnp.float32)
    z = z * jnp.logspace(-3, 3, 64)[:, None]

    @jax.jit
    def total(z, t2):
        lead, top = LEAD(z, t2), z.max(-1, keepdims=True)
        return jnp.exp(-lead - _bi_tempered._behind(z, top, lead, t2 - 1)).sum(-1)

    for t2 in (0.01, 0.5, 1.2, 5.0):
        np.testing.assert_allclose(total(z, t2), 1, rtol=5e-6)


@pytest.mark.parametrize("labels", ["ids", "soft"])
def test_both_temperatures_one_is_the_divergence(labels):
    sample = ids() if labels == "ids" else soft()
    x = jnp.asarray(sample.prediction, jnp.float32)
    y = jnp.asarray(sample.target, jnp.int32 if labels == "ids" else jnp.float32)
    other = jaxloss.cross_entropy if labels == "ids" else jaxloss.kl_divergence
    expected = jax.jit(jax.value_and_grad(other))(x, y)
    run = jax.jit(jax.value_and_grad(lambda x, t1, t2: jaxloss.bi_tempered(x, y, t1=t1, t2=t2)))
    for t1, t2 in ((1.0, 1.0), (1 - 1e-6, 1 + 1e-6), (1 - 1e-6, 1 - 1e-6)):
        value, gradient = run(x, t1, t2)
        np.testing.assert_allclose(value, expected[0], rtol=2e-5)
        np.testing.assert_allclose(gradient, expected[1], rtol=2e-4, atol=1e-6)


def test_temperatures_pass_smoothly_through_one():
    """The textbook derivative by a temperature is 0/0 at 1 and noise beside it."""
    x, y = jnp.array([[2.0, 0.5, -1.0], [0.1, 1.0, 0.2]]), jnp.array([0, 2])
    with jax.enable_x64(True):
        x = x.astype(jnp.float64)
        slope = jax.jit(jax.grad(lambda t: jaxloss.bi_tempered(x, y, t1=t[0], t2=t[1])))
        at = slope(jnp.array([1.0, 1.0]))
        for t in ((1 - 1e-7, 1.0), (1.0, 1 + 1e-7), (1.0, 1 - 1e-7)):
            np.testing.assert_allclose(slope(jnp.array(t)), at, rtol=1e-5)
        left, right = (jaxloss.bi_tempered(x, y, t1=1.0, t2=1 + h) for h in (-1e-5, 1e-5))
        np.testing.assert_allclose(at[1], (right - left) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize(
    "t1, t2",
    [
        (0.8, 1.2),
        (0.0, 2.0),
        pytest.param(1.0, 1.0, marks=pytest.mark.slow),
        pytest.param(0.5, 0.5, marks=pytest.mark.slow),
    ],
)
def test_finite_at_every_margin(t1, t2):
    """Value and gradient, both modes; a miss costs at most the bound of the logarithm."""
    margins = np.array([-1e30, -1e4, -200.0, -1.0, 0.0, 1.0, 40.0, 1e4, 1e30, np.inf, -np.inf])
    bound = math.inf if t1 == 1 else 1 / (1 - t1)
    for labels in (jnp.array(0), jnp.array([1.0, 0.0, 0.0])):
        loss = lambda x, y=labels: jaxloss.bi_tempered(x, y, t1=t1, t2=t2)

        @jax.jit
        @jax.vmap
        def run(margin, loss=loss):
            x = jnp.stack([margin, jnp.zeros_like(margin), -jnp.ones_like(margin)])
            return *jax.value_and_grad(loss)(x), jax.jvp(loss, (x,), (jnp.ones(3),))[1]

        value, gradient, forward = run(jnp.asarray(margins, jnp.float32))
        assert (jnp.diff(value[:-1]) <= 0).all()
        assert (value >= 0).all()
        assert (value <= bound).all()
        assert value[-2] == 0
        # Of a finite support the other classes are the same certainty from some margin on.
        assert t2 < 1 or t1 < 1 or value[-1] == jnp.inf
        assert jnp.isfinite(value[:-1]).all() or (t1 == 1 and t2 < 1)
        assert jnp.isfinite(gradient).all()
        np.testing.assert_allclose(forward, 0, atol=2e-6)
        assert not gradient[-2].any()


def test_perfect_and_confident_predictions_keep_their_digits():
    """To second order the terms of the loss cancel: 1e-13 here, of terms of 1."""
    z = jnp.array([[1e5, 0.0, 0.0], [1e6, 0.0, 0.0]])
    value = jaxloss.bi_tempered(z, jnp.array([0, 0]), t1=0.2, t2=1.3, reduction="none")
    expected = [exact(row, [1, 0, 0], np.float32(0.2), np.float32(1.3))[0] for row in np.asarray(z)]
    assert max(expected) < 1e-25
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_prediction_equal_to_its_target_costs_nothing():
    """Soft labels included; the gradient vanishes with it."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(20, 6)) * 3, jnp.float32)
    run = jax.jit(jax.value_and_grad(lambda z, p, t2: jaxloss.bi_tempered(z, p, t2=t2)))
    for t2 in (0.7, 1.0, 1.2, 3.0):
        p = _probabilities(np.asarray(z, float), np.float32(t2), -1).astype(np.float32)
        value, gradient = run(z, p, t2)
        assert 0 <= value < 1e-12
        np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_removed_classes_are_as_if_absent():
    x, labels = jnp.array([[1.0, -0.5, 2.0]]), jnp.array([2])
    wide = jnp.concatenate([x, jnp.full((1, 2), -jnp.inf)], -1)
    for options in ({}, {"label_smoothing": 0.2}, {"t2": 0.5}):
        loss = functools.partial(jaxloss.bi_tempered, **options)
        run = jax.jit(lambda x, loss=loss: jax.value_and_grad(loss)(x, labels))
        (value, gradient), expected = run(wide), run(x)
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(gradient[:, :3], expected[1], rtol=1e-5)
        assert not gradient[:, 3:].any()


@pytest.mark.slow
@pytest.mark.parametrize("t1, t2", [(0.8, 1.2), (1.0, 1.0), (0.4, 0.8)])
def test_hessian(t1, t2):
    """Forward over reverse equals reverse over reverse and the differences of the gradient."""
    x, y = jnp.array([0.3, 1.0, -0.5]), jnp.array([0.6, 0.3, 0.1])
    with jax.enable_x64(True):
        x, y = x.astype(jnp.float64), y.astype(jnp.float64)
        gradient = jax.jit(jax.grad(lambda x: jaxloss.bi_tempered(x, y, t1=t1, t2=t2)))
        forward, reverse = jax.jit(jax.jacfwd(gradient))(x), jax.jit(jax.jacrev(gradient))(x)
        h = 1e-5
        differences = [(gradient(x + h * e) - gradient(x - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(forward, reverse, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(forward, np.stack(differences), rtol=1e-7, atol=1e-9)
