"""Binary cross-entropies balanced by the labels: oracles, cases and closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.hazards import INF, array, assert_finite, assert_rows, compiled, rows
from tests.oracles import X, independent, invalid_classifications, out_of_range
from tests.registry import Case, Invalid, binary, dense, elements, ids, probabilities


def _balanced(rule, negative):
    """The oracle: `rule` gives beta from the sums of positives and negatives."""

    def cost(p, t, beta):
        return -beta * t * np.log(p) - negative(beta) * (1 - t) * np.log1p(-p)

    def oracle(prediction, target, where=None, axis=-1, beta=None, **options):
        if beta is None:
            y = dense(target, prediction, axis)
            valid = True if where is None else where
            if np.ndim(valid) not in (0, y.ndim):
                valid = np.expand_dims(valid, axis)
            valid = np.broadcast_to(valid, y.shape)
            beta = rule(y[valid].sum(), (1 - y)[valid].sum())
        elif np.ndim(beta) == target.ndim < prediction.ndim:
            beta = np.expand_dims(beta, axis)
        return independent(cost)(prediction, target, where=where, axis=axis, beta=beta, **options)

    return oracle


_INVALID = (
    *invalid_classifications("logits"),
    *out_of_range(("beta", -0.1), ("beta", jnp.array([0.1, -0.1, 1]))),
    Invalid((X, X), {"beta": np.ones(4)}, ValueError, ("beta", r"\(4,\)", "rank")),
    Invalid((X, X), {"beta": np.ones((2, 2))}, ValueError, ("beta", r"\(2, 2\)", "rank")),
    Invalid((X, X), {"activation": "softmax"}, ValueError, ("activation", "'softmax'")),
)
_SAMPLES = (
    elements(),
    binary(),
    ids("one_against_the_rest", beta=np.array([0.3, 0.5, 0.8, 0.1]).reshape(4, 1, 1)),
    elements("per_class", beta=np.array([0.3, 0.9, 0.6])),
    probabilities(),
)

CASES = {
    "weighted_binary_cross_entropy": Case(
        _balanced(lambda positives, negatives: negatives / positives, lambda beta: 1.0),
        _SAMPLES,
        _INVALID,
        {"beta": (1.7, -0.1)},
        "smooth",
        0.165,
    ),
    "balanced_binary_cross_entropy": Case(
        _balanced(
            lambda positives, negatives: 1 - positives / (positives + negatives),
            lambda beta: 1 - beta,
        ),
        _SAMPLES,
        (*_INVALID, *out_of_range(("beta", 1.1))),
        {"beta": (0.7, 1.1)},
        "smooth",
        0.165,
    ),
}

both = pytest.mark.parametrize("name", CASES)
LOG2 = math.log(2)


@pytest.mark.parametrize(
    "name, labels, options, expected",
    [
        ("weighted", [1, 0, 0, 0], {}, [3, 1, 1, 1]),
        ("weighted", [1, 1, 1, 0], {}, [1 / 3, 1 / 3, 1 / 3, 1]),
        ("weighted", [0, 0, 0, 0], {}, [1, 1, 1, 1]),
        ("weighted", [1, 0, 0, 0], {"beta": 7.0}, [7, 1, 1, 1]),
        ("weighted", [0.5, 0, 0, 0.5], {}, [2, 1, 1, 2]),
        ("balanced", [1, 0, 0, 0], {}, [0.75, 0.25, 0.25, 0.25]),
        ("balanced", [1, 1, 1, 0], {}, [0.25, 0.25, 0.25, 0.75]),
        ("balanced", [0, 0, 0, 0], {}, [0, 0, 0, 0]),
        ("balanced", [1, 1, 1, 1], {}, [0, 0, 0, 0]),
        ("balanced", [1, 0, 0, 0], {"beta": 0.4}, [0.4, 0.6, 0.6, 0.6]),
    ],
)
def test_weights_of_unsure_logits(name, labels, options, expected):
    loss = getattr(jaxloss, f"{name}_binary_cross_entropy")
    value = loss(jnp.zeros(4), jnp.array(labels, float), reduction="none", **options)
    np.testing.assert_allclose(value, LOG2 * np.array(expected), rtol=1e-6)


def test_known_weights_give_the_binary_cross_entropy():
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    plain = jaxloss.binary_cross_entropy(x, y)
    weighted = jaxloss.weighted_binary_cross_entropy(x, y, beta=2.5)
    expected = jaxloss.binary_cross_entropy(x, y, pos_weight=2.5)
    np.testing.assert_allclose(weighted, expected, rtol=1e-6)
    half = jaxloss.balanced_binary_cross_entropy(x, y, beta=0.5)
    np.testing.assert_allclose(2 * half, plain, rtol=1e-6)


@both
def test_beta_is_a_constant(name):
    """The derivatives, by labels too, are those with beta given as a number."""
    loss = getattr(jaxloss, name)
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    mean = float(y.mean())
    beta = (1 - mean) / mean if name.startswith("weighted") else 1 - mean
    both = jax.jit(jax.grad(loss, argnums=(0, 1)))
    fixed = jax.jit(jax.grad(functools.partial(loss, beta=beta), argnums=(0, 1)))
    for own, expected in zip(both(x, y), fixed(x, y), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5)


@both
def test_beta_counts_what_is_valid(name):
    """`where`, `ignore_index` and weights of 0 leave elements out; other weights do not."""
    loss = getattr(jaxloss, name)
    x, y = jnp.array([0.3, -1.0, 2.0, 0.5]), jnp.array([1, 0, 0, 1])
    expected = loss(x[:3], y[:3], reduction="sum")
    kept = jnp.array([True, True, True, False])
    for labels, options in (
        (y, {"where": kept}),
        (y, {"weights": kept.astype(float)}),
        (jnp.where(kept, y, 255), {"ignore_index": 255}),
    ):
        value = loss(x, labels, reduction="sum", **options)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    heavier = loss(x[:3], y[:3], reduction="sum", weights=jnp.full(3, 2.0))
    np.testing.assert_allclose(heavier, 2 * expected, rtol=1e-6)


@both
def test_beta_per_class_and_per_image(name):
    loss = getattr(jaxloss, name)
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    beta = jnp.array([0.2, 0.5, 0.9])
    each = [loss(x[..., c], y[..., c], beta=beta[c], axis=None).mean() for c in range(3)]
    np.testing.assert_allclose(loss(x, y, beta=beta), np.mean(each), rtol=1e-6)
    moved = loss(jnp.moveaxis(x, -1, 1), jnp.moveaxis(y, -1, 1), beta=beta, axis=1)
    np.testing.assert_allclose(moved, np.mean(each), rtol=1e-6)
    images = 1 - y.mean((1, 2, 3), keepdims=True)
    each = [loss(x[i], y[i], beta=images[i]) for i in range(4)]
    np.testing.assert_allclose(loss(x, y, beta=images), np.mean(each), rtol=1e-6)


@both
def test_a_bad_label_spoils_its_own_element_only(name):
    """Were it counted, beta would be NaN, and with it every gradient."""
    loss = functools.partial(getattr(jaxloss, name), reduction="none")
    x, y = jnp.array([0.3, -1.0, 2.0, 0.5]), jnp.array([1, 0, 0, 7])
    gradient = jax.grad(lambda x: loss(x, y).sum())(x)
    for result in (loss(x, y), gradient):
        np.testing.assert_array_equal(jnp.isnan(result), [False, False, False, True])
    np.testing.assert_allclose(loss(x, y)[:3], loss(x[:3], y[:3]), rtol=1e-6)


def test_jadon_22_rare_positives_weigh_more():
    """Its "weighted" loss multiplies positives by beta / (1 - beta), 1/3 at its beta."""
    x, y = jnp.zeros(10), jnp.zeros(10).at[0].set(1)
    for name in CASES:
        value = getattr(jaxloss, name)(x, y, reduction="none")
        np.testing.assert_allclose(value[0] / value[1], 9, rtol=1e-6)


@both
def test_saturated_logits_are_finite(name):
    """Infinite logits on the right side cost nothing, large ones on the wrong side their size."""
    loss = functools.partial(getattr(jaxloss, name), beta=0.25)
    right = rows(loss, array(INF, -INF, 1e30, -1e30), array(1, 0, 1, 0))
    assert_rows(right, np.zeros(4))
    negative = 1 if name.startswith("weighted") else 0.75
    wrong = rows(loss, array(-1e4, 1e4, -1e30, 1e30), array(1, 0, 1, 0))
    factor = array(0.25, negative, 0.25, negative)
    assert_rows(wrong, factor * array(1e4, 1e4, 1e30, 1e30), factor * array(-1, 1, -1, 1))
    soft = rows(loss, array(-1e4, 1e4, -100, 17), array(0.3, 0.3, 0.7, 0.5))
    assert_finite(soft)


@both
def test_extreme_shares_of_positives_are_finite(name):
    loss = getattr(jaxloss, name)
    x = jnp.linspace(-5, 5, 1000)
    for count in (0, 1, 999, 1000):
        assert_finite(compiled(loss, x, (jnp.arange(1000) < count).astype(float)))
