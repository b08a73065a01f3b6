"""Combo loss: oracle, case, closed forms and hazards."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compound.test_sums import NO_ELEMENTS, out_of_range
from tests.oracles import invalid_segmentations, pixel_weight, probabilities_of
from tests.region.test_overlap import CASES as REGION
from tests.registry import Case, binary, elements, ids, probabilities, soft


def _combo(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="auto",
    alpha=0.5,
    beta=0.5,
    **options,
):
    dice = REGION["dice"].oracle(
        prediction,
        target,
        where,
        weights,
        class_weights,
        reduction,
        axis,
        activation,
        **options,
    )
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis) * (1.0 if class_weights is None else class_weights)
    total = (v * (-beta * y * np.log(p) - (1 - beta) * (1 - y) * np.log1p(-p))).sum()
    if reduction == "mean":
        total = total / v.sum() if v.sum() else 0.0
    return alpha * total + (1 - alpha) * dice


CASES = {
    "combo": Case(
        _combo,
        (
            ids(),
            elements("elements", alpha=0.3, beta=0.8),
            soft("soft_softmax", activation="softmax", beta=0.2),
            ids("channels", axis=1, include_background=False, absent="skip"),
            binary(),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            NO_ELEMENTS,
            *out_of_range(alpha=-0.1, beta=1.1),
            *out_of_range(alpha=1.5),
        ),
        {"alpha": (0.3, 1.5), "beta": (0.7, -0.1), "smooth": (0.5, -1.0)},
        "smooth",
        0.32,
    ),
}


@pytest.mark.parametrize(
    "p, y, beta, expected",
    [
        (0.8, 1.0, 0.5, -0.5 * math.log(0.8)),
        (0.8, 1.0, 0.9, -0.9 * math.log(0.8)),
        (0.8, 0.0, 0.9, -0.1 * math.log(0.2)),
        (0.8, 0.25, 0.9, -0.9 * 0.25 * math.log(0.8) - 0.1 * 0.75 * math.log(0.2)),
    ],
)
def test_cross_entropy_closed_form(p, y, beta, expected):
    p, y = jnp.full((1, 1), p), jnp.full((1, 1), y)
    loss = jaxloss.combo(p, y, alpha=1.0, beta=beta, axis=None, activation=None)
    np.testing.assert_allclose(loss, expected, 1e-6)
    logit = jnp.log(p) - jnp.log1p(-p)
    loss = jaxloss.combo(logit, y, alpha=1.0, beta=beta, axis=None)
    np.testing.assert_allclose(loss, expected, 1e-6)


def test_is_dice_without_and_entropy_with_alpha():
    sample = elements()
    x, y = sample.prediction, sample.target
    np.testing.assert_allclose(jaxloss.combo(x, y, alpha=0.0), jaxloss.dice(x, y), 1e-6)
    np.testing.assert_allclose(
        jaxloss.combo(x, y, alpha=1.0), jaxloss.binary_cross_entropy(x, y) / 2, 1e-6
    )


def test_two_channels_equal_one_logit():
    x, y = binary().prediction.astype(np.float32), binary().target
    both = jaxloss.combo(np.stack([0 * x, x], -1), y.astype(int), alpha=1.0)
    np.testing.assert_allclose(both, jaxloss.combo(x, y, axis=None, alpha=1.0), 1e-6)


def test_background_costs_more_where_more_confidently_missed():
    """The authors' combo_loss.py lacks parentheses: background tends to -inf as p goes to 1."""
    p = jnp.array([0.1, 0.5, 0.9, 0.999])
    each = jax.vmap(
        lambda p: jaxloss.combo(
            p[None, None], jnp.zeros((1, 1)), alpha=1.0, axis=None, activation=None
        )
    )(p)
    np.testing.assert_allclose(each, -jnp.log1p(-p) / 2, 1e-5)


def test_beta_prices_misses_of_the_foreground():
    """In mlyg's combo loss `beta` weighs channel 0, the background."""
    ids, miss = jnp.array([[1, 1]]), jnp.array([[[2.0, 0.0], [2.0, 0.0]]])
    low, high = (jaxloss.combo(miss, ids, beta=b, alpha=1.0) for b in (0.1, 0.9))
    np.testing.assert_allclose(low, high, 1e-6)  # with two classes a miss is a false alarm too
    y, x = jnp.ones((1, 2)), jnp.full((1, 2), -2.0)
    low, high = (jaxloss.combo(x, y, beta=b, alpha=1.0, axis=None) for b in (0.1, 0.9))
    np.testing.assert_allclose(high, 9 * low, 1e-5)


def test_finite_and_perfect_at_extreme_logits():
    labels = jnp.array([[0, 1, 1, 0]])
    right = jax.nn.one_hot(labels, 3) * 2 - 1
    removed = jnp.where(right > 0, 0.0, -jnp.inf)
    sizes = jnp.array([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30])
    logits = jnp.concatenate([sizes[:, None, None, None] * right[None], removed[None]])

    def loss(x):
        return jaxloss.combo(x, labels)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(logits)
    tangents = jax.jit(jax.vmap(lambda x: jax.jvp(loss, (x,), (right,))[1]))(logits)
    for array in (values, slopes, tangents):
        assert jnp.isfinite(array).all()
    np.testing.assert_array_equal(values[-4:], 0)
    assert not slopes[-4:].any()


def test_confident_softmax_keeps_its_digits():
    """log(1 - softmax) would be 0 or -inf here."""
    x = jnp.array([[[30.0, 0.0, 0.0]]])
    loss = jax.jit(lambda x: jaxloss.combo(x, jnp.array([[0]]), alpha=1.0))(x)
    expected = (math.log1p(2 * math.exp(-30)) - 2 * math.log1p(-math.exp(-30))) / 6
    np.testing.assert_allclose(loss, expected, 1e-5)
