"""Calls of other libraries that are one line here, as docstrings say, against their numbers.

`goldens/make_recipes.py` says which originals ran, and how.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import geometry
from tests.compiling import quick_jit
from tests.test_goldens import assert_close, decode, name

ROWS = json.loads((pathlib.Path(__file__).parent / "goldens/recipes.json").read_text())["rows"]


def over_a_denominator(logits, labels, denominator):
    return jaxloss.cross_entropy(logits, labels, reduction="sum") / denominator


def sums_over_classes(logits, labels):
    return jaxloss.binary_cross_entropy(logits, labels, reduction="none").sum(-1).mean()


def probabilities(p, labels):
    return jaxloss.cross_entropy(jnp.log(p), labels)


def dice_and_sigmoid_focal(logits, labels, gamma, smooth):
    return jaxloss.dice(logits, labels, axis=1, smooth=smooth) + jaxloss.sigmoid_focal(
        logits, labels, axis=1, gamma=gamma
    )


def smoothed_over_classes(logits, labels, label_smoothing):
    targets = jaxloss.smooth_labels(labels, label_smoothing, num_classes=logits.shape[-1])
    return jaxloss.binary_cross_entropy(logits, targets)


def regions(logits, labels, where):
    channels = logits.shape[1]
    return jaxloss.dice_cross_entropy(
        logits, labels, axis=1, where=where, smooth=1e-5, cross_entropy_weight=channels
    )


def another_matcher(logits, boxes, labels, targets):
    p = jax.nn.softmax(logits)
    distance = jnp.abs(boxes[:, None] - targets[None]).sum(-1)
    overlap = geometry.pairwise_giou(boxes, targets, format="cxcywh")
    cost = jax.lax.stop_gradient(5 * distance - p[:, labels] - 2 * overlap)
    queries, objects = optax.assignment.hungarian_algorithm(cost)
    return p[queries, labels[objects]].sum()


RECIPES = {
    "a denominator of one's own": over_a_denominator,
    "sums over the classes": sums_over_classes,
    "probabilities where classes compete": probabilities,
    "Dice under a softmax, focal under a sigmoid": dice_and_sigmoid_focal,
    "smoothing over the classes, then a sigmoid": smoothed_over_classes,
    "regions of which some pixels are ignored": regions,
    "another matcher": another_matcher,
}


def test_every_recipe_has_numbers():
    assert {row["loss"] for row in ROWS} == RECIPES.keys()


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_recipe(row):
    recipe = RECIPES[row["loss"]]
    prediction, *others = [decode(a) for a in row["args"]]
    options = {key: decode(value) for key, value in row["kwargs"].items()}
    with jax.enable_x64(True):
        others = [jnp.asarray(x) for x in others]
        run = quick_jit(jax.value_and_grad(lambda x: recipe(x, *others, **options)))
        value, gradient = run(jnp.asarray(prediction))
    assert_close(value, row["value"], row["rtol"])
    if row["gradient"] is not None:
        assert_close(gradient, row["gradient"], row["rtol"])


def test_probabilities_of_0_and_1_are_exact():
    p, labels = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], np.float32), np.array([1, 1])
    loss = jaxloss.cross_entropy(jnp.log(p), labels, reduction="none")
    np.testing.assert_array_equal(loss, [0, np.inf])
