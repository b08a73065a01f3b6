"""Cross-entropies: oracles, cases and closed forms."""

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

import jaxloss
from tests.oracles import (
    X,
    binary_entropy,
    competing,
    independent,
    invalid_classifications,
    out_of_range,
)
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def _nll_cost(prediction, axis):
    return -prediction, 0.0


def _entropy_cost(prediction, axis, z_loss=0.0):
    log_p = log_softmax(prediction, axis)
    normalizer = (prediction - log_p).take(0, axis)
    return -log_p, z_loss * normalizer**2


_LOGITS = invalid_classifications("logits")
_SMOOTHING = out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1))
CASES = {
    "nll": Case(
        competing(_nll_cost),
        (ids(), ids("channels", axis=1), soft()),
        invalid_classifications("log_probs"),
        {},
        "smooth",
        0.085,
    ),
    "cross_entropy": Case(
        competing(_entropy_cost),
        (
            ids(),
            ids("channels", axis=1),
            soft(),
            ids("smoothed", label_smoothing=0.2, z_loss=0.01),
            soft("soft_smoothed", label_smoothing=0.2, z_loss=0.01),
        ),
        (*_LOGITS, *_SMOOTHING, *out_of_range(("z_loss", -1.0))),
        {"label_smoothing": (0.1, 1.5), "z_loss": (0.1, -1.0)},
        "smooth",
        0.33,
    ),
    "binary_cross_entropy": Case(
        independent(binary_entropy),
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
            *out_of_range(("pos_weight", -1.0)),
            Invalid((X, X), {"activation": "softmax"}, ValueError, ("activation", "'softmax'")),
        ),
        {"label_smoothing": (0.1, 1.5), "pos_weight": (2.0, -1.0)},
        "smooth",
        0.165,
    ),
}


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
