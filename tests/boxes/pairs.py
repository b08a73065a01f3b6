"""Pairs of boxes in float64 NumPy, straight from the definitions, and calls that none accepts."""

from typing import NamedTuple

import numpy as np

from tests.registry import Invalid, box_pairs, reduced


class Parts(NamedTuple):
    """What the formulas of the papers are made of; sizes and differences are `[..., 2]`."""

    iou: np.ndarray
    union: np.ndarray
    hull: np.ndarray
    apart: np.ndarray
    size: np.ndarray
    target: np.ndarray

    @property
    def vacancy(self):
        area = self.hull.prod(-1)
        return (area - self.union) / area

    @property
    def offset(self):
        return (self.apart**2).sum(-1) / (self.hull**2).sum(-1)

    @property
    def aspect(self):
        turn = np.arctan(self.size[..., 0] / self.size[..., 1])
        turn -= np.arctan(self.target[..., 0] / self.target[..., 1])
        return 4 / np.pi**2 * turn**2

    @property
    def trade_off(self):
        return self.aspect / (1 - self.iou + self.aspect)


def corners(box, format="xyxy"):
    first, second = box[..., :2], box[..., 2:]
    if format == "cxcywh":
        return np.concatenate([first - second / 2, first + second / 2], -1)
    return np.concatenate([first, second if format == "xyxy" else first + second], -1)


def parts(a, b, format="xyxy"):
    a, b = corners(a, format), corners(b, format)
    size, target = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = size.prod(-1) + target.prod(-1) - shared
    hull = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return Parts(shared / union, union, hull, apart, size, target)


def oracle(loss):
    """The oracle of `loss(parts, **options)`."""

    def value(
        prediction,
        target,
        where=None,
        weights=None,
        reduction="mean",
        format="xyxy",
        **options,
    ):
        values = loss(parts(prediction, target, format), **options)
        return reduced(values, reduction, where, weights)

    return value


def detached(loss, factor):
    """The oracle of `loss(parts, factor, **options)`, and its gradient with that factor constant.

    The gradient is that of the sum, by central differences.
    """

    def whole(p, **options):
        return loss(p, factor(p, **options), **options)

    def gradient(prediction, target, format="xyxy", **options):
        constant = factor(parts(prediction, target, format), **options)
        slope, step = np.zeros(prediction.shape), 1e-6
        for index in np.ndindex(*prediction.shape):
            ends = []
            for sign in (1, -1):
                moved = prediction.copy()
                moved[index] += sign * step
                ends.append(loss(parts(moved, target, format), constant, **options).sum())
            slope[index] = (ends[0] - ends[1]) / (2 * step)
        return slope

    return oracle(whole), gradient


B = np.ones((3, 4))


def invalid(*calls, **data):
    """The calls that no box loss accepts, and those with options out of their range.

    Args:
      *calls: An option, its wrong value, and words of the message.
      **data: Options that the loss cannot do without.
    """
    shared = (
        Invalid((B[:, :3], B[:, :3]), data, ValueError, ("boxes", r"\(3, 3\)", "four numbers")),
        Invalid((B, B[:1]), data, ValueError, ("target_boxes", r"\(1, 4\)", r"\(3, 4\)")),
        Invalid((B.astype(int), B), data, TypeError, ("boxes", "int", "floating")),
        Invalid((B, B), {"format": "yxyx"} | data, ValueError, ("format", "'yxyx'", "'cxcywh'")),
        Invalid((B, B), {"reduction": "avg"} | data, ValueError, ("reduction", "'avg'")),
        Invalid((B, B), {"where": np.ones(3)} | data, TypeError, ("where", "float", "bool")),
        Invalid(
            (B, B),
            {"where": np.ones((3, 4), bool)} | data,
            ValueError,
            ("where", r"\(3, 4\)", "rank"),
        ),
    )
    own = (
        Invalid((B, B), data | {option: value}, ValueError, (option, *words))
        for option, value, *words in calls
    )
    return (*shared, *own)


def samples(**options):
    """Pairs in each format."""
    return (
        box_pairs(**options),
        box_pairs("centres", seed=1, format="cxcywh", **options),
        box_pairs("corners", seed=2, format="xywh", **options),
    )
