"""How good predictions are: the measures that the examples share, in NumPy and SciPy."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from scipy import ndimage

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU; the first is that of AP50
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision


class Boxes(Protocol):
    """N pictures with K slots for boxes: `[N, K, 4]` xyxy, and `[N, K]` labels and validity."""

    boxes: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


class Detections(NamedTuple):
    """What a detector finds in N pictures, in K slots each.

    Attributes:
      boxes: `[N, K, 4]` xyxy, in pixels.
      scores: `[N, K]`, higher is surer.
      labels: `[N, K]`, the classes.
      valid: `[N, K]` bool, whether the slot holds a detection.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


def confusion_matrix(truth: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts the positions of each true class (row) and predicted class (column), `[C, C]`."""
    pairs = np.bincount((truth * classes + predictions).ravel(), minlength=classes**2)
    return pairs.reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Returns each class's intersection over union, `[C]`, NaN for a class that is nowhere."""
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def hausdorff_95(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the 95 % Hausdorff distance between the outlines of two masks, in pixels.

    The larger of two 95th percentiles: of the distances of each outline's pixels to the other. 0
    where both masks are empty; the diagonal of the image where one is.
    """
    if not first.any() and not second.any():
        return 0.0
    if not first.any() or not second.any():
        return float(np.linalg.norm(first.shape))
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    away = [ndimage.distance_transform_edt(~outline) for outline in outlines]
    there, back = away[1][outlines[0]], away[0][outlines[1]]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Returns the expected calibration error of class probabilities `[..., C]` of ids `[...]`.

    Predictions are sorted by confidence, that of the most probable class, into bins of equal width;
    the error is the mean over predictions of how far a bin's confidence is from its accuracy.
    """
    confidence = probabilities.max(-1).ravel()
    right = (probabilities.argmax(-1) == labels).ravel()
    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    gaps = np.bincount(place, confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def average_precision(found: Detections, truth: Boxes, classes: int) -> np.ndarray:
    """Returns COCO's average precision at each IoU threshold and class, `[T, C]`.

    NaN for a class without a true box. The mean of all others is COCO's mAP, that of the first row
    AP50. Detections take true boxes by falling score, each the one that it overlaps most of those
    left; a detection without one is false. The precision, made to fall with the recall, is averaged
    over 101 recalls.
    """
    result = np.full((len(COCO_THRESHOLDS), classes), np.nan)
    for label in range(classes):
        wanted = truth.valid & (truth.labels == label)
        given = found.valid & (found.labels == label)
        if wanted.any():
            result[:, label] = _of_one_class(found, given, truth.boxes, wanted)
    return result


def _of_one_class(
    found: Detections, given: np.ndarray, boxes: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The average precision of one class's detections and boxes at each threshold, `[T]`."""
    scores, hits = [np.zeros(0)], [np.zeros((len(COCO_THRESHOLDS), 0), bool)]
    for n in np.flatnonzero(given.any(1)):
        order = np.argsort(-found.scores[n, given[n]], kind="stable")
        scores.append(found.scores[n, given[n]][order])
        overlaps = pairwise_iou(found.boxes[n, given[n]][order], boxes[n, wanted[n]])
        hits.append(np.stack([_matched(overlaps, least) for least in COCO_THRESHOLDS]))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.cumsum(np.concatenate(hits, 1)[:, order], 1)
    precision = right / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    reached = [np.searchsorted(row, RECALLS) for row in right / wanted.sum()]
    padded = np.pad(precision, ((0, 0), (0, 1)))  # a recall that is never reached counts 0
    return np.stack([row[at].mean() for row, at in zip(padded, reached, strict=True)])


def _matched(overlaps: np.ndarray, least: float) -> np.ndarray:
    """Which detections, sorted by falling score, take a box of their own: `[D]` of `[D, M]`."""
    left, taken = overlaps.copy(), np.zeros(len(overlaps), bool)
    for row in range(len(left)) if left.size else ():
        # Of equal ones COCO takes the last.
        best = left.shape[1] - 1 - np.argmax(left[row, ::-1])
        taken[row] = left[row, best] >= least
        if taken[row]:
            left[:, best] = -1
    return taken


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes `[D, 4]` and `[M, 4]`, xyxy, `[D, M]`; 0 where neither has area."""
    lower = np.maximum(first[:, None, :2], second[None, :, :2])
    upper = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.maximum(upper - lower, 0), -1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], -1) for boxes in (first, second)]
    either = areas[0][:, None] + areas[1][None] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
