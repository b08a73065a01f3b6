"""Checks of values: each kind of finding, no finding on sound data, and every transform."""

import doctest
import functools
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from jaxloss import _report
from tests.compiling import usual_jit
from tests.registry import Helper, collect

HELPERS = {"validate": Helper(None, (), ())}

pytestmark = pytest.mark.xdist_group("validate")  # they share compiled programs

LOSSES = [
    name
    for name in jaxloss.__all__
    if "reduction" in inspect.signature(getattr(jaxloss, name)).parameters
    and name in collect()  # the tests of others stand beside them
]
ROOT = pathlib.Path(jaxloss.__file__).parent.parent
BATCH, REPLICATED = PartitionSpec("batch"), PartitionSpec()
NAN, INF = np.nan, np.inf


def _logits(shape=(2, 3, 4), **bad):
    """Logits with bad values at an index: `_logits(nan=(0, 1, 2))`."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for value, index in bad.items():
        values[index] = {"nan": NAN, "inf": INF, "removed": -INF}[value]
    return values


def _put(values, index, value):
    """A copy with another value."""
    values = np.array(values)
    values[index] = value
    return values


X, IDS = _logits(), np.array([[0, 1, 2], [3, 0, 1]], np.int32)
SHARES = np.full((2, 3, 4), 0.25, np.float32)
UNIT = np.full((2, 3, 4), 0.5, np.float32)
HARD = np.zeros((2, 3, 4), np.float32)
MASK = np.array([[True, True, False], [True, False, True]])
BOXES = np.array([[0, 0, 1, 2], [1, 1, 4, 3]], np.float32)
TURNED = np.array([[0, 0, 1, 2, 0.3], [1, 1, 4, 3, -9]], np.float32)
FINITE = "expected a finite number"

# Loss, arguments, options; count, first index, value and words of the first finding, or nothing.
FOUND = {
    "id above": ("focal", (X, _put(IDS, (1, 2), 4)), {}, 1, (1, 2), 4, "an id in [0, 4), or its"),
    "id below": ("dice", (X, _put(IDS, (0, 1), -1)), {}, 1, (0, 1), -1, "`labels` is -1 at"),
    "id in uint8": (
        "cross_entropy",
        (X, _put(IDS, np.s_[:, 1], 255).astype(np.uint8)),
        {},
        2,
        (0, 1),
        255,
        "the first of 2 bad values",
    ),
    "id not ignored": (
        "cross_entropy",
        (X, _put(_put(IDS, (0, 1), 255), (1, 0), 9)),
        {"ignore_index": 255},
        1,
        (1, 0),
        9,
        "an id in [0, 4)",
    ),
    "id one against the rest": ("sigmoid_focal", (X, IDS + 2), {}, 2, (0, 2), 4, "[0, 4)"),
    "id and class axis 1": (
        "cross_entropy",
        (np.moveaxis(X, -1, 1), _put(IDS, (1, 2), 7)),
        {"axis": 1},
        1,
        (1, 2),
        7,
        "[0, 4)",
    ),
    "NaN": ("focal", (_logits(nan=(1, 0, 2)), IDS), {}, 1, (1, 0, 2), NAN, FINITE),
    "infinity": (
        "jaccard",
        (_logits(inf=(1, 0, 2)), IDS),
        {},
        1,
        (1, 0, 2),
        INF,
        "`logits` is inf",
    ),
    "removed target": (
        "cross_entropy",
        (_logits(removed=(0, 1, 1)), IDS),
        {},
        1,
        (0, 1, 1),
        -INF,
        "without target mass",
    ),
    "removed share": (
        "kl_divergence",
        (_logits(removed=(0, 0, 0)), SHARES),
        {},
        1,
        (0, 0, 0),
        -INF,
        "",
    ),
    "removed positive": (
        "binary_cross_entropy",
        (_logits(removed=(0, 0, 0)), UNIT),
        {},
        1,
        (0, 0, 0),
        -INF,
        "",
    ),
    "removed bin": (
        "distribution_focal",
        (_logits(removed=(0, 0, 2)), np.full((2, 3), 1.5, np.float32)),
        {},
        1,
        (0, 0, 2),
        -INF,
        "",
    ),
    "log-probability": ("nll", (_logits(nan=(0, 0, 0)), IDS), {}, 1, (0, 0, 0), NAN, "`log_probs`"),
    "probability": (
        "dice",
        (_put(UNIT, (0, 0, 1), 1.25), UNIT),
        {"activation": None},
        1,
        (0, 0, 1),
        1.25,
        "a number in [0, 1]",
    ),
    "cosine": (
        "arcface",
        (_put(UNIT, (0, 2, 1), -1.25), IDS),
        {},
        1,
        (0, 2, 1),
        -1.25,
        "`cosines` is -1.25 at index (0, 2, 1) (1 bad value), expected a number in [-1, 1]",
    ),
    "target above": ("focal", (X, _put(UNIT, (1, 1, 1), 1.5)), {}, 1, (1, 1, 1), 1.5, "`labels`"),
    "target NaN": ("hinge", (X, _put(UNIT, (1, 1, 1), NAN)), {}, 1, (1, 1, 1), NAN, "[0, 1]"),
    "target -1": ("hinge", (X, _put(HARD, (1, 1, 1), -1).astype(int)), {}, 1, (1, 1, 1), -1, ""),
    "quality": ("varifocal", (X, _put(UNIT, (0, 0, 1), 2)), {}, 1, (0, 0, 1), 2, "`quality`"),
    "heatmap": ("gaussian_focal", (X, UNIT - 1), {}, 24, (0, 0, 0), -0.5, "`heatmap`"),
    "bin": (
        "distribution_focal",
        (X, _put(IDS, (1, 0), 4).astype(np.float32) - 0.5),
        {"where": IDS > 0},
        1,
        (1, 0),
        3.5,
        "`target` is 3.5 at index (1, 0) (1 bad value), expected a number in [0, 3]",
    ),
    "sum of shares": (
        "cross_entropy",
        (X, _put(SHARES, (1, 1, 3), 0.75)),
        {},
        1,
        (1, 1),
        1.5,
        "`labels.sum(-1)` is 1.5 at index (1, 1) (1 bad value), expected 1, as shares",
    ),
    "negative share": (
        "js_divergence",
        (X, _put(_put(SHARES, (0, 0, 0), -0.25), (0, 0, 1), 0.75)),
        {},
        1,
        (0, 0, 0),
        -0.25,
        "`targets`",
    ),
    "weight": ("focal", (X, IDS), {"weights": MASK - 0.5}, 2, (0, 2), -0.5, "a number in [0, inf)"),
    "weight of NaN": ("l2", (X, X), {"weights": _put(UNIT, (0, 1, 0), NAN)}, 1, (0, 1, 0), NAN, ""),
    "class weight": (
        "dice",
        (X, IDS),
        {"class_weights": np.float32([1, INF, -1, 1])},
        2,
        (1,),
        INF,
        "`class_weights`",
    ),
    "class counts": (
        "ldam",
        (X, IDS, np.float32([1, 2, -3, 4])),
        {},
        1,
        (2,),
        -3,
        "`class_counts`",
    ),
    "no priors": (
        "logit_adjusted",
        (X, IDS, np.zeros(4, np.float32)),
        {},
        1,
        (),
        0,
        "`priors.sum()` is 0.0 (1",
    ),
    "map": ("boundary", (X, IDS), {"distance_map": _put(X, (0, 0, 0), NAN)}, 1, (0, 0, 0), NAN, ""),
    "prediction": ("huber", (_logits(inf=(0, 0, 0)), X), {}, 1, (0, 0, 0), INF, "`predictions`"),
    "target of a regression": (
        "l1",
        (X, _logits(nan=(0, 0, 0))),
        {},
        1,
        (0, 0, 0),
        NAN,
        "`targets`",
    ),
    "variance": (
        "gaussian_nll",
        (X, X, _put(UNIT, (0, 0, 1), 0)),
        {},
        1,
        (0, 0, 1),
        0,
        "a number in (0, inf)",
    ),
    "point": (
        "keypoint_similarity",
        (_put(X, (0, 1, 2), NAN), X, np.ones(2, np.float32), np.float32(0.1)),
        {"where": np.ones((2, 1), bool), "weights": np.ones(X.shape[:2], np.float32)},
        1,
        (0, 1, 2),
        NAN,
        "`predictions`",
    ),
    "area": (
        "keypoint_similarity",
        (X, X, np.array([0, 1], np.float32), np.float32(0.1)),
        {},
        1,
        (0,),
        0,
        "`areas` is 0.0 at index (0,)",
    ),
    "count": ("poisson_nll", (X, _put(UNIT, (0, 0, 1), -1)), {}, 1, (0, 0, 1), -1, "`targets`"),
    "rate": (
        "poisson_nll",
        (_put(UNIT, (0, 0, 1), -1), UNIT),
        {"log_input": False},
        1,
        (0, 0, 1),
        -1,
        "`predictions` is -1.0 at",
    ),
    "mask": ("signed_distance_regression", (X, UNIT * 3), {}, 24, (0, 0, 0), 1.5, "`mask`"),
    "vector": (
        "cosine",
        (_logits(nan=(1, 1, 1)), X),
        {"where": MASK[:, [0]] | True},
        1,
        (1, 1, 1),
        NAN,
        "",
    ),
    "corners": ("giou", (BOXES[:, [0, 3, 2, 1]], BOXES), {}, 2, (0, 3), 0, "x2 >= x1 and y2 >= y1"),
    "side": ("ciou", (BOXES, -BOXES), {"format": "xywh"}, 4, (0, 2), -1, "width and height"),
    "side of a turned box": ("kfiou", (_put(TURNED, (1, 3), -3), TURNED), {}, 1, (1, 3), -3, ""),
    "angle": ("gwd", (TURNED, _put(TURNED, (1, 4), INF)), {}, 1, (1, 4), INF, "`target_boxes`"),
    # Sound:
    "removed class": ("cross_entropy", (_logits(removed=(0, 1, 0)), IDS), {}),
    "removed negative": ("binary_cross_entropy", (_logits(removed=(0, 1, 0)), HARD), {}),
    "integers": (
        "poisson_nll",
        (X, np.arange(24).reshape(X.shape)),
        {"weights": (IDS + 1)[..., None], "where": (IDS < 3)[..., None]},
    ),
    "rounded cosine": ("cosface", (_put(UNIT, (0, 0, 0), 1.0000002), IDS), {}),
    "removed cosine": ("cosface", (_put(UNIT, (0, 0, 3), -INF), IDS), {}),
    "huge logits": ("cross_entropy", (X * np.float32(1e38), IDS), {}),
    "rounded shares": ("cross_entropy", (X, SHARES.astype(jnp.bfloat16) + jnp.bfloat16(0.001)), {}),
    "boolean targets": ("dice", (X, UNIT > 0), {}),
    "hidden": (
        "focal",
        (_logits(nan=(0, 2, 1)), _put(IDS, (1, 1), -7)),
        {"where": MASK, "weights": np.where(MASK, 1, NAN)},
    ),
    "hidden image": (
        "dice",
        (_logits(nan=(0, 2, 1)), _put(IDS, (0, 1), -7)),
        {"where": np.array([[False], [True]]), "weights": np.array([[NAN], [1]])},
    ),
    "hidden elements": (
        "hinge",
        (_logits(nan=(0, 2, 1)), _put(IDS, (1, 1), -7)),
        {"where": np.broadcast_to(MASK[..., None], X.shape)},
    ),
    "hidden by ignore_index": ("focal", (_logits(nan=(0, 2, 1)), IDS), {"ignore_index": 2}),
    "hidden box": ("iou", (_put(BOXES, 1, NAN), BOXES), {"where": np.array([True, False])}),
    "hidden variance": (
        "gaussian_nll",
        (X, X, np.where(MASK, 1, -1)[..., None]),
        {"where": MASK[..., None]},
    ),
    "hidden object": (
        "keypoint_similarity",
        (_put(X, 0, NAN), X, np.array([0, 1], np.float32), np.float32(0.1)),
        {"where": np.array([[False], [True]])},
    ),
    "hidden shares": ("kl_divergence", (X, _put(SHARES, (0, 2), NAN)), {"where": MASK}),
    "shared weight": ("l1", (X, X), {"weights": np.ones((1, 3, 1)), "where": MASK[..., None]}),
    "nothing": ("focal", (X[:0], IDS[:0]), {}),
}


def _floats(tree):
    """NumPy's arrays, float64 in float32."""
    return jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, tree)


def _compiled(calls):
    """The reports of calls, by one program whose arguments are all arrays of the calls."""
    arrays = {
        key: (args, {k: v for k, v in options.items() if isinstance(v, np.ndarray)})
        for key, (_, args, options, *_) in calls.items()
    }

    def run(arrays):
        return {
            key: jaxloss.validate(calls[key][0], *args, **(calls[key][2] | options))
            for key, (args, options) in arrays.items()
        }

    run = jax.jit(run)
    return lambda change: jax.device_get(run(change(_floats(arrays))))


@functools.cache
def _found():
    return _compiled(FOUND)(lambda arrays: arrays)


@pytest.mark.parametrize("key", [key for key, row in FOUND.items() if len(row) > 3])
def test_finding(key):
    loss, _, _, count, index, value, words = FOUND[key]
    report = _found()[key]
    found = next(finding for finding in report.findings if finding.count)
    assert not report.ok
    assert (report.count, found.count, tuple(found.index)) == (count, count, index)
    np.testing.assert_equal(found.value.item(), value)
    with pytest.raises(
        ValueError, match=rf"^jaxloss\.{loss}: `{re.escape(found.argument)}"
    ) as error:
        report.throw()
    assert words in str(error.value)
    assert str(report).split(f"\njaxloss.{loss}: hint")[0] == str(error.value)
    assert (f" at index {index} (" in str(report)) == bool(index)
    assert "expected " in str(report)


@pytest.mark.parametrize("key", [key for key, row in FOUND.items() if len(row) == 3])
def test_sound(key):
    report = _found()[key]
    assert str(report) == f"jaxloss.{FOUND[key][0]}: all values are sound"
    assert report.ok
    report.throw()


def test_every_finding_has_a_line():
    report = jaxloss.validate("focal", _logits(nan=(0, 0, 0)), IDS + 4, weights=-1.0 * MASK)
    assert [line.split("`")[1] for line in str(report).splitlines()] == [
        "logits",
        "labels",
        "weights",
    ]


def test_a_weight_of_zero_hides_nothing():
    """Neither here nor in the loss: 0 times NaN is NaN."""
    call = (_logits(nan=(1, 2, 3)), IDS)
    weights = _put(np.ones(IDS.shape, np.float32), (1, 2), 0)
    assert not jaxloss.validate("focal", *call, weights=weights).ok
    assert jnp.isnan(jaxloss.focal(*call, weights=weights))


def test_one_bad_id_among_ten_million():
    ids = np.zeros(10_000_000, np.int32)
    ids[9_876_543] = 2
    logits = np.zeros((ids.size, 2), np.float32)
    report = jax.jit(functools.partial(jaxloss.validate, "cross_entropy"))(logits, ids)
    assert "`labels` is 2 at index (9876543,) (1 bad value)" in str(report)


# Hints.

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
        (_put(ONE_HOT, (1, 0, 0), 1), {}),
        (_put(ONE_HOT, (1, 0), [0.5, 0.6, 0, 0]), {}),
        (_put(ONE_HOT, (1, 0), [1.5, -0.5, 0, 0]), {}),
        (_put(ONE_HOT, (1, 0), 0), {}),
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
    labels = _put(ONE_HOT, (0, 2), 1)
    assert "hint" in str(jaxloss.validate("focal", X, labels, where=MASK))
    assert "hint" in str(jaxloss.validate("focal", X, ONE_HOT > 0))
    mixed = 0.7 * ONE_HOT + 0.3 * ONE_HOT[::-1]  # as of mixup, rounded
    assert "hint" in str(jaxloss.validate("focal", X, mixed))
    lines = str(jaxloss.validate("focal", _logits(nan=(0, 0, 0)), ONE_HOT)).splitlines()
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
    broken = _put(SURE, (0, 2), 7)
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
    points, areas = _logits((2, 5, 3)), np.ones(2, np.float32)
    visible = np.array([[0, 2, 1, 0, 2]] * 2, np.float32)
    targets = np.concatenate([points[..., :2], visible[..., None]], -1)
    run = functools.partial(jaxloss.validate, "keypoint_similarity")
    assert "as COCO's visibility is" in str(run(points, targets, areas, 0.1))
    for sound in (points, _put(points, (..., 2), 0)):  # in space, or all in one plane
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
    report = jax.vmap(functools.partial(jaxloss.validate, "focal"))(LOGITS, _put(labels, (5, 1), 1))
    np.testing.assert_array_equal(report.hints[0].applies, np.arange(8) != 5)
    assert _sharded("batch")(LOGITS, labels).hints[0].applies
    assert not _sharded("batch")(LOGITS, _put(labels, (5, 1), 1)).hints[0].applies


# Every loss, on the samples of its case.


@functools.cache
def _samples(every):
    rows = {}
    for name, case in collect().items():
        for sample in case.samples if every else case.samples[:1]:
            target = sample.target.astype(np.int32) if sample.has_ids else sample.target
            rows[name, sample.name] = (name, (sample.prediction, target), sample.options)
    return rows


@functools.cache
def _program():
    return _compiled(_samples(every=False))


@functools.cache
def _of_samples():
    return _program()(lambda arrays: arrays)


@functools.cache
def _of_broken_samples():
    def broken(arrays):
        return {
            key: ((_put(args[0], (-1,) * args[0].ndim, NAN), *args[1:]), options)
            for key, (args, options) in arrays.items()
        }

    return _program()(broken)


def _of_name(reports, name):
    return next(report for (loss, _), report in reports.items() if loss == name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_found_in_sound_data(name):
    assert str(_of_name(_of_samples(), name)) == f"jaxloss.{name}: all values are sound"


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_in_the_prediction_is_found(name):
    report = _of_name(_of_broken_samples(), name)
    first = report.findings[0]
    argument = next(iter(inspect.signature(getattr(jaxloss, name)).parameters))
    prediction = next(args[0] for loss, args, _ in _samples(False).values() if loss == name)
    assert (first.argument, first.count, report.count) == (argument, 1, 1)
    assert tuple(first.index + 1) == prediction.shape
    assert np.isnan(first.value)


@pytest.mark.slow
def test_nothing_is_found_in_any_sample():
    reports = _compiled(_samples(every=True))(lambda arrays: arrays)
    assert not [key for key, report in reports.items() if not report.ok]


# Transforms.

BAD = _put(np.zeros((8, 3), np.int32), (5, 1), 9)
LOGITS = _logits((8, 3, 4))


def test_vmap_counts_each_call():
    report = jax.jit(jax.vmap(functools.partial(jaxloss.validate, "focal")))(LOGITS, BAD)
    np.testing.assert_array_equal(report.ok, np.arange(8) != 5)
    with pytest.raises(ValueError, match=r"is 9 at index \(1,\) of call \(5,\) \(1 bad value\)"):
        report.throw()


def test_scan_and_derivatives_carry_reports():
    @jax.jit
    def run(pairs):
        def step(scale, pair):
            def loss(scale):
                x, ids = pair
                x = x * scale
                return jaxloss.focal(x, ids, where=ids < 4), jaxloss.validate("focal", x, ids)

            (_, report), gradient = jax.value_and_grad(loss, has_aux=True)(scale)
            return scale - gradient, report

        return jax.lax.scan(step, jnp.float32(1), pairs)

    scale, report = run((LOGITS, BAD))
    assert jnp.isfinite(scale)
    assert "is 9 at index (1,) of call (5,)" in str(report)


def _sharded(axis_name, wrap=lambda report: report, out=REPLICATED, **options):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))

    def run(*pair):
        return wrap(jaxloss.validate("focal", *pair, axis_name=axis_name, **options))

    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(BATCH, BATCH), out_specs=out))


def test_shard_map_counts_globally():
    """Also numbers that every shard holds, which count once."""
    weights = np.float32([1, 1, -1, -1])
    report = _sharded("batch", class_weights=jnp.asarray(weights))(LOGITS, BAD)
    assert "`labels` is 9 at index (1, 1) of shard 2 (1 bad value)" in str(report)
    weights = next(f for f in report.findings if f.argument == "class_weights")
    assert (weights.count, weights.index, weights.shard) == (2, 2, 0)
    report = _sharded("batch")(_put(LOGITS, (7, 0, 0), NAN), np.where(BAD == 0, -1, BAD))
    assert (report.findings[0].count, report.findings[0].shard) == (1, 3)
    assert "`labels` is -1 at index (0, 0) of shard 0 (the first of 24 bad values)" in str(report)
    assert _sharded("batch")(LOGITS, BAD * 0).ok


def test_shard_map_without_a_name_reports_of_each_shard():
    each = lambda report: jax.tree.map(lambda x: x[None], report)
    report = _sharded(None, each, BATCH)(LOGITS, BAD)
    np.testing.assert_array_equal(report.ok, [True, True, False, True])
    assert "is 9 at index (1, 1) of call (2,)" in str(report)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("spec", [("batch",), (None, None, "batch")], ids=str)
def test_mesh(kind, spec):
    """A maximum over devices drops a NaN: reductions here must not."""
    targets = _put(LOGITS, (3, 2, 1), NAN)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, PartitionSpec(*spec))
        pair = jax.device_put((LOGITS, targets), place)
        report = jax.jit(functools.partial(jaxloss.validate, "l1"))(*pair, weights=LOGITS**2)
    assert str(report).startswith("jaxloss.l1: `targets` is nan at index (3, 2, 1) (1 bad value)")
    assert report.count == 1


def test_export_and_no_callback():
    run = jax.jit(lambda *pair: jax.tree.leaves(jaxloss.validate("focal", *pair)))
    assert "callback" not in str(jax.make_jaxpr(run)(LOGITS, BAD))
    exported = jax.export.export(run, platforms=("cpu", "cuda", "rocm", "tpu"))(LOGITS, BAD)
    assert [x.tolist() for x in exported.call(LOGITS, BAD)] == [
        x.tolist() for x in run(LOGITS, BAD)
    ]


def test_half_precision_and_x64():
    logits = jnp.full((2, 3, 4), 6e4, jnp.float16)  # whose sum overflows
    assert jaxloss.validate("focal", logits, IDS).ok
    with jax.enable_x64(True):
        report = jaxloss.validate("l2", X, _put(X, (1, 2, 3), NAN).astype(np.float64))
        assert "`targets` is nan at index (1, 2, 3)" in str(report)
        assert {x.dtype for x in jax.tree.leaves(report.findings[0])} == {
            np.dtype(np.float32),
            np.dtype(np.int32),
        }


def test_arrays_too_large_for_one_index(monkeypatch):
    """Rows are then indexed apart; here 20 elements count as too many."""
    monkeypatch.setattr(_report, "_LIMIT", 20)
    shape = (5, 2, 2, 3)
    report = jaxloss.validate("l1", np.zeros(shape, np.float32), _logits(shape, nan=(3, 1, 0, 2)))
    assert "`targets` is nan at index (3, 1, 0, 2) (1 bad value)" in str(report)
    report = jaxloss.validate("l1", np.full(shape, NAN, np.float32), np.zeros(shape))
    assert "`predictions` is nan at index (0, 0, 0, 0) (the first of 20 bad" in str(report)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "nll"])
def test_checks_store_nothing(name):
    shapes = [jax.ShapeDtypeStruct((4, 64, 64, 21), jnp.float32)]
    shapes.append(jax.ShapeDtypeStruct((4, 64, 64), jnp.int32))
    run = usual_jit(functools.partial(jaxloss.validate, name))
    memory = run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert memory < 0.02 * 4 * np.prod(shapes[0].shape)


# Calls.


def test_throw_is_for_the_host():
    texts = []

    def run(*pair):
        report = jaxloss.validate("focal", *pair)
        texts.append(str(report))
        report.throw()

    with pytest.raises(TypeError, match=r"jaxloss.validate: `throw` is called while tracing, exp"):
        jax.eval_shape(run, X, IDS)
    assert texts == ["jaxloss.focal: not known while tracing"]


@pytest.mark.parametrize(
    "name, near",
    [
        ("focla", "'focal'"),
        ("crossentropy", "'cross_entropy'"),
        ("Dice", "'dice'"),
        ("smooth_labels", "expected the name of a loss"),
        ("?", "'cross_entropy' or 'dice'"),
    ],
)
def test_a_name_that_does_not_exist(name, near):
    with pytest.raises(
        ValueError, match=re.escape(f"jaxloss.validate: `loss` is {name!r}")
    ) as error:
        jaxloss.validate(name, X, IDS)
    assert near in str(error.value)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: 0.0,
        jaxloss.smooth_labels,
        jaxloss.weighted_sum({"dice": (1.0, jaxloss.dice)}),
        functools.partial(jnp.sum),
        3,
    ],
)
def test_what_is_no_loss_of_jaxloss(loss):
    with pytest.raises(
        TypeError, match=r"jaxloss.validate: `loss` is .*, expected a loss of jaxloss"
    ):
        jaxloss.validate(loss, X, IDS)


@pytest.mark.parametrize(
    "loss",
    [
        jaxloss.focal,
        functools.partial(jaxloss.focal, gamma=1.0),
        jax.jit(jaxloss.focal),
        jax.jit(functools.partial(jaxloss.focal, gamma=1.0), static_argnames="axis"),
    ],
)
def test_losses_given_as_functions(loss):
    assert str(jaxloss.validate(loss, X, IDS + 1)) == str(jaxloss.validate("focal", X, IDS + 1))


def test_options_of_a_partial_hold():
    ignoring = functools.partial(jaxloss.focal, ignore_index=4)
    assert jaxloss.validate(ignoring, X, IDS + 1).ok
    assert not jaxloss.validate(ignoring, X, IDS + 1, ignore_index=None).ok
    assert jaxloss.validate(functools.partial(jaxloss.focal, X), IDS).ok


@pytest.mark.parametrize(
    "call, options",
    [
        ((X, IDS[:1]), {}),
        ((X, IDS), {"gamma": -1.0}),
        ((X, IDS), {"weights": UNIT}),
        ((X, IDS), {"activation": "tanh"}),
        ((X, IDS), {"where": IDS}),
        ((X,), {}),
        ((X, IDS), {"bogus": 1}),
    ],
)
def test_structure_raises_as_in_the_loss(call, options):
    with pytest.raises((TypeError, ValueError)) as expected:
        jaxloss.focal(*call, **options)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        jaxloss.validate("focal", *call, **options)


def test_lists_and_scalars_are_taken():
    assert jaxloss.validate("focal", [[0.0, 1.0]], [1]).ok
    assert "`targets` is nan (1 bad value)" in str(jaxloss.validate("l2", 1.0, NAN))


def test_documentation():
    """Every line of docs/validation.md, the recipe with checkify among them."""
    path = str(ROOT / "docs" / "validation.md")
    results = doctest.testfile(
        path, module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted > 20
    assert not results.failed
