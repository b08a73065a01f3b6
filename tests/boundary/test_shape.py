"""Shape-aware cross-entropy: oracle, case and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxloss
from tests.boundary.maps import edt, labelled
from tests.boundary.test_hausdorff import INVALID_MAPS, loss_of
from tests.boundary.test_penalized import CASES as PENALIZED
from tests.registry import Case, Invalid, binary, ids, probabilities


def contour(labels, valid):
    """Valid pixels with a face neighbour of another label."""
    cross = ndimage.generate_binary_structure(labels.ndim, 1)
    high = ndimage.maximum_filter(labels, footprint=cross, mode="nearest")
    low = ndimage.minimum_filter(labels, footprint=cross, mode="nearest")
    return (high != low) & (valid > 0)


@labelled
def _shape_aware(labels, predicted, valid, sampling, distance="curve"):
    true = contour(labels, valid)
    away = edt(~true, sampling) if true.any() else np.zeros(labels.shape)
    if distance == "curve":
        found = contour(predicted, valid)
        away = away[found].mean() if found.any() else 0
    return 1 + np.where(predicted != labels, away, 0)


CASES = {
    "shape_aware": Case(
        _shape_aware,
        (
            ids(),
            ids("nchw", axis=1, sampling=(2.0, 0.5), distance="pixel"),
            binary(),
            probabilities(distance="pixel"),
        ),
        (
            *PENALIZED["distance_penalized_cross_entropy"].invalid,
            Invalid(
                INVALID_MAPS[0].arguments, {"distance": "face"}, ValueError, ("distance", "'face'")
            ),
        ),
        {},
        "smooth",
        0.87,
    ),
}


def strip(*pixels):
    return np.array(pixels, float)[None]


@pytest.mark.parametrize("distance, factors", [("curve", [2.5, 2.5]), ("pixel", [2.0, 1.0])])
def test_factors_of_a_strip(distance, factors):
    """True contour at 2 and 3, predicted one at 0 and 1: 1.5 away on average."""
    y, p = strip(0, 0, 0, 1, 1), strip(0.4, 0.6, 0.6, 0.9, 0.9)
    loss = loss_of("shape_aware", p, y, distance=distance)
    plain = loss_of("binary_cross_entropy", p, y)
    np.testing.assert_allclose((loss / plain)[0], [1, *factors, 1, 1], 1e-6)


def test_a_right_prediction_costs_the_plain_cross_entropy():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 6, 6))
    logits = 3 * np.eye(3)[labels] + rng.uniform(size=(2, 6, 6, 3))
    for distance in ("curve", "pixel"):
        loss = jaxloss.shape_aware(logits, labels, distance=distance)
        np.testing.assert_allclose(loss, jaxloss.cross_entropy(logits, labels), 1e-6)


def test_without_a_contour_there_is_no_distance():
    y = np.stack([np.zeros((4, 4)), np.ones((4, 4))])
    wrong = np.where(y > 0, 0.2, 0.8)
    for distance in ("curve", "pixel"):
        for p in (wrong, np.where(np.arange(4) < 2, wrong, 1 - wrong)):
            loss = loss_of("shape_aware", p, y, distance=distance)
            np.testing.assert_allclose(loss, loss_of("binary_cross_entropy", p, y), 1e-6)


def test_the_map_may_be_passed_in():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 3, 3)).repeat(3, 1).repeat(3, 2)
    logits = rng.normal(size=(2, 9, 9, 3)).astype(np.float32)
    away = np.stack([edt(~contour(x, np.ones(x.shape)), 1.0) for x in labels])
    for distance in ("curve", "pixel"):
        expected = jaxloss.shape_aware(logits, labels, distance=distance)
        for given in (away, np.repeat(away[..., None], 3, -1)):
            loss = jaxloss.shape_aware(logits, labels, distance=distance, distance_map=given)
            np.testing.assert_allclose(loss, expected, 1e-6)


def test_thick_slices_count():
    y, p = np.full((2, 1, 3, 1, 4), 0.0)
    y[0, 0], p[0, 0] = 1, 0.9
    p[0, 2] = 0.9  # two slices from the contour, of which slices 0 and 1 are the true one
    options = {"distance": "pixel", "sampling": (5.0, 1.0, 1.0)}
    loss = loss_of("shape_aware", p, y, **options)
    np.testing.assert_allclose(loss[0, 2], np.full((1, 4), -6 * np.log1p(-0.9)), 1e-5)


def test_sharp_logits_stay_finite():
    logits = jnp.array([1e4, -1e4, 1e30, -1e30])
    x = jnp.broadcast_to(logits[:, None, None], (4, 4, 4)).at[:, 0].set(0.3)
    y = jnp.zeros((4, 4)).at[1:3, 1:3].set(1.0)
    for name in ("shape_aware", "distance_penalized_cross_entropy"):
        loss = lambda x, name=name: getattr(jaxloss, name)(x[None], y[None], axis=None)
        value, slope = jax.jit(jax.vmap(jax.value_and_grad(loss)))(x)
        assert jnp.isfinite(value).all()
        assert jnp.isfinite(slope).all()
