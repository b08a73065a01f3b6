"""Exponential logarithmic loss: oracle, case, closed forms and hazards."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compound.test_sums import NO_ELEMENTS, out_of_range
from tests.oracles import (
    invalid_segmentations,
    mean_over_classes,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, binary, elements, ids, probabilities, soft


def _exp_log(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="auto",
    per_image=True,
    include_background=True,
    absent="score",
    w_dice=0.8,
    w_cross_entropy=0.2,
    gamma=0.3,
    smooth=1.0,
):
    same = axis is None or prediction.shape == target.shape
    competes = activation == "softmax" or not same
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis)
    axes = tuple(range(1 if per_image else 0, p.ndim - 1))
    score = 2 * (v * p * y).sum(axes) + smooth
    score = score / ((v * p).sum(axes) + (v * y).sum(axes) + smooth)
    part = v.sum(axes) > 0
    if absent == "skip":
        part &= (v * y).sum(axes) > 0
    dice = mean_over_classes(
        np.abs(-np.log(score)) ** gamma,
        part,
        class_weights,
        reduction,
        axis is None,
        include_background,
    )

    def rarity(y):
        batch = tuple(range(p.ndim - 1))
        count = (v * y).sum(batch)
        return np.where(count > 0, np.sqrt(v.sum(batch) / np.where(count > 0, count, 1)), 0)

    positive, negative = rarity(y), rarity(1 - y)
    if class_weights is not None:
        positive = negative = class_weights
    values = positive * y * (-np.log(p)) ** gamma
    if not competes:
        values = values + negative * (1 - y) * (-np.log1p(-p)) ** gamma
    total, count = (v * values).sum(), v[..., 0].sum() if competes else v.sum()
    if reduction == "mean":
        total = total / count if count else 0.0
    return w_dice * dice + w_cross_entropy * total


CASES = {
    "exp_log": Case(
        _exp_log,
        (
            ids(),
            elements("elements", gamma=0.5),
            soft("soft_softmax", activation="softmax", w_dice=0.3, w_cross_entropy=2.0),
            ids("channels", axis=1, include_background=False, absent="skip", gamma=1.5, smooth=0.1),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            NO_ELEMENTS,
            *out_of_range(w_dice=-1.0, w_cross_entropy=-1.0, gamma=0.0),
        ),
        {
            "w_dice": (0.5, -1.0),
            "w_cross_entropy": (0.5, -1.0),
            "gamma": (0.4, -0.1),
            "smooth": (0.5, -1.0),
        },
        "smooth",
        1.09,
    ),
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_binary_masks_equal_the_oracle(reduction):
    """Each pixel is weighted by how rare its label is, with a gradient by the logits alone."""
    sample = binary()
    rng = np.random.default_rng(0)
    masks = {"where": rng.random(sample.positions) < 0.7, "weights": rng.random(sample.positions)}
    with jax.enable_x64(True):
        value = jaxloss.exp_log(
            sample.prediction, sample.target, axis=None, reduction=reduction, **masks
        )
    expected = _exp_log(sample.prediction, sample.target, axis=None, reduction=reduction, **masks)
    np.testing.assert_allclose(value, expected, 1e-12)


def test_two_channels_equal_one_logit():
    x, y = binary().prediction.astype(np.float32), binary().target
    both = jaxloss.exp_log(np.stack([0 * x, x], -1), y.astype(int), w_dice=0.0)
    np.testing.assert_allclose(both, jaxloss.exp_log(x, y, axis=None, w_dice=0.0), 1e-6)


@pytest.mark.parametrize(
    "options, expected",
    [
        # The classes hold I = 1.6 of P + T = 4, and I = 0.6 of P + T = 2.
        (
            {"w_cross_entropy": 0.0, "gamma": 1.0, "w_dice": 1.0},
            -(math.log(4.2 / 5) + math.log(2.2 / 3)) / 2,
        ),
        (
            {"w_cross_entropy": 0.0, "gamma": 0.3, "w_dice": 1.0},
            (math.log(5 / 4.2) ** 0.3 + math.log(3 / 2.2) ** 0.3) / 2,
        ),
        (
            {"w_dice": 0.0, "gamma": 0.3, "w_cross_entropy": 1.0},
            math.sqrt(3 / 2) * (-math.log(0.9)) ** 0.3 / 3
            + math.sqrt(3 / 2) * (-math.log(0.7)) ** 0.3 / 3
            + math.sqrt(3) * (-math.log(0.6)) ** 0.3 / 3,
        ),
        (
            {"w_dice": 0.0, "gamma": 1.0, "w_cross_entropy": 1.0, "class_weights": [2.0, 0.0]},
            -2 * (math.log(0.9) + math.log(0.7)) / 3,  # the weights are not divided out
        ),
    ],
)
def test_closed_form(options, expected):
    p = jnp.array([[[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]]])
    loss = jaxloss.exp_log(p, jnp.array([[0, 0, 1]]), activation=None, **options)
    np.testing.assert_allclose(loss, expected, 1e-6)


def test_powers_come_before_the_means():
    """SegLossOdyssey takes the power of the mean Dice, and none of the cross-entropy."""
    p = jnp.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.6, 0.4]]])
    y, options = jnp.array([[0, 1], [0, 1]]), {"activation": None, "class_weights": [1.0, 1.0]}
    each = jnp.stack([jaxloss.exp_log(p[i : i + 1], y[i : i + 1], **options) for i in range(2)])
    np.testing.assert_allclose(jaxloss.exp_log(p, y, **options), each.mean(), 1e-6)


def test_label_weights_are_those_of_the_valid_batch():
    x, y = ids().prediction.astype(np.float32), ids().target
    shown = np.arange(4) < 2
    where = np.broadcast_to(shown[:, None, None], y.shape)
    half = jaxloss.exp_log(x[:2], y[:2])
    np.testing.assert_allclose(jaxloss.exp_log(x, y, where=where), half, 1e-6)
    twice = jaxloss.exp_log(x[:2], y[:2], weights=np.full((1, 1, 1), 2.0), w_dice=0.0)
    np.testing.assert_allclose(twice, jaxloss.exp_log(x[:2], y[:2], w_dice=0.0), 1e-6)


def _along(direction, labels, **options):
    """Value and derivatives of both orders and modes of a loss along a line of logits."""
    loss = lambda s: jaxloss.exp_log(s * direction, labels, **options)
    slope = jax.grad(loss)
    return jax.jit(
        jax.vmap(
            lambda s: (
                loss(s),
                slope(s),
                jax.jvp(loss, (s,), (jnp.ones_like(s),))[1],
                jax.grad(slope)(s),
                jax.jvp(slope, (s,), (jnp.ones_like(s),))[1],
            )
        )
    )


SIZES = [-1e30, -1e4, -100.0, -10.0, 1.0, 10.0, 17.0, 25.0, 50.0, 86.0, 90.0, 100.0, 1e4, 1e30]
LABELS = jnp.array([[0, 1, 1, 0]])


def test_two_derivatives_are_finite_at_any_logit():
    """Of a power below 1: plain derivatives are NaN from a logit of 60 on."""
    y = LABELS.astype(jnp.float32)
    run = _along(2 * y - 1, y, axis=None)
    for array in run(jnp.array(SIZES)):
        assert jnp.isfinite(array).all()
    right = jax.nn.one_hot(LABELS, 3)
    run = _along(right, LABELS)
    for array in run(jnp.array(SIZES)):
        assert jnp.isfinite(array).all()


def test_slope_near_the_optimum():
    """u = softplus(-x) is exp(-x) there, so u^g falls with the rate g."""
    y = LABELS.astype(jnp.float32)
    x = jnp.array([20.0, 40.0, 60.0, 80.0])
    run = _along(2 * y - 1, y, axis=None, w_dice=0.0, w_cross_entropy=1.0)
    value, slope, forward, second, _ = run(x)
    np.testing.assert_allclose(value, math.sqrt(2) * jnp.exp(-0.3 * x), 1e-4)
    np.testing.assert_allclose(slope, -0.3 * value, 1e-4)
    np.testing.assert_allclose(forward, -0.3 * value, 1e-4)
    np.testing.assert_allclose(second[:2], 0.09 * value[:2], 1e-3)


def test_perfect_probabilities_cost_nothing():
    y = jax.nn.one_hot(LABELS, 3)
    run = jax.value_and_grad(lambda p: jaxloss.exp_log(p, LABELS, activation=None))
    value, slope = jax.jit(run)(y)
    assert value == 0
    assert jnp.isfinite(slope).all()


def test_absent_class_without_smoothing():
    """-log of a Dice score of 0 is infinite; where it takes no part nothing of it arrives."""
    x, y = jnp.zeros((1, 4, 3)), LABELS
    run = jax.value_and_grad(lambda x: jaxloss.exp_log(x, y, smooth=0.0, absent="skip"))
    value, slope = run(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()
    value, slope = jax.value_and_grad(lambda x: jaxloss.exp_log(x, y, smooth=0.0))(x)
    assert value == jnp.inf
    assert jnp.isfinite(slope).all()
