"""The arrays that the calls name: small, without ties, of three decimals, in NumPy alone."""

import numpy as np

# What a call is differentiated by: the first of these that it names.
PREDICTIONS = (
    "logits",
    "binary_logits",
    "probabilities",
    "log_probs",
    "features",
    "predictions",
    "boxes",
    "points",
    "depths",
    "pictures",
)


def wave(*shape, phase=0.0, scale=2.0):
    """Numbers between -scale and scale that look like noise."""
    steps = np.arange(np.prod(shape)) + phase
    return np.round(scale * np.sin(steps**1.5 + phase), 3).reshape(shape)


def share(*shape, phase=0.0):
    """Numbers between 0.05 and 0.95."""
    return np.round(0.5 + wave(*shape, phase=phase, scale=0.45), 3)


def one_hot(ids, classes, axis):
    return np.moveaxis(np.eye(classes)[ids], -1, axis)


def softmax(logits, axis):
    powers = np.exp(logits)
    return powers / np.sum(powers, axis, keepdims=True)


def with_last_axis(scene):
    """The same images with the class axis last."""
    return {name: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for name, a in scene.items()}


_LOGITS = wave(5, 4, phase=0.4)
_LABELS = np.array([2, 0, 3, 1, 2])
CLASSES = {
    "logits": _LOGITS,
    "log_probs": np.log(softmax(_LOGITS, 1)),
    "probabilities": softmax(_LOGITS, 1),
    "labels": _LABELS,
    "ignoring": np.array([2, -100, 3, 1, -100]),
    "one_hot": one_hot(_LABELS, 4, 1),
    "bits": np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0]], float),
    "soft": softmax(wave(5, 4, phase=0.7), 1),
    "teacher_logits": wave(5, 4, phase=2.2),
    "class_weights": np.array([0.5, 2.0, 1.5, 0.25]),
    "class_counts": np.array([40.0, 7.0, 1.0, 12.0]),
    "weights": share(5, 4, phase=1.9),
    "row_weights": np.array([1.0, 0.5, 0.0, 2.0, 0.25]),
    "features": wave(5, 6, phase=1.2),
    "kernel": wave(4, 6, phase=5.1),
}

VALUES = {
    "predictions": wave(5, 3, phase=0.6),
    "targets": wave(5, 3, phase=3.1),
    "counts": np.array([[0, 2, 1], [3, 0, 5], [1, 1, 0], [2, 4, 6], [0, 1, 3]], float),
    "variance": share(5, 3, phase=0.2),
    "signs": np.array([[1, -1, 1], [-1, -1, 1], [1, 1, -1], [-1, 1, 1], [1, -1, -1]], float),
    "weights": share(5, 3, phase=1.1),
}

_IDS = np.array(
    [[[0, 0, 1, 1], [0, 2, 2, 1], [0, 0, 2, 1]], [[1, 1, 1, 0], [2, 1, 0, 0], [2, 2, 2, 2]]]
)
_IGNORING = _IDS.copy()
_IGNORING[0, 0, 1] = _IGNORING[0, 2, 2] = _IGNORING[1, 1, 1] = 255
_ABSENT = _IDS.copy()
_ABSENT[_ABSENT == 2] = 1
PIXELS = {
    "logits": wave(2, 3, 3, 4, phase=0.9),
    "probabilities": share(2, 3, 3, 4, phase=0.5),
    "labels": _IDS,
    "ignoring": _IGNORING,
    "absent": _ABSENT,
    "one_hot": one_hot(_IDS, 3, 1),
    "absent_one_hot": one_hot(_ABSENT, 3, 1),
    "masks": (wave(2, 3, 3, 4, phase=4.2) > 0).astype(float),
    "soft_masks": share(2, 3, 3, 4, phase=2.4),
    "class_weights": np.array([0.5, 1.5, 1.0]),
    "binary_logits": wave(2, 1, 3, 4, phase=1.7),
    "mask": (_IDS[:, None] == 1).astype(float),
    "mask_ignoring": np.where(_IGNORING == 255, 255, _IDS == 1)[:, None],
    "distances": np.array([[0.0, 1.0, 0.8], [0.9, 0.0, 0.5], [1.0, 0.4, 0.0]]),
    "valid": _IGNORING != 255,
    "pixel_weights": share(2, 3, 4, phase=0.8),
    "fine_labels": np.kron(_IDS, np.ones((1, 2, 2), int)),
    "skeleton_labels": np.where(wave(2, 3, 4, phase=3.3) > 0, _IDS, 0),
}

BOXES = {
    "boxes": np.array(
        [
            [10.0, 12.0, 34.0, 40.0],
            [5.0, 5.0, 21.0, 30.0],
            [40.0, 10.0, 61.0, 26.0],
            [8.0, 30.0, 30.0, 44.0],
            [20.0, 21.0, 29.0, 33.0],
        ]
    ),
    "target_boxes": np.array(
        [
            [12.0, 10.0, 36.5, 37.0],
            [9.0, 2.0, 24.0, 22.0],
            [43.0, 11.0, 66.0, 30.0],
            [50.0, 33.0, 64.0, 60.0],
            [18.0, 20.0, 33.0, 36.0],
        ]
    ),
    "weights": np.array([1.0, 0.5, 2.0, 1.5, 0.25]),
}

_QUALITY = np.where(one_hot(np.array([2, 0, 3, 1, 2]), 4, 1) > 0, share(5, 4, phase=1.3), 0.0)
_QUALITY[1] = _QUALITY[3] = 0
DETECTIONS = {
    "logits": wave(5, 4, phase=0.4),
    "probabilities": share(5, 4, phase=0.3),
    "labels": np.array([2, 4, 3, 4, 2]),
    "one_hot": (_QUALITY > 0).astype(float),
    "scores": _QUALITY.max(1),
    "quality": _QUALITY,
    "row_weights": np.array([1.0, 0.5, 0.0, 2.0, 0.25]),
    "bins": np.array([0.3, 1.7, 2.4, 0.9, 1.2]),
    "heatmap": np.where(_QUALITY > 0.4, 1.0, share(5, 4, phase=2.9)),
    "class_counts": np.array([40.0, 7.0, 1.0, 12.0]),
}

ROTATED = {
    "boxes": np.array([[30.0, 28.0, 24.0, 10.0, 0.3], [12.0, 15.0, 8.0, 20.0, -0.7]]),
    "target_boxes": np.array([[32.0, 26.0, 20.0, 12.0, 0.5], [14.0, 15.5, 9.0, 16.0, -0.4]]),
}

KEYPOINTS = {
    "points": 10 + wave(3, 4, 2, phase=0.3),
    "target_points": 10 + wave(3, 4, 2, phase=2.7),
    "visible": np.array([[1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0]], bool),
    "areas": np.array([40.0, 25.0, 90.0]),
    "sigmas": np.array([0.2, 0.35, 0.25, 0.5]),
}

DEPTHS = {
    "depths": 4 + wave(2, 3, 4, phase=0.6),
    "target_depths": 4 + wave(2, 3, 4, phase=1.8, scale=3.0),
}

_PICTURES = share(2, 1, 8, 8, phase=0.5)
PICTURES = {
    "pictures": _PICTURES,
    "target_pictures": np.round(_PICTURES + wave(2, 1, 8, 8, phase=2.9, scale=0.3), 3),
}

_CENTRES = np.array([0.5, 0.5, 0.8, 0.8]) + wave(2, 6, 4, phase=1.4, scale=0.1)
_CORNERS = np.array(
    [
        [[0.1, 0.2, 0.7, 0.9], [0.3, 0.1, 0.95, 0.6], [0.05, 0.35, 0.6, 0.8]],
        [[0.2, 0.15, 0.8, 0.7], [0.4, 0.3, 0.9, 0.95], [0.0, 0.0, 0.0, 0.0]],
    ]
)
SETS = {
    "logits": wave(2, 6, 5, phase=0.3),
    "predicted_boxes": _CENTRES,
    "mask_logits": wave(2, 6, 6, 5, phase=2.6, scale=4.0),
    "boxes": _CORNERS,
    "masks": wave(2, 3, 12, 10, phase=1.1) > 0.5,
    "labels": np.array([[2, 0, 3], [1, 2, 0]]),
    "valid": np.array([[True, True, True], [True, True, False]]),
}
SIGMOID_SETS = SETS | {"logits": SETS["logits"][..., :4]}

_CELLS = np.stack(np.meshgrid(np.arange(6), np.arange(4)), -1).reshape(-1, 2) * 8.0
_TRUTH = np.array(
    [
        [[3.0, 2.0, 29.0, 25.0], [20.0, 6.0, 41.0, 31.0], [1.0, 14.0, 15.0, 30.0]],
        [[11.0, 3.0, 33.0, 22.0], [25.0, 9.0, 47.0, 29.0], [0.0, 0.0, 0.0, 0.0]],
    ]
)
PLACES = {
    "logits": wave(2, 24, 4, phase=0.7) - 2,
    "deltas": wave(2, 24, 4, phase=1.9, scale=0.5),
    "distances": np.round(np.exp(wave(2, 24, 4, phase=2.3, scale=1.0)), 3),
    "centerness": wave(2, 24, phase=0.1),
    "anchors": np.concatenate([_CELLS - 8, _CELLS + 16], -1),
    "squares": np.concatenate([_CELLS, _CELLS + 8], -1),
    "points": _CELLS + 4,
    "strides": np.full(24, 8.0),
    "boxes": _TRUTH,
    "labels": np.array([[2, 0, 3], [1, 2, 0]]),
    "valid": np.array([[True, True, True], [True, True, False]]),
}

SCENES = {
    "classes": CLASSES,
    "values": VALUES,
    "pixels": PIXELS,
    "pixels_last": with_last_axis(PIXELS),
    "boxes": BOXES,
    "rotated": ROTATED,
    "detections": DETECTIONS,
    "keypoints": KEYPOINTS,
    "depths": DEPTHS,
    "pictures": PICTURES,
    "sets": SETS,
    "sigmoid_sets": SIGMOID_SETS,
    "places": PLACES,
}
