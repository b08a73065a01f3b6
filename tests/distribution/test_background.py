"""Ids of no class under a sigmoid, and numbers of labels that int32 does not hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import IDS, X

ONE_VERSUS_REST = {
    "binary_cross_entropy": {},
    "weighted_binary_cross_entropy": {},
    "balanced_binary_cross_entropy": {},
    "focal": {"activation": "sigmoid"},
    "sigmoid_focal": {},
    "reduced_focal": {"activation": "sigmoid"},
    "asymmetric": {"activation": "sigmoid"},
    "ghm": {},
    "hinge": {},
    "squared_hinge": {},
}
LOGITS = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
# What is there: classes, the background in the third row, and an id that does not exist.
LABELS = np.array([[0, 2, 255, 1, 1], [255, 255, 0, 7, 2]])
DENSE = np.where(LABELS == 7, np.nan, LABELS)[..., None] == np.arange(3)


@pytest.mark.parametrize("name", ONE_VERSUS_REST)
def test_the_background_is_a_target_of_zeros(name):
    loss = functools.partial(getattr(jaxloss, name), **ONE_VERSUS_REST[name])
    known = LABELS != 7
    dense = DENSE.astype(np.float32)
    options = {"where": known, "class_weights": np.array([0.5, 2.0, 1.0], np.float32)}
    expected = jax.value_and_grad(loss)(LOGITS, dense, **options)
    found = jax.value_and_grad(loss)(LOGITS, LABELS, background_index=255, **options)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


@pytest.mark.parametrize("background, dtype", [(255, "uint8"), (-1, "int8"), (3, "int32")])
def test_the_background_may_be_any_number_that_is_no_class(background, dtype):
    labels = np.where(LABELS == 255, background, LABELS).astype(dtype)
    each = jaxloss.hinge(LOGITS, labels, background_index=background, reduction="none")
    expected = jaxloss.hinge(LOGITS, DENSE.astype(np.float32), reduction="none")
    known = LABELS != 7
    np.testing.assert_allclose(each[known], expected[known], rtol=1e-6)
    assert np.isnan(each[~known]).all()


@pytest.mark.parametrize("name", ["binary_cross_entropy", "focal", "ghm", "hinge"])
def test_another_number_outside_of_the_classes_is_bad(name):
    loss = functools.partial(getattr(jaxloss, name), **ONE_VERSUS_REST[name], reduction="none")
    each = loss(LOGITS, LABELS, background_index=255)
    bad = np.broadcast_to((LABELS == 7)[..., None], LOGITS.shape)
    np.testing.assert_array_equal(np.isnan(each), bad)
    ignored = loss(LOGITS, LABELS, background_index=255, ignore_index=7)
    assert not np.asarray(ignored)[bad].any()
    assert np.isfinite(ignored).all()
    for labels in (np.array([3]), np.array([-1]), np.array([4])):  # the classes are 0 to 2
        assert np.isnan(loss(LOGITS[0, :1], labels)).all()


@pytest.mark.parametrize(
    "name, labels, options, words",
    [
        ("sigmoid_focal", IDS, {"background_index": 2}, "outside"),
        ("sigmoid_focal", IDS, {"background_index": 7, "ignore_index": 7}, "ignore_index"),
        ("sigmoid_focal", X, {"background_index": 7}, "ids without"),
        ("focal", IDS, {"background_index": 7}, "compete"),
        ("hinge", IDS, {"background_index": 0.5}, "integer"),
    ],
)
def test_wrong_backgrounds_raise(name, labels, options, words):
    with pytest.raises((TypeError, ValueError), match=f"jaxloss.{name}.*background_index.*{words}"):
        getattr(jaxloss, name)(X, labels, **options)


def test_ignored_numbers_beyond_int32():
    """Compared as int32, 2^40 was another number than itself, and like any other as large."""
    with jax.enable_x64(True):
        labels = jnp.array([0, 2**40, 1, 2**41])
        x = jnp.zeros((4, 2))
        for loss in (jaxloss.cross_entropy, jaxloss.binary_cross_entropy):
            each = loss(x, labels, ignore_index=2**40, reduction="none")
            assert not np.asarray(each[1]).any()
            assert np.isnan(np.asarray(each[3])).all()
    unsigned = jnp.array([0, 2**32 - 1], jnp.uint32)
    each = jaxloss.cross_entropy(
        jnp.zeros((2, 2)), unsigned, ignore_index=2**32 - 1, reduction="none"
    )
    np.testing.assert_allclose(each, [np.log(2), 0], rtol=1e-6)
    small = jnp.array([0, 255], jnp.uint8)  # never -1
    each = jaxloss.cross_entropy(jnp.zeros((2, 2)), small, ignore_index=-1, reduction="none")
    assert np.isnan(each[1])
