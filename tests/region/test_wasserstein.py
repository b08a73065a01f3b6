"""Generalised Wasserstein Dice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compiling import usual_jit
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, ids, probabilities, reduced, soft

M = np.array([[0.0, 1.0, 0.8], [0.9, 0.0, 0.5], [1.1, 0.4, 0.0]], np.float32)


def _image(p, y, v, factors, distances, weighting, smooth):
    """The loss of one image: pixels in the first axis, classes in the second."""
    d = np.einsum("il,lc,ic->i", y, distances / distances.max(), p)
    v = v[:, 0]
    size = (v[:, None] * y).sum(0)
    a = {"default": np.array([0.0, 1.0, 1.0]), "gdl": 1 / (size + 1)}[weighting]
    importance, pixel = y @ (a * factors), y @ factors
    hits = (v * importance * (1 - d)).sum()
    if weighting == "gdl":
        return 1 - (2 * hits + smooth) / ((v * importance * (2 - d)).sum() + smooth), v.sum() > 0
    return 1 - (2 * hits + smooth) / (2 * hits + (v * pixel * d).sum() + smooth), v.sum() > 0


def _oracle(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="softmax",
    per_image=True,
    distances=M,
    weighting="default",
    smooth=1e-5,
):
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p[..., :1], None if where is None else axis)
    factors = np.ones(3) if class_weights is None else class_weights
    flat = lambda x: x.reshape(-1, x.shape[-1])
    options = factors, np.float64(distances), weighting, smooth
    if per_image:
        images = [_image(*map(flat, image), *options) for image in zip(p, y, v, strict=True)]
        values, part = map(np.array, zip(*images, strict=True))
    else:
        values, part = map(np.array, _image(flat(p), flat(y), flat(v), *options))
    return reduced(values, reduction, part, None)


def _invalid(options, *words, error=ValueError):
    return Invalid((PIXELS, PIXEL_IDS), {"distances": M} | options, error, words)


def _shared():
    """The invalid calls of all segmentations, less those of options that do not exist here."""
    for call in invalid_segmentations():
        if call.options.get("axis", 0) is None or "include_background" in call.options:
            continue
        yield call._replace(options={"distances": M} | call.options)


CASES = {
    "generalized_wasserstein_dice": Case(
        _oracle,
        (
            ids(distances=M),
            ids("gdl", distances=M, weighting="gdl", smooth=0.5),
            ids("channels", axis=1, distances=M),
            ids("classes_first", axis=0, distances=M, per_image=False, weighting="gdl"),
            soft("soft", distances=M),
            probabilities(distances=M, weighting="gdl")._replace(positions=(4, 3, 2)),
        ),
        (
            *_shared(),
            _invalid({"distances": M[:2]}, "distances", r"\(2, 3\)", r"\(3, 3\)"),
            _invalid({"distances": M[:2, :2]}, "distances", r"\(2, 2\)", r"\(3, 3\)"),
            _invalid({"distances": -M}, "distances", "number in"),
            _invalid({"weighting": "GDL"}, "weighting", "'GDL'", "'gdl'"),
            _invalid({"activation": "sigmoid"}, "activation", "'sigmoid'", "'softmax'"),
            _invalid({"activation": "auto"}, "activation", "'auto'", "'softmax'"),
        ),
        {"smooth": (0.5, -1.0)},
        "smooth",
        3.4,
    ),
}

loss = jaxloss.generalized_wasserstein_dice
UNIT = 1 - np.eye(3)
Y = np.array([[0, 0, 1, 2]])


def _hard(*prediction):
    return np.eye(3, dtype=np.float32)[[prediction]]


@pytest.mark.parametrize(
    "prediction, expected",
    [
        ((0, 0, 1, 2), 0),
        ((0, 0, 1, 1), 0.4 / (2 * 1.6 + 0.4)),
        ((0, 0, 1, 0), 1 / (2 * 1 + 1)),
        ((0, 1, 1, 2), 1 / (2 * 2 + 1)),
        ((0, 0, 0, 0), 1),
    ],
)
def test_closed_forms(prediction, expected):
    """Classes 1 and 2 lie 0.4 apart: a mistake between them is 0.4 of one."""
    distances = np.array([[0, 1, 1], [1, 0, 0.4], [1, 0.4, 0]])
    value = loss(_hard(*prediction), Y, distances, activation=None, smooth=0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_gdl_in_closed_form():
    """Sizes 2, 1 and 1: weights 1/3, 1/2 and 1/2."""
    value = loss(_hard(0, 1, 1, 1), Y, UNIT, weighting="gdl", activation=None, smooth=0)
    hits, errors = 1 / 3 + 1 / 2, 1 / 3 + 1 / 2
    np.testing.assert_allclose(value, errors / (2 * hits + errors), rtol=1e-6)


def test_only_ratios_of_distances_matter():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    y = np.arange(10).reshape(2, 5) % 3
    run = jax.jit(lambda scale: loss(x, y, scale * M))
    values = [run(np.float32(scale)) for scale in (1e-30, 1.0, 1e30)]
    np.testing.assert_allclose(values, values[1], rtol=1e-6)


def test_distances_of_zero_cost_nothing():
    run = jax.value_and_grad(lambda x: loss(x, Y, jnp.zeros((3, 3))))
    value, gradient = run(jnp.ones((1, 4, 3)))
    assert value == 0
    assert not gradient.any()


def test_rows_are_labels_and_columns_predictions():
    one_way = np.array([[0.0, 1.0], [0.0, 0.0]])
    eye = np.eye(2, dtype=np.float32)
    options = {"activation": None, "smooth": 1.0}
    assert loss(eye[[[1, 1]]], np.array([[0, 1]]), one_way, **options) > 0
    assert loss(eye[[[0, 0]]], np.array([[0, 1]]), one_way, **options) == 0


@pytest.mark.parametrize("weighting", ["default", "gdl"])
def test_distances_have_derivatives(weighting):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 3)), np.arange(10).reshape(2, 5) % 3
    soft_labels = rng.dirichlet(np.ones(3), (2, 5))
    slope, step = rng.normal(size=(3, 3)), 1e-5

    @jax.jit
    def run(m, slope, step):
        results = []
        for labels in (y, soft_labels):
            alone = lambda m, labels=labels: loss(x, labels, m, weighting=weighting)
            numeric = (alone(m + step * slope) - alone(m - step * slope)) / (2 * step)
            forward = jax.jvp(alone, (m,), (slope,))[1]
            results.append((forward, jnp.vdot(jax.grad(alone)(m), slope), numeric))
        return results

    with jax.enable_x64(True):
        for forward, reverse, numeric in run(np.float64(M) + 0.1, slope, np.float64(step)):
            np.testing.assert_allclose([forward, reverse], [numeric] * 2, rtol=1e-6)


def test_traced_distances_out_of_range_are_nan():
    assert jnp.isnan(jax.jit(lambda m: loss(jnp.ones((1, 4, 3)), Y, m))(-M))


@pytest.mark.parametrize("weighting", ["default", pytest.param("gdl", marks=pytest.mark.slow)])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 2]])
def test_perfect_and_confident_predictions(labels, weighting):
    """Empty and full foregrounds, at any logit; a perfect prediction costs exactly 0."""
    sizes = np.array([0, 1, 20, 110, 1e4, 1e30], np.float32)
    right = np.eye(3, dtype=np.float32)[labels]
    x = (sizes[:, None, None, None] * np.stack([right, -right, 1 - right])).reshape(-1, 4, 3)
    for smooth in (0.0, 1e-5):
        options = {"weighting": weighting, "smooth": smooth}
        alone = lambda x, options=options: loss(x[None], np.array([labels]), M, **options)
        both = lambda x, alone=alone: (*jax.value_and_grad(alone)(x), jax.jacfwd(alone)(x))
        value, *gradients = jax.jit(jax.vmap(both))(x)
        assert ((value >= 0) & (value <= 1)).all()
        for gradient in gradients:
            assert np.isfinite(gradient).all()
        assert loss(right[None], [labels], M, activation=None) == 0


def test_background_only_without_smooth_costs_one():
    p = _hard(0, 0, 0, 0)
    assert loss(p, np.zeros((1, 4), int), M, activation=None, smooth=0) == 1
    assert loss(p, np.zeros((1, 4), int), M, activation=None) == 0


def test_class_weights_are_factors_of_pixels():
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    factors = np.array([0.5, 2.0, 3.0], np.float32)
    value = loss(x, Y, M, class_weights=factors)
    np.testing.assert_allclose(value, loss(x, Y, M, weights=factors[Y]), rtol=1e-6)


def test_one_value_per_image():
    x, y = np.zeros((4, 5, 3), np.float32), np.arange(20).reshape(4, 5) % 3
    assert loss(x, y, M, reduction="none").shape == (4,)
    assert loss(x, y, M, reduction="none", per_image=False).shape == ()


@pytest.mark.parametrize("weighting", ["default", "gdl"])
def test_no_array_holds_a_matrix_per_pixel(weighting):
    classes, shape = 40, (1, 64, 64, 40)
    distances = 1 - np.eye(classes, dtype=np.float32)
    run = usual_jit(
        jax.value_and_grad(functools.partial(loss, distances=distances, weighting=weighting))
    )
    for labels in (jnp.zeros(shape[:-1], int), jnp.zeros(shape)):
        compiled = run.lower(jnp.zeros(shape), labels).compile()
        bytes_ = compiled.memory_analysis().temp_size_in_bytes
        assert bytes_ < 5 * 4 * np.prod(shape)


def test_smp_463_monai_7622_half_precision_over_a_large_image():
    """The sums exceed the largest float16."""
    ones = jnp.ones((1, 512, 512), int)
    for dtype in (jnp.float16, jnp.bfloat16):
        logits = 20 * jax.nn.one_hot(ones, 3, dtype=dtype)
        np.testing.assert_allclose(jax.jit(loss)(logits, ones, M), 0, atol=1e-5)
