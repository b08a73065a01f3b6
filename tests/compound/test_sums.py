"""Compound losses: oracles, cases and closed forms."""

import numpy as np

import jaxloss
from tests.distribution.test_cross_entropy import CASES as DISTRIBUTION
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations
from tests.region.test_overlap import CASES as REGION
from tests.registry import Case, Invalid, binary, elements, ids, probabilities


def _dice_cross_entropy(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="auto",
    dice_weight=1.0,
    cross_entropy_weight=1.0,
    label_smoothing=0.0,
    **options,
):
    shared = {
        "where": where,
        "weights": weights,
        "class_weights": class_weights,
        "reduction": reduction,
        "axis": axis,
    }
    dice = REGION["dice"].oracle(prediction, target, activation=activation, **shared, **options)
    entropy = {"label_smoothing": label_smoothing}
    competes = axis is not None and target.ndim < prediction.ndim
    if activation is None and competes:
        prediction = np.log(prediction)  # whose softmax is the prediction again
    elif not competes:
        entropy["activation"] = None if activation is None else "sigmoid"
    name = "cross_entropy" if competes else "binary_cross_entropy"
    part = DISTRIBUTION[name].oracle(prediction, target, **shared, **entropy)
    return dice_weight * dice + cross_entropy_weight * part


CASES = {
    "dice_cross_entropy": Case(
        _dice_cross_entropy,
        (
            ids(),
            elements(),
            ids("weighted", dice_weight=0.3, cross_entropy_weight=2.0, label_smoothing=0.1),
            ids("channels", axis=1, include_background=False),
            binary(),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            Invalid(
                (PIXELS, PIXEL_IDS),
                {"reduction": "none"},
                ValueError,
                ("reduction", "'none'", "'mean'"),
            ),
            Invalid(
                (PIXELS, PIXEL_IDS), {"dice_weight": -1.0}, ValueError, ("dice_weight", "-1.0")
            ),
        ),
        {
            "dice_weight": (0.5, -1.0),
            "cross_entropy_weight": (0.5, -1.0),
            "smooth": (0.5, -1.0),
            "label_smoothing": (0.1, 1.5),
        },
        "smooth",
        5.6,
    ),
}


def test_dice_cross_entropy_is_the_sum_of_its_parts():
    sample = ids()
    x, y = sample.prediction.astype(np.float32), sample.target
    np.testing.assert_allclose(
        jaxloss.dice_cross_entropy(x, y, dice_weight=0.5, cross_entropy_weight=2.0),
        0.5 * jaxloss.dice(x, y) + 2.0 * jaxloss.cross_entropy(x, y),
        1e-6,
    )


def test_dice_cross_entropy_of_competing_probabilities():
    sample = ids()
    x = sample.prediction.astype(np.float32)
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        jaxloss.dice_cross_entropy(p, sample.target, activation=None, label_smoothing=0.1),
        jaxloss.dice_cross_entropy(x, sample.target, label_smoothing=0.1),
        1e-5,
    )
