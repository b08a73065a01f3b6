import json
import pathlib
import sys
import types

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, jaccard_score

from tests.detections import CLASSES, SEEDS, boxes_and_detections

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import metrics  # noqa: E402

GOLDEN = json.loads((pathlib.Path(__file__).parent / "goldens" / "metrics.json").read_text())
RNG = np.random.default_rng(0)
TRUTH, GUESS = RNG.integers(0, 4, (2, 3, 10, 10)) * 2  # no odd class anywhere


def test_confusion_matrix_and_iou_are_those_of_scikit_learn():
    found = metrics.confusion_matrix(TRUTH, GUESS, 8)
    pair = TRUTH.ravel(), GUESS.ravel()
    np.testing.assert_array_equal(found, confusion_matrix(*pair, labels=range(8)))
    iou = metrics.class_iou(found)
    np.testing.assert_allclose(iou[::2], jaccard_score(*pair, average=None))
    assert np.isnan(iou[1::2]).all()


def test_iou_counts_pixels():
    truth, predictions = np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 0]])
    iou = metrics.class_iou(metrics.confusion_matrix(truth, predictions, 4))
    np.testing.assert_allclose(iou, [1 / 3, 1 / 2, 0, np.nan])


def square(top, left, side=4, size=16):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("shift", [0, 1, 3, 7])
def test_hausdorff_95_of_a_shifted_line_is_the_shift(shift):
    """Against all pairs of points; only a line has every pixel as far away."""
    first, second = (square(2 + s, 0, 1) | square(2 + s, 1, 1) for s in (0, shift))
    assert metrics.hausdorff_95(first, second) == shift


def test_hausdorff_95_is_the_percentile_of_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = (square(*rng.integers(0, 9, 2), side) for side in rng.integers(1, 7, 2))
        outlines = [np.argwhere(_rim(mask)) for mask in (first, second)]
        apart = cdist(*outlines)
        expected = max(np.percentile(apart.min(axis), 95) for axis in (0, 1))
        found = metrics.hausdorff_95(first, second)
        np.testing.assert_allclose(found, expected)
        assert found == metrics.hausdorff_95(second, first)


def _rim(mask):
    """The pixels of a mask with a face neighbour outside of it."""
    padded = np.pad(mask, 1)
    near = [np.roll(padded, step, axis) for axis in (0, 1) for step in (1, -1)]
    return mask & ~np.logical_and.reduce(near)[1:-1, 1:-1]


def test_one_stray_pixel_hardly_moves_the_95_percent_distance():
    line = np.zeros((32, 32), bool)
    line[10, :] = True
    stray = line.copy()
    stray[30, 30] = True
    assert metrics.hausdorff_95(stray, line) == 0
    stray[20:30, 30] = True
    assert metrics.hausdorff_95(stray, line) > 10


def test_empty_masks_have_a_distance():
    empty, one = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert metrics.hausdorff_95(empty, empty) == 0
    for pair in ((empty, one), (one, empty)):
        assert metrics.hausdorff_95(*pair) == 5


@pytest.mark.parametrize("sharpness", [0.3, 3])
def test_calibration_error_is_the_weighted_gap_of_the_reliability_curve(sharpness):
    scores = sharpness * RNG.normal(size=(40, 50, 3))
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    labels = RNG.integers(0, 3, (40, 50))
    confidence, right = probabilities.max(-1).ravel(), (probabilities.argmax(-1) == labels).ravel()
    accuracy, sure = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    gaps = np.abs(accuracy - sure) @ counts[counts > 0] / len(right)
    np.testing.assert_allclose(metrics.calibration_error(probabilities, labels), gaps)


def test_calibration_error_of_certain_predictions_is_their_share_of_errors():
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert metrics.calibration_error(sure, np.array([0, 1, 2, 0])) == 0
    assert metrics.calibration_error(sure, np.array([0, 1, 1, 1])) == 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_is_that_of_pycocotools(seed):
    truth, found = boxes_and_detections(seed)
    precision = metrics.average_precision(
        metrics.Detections(**found), types.SimpleNamespace(**truth), CLASSES
    )
    expected = np.array(GOLDEN[str(seed)]["precision"])
    np.testing.assert_allclose(precision, np.where(expected < 0, np.nan, expected), rtol=1e-12)
    means = np.nanmean(precision), np.nanmean(precision[0])
    np.testing.assert_allclose(means, GOLDEN[str(seed)]["stats"], rtol=1e-12)


def test_average_precision_of_one_hit_after_a_miss():
    """The hit's precision of 1/2 holds at all recalls up to the half of the boxes that it finds."""
    truth = types.SimpleNamespace(
        boxes=np.array([[[0.0, 0, 4, 4], [8, 8, 9, 9]]]),
        labels=np.zeros((1, 2), int),
        valid=np.ones((1, 2), bool),
    )
    found = metrics.Detections(
        boxes=np.array([[[0.0, 0, 4, 3], [4, 4, 6, 6]]]),
        scores=np.array([[0.4, 0.6]]),
        labels=np.zeros((1, 2), int),
        valid=np.ones((1, 2), bool),
    )
    precision = metrics.average_precision(found, truth, 2)
    np.testing.assert_allclose(precision[:6, 0], 51 / 101 / 2)  # up to an IoU of 3/4
    assert not precision[6:, 0].any()
    assert np.isnan(precision[:, 1]).all()


def test_overlap_of_boxes_without_area_is_0():
    point, box = np.array([[1.0, 1, 1, 1]]), np.array([[0.0, 0, 2, 2]])
    assert metrics.pairwise_iou(point, point) == 0
    assert metrics.pairwise_iou(point, box) == 0
    assert metrics.pairwise_iou(box, box) == 1
