"""Generalised Dice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    pixel_weight,
    probabilities_of,
)
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, reduced, soft


def _image(p, y, v, factors, weighting, smooth, k, present_only):
    """The loss of one image, its pixels in the first axis and its classes in the second."""
    size = (v * y).sum(0)
    present = size > 0
    with np.errstate(divide="ignore"):
        w = {"square": 1 / size**2, "simple": 1 / size, "uniform": np.ones(size.shape)}[weighting]
    w = np.where(np.isinf(w), w[np.isfinite(w)].max(initial=0), w) * factors
    if present_only:
        w = np.where(present, w, 0)
    overlap = (w * (v * p * y).sum(0)).sum()
    score = (2 * overlap + smooth) / ((w * (v * (p + y)).sum(0)).sum() + smooth)
    part = present if present_only else v.sum(0) > 0
    return 1 - score / (1 + k * (1 - score)), part.any()


def _oracle(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="auto",
    per_image=True,
    include_background=True,
    absent="score",
    weighting="square",
    smooth=1e-5,
    k=0.0,
):
    p, y = probabilities_of(prediction, target, activation, axis)
    v = pixel_weight(where, weights, p, axis)
    factors = np.ones(p.shape[-1]) if class_weights is None else class_weights
    if not include_background:
        p, y, v, factors = p[..., 1:], y[..., 1:], v[..., 1:], factors[1:]
    options = factors, weighting, smooth, k, absent == "skip"
    flat = lambda x: x.reshape(-1, x.shape[-1])
    if per_image:
        images = [_image(*map(flat, image), *options) for image in zip(p, y, v, strict=True)]
        values, part = map(np.array, zip(*images, strict=True))
    else:
        values, part = map(np.array, _image(flat(p), flat(y), flat(v), *options))
    return reduced(values, reduction, part, None)


_INVALID = (
    *invalid_segmentations(),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
    Invalid(
        (PIXELS, PIXEL_IDS),
        {"weighting": "cubic"},
        ValueError,
        ("weighting", "'cubic'", "'simple'"),
    ),
)

CASES = {
    "generalized_dice": Case(
        _oracle,
        (
            ids(),
            elements(weighting="simple", smooth=0.5),
            ids("channels", axis=1, include_background=False, absent="skip"),
            ids("classes_first", axis=0, per_image=False, weighting="uniform"),
            soft("soft_softmax", activation="softmax", smooth=0.0),
            binary(),
        ),
        _INVALID,
        {"smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
    "penalty_generalized_dice": Case(
        functools.partial(_oracle, k=2.5),
        (
            ids(),
            elements(weighting="uniform", smooth=0.5),
            ids("classes_first", axis=0, per_image=False, include_background=False, k=0.7),
            probabilities(weighting="simple"),
        ),
        (
            *_INVALID,
            Invalid((PIXELS, PIXEL_IDS), {"k": -1.0}, ValueError, ("k", "-1.0", "number in")),
        ),
        {"k": (1.5, -1.0), "smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
}

LOSSES = tuple(CASES)
# Ten pixels: eight of the background, one of each other class, the last one missed.
Y = np.array([[0] * 8 + [1, 2]])
P = np.eye(3, dtype=np.float32)[[[0] * 8 + [1, 0]]]


@pytest.mark.parametrize(
    "weighting, wrong, right",
    [("square", 1 / 64 + 1, 16 / 64 + 2), ("simple", 1 / 8 + 1, 16 / 8 + 2), ("uniform", 2, 18)],
)
def test_monai_369_6765_the_weighting_matters(weighting, wrong, right):
    """Weights that stood in numerator and denominator of each class cancelled."""
    loss = jaxloss.generalized_dice(P, Y, activation=None, weighting=weighting, smooth=0)
    np.testing.assert_allclose(loss, wrong / (right + wrong), rtol=1e-6)
    for k in (0.0, 2.5):
        loss = jaxloss.penalty_generalized_dice(
            P, Y, k=k, activation=None, weighting=weighting, smooth=0
        )
        expected = (1 + k) * wrong / (right + (1 + k) * wrong)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_penalty_of_segloss_has_the_right_sign():
    """It is 0 at a perfect prediction, 1 at a wholly wrong one, and above generalised Dice."""
    labels = np.array([[0, 0, 1, 1]])
    right = np.eye(2, dtype=np.float32)[labels]
    options = {"activation": None, "smooth": 0}
    for share in (0.0, 0.3, 1.0):
        p = right * (1 - share) + (1 - right) * share
        plain = jaxloss.generalized_dice(p, labels, **options)
        loss = jaxloss.penalty_generalized_dice(p, labels, **options)
        np.testing.assert_allclose(loss, plain * 3.5 / (1 + 2.5 * plain), rtol=1e-6)
        assert loss > plain if 0 < share < 1 else loss == share


def test_segloss_optax_an_absent_class_does_not_swamp_the_others():
    """Its weight of 1e20 made every loss 0; here it is the largest of the others."""
    labels = np.array([[0] * 8 + [1, 1]])
    missed = np.eye(3, dtype=np.float32)[[[0] * 10]]
    loss = jaxloss.generalized_dice(missed, labels, activation=None, smooth=0)
    wrong, right = 2 / 64 + 2 / 4, 16 / 64
    np.testing.assert_allclose(loss, wrong / (wrong + right), rtol=1e-6)
    other = np.eye(3, dtype=np.float32)[[[0] * 8 + [2, 2]]]
    both = [
        jaxloss.generalized_dice(other, labels, activation=None, smooth=0, absent=absent)
        for absent in ("score", "skip")
    ]
    np.testing.assert_allclose(both, [1 / (1 + right), 0.5 / (0.5 + right)], rtol=1e-6)


@pytest.mark.parametrize("weighting", ["square", "simple", "uniform"])
@pytest.mark.parametrize("name", LOSSES)
def test_perfect_predictions_cost_exactly_nothing(name, weighting):
    """With classes present, one absent, and (independent classes) none at all."""
    y = np.array([[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 0]]], np.float32)
    run = jax.value_and_grad(
        lambda p: getattr(jaxloss, name)(p, y, activation=None, weighting=weighting)
    )
    value, gradient = jax.jit(run)(y)
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_target_without_any_class(name):
    """Weights of 0 cost nothing, whatever the prediction; skipped, the image takes no part."""
    y = np.zeros((2, 3, 2), np.float32)
    y[0, 0, 0] = 1
    p = np.full_like(y, 0.4)
    loss = functools.partial(getattr(jaxloss, name), p, y, activation=None)
    each = loss(reduction="none")
    assert each[0] > 0
    assert each[1] == 0
    np.testing.assert_allclose(loss(), each[0] / 2, rtol=1e-6)
    skipped = jaxloss.generalized_dice(p[:1], y[:1], activation=None, absent="skip")
    np.testing.assert_allclose(
        jaxloss.generalized_dice(p, y, activation=None, absent="skip"), skipped, rtol=1e-6
    )
    np.testing.assert_array_equal(loss(smooth=0, reduction="none")[1], 1)


@pytest.mark.parametrize("mass", [1e-10, 1e-25, 1e-37])
def test_an_almost_absent_class_does_not_overflow(mass):
    """Its weight, 1 / mass^2, exceeds the largest float32; the loss depends on it alone."""
    y = np.array([[[1.0, mass], [1.0, 0.0]]], np.float32)
    p = np.array([[[0.7, 0.0], [0.7, 0.0]]], np.float32)
    run = jax.jit(jax.value_and_grad(lambda p: jaxloss.generalized_dice(p, y, activation=None)))
    value, gradient = run(p)
    np.testing.assert_allclose(value, 1, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_monai_3917_class_weights_are_factors_of_the_weights():
    factors = np.array([0.0, 2.0, 1.0], np.float32)
    options = {"activation": None, "smooth": 0, "class_weights": factors}
    wrong, right = 1.0, 4.0
    loss = jaxloss.generalized_dice(P, Y, **options)
    np.testing.assert_allclose(loss, wrong / (wrong + right), rtol=1e-6)
    loss = jaxloss.generalized_dice(P, Y, include_background=False, **options)
    np.testing.assert_allclose(loss, wrong / (wrong + right), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_finite_at_any_logit(name):
    """Two classes, independent or competing, of any size."""
    sizes = np.array([0, 1e-30, 1, 20, 90, 110, 1e4, 1e30], np.float32)
    signs = np.array([[[1, 1]] * 3, [[-1, -1]] * 3, [[1, -1]] * 3, [[-1, 1], [1, -1], [-1, -1]]])
    x = (sizes[:, None, None, None] * signs.astype(np.float32)).reshape(-1, 3, 2)
    y = np.array([[[0, 0]] * 3, [[1, 1]] * 3, [[1, 0]] * 3, [[1, 0], [0, 1], [0, 1]]], np.float32)
    x, y = np.repeat(x, 4, 0), np.tile(y, (len(x), 1, 1))

    run = jax.jit(jax.vmap(lambda *row: tuple(_both_activations(name, *row))))
    for smooth in (0.0, 1e-5):
        for (value, gradient), forward in run(x, y, np.full(len(x), smooth, np.float32)):
            assert ((value >= 0) & (value <= 1)).all()
            assert np.isfinite(gradient).all()
            assert np.isfinite(forward).all()


def _both_activations(name, x, y, smooth):
    for activation in ("sigmoid", "softmax"):
        options = {"smooth": smooth, "activation": activation}
        loss = functools.partial(getattr(jaxloss, name), **options)
        alone = lambda x, loss=loss: loss(x[None], y[None])
        yield jax.value_and_grad(alone)(x), jax.jacfwd(alone)(x)


@pytest.mark.parametrize("name", LOSSES)
def test_smp_463_monai_7622_half_precision_over_a_large_image(name):
    """The sums, and the squares of the sizes, exceed the largest float16."""
    loss = jax.jit(lambda x, y: getattr(jaxloss, name)(x, y))
    half = jnp.concatenate([jnp.full((1, 512, 256), 0), jnp.full((1, 512, 256), 1)], -1)
    for dtype in (jnp.float16, jnp.bfloat16):
        logits = 20 * jnp.stack([1 - 2 * half, 2 * half - 1], -1).astype(dtype)
        np.testing.assert_allclose(loss(logits, half), 0, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_one_value_per_image(name):
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    y = np.arange(20).reshape(4, 5) % 3
    loss = functools.partial(getattr(jaxloss, name), x, y, reduction="none")
    assert loss().shape == (4,)
    assert loss(per_image=False).shape == ()
    images = getattr(jaxloss, name)(x, x > 0, axis=None, reduction="none")
    assert images.shape == (4,)
