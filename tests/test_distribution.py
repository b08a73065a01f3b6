"""Distribution losses: oracles, cases and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

import jaxloss
from tests.registry import (
    Case,
    Invalid,
    binary,
    dense,
    elements,
    ids,
    probabilities,
    reduced,
    soft,
)


def _shaped(class_weights, prediction, axis):
    if class_weights is None:
        return np.ones((1,) * prediction.ndim)
    at = axis % prediction.ndim
    return class_weights.reshape([-1 if i == at else 1 for i in range(prediction.ndim)])


def _competing(cost):
    """The oracle of a loss `sum_c w_c t_c cost(p_c)`, its targets smoothed over the classes."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        label_smoothing=0.0,
        **options,
    ):
        y = dense(target, prediction, axis)
        t = (1 - label_smoothing) * y + label_smoothing / prediction.shape[axis]
        w = _shaped(class_weights, prediction, axis)
        loss, extra = cost(prediction, axis, **options)
        v = (w * y).sum(axis)
        return reduced((w * t * loss).sum(axis) + v * extra, reduction, where, weights, v)

    return oracle


def _nll_cost(prediction, axis):
    return -prediction, 0.0


def _entropy_cost(prediction, axis, z_loss=0.0):
    log_p = log_softmax(prediction, axis)
    normalizer = (prediction - log_p).take(0, axis)
    return -log_p, z_loss * normalizer**2


def _focal_cost(prediction, axis, gamma=2.0, alpha=None, activation="softmax"):
    log_p = log_softmax(prediction, axis)
    factor = 1.0 if alpha is None else _shaped(np.broadcast_to(alpha, 3), prediction, axis)
    return -factor * (1 - np.exp(log_p)) ** gamma * log_p, 0.0


def _independent(cost):
    """The oracle of a loss of each probability, its target smoothed towards 1/2."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        label_smoothing=0.0,
        activation="sigmoid",
        **options,
    ):
        p = prediction if activation is None else expit(prediction)
        y = dense(target, prediction, axis)
        t = y * (1 - label_smoothing) + label_smoothing / 2
        w = 1.0 if class_weights is None else _shaped(class_weights, prediction, axis)
        if where is not None and where.ndim < prediction.ndim:
            where = np.expand_dims(where, axis)
        if weights is not None and weights.ndim < prediction.ndim:
            weights = np.expand_dims(weights, axis)
        return reduced(w * cost(p, t, **options), reduction, where, weights, w)

    return oracle


def _binary_cost(p, t, pos_weight=1.0):
    return -pos_weight * t * np.log(p) - (1 - t) * np.log1p(-p)


def _binary_focal_cost(p, t, gamma=2.0, alpha=None):
    p_t = t * p + (1 - t) * (1 - p)
    balance = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return balance * (1 - p_t) ** gamma * _binary_cost(p, t)


def _focal(prediction, target, activation="auto", axis=-1, **options):
    competes = activation == "softmax" or (axis is not None and target.shape != prediction.shape)
    if competes:
        return _competing(_focal_cost)(prediction, target, axis=axis, **options)
    link = None if activation is None else "sigmoid"
    return _independent(_binary_focal_cost)(
        prediction, target, axis=axis, activation=link, **options
    )


X, IDS = np.zeros((2, 3)), np.zeros(2, int)


def _shared_invalid(name):
    return (
        Invalid((X.astype(int), IDS), {}, TypeError, (name, "int", "floating")),
        Invalid((X, np.zeros((2, 3, 1), int)), {}, ValueError, ("labels", r"\(2, 3, 1\)", "shape")),
        Invalid((X, np.zeros(2)), {}, ValueError, ("labels", "float", "integer ids")),
        Invalid((np.zeros((2, 1)), IDS), {}, ValueError, ("labels", "single class", "axis=None")),
        Invalid((X, IDS), {"axis": 2}, ValueError, ("axis", "2", r"\[-2, 2\)")),
        Invalid((X, IDS), {"axis": "C"}, TypeError, ("axis", "'C'", "integer")),
        Invalid((X, IDS), {"reduction": "avg"}, ValueError, ("reduction", "'avg'", "'mean'")),
        Invalid((X, IDS), {"where": IDS}, TypeError, ("where", "int", "bool")),
        Invalid((X, IDS), {"where": np.ones(3, bool)}, ValueError, ("where", r"\(3,\)", "rank")),
        Invalid((X, IDS), {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)", "rank")),
        Invalid((X, IDS), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")),
        Invalid((X, IDS), {"ignore_index": 0.5}, TypeError, ("ignore_index", "0.5", "integer")),
        Invalid((X, X), {"ignore_index": 1}, ValueError, ("ignore_index", "float", "integer")),
    )


def _out_of_range(*parameters):
    return tuple(
        Invalid((X, X), {name: value}, ValueError, (name, "number in"))
        for name, value in parameters
    )


_LOGITS = _shared_invalid("logits")
_SMOOTHING = _out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1))
_FOCAL = _out_of_range(("gamma", -1.0), ("gamma", jnp.array(-1.0)), ("alpha", -0.1))
_FOCAL_PARAMETERS = {
    "gamma": (1.5, -1.0),
    "alpha": (0.3, -0.1),
    "label_smoothing": (0.1, 1.5),
}

CASES = {
    "nll": Case(
        _competing(_nll_cost),
        (ids(), ids("channels", axis=1), soft()),
        _shared_invalid("log_probs"),
        {},
        "smooth",
        1.1,
    ),
    "cross_entropy": Case(
        _competing(_entropy_cost),
        (
            ids(),
            ids("channels", axis=1),
            soft(),
            ids("smoothed", label_smoothing=0.2, z_loss=0.01),
            soft("soft_smoothed", label_smoothing=0.2, z_loss=0.01),
        ),
        (*_LOGITS, *_SMOOTHING, *_out_of_range(("z_loss", -1.0))),
        {"label_smoothing": (0.1, 1.5), "z_loss": (0.1, -1.0)},
        "smooth",
        0.45,
    ),
    "binary_cross_entropy": Case(
        _independent(_binary_cost),
        (
            elements(),
            binary(),
            ids("one_against_the_rest"),
            elements("weighted", pos_weight=2.5, label_smoothing=0.1),
            probabilities(),
        ),
        (
            *_LOGITS,
            *_SMOOTHING,
            *_out_of_range(("pos_weight", -1.0)),
            Invalid((X, X), {"activation": "softmax"}, ValueError, ("activation", "'softmax'")),
        ),
        {"label_smoothing": (0.1, 1.5), "pos_weight": (2.0, -1.0)},
        "smooth",
        3.1,
    ),
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
            Invalid((X, IDS), {"activation": "relu"}, ValueError, ("activation", "'relu'")),
            Invalid(
                (X, X), {"axis": None, "activation": "softmax"}, ValueError, ("axis", "class axis")
            ),
        ),
        _FOCAL_PARAMETERS,
        "smooth",
        0.55,
    ),
    "sigmoid_focal": Case(
        _independent(_binary_focal_cost),
        (elements(), binary(gamma=0.5), ids("one_against_the_rest"), elements("a", alpha=0.25)),
        (*_LOGITS, *_SMOOTHING, *_FOCAL, *_out_of_range(("alpha", 1.5))),
        _FOCAL_PARAMETERS,
        "smooth",
        4.1,
    ),
    "softmax_focal": Case(
        _competing(_focal_cost),
        (
            ids(),
            soft(),
            ids("alpha", alpha=np.array([0.2, 1.0, 3.0]), gamma=0.5),
            ids("smoothed", label_smoothing=0.1, axis=1),
        ),
        (*_LOGITS, *_SMOOTHING, *_FOCAL),
        _FOCAL_PARAMETERS,
        "smooth",
        0.55,
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


def test_focal_without_focus_is_cross_entropy():
    sample = ids()
    x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
    np.testing.assert_array_equal(jaxloss.focal(x, y, gamma=0.0), jaxloss.cross_entropy(x, y))


def test_cross_entropy_keeps_its_digits_on_confident_samples():
    """`logsumexp(z) - z_y` is 0 in float32 from a margin of 17 on."""
    margins = jnp.array([10.0, 17.0, 40.0, 80.0])
    logits = jnp.stack([margins, jnp.zeros(4), -margins], -1)
    exact = np.log1p(np.exp(-np.asarray(margins, float)) + np.exp(-2 * np.asarray(margins, float)))
    loss, one_hot = (
        jaxloss.cross_entropy(logits, labels, reduction="none")
        for labels in (jnp.zeros(4, int), jnp.eye(3)[jnp.zeros(4, int)])
    )
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    np.testing.assert_allclose(one_hot, exact, rtol=1e-6)


def test_gradient_with_respect_to_hard_labels():
    """At `y` exactly 0 or 1 the derivative by the label is that of the soft formula."""
    with jax.enable_x64(True):
        x = jnp.array([-3.0, 0.5, 2.0])
        for hard in (0.0, 1.0):
            inside = abs(hard - 1e-7)
            at, near = (
                jax.grad(lambda y: jaxloss.sigmoid_focal(x, y, reduction="sum"))(jnp.full(3, y))
                for y in (hard, inside)
            )
            np.testing.assert_allclose(at, near, rtol=1e-5)
