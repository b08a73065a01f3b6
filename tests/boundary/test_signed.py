"""Regression of signed distance maps: oracle, case and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.boundary.maps import mean, normalized_sdf, scored
from tests.registry import Case, Invalid, Sample

X = np.zeros((2, 4, 5))


@scored
def _maps_apart(total, f, y, valid, each, smooth=1e-5):
    phi = each(normalized_sdf, (y > 0.5) & valid)
    both = total(f * phi) + smooth
    return mean(total, abs(f - phi)) - both / (both + total(f**2) + total(phi**2))


def _regression(prediction, target, axis=None, **options):
    return _maps_apart(prediction, target, axis=axis, activation=None, **options)


def _sample(name, **options):
    rng = np.random.default_rng(0)
    mask = (rng.random((4, 3, 5)) < 0.5).astype(float)
    mask[:, 0, 0], mask[:, 0, 1] = 0, 1
    return Sample(name, rng.normal(size=(4, 3, 5)), mask, options, (4, 3, 5))


CASES = {
    "signed_distance_regression": Case(
        _regression,
        (_sample("maps"), _sample("thick", sampling=(2.0, 0.5), smooth=1.0)),
        (
            Invalid((X.astype(int), X), {}, TypeError, ("predictions", "int", "floating")),
            Invalid((X, X[:1]), {}, ValueError, ("mask", r"\(1, 4, 5\)", "predictions")),
            Invalid((X[0, 0], X[0, 0]), {}, ValueError, ("predictions", r"x\[None\]")),
            Invalid((X, X), {"axis": 3}, ValueError, ("axis", "3")),
            Invalid((X, X), {"where": X}, TypeError, ("where", "float", "bool")),
            Invalid((X, X), {"weights": X[0]}, ValueError, ("weights", "rank")),
            Invalid((X, X), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
            Invalid((X, X), {"smooth": -1.0}, ValueError, ("smooth", "-1.0")),
            Invalid((X, X), {"sampling": (1.0,)}, ValueError, ("sampling",)),
            Invalid((X, X), {"distance_map": X[0]}, ValueError, ("distance_map",)),
        ),
        {"smooth": (0.7, -1.0)},
        "kinked",
        4.1,
    ),
}

MASK = np.random.default_rng(1).random((3, 8, 8)) < 0.4


def test_the_minimum_is_minus_a_third():
    phi = jaxloss.distance.compute_sdf(MASK, normalize=True)
    loss = jaxloss.signed_distance_regression(phi, MASK, reduction="none")
    np.testing.assert_allclose(loss, [-1 / 3] * 3, 1e-5)
    for other in (0.9 * phi, phi + 0.05, -phi, 0 * phi):
        assert (jaxloss.signed_distance_regression(other, MASK, reduction="none") > loss).all()
    np.testing.assert_allclose(
        jaxloss.signed_distance_regression(0 * phi, MASK, smooth=0), jnp.abs(phi).mean(), 1e-6
    )


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8, np.float32])
def test_masks_of_any_dtype(dtype):
    f = np.random.default_rng(0).normal(size=MASK.shape).astype(np.float32)
    expected = jaxloss.signed_distance_regression(f, MASK)
    np.testing.assert_array_equal(
        jaxloss.signed_distance_regression(f, MASK.astype(dtype)), expected
    )


def test_several_masks_of_an_image():
    f = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    masks = np.stack([MASK, ~MASK], -1)
    both = jaxloss.signed_distance_regression(f, masks, axis=-1, reduction="none")
    alone = [
        jaxloss.signed_distance_regression(f[..., c], masks[..., c], reduction="none")
        for c in range(2)
    ]
    np.testing.assert_allclose(both, np.stack(alone, -1), 1e-6)
    np.testing.assert_allclose(
        jaxloss.signed_distance_regression(
            np.moveaxis(f, -1, 1), np.moveaxis(masks, -1, 1), axis=1
        ),
        both.mean(),
        1e-6,
    )


def test_a_map_may_be_passed_in():
    f = np.random.default_rng(0).normal(size=MASK.shape).astype(np.float32)
    given = np.stack([normalized_sdf(mask, np.ones(2)) for mask in MASK])
    np.testing.assert_allclose(
        jaxloss.signed_distance_regression(f, MASK, distance_map=given),
        jaxloss.signed_distance_regression(f, MASK),
        1e-6,
    )


def test_masks_without_a_boundary_are_finite():
    """SegWithDistMap: asserts that its map reaches -1 and 1."""
    masks = np.stack([np.zeros((4, 4), bool), np.ones((4, 4), bool)])
    for f in (jnp.zeros((2, 4, 4)), jnp.ones((2, 4, 4))):
        loss = lambda f: jaxloss.signed_distance_regression(f, masks)
        value, slope = jax.value_and_grad(loss)(f)
        assert jnp.isfinite(value)
        assert jnp.isfinite(slope).all()
