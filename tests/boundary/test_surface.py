"""Boundary losses: oracles, cases and closed forms."""

import jax.numpy as jnp
import numpy as np

import jaxloss
from tests.boundary.maps import mean, scored, signed_distance
from tests.oracles import invalid_segmentations
from tests.registry import Case, Invalid, binary, ids, probabilities


@scored
def _boundary(total, p, y, valid, each):
    return mean(total, p * each(signed_distance, (y > 0.5) & valid))


X, IDS = np.zeros((2, 4, 5, 3)), np.zeros((2, 4, 5), int)

CASES = {
    "boundary": Case(
        _boundary,
        (
            ids(),
            ids("pooled", axis=1, include_background=True, per_image=False, sampling=(2.0, 0.5)),
            binary(),
            probabilities(),
        ),
        (
            *invalid_segmentations(None),
            Invalid((X, IDS), {"sampling": (1.0,)}, ValueError, ("sampling",)),
            Invalid((X, IDS), {"sampling": -1.0}, ValueError, ("sampling",)),
            Invalid(
                (X, IDS),
                {"distance_map": np.zeros((2, 4, 5))},
                ValueError,
                ("distance_map", r"\(2, 4, 5\)", "logits"),
            ),
        ),
        {},
        "smooth",
        4.25,
    ),
}


def test_boundary_with_its_own_map_passed_in():
    labels = np.zeros((1, 6, 6), int)
    labels[:, 2:5, 1:4] = 1
    logits = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    phi = np.stack([signed_distance(labels[0] == c, 1.0) for c in range(2)], -1)[None]
    np.testing.assert_allclose(
        jaxloss.boundary(logits, labels, distance_map=phi), jaxloss.boundary(logits, labels), 1e-6
    )


def test_boundary_of_empty_and_full_masks_is_zero():
    p = jnp.full((2, 4, 4), 0.7)
    masks = jnp.stack([jnp.zeros((4, 4)), jnp.ones((4, 4))])
    loss = jaxloss.boundary(p, masks, axis=None, activation=None, reduction="none")
    np.testing.assert_array_equal(loss, [0.0, 0.0])


def test_boundary_in_a_volume_with_thick_slices():
    volume = np.zeros((1, 3, 5, 5), bool)
    volume[0, 1, 1:4, 1:4] = True
    p = np.random.default_rng(0).random(volume.shape).astype(np.float32)
    spacing = (3.0, 1.0, 1.0)
    expected = (signed_distance(volume[0], spacing) * p[0]).mean()
    loss = jaxloss.boundary(p, volume, axis=None, activation=None, sampling=spacing)
    np.testing.assert_allclose(loss, expected, 1e-5)


def test_boundary_falls_as_the_prediction_approaches_the_target():
    target = jnp.zeros((1, 32)).at[:, 20:26].set(1.0)
    shifted = [jnp.roll(target, -shift, 1) for shift in (0, 2, 5, 9)]
    losses = [jaxloss.boundary(p, target, axis=None, activation=None) for p in shifted]
    assert losses == sorted(losses)
    assert losses[0] < 0
