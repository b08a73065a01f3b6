"""Structural similarity: oracle, case, closed forms, accuracy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    mean_over_classes,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, Sample


def _windows(p, y, v, window, sigma):
    """1 - SSIM and the weight of every window of one image, pixel axes only, by definition."""
    offset = np.arange(window) - window // 2
    line = np.exp(-(offset**2) / (2 * sigma**2))
    line /= line.sum()
    gaussian = functools.reduce(np.multiply.outer, [line] * p.ndim)
    values, held = [], []
    for corner in np.ndindex(*(n - window + 1 for n in p.shape)):
        at = tuple(slice(c, c + window) for c in corner)
        weight = (gaussian * v[at]).sum()
        held.append(weight)
        if weight == 0:
            values.append(0.0)
            continue
        share = gaussian * v[at] / weight
        m_p, m_y = (share * p[at]).sum(), (share * y[at]).sum()
        d_p, d_y = p[at] - m_p, y[at] - m_y
        s_p, s_y, s_py = ((share * d).sum() for d in (d_p**2, d_y**2, d_p * d_y))
        luminance = (2 * m_p * m_y + 1e-4) / (m_p**2 + m_y**2 + 1e-4)
        values.append(1 - luminance * (2 * s_py + 9e-4) / (s_p + s_y + 9e-4))
    return np.array(values), np.array(held)


def _ssim(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="auto",
    window=11,
    sigma=1.5,
    per_image=True,
    include_background=True,
    absent="score",
):
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis)
    pairs = [
        [_windows(p[b, ..., c], y[b, ..., c], v[b, ..., c], window, sigma) for b in range(len(p))]
        for c in range(p.shape[-1])
    ]
    loss, held = (np.array([[x[k] for x in row] for row in pairs]).swapaxes(0, 1) for k in (0, 1))
    sums = (2,) if per_image else (0, 2)  # of [B, C, windows]
    values = (loss * held).sum(sums) / held.sum(sums)
    axes = tuple(range(1 if per_image else 0, p.ndim - 1))
    part = v.sum(axes) > 0
    if absent == "skip":
        part &= (v * y).sum(axes) > 0
    return mean_over_classes(
        values, part, class_weights, reduction, axis is None, include_background
    )


def _sample(name, form, *pixels, seed=0, axis=-1, **options):
    """Four images wide enough for a window of 3."""
    rng = np.random.default_rng(seed)
    if form == "binary":
        logits, labels = rng.normal(size=(2, 4, *pixels)) * 2
        labels = (labels > 0).astype(float)
        return Sample(name, logits, labels, options | {"axis": None}, logits.shape)
    shape = (4, *pixels, 3)
    logits = rng.normal(size=shape) * 2
    if form == "elements":
        return Sample(name, logits, rng.uniform(0.05, 0.95, shape), options, shape, len(pixels) + 1)
    labels = rng.integers(0, 3, shape[:-1])
    flat = labels.reshape(4, -1)
    flat[:, :3] = 0, 1, 2
    at = axis % len(shape)
    prediction = np.moveaxis(logits, -1, at)
    return Sample(
        name, prediction, labels.astype(np.int32), options | {"axis": axis}, shape[:-1], at
    )


_SMALL = {"window": 3, "sigma": 0.8}

CASES = {
    "ssim": Case(
        _ssim,
        (
            _sample("ids", "ids", 4, 5, **_SMALL),
            _sample("channels", "ids", 3, 4, 3, axis=1, include_background=False, **_SMALL),
            _sample("pooled", "elements", 4, 4, per_image=False, window=3),
            _sample("binary", "binary", 5, 4, window=3),
        ),
        (
            *(c._replace(options=_SMALL | c.options) for c in invalid_segmentations("sigma")),
            Invalid((PIXELS, PIXEL_IDS), {}, ValueError, ("window", "11", "odd and at most 4")),
            Invalid((PIXELS, PIXEL_IDS), {"window": 2}, ValueError, ("window", "2", "odd")),
            Invalid((PIXELS, PIXEL_IDS), {"window": -1}, ValueError, ("window", "-1", "odd")),
            Invalid((PIXELS, PIXEL_IDS), {"window": 3.0}, TypeError, ("window", "integer")),
            Invalid(
                (PIXELS, PIXEL_IDS),
                _SMALL | {"absent": "drop"},
                ValueError,
                ("absent", "'drop'", "'skip'"),
            ),
        ),
        {"sigma": (0.8, -1.0)},
        "smooth",
        35.8,
    ),
}

on_masks = functools.partial(jaxloss.ssim, axis=None, activation=None)


def test_equal_images_cost_exactly_nothing():
    x = jnp.asarray(np.random.default_rng(0).random((2, 13, 12)), jnp.float32)
    value, gradient = jax.value_and_grad(on_masks)(x, x)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("p, y", [(0.0, 1.0), (0.25, 0.5), (1.0, 1.0), (0.0, 0.0)])
def test_flat_images_differ_in_luminance_alone(p, y):
    """In float32 too, where E[x^2] - E[x]^2 would leave rounding errors against c2."""
    value = on_masks(jnp.full((1, 11, 11), p), jnp.full((1, 11, 11), y))
    np.testing.assert_allclose(value, (p - y) ** 2 / (p**2 + y**2 + 1e-4), 1e-6)


def test_opposite_structure_costs_more_than_one():
    board = jnp.asarray(np.indices((12, 12)).sum(0) % 2, jnp.float32)[None]
    assert 1.9 < on_masks(1 - board, board) < 2


def test_float32_of_small_contrasts():
    """Structure on a bright ground: a contrast of 1e-3 keeps its digits."""
    rng = np.random.default_rng(1)
    p, y = 0.9 + 1e-3 * rng.random((2, 1, 12, 13))
    expected = _ssim(p, y, axis=None, activation=None)
    value = on_masks(jnp.asarray(p, jnp.float32), jnp.asarray(y, jnp.float32))
    exact = _ssim(np.float64(np.float32(p)), np.float64(np.float32(y)), axis=None, activation=None)
    np.testing.assert_allclose(value, exact, 1e-4)
    assert 0 < expected < 1e-3


def test_signals_have_one_axis():
    p, y = np.random.default_rng(3).random((2, 3, 14))
    value = on_masks(p.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(value, _ssim(p, y, axis=None, activation=None), 1e-5)


def test_masked_borders_are_like_none():
    """A window counts by the valid weight that it holds; the others are those of the inner part."""
    rng = np.random.default_rng(2)
    p, y = rng.random((2, 1, 8, 8)).astype(np.float32)
    where = np.zeros((1, 8, 8), bool)
    where[:, :5, :5] = True
    value, gradient = jax.value_and_grad(functools.partial(on_masks, window=5))(p, y, where=where)
    expected = _ssim(*np.float64([p, y]), where=where, window=5, axis=None, activation=None)
    np.testing.assert_allclose(value, expected, 1e-5)
    assert gradient[where].all()
    assert not gradient[~where].any()


def test_a_window_of_one_pixel_compares_luminance():
    p, y = jnp.array([[0.2, 0.9]]), jnp.array([[0.0, 1.0]])
    expected = ((p - y) ** 2 / (p**2 + y**2 + 1e-4)).mean()
    np.testing.assert_allclose(on_masks(p, y, window=1), expected, 1e-5)
