"""Region losses: oracles, cases and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations, segmentation
from tests.registry import Case, Invalid, binary, elements, ids, probabilities, soft


def dice_oracle(total, p, y, smooth=1.0, squared=False):
    if squared == "counts":
        tp, fp, fn = total((p * y) ** 2), total((p * (1 - y)) ** 2), total(((1 - p) * y) ** 2)
        return 1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
    power = 2 if squared else 1
    return 1 - (2 * total(p * y) + smooth) / (total(p**power) + total(y**power) + smooth)


def _jaccard(total, p, y, smooth=1.0):
    overlap = total(p * y)
    return 1 - (overlap + smooth) / (total(p) + total(y) - overlap + smooth)


def _tversky(total, p, y, alpha=0.5, beta=0.5, smooth=1.0):
    tp = total(p * y)
    errors = alpha * total(p * (1 - y)) + beta * total((1 - p) * y)
    return 1 - (tp + smooth) / (tp + errors + smooth)


_INVALID = (
    *invalid_segmentations(),
    Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
    Invalid(
        (PIXELS, PIXEL_IDS),
        {"per_class": False, "absent": "skip"},
        ValueError,
        ("absent", "'skip'|\"skip\"", "per_class"),
    ),
)
_SAMPLES = (
    ids(),
    elements(),
    ids("channels", axis=1, include_background=False),
    ids("classes_first", axis=0, per_image=False),
    soft("soft_softmax", activation="softmax", smooth=0.0),
    binary(),
    probabilities(),
    ids("together", per_class=False, include_background=False),
)

CASES = {
    "dice": Case(
        segmentation(dice_oracle),
        (
            *_SAMPLES,
            ids("squared", squared=True),
            elements("counts", squared="counts", smooth=1e-5),
        ),
        (
            *_INVALID,
            Invalid(
                (PIXELS, PIXEL_IDS),
                {"squared": "twice"},
                ValueError,
                ("squared", "'twice'", "'counts'"),
            ),
        ),
        {"smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
    "jaccard": Case(
        segmentation(_jaccard), _SAMPLES, _INVALID, {"smooth": (0.5, -1.0)}, "smooth", 0.58
    ),
    "tversky": Case(
        segmentation(_tversky),
        (*_SAMPLES, ids("recall", alpha=0.3, beta=0.7)),
        (
            *_INVALID,
            Invalid(
                (PIXELS, PIXEL_IDS), {"alpha": -0.1}, ValueError, ("alpha", "-0.1", "number in")
            ),
            Invalid((PIXELS, PIXEL_IDS), {"beta": -0.1}, ValueError, ("beta", "-0.1", "number in")),
        ),
        {"alpha": (0.3, -1.0), "beta": (0.7, -1.0), "smooth": (0.5, -1.0)},
        "smooth",
        0.58,
    ),
}

P = jnp.array([[0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.9, 0.1, 0.0]])[None]
Y = jnp.array([[2, 0, 0]])


def test_tversky_with_equal_prices_is_dice_with_twice_the_smooth():
    halves = jaxloss.tversky(P, Y, activation=None, alpha=0.5, beta=0.5, smooth=0.7)
    np.testing.assert_allclose(halves, jaxloss.dice(P, Y, activation=None, smooth=1.4), 1e-6)


def test_tversky_with_unit_prices_is_jaccard():
    ones = jaxloss.tversky(P, Y, activation=None, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(ones, jaxloss.jaccard(P, Y, activation=None), 1e-6)


@pytest.mark.parametrize(
    "target, prediction, smooth, expected",
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.0, 1.0, 1.0, 1 - 1 / 5),
        (1.0, 0.0, 1.0, 1 - 1 / 5),
        (1.0, 1.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.5, 0.0, 1.0),
        (1.0, 1.0, 0.0, 0.0),
    ],
)
def test_dice_of_empty_and_full_masks(target, prediction, smooth, expected):
    p, y = jnp.full((1, 4), prediction), jnp.full((1, 4), target)
    loss = jaxloss.dice(p, y, axis=None, activation=None, smooth=smooth)
    np.testing.assert_allclose(loss, expected, 1e-6)


def test_absent_classes_can_be_skipped():
    scored, skipped = (
        jaxloss.dice(P, Y, activation=None, smooth=0.0, absent=a, reduction="none")[0]
        for a in ("score", "skip")
    )
    np.testing.assert_allclose(scored[1], 1.0)
    np.testing.assert_array_equal(skipped, scored.at[1].set(0.0))
    mean = jaxloss.dice(P, Y, activation=None, smooth=0.0, absent="skip")
    np.testing.assert_allclose(mean, (scored[0] + scored[2]) / 2, 1e-6)


def test_an_image_without_valid_pixels_takes_no_part():
    p, y = jnp.concatenate([P, 1 - P]), jnp.concatenate([Y, Y])
    where = jnp.array([[True] * 3, [False] * 3])
    alone = jaxloss.dice(P, Y, activation=None)
    np.testing.assert_allclose(jaxloss.dice(p, y, activation=None, where=where), alone, 1e-6)


def test_squared_dice_has_its_minimum_at_soft_targets():
    y = jnp.array([[0.2, 0.5, 0.9]])
    loss = lambda p: jaxloss.dice(p, y, axis=None, activation=None, squared=True)
    assert loss(y) == 0.0
    assert all(loss(jnp.clip(y + step, 0, 1)) > 0 for step in (-0.1, 0.1))


def test_all_classes_in_one_count():
    """Of two images that hold one class each; weights count the classes, as pixels would."""
    y = jnp.array([[0, 0, 0, 1], [2, 2, 0, 2]])
    p = jnp.array([[[0.8, 0.1, 0.1]] * 4, [[0.1, 0.2, 0.7]] * 4])
    of_all = lambda **options: jaxloss.dice(
        p, y, activation=None, smooth=0, per_class=False, reduction="none", **options
    )
    hits = np.array([2.5, 2.2])  # of four pixels, whose probabilities add up to 4
    np.testing.assert_allclose(of_all(), 1 - hits / 4, 1e-6)
    np.testing.assert_allclose(of_all(per_image=False), 1 - hits.sum() / 8, 1e-6)
    weights = jnp.array([1.0, 2.0, 0.0])
    hits, sums = np.array([2.4 + 0.2, 0.1]), np.array([3.2 + 0.8 + 3 + 2, 0.4 + 1.6 + 1])
    np.testing.assert_allclose(of_all(class_weights=weights), 1 - 2 * hits / sums, 1e-6)


@pytest.mark.parametrize("smooth", [1e-5, 1.0])
@pytest.mark.parametrize("pixels", [1000, 40000])
def test_gradient_of_an_absent_class_keeps_its_digits(pixels, smooth):
    """Twice `pixels` of probability 1/2 are wrong: with `w = pixels`, the loss is `w / (w + s)`."""
    x, y = jnp.zeros((1, 2 * pixels)), jnp.zeros((1, 2 * pixels))
    for loss, weight in ((jaxloss.dice, 1), (jaxloss.jaccard, 1), (jaxloss.tversky, 0.5)):
        slope = jax.grad(functools.partial(loss, labels=y, axis=None, smooth=smooth))(x)
        expected = weight * smooth / (weight * pixels + smooth) ** 2 / 4
        np.testing.assert_allclose(slope, np.full(x.shape, expected), rtol=2e-5)


@pytest.mark.parametrize("smooth", [1e-4, 1.0])
@pytest.mark.parametrize(
    "loss", [jaxloss.cldice, jaxloss.mcc, jaxloss.f_beta, jaxloss.boundary_dou]
)
def test_of_an_absent_class_others_keep_theirs(loss, smooth):
    """Against 64 bits of the same numbers; one image has the class, the other has not."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 24, 24)).astype(np.float32), np.zeros((2, 24, 24), np.float32)
    y[1, 8:16, 10:13] = 1
    run = jax.grad(functools.partial(loss, axis=None, smooth=smooth))
    slope = np.asarray(run(x, y))
    with jax.enable_x64(True):
        exact = np.asarray(run(x.astype(np.float64), y.astype(np.float64)))
    largest = np.abs(exact).max((1, 2))
    assert (largest > 0).all()
    assert (np.abs(slope - exact).max((1, 2)) < 1e-5 * largest).all()
