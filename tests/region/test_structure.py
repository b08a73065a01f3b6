"""Structural similarity: oracle, case, closed forms, accuracy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compiling import quick_jit
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    mean_over_classes,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, Sample, dense


def _line(window, sigma):
    offset = np.arange(window) - window // 2
    line = np.exp(-(offset**2) / (2 * sigma**2))
    return line / line.sum()


def _windows(p, y, v, window, sigma, c1, c2):
    """Luminance, structure and the weight of every window of one image, pixel axes only."""
    window = (window,) * p.ndim if np.ndim(window) == 0 else window
    gaussian = functools.reduce(np.multiply.outer, [_line(w, sigma) for w in window])
    inner = tuple(range(-p.ndim, 0))
    mean = lambda x: (share * x).sum(inner, keepdims=True)
    p, y, v = (np.lib.stride_tricks.sliding_window_view(x, window) for x in (p, y, v))
    held = (gaussian * v).sum(inner, keepdims=True)
    share = gaussian * v / np.where(held == 0, 1, held)
    m_p, m_y = mean(p), mean(y)
    s_p, s_y, s_py = mean((p - m_p) ** 2), mean((y - m_y) ** 2), mean((p - m_p) * (y - m_y))
    luminance = (2 * m_p * m_y + c1) / (m_p**2 + m_y**2 + c1)
    structure = (2 * s_py + c2) / (s_p + s_y + c2)
    return luminance.ravel(), structure.ravel(), held.ravel()


def _means(p, y, v, pooled, *options):
    """The mean luminance times structure, and structure, of each image and class."""
    classes = [
        [_windows(p[b, ..., c], y[b, ..., c], v[b, ..., c], *options) for b in range(len(p))]
        for c in range(p.shape[-1])
    ]
    luminance, structure, held = np.moveaxis(np.array(classes), 2, 0).swapaxes(1, 2)  # [B, C, n]
    axes = (0, 2) if pooled else (2,)
    mean = lambda x: (x * held).sum(axes) / np.maximum(held.sum(axes), 1e-300)
    return mean(luminance * structure), mean(structure)


def _constants(data_range=1.0, k1=0.01, k2=0.03):
    return (k1 * data_range) ** 2, (k2 * data_range) ** 2


def _halved(p, y, v):
    """The weighted means of every two pixels along each axis, and of the weights."""

    def pairs(x):
        for axis in range(1, x.ndim - 1):
            even = np.moveaxis(x, axis, 0)[: x.shape[axis] // 2 * 2]
            x = np.moveaxis(even[::2] + even[1::2], 0, axis)
        return x

    held = np.where(pairs(v) == 0, 1, pairs(v))
    return pairs(p * v) / held, pairs(y * v) / held, pairs(v)


POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _ms_ssim(*data, weights=POWERS, **options):
    return _ssim(*data, scales=weights, **options)


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
    scales=None,
    **constants,
):
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis)
    options = (not per_image, window, sigma, *_constants(**constants))
    if scales is None:
        values = 1 - _means(p, y, v, *options)[0]
    else:
        images, score = (p, y, v), 1.0
        for n, power in enumerate(scales):
            images = _halved(*images) if n else images
            whole, structure = _means(*images, *options)
            mean = whole if n == len(scales) - 1 else structure
            score = score * np.maximum(mean, 0) ** (power / sum(scales))
        values = 1 - score
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


def _close(name, form, *pixels, **options):
    """A sample whose prediction is like its target at all scales: no mean is near 0."""
    sample = _sample(name, form, *pixels, **options)
    y = dense(sample.target, sample.prediction, options.get("axis", sample.axis))
    return sample._replace(prediction=sample.prediction / 4 + 4 * y)


_SMALL = {"window": 3, "sigma": 0.8}
_ONE = {"window": 1, "weights": (1.0,)}  # scale, of windows that fit into any image
_TWO = {"window": 3, "weights": (0.6, 0.9)}  # scales

CASES = {
    "ssim": Case(
        _ssim,
        (
            _sample("ids", "ids", 4, 5, **_SMALL),
            _sample("channels", "ids", 3, 4, 3, axis=1, include_background=False, **_SMALL),
            _sample("pooled", "elements", 4, 4, per_image=False, window=3),
            _sample("binary", "binary", 5, 4, window=3),
            _sample("axes", "ids", 4, 2, window=(3, 1), data_range=2.0, k1=0.05, k2=0.2),
        ),
        (
            *(c._replace(options=_SMALL | c.options) for c in invalid_segmentations("sigma")),
            Invalid((PIXELS, PIXEL_IDS), {}, ValueError, ("window", "11", "odd and at most 4")),
            Invalid(
                (PIXELS, PIXEL_IDS), {"window": (3, 3)}, ValueError, ("window", r"\(3, 3\)", "1")
            ),
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
        {
            "sigma": (0.8, -1.0),
            "data_range": (1.1, 0.0),
            "k1": (0.02, -0.1),
            "k2": (0.04, -0.1),
        },
        "smooth",
        25.7,
    ),
    "ms_ssim": Case(
        _ms_ssim,
        (
            _close("ids", "ids", 7, 8, **_TWO),
            _close("channels", "ids", 6, 7, axis=1, include_background=False, **_TWO),
            _close("pooled", "elements", 12, 5, per_image=False, **_TWO | {"window": (5, 1)}),
            _close("binary", "binary", 16, 17, window=1, weights=POWERS),
        ),
        (
            *(c._replace(options=_ONE | c.options) for c in invalid_segmentations("sigma")),
            Invalid(
                (PIXELS, PIXEL_IDS),
                {"window": 3},
                ValueError,
                ("logits", r"\(2, 4, 3\)", "48 pixels or more along its axis 1"),
            ),
            Invalid(
                (PIXELS, PIXEL_IDS),
                _ONE | {"weights": (-1.0,)},
                ValueError,
                ("weights", "-1", "inf"),
            ),
            Invalid(
                (PIXELS, PIXEL_IDS),
                _ONE | {"weights": np.ones(PIXEL_IDS.shape)},
                ValueError,
                ("weights", r"\(2, 4\)", "one power for each scale", "where"),
            ),
        ),
        {"sigma": (0.8, -1.0), "k2": (0.04, -0.1)},
        "smooth",
        30.1,
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


on_masks_at_scales = functools.partial(jaxloss.ms_ssim, axis=None, activation=None)
on_one_scale = functools.partial(on_masks_at_scales, weights=(3.0,))


def test_ms_ssim_of_one_scale_is_ssim():
    p, y = np.random.default_rng(4).random((2, 2, 13, 12)).astype(np.float32)
    p = (p + 3 * y) / 4
    values = [jax.value_and_grad(f)(p, y) for f in (on_masks, on_one_scale)]
    for one, other in zip(*values, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-7)


def test_ms_ssim_of_equal_and_of_opposite_images():
    """Equal ones cost exactly 0, opposite ones 1, with no gradient beyond."""
    y = jnp.asarray(np.random.default_rng(5).random((1, 24, 25)), jnp.float32)
    run = jax.jit(jax.value_and_grad(functools.partial(on_masks_at_scales, weights=(1.0, 1.0))))
    for p, expected in ((y, 0), (1 - y, 1)):
        value, gradient = run(p, y)
        assert value == expected
        assert not gradient.any()


SPLIT = {
    "ssim": functools.partial(jaxloss.ssim, window=7),
    "ms_ssim": functools.partial(jaxloss.ms_ssim, window=3, weights=(0.4, 0.6)),
}


@pytest.mark.parametrize(
    ("name", "kind"), [("ssim", "Auto"), ("ssim", "Explicit"), ("ms_ssim", "Explicit")]
)
def test_rows_on_several_devices_exchange_a_halo(name, kind):
    """Value and gradient are those of one device; no device receives another's rows whole."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(1, 64, 24, 2)).astype(np.float32), rng.integers(0, 2, (1, 64, 24))
    where = rng.random((1, 64, 24)) < 0.9
    run = quick_jit(jax.value_and_grad(SPLIT[name]))
    expected = run(x, y, where=where)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    rows = jax.NamedSharding(mesh, jax.P(None, "rows"))
    with jax.set_mesh(mesh):
        data = [jax.device_put(a, rows) for a in (x, y, where)]
        compiled = run.lower(data[0], data[1], where=data[2]).compile()
        for value, other in zip(compiled(data[0], data[1], where=data[2]), expected, strict=True):
            np.testing.assert_allclose(value, other, 1e-5, 1e-7)
    assert "collective-permute" in compiled.as_text()
    assert "all-gather" not in compiled.as_text()


def test_a_window_wider_than_a_device_has_rows():
    """The image is brought together."""
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    p, y = np.random.default_rng(8).random((2, 1, 32, 16)).astype(np.float32)
    with jax.set_mesh(mesh):
        rows = jax.NamedSharding(mesh, jax.P(None, "rows"))
        loss = on_masks(*(jax.device_put(x, rows) for x in (p, y)))
    np.testing.assert_allclose(loss, on_masks(p, y), 1e-5)
