"""Hints of arrays that are sound, but hardly what was meant."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.validation.arrays import BAD, HARD, IDS, LOGITS, MASK, TURNED, X, normal, put, sharded

ONE_HOT = np.eye(4, dtype=np.float32)[IDS]
HINT = "adds up to 1, and labels of this shape are scored class by class, with a sigmoid; classes"


@pytest.mark.parametrize("name", ["focal", "dice", "boundary_dou", "dice_cross_entropy"])
def test_one_hot_labels_without_an_activation_get_a_hint(name):
    """It counts as nothing bad, under `jit` too."""
    shape = lambda x: np.moveaxis(x, -1, 1)
    report = jax.jit(functools.partial(jaxloss.validate, name, axis=1))(shape(X), shape(ONE_HOT))
    assert report.ok
    report.throw()
    sound, hint = str(report).splitlines()
    assert sound == f"jaxloss.{name}: all values are sound"
    assert hint.startswith(f"jaxloss.{name}: hint: every row of `labels` {HINT}")
    assert hint.endswith('`activation="softmax"`')


@pytest.mark.parametrize(
    "labels, options",
    [
        (ONE_HOT, {"activation": "softmax"}),
        (ONE_HOT, {"activation": "sigmoid"}),
        (ONE_HOT, {"axis": None}),
        (put(ONE_HOT, (1, 0, 0), 1), {}),
        (put(ONE_HOT, (1, 0), [0.5, 0.6, 0, 0]), {}),
        (put(ONE_HOT, (1, 0), [1.5, -0.5, 0, 0]), {}),
        (put(ONE_HOT, (1, 0), 0), {}),
        (ONE_HOT, {"where": np.zeros((2, 3), bool)}),
        (IDS, {}),
    ],
    ids=[
        *["softmax", "sigmoid", "binary", "two classes", "more than 1", "negative", "none"],
        *["nothing read", "ids"],
    ],
)
def test_other_labels_get_no_hint(labels, options):
    assert "hint" not in str(jaxloss.validate("focal", X, labels, **options))


def test_hints_look_at_what_is_read():
    """Beside the hint the line of a bad value stands; one class is no choice of several."""
    labels = put(ONE_HOT, (0, 2), 1)
    assert "hint" in str(jaxloss.validate("focal", X, labels, where=MASK))
    assert "hint" in str(jaxloss.validate("focal", X, ONE_HOT > 0))
    mixed = 0.7 * ONE_HOT + 0.3 * ONE_HOT[::-1]  # as of mixup, rounded
    assert "hint" in str(jaxloss.validate("focal", X, mixed))
    lines = str(jaxloss.validate("focal", normal(nan=(0, 0, 0)), ONE_HOT)).splitlines()
    assert ["`logits` is nan" in lines[0], "hint" in lines[1]] == [True, True]
    single = np.ones((2, 3, 1), np.float32)
    assert "hint" not in str(jaxloss.validate("focal", single, single))


def test_masks_of_one_class_whose_last_axis_is_taken_for_classes_get_a_hint():
    masks = np.ones((2, 6, 8), np.float32)
    report = jaxloss.validate("dice", masks, masks)
    assert report.ok
    assert "axis 2 of shape (2, 6, 8) is taken for 8 classes" in str(report)
    assert "`axis=None`" in str(report)
    assert "`axis=None`" in str(jaxloss.validate("lovasz_hinge", masks, masks))
    assert "`axis=None`" in str(jaxloss.validate("dice", masks, masks, activation="sigmoid"))
    for name, options in (("dice", {"axis": None}), ("binary_cross_entropy", {})):
        assert "hint" not in str(jaxloss.validate(name, masks, masks, **options))
    rows = np.ones((2, 6, 2), np.float32)  # pixels in a row and two classes
    assert "hint" not in str(jaxloss.validate("dice", rows, rows))


@pytest.mark.parametrize("name", ["dice", "boundary", "dice_cross_entropy"])
def test_an_image_taken_for_images_of_one_row_gets_a_hint(name):
    x, ids = np.zeros((3, 20, 40, 2), np.float32), np.zeros((3, 20, 40), np.int32)
    taken = "shape (20, 40, 2) is taken for 20 images of one row"
    report = jax.vmap(functools.partial(jaxloss.validate, name))(x, ids)
    assert report.ok.all()
    assert taken in str(report)
    assert taken in str(jaxloss.validate(name, x[0], ids[0]))
    assert "hint" not in str(jaxloss.validate(name, x, ids))
    assert "hint" not in str(jaxloss.validate(name, x[0, :4], ids[0, :4]))  # a batch of rows
    assert "hint" not in str(jaxloss.validate("focal", x[0], ids[0]))


@pytest.mark.parametrize("name", ["cross_entropy", "poly1", "dice"])
def test_a_softmax_of_one_class_gets_a_hint(name):
    """It is always 1, so that nothing would be learnt."""
    single = np.ones((2, 4, 5, 1), np.float32)
    options = {"activation": "softmax"} if name == "dice" else {}
    assert "has one class" in str(jaxloss.validate(name, single, single, **options))
    assert "has one class" not in str(jaxloss.validate("focal", single, single))


SURE = np.exp(X) / np.exp(X).sum(-1, keepdims=True)
COMPETING = ("cross_entropy", "softmax_focal", "focal", "dice", "boundary", "dice_cross_entropy")
ONE_BY_ONE = ("binary_cross_entropy", "sigmoid_focal", "dice", "focal", "lovasz_hinge")


@pytest.mark.parametrize("name", COMPETING)
def test_probabilities_that_get_a_softmax_again_get_a_hint(name):
    for axis in (-1, 1):
        scores = np.moveaxis(SURE, -1, axis)
        report = jax.jit(functools.partial(jaxloss.validate, name, axis=axis))(scores, IDS)
        assert report.ok
        assert "rows of `logits` add up to 1" in str(report)
        assert str(report).endswith("jnp.log(p)")
    assert "hint" not in str(jaxloss.validate(name, X, IDS))
    assert "hint" not in str(jaxloss.validate(name, jnp.log(SURE), IDS))
    assert "hint" not in str(jaxloss.validate(name, SURE - 0.5, IDS))  # rows that add up to -1
    far = np.concatenate([SURE] * 9, 1)
    far[1, -1, 0] = 1.5  # outside of the corner that is looked at first
    assert "hint" not in str(jaxloss.validate(name, far, np.concatenate([IDS] * 9, 1)))


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_probabilities_that_get_a_sigmoid_again_get_a_hint(name):
    p = (1 / (1 + np.exp(-X))).astype(np.float32)
    takes_them = "activation" in inspect.signature(getattr(jaxloss, name)).parameters
    instead = "pass `activation=None`" if takes_them else "pass jax.scipy.special.logit(p)"
    report = jaxloss.validate(name, p, HARD)
    assert report.ok
    assert str(report).endswith(
        f"all `logits` lie in [0, 1], as probabilities do, and they are taken for logits: {instead}"
    )
    sound = [X, np.zeros_like(X), HARD.astype(np.float32), 2 * p]
    for logits in sound:
        assert "taken for logits" not in str(jaxloss.validate(name, logits, HARD))
    if takes_them:
        assert "hint" not in str(jaxloss.validate(name, p, HARD, activation=None))


def test_hints_of_probabilities_look_at_what_is_read():
    broken = put(SURE, (0, 2), 7)
    assert "add up" not in str(jaxloss.validate("focal", broken, IDS))
    assert "add up" in str(jaxloss.validate("focal", broken, IDS, where=MASK))
    report = jax.vmap(functools.partial(jaxloss.validate, "focal"))(
        np.stack([X, SURE]), np.stack([IDS, IDS])
    )
    np.testing.assert_array_equal(report.hints[-1].applies, [False, True])


def test_probabilities_of_a_teacher_get_a_hint():
    assert "of `teacher_logits` add up" in str(jaxloss.validate("distillation", X, SURE))
    assert "hint" not in str(jaxloss.validate("distillation", X, X))


@pytest.mark.parametrize("log_probs, hint", [(X, True), (SURE, True), (np.log(SURE), False)])
def test_what_is_no_logarithm_of_a_probability_gets_a_hint(log_probs, hint):
    assert ("some `log_probs` are above 0" in str(jaxloss.validate("nll", log_probs, IDS))) == hint


def test_degrees_get_a_hint():
    boxes = np.abs(TURNED) % 3 + 0.1
    degrees = boxes * np.array([1, 1, 1, 1, 57.3], np.float32)
    assert "beyond a full turn" in str(jaxloss.validate("gwd", degrees, boxes))
    assert "hint" not in str(jaxloss.validate("gwd", boxes, boxes))
    masked = jaxloss.validate("gwd", degrees, boxes, where=np.zeros(len(boxes), bool))
    assert "hint" not in str(masked)


def test_visibilities_of_points_get_a_hint():
    points, areas = normal((2, 5, 3)), np.ones(2, np.float32)
    visible = np.array([[0, 2, 1, 0, 2]] * 2, np.float32)
    targets = np.concatenate([points[..., :2], visible[..., None]], -1)
    run = functools.partial(jaxloss.validate, "keypoint_similarity")
    assert "as COCO's visibility is" in str(run(points, targets, areas, 0.1))
    for sound in (points, put(points, (..., 2), 0)):  # in space, or all in one plane
        assert "hint" not in str(run(points, sound, areas, 0.1))
    assert "hint" not in str(run(points[..., :2], targets[..., :2], areas, 0.1))


def test_logarithms_of_depths_get_a_hint():
    depths = np.exp(X[..., 0])
    found = jaxloss.validate("scale_invariant_log", np.log(depths), depths)
    assert "`predictions` that are not above 0 are left out" in str(found)
    unknown = np.where(depths > 1, depths, 0)  # no depth where the logarithm is not above 0
    for predicted, known in ((depths, depths), (np.log(depths), unknown)):
        assert "hint" not in str(jaxloss.validate("scale_invariant_log", predicted, known))


def test_hints_of_mapped_and_sharded_calls():
    labels = np.eye(4, dtype=np.float32)[BAD % 4]
    report = jax.vmap(functools.partial(jaxloss.validate, "focal"))(LOGITS, put(labels, (5, 1), 1))
    np.testing.assert_array_equal(report.hints[0].applies, np.arange(8) != 5)
    assert sharded("batch")(LOGITS, labels).hints[0].applies
    assert not sharded("batch")(LOGITS, put(labels, (5, 1), 1)).hints[0].applies
