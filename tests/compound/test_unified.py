"""Unified focal loss: oracle, case, closed forms and hazards."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compound.test_sums import NO_ELEMENTS, out_of_range
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    mean_over_classes,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def _unified_focal(
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
    weight=0.5,
    delta=0.6,
    gamma=0.5,
    asymmetric=True,
    smooth=1e-7,
):
    same = axis is None or prediction.shape == target.shape
    competes = activation == "softmax" or not same
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis)
    w = np.ones(p.shape[-1]) if class_weights is None else class_weights
    axes = tuple(range(1 if per_image else 0, p.ndim - 1))

    def wrong_share(p, y):
        tp, fp, fn = ((v * x).sum(axes) for x in (p * y, p * (1 - y), (1 - p) * y))
        return 1 - (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)

    loss = wrong_share(p, y)
    if competes:
        first = np.arange(p.shape[-1]) == 0
        power = np.where(first & asymmetric, 1, 1 - gamma)
        tversky = loss**power
        discount = np.where(first | (not asymmetric), gamma, 0)
        balance = np.where(first, 1 - delta, delta)
        focal = w * balance * y * (1 - p) ** discount * -np.log(p)
        count = (v * w * y).sum()
    else:
        other = wrong_share(1 - p, 1 - y)
        tversky = (loss ** (1 - gamma) + other ** (1 if asymmetric else 1 - gamma)) / 2
        positive = delta * y * (1 - p) ** (0 if asymmetric else gamma) * -np.log(p)
        negative = (1 - delta) * (1 - y) * p**gamma * -np.log1p(-p)
        focal, count = w * (positive + negative), (v * w).sum()
    part = v.sum(axes) > 0
    if absent == "skip":
        part &= (v * y).sum(axes) > 0
    tversky = mean_over_classes(
        tversky, part, class_weights, reduction, axis is None, include_background
    )
    total = (v * focal).sum()
    if reduction == "mean":
        total = total / count if count else 0.0
    return weight * total + (1 - weight) * tversky


CASES = {
    "unified_focal": Case(
        _unified_focal,
        (
            ids(),
            elements("elements", asymmetric=False, gamma=0.3),
            soft("soft_softmax", activation="softmax", weight=0.3, delta=0.8),
            ids("channels", axis=1, asymmetric=False, absent="skip", smooth=0.1),
            binary(),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            NO_ELEMENTS,
            *out_of_range(weight=1.5, delta=-0.1, gamma=1.0),
            Invalid((PIXELS, PIXEL_IDS), {"asymmetric": 2}, ValueError, ("asymmetric", "2")),
        ),
        {
            "weight": (0.3, 1.5),
            "delta": (0.7, -0.1),
            "gamma": (0.4, 1.5),
            "smooth": (0.5, -1.0),
        },
        "smooth",
        0.32,
    ),
}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"weight": 1.0}, (0.4 * 0.1**0.5 * -math.log(0.9) + 0.6 * -math.log(0.6)) / 2),
        (
            {"weight": 1.0, "asymmetric": False, "gamma": 0.25},
            (0.4 * 0.1**0.25 * -math.log(0.9) + 0.6 * 0.4**0.25 * -math.log(0.6)) / 2,
        ),
        (
            {"weight": 0.0, "smooth": 0.0},
            (
                (1 - 0.9 / (0.9 + 0.6 * 0.1 + 0.4 * 0.4))
                + (1 - 0.6 / (0.6 + 0.6 * 0.4 + 0.4 * 0.1)) ** 0.5
            )
            / 2,
        ),
    ],
)
def test_closed_form(options, expected):
    p = jnp.array([[[0.9, 0.1], [0.4, 0.6]]])
    loss = jaxloss.unified_focal(p, jnp.array([[0, 1]]), activation=None, **options)
    np.testing.assert_allclose(loss, expected, 1e-6)


@pytest.mark.parametrize("asymmetric", [True, False])
def test_two_channels_equal_one_logit(asymmetric):
    x, y = binary().prediction.astype(np.float32), binary().target
    both = jaxloss.unified_focal(np.stack([0 * x, x], -1), y.astype(int), asymmetric=asymmetric)
    one = jaxloss.unified_focal(x, y, axis=None, asymmetric=asymmetric)
    np.testing.assert_allclose(both, one, 1e-6)


def test_without_focus_it_is_half_of_entropy_and_dice():
    sample = elements()
    x, y = sample.prediction, sample.target
    options = {"gamma": 0.0, "delta": 0.5, "asymmetric": False}
    np.testing.assert_allclose(
        jaxloss.unified_focal(x, y, weight=1.0, **options),
        jaxloss.binary_cross_entropy(x, y) / 2,
        1e-6,
    )
    x, y = ids().prediction.astype(np.float32), ids().target
    np.testing.assert_allclose(
        jaxloss.unified_focal(x, y, weight=0.0, smooth=1.0, **options),
        jaxloss.tversky(x, y),
        1e-6,
    )


def test_delta_prices_misses_of_the_foreground():
    """Of two names for two weights one is easily swapped: here `delta` is the foreground's."""
    y, x = jnp.ones((1, 2)), jnp.full((1, 2), -2.0)
    low, high = (jaxloss.unified_focal(x, y, delta=d, weight=1.0, axis=None) for d in (0.1, 0.9))
    np.testing.assert_allclose(high, 9 * low, 1e-5)


def test_images_without_foreground():
    """MONAI's AsymmetricUnifiedFocalLoss raised on them, and gave one channel no gradient."""
    x, y = jnp.array([[0.5, -1.0, 2.0]]), jnp.zeros((1, 3))
    value, slope = jax.value_and_grad(lambda x: jaxloss.unified_focal(x, y, axis=None))(x)
    assert 0 < value < jnp.inf
    assert (slope > 0).all()
    both = jnp.stack([jnp.zeros_like(x), x], -1)
    loss = lambda x: jaxloss.unified_focal(x, jnp.zeros((1, 3), int))
    value, slope = jax.value_and_grad(loss)(both)
    assert 0 < value < jnp.inf
    assert (slope[..., 1] > 0).all()


@pytest.mark.parametrize("asymmetric", [True, False])
def test_two_derivatives_are_finite_at_any_logit(asymmetric):
    """(1 - TI)^(1 - gamma) has an infinite derivative at TI = 1, but not in the logits."""
    labels = jnp.array([[0, 1, 1, 0]])
    right = jax.nn.one_hot(labels, 2) * 2 - 1
    y = labels.astype(jnp.float32)
    losses = (
        lambda s: jaxloss.unified_focal(s * right, labels, asymmetric=asymmetric),
        lambda s: jaxloss.unified_focal(s * right[..., 1], y, axis=None, asymmetric=asymmetric),
    )
    sizes = jnp.array(
        [-1e30, -1e4, -100.0, -10.0, 1.0, 10.0, 17.0, 20.0, 25.0, 50.0, 86.0, 100.0, 1e4, 1e30]
    )

    def run(s):
        slopes = [jax.grad(loss) for loss in losses]
        second = [jax.grad(slope)(s) for slope in slopes]
        forward = [jax.jvp(slope, (s,), (jnp.ones_like(s),)) for slope in slopes]
        return [loss(s) for loss in losses], second, forward

    values, *derivatives = jax.jit(jax.vmap(run))(sizes)
    for array in jax.tree.leaves((values, derivatives)):
        assert jnp.isfinite(array).all()
    for value in values:
        np.testing.assert_array_equal(value[-3:], 0)


def test_perfect_probabilities_cost_nothing():
    labels = jnp.array([[0, 1, 2, 0]])
    run = jax.value_and_grad(lambda p: jaxloss.unified_focal(p, labels, activation=None))
    value, slope = jax.jit(run)(jax.nn.one_hot(labels, 3))
    assert value == 0
    assert jnp.isfinite(slope).all()
