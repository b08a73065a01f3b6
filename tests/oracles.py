"""What the oracles and the invalid calls of several families share."""

import numpy as np
from scipy.special import expit, softmax

from tests.registry import Invalid, dense, reduced

# Shapes of the invalid calls: a classification, and a segmentation of rows of four pixels.
X, IDS = np.zeros((2, 3)), np.zeros(2, int)
PIXELS, PIXEL_IDS = np.zeros((2, 4, 3)), np.zeros((2, 4), int)


def shaped(class_weights, prediction, axis):
    """One number per class, to broadcast against the prediction; None: 1."""
    if class_weights is None:
        return np.ones((1,) * prediction.ndim)
    at = axis % prediction.ndim
    return class_weights.reshape([-1 if i == at else 1 for i in range(prediction.ndim)])


def competing(cost):
    """The oracle of a loss `sum_c w_c t_c cost(p_c)`, its targets smoothed over the classes."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        label_smoothing=0.0,
        **options,
    ):
        y = dense(target, prediction, axis)
        t = (1 - label_smoothing) * y + label_smoothing / prediction.shape[axis]
        w = shaped(class_weights, prediction, axis)
        loss, extra = cost(prediction, axis, **options)
        v = (w * y).sum(axis)
        return reduced((w * t * loss).sum(axis) + v * extra, reduction, where, weights, v)

    return oracle


def independent(cost):
    """The oracle of a loss of each probability, its target smoothed towards 1/2."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        label_smoothing=0.0,
        activation="sigmoid",
        **options,
    ):
        p = prediction if activation is None else expit(prediction)
        y = dense(target, prediction, axis)
        t = y * (1 - label_smoothing) + label_smoothing / 2
        w = 1.0 if class_weights is None else shaped(class_weights, prediction, axis)
        if where is not None and where.ndim < prediction.ndim:
            where = np.expand_dims(where, axis)
        if weights is not None and weights.ndim < prediction.ndim:
            weights = np.expand_dims(weights, axis)
        return reduced(w * cost(p, t, **options), reduction, where, weights, w)

    return oracle


def binary_entropy(p, t, pos_weight=1.0):
    """The cross-entropy of a probability and a target."""
    return -pos_weight * t * np.log(p) - (1 - t) * np.log1p(-p)


def probabilities_of(prediction, target, activation, axis):
    """The probabilities and dense targets that a segmentation loss sees, class axis last."""
    if activation == "auto":
        same = axis is None or prediction.shape == target.shape
        activation = "sigmoid" if same else "softmax"
    p = {"softmax": lambda x: softmax(x, axis), "sigmoid": expit, None: lambda x: x}[activation](
        prediction
    )
    y = dense(target, prediction, axis)
    if axis is None:
        return p[..., None], y[..., None]
    return np.moveaxis(p, axis, -1), np.moveaxis(y, axis, -1)


def pixel_weight(where, weights, p, axis):
    """`where * weights` in the shape of `p`, class axis last."""
    v = np.ones(p.shape)
    for factor in (where, weights):
        if factor is not None:
            if factor.ndim < p.ndim:
                factor = factor[..., None]
            elif axis is not None:
                factor = np.moveaxis(factor, axis, -1)
            v = v * factor
    return v


def mean_over_classes(values, part, class_weights, reduction, no_classes, include_background=True):
    """Mean over the classes that take part, then over the images that have any."""
    w = np.ones(values.shape[-1]) if class_weights is None else class_weights
    if not include_background:
        values, part, w = values[..., 1:], part[..., 1:], w[1:]
    v = part * w
    if reduction == "none":
        kept = np.where(v != 0, v * values, 0)
        return kept[..., 0] if no_classes else kept
    if reduction == "sum":
        return np.where(v != 0, v * values, 0).sum()
    total = v.sum(-1)
    image = (v * values).sum(-1)[total > 0] / total[total > 0]
    return image.mean() if image.size else np.float64(0)


def segmentation(loss):
    """The oracle of a loss of each image and class, `loss(total, p, y)` with sums by `total`."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        activation="auto",
        per_image=True,
        include_background=True,
        absent="score",
        per_class=True,
        **options,
    ):
        p, y = probabilities_of(prediction, target, activation, axis)
        v = pixel_weight(where, weights, p, axis)
        axes = tuple(range(1 if per_image else 0, p.ndim - 1))
        total = lambda x: (v * x).sum(axes)
        if not per_class:
            w = np.ones(p.shape[-1]) if class_weights is None else class_weights
            counted = w[0 if include_background else 1 :]
            of_all = lambda x: (total(x)[..., -len(counted) :] * counted).sum(-1, keepdims=True)
            values, part = loss(of_all, p, y, **options), of_all(np.ones(p.shape)) > 0
            return mean_over_classes(values, part, None, reduction, no_classes=True)
        values = loss(total, p, y, **options)
        part = total(np.ones(p.shape)) > 0
        if absent == "skip":
            part &= total(y) > 0
        return mean_over_classes(
            values, part, class_weights, reduction, axis is None, include_background
        )

    return oracle


def invalid_classifications(name):
    """Calls that no loss on classes accepts."""
    return (
        Invalid((X.astype(int), IDS), {}, TypeError, (name, "int", "floating")),
        Invalid((X, np.zeros((2, 3, 1), int)), {}, ValueError, ("labels", r"\(2, 3, 1\)", "shape")),
        Invalid((X, np.zeros(2)), {}, ValueError, ("labels", "float", "integer ids")),
        Invalid((np.zeros((2, 1)), IDS), {}, ValueError, ("labels", "single class", "axis=None")),
        Invalid((X, IDS), {"axis": 2}, ValueError, ("axis", "2", r"\[-2, 2\)")),
        Invalid((X, IDS), {"axis": "C"}, TypeError, ("axis", "'C'", "integer")),
        Invalid((X, IDS), {"reduction": "avg"}, ValueError, ("reduction", "'avg'", "'mean'")),
        Invalid((X, IDS), {"where": IDS}, TypeError, ("where", "int", "bool")),
        Invalid((X, IDS), {"where": np.ones(3, bool)}, ValueError, ("where", r"\(3,\)", "rank")),
        Invalid((X, IDS), {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)", "rank")),
        Invalid((X, IDS), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")),
        Invalid((X, IDS), {"ignore_index": 0.5}, TypeError, ("ignore_index", "0.5", "integer")),
        Invalid((X, X), {"ignore_index": 1}, ValueError, ("ignore_index", "float", "integer")),
    )


def out_of_range(*parameters):
    """Calls with one number out of its range each."""
    return tuple(
        Invalid((X, X), {name: value}, ValueError, (name, "number in"))
        for name, value in parameters
    )


def invalid_segmentations(name="smooth"):
    """Calls that no loss on segmentations accepts."""
    single = np.zeros((2, 4, 1))
    return (
        Invalid((PIXELS.astype(int), PIXEL_IDS), {}, TypeError, ("logits", "int", "floating")),
        Invalid((PIXELS, np.zeros(2, int)), {}, ValueError, ("labels", r"\(2,\)", r"\(2, 4\)")),
        Invalid((PIXELS[0], PIXEL_IDS[0]), {}, ValueError, ("logits", r"\(4, 3\)", r"x\[None\]")),
        Invalid(
            (PIXELS[:, 0, 0], PIXELS[:, 0, 0]), {"axis": None}, ValueError, ("logits", r"x\[None\]")
        ),
        Invalid((single, PIXEL_IDS), {}, ValueError, ("labels", "single class", "axis=None")),
        Invalid((PIXELS, PIXEL_IDS), {"axis": 3}, ValueError, ("axis", "3", r"\[-3, 3\)")),
        Invalid((PIXELS, PIXEL_IDS), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
        Invalid((PIXELS, PIXEL_IDS), {"activation": "relu"}, ValueError, ("activation", "'relu'")),
        Invalid((PIXELS, PIXEL_IDS), {"where": PIXEL_IDS}, TypeError, ("where", "int", "bool")),
        Invalid(
            (PIXELS, PIXEL_IDS),
            {"where": np.ones(2, bool)},
            ValueError,
            ("where", r"\(2,\)", "rank"),
        ),
        Invalid(
            (PIXELS, PIXEL_IDS), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")
        ),
        Invalid((PIXELS, PIXELS), {"ignore_index": 1}, ValueError, ("ignore_index", "float")),
        Invalid(
            (single, single),
            {"include_background": False},
            ValueError,
            ("include_background", "single class"),
        ),
        Invalid(
            (PIXELS, PIXEL_IDS),
            {"include_background": "no"},
            ValueError,
            ("include_background", "'no'"),
        ),
    ) + (
        (Invalid((PIXELS, PIXEL_IDS), {name: -1.0}, ValueError, (name, "-1.0", "number in")),)
        if name
        else ()
    )
