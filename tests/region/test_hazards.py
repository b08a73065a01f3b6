"""Bug reports about other libraries' losses of segmentations, one test for each.

What their names say: tests/test_hazards.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.hazards import (
    HALVES,
    IMAGES,
    INF,
    LABELLED,
    REGION,
    SAMPLES,
    array,
    assert_finite,
    assert_rows,
    rows,
)

region_losses = pytest.mark.parametrize("name", REGION)
image_losses = pytest.mark.parametrize("name", IMAGES)


@pytest.mark.parametrize("name", ["dice", "jaccard", "dice_cross_entropy", "boundary"])
def test_pytorch_1204_a_bad_id_costs_its_image_only(name):
    """One label out of range ended the whole run; here it makes its image NaN, and no other."""
    loss, x, ids, _ = SAMPLES[name]
    ids = ids.copy()
    ids[0, 0, 0] = 3
    reduction = "mean" if name == "dice_cross_entropy" else "none"

    @jax.jit
    def run(x):
        value, back = jax.vjp(lambda x: loss(x, ids, reduction=reduction), x)
        return value, back(jnp.ones_like(value))[0]

    value, gradient = run(x)
    bad = np.isnan(value)
    assert bad.all() if reduction == "mean" else (bad[0].all() and not bad[1].any())
    assert np.isnan(gradient[0]).any()
    assert np.isfinite(gradient[1]).all()


def test_smp_lovasz_all_ignored_keeps_the_documented_shape():
    """All-ignored input gave an array of shape (0, 3) instead of a scalar."""
    for name in (*LABELLED, *IMAGES):
        loss, x, y, _ = SAMPLES[name]
        labels = np.full(y.shape, 255, np.uint8)
        assert jax.eval_shape(functools.partial(loss, ignore_index=255), x, labels).shape == ()


def region_options(name):
    """The loss of probabilities of binary images."""
    return functools.partial(SAMPLES[name][0], axis=None, activation=None)


@region_losses
def test_monai_807_empty_masks_have_gentle_gradients(name):
    """smooth = 1e-5 in an empty image gave each pixel a gradient of 100000."""
    p = np.tile(array(0, 1e-3, 0.5)[:, None, None], (1, 1, 8))
    value, gradient, _ = rows(region_options(name), p, np.zeros_like(p), forward=False)
    assert np.abs(gradient).max() <= 1
    assert value[0] == 0
    assert value[2] > value[1] > 0


@region_losses
def test_monai_120_4510_7504_empty_and_full_masks(name):
    """An empty class was NaN, always 1 or always 0, as the version went; smooth=0 was NaN.

    The documented table: with `smooth` nothing for nothing costs 0 and something for nothing
    1 - s / (P + s); with `smooth=0` a class that is not there costs 1.
    """
    n = 8
    p = np.tile(array(0, 1, 0, 1)[:, None, None], (2, 1, n))
    y = np.tile(array(0, 1, 1, 0)[:, None, None], (2, 1, n))
    smooth = np.repeat(array(1, 0), 4)

    def loss(p, y, smooth):
        return region_options(name)(p, y, smooth=smooth)

    value, gradient, _ = rows(loss, p, y, smooth, forward=False)
    price = 0.5 if name == "tversky" else 1
    far = 1 - 1 / (price * n + 1)
    np.testing.assert_allclose(value, [0, 0, far, far, 1, 0, 1, 1], rtol=1e-6)
    assert_finite(gradient)


@pytest.mark.parametrize("name", ["dice", "dice_cross_entropy", "boundary"])
def test_monai_120_empty_and_full_masks_from_logits(name):
    """The same from saturated logits of classes that compete."""
    loss = SAMPLES[name][0]
    one = np.broadcast_to(array(0, 1), (1, 3, 3, 2))
    predictions = np.stack([s * one for s in array(-1e4, -100, -1, 1, 100, 1e4)] * 2)
    ids = np.repeat(np.array([0, 1]), 6)[:, None, None, None] * np.ones((1, 1, 3, 3), np.int32)
    value, gradient, _ = rows(loss, predictions, ids, forward=False)
    assert_finite((value, gradient))
    if name == "boundary":
        assert not value.any()  # no boundary, no cost
        assert not gradient.any()
    else:
        assert value[0] < value[2] < value[3] < value[5]
        assert value[11] < value[9] < value[8] < value[6]


def test_smp_absent_classes_can_be_skipped():
    """Classes that are not there pulled the mean up or down: `absent="skip"` leaves them out."""
    ids = np.array([[[0, 0, 1, 1]], [[0, 0, 0, 0]]])
    p = np.full((2, 1, 4, 3), 1 / 3, np.float32)

    @jax.jit
    def run(p):
        loss = functools.partial(jaxloss.dice, p, ids, activation=None)
        foreground = loss(absent="skip", include_background=False)
        return loss(reduction="none"), loss(absent="skip"), foreground

    each, present, foreground = run(p)
    np.testing.assert_allclose(present, (each[0, :2].mean() + each[1, 0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(foreground, each[0, 1], rtol=1e-6)  # the other image has none


@pytest.mark.parametrize(
    "name, dtype",
    [*((name, HALVES[0]) for name in (*REGION, "dice_cross_entropy")), ("dice", HALVES[1])],
)
def test_smp_463_monai_7622_half_precision_images(name, dtype):
    """The sums of 512 x 512 pixels exceed 65504, float16's largest number."""
    loss = functools.partial(SAMPLES[name][0], axis=None)
    y = np.ones((1, 512, 512), np.float32)
    logits = jnp.full((1, 512, 512), 12, dtype)
    run = jax.jit(jax.value_and_grad(loss))
    for x, low, high in ((logits, 0, 1e-3), (-logits, 0.9, np.inf)):
        value, gradient = run(x, y)
        assert value.dtype == np.float32
        assert low <= value < high
        assert gradient.dtype == dtype
        assert_finite(gradient)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_smp_712_the_mean_over_images_is_the_loss_of_each(name):
    """Sums over the whole batch made the loss depend on how it was split."""
    loss, x, ids, _ = SAMPLES[name]
    run = jax.jit(lambda x, y: (loss(x, y), jax.vmap(lambda x, y: loss(x[None], y[None]))(x, y)))
    together, alone = run(x, ids)
    np.testing.assert_allclose(together, alone.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["dice", "tversky", "dice_cross_entropy", "boundary"])
def test_monai_7729_6855_class_weights_have_one_length(name):
    """The length changed with include_background, and differed between the parts of a sum."""
    loss, x, ids, _ = SAMPLES[name]
    weights = array(5, 1, 2)

    def foreground(weights, **options):
        of = functools.partial(loss, class_weights=weights, include_background=False, **options)
        return of(x, ids)

    with pytest.raises(ValueError, match=r"`class_weights` is of shape \(2,\), expected \(3,\)"):
        jax.eval_shape(foreground, weights[1:])
    if name == "dice_cross_entropy":
        assert np.isfinite(jax.jit(foreground)(weights))
    else:
        each = jax.jit(functools.partial(loss, include_background=False, reduction="none"))(x, ids)
        expected = (each @ weights[1:] / 3).mean()
        np.testing.assert_allclose(jax.jit(foreground)(weights), expected, rtol=1e-6)


def test_focal_tversky_10_29_smp_gradient_at_a_perfect_prediction():
    """The gradient was NaN where the Tversky index is 1."""
    y = array([1, 0, 0, 1, 0, 1])

    def loss(p, smooth, activation=None):
        options = {"alpha": 0.3, "beta": 0.7, "smooth": smooth, "activation": activation}
        return jaxloss.tversky(p, y, axis=None, **options)

    smooth = array(0, 1)
    results = rows(loss, np.stack([y, y]), smooth)
    by_pixel = np.where(y == 1, -0.7, 0.3) / (3 + smooth[:, None, None])
    assert_rows(results, [0, 0], by_pixel)
    logits = array(100, 1e4, INF)[:, None, None] * (2 * y - 1)
    results = rows(functools.partial(loss, activation="sigmoid"), logits, np.ones(3, np.float32))
    assert_rows(results, np.zeros(3))


@image_losses
def test_optax_dice_checks_no_values_under_jit(name):
    """dice_loss(apply_softmax=False) looked at the values, which a traced array does not have."""
    loss, x, ids, where = SAMPLES[name]
    numbers = {"smooth": 1.0} if name in (*REGION, "dice_cross_entropy") else {}

    def of_probabilities(p, ids, where, weights, numbers):
        options = {"where": where, "weights": weights, "activation": None, **numbers}
        return loss(p, ids, class_weights=weights[0, 0, :3], **options)

    weights = where.astype(np.float32)
    gradient = jax.eval_shape(jax.grad(of_probabilities), x, ids, where, weights, numbers)
    assert gradient.shape == x.shape


@pytest.mark.parametrize("name", [*REGION, "dice_cross_entropy"])
def test_pytorch_49844_infinite_logits_in_region_losses(name):
    """The same 0 * inf: certain predictions cost 0 when right, and are not NaN when wrong."""
    y = array([1, 0, 1, 0])
    x = np.where(y == 1, INF, -INF)
    value, gradient, _ = rows(
        lambda x: SAMPLES[name][0](x, y, axis=None), np.stack([x, -x]), forward=False
    )
    assert value[0] == 0
    assert value[1] > 0.5
    np.testing.assert_array_equal(gradient[0], 0)
    assert not np.isnan(gradient[1]).any()
