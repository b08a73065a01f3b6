"""Distance-penalised losses: oracles, cases, closed forms and what other code gets wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.boundary.maps import closeness, labelled, penalty, scored
from tests.boundary.test_hausdorff import INVALID_MAPS, loss_of
from tests.oracles import invalid_segmentations
from tests.registry import Case, Helper, Invalid, binary, elements, ids, probabilities, soft


@labelled
def _cross_entropy(labels, predicted, valid, sampling):
    return 1 + closeness(labels, sampling)


@scored
def _dice(total, p, y, valid, each, smooth=1e-5, normalized=True):
    w = 1 + each(penalty, (y > 0.5) & valid)
    size = total(w * p) + total(w * y) if normalized else total(p) + total(y)
    return 1 - (2 * total(w * p * y) + smooth) / (size + smooth)


CASES = {
    "distance_penalized_cross_entropy": Case(
        _cross_entropy,
        (
            ids(),
            ids("nchw", axis=1, sampling=(2.0, 0.5)),
            soft(activation="softmax"),
            binary(),
            probabilities(),
        ),
        (
            *(c for c in invalid_segmentations(None) if "include_background" not in c.options),
            *INVALID_MAPS[:2],
            Invalid(
                INVALID_MAPS[0].arguments,
                {"distance_map": np.zeros((2, 4))},
                ValueError,
                ("distance_map", r"\(2, 4\)", "logits", r"\(2, 4, 5\)"),
            ),
        ),
        {},
        "smooth",
        0.73,
    ),
    "distance_penalized_dice": Case(
        _dice,
        (
            ids(),
            ids("pooled", axis=1, include_background=True, per_image=False, sampling=(2.0, 0.5)),
            binary(normalized=False),
            elements(smooth=1.0),
        ),
        (
            *invalid_segmentations(),
            *INVALID_MAPS,
            Invalid(INVALID_MAPS[0].arguments, {"normalized": 2}, ValueError, ("normalized", "2")),
        ),
        {"smooth": (0.7, -1.0)},
        "smooth",
        4.25,
    ),
}


def _of_each(mask, axes=(-2, -1), sampling=1.0):
    return np.stack([penalty(image, np.broadcast_to(sampling, len(axes))) for image in mask])


_MASKS = np.random.default_rng(0).random((6, 5, 7)) < np.linspace(0, 1, 6)[:, None, None]

HELPERS = {
    "compute_edts_for_penalized_loss": Helper(
        _of_each,
        (((_MASKS,), {"sampling": np.array([2.0, 0.7])}), ((_MASKS,), {"sampling": np.ones(2)})),
        (
            Invalid((_MASKS.astype(int),), {}, TypeError, ("mask", "int", "bool")),
            Invalid((_MASKS,), {"axes": 3}, ValueError, ("axes", "3")),
            Invalid((_MASKS,), {"sampling": (1.0,)}, ValueError, ("sampling", "2 axes")),
        ),
    ),
}


def cube():
    """The articles' example: a cube of 3 in one of 7."""
    y = np.zeros((1, 7, 7, 7))
    y[:, 2:5, 2:5, 2:5] = 1
    return y


@pytest.mark.parametrize(
    "p, normalized, expected",
    [
        ("half", True, 0.838471),
        ("half", False, 0.732997),
        ("y", True, 0.0),
        ("y", False, -0.962963),
    ],
)
def test_dice_of_the_articles(p, normalized, expected):
    """DistBinaryDice, which returns minus the score: -0.267003, and -1.962963 if perfect."""
    y = cube()
    p = y if p == "y" else np.full(y.shape, 0.5)
    loss = loss_of("distance_penalized_dice", p, y, normalized=normalized)
    np.testing.assert_allclose(loss, [expected], rtol=2e-6, atol=1e-6)


def test_dice_is_exactly_zero_at_a_perfect_prediction_and_never_negative():
    """SegLoss DistBinaryDiceLoss: the weights of the numerator alone take it below -1."""
    masks = np.random.default_rng(0).random((64, 9, 9)) < np.linspace(0, 1, 64)[:, None, None]
    np.testing.assert_array_equal(loss_of("distance_penalized_dice", masks, masks), 0)
    p = np.random.default_rng(1).random(masks.shape)
    losses = loss_of("distance_penalized_dice", p, masks)
    assert ((losses >= 0) & (losses <= 1)).all()


@pytest.mark.parametrize(
    "mask",
    [np.zeros((4, 4)), np.ones((4, 4)), np.eye(4) * [1, 0, 0, 0], np.ones((4, 4)) * [0, 1, 0, 0]],
    ids=["empty", "full", "pixel", "line"],
)
def test_thin_and_trivial_masks_are_finite(mask):
    """SegLoss: 0/0 on every mask whose distances are all equal."""
    weights = jaxloss.compute_edts_for_penalized_loss(mask > 0)
    assert jnp.isfinite(weights).all()
    if 0 < mask.sum() < mask.size:
        np.testing.assert_array_equal(weights[mask > 0], 1)
    else:
        np.testing.assert_array_equal(weights, 0)
    p = np.full((1, 4, 4), 0.3)
    for name in CASES:
        assert jnp.isfinite(loss_of(name, p, mask[None])).all()


def test_weights_do_not_depend_on_which_side_is_the_mask():
    found, other = (jaxloss.compute_edts_for_penalized_loss(m) for m in (_MASKS, ~_MASKS))
    np.testing.assert_array_equal(found, other)


def test_the_map_is_used():
    """SegLoss DisPenalizedCE: computes it and returns the plain cross-entropy."""
    labels = np.zeros((1, 5, 5), int)
    labels[:, :, 2:] = 1
    logits = np.zeros((1, 5, 5, 2))
    loss = jaxloss.distance_penalized_cross_entropy(logits, labels, reduction="none")
    row = np.log(2) * np.array([1.0, 2.0, 2.0, 1.5, 1.0])
    np.testing.assert_allclose(loss, np.broadcast_to(row, (1, 5, 5)), 1e-6)


def test_one_image_is_not_squeezed():
    """SegLoss: a batch of one volume became 2-D slices, NaN where a slice is empty."""
    labels = np.zeros((1, 5, 5, 5), int)
    labels[:, 1:4, 1:4, 1:4] = 1
    logits = np.random.default_rng(0).normal(size=(1, 5, 5, 5, 2)).astype(np.float32)
    loss = jaxloss.distance_penalized_cross_entropy(logits, labels, reduction="none")
    two = (np.concatenate([x, x]) for x in (logits, labels))
    again = jaxloss.distance_penalized_cross_entropy(*two, reduction="none")
    np.testing.assert_array_equal(again, np.concatenate([loss, loss]))
    np.testing.assert_allclose(
        loss / jaxloss.cross_entropy(logits, labels, reduction="none"),
        1 + closeness(labels[0], np.ones(3))[None],
        1e-5,
    )


def test_maps_of_many_classes_may_be_those_of_each_class():
    """The map of a pixel's own class, one against the rest, is that of its label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (2, 4, 4)).repeat(3, 1).repeat(3, 2)
    logits = rng.normal(size=(2, 12, 12, 5)).astype(np.float32)
    masks = labels[..., None] == np.arange(5)
    of_classes = jaxloss.compute_edts_for_penalized_loss(masks, axes=(1, 2))
    of_pixels = np.take_along_axis(np.asarray(of_classes), labels[..., None], -1)[..., 0]
    expected = jaxloss.distance_penalized_cross_entropy(logits, labels)
    for given in (of_classes, of_pixels):
        loss = jaxloss.distance_penalized_cross_entropy(logits, labels, distance_map=given)
        np.testing.assert_allclose(loss, expected, 1e-6)
    for name in ("distance_penalized_dice",):
        loss = getattr(jaxloss, name)(logits, labels, distance_map=of_classes)
        np.testing.assert_allclose(loss, getattr(jaxloss, name)(logits, labels), 1e-6)


def test_an_image_of_one_label_has_the_plain_losses():
    logits = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    labels = np.ones((2, 4, 4), int)
    for name, plain, options in (
        ("distance_penalized_cross_entropy", "cross_entropy", {}),
        ("distance_penalized_dice", "dice", {"smooth": 1e-5, "include_background": False}),
    ):
        loss = getattr(jaxloss, name)(logits, labels)
        np.testing.assert_allclose(loss, getattr(jaxloss, plain)(logits, labels, **options), 1e-6)
