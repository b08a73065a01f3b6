"""Dice and Jaccard for soft labels: oracles, cases, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations, segmentation
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def _dice_semimetric(total, p, y, smooth=1.0):
    s, d = total(p + y), total(np.abs(p - y))
    return 1 - (s - d + smooth) / (s + smooth)


def _jaccard_metric(total, p, y, smooth=1.0):
    s, d = total(p + y), total(np.abs(p - y))
    return 1 - (s - d + smooth) / (s + d + smooth)


_SAMPLES = (
    ids(),
    elements(smooth=0.0),
    ids("channels", axis=1, include_background=False, absent="skip"),
    ids("classes_first", axis=0, per_image=False),
    soft("images_second", activation="softmax"),
    binary(),
    probabilities(),
    ids("together", per_class=False, include_background=False),
)
_INVALID = (
    *invalid_segmentations(),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
    Invalid((PIXELS, PIXEL_IDS), {"per_class": "no"}, ValueError, ("per_class", "'no'", "False")),
)
ORACLES = {"dice_semimetric": _dice_semimetric, "jaccard_metric": _jaccard_metric}
CASES = {
    name: Case(segmentation(oracle), _SAMPLES, _INVALID, {"smooth": (0.5, -1.0)}, "kinked", 0.37)
    for name, oracle in ORACLES.items()
}

BINARY = {"axis": None, "activation": None}


@pytest.mark.parametrize("name", ORACLES)
def test_soft_labels_are_the_minimum(name):
    """Value and gradient are 0 at `p = y`; to each side it costs, and Dice does not say so."""
    loss = getattr(jaxloss, name)
    y = np.float32([[0.2, 0.5, 0.9, 0.0, 1.0]])
    steps = np.eye(5, dtype=np.float32)
    p = np.clip(np.concatenate([y, y + 0.05 * steps, y - 0.05 * steps, y.round()]), 0, 1)
    moved = (p != y).any(-1)
    run = jax.vmap(jax.value_and_grad(lambda p: loss(p[None], y, **BINARY)))
    value, gradient = jax.jit(run)(p)
    np.testing.assert_array_equal(value > 0, moved)
    assert not np.asarray(gradient)[~moved].any()
    dice = jax.jit(jax.vmap(lambda p: jaxloss.dice(p[None], y, **BINARY)))(p)
    assert dice[-1] < dice[0]


def test_hard_labels_give_dice_and_jaccard():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 3)).astype(np.float32), rng.integers(3, size=(2, 7))
    run = lambda loss, smooth: jax.jit(jax.value_and_grad(lambda x: loss(x, y, smooth=smooth)))(x)
    for ours, other, scale in (
        (jaxloss.dice_semimetric, jaxloss.dice, 1.0),
        (jaxloss.jaccard_metric, jaxloss.jaccard, 2.0),
    ):
        for one, two in zip(run(ours, scale), run(other, 1.0), strict=True):
            np.testing.assert_allclose(one, two, 2e-6, 1e-8)


def test_the_jaccard_metric_obeys_the_triangle():
    """Of random soft masks, no way by a third one is shorter; the Dice semimetric has one."""
    a, b, c = np.random.default_rng(1).random((3, 500, 4)).astype(np.float32) ** 3

    def distance(name, a, b):
        loss = getattr(jaxloss, name)
        return np.asarray(loss(a, b, smooth=0, reduction="none", **BINARY))

    detour = lambda name: distance(name, a, c) + distance(name, c, b) - distance(name, a, b)
    assert (detour("jaccard_metric") > -1e-6).all()
    one, other, both = jnp.float32([[1, 0]]), jnp.float32([[0, 1]]), jnp.float32([[1, 1]])
    shorter = distance("dice_semimetric", one, both) + distance("dice_semimetric", both, other)
    assert shorter < distance("dice_semimetric", one, other)
