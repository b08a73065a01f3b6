"""Each kind of finding, and none in sound data."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.validation.arrays import (
    BOXES,
    FINITE,
    HARD,
    IDS,
    INF,
    MASK,
    NAN,
    SHARES,
    TURNED,
    UNIT,
    X,
    compiled,
    normal,
    put,
)

pytestmark = pytest.mark.xdist_group("validate")  # they share compiled programs


# Loss, arguments, options; count, first index, value and words of the first finding, or nothing.
FOUND = {
    "id above": ("focal", (X, put(IDS, (1, 2), 4)), {}, 1, (1, 2), 4, "an id in [0, 4), or its"),
    "id below": ("dice", (X, put(IDS, (0, 1), -1)), {}, 1, (0, 1), -1, "`labels` is -1 at"),
    "id in uint8": (
        "cross_entropy",
        (X, put(IDS, np.s_[:, 1], 255).astype(np.uint8)),
        {},
        2,
        (0, 1),
        255,
        "the first of 2 bad values",
    ),
    "id not ignored": (
        "cross_entropy",
        (X, put(put(IDS, (0, 1), 255), (1, 0), 9)),
        {"ignore_index": 255},
        1,
        (1, 0),
        9,
        "an id in [0, 4)",
    ),
    "id one against the rest": ("sigmoid_focal", (X, IDS + 2), {}, 2, (0, 2), 4, "[0, 4)"),
    "id and class axis 1": (
        "cross_entropy",
        (np.moveaxis(X, -1, 1), put(IDS, (1, 2), 7)),
        {"axis": 1},
        1,
        (1, 2),
        7,
        "[0, 4)",
    ),
    "NaN": ("focal", (normal(nan=(1, 0, 2)), IDS), {}, 1, (1, 0, 2), NAN, FINITE),
    "infinity": (
        "jaccard",
        (normal(inf=(1, 0, 2)), IDS),
        {},
        1,
        (1, 0, 2),
        INF,
        "`logits` is inf",
    ),
    "removed target": (
        "cross_entropy",
        (normal(removed=(0, 1, 1)), IDS),
        {},
        1,
        (0, 1, 1),
        -INF,
        "without target mass",
    ),
    "removed share": (
        "kl_divergence",
        (normal(removed=(0, 0, 0)), SHARES),
        {},
        1,
        (0, 0, 0),
        -INF,
        "",
    ),
    "removed positive": (
        "binary_cross_entropy",
        (normal(removed=(0, 0, 0)), UNIT),
        {},
        1,
        (0, 0, 0),
        -INF,
        "",
    ),
    "removed bin": (
        "distribution_focal",
        (normal(removed=(0, 0, 2)), np.full((2, 3), 1.5, np.float32)),
        {},
        1,
        (0, 0, 2),
        -INF,
        "",
    ),
    "log-probability": ("nll", (normal(nan=(0, 0, 0)), IDS), {}, 1, (0, 0, 0), NAN, "`log_probs`"),
    "probability": (
        "dice",
        (put(UNIT, (0, 0, 1), 1.25), UNIT),
        {"activation": None},
        1,
        (0, 0, 1),
        1.25,
        "a number in [0, 1]",
    ),
    "cosine": (
        "arcface",
        (put(UNIT, (0, 2, 1), -1.25), IDS),
        {},
        1,
        (0, 2, 1),
        -1.25,
        "`cosines` is -1.25 at index (0, 2, 1) (1 bad value), expected a number in [-1, 1]",
    ),
    "target above": ("focal", (X, put(UNIT, (1, 1, 1), 1.5)), {}, 1, (1, 1, 1), 1.5, "`labels`"),
    "target NaN": ("hinge", (X, put(UNIT, (1, 1, 1), NAN)), {}, 1, (1, 1, 1), NAN, "[0, 1]"),
    "target -1": ("hinge", (X, put(HARD, (1, 1, 1), -1).astype(int)), {}, 1, (1, 1, 1), -1, ""),
    "quality": ("varifocal", (X, put(UNIT, (0, 0, 1), 2)), {}, 1, (0, 0, 1), 2, "`quality`"),
    "heatmap": ("gaussian_focal", (X, UNIT - 1), {}, 24, (0, 0, 0), -0.5, "`heatmap`"),
    "bin": (
        "distribution_focal",
        (X, put(IDS, (1, 0), 4).astype(np.float32) - 0.5),
        {"where": IDS > 0},
        1,
        (1, 0),
        3.5,
        "`target` is 3.5 at index (1, 0) (1 bad value), expected a number in [0, 3]",
    ),
    "sum of shares": (
        "cross_entropy",
        (X, put(SHARES, (1, 1, 3), 0.75)),
        {},
        1,
        (1, 1),
        1.5,
        "`labels.sum(-1)` is 1.5 at index (1, 1) (1 bad value), expected 1, as shares",
    ),
    "negative share": (
        "js_divergence",
        (X, put(put(SHARES, (0, 0, 0), -0.25), (0, 0, 1), 0.75)),
        {},
        1,
        (0, 0, 0),
        -0.25,
        "`targets`",
    ),
    "weight": ("focal", (X, IDS), {"weights": MASK - 0.5}, 2, (0, 2), -0.5, "a number in [0, inf)"),
    "weight of NaN": ("l2", (X, X), {"weights": put(UNIT, (0, 1, 0), NAN)}, 1, (0, 1, 0), NAN, ""),
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
    "map": ("boundary", (X, IDS), {"distance_map": put(X, (0, 0, 0), NAN)}, 1, (0, 0, 0), NAN, ""),
    "prediction": ("huber", (normal(inf=(0, 0, 0)), X), {}, 1, (0, 0, 0), INF, "`predictions`"),
    "target of a regression": (
        "l1",
        (X, normal(nan=(0, 0, 0))),
        {},
        1,
        (0, 0, 0),
        NAN,
        "`targets`",
    ),
    "variance": (
        "gaussian_nll",
        (X, X, put(UNIT, (0, 0, 1), 0)),
        {},
        1,
        (0, 0, 1),
        0,
        "a number in (0, inf)",
    ),
    "point": (
        "keypoint_similarity",
        (put(X, (0, 1, 2), NAN), X, np.ones(2, np.float32), np.float32(0.1)),
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
    "count": ("poisson_nll", (X, put(UNIT, (0, 0, 1), -1)), {}, 1, (0, 0, 1), -1, "`targets`"),
    "rate": (
        "poisson_nll",
        (put(UNIT, (0, 0, 1), -1), UNIT),
        {"log_input": False},
        1,
        (0, 0, 1),
        -1,
        "`predictions` is -1.0 at",
    ),
    "mask": ("signed_distance_regression", (X, UNIT * 3), {}, 24, (0, 0, 0), 1.5, "`mask`"),
    "vector": (
        "cosine",
        (normal(nan=(1, 1, 1)), X),
        {"where": MASK[:, [0]] | True},
        1,
        (1, 1, 1),
        NAN,
        "",
    ),
    "corners": ("giou", (BOXES[:, [0, 3, 2, 1]], BOXES), {}, 2, (0, 3), 0, "x2 >= x1 and y2 >= y1"),
    "side": ("ciou", (BOXES, -BOXES), {"format": "xywh"}, 4, (0, 2), -1, "width and height"),
    "side of a turned box": ("kfiou", (put(TURNED, (1, 3), -3), TURNED), {}, 1, (1, 3), -3, ""),
    "angle": ("gwd", (TURNED, put(TURNED, (1, 4), INF)), {}, 1, (1, 4), INF, "`target_boxes`"),
    # Sound:
    "removed class": ("cross_entropy", (normal(removed=(0, 1, 0)), IDS), {}),
    "removed negative": ("binary_cross_entropy", (normal(removed=(0, 1, 0)), HARD), {}),
    "integers": (
        "poisson_nll",
        (X, np.arange(24).reshape(X.shape)),
        {"weights": (IDS + 1)[..., None], "where": (IDS < 3)[..., None]},
    ),
    "rounded cosine": ("cosface", (put(UNIT, (0, 0, 0), 1.0000002), IDS), {}),
    "removed cosine": ("cosface", (put(UNIT, (0, 0, 3), -INF), IDS), {}),
    "huge logits": ("cross_entropy", (X * np.float32(1e38), IDS), {}),
    "rounded shares": ("cross_entropy", (X, SHARES.astype(jnp.bfloat16) + jnp.bfloat16(0.001)), {}),
    "boolean targets": ("dice", (X, UNIT > 0), {}),
    "hidden": (
        "focal",
        (normal(nan=(0, 2, 1)), put(IDS, (1, 1), -7)),
        {"where": MASK, "weights": np.where(MASK, 1, NAN)},
    ),
    "hidden image": (
        "dice",
        (normal(nan=(0, 2, 1)), put(IDS, (0, 1), -7)),
        {"where": np.array([[False], [True]]), "weights": np.array([[NAN], [1]])},
    ),
    "hidden elements": (
        "hinge",
        (normal(nan=(0, 2, 1)), put(IDS, (1, 1), -7)),
        {"where": np.broadcast_to(MASK[..., None], X.shape)},
    ),
    "hidden by ignore_index": ("focal", (normal(nan=(0, 2, 1)), IDS), {"ignore_index": 2}),
    "hidden box": ("iou", (put(BOXES, 1, NAN), BOXES), {"where": np.array([True, False])}),
    "hidden variance": (
        "gaussian_nll",
        (X, X, np.where(MASK, 1, -1)[..., None]),
        {"where": MASK[..., None]},
    ),
    "hidden object": (
        "keypoint_similarity",
        (put(X, 0, NAN), X, np.array([0, 1], np.float32), np.float32(0.1)),
        {"where": np.array([[False], [True]])},
    ),
    "hidden shares": ("kl_divergence", (X, put(SHARES, (0, 2), NAN)), {"where": MASK}),
    "shared weight": ("l1", (X, X), {"weights": np.ones((1, 3, 1)), "where": MASK[..., None]}),
    "nothing": ("focal", (X[:0], IDS[:0]), {}),
}


@functools.cache
def _found():
    return compiled(FOUND)(lambda arrays: arrays)


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
    report = jaxloss.validate("focal", normal(nan=(0, 0, 0)), IDS + 4, weights=-1.0 * MASK)
    assert [line.split("`")[1] for line in str(report).splitlines()] == [
        "logits",
        "labels",
        "weights",
    ]


def test_a_weight_of_zero_hides_nothing():
    """Neither here nor in the loss: 0 times NaN is NaN."""
    call = (normal(nan=(1, 2, 3)), IDS)
    weights = put(np.ones(IDS.shape, np.float32), (1, 2), 0)
    assert not jaxloss.validate("focal", *call, weights=weights).ok
    assert jnp.isnan(jaxloss.focal(*call, weights=weights))


def test_powers_of_scales_have_no_positions():
    """The `weights` of `ms_ssim` are not those of pixels, of which a mask leaves some out."""

    @jax.jit
    def report(logits, labels, weights):
        return jaxloss.validate("ms_ssim", logits, labels, ignore_index=255, weights=weights)

    call = np.zeros((1, 24, 24, 3), np.float32), put(np.ones((1, 24, 24), np.int32), (0, 3, 4), 255)
    assert report(*call, np.float32([0.5, 0])).ok
    assert "`weights` is -1.0 at index (1,)" in str(report(*call, np.float32([2, -1])))
    assert "`weights.sum()` is 0.0" in str(report(*call, np.float32([0, 0])))


def test_one_bad_id_among_ten_million():
    ids = np.zeros(10_000_000, np.int32)
    ids[9_876_543] = 2
    logits = np.zeros((ids.size, 2), np.float32)
    report = jax.jit(functools.partial(jaxloss.validate, "cross_entropy"))(logits, ids)
    assert "`labels` is 2 at index (9876543,) (1 bad value)" in str(report)
