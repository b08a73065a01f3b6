"""Variants of the focal loss: oracles, cases and closed forms."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

import jaxloss
from tests.hazards import INF, array, assert_finite, assert_rows, rows
from tests.oracles import (
    X,
    binary_entropy,
    competing,
    independent,
    invalid_classifications,
    out_of_range,
)
from tests.registry import Case, Invalid, binary, dense, elements, ids, probabilities, soft


def _reduction_factor(p_t, gamma, threshold):
    return np.where(p_t < threshold, 1, ((1 - p_t) / threshold) ** gamma)


def _reduced_cost(prediction, axis, gamma=2.0, threshold=0.5):
    log_p = log_softmax(prediction, axis)
    return -_reduction_factor(np.exp(log_p), gamma, threshold) * log_p, 0.0


def _binary_reduced_cost(p, t, gamma=2.0, threshold=0.5):
    p_t = t * p + (1 - t) * (1 - p)
    return _reduction_factor(p_t, gamma, threshold) * binary_entropy(p, t)


def _reduced(prediction, target, activation="auto", axis=-1, **options):
    competes = activation == "softmax" or (axis is not None and target.shape != prediction.shape)
    if competes:
        return competing(_reduced_cost)(prediction, target, axis=axis, **options)
    link = None if activation is None else "sigmoid"
    return independent(_binary_reduced_cost)(
        prediction, target, axis=axis, activation=link, **options
    )


def _asymmetric_cost(p, t, gamma_positive=1.0, gamma_negative=4.0, clip=0.05):
    shifted = np.maximum(p - clip, 0)
    positive = t * (1 - p) ** gamma_positive * np.log(p)
    return -positive - (1 - t) * shifted**gamma_negative * np.log1p(-shifted)


def _asymmetric(prediction, target, activation="auto", axis=-1, clip=0.05, **options):
    """On ids the authors' single-label form, whose weights the labels before smoothing choose."""
    if axis is None or target.shape == prediction.shape and activation != "softmax":
        link = None if activation is None else "sigmoid"
        return independent(_asymmetric_cost)(
            prediction, target, axis=axis, activation=link, clip=clip, **options
        )
    if activation == "sigmoid":
        return independent(_asymmetric_cost)(prediction, target, axis=axis, clip=clip, **options)
    y = dense(target, prediction, axis)

    def cost(prediction, axis, gamma_positive=1.0, gamma_negative=4.0):
        p = softmax(prediction, axis)
        weight = y * (1 - p) ** gamma_positive + (1 - y) * p**gamma_negative
        return -weight * np.log(p), 0.0

    return competing(cost)(prediction, target, axis=axis, **options)


def _asymmetric_gradient(
    prediction,
    target,
    gamma_positive=1.0,
    gamma_negative=4.0,
    clip=0.05,
    axis=-1,
    activation="auto",
    label_smoothing=0.0,
):
    """Of the sum, by the prediction, with both focal factors constant."""
    y = dense(target, prediction, axis)
    if activation == "softmax" or target.ndim < prediction.ndim and activation == "auto":
        p, t = (
            softmax(prediction, axis),
            (1 - label_smoothing) * y + label_smoothing / y.shape[axis],
        )
        weighted = t * (y * (1 - p) ** gamma_positive + (1 - y) * p**gamma_negative)
        return p * weighted.sum(axis, keepdims=True) - weighted
    p = prediction if activation is None else expit(prediction)
    t = y * (1 - label_smoothing) + label_smoothing / 2
    shifted = np.maximum(p - clip, 0)
    positive, negative = t * (1 - p) ** gamma_positive, (1 - t) * shifted**gamma_negative
    by_p = -positive / p + negative * (p > clip) / (1 - shifted)
    return by_p if activation is None else by_p * p * (1 - p)


_LOGITS = invalid_classifications("logits")

CASES = {
    "reduced_focal": Case(
        _reduced,
        (
            ids(),
            elements(),
            soft("soft_softmax", activation="softmax", gamma=0.5, threshold=0.3),
            binary(gamma=1.5),
            probabilities(),
        ),
        (
            *_LOGITS,
            *out_of_range(("gamma", -1.0), ("threshold", 0.0), ("threshold", jnp.array(1.1))),
            Invalid((X, X), {"activation": "relu"}, ValueError, ("activation", "'relu'")),
        ),
        {"gamma": (1.5, -1.0), "threshold": (0.6, 0.0)},
        "kinked",
        0.525,
    ),
    "asymmetric": Case(
        _asymmetric,
        (
            elements(label_smoothing=0.1),
            binary(clip=0.1),
            ids(gamma_positive=2.0),
            ids("smoothed", axis=1, label_smoothing=0.1),
            soft("soft_softmax", activation="softmax", gamma_negative=2.0),
            ids("one_against_the_rest", activation="sigmoid", gamma_negative=2.0),
            elements("symmetric", gamma_positive=0.0, gamma_negative=0.0, clip=0.0),
            probabilities(),
        ),
        (
            *_LOGITS,
            *out_of_range(("gamma_positive", -1.0), ("gamma_negative", -1.0)),
            *out_of_range(("clip", -0.1), ("clip", 1.0)),
            *out_of_range(("label_smoothing", 1.0)),
            Invalid((X, X), {"activation": "relu"}, ValueError, ("activation", "'relu'")),
        ),
        {"gamma_positive": (0.5, -1.0), "gamma_negative": (2.5, -1.0), "clip": (0.1, 1.0)},
        "detached",
        0.2,
        _asymmetric_gradient,
    ),
}


@pytest.mark.parametrize(
    "p, options, weight",
    [
        (0.4, {}, 1),
        (0.5, {}, 1),
        (0.75, {}, 1 / 4),
        (0.95, {}, 1 / 100),
        (0.75, {"gamma": 1.0}, 1 / 2),
        (0.9, {"threshold": 0.2}, 1 / 4),
        (0.6, {"threshold": 0.2}, 4),
        (0.9, {"gamma": 0.0}, 1),
    ],
)
def test_reduced_focal_weighs_the_cross_entropy(p, options, weight):
    """The same from a sigmoid, a softmax over ids and over one-hot labels, and probabilities."""
    x = math.log(p / (1 - p))
    expected = -weight * math.log(p)
    pair, one_hot = jnp.array([[0.0, x]]), jnp.array([[0.0, 1.0]])
    for value in (
        jaxloss.reduced_focal(jnp.array([x]), jnp.ones(1), **options),
        jaxloss.reduced_focal(jnp.array([-x]), jnp.zeros(1), **options),
        jaxloss.reduced_focal(pair, jnp.array([1]), **options),
        jaxloss.reduced_focal(pair, one_hot, activation="softmax", **options),
        jaxloss.reduced_focal(jnp.array([p]), jnp.ones(1), activation=None, **options),
    ):
        np.testing.assert_allclose(value, expected, rtol=2e-6)


def test_reduced_focal_between_focal_and_cross_entropy():
    """No example is easy at threshold 1; near 0 all are, and weigh as in the focal loss."""
    for sample, entropy in (
        (ids(), jaxloss.cross_entropy),
        (elements(), jaxloss.binary_cross_entropy),
    ):
        x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
        all_hard = jaxloss.reduced_focal(x, y, threshold=1.0, gamma=1.5)
        np.testing.assert_allclose(all_hard, entropy(x, y), rtol=1e-6)
        all_easy = jaxloss.reduced_focal(x, y, threshold=1e-4, gamma=1.5)
        np.testing.assert_allclose(all_easy, 1e6 * jaxloss.focal(x, y, gamma=1.5), rtol=1e-5)


@pytest.mark.parametrize("form", ["sigmoid", "ids", "one-hot"])
def test_torchvision_monai_reduced_focal_of_saturated_logits(form):
    """(1 - p_t)^gamma with gamma < 1 has a NaN gradient there where 1 - p_t rounds to 0."""
    grid = itertools.product((-1e30, -1e4, -100, 100, 1e4, 1e30), (0, 1), (0, 0.25, 0.5, 2))
    x, y, gamma = np.array(list(grid), np.float32).T

    def loss(x, y, gamma):
        if form == "sigmoid":
            return jaxloss.reduced_focal(x, y, gamma=gamma, axis=None)
        labels = y.astype(int) if form == "ids" else jnp.stack([1 - y, y], -1)
        logits = jnp.stack([jnp.zeros_like(x), x], -1)
        return jaxloss.reduced_focal(logits, labels, gamma=gamma, activation="softmax")

    results = rows(loss, x, y, gamma)
    wrong = (x > 0) != (y == 1)
    assert_rows(results, np.where(wrong, np.abs(x), 0), np.where(wrong, np.sign(x), 0))
    right = rows(loss, array(INF, -INF, INF, -INF), array(1, 0, 1, 0), array(0, 0, 0.5, 2))
    assert_rows(right, np.zeros(4))


def test_reduced_focal_of_soft_labels_is_finite():
    grid = itertools.product((-1e4, -100, -17, 17, 100, 1e4), (0.3, 0.9), (0, 0.25, 2))
    x, y, gamma = np.array(list(grid), np.float32).T

    def loss(x, y, gamma):
        return jaxloss.reduced_focal(x, y, gamma=gamma)

    assert_finite(rows(loss, x, y, gamma))


@pytest.mark.parametrize(
    "logit, label, options, expected",
    [
        (0.0, 1.0, {}, 0.5 * math.log(2)),
        (0.0, 0.0, {}, -(0.45**4) * math.log(0.55)),
        (0.0, 0.0, {"clip": 0.0}, 0.5**4 * math.log(2)),
        (math.log(3), 1.0, {"gamma_positive": 2.0}, 0.25**2 * -math.log(0.75)),
        (-3.0, 0.0, {}, 0.0),
        (100.0, 0.0, {}, -(0.95**4) * math.log(0.05)),
    ],
)
def test_asymmetric_closed_form(logit, label, options, expected):
    value = jaxloss.asymmetric(jnp.array([logit]), jnp.array([label]), **options)
    np.testing.assert_allclose(value, expected, rtol=2e-6)


def test_asymmetric_on_ids_is_the_focal_loss_of_the_target():
    sample = ids()
    x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
    pair = [
        jax.value_and_grad(functools.partial(loss, **options))(x, y)
        for loss, options in (
            (jaxloss.asymmetric, {"gamma_positive": 2.0, "detach_weight": False}),
            (jaxloss.softmax_focal, {}),
        )
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8), *pair)


def test_asymmetric_may_differentiate_its_factors():
    """Against differences, in both forms, and finite at any logit."""
    with jax.enable_x64(True):
        x = jnp.array([[-3.0, 0.5, 2.0], [1.0, -0.3, 0.2]])
        for labels in (jnp.array([2, 0]), jnp.array([[0.0, 1.0, 0.0], [1.0, 0.3, 0.0]])):
            loss = functools.partial(
                jaxloss.asymmetric,
                labels=labels,
                detach_weight=False,
                label_smoothing=0.1,
                reduction="sum",
            )
            jax.test_util.check_grads(jax.jit(loss), (x,), 1, rtol=1e-5)
    sizes = array(-INF, -1e30, -1e4, -100, -88, -17, 17, 88, 100, 1e4, 1e30, INF)
    for y in (0.0, 1.0):
        right = sizes if y == 1 else -sizes
        loss = lambda x, y=y: jaxloss.asymmetric(
            x,
            jnp.float32(y),
            axis=None,
            gamma_positive=0.5,
            gamma_negative=0.5,
            detach_weight=False,
        )
        value, gradient = jax.vmap(jax.value_and_grad(loss))(sizes)
        assert_finite((value[right > -INF], gradient))


def test_asymmetric_without_focus_is_binary_cross_entropy():
    x = array(-1e4, -50, -3, 0.5, 3, 50, 1e4, 1e30)
    for label in (0.0, 1.0, 0.3):
        y = jnp.full(8, label)
        value = jaxloss.asymmetric(
            x, y, gamma_positive=0, gamma_negative=0, clip=0, reduction="none"
        )
        expected = jaxloss.binary_cross_entropy(x, y, reduction="none")
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_asymmetric_focus_is_a_constant():
    """No derivative by the exponents, that by `clip` through the logarithm alone."""
    x, y = jnp.array([0.5, -0.2]), jnp.array([0.0, 1.0])

    def loss(positive, negative, clip):
        options = {"gamma_positive": positive, "gamma_negative": negative, "clip": clip}
        return jaxloss.asymmetric(x, y, reduction="sum", **options)

    by_positive, by_negative, by_clip = jax.grad(loss, argnums=(0, 1, 2))(1.0, 4.0, 0.05)
    assert by_positive == by_negative == 0
    shifted = expit(0.5) - 0.05
    np.testing.assert_allclose(by_clip, -(shifted**4) / (1 - shifted), rtol=1e-5)


def test_asymmetric_of_saturated_logits():
    """The authors' class clamps at 1e-8, beyond which their gradient is 0."""
    grid = itertools.product(
        (-1e30, -1e4, -100, -17, 17, 100, 1e4, 1e30), (0, 0.3, 1), (0, 0.3, 4), (0, 0.05)
    )
    x, y, gamma, clip = np.array(list(grid), np.float32).T

    def loss(x, y, gamma, clip):
        return jaxloss.asymmetric(x, y, gamma_positive=gamma, gamma_negative=gamma, clip=clip)

    results = rows(loss, x, y, gamma, clip)
    assert_finite(results)
    wrong = ((x > 50) & (y == 0) & (clip == 0)) | ((x < -50) & (y == 1))
    np.testing.assert_allclose(results[0][wrong], np.abs(x[wrong]), rtol=1e-6)
    np.testing.assert_allclose(results[1][wrong], np.sign(x[wrong]), rtol=1e-6)
    signs, zeros = array(INF, -INF, INF, -INF), np.zeros(4, np.float32)
    right = rows(loss, signs, array(1, 0, 1, 0), array(0, 0, 4, 4), zeros)
    assert_rows(right, np.zeros(4))
