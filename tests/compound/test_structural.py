"""Structural similarity cross-entropy: oracle, case and closed forms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from tests.compound.test_sums import NO_ELEMENTS, out_of_range
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    binary_entropy,
    invalid_segmentations,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, binary, elements, ids, probabilities


def _window_moments(x, valid, window, sigma):
    """Mean and deviation under the window of the valid pixels, tap by tap; class axis last."""
    half, spatial = window // 2, x.ndim - 2
    pad = [(0, 0), *[(half, half)] * spatial, (0, 0)]
    x_wide, valid_wide = np.pad(x, pad, "edge"), np.pad(valid, pad, "edge")
    taps = []
    for offset in itertools.product(range(window), repeat=spatial):
        at = tuple(slice(o, o + n) for o, n in zip(offset, x.shape[1:-1], strict=True))
        distance = sum((o - half) ** 2 for o in offset)
        at = (slice(None), *at, slice(None))
        taps.append((math.exp(-distance / (2 * sigma**2)) * valid_wide[at], x_wide[at]))
    mass = sum(share for share, _ in taps)
    mass = np.where(mass > 0, mass, 1)
    mean = sum(share * value for share, value in taps) / mass
    variance = sum(share * (value - mean) ** 2 for share, value in taps) / mass
    return mean, np.sqrt(variance)


def _errors(p, y, v, window=3, sigma=1.5, stability=0.01, beta=0.1):
    """`e f` and `f` of each pixel and class."""
    valid = (v != 0).astype(float)

    def standing(x):
        mean, deviation = _window_moments(x * valid, valid, window, sigma)
        return (x - mean + stability) / (deviation + stability)

    error = np.abs(standing(y) - standing(p)) * valid
    pixels = tuple(range(1, p.ndim - 1))
    chosen = (error > beta * error.max(pixels, keepdims=True)) & (valid > 0)
    return np.where(chosen, error, 0), chosen


def _loss(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="sigmoid",
    weight=0.5,
    **options,
):
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis)
    error, chosen = _errors(p, y, v, **options)
    v = v * (1.0 if class_weights is None else class_weights)
    entropy = binary_entropy(p, y)
    plain, similar = (v * entropy).sum(), (v * error * entropy).sum()
    if reduction == "mean":
        counts = v.sum(), (v * chosen).sum()
        plain, similar = (
            x / n if n else 0.0 for x, n in zip((plain, similar), counts, strict=True)
        )
    return weight * plain + (1 - weight) * similar


def _gradient(prediction, target, axis=-1, activation="sigmoid", weight=0.5, **options):
    """Of the sum, with the selection and its errors constant."""
    p, y = probabilities_of(prediction, target, activation, axis)
    error, _ = _errors(p, y, np.ones(p.shape), **options)
    factor = weight + (1 - weight) * error
    by_p = factor * (p - y) / (p * (1 - p))
    if activation == "softmax":
        slope = p * (by_p - (by_p * p).sum(-1, keepdims=True))
    else:
        slope = by_p * (1.0 if activation is None else p * (1 - p))
    return slope[..., 0] if axis is None else np.moveaxis(slope, -1, axis)


CASES = {
    "structural_similarity_cross_entropy": Case(
        _loss,
        (
            ids(),
            elements("elements", window=5, sigma=0.8, weight=0.2, beta=0.3),
            ids("softmax", axis=1, activation="softmax", weight=0.0),
            binary("binary", stability=0.1),
            probabilities(),
        ),
        (
            *invalid_segmentations("sigma")[:-3],
            NO_ELEMENTS,
            *out_of_range(sigma=0.0, stability=0.0, beta=1.5, weight=-0.1),
            *(
                Invalid((PIXELS, PIXEL_IDS), {"window": w}, ValueError, ("window", "odd integer"))
                for w in (2, 0)
            ),
            Invalid((PIXELS, PIXEL_IDS), {"window": 3.0}, TypeError, ("window", "3.0", "integer")),
        ),
        {
            "sigma": (1.0, -1.0),
            "stability": (0.05, -1.0),
            "beta": (0.2, 1.5),
            "weight": (0.3, -0.1),
        },
        "detached",
        9.2,
        _gradient,
    ),
}


def _of(p, y, **options):
    return jaxloss.structural_similarity_cross_entropy(
        jnp.asarray(p), jnp.asarray(y), axis=None, activation=None, **options
    )


def test_whole_weight_is_binary_cross_entropy():
    x, y = elements().prediction, elements().target
    loss = jaxloss.structural_similarity_cross_entropy(x, y, weight=1.0)
    np.testing.assert_allclose(loss, jaxloss.binary_cross_entropy(x, y), 1e-6)


def test_flat_images_have_no_structure():
    """Constant windows deviate by exactly 0, and differ by nothing: SSL is 0."""
    y, p = np.ones((1, 5, 5), np.float32), np.full((1, 5, 5), 0.7, np.float32)
    assert _of(p, y, weight=0.0) == 0
    np.testing.assert_allclose(_of(p, y, weight=0.5), -0.5 * math.log(0.7), 1e-6)


def test_closed_form_of_three_pixels():
    """Equal taps over (0, 1, 0), edges repeated; p has the structure of y, at a third of it."""
    y, p = np.array([[0.0, 1.0, 0.0]]), np.array([[0.2, 0.4, 0.2]])
    c = 0.1
    deviation = math.sqrt(2) / 3

    def standing(low, high):
        d = deviation * (high - low)
        off, on = (-(high - low) / 3 + c) / (d + c), (2 * (high - low) / 3 + c) / (d + c)
        return np.array([off, on, off])

    error = np.abs(standing(0, 1) - standing(0.2, 0.4))
    entropy = -np.log([0.8, 0.4, 0.8])
    options = {"sigma": 1e4, "stability": c, "weight": 0.0}
    np.testing.assert_allclose(_of(p, y, beta=0.0, **options), (error * entropy).mean(), 1e-5)
    chosen = error > 0.9 * error.max()
    assert 0 < chosen.sum() < 3
    np.testing.assert_allclose(
        _of(p, y, beta=0.9, **options), (error * entropy)[chosen].mean(), 1e-5
    )


def test_masked_pixels_are_not_seen_by_the_window():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6)), (rng.random((2, 6)) < 0.5).astype(float)
    where = np.arange(6)[None] < 4
    options = {"axis": None, "window": 1, "stability": 0.1}
    loss = jaxloss.structural_similarity_cross_entropy
    cut = loss(x[:, :4], y[:, :4], **options)
    np.testing.assert_allclose(loss(x, y, where=where, **options), cut, 1e-6)
    options["window"] = 3  # an edge repeats where the image ends, not where the mask does
    assert abs(loss(x, y, where=where, **options) - loss(x[:, :4], y[:, :4], **options)) > 1e-3
    planted = loss(np.where(where, x, np.nan), np.where(where, y, np.nan), where=where, **options)
    np.testing.assert_array_equal(planted, loss(x, y, where=where, **options))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_finite_at_extreme_logits(activation):
    labels = jnp.array([[0, 1, 1, 0]])
    right = jax.nn.one_hot(labels, 3) * 2 - 1

    def loss(x):
        return jaxloss.structural_similarity_cross_entropy(x, labels, activation=activation)

    sizes = jnp.array([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(
        sizes[:, None, None, None] * right[None]
    )
    for array in (values, slopes):
        assert jnp.isfinite(array).all()
    np.testing.assert_array_equal(values[-3:], 0)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0), (0, 2, 3)])
def test_images_without_pixels_cost_nothing(shape):
    x, labels = jnp.zeros((*shape, 2)), jnp.zeros(shape, int)
    value, slope = jax.value_and_grad(jaxloss.structural_similarity_cross_entropy)(x, labels)
    assert value == 0
    assert slope.shape == x.shape


def test_three_dimensions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1, 3, 2, 4)), (rng.random((1, 3, 2, 4)) < 0.5).astype(float)
    with jax.enable_x64(True):
        loss = jaxloss.structural_similarity_cross_entropy(x, y, axis=None)
    np.testing.assert_allclose(loss, _loss(x, y, axis=None), 1e-10)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_rows_split_on_a_mesh_with_explicit_axes(activation):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(2, 8, 4, 3)).astype(np.float32), rng.integers(0, 3, (2, 8, 4))
    where = rng.random((1, 8, 1)) < 0.7

    def loss(x, labels, where):
        options = {"activation": activation, "where": where}
        return jaxloss.structural_similarity_cross_entropy(x, labels, **options)

    run = jax.jit(jax.value_and_grad(loss))
    expected = run(*arrays, where)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Explicit,))
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    with jax.set_mesh(mesh):
        value, slope = run(*(jax.device_put(x, rows) for x in (*arrays, where)))
    assert slope.sharding.spec[1] == "rows"
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-4, atol=1e-7)
