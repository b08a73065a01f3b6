"""What the oracles of the boundary losses share: maps of single masks by SciPy, and their loops."""

import numpy as np
from scipy import ndimage
from scipy.special import expit, log_softmax

from tests.oracles import (
    mean_over_classes,
    pixel_weight,
    probabilities_of,
    shaped,
)
from tests.registry import dense, reduced


def edt(mask, sampling):
    """Distances from True to False; infinite without one."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(mask, sampling=sampling)


def to_boundary(mask, sampling):
    """Distances to the other side: 0 if the mask is empty, to outside of the image if full."""
    if not mask.any():
        return np.zeros(mask.shape)
    if mask.all():
        inside = (slice(1, -1),) * mask.ndim
        return edt(np.pad(mask, 1), sampling)[inside]
    return edt(mask, sampling) + edt(~mask, sampling)


def signed_distance(mask, sampling):
    """Kervadec's map of one mask: outside +d, inside -(d - 1 pixel), 0 if empty or full."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return edt(~mask, sampling) - np.where(mask, edt(mask, sampling) - np.min(sampling), 0)


def closeness(labels, sampling):
    """1 next to another label, 0 farthest from it, within each label that is not negative."""
    near = np.zeros(labels.shape)
    for label in np.unique(labels[labels >= 0]):
        inside = labels == label
        if not inside.all():
            d = edt(inside, sampling)[inside]
            spread = d.max() - d.min()
            near[inside] = (d.max() - d) / spread if spread > 0 else 1
    return near


def penalty(mask, sampling):
    """The same of a mask and its complement."""
    return closeness(mask.astype(int), sampling)


def normalized_sdf(mask, sampling):
    """The distance outside minus that inside, each over its largest."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    outside, inside = edt(~mask, sampling), edt(mask, sampling)
    return outside / outside.max() - inside / inside.max()


def scored(loss):
    """The oracle of a loss of each image and class.

    `loss(total, p, y, valid, each, **options)` takes sums by `total` and maps of masks by
    `each(map, masks)`; `valid` says which pixels count.
    """

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
        include_background=None,
        sampling=1.0,
        **options,
    ):
        p, y = probabilities_of(prediction, target, activation, axis)
        competes = axis is not None and (
            activation == "softmax" or target.shape != prediction.shape
        )
        v = pixel_weight(where, weights, p, axis)
        valid = pixel_weight(where, None, p, axis) > 0
        spacing = np.broadcast_to(sampling, p.ndim - 2)

        def each(make, masks):
            images = np.moveaxis(masks, -1, 1)
            made = [[make(mask, spacing) for mask in image] for image in images]
            return np.moveaxis(np.array(made), 1, -1)

        axes = tuple(range(1 if per_image else 0, p.ndim - 1))
        total = lambda x: (v * x).sum(axes)
        values = loss(total, p, y, valid, each, **options)
        keep = not competes if include_background is None else include_background
        part = total(np.ones(p.shape)) > 0
        return mean_over_classes(values, part, class_weights, reduction, axis is None, keep)

    return oracle


def mean(total, x):
    """The mean over the valid pixels of each image and class."""
    count = total(np.ones(x.shape))
    return total(x) / np.where(count, count, 1)


def labelled(factor):
    """The oracle of a cross-entropy with a factor, `factor(labels, predicted, sampling)`.

    It is called with the label maps of each image (of each element: of each image and class), where
    a masked pixel is -1 (of an element: 0), and tells which pixels are masked by a third map.
    """

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        activation="auto",
        sampling=1.0,
        **options,
    ):
        ids = axis is not None and target.ndim < prediction.ndim and activation != "sigmoid"
        if ids or activation == "softmax":
            x = np.moveaxis(prediction, axis, -1)
            y = dense(target, x, -1) if ids else np.moveaxis(target, axis, -1)
            w = np.ones(x.shape[-1]) if class_weights is None else class_weights
            log_p = np.log(x) if activation is None else log_softmax(x, -1)
            entropy = -(w * y * log_p).sum(-1)
            valid = np.broadcast_to(True if where is None else where, entropy.shape)
            spacing = np.broadcast_to(sampling, entropy.ndim - 1)
            maps = (np.where(valid, labels, -1) for labels in (y.argmax(-1), x.argmax(-1)))
            rows = [factor(*image, spacing, **options) for image in zip(*maps, valid, strict=True)]
            return reduced(entropy * rows, reduction, where, weights, y @ w)
        p = prediction if activation is None else expit(prediction)
        y = dense(target, prediction, axis)
        entropy = -y * np.log(p) - (1 - y) * np.log1p(-p)
        w = 1.0 if class_weights is None else shaped(class_weights, prediction, axis)
        if where is not None and where.ndim < p.ndim:
            where = np.expand_dims(where, axis)
        if weights is not None and weights.ndim < p.ndim:
            weights = np.expand_dims(weights, axis)
        valid = np.broadcast_to(True if where is None else where, p.shape)
        last = lambda x: x[..., None] if axis is None else np.moveaxis(x, axis, -1)
        images = [last(x) for x in ((y > 0.5) & valid, (p > 0.5) & valid, valid)]
        spacing = np.broadcast_to(sampling, images[0].ndim - 2)
        made = np.ones(images[0].shape)
        for b in range(made.shape[0]):
            for c in range(made.shape[-1]):
                one = (x[b, ..., c].astype(int) for x in images)
                made[b, ..., c] = factor(*one, spacing, **options)
        made = made[..., 0] if axis is None else np.moveaxis(made, -1, axis)
        return reduced(w * entropy * made, reduction, where, weights, w)

    return oracle
