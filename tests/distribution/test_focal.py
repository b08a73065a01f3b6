"""Focal losses: oracles, cases and closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import jaxloss
from tests.oracles import (
    IDS,
    X,
    binary_entropy,
    competing,
    independent,
    invalid_classifications,
    out_of_range,
    shaped,
)
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def _focal_cost(prediction, axis, gamma=2.0, alpha=None, activation="softmax"):
    log_p = log_softmax(prediction, axis)
    factor = 1.0 if alpha is None else shaped(np.broadcast_to(alpha, 3), prediction, axis)
    return -factor * (1 - np.exp(log_p)) ** gamma * log_p, 0.0


def _binary_focal_cost(p, t, gamma=2.0, alpha=None, pos_weight=1.0):
    p_t = t * p + (1 - t) * (1 - p)
    balance = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return balance * (1 - p_t) ** gamma * binary_entropy(p, t, pos_weight)


def _focal(prediction, target, activation="auto", axis=-1, **options):
    competes = activation == "softmax" or (axis is not None and target.shape != prediction.shape)
    if competes:
        return competing(_focal_cost)(prediction, target, axis=axis, **options)
    link = None if activation is None else "sigmoid"
    return independent(_binary_focal_cost)(
        prediction, target, axis=axis, activation=link, **options
    )


_LOGITS = invalid_classifications("logits")
_SMOOTHING = out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1))
_FOCAL = out_of_range(("gamma", -1.0), ("gamma", jnp.array(-1.0)), ("alpha", -0.1))
_FOCAL_PARAMETERS = {
    "gamma": (1.5, -1.0),
    "alpha": (0.3, -0.1),
    "label_smoothing": (0.1, 1.5),
}

CASES = {
    "focal": Case(
        _focal,
        (
            ids(),
            elements(),
            elements("alpha", alpha=0.25, gamma=1.5),
            soft("soft_softmax", activation="softmax", gamma=0.5, label_smoothing=0.1),
            binary(),
            probabilities(),
        ),
        (
            *_LOGITS,
            *_SMOOTHING,
            *_FOCAL,
            Invalid((X, IDS), {"pos_weight": 2.0}, ValueError, ("pos_weight", "sigmoid")),
            Invalid((X, IDS), {"activation": "relu"}, ValueError, ("activation", "'relu'")),
            Invalid(
                (X, X), {"axis": None, "activation": "softmax"}, ValueError, ("axis", "class axis")
            ),
        ),
        _FOCAL_PARAMETERS,
        "smooth",
        0.475,
    ),
    "sigmoid_focal": Case(
        independent(_binary_focal_cost),
        (elements(), binary(gamma=0.5), ids("one_against_the_rest"), elements("a", alpha=0.25)),
        (
            *_LOGITS,
            *_SMOOTHING,
            *_FOCAL,
            *out_of_range(("alpha", 1.5), ("pos_weight", -1.0)),
            Invalid((X, X), {"alpha": [0.1, 0.9]}, ValueError, ("alpha", r"\(2,\)", r"\(3,\)")),
            Invalid((X, X), {"gamma": [1.0, 2.0, 3.0]}, ValueError, ("gamma", "one number")),
        ),
        _FOCAL_PARAMETERS | {"pos_weight": (2.0, -1.0)},
        "smooth",
        0.2,
    ),
    "softmax_focal": Case(
        competing(_focal_cost),
        (
            ids(),
            soft(),
            ids("alpha", alpha=np.array([0.2, 1.0, 3.0]), gamma=0.5),
            ids("smoothed", label_smoothing=0.1, axis=1),
        ),
        (*_LOGITS, *_SMOOTHING, *_FOCAL),
        _FOCAL_PARAMETERS,
        "smooth",
        0.475,
    ),
}


@pytest.mark.parametrize(
    "logit, label, options, expected",
    [
        (0.0, 1.0, {}, 0.5**2 * math.log(2)),
        (0.0, 0.0, {"gamma": 1.0}, 0.5 * math.log(2)),
        (0.0, 1.0, {"alpha": 0.25}, 0.25 * 0.5**2 * math.log(2)),
        (0.0, 0.0, {"alpha": 0.25}, 0.75 * 0.5**2 * math.log(2)),
        (math.log(3), 1.0, {"gamma": 2.0}, 0.25**2 * -math.log(0.75)),
        (2.0, 1.0, {"gamma": 0.0}, math.log1p(math.exp(-2))),
    ],
)
def test_sigmoid_focal_closed_form(logit, label, options, expected):
    np.testing.assert_allclose(jaxloss.sigmoid_focal([logit], [label], **options), expected, 1e-6)


@pytest.mark.parametrize("option", ["alpha", "pos_weight"])
def test_numbers_of_classes_lie_along_the_class_axis(option):
    """Under a sigmoid too: of as many columns as classes they weigh the classes."""
    sample, numbers = elements(), np.float32([0.1, 0.3, 0.5])
    x, y = (jnp.moveaxis(jnp.asarray(a, jnp.float32), -1, 1) for a in sample[1:3])
    each = functools.partial(jaxloss.sigmoid_focal, axis=1, reduction="none")
    at_once = each(x, y, **{option: numbers})
    for c, number in enumerate(numbers):
        one = each(x, y, **{option: number})
        np.testing.assert_allclose(at_once[:, c], one[:, c], rtol=1e-6)


def test_focal_without_focus_is_cross_entropy():
    sample = ids()
    x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
    np.testing.assert_array_equal(jaxloss.focal(x, y, gamma=0.0), jaxloss.cross_entropy(x, y))


@pytest.mark.parametrize("known", [True, False])
def test_gradient_with_respect_to_hard_labels(known):
    """At `y` exactly 0 or 1 the derivative by the label is that of the soft formula."""
    with jax.enable_x64(True):
        x, gamma = jnp.array([-3.0, 0.5, 2.0]), 2.0 if known else jnp.array(2.0)
        loss = functools.partial(jaxloss.sigmoid_focal, gamma=gamma, reduction="sum")
        for hard in (0.0, 1.0):
            inside = abs(hard - 1e-7)
            at, near = (jax.grad(lambda y: loss(x, y))(jnp.full(3, y)) for y in (hard, inside))
            np.testing.assert_allclose(at, near, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"alpha": 0.25, "pos_weight": 3.0}, {"activation": None}])
def test_a_known_exponent_of_2_is_a_square(options):
    """Which has the value, gradient and second derivative of a traced one, however far out."""
    x = jnp.array([-jnp.inf, -120.0, -20.0, -1.0, 0.0, 0.3, 15.0, 90.0, jnp.inf])
    x = jax.nn.sigmoid(x / 10) if "activation" in options else x
    for y in (0.0, 0.3, 1.0):
        focal = functools.partial(jaxloss.focal, labels=jnp.full(1, y), reduction="none", **options)
        at = lambda x, gamma, focal=focal: focal(x[None], gamma=gamma)[0]
        for derivative in (at, jax.grad(at), jax.grad(jax.grad(at))):
            known, traced = (
                jax.vmap(functools.partial(derivative, gamma=gamma))(x)
                for gamma in (2.0, jnp.float32(2))
            )
            np.testing.assert_allclose(known, traced, rtol=2e-5, atol=1e-36)


def test_derivative_by_labels_at_the_largest_logits():
    """A cost near the largest number meets a factor of 0 before any other."""
    x, y = jnp.float32([-3.4e38, -3e38]), jnp.zeros(2)
    focal = functools.partial(jaxloss.sigmoid_focal, pos_weight=2.0, reduction="none")
    slope = jax.jvp(lambda y: focal(x, y), (y,), (jnp.ones(2),))[1]
    np.testing.assert_array_equal(slope, 0)
