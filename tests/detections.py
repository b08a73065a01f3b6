"""True boxes and detections that a test and the script of its golden numbers make alike."""

import numpy as np

CLASSES = 4
SEEDS = range(4)
PICTURES, TRUE, FOUND = 12, 6, 20


def boxes_and_detections(seed):
    """Boxes near true ones and elsewhere, equal scores and repeated boxes among them.

    Class 2 is never detected where the seed is odd, class 3 has no true box where it is 3.
    """
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, 60, (PICTURES, TRUE, 2)), rng.uniform(4, 40, (PICTURES, TRUE, 2))
    boxes = np.concatenate([corner, corner + sides], -1).round(1)
    labels = rng.integers(0, CLASSES - (seed == 3), (PICTURES, TRUE))
    boxes[:, 1], labels[:, 1] = boxes[:, 0], labels[:, 0]  # two true boxes in one place
    valid = rng.random((PICTURES, TRUE)) < 0.8
    truth = {"boxes": boxes, "labels": labels, "valid": valid}

    near = rng.integers(0, TRUE, (PICTURES, FOUND))
    spread = rng.choice([0.0, 0.5, 2.0, 5.0], (PICTURES, FOUND, 1))
    moved = np.take_along_axis(boxes, near[..., None], 1)
    moved = moved + spread * rng.normal(size=(PICTURES, FOUND, 4))
    ordered = np.concatenate(
        [np.minimum(moved[..., :2], moved[..., 2:]), np.maximum(moved[..., :2], moved[..., 2:])], -1
    )
    guess = rng.integers(0, CLASSES, (PICTURES, FOUND))
    right = rng.random((PICTURES, FOUND)) < 0.8
    labels = np.where(right, np.take_along_axis(labels, near, 1), guess)
    valid = rng.random((PICTURES, FOUND)) < 0.9
    valid &= (labels != 2) | (seed % 2 == 0)
    scores = rng.random((PICTURES, FOUND)).round(1)
    return truth, {"boxes": ordered.round(2), "scores": scores, "labels": labels, "valid": valid}
