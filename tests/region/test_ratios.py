"""Losses on ratios that price the two kinds of error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations, segmentation
from tests.registry import Case, Invalid, binary, elements, ids, probabilities


def _f_beta(total, p, y, beta=1.0, smooth=1.0):
    hits = (1 + beta**2) * total(p * y) + smooth
    return 1 - hits / (hits + beta**2 * total((1 - p) * y) + total(p * (1 - y)))


def _asymmetric_similarity(total, p, y, beta=1.5, smooth=1.0):
    return _f_beta(total, p, y, beta, smooth)


def _focal_tversky(total, p, y, alpha=0.3, beta=0.7, gamma=0.75, smooth=1.0):
    tp = total(p * y)
    errors = alpha * total(p * (1 - y)) + beta * total((1 - p) * y)
    return (1 - (tp + smooth) / (tp + errors + smooth)) ** gamma


def _out_of_range(**numbers):
    return tuple(
        Invalid((PIXELS, PIXEL_IDS), {name: value}, ValueError, (name, str(value), "number in"))
        for name, value in numbers.items()
    )


_SHARED = (
    *invalid_segmentations(),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
)
_SAMPLES = (
    ids(),
    elements(smooth=0.0),
    ids("channels", axis=1, include_background=False, absent="skip"),
    binary(),
    ids("together", per_class=False, include_background=False),
)

CASES = {
    "f_beta": Case(
        segmentation(_f_beta),
        (*_SAMPLES, ids("recall", beta=2.0, axis=0, per_image=False)),
        (*_SHARED, *_out_of_range(beta=-0.5)),
        {"beta": (1.5, -1.0), "smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
    "asymmetric_similarity": Case(
        segmentation(_asymmetric_similarity),
        (*_SAMPLES, probabilities(per_image=False)),
        (*_SHARED, *_out_of_range(beta=-0.5)),
        {"beta": (1.3, -1.0), "smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
    "focal_tversky": Case(
        segmentation(_focal_tversky),
        (*_SAMPLES, ids("prices", alpha=0.6, beta=0.2, gamma=4 / 3, axis=0, per_image=False)),
        (*_SHARED, *_out_of_range(alpha=-0.1, beta=-0.1, gamma=0.0)),
        {"alpha": (0.4, -1.0), "beta": (0.8, -1.0), "gamma": (0.6, 0.0), "smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
}

LOSSES = tuple(CASES)
BINARY = {"axis": None, "activation": None}
P = np.array([[[0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.9, 0.1, 0.0]]], np.float32)
Y = np.array([[2, 0, 0]])


@pytest.mark.parametrize(
    "beta, expected", [(1.0, 0.474099), (0.0, 1 - (1.7 / 1.9 + 0.6 / 0.7) / 3)]
)
def test_f_beta_of_soft_counts(beta, expected):
    """tp [1.7, 0, 0.6], fp [0.2, 0.4, 0.1], fn [0.3, 0, 0.4]; beta=0 is the precision."""
    loss = jaxloss.f_beta(P, Y, activation=None, beta=beta, smooth=1e-5)
    np.testing.assert_allclose(loss, expected, atol=1e-5)


def test_f_beta_of_one_is_dice():
    for smooth in (0.0, 1.0, 3.0):
        loss = jaxloss.f_beta(P, Y, activation=None, smooth=smooth)
        np.testing.assert_allclose(loss, jaxloss.dice(P, Y, activation=None, smooth=smooth), 1e-6)


def test_f_beta_is_a_tversky_loss():
    loss = jaxloss.f_beta(P, Y, activation=None, beta=2.0, smooth=1.0)
    tversky = jaxloss.tversky(P, Y, activation=None, alpha=0.2, beta=0.8, smooth=0.2)
    np.testing.assert_allclose(loss, tversky, 1e-6)


def test_asymmetric_similarity_of_segloss():
    """There the counts are weighted by beta^2 / (1 + beta^2), and `smooth` is added after."""
    expected = segmentation(
        lambda total, p, y, w=2.25 / 3.25: (
            1
            - (total(p * y) + 1)
            / (total(p * y) + w * total((1 - p) * y) + (1 - w) * total(p * (1 - y)) + 1)
        )
    )(P, Y, activation=None)
    loss = jaxloss.asymmetric_similarity(P, Y, activation=None, smooth=3.25)
    np.testing.assert_allclose(loss, expected, 1e-6)
    np.testing.assert_allclose(
        loss, jaxloss.f_beta(P, Y, activation=None, beta=1.5, smooth=3.25), 1e-6
    )


def _corners_aligned(x, sizes):
    """Bilinear resizing of the last two axes."""
    for axis, size in zip((-2, -1), sizes, strict=True):
        at = np.linspace(0, x.shape[axis] - 1, size)
        low = np.minimum(at.astype(int), x.shape[axis] - 2)
        share = np.expand_dims(at - low, -1) if axis == -2 else at - low
        x = np.take(x, low, axis) * (1 - share) + np.take(x, low + 1, axis) * share
    return x


def test_f_beta_of_the_article():
    """Ignored pixels are rows of zeros there, which makes them false positives."""
    x = _corners_aligned(np.sin(np.arange(12.0)).reshape(1, 3, 2, 2), (4, 4))
    labels = np.arange(16).reshape(1, 4, 4) % 4
    rows = np.moveaxis(np.eye(4)[labels][..., :3], -1, 1)
    options = {"axis": 1, "smooth": 1e-5, "per_image": False}
    for beta, expected in ((1, 0.738686), (2, 0.711771)):
        loss = jaxloss.f_beta(
            x.astype(np.float32), rows, activation="softmax", beta=beta, **options
        )
        np.testing.assert_allclose(loss, expected, atol=2e-6)
    loss = jaxloss.f_beta(x.astype(np.float32), labels, ignore_index=3, **options)
    np.testing.assert_allclose(loss, 0.694922, atol=2e-6)


def test_focal_tversky_of_one_is_tversky():
    options = {"activation": None, "alpha": 0.2, "beta": 0.9}
    loss = jaxloss.focal_tversky(P, Y, gamma=1.0, **options)
    np.testing.assert_allclose(loss, jaxloss.tversky(P, Y, **options), 1e-6)


def test_segloss_smp_each_class_is_raised_to_the_power():
    """They raise the mean of the classes, for another value and other gradients."""
    plain = jaxloss.tversky(P, Y, activation=None, alpha=0.3, beta=0.7, reduction="none")
    loss = jaxloss.focal_tversky(P, Y, activation=None, gamma=0.75)
    np.testing.assert_allclose(loss, (plain**0.75).mean(), 1e-6)
    assert abs(loss - plain.mean() ** 0.75) > 1e-3


def _both(loss, **options):
    """Value, gradient and forward derivative of each row, compiled once."""
    alone = lambda p, y: loss(p[None], y[None], **options)

    @jax.jit
    @jax.vmap
    def run(p, y):
        return *jax.value_and_grad(alone)(p, y), jax.jacfwd(alone)(p, y)

    return run


@pytest.mark.rows(2)
@pytest.mark.parametrize("gamma", [0.05, 0.75, 1.0, 4 / 3, 3.0])
def test_focal_tversky_unet_10_29_smp_perfect_predictions(gamma):
    """A fractional power of 0 gave NaN gradients."""
    y = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]], np.float32)
    for smooth in (1.0, 1e-5):
        value, *gradients = _both(jaxloss.focal_tversky, gamma=gamma, smooth=smooth, **BINARY)(y, y)
        assert not value.any()
        for gradient in gradients:
            assert np.isfinite(gradient).all()
            if gamma < 1:
                assert not gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_finite_and_in_range_at_any_logit(name):
    """Empty, full and mixed targets against logits up to 1e30, with and without `smooth`."""
    sizes = np.array([0, 1e-30, 1, 20, 90, 110, 1e4, 1e30], np.float32)
    signs = np.array([[1, 1, 1], [-1, -1, -1], [1, -1, 1], [-1, 1, -1]], np.float32)
    x = (sizes[:, None, None] * signs).reshape(-1, 3)
    y = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1]], np.float32)
    x, y = np.repeat(x, 3, 0), np.tile(y, (len(x), 1))
    for smooth in (0.0, 1.0):
        value, *gradients = _both(getattr(jaxloss, name), axis=None, smooth=smooth)(x, y)
        assert ((value >= 0) & (value <= 1)).all()
        for gradient in gradients:
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_empty_full_and_single_pixels(name):
    """A perfect prediction costs exactly 0; with `smooth=0` an empty target always costs 1."""
    loss = getattr(jaxloss, name)
    for pixels in (1, 5):
        ones, zeros = jnp.ones((1, pixels)), jnp.zeros((1, pixels))
        assert loss(ones, ones, **BINARY) == loss(zeros, zeros, **BINARY) == 0
        assert loss(ones, ones, smooth=0, **BINARY) == 0
        assert loss(zeros, ones, smooth=0, **BINARY) == 1
        assert loss(zeros, zeros, smooth=0, **BINARY) == 1
        assert 0 < loss(ones, zeros, **BINARY) < 1
        assert 0 < loss(zeros, ones, **BINARY) < 1


@pytest.mark.parametrize("name", LOSSES)
def test_smp_463_monai_7622_half_precision_over_a_large_image(name):
    """The sums exceed the largest float16."""
    loss = jax.jit(lambda x, y: getattr(jaxloss, name)(x, y, axis=None))
    for dtype in (jnp.float16, jnp.bfloat16):
        value = loss(jnp.full((1, 512, 512), 20, dtype), jnp.ones((1, 512, 512), dtype))
        np.testing.assert_allclose(value, 0, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_smp_712_images_are_scored_by_themselves(name):
    loss = getattr(jaxloss, name)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 6, 2)).astype(np.float32), rng.integers(2, size=(3, 6))
    each = [loss(x[i : i + 1], y[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(loss(x, y), np.mean(each), 1e-6)
    assert abs(loss(x, y, per_image=False) - np.mean(each)) > 1e-4
