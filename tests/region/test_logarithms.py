"""Logarithms of Dice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations, segmentation
from tests.region.test_overlap import dice_oracle
from tests.registry import Case, Invalid, binary, elements, ids


def _log_dice(total, p, y, smooth=1.0):
    return -np.log(1 - dice_oracle(total, p, y, smooth))


def _log_cosh_dice(total, p, y, smooth=1.0):
    return np.log(np.cosh(dice_oracle(total, p, y, smooth)))


_INVALID = (
    *invalid_segmentations(),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
)
_SAMPLES = (
    ids(),
    elements(smooth=0.0),
    ids("channels", axis=1, include_background=False, absent="skip"),
    ids("classes_first", axis=0, per_image=False),
    binary(),
    ids("together", per_class=False),
)

CASES = {
    name: Case(segmentation(oracle), _SAMPLES, _INVALID, {"smooth": (0.5, -1.0)}, "smooth", 0.58)
    for name, oracle in (("log_dice", _log_dice), ("log_cosh_dice", _log_cosh_dice))
}

BINARY = {"axis": None, "activation": None}


@pytest.mark.parametrize("p", [0.0, 0.3, 0.999, 1.0])
def test_closed_forms_of_one_pixel(p):
    """With `smooth=1` Dice is `(1 - p) / (2 + p)`."""
    x, y = jnp.array([[p]]), jnp.ones((1, 1))
    score = (2 * np.float64(p) + 1) / (p + 2)
    np.testing.assert_allclose(jaxloss.log_dice(x, y, **BINARY), -np.log(score), 1e-4)
    loss = jaxloss.log_cosh_dice(x, y, **BINARY)
    np.testing.assert_allclose(loss, np.log(np.cosh(1 - score)), 1e-4)


@pytest.mark.parametrize("off", [1e-3, 1e-5, 1e-7])
def test_good_predictions_keep_their_digits(off):
    """`log` of a score next to 1 and `cosh` of a loss next to 0 round all digits away."""
    p, y = jnp.array([[1.0, off]], jnp.float32), jnp.array([[1.0, 0.0]])
    exact = np.float64(p[0, 1]) / 2
    loss = jaxloss.log_dice(p, y, smooth=0, **BINARY)
    np.testing.assert_allclose(loss, np.log1p(exact), 1e-6)
    loss = jaxloss.log_cosh_dice(p, y, smooth=0, **BINARY)
    np.testing.assert_allclose(loss, (exact / (1 + exact)) ** 2 / 2, 1e-5)


@pytest.mark.parametrize("x", [-10.0, -40.0, -80.0])
def test_smp_log_loss_wrong_predictions_keep_their_gradient(x):
    """A floor of 1e-7 under the score made it 0: `-log(2 p / (p + 1))` has slope -1 there."""
    loss = lambda x: jaxloss.log_dice(x, jnp.ones_like(x), axis=None, smooth=0)
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.array([[x]], jnp.float32))
    np.testing.assert_allclose(value, -x - np.log(2), rtol=1e-4)
    np.testing.assert_allclose(gradient, -1, rtol=1e-4)


def test_a_score_of_zero_is_cut():
    p = jnp.array([[[0.0, 0.0]], [[0.0, 1.0]], [[1e-39, 0.0]]], jnp.float32)
    y = jnp.array([[[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]], jnp.float32)
    loss = lambda p, y: jaxloss.log_dice(p, y, smooth=0, **BINARY)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(loss)))(p, y)
    np.testing.assert_allclose(value, 126 * np.log(2), rtol=1e-6)
    assert not gradient.any()


@pytest.mark.parametrize("name", CASES)
def test_finite_at_any_logit(name):
    sizes = np.array([0, 1e-30, 1, 20, 90, 110, 1e4, 1e30], np.float32)
    signs = np.array([[1, 1, 1], [-1, -1, -1], [1, -1, 1], [-1, 1, -1]], np.float32)
    x = (sizes[:, None, None] * signs).reshape(-1, 3)
    y = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1]], np.float32)
    x, y = np.repeat(x, 3, 0), np.tile(y, (len(x), 1))

    @jax.jit
    @jax.vmap
    def run(x, y, smooth):
        loss = lambda x: getattr(jaxloss, name)(x[None], y[None], axis=None, smooth=smooth)
        return *jax.value_and_grad(loss)(x), jax.jacfwd(loss)(x)

    for smooth in (0.0, 1e-5, 1.0):
        value, *gradients = run(x, y, np.full(len(x), smooth, np.float32))
        assert np.isfinite(value).all()
        assert (value >= 0).all()
        for gradient in gradients:
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", CASES)
def test_perfect_predictions_cost_exactly_nothing(name):
    y = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]], np.float32)
    loss = jax.jit(lambda y: getattr(jaxloss, name)(y, y, reduction="none", **BINARY))
    np.testing.assert_array_equal(loss(y), np.zeros(4))


@pytest.mark.parametrize("name", CASES)
def test_smp_463_monai_7622_half_precision_over_a_large_image(name):
    """The sums exceed the largest float16."""
    loss = jax.jit(lambda x, y: getattr(jaxloss, name)(x, y, axis=None))
    for dtype in (jnp.float16, jnp.bfloat16):
        value = loss(jnp.full((1, 512, 512), 20, dtype), jnp.ones((1, 512, 512), dtype))
        np.testing.assert_allclose(value, 0, atol=1e-5)
