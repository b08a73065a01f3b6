"""Lovasz losses: oracles, cases, closed forms, and the public reports they guard against."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss._region import _lovasz
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    mean_over_classes,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def _extension(e, y, w):
    """The Choquet integral of the Jaccard loss: over all levels t, that of the pixels above t."""
    levels = np.unique(np.append(e[w > 0], 0.0))[::-1]
    total = 0.0
    for upper, lower in zip(levels, levels[1:], strict=False):
        wrong = w * (e >= upper)
        total += (upper - lower) * wrong.sum() / ((w * y).sum() + (wrong * (1 - y)).sum())
    return total


def _oracle(error, activation):
    """The oracle of the extension of `error(p, y)`, image by image and class by class."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        activation=activation,
        per_image=False,
        include_background=True,
        absent="skip",
    ):
        p, y = probabilities_of(prediction, target, activation, axis)
        rows = (error(p, y), y, pixel_weight(where, weights, p, axis))
        images = len(p) if per_image else 1
        e, y, v = (x.reshape(images, -1, p.shape[-1]).swapaxes(1, 2) for x in rows)
        values = np.array(
            [[_extension(*row) for row in zip(*i, strict=True)] for i in zip(e, y, v, strict=True)]
        )
        part = v.sum(-1) > 0
        if absent == "skip":
            part &= (v * y).sum(-1) > 0
        if not per_image:
            values, part = values[0], part[0]
        return mean_over_classes(
            values, part, class_weights, reduction, axis is None, include_background
        )

    return oracle


_INVALID = (
    *(call for call in invalid_segmentations("") if "activation" not in call.options),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
    Invalid(
        (PIXELS, PIXEL_IDS),
        {"axis_name": "batch"},
        ValueError,
        ("axis_name", "'batch'", "per_image=True", "cannot be pooled over a mesh axis"),
    ),
)
_unit = lambda sample: sample._replace(prediction=1 / (1 + np.exp(-sample.prediction)))

CASES = {
    "lovasz_softmax": Case(
        _oracle(lambda p, y: abs(y - p), "softmax"),
        (
            ids(seed=2, per_image=True),
            ids("pooled", axis=1, per_image=False, include_background=False),
            soft("soft"),
            probabilities(per_image=True, absent="score"),
            _unit(binary("binary_probabilities", activation=None, per_image=True)),
        ),
        (
            *_INVALID,
            Invalid(
                (PIXELS, PIXEL_IDS), {"activation": "sigmoid"}, ValueError, ("activation", "None")
            ),
            Invalid((PIXELS, PIXELS), {"axis": None}, ValueError, ("axis", "softmax competes")),
        ),
        {},
        "kinked",
        8.5,
    ),
    "lovasz_hinge": Case(
        _oracle(lambda x, y: np.maximum(1 - x * (2 * y - 1), 0), None),
        (
            ids(per_image=True),
            ids("classes_first", axis=0, per_image=False, absent="score"),
            elements(),
            binary(per_image=True),
        ),
        _INVALID,
        {},
        "kinked",
        3.6,
    ),
}

# Errors .8 (positive), .6 (negative), .1 (positive), .05 (negative): J = 1/2, 2/3, 1, 1.
P, Y = jnp.array([[0.9, 0.2, 0.6, 0.05]]), jnp.array([[True, True, False, False]])
of_mask = functools.partial(jaxloss.lovasz_softmax, axis=None, activation=None)


def test_value_and_gradient_of_four_pixels():
    value, gradient = jax.value_and_grad(of_mask)(P, Y)
    np.testing.assert_allclose(value, 0.8 / 2 + 0.6 / 6 + 0.1 / 3, 1e-6)
    np.testing.assert_allclose(gradient, [[-1 / 3, -1 / 2, 1 / 6, 0]], 1e-6)


def test_hinge_of_four_pixels():
    x = jnp.array([[2.0, -0.5, 0.5, -0.9]])  # errors 0, 1.5, 1.5, .1: the positive comes first
    value, gradient = jax.value_and_grad(functools.partial(jaxloss.lovasz_hinge, axis=None))(x, Y)
    np.testing.assert_allclose(value, 1.5 * 2 / 3 + 0.1 / 12, 1e-6)
    np.testing.assert_allclose(gradient, [[0, -1 / 2, 1 / 6, 1 / 12]], 1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_of_a_hard_prediction_it_is_the_jaccard_loss(seed):
    p, y = np.random.default_rng(seed).random((2, 3, 20)) < [[[0.4]], [[0.3]]]
    expected = 1 - (p & y).sum(-1) / (p | y).sum(-1)
    for target in (y, y.astype(np.float32)):
        value = of_mask(p.astype(np.float32), target, per_image=True, reduction="none")
        np.testing.assert_allclose(value, expected, 1e-6)


def test_an_empty_target_costs_its_largest_error_or_nothing():
    nothing = jnp.zeros_like(Y)
    for target in (nothing, nothing.astype(jnp.float32)):
        score = functools.partial(of_mask, absent="score")
        np.testing.assert_allclose(score(P, target), 0.9, 1e-6)
        np.testing.assert_allclose(jax.grad(score)(P, target), [[1, 0, 0, 0]])
        assert of_mask(P, target) == 0
        assert not jax.grad(of_mask)(P, target).any()


def test_whole_weights_count_like_repeated_pixels():
    weights = jnp.array([[3.0, 1.0, 2.0, 0.0]])
    again = np.repeat(np.arange(4), [3, 1, 2, 0])
    expected, slopes = jax.value_and_grad(of_mask)(P[:, again], Y[:, again])
    value, gradient = jax.value_and_grad(of_mask)(P, Y, weights=weights)
    np.testing.assert_allclose(value, expected, 1e-6)
    np.testing.assert_allclose(gradient, jnp.zeros(4).at[again].add(slopes[0])[None], 1e-6)


def test_float_labels_take_another_path_to_the_same_numbers():
    """Among equal errors too: the order follows the position in both."""
    rng = np.random.default_rng(1)
    p = np.float32(rng.integers(0, 5, (2, 300)) / 4)
    y, where = rng.random((2, 2, 300)) < 0.5
    run = jax.jit(jax.value_and_grad(of_mask))
    for mask in (None, where):
        value, gradient = run(p, y, where=mask)
        others = run(p, np.float32(y), where=mask)
        np.testing.assert_allclose(value, others[0], 1e-5)
        np.testing.assert_allclose(gradient, others[1], 1e-4, 1e-7)


def test_a_masked_pixel_does_not_delay_others_of_no_error():
    p, y = jnp.array([[0.5, 1.0, 0.0]]), jnp.array([[True, True, False]])
    where = jnp.array([[True, True, False]])
    gradient = jax.grad(of_mask)(p, y, where=where)
    np.testing.assert_array_equal(gradient, [[-0.5, 0, 0]])


def test_the_order_is_the_same_in_every_body():
    """What a CPU, a GPU and float64 sort with."""
    rng = np.random.default_rng(2)
    errors = jnp.asarray(rng.integers(0, 9, (2, 3, 50)) / 8, jnp.float32).at[0, 0, 7].set(jnp.nan)
    mask = jnp.asarray(rng.random((2, 3, 50)) < 0.8, jnp.float32)
    hits = jnp.asarray(rng.random((2, 3, 50)) < 0.3) & (mask > 0)
    keys, idle = _lovasz._keys(errors, mask), jnp.zeros((2, 3), bool)
    expected = _lovasz._steps_at_once(keys, hits, _lovasz._sort_pairs)
    packed = _lovasz._steps_at_once(keys, hits, _lovasz._sort_packed)
    np.testing.assert_array_equal(packed, expected)
    np.testing.assert_array_equal(_lovasz._steps_row_by_row(keys, hits, idle), expected)
    with jax.enable_x64(True):
        double = _lovasz._keys(jnp.where(jnp.isnan(errors), 2, errors).astype(jnp.float64), mask)
        steps = _lovasz._steps_at_once(double, hits, _lovasz._sort_pairs)
        np.testing.assert_allclose(steps, expected, 1e-6)


def test_64_bit_numbers_do_not_escape_the_sort():
    x, y = jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), jnp.int32)
    mapped = jax.vmap(jax.jit(jax.value_and_grad(jaxloss.lovasz_softmax)))
    value, gradient = jax.jit(mapped)(x[None], y[None])
    assert value.dtype == gradient.dtype == jnp.float32
    assert jnp.arange(3).dtype == jnp.int32


def test_more_pixels_than_float32_counts():
    """2^24 + 5 negatives above one positive: a float32 sum would stop at 2^24."""
    hits = jnp.zeros(2**24 + 6, bool).at[-1].set(True)
    steps = jax.jit(_lovasz._counted_steps)(hits)
    assert steps[-1] == np.float32(1 / (2**24 + 6))


def test_more_pixels_than_32_bits_count(monkeypatch):
    """From 2^31 pixels of a row on they are counted in 64 bits; of a small row, the same way."""
    rng = np.random.default_rng(5)
    errors = jnp.asarray(rng.random((3, 41)), jnp.float32)
    y, mask = jnp.asarray(rng.random((2, 3, 41)) < 0.4)

    def run(errors):
        hard = _lovasz._of_hard_labels(errors, y, mask.astype(jnp.float32), False)
        return hard.sum() + _lovasz._of_soft_labels(errors, 0.9 * y.astype(jnp.float32), None).sum()

    expected = jax.jit(jax.value_and_grad(run))(errors)
    monkeypatch.setattr(_lovasz, "_MANY", 40)
    jax.clear_caches()
    for others, wide in zip(expected, jax.jit(jax.value_and_grad(run))(errors), strict=True):
        np.testing.assert_allclose(wide, others, 1e-6)
        assert wide.dtype == jnp.float32
    jax.clear_caches()


def test_confident_predictions_keep_their_digits():
    x = jnp.array([[[30.0, 0.0], [0.0, 25.0], [28.0, 0.0]]])
    y = jnp.array([[0, 1, 0]])
    errors = 1 / (1 + np.exp([30.0, 25.0, 28.0]))
    # Class 0: the negative's error is the largest; it comes first, and then two positives.
    expected = [
        (errors[1] + errors[2] + errors[0]) / 3,
        errors[1],
    ]
    value = jaxloss.lovasz_softmax(x, y, reduction="none")
    np.testing.assert_allclose(value, expected, 1e-5)


def test_infinite_margins():
    """Certain and right costs nothing; certain and wrong is infinite, with a finite gradient."""
    x = jnp.array([[jnp.inf, 0.5, -jnp.inf]])
    y = jnp.array([[True, True, False]])
    run = jax.jit(jax.value_and_grad(functools.partial(jaxloss.lovasz_hinge, axis=None)))
    value, gradient = run(x, y)
    np.testing.assert_allclose(value, 0.25)
    np.testing.assert_allclose(gradient, [[0, -0.5, 0]])
    value, gradient = run(-x, y)
    assert value == jnp.inf
    assert jnp.isfinite(gradient).all()


def test_second_derivatives_are_those_of_the_errors():
    """Of probabilities the loss is piecewise linear."""
    hessian = jax.jit(jax.hessian(lambda p: of_mask(p, Y)))
    assert not hessian(P).any()
    soft = jax.jit(jax.hessian(lambda p: of_mask(p, Y.astype(jnp.float32))))
    assert not soft(P).any()


def test_absent_classes_of_a_batch_are_not_sorted_nor_scored():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 5, 4)), jnp.float32)
    y = jnp.array([[0, 2, 2, 0, 0], [0, 0, 2, 2, 2]])
    value = jaxloss.lovasz_softmax(x, y, reduction="none")
    assert (value[jnp.array([1, 3])] == 0).all()
    np.testing.assert_allclose(jaxloss.lovasz_softmax(x, y), (value[0] + value[2]) / 2, 1e-6)


def test_smp_all_ignored_is_a_scalar_zero():
    """segmentation-models-pytorch's LovaszLoss returns a tensor of shape (0, classes)."""
    x, y = jnp.ones((2, 3, 4)), jnp.full((2, 3), 255)
    for loss in (jaxloss.lovasz_softmax, jaxloss.lovasz_hinge):
        value, gradient = jax.value_and_grad(loss)(x, y, ignore_index=255)
        assert value.shape == ()
        assert value == 0
        assert not gradient.any()


def test_kornia_sorts_the_indicator_not_the_ids():
    """Renaming the classes renames their losses."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 6, 4)).astype(np.float32), rng.integers(0, 4, (2, 6))
    value = jaxloss.lovasz_softmax(x, y, reduction="none")
    renamed = jaxloss.lovasz_softmax(x[..., ::-1], 3 - y, reduction="none")
    np.testing.assert_allclose(renamed[::-1], value, 1e-6)
