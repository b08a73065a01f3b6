"""Smoothed labels and class weights: oracles, closed forms and empty classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.registry import Helper, Invalid, ids


def _smooth_labels(labels, label_smoothing, num_classes=None, axis=-1):
    y = labels
    if num_classes is not None:
        y = np.moveaxis(np.eye(num_classes)[labels], -1, axis)
    return (1 - label_smoothing) * y + label_smoothing / y.shape[axis]


def _over(numerator, counts):
    return np.where(counts > 0, numerator / np.where(counts > 0, counts, 1), 0)


def _inverse_frequency(counts):
    return _over(counts.sum() / counts.size, counts)


def _median_frequency(counts):
    return _over(np.median(counts[counts > 0]), counts)


def _effective_number(counts, beta=0.999):
    held = counts > 0
    effective = (1 - beta ** counts.astype(float)) / (1 - beta)
    weights = _over(1.0, np.where(held, effective, 0))
    return weights / weights.sum() * held.sum()


COUNTS = np.array([5000, 40, 300, 1])
EMPTY = np.array([12.0, 0.0, 7.0, 3.0, 0.0])
_CALLS = tuple(((counts,), {}) for counts in (COUNTS, EMPTY, EMPTY / 22))


def _invalid(*more):
    wrong = (
        (np.zeros((2, 2)), ValueError, ("counts", r"\(2, 2\)", "one axis")),
        (3.0, ValueError, ("counts", r"\(\)", "one axis")),
        ([2.0, -1.0], ValueError, ("counts", r"-1\.", "number in")),
        ([2.0, np.nan], ValueError, ("counts", "nan", "number in")),
        (np.zeros(3), ValueError, ("counts", "above 0")),
        (np.ones(3, bool), TypeError, ("counts", "bool", "real")),
    )
    return (
        tuple(Invalid((), {"counts": value}, error, words) for value, error, words in wrong) + more
    )


_IDS = np.array([[0, 2], [1, 1]], np.int32)

HELPERS = {
    "smooth_labels": Helper(
        _smooth_labels,
        (
            ((_IDS, 0.1), {"num_classes": 3}),
            ((_IDS, 0.3), {"num_classes": 4, "axis": 1}),
            ((np.array([[0.2, 0.8], [1.0, 0.0]]), 0.2), {}),
            ((np.array([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]]), 0.2), {"axis": 0}),
        ),
        (
            Invalid(
                (_IDS,),
                {"label_smoothing": 0.1},
                TypeError,
                ("num_classes", "int32", "number of classes"),
            ),
            Invalid(
                (_IDS,),
                {"label_smoothing": 0.1, "num_classes": 2.5},
                TypeError,
                ("num_classes", "integer"),
            ),
            Invalid(
                (_IDS,),
                {"label_smoothing": 0.1, "num_classes": True},
                TypeError,
                ("num_classes", "integer"),
            ),
            Invalid(
                (_IDS,),
                {"label_smoothing": 0.1, "num_classes": 1},
                ValueError,
                ("num_classes", "at least 2"),
            ),
            Invalid(
                (_IDS,),
                {"label_smoothing": 0.1, "num_classes": 3, "axis": 3},
                ValueError,
                ("axis", "3"),
            ),
            Invalid(
                (np.eye(3),),
                {"label_smoothing": 0.1, "num_classes": 3},
                ValueError,
                ("num_classes", "float", "None"),
            ),
            Invalid((np.eye(3),), {"label_smoothing": 0.1, "axis": 2}, ValueError, ("axis", "2")),
            Invalid((np.eye(3),), {"label_smoothing": 1.0}, ValueError, ("label_smoothing", "1.0")),
            Invalid(
                (np.eye(3),),
                {"label_smoothing": np.zeros(3)},
                ValueError,
                ("label_smoothing", "one number"),
            ),
            Invalid(
                (np.eye(3),), {"label_smoothing": -0.1}, ValueError, ("label_smoothing", "-0.1")
            ),
        ),
    ),
    "inverse_frequency_weights": Helper(_inverse_frequency, _CALLS, _invalid()),
    "median_frequency_weights": Helper(_median_frequency, _CALLS, _invalid()),
    "effective_number_weights": Helper(
        _effective_number,
        (*_CALLS, ((COUNTS,), {"beta": 0.9}), ((EMPTY,), {"beta": 0.99})),
        _invalid(
            Invalid((), {"counts": COUNTS, "beta": 1.1}, ValueError, ("beta", "1.1", r"\[0, 1\]")),
            Invalid((), {"counts": COUNTS, "beta": [0.5, 0.9]}, ValueError, ("beta", "one number")),
            Invalid(
                (), {"counts": COUNTS, "beta": -0.1}, ValueError, ("beta", "-0.1", r"\[0, 1\]")
            ),
        ),
    ),
}

WEIGHTS = [
    jaxloss.inverse_frequency_weights,
    jaxloss.median_frequency_weights,
    jaxloss.effective_number_weights,
]
every_weighting = pytest.mark.parametrize("weigh", WEIGHTS)


def test_closed_forms():
    weights = [np.asarray(weigh([1, 2, 4, 0])) for weigh in WEIGHTS[:2]]
    np.testing.assert_allclose(weights[0], [7 / 4, 7 / 8, 7 / 16, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[1], [2, 1, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(jaxloss.median_frequency_weights([1, 3]), [2, 2 / 3], rtol=1e-6)
    effective = np.array([1, 1.5, 1.875])  # 1, 1 + b, (1 + b)(1 + b^2) for b = 1/2
    np.testing.assert_allclose(
        jaxloss.effective_number_weights([1, 2, 4], beta=0.5),
        3 / effective / (1 / effective).sum(),
        rtol=1e-6,
    )


def test_effective_numbers_at_the_ends_of_beta():
    """0 makes all classes equal, 1 is the inverse frequency; both are limits."""
    counts = jnp.array([4.0, 0.0, 1.0])
    weigh = jaxloss.effective_number_weights
    for end, expected in ((0.0, [1, 0, 1]), (1.0, [0.4, 0, 1.6])):
        near = abs(end - 1e-6)
        np.testing.assert_allclose(weigh(counts, beta=end), expected, rtol=1e-6)
        np.testing.assert_allclose(weigh(counts, beta=near), expected, rtol=1e-4)
        assert jnp.isfinite(jax.grad(lambda n, b=end: weigh(n, beta=b) @ counts)(counts)).all()


def test_effective_numbers_do_not_cancel():
    """`1 - beta ** n` in float32 has no correct digit here, and is 0 for the rarest class."""
    counts, beta = np.array([1, 3, 1000]), 1 - 2.0**-20
    value = jaxloss.effective_number_weights(counts, beta=beta)
    np.testing.assert_allclose(value, _effective_number(counts, beta), rtol=1e-6)


@every_weighting
def test_counts_may_be_traced(weigh):
    """Equal to concrete ones, differentiable past an empty class, NaN where those would raise."""
    run = jax.jit(weigh)
    np.testing.assert_allclose(run(EMPTY.astype(np.float32)), weigh(EMPTY), rtol=1e-6)
    for wrong in (np.zeros(5), np.array([1.0, -1.0, 2.0, 3.0, 4.0])):
        assert jnp.isnan(run(wrong.astype(np.float32))).all()
    gradient = jax.jacfwd(weigh)(jnp.asarray(EMPTY, jnp.float32))
    assert jnp.isfinite(gradient).all()


@every_weighting
def test_counts_of_any_dtype(weigh):
    """Integers are not summed as such: in uint8 these would wrap."""
    expected = weigh(np.array([200, 100, 50], np.float32))
    for dtype in (np.uint8, np.int16, np.int32, jnp.bfloat16, np.float16):
        value = weigh(jnp.array([200, 100, 50], dtype))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_smoothed_targets_equal_the_losses_own_smoothing():
    sample = ids()
    x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
    targets = jaxloss.smooth_labels(y, 0.1, num_classes=3)
    expected = jaxloss.cross_entropy(x, y, label_smoothing=0.1)
    np.testing.assert_allclose(jaxloss.cross_entropy(x, targets), expected, rtol=1e-6)


def test_smoothed_labels_sum_to_one_and_mark_bad_ids():
    """pytorch issue 148884: the share is e / C for each class, of which the target keeps one."""
    targets = jax.jit(lambda y: jaxloss.smooth_labels(y, 0.3, num_classes=3))(
        jnp.array([1, -1, 3, 2], jnp.int8)
    )
    np.testing.assert_allclose(targets[0], [0.1, 0.8, 0.1], rtol=1e-6)
    np.testing.assert_allclose(targets[jnp.array([0, 3])].sum(-1), 1, rtol=1e-6)
    assert jnp.isnan(targets[1:3]).all()


def test_smoothing_may_be_traced():
    run = jax.jit(lambda e: jaxloss.smooth_labels(jnp.eye(2), e))
    np.testing.assert_allclose(run(0.2), [[0.9, 0.1], [0.1, 0.9]], rtol=1e-6)
    assert jnp.isnan(run(1.0)).all()


def test_smoothed_labels_of_any_dtype():
    one_hot = np.eye(3)[[0, 2]]
    for dtype, expected in (
        (bool, jnp.float32),
        (jnp.float32, jnp.float32),
        (jnp.bfloat16, jnp.float32),
    ):
        targets = jaxloss.smooth_labels(jnp.asarray(one_hot, dtype), 0.3)
        assert targets.dtype == expected
        np.testing.assert_allclose(targets, 0.7 * one_hot + 0.1, rtol=1e-6)
