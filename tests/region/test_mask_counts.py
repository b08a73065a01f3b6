"""Soft counts of masks as a CPU computes them: at once, and in chunks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss._core import chunks
from tests.compiling import quick_jit

SHAPE = 3, 8, 6, 4  # the classes last
EXTREMES = [np.inf, -np.inf, 104.0, -104.0, 88.5, -88.5, 87.3, -87.3, 0.0]


@pytest.fixture(params=["at once", "in chunks"], autouse=True)
def way(request, monkeypatch):
    """Takes the branch of large arrays, from the smallest on, of chunks of three rows or of all."""
    jax.clear_caches()
    monkeypatch.setattr(chunks, "CHUNKS", 3 if request.param == "in chunks" else 9)
    monkeypatch.setattr(chunks, "CHUNK", 1)
    monkeypatch.setattr(chunks, "CHUNKED_FROM", 0)
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # else they may be split
    yield request.param
    jax.clear_caches()


def batch(axis):
    rng = np.random.default_rng(0)
    logits, targets = 3 * rng.normal(size=SHAPE), rng.random(SHAPE)
    targets[rng.random(SHAPE) < 0.7] = 0
    targets[rng.random(SHAPE) < 0.3] = 1
    flat = logits[0].reshape(-1)
    flat[: len(EXTREMES)] = EXTREMES
    where = rng.random((*SHAPE[:3], 1)) < 0.8
    weights = rng.uniform(0.5, 2, (*SHAPE[:3], 1))
    arrays = (np.moveaxis(a, -1, axis) for a in (logits, targets, where, weights))
    logits, targets, where, weights = arrays
    return logits.astype(np.float32), targets, where.squeeze(axis), weights.squeeze(axis)


def tversky(x, y, weight, summed):
    """The definition, of numbers that are sure to be of 64 bits."""
    p, q = jax.nn.sigmoid(x), jax.nn.sigmoid(-x)
    tp, fp, fn = ((weight * v).sum(summed) for v in (p * y, p * (1 - y), q * y))
    return 1 - ((tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)).mean()


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("per_image", [True, False], ids=["each", "pooled"])
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_value_and_slope(axis, per_image, weighted, way):
    x, y, where, weights = batch(axis)
    options = {"where": where, "weights": weights} if weighted else {}
    loss = functools.partial(
        jaxloss.tversky, alpha=0.3, beta=0.7, smooth=1.0, axis=axis, per_image=per_image, **options
    )
    classes = axis % 4
    images = 1 if axis == 0 else 0
    summed = tuple(i for i in range(4) if i != classes and (i != images or not per_image))
    with jax.enable_x64(True):
        weight = jnp.expand_dims(where * weights, classes) if weighted else jnp.ones(())
        exact = functools.partial(tversky, weight=weight, summed=summed)
        expected = jax.value_and_grad(exact)(jnp.asarray(x, jnp.float64), jnp.asarray(y))
    compiled = quick_jit(jax.value_and_grad(loss)).lower(x, y.astype(np.float32)).compile()
    assert ("while(" in compiled.as_text()) == (way == "in chunks")
    value, slope = compiled(x, y.astype(np.float32))
    np.testing.assert_allclose(value, expected[0], rtol=2e-6)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("axis", [-1, 1])
def test_certain_and_right_costs_exactly_nothing(axis):
    """Of a class that an image does not have, too: 0 of 0."""
    y = np.zeros(SHAPE, np.float32)
    y[..., 1:] = np.random.default_rng(1).random((*SHAPE[:3], 3)) < 0.5
    x, y = (np.moveaxis(a, -1, axis) for a in (np.where(y > 0, np.inf, -np.inf), y))
    value, slope = quick_jit(jax.value_and_grad(functools.partial(jaxloss.dice, axis=axis)))(x, y)
    assert value == 0
    assert not slope.any()


@pytest.mark.parametrize("axis", [-1, 1])
def test_nan_reaches_the_value(axis):
    x, y, *_ = batch(axis)
    x[1, 2, 3, 1] = np.nan
    loss = functools.partial(jaxloss.dice, axis=axis)
    assert np.isnan(quick_jit(loss)(x, y.astype(np.float32)))
