"""Hinge losses: oracles, cases and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.hazards import INF, NAN, array, assert_finite, assert_rows, compiled, one_hot, rows
from tests.oracles import independent, invalid_classifications, shaped
from tests.registry import Case, dense, elements, ids, reduced, soft


def _hinge(power):
    """The oracle of a score, which `activation=None` hands on as it is."""
    cost = lambda x, t: np.maximum(0, 1 - x * (2 * t - 1)) ** power
    return functools.partial(independent(cost), activation=None)


def _multiclass(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
):
    y = dense(target, prediction, axis)
    lead = (prediction + 1 - y).max(axis) - (y * prediction).sum(axis)
    v = (shaped(class_weights, prediction, axis) * y).sum(axis)
    return reduced(v * lead, reduction, where, weights, v)


_SAMPLES = (
    elements(),
    elements("no_classes", axis=None)._replace(axis=None),
    ids("one_against_the_rest"),
    elements("channels", axis=1)._replace(axis=1),
)

CASES = {
    "hinge": Case(_hinge(1), _SAMPLES, invalid_classifications("logits"), {}, "kinked", 0.035),
    "squared_hinge": Case(
        _hinge(2), _SAMPLES, invalid_classifications("logits"), {}, "kinked", 0.035
    ),
    "multiclass_hinge": Case(
        _multiclass,
        (ids(), soft(), ids("channels", axis=1)),
        invalid_classifications("logits"),
        {},
        "kinked",
        0.155,
    ),
}

both = pytest.mark.parametrize("name, power", [("hinge", 1), ("squared_hinge", 2)])


@both
@pytest.mark.parametrize(
    "logit, label, expected",
    [
        (2, 1, 0),
        (1, 1, 0),
        (0.5, 1, 0.5),
        (-1, 1, 2),
        (-1, 0, 0),
        (0, 0, 1),
        (2, 0, 3),
        (7, 0.5, 1),
    ],
)
def test_closed_form(name, power, logit, label, expected):
    value = getattr(jaxloss, name)(jnp.array([logit], float), jnp.array([label], float))
    np.testing.assert_allclose(value, expected**power, rtol=1e-6)


@both
def test_no_gradient_from_the_margin_on(name, power):
    """At the kink itself too: nothing is missing there."""
    x = array(1, -1, 1 + 1e-6, 1e30, INF, -INF)
    assert_rows(rows(getattr(jaxloss, name), x, array(1, 0, 1, 1, 1, 0)), np.zeros(6))


@both
def test_large_logits_on_the_wrong_side(name, power):
    size = 1e30 if power == 1 else 1e18
    x = np.float32(size) * array(-1, 1)
    slope = power * np.float64(size) ** (power - 1)
    assert_rows(rows(getattr(jaxloss, name), x, array(1, 0)), size**power, [-slope, slope])
    value, gradient, _ = rows(getattr(jaxloss, name), array(INF, -INF, INF), array(0, 1, 0.5))
    np.testing.assert_array_equal(value, [INF, INF, 1])
    assert not np.isnan(gradient).any()


@both
def test_labels_of_minus_one_are_nan_there_only(name, power):
    """Other libraries' convention, which would silently be a margin of 3."""
    loss = functools.partial(getattr(jaxloss, name), reduction="none")
    x = jnp.array([0.3, -1.0, 2.0, 0.5])
    for labels in (
        array(-1, 1, 0, 1),
        np.array([-1, 1, 0, 1]),
        array(1.01, 1, 0, 1),
        array(NAN, 1, 0, 1),
    ):
        gradient = jax.grad(lambda x, labels=labels: loss(x, labels).sum())(x)
        for result in (loss(x, labels), gradient):
            np.testing.assert_array_equal(jnp.isnan(result), [True, False, False, False])


@pytest.mark.parametrize("form", ["ids", "one-hot"])
def test_multiclass_closed_form(form):
    logits = array([2, 0.5, 0], [2, 1, 0], [2, 1.5, 0], [2, 3, 0], [2, 3, 7], [0, 0, 0])
    labels = np.zeros(6, int) if form == "ids" else one_hot(np.zeros(6, int), 3)
    value, gradient = compiled(jaxloss.multiclass_hinge, logits, labels, reduction="sum")
    each = jaxloss.multiclass_hinge(logits, labels, reduction="none")
    np.testing.assert_allclose(each, [0, 0, 0.5, 2, 6, 1], rtol=1e-6)
    np.testing.assert_allclose(value, 9.5, rtol=1e-6)
    slope = [[0, 0, 0], [-0.5, 0.5, 0], [-1, 1, 0], [-1, 1, 0], [-1, 0, 1], [-1, 0.5, 0.5]]
    np.testing.assert_allclose(gradient, slope)


def test_multiclass_of_two_classes_is_the_hinge_of_their_difference():
    x = jnp.asarray(ids().prediction[..., :2], jnp.float32)
    labels = np.random.default_rng(0).integers(0, 2, x.shape[:-1])
    value = jaxloss.multiclass_hinge(x, labels, reduction="none")
    expected = jaxloss.hinge(x[..., 1] - x[..., 0], labels, axis=None, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["ids", "one-hot"])
def test_multiclass_keeps_its_digits_far_from_zero(form):
    """`max(x + 1 - y) - x_y` loses the 1 beside 1e8."""
    logits = array([1e8, 1e8, 0], [-1e8, -1e8, -2e8], [1e30, 1e30, 0])
    labels = np.zeros(3, int) if form == "ids" else one_hot(np.zeros(3, int), 3)
    assert_rows(rows(jaxloss.multiclass_hinge, logits, labels), np.ones(3), [-1, 1, 0])


@pytest.mark.parametrize("form", ["ids", "one-hot"])
def test_optax_896_multiclass_hinge_of_removed_classes(form):
    """-inf against no mass costs nothing; a removed target is +inf, without a gradient."""
    logits = array([0, -INF, 0.5], [-INF, 0, -INF], [INF, 0, 0], [0, 0, -INF], [-INF] * 3)
    ids = np.array([0, 1, 0, 2, 0])
    labels = ids if form == "ids" else one_hot(ids, 3)
    slope = np.zeros((5, 3))
    slope[0] = [-1, 0, 1]
    assert_rows(rows(jaxloss.multiclass_hinge, logits, labels), [1.5, 0, 0, INF, INF], slope)
    rivals = rows(
        jaxloss.multiclass_hinge, array([INF, INF, 0], [0, INF, 0]), labels[:1].repeat(2, 0)
    )
    np.testing.assert_array_equal(rivals[0], [INF, INF])
    assert_finite(rivals[1:])


def test_multiclass_soft_labels_are_never_negative():
    sample = soft()
    x, y = (jnp.asarray(a, jnp.float32) for a in sample[1:3])
    assert (jaxloss.multiclass_hinge(x, y, reduction="none") >= 0).all()
