"""Losses on rates of error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations, segmentation
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def _sensitivity_specificity(total, p, y, r=0.05, smooth=1.0):
    inside, outside = total((y - p) ** 2 * y), total((y - p) ** 2 * (1 - y))
    return r * inside / (total(y) + smooth) + (1 - r) * outside / (total(1 - y) + smooth)


def _mcc(total, p, y, smooth=1.0):
    tp, fp, fn, tn = total(p * y), total(p * (1 - y)), total((1 - p) * y), total((1 - p) * (1 - y))
    n, wrong = tp + fp + fn + tn, fp + fn
    e = smooth * wrong / n
    root = np.sqrt((tp + fp + e) * (fn + tn + e) * (tp + fn) * (fp + tn))
    one_sided = wrong / np.where(wrong + smooth == 0, 1, wrong + smooth)
    correlation = (tp * tn - fp * fn) / np.where(root == 0, 1, root)
    return np.where((tp + fn == 0) | (fp + tn == 0), one_sided, 1 - correlation)


def _noise_robust_dice(total, p, y, gamma=1.5, smooth=1e-5):
    return total(np.abs(p - y) ** gamma) / (total(p**2) + total(y**2) + smooth)


def _out_of_range(*numbers):
    return tuple(
        Invalid((PIXELS, PIXEL_IDS), {name: value}, ValueError, (name, str(value), "number in"))
        for name, value in numbers
    )


_SHARED = (
    *invalid_segmentations(),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
)
_SAMPLES = (
    ids(),
    elements(smooth=0.0),
    ids("channels", axis=1, include_background=False, absent="skip"),
    ids("classes_first", axis=0, per_image=False),
    binary(),
)

CASES = {
    "sensitivity_specificity": Case(
        segmentation(_sensitivity_specificity),
        (*_SAMPLES, soft("images_second", r=0.4, activation="softmax")),
        (*_SHARED, *_out_of_range(("r", -0.1), ("r", 1.1))),
        {"r": (0.3, -0.1), "smooth": (0.5, -1.0)},
        "smooth",
        0.31,
    ),
    "mcc": Case(
        segmentation(_mcc),
        (*_SAMPLES, probabilities(per_image=False)),
        _SHARED,
        {"smooth": (0.5, -1.0)},
        "smooth",
        0.24,
    ),
    "noise_robust_dice": Case(
        segmentation(_noise_robust_dice),
        (*_SAMPLES, ids("exponent", gamma=1.2)),
        (*_SHARED, *_out_of_range(("gamma", 0.9), ("gamma", 2.1))),
        {"gamma": (1.4, 0.5), "smooth": (0.5, -1.0)},
        "smooth",
        0.34,
    ),
}

LOSSES = tuple(CASES)
BINARY = {"axis": None, "activation": None}


def _rows(loss, p, y, **options):
    """Value, gradient and forward derivative of each row, compiled once."""
    alone = lambda p, y: loss(p[None], y[None], **options)

    @jax.jit
    @jax.vmap
    def run(p, y):
        return *jax.value_and_grad(alone)(p, y), jax.jacfwd(alone)(p, y)

    return run(p, y)


@pytest.mark.parametrize("r, smooth", [(0.05, 1.0), (0.5, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_sensitivity_specificity_in_closed_form(r, smooth):
    p, y = jnp.array([[0.9, 0.2, 0.1, 0.4]]), jnp.array([[1.0, 1.0, 0.0, 0.0]])
    expected = (r * (0.01 + 0.64) + (1 - r) * (0.01 + 0.16)) / (2 + smooth)
    loss = jaxloss.sensitivity_specificity(p, y, r=r, smooth=smooth, **BINARY)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_segloss_niftynet_r_weighs_the_pixels_of_the_class():
    """Their names say the opposite."""
    y = jnp.array([[1.0, 1.0, 0.0, 0.0]])
    missed, wrong = jnp.zeros((1, 4)), jnp.ones((1, 4))
    loss = lambda p: jaxloss.sensitivity_specificity(p, y, r=0.05, smooth=0, **BINARY)
    np.testing.assert_allclose([loss(missed), loss(wrong)], [0.05, 0.95], rtol=1e-6)


@pytest.mark.parametrize("name", ["sensitivity_specificity", "noise_robust_dice"])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_soft_targets_are_the_minimum(name, smooth):
    """Value and gradient are 0 at `p = y`; to each side it costs."""
    y = np.array([[0.2, 0.5, 0.9, 0.0, 1.0]], np.float32)
    steps = np.eye(5, dtype=np.float32)
    p = np.clip(np.concatenate([y, y + 0.05 * steps, y - 0.05 * steps]), 0, 1)
    moved = (p != y).any(-1)
    loss = getattr(jaxloss, name)
    value, *gradients = _rows(loss, p, np.repeat(y, len(p), 0), smooth=smooth, **BINARY)
    np.testing.assert_array_equal(value > 0, moved)
    for gradient in gradients:
        assert not gradient[~moved].any()


@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_noise_robust_dice_in_closed_form(gamma):
    p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
    expected = (0.1**gamma + 0.8**gamma + 0.1**gamma) / (0.81 + 0.04 + 0.01 + 2)
    loss = jaxloss.noise_robust_dice(p, y, gamma=gamma, smooth=0, **BINARY)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_noise_robust_dice_of_two_is_squared_dice():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 3)).astype(np.float32), rng.integers(3, size=(2, 5))
    for smooth in (1e-5, 1.0):
        loss = jaxloss.noise_robust_dice(x, y, gamma=2.0, smooth=smooth)
        np.testing.assert_allclose(loss, jaxloss.dice(x, y, squared=True, smooth=smooth), 1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_errors_keep_their_digits_where_one_minus_p_rounds(name):
    """At logits of 12 and more the difference of 1 and p has few digits, and then none."""
    x = np.float32([[12, -13, 14], [20, -20, 20], [9, 9, 9]])
    y = np.float32([[1, 0, 1], [1, 0, 1], [1, 1, 1]])
    p, q = (1 / (1 + np.exp(-sign * x.astype(np.longdouble))) for sign in (1, -1))
    off = np.where(y == 1, q, p)
    total = lambda v: v.sum(-1)
    if name == "mcc":
        parts = [total(v) for v in (p * y, p * (1 - y), q * y, q * (1 - y))]
        tp, fp, fn, tn = parts
        wrong, n = fp + fn, sum(parts)
        e = wrong / n
        # 1 - J / root = (root^2 - J^2) / (root (root + J)), the difference by hand
        joint, root2 = tp * tn - fp * fn, (tp + fp + e) * (fn + tn + e) * (tp + fn) * (fp + tn)
        u = fn * (tp + fp) + fp * (tn + fn) + e * (n + e)
        v = fp * (tp + fn) + fn * (tn + fp)
        root = np.sqrt(root2)
        apart = (joint * (u + v) + u * v) / np.where(root == 0, 1, root * (root + joint))
        expected = np.where(total(1 - y) == 0, wrong / (wrong + 1), apart)
    elif name == "noise_robust_dice":
        expected = total(off**1.5) / (total(p**2) + total(y) + 1e-5)
    else:
        inside, outside = total(off**2 * y), total(off**2 * (1 - y))
        expected = 0.05 * inside / (total(y) + 1) + 0.95 * outside / (total(1 - y) + 1)
    value = getattr(jaxloss, name)(x, y, axis=None, reduction="none")
    np.testing.assert_allclose(value, np.float64(expected), rtol=2e-5)


def test_noise_robust_dice_has_no_infinite_second_derivative():
    """`|p - y|^1.5` has one at `p = y`; nothing of it is left there."""
    y = jnp.array([[1.0, 0.0, 1.0]])
    loss = lambda p: jaxloss.noise_robust_dice(p, y, **BINARY)
    assert np.isfinite(jax.jit(jax.hessian(loss))(y)).all()


@pytest.mark.parametrize(
    "tp, fp, fn, tn", [(2, 1, 1, 4), (3, 0, 2, 5), (1, 3, 2, 0), (0, 2, 3, 1), (5, 0, 0, 1)]
)
def test_mcc_of_hard_predictions_is_the_correlation(tp, fp, fn, tn):
    p = np.repeat([1.0, 1.0, 0.0, 0.0], (tp, fp, fn, tn)).astype(np.float32)
    y = np.repeat([1.0, 0.0, 1.0, 0.0], (tp, fp, fn, tn)).astype(np.float32)
    loss = jaxloss.mcc(p[None], y[None], smooth=0, **BINARY)
    np.testing.assert_allclose(loss, 1 - np.corrcoef(p, y)[0, 1], rtol=1e-5, atol=1e-7)


def test_smp_mcc_perfect_predictions_cost_exactly_nothing():
    """Without positives, or without negatives, it was 0 / 0."""
    y = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0]], np.float32)
    value, *gradients = _rows(jaxloss.mcc, y, y, **BINARY)
    np.testing.assert_array_equal(value, np.zeros(4))
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(
        jaxloss.mcc(y, y, smooth=0, reduction="none", **BINARY), [0, 0, 0, 0]
    )


def test_mcc_of_a_wrong_prediction_has_a_gradient():
    """All pixels wrong, half of them, and one in a thousand."""
    y = np.zeros((3, 1000), np.float32)
    y[:, :400] = 1
    p = np.stack([1 - y[0], np.where(np.arange(1000) % 2, y[0], 1 - y[0]), y[0]])
    p[2, 0] = 0
    x = np.where(p == 1, 5, -5).astype(np.float32)
    value, gradient, _ = _rows(jaxloss.mcc, x, y, axis=None)
    assert ((value > 0) & (value < 2)).all()
    assert (np.abs(gradient).max(-1) > 1e-7).all()
    assert ((gradient * (p - y))[p != y] > 0).all()


def test_mcc_of_a_constant_prediction_is_one_at_any_size_of_the_object():
    """Of 4,096 pixels; weights make up to 2^26 of them."""
    y = (np.arange(4096) < np.array([4, 1, 4095])[:, None]).astype(np.float32)
    weights = np.repeat(np.float32([[1], [2**14], [2**14]]), 4096, 1)
    x = np.repeat(np.float32([[-40], [-9], [-1], [0], [3], [40]]), 4096, 1)

    def loss(x, y, weights):
        return jaxloss.mcc(x[None], y[None], axis=None, weights=weights[None])

    of_pairs = jax.vmap(jax.vmap(jax.value_and_grad(loss), (0, None, None)), (None, 0, 0))
    value, gradient = jax.tree.map(np.asarray, jax.jit(of_pairs)(x, y, weights))
    np.testing.assert_allclose(value, np.ones((3, 6)), rtol=1e-5)
    inside = gradient[:, 1:5]  # beyond, a sigmoid has no slope
    assert (inside * (0.5 - y[:, None]) > 0).all()


def test_mcc_stays_within_its_range():
    """Opposite predictions of masks of any size, with counts of up to 2^26 by weights."""
    rng = np.random.default_rng(0)
    y = (rng.random((400, 64)) < rng.random((400, 1))).astype(np.float32)
    weights = (2.0 ** rng.uniform(0, 20, y.shape)).astype(np.float32)
    p = 1 - y
    value = jaxloss.mcc(p, y, weights=weights, smooth=0, reduction="none", **BINARY)
    both = (y.min(-1) == 0) & (y.max(-1) == 1)
    assert (value <= 2).all()
    np.testing.assert_allclose(value[both], 2, rtol=1e-6)
    value = jaxloss.mcc(p, y, weights=weights, reduction="none", **BINARY)
    assert (value <= 2).all()
    assert (value[both] > 1.4).all()


def test_mcc_close_to_perfect_keeps_its_digits():
    p, y = np.float64([[1, 1, 0, 1e-6]]), np.float64([[1, 1, 0, 0]])
    p32 = p.astype(np.float32)
    expected = _mcc(lambda x: x.sum(-1), np.longdouble(p32), np.longdouble(y))
    np.testing.assert_allclose(jaxloss.mcc(p32, y, **BINARY), expected[0], rtol=1e-5)


def test_mcc_of_a_large_volume_does_not_overflow():
    """The product of four counts of 1e10 exceeds the largest float32."""
    weights = np.full((1, 4, 4, 4), 3e8, np.float32)
    y = np.arange(64).reshape(1, 4, 4, 4) < 32
    loss = jax.jit(lambda x: jaxloss.mcc(jnp.where(y, x, -x), y, axis=None, weights=weights))
    for dtype in (jnp.float16, jnp.float32):
        values = [loss(jnp.asarray(x, dtype)) for x in (20, 0, -20)]
        np.testing.assert_allclose(values, [0, 1, 2], atol=1e-5)


def test_mcc_does_not_depend_on_the_scale_of_the_weights():
    rng = np.random.default_rng(0)
    p, y = rng.uniform(size=(1, 9)).astype(np.float32), rng.integers(2, size=(1, 9))
    expected = jaxloss.mcc(p, y, smooth=0, **BINARY)
    for scale in (1e-12, 1e12):
        weights = np.full((1, 9), scale, np.float32)
        np.testing.assert_allclose(
            jaxloss.mcc(p, y, smooth=0, weights=weights, **BINARY), expected, rtol=1e-5
        )


@pytest.mark.parametrize("name", LOSSES)
def test_finite_at_any_logit(name):
    """Empty, full and mixed targets against logits up to 1e30, with and without `smooth`."""
    sizes = np.array([0, 1e-30, 1, 20, 90, 110, 1e4, 1e30], np.float32)
    signs = np.array([[1, 1, 1], [-1, -1, -1], [1, -1, 1], [-1, 1, -1]], np.float32)
    x = (sizes[:, None, None] * signs).reshape(-1, 3)
    y = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1]], np.float32)
    x, y = np.repeat(x, 3, 0), np.tile(y, (len(x), 1))
    for smooth in (0.0, 1.0):
        value, *gradients = _rows(getattr(jaxloss, name), x, y, axis=None, smooth=smooth)
        assert np.isfinite(value).all()
        assert (value >= 0).all()
        for gradient in gradients:
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["sensitivity_specificity", "noise_robust_dice"])
def test_nothing_wrong_costs_nothing_without_smooth(name):
    """A ratio of 0 / 0 is 0."""
    loss = getattr(jaxloss, name)
    for pixels in (1, 4):
        for p in (jnp.zeros((1, pixels)), jnp.ones((1, pixels))):
            assert loss(p, p, smooth=0, **BINARY) == 0
            assert loss(1 - p, p, smooth=0, **BINARY) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_smp_463_monai_7622_half_precision_over_a_large_image(name):
    """The sums exceed the largest float16."""
    loss = jax.jit(lambda x, y: getattr(jaxloss, name)(x, y, axis=None))
    for dtype in (jnp.float16, jnp.bfloat16):
        value = loss(jnp.full((1, 512, 512), 30, dtype), jnp.ones((1, 512, 512), dtype))
        np.testing.assert_allclose(value, 0, atol=1e-5)
