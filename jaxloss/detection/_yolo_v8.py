"""The loss of YOLOv8: boxes from distributions of distances, on points assigned by the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core import checks, numerics
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss._distribution import binary_cross_entropy
from jaxloss.detection._assignment import (
    Assignment,
    at_least_one,
    class_targets,
    gather,
    of_each_image,
)
from jaxloss.detection._coders import decode_distances, decode_distribution, encode_distances
from jaxloss.detection._declare import BOX_LOSSES, BoxLoss, detection
from jaxloss.detection._places import above_0_per_level, grid_points, of_levels
from jaxloss.detection._targets import Targets, finish, read_targets
from jaxloss.detection._task_aligned import Aligned, task_aligned
from jaxloss.options import Levels, NonNegative, Numbers

__all__ = ["yolo_v8"]

Array = jax.Array

_SHORT_OF_LAST = 0.01  # bins by which a target stays below the last one


@detection
def yolo_v8(
    predictions: Levels,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    strides: Sequence[float],
    reg_max: int = 16,
    top_k: int = 10,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 6.0,
    box_gain: NonNegative = 7.5,
    class_gain: NonNegative = 0.5,
    distribution_gain: NonNegative = 1.5,
    box_loss: BoxLoss = "ciou",
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the whole loss of YOLOv8: assignment, box, class and distribution terms.

    Points are assigned by `assign_task_aligned`, boxes with sides below `strides[1]` being enlarged
    to it, and have its weights `w`. With `B` images, the points `P` that have a box, and
    `W = max(sum w, 1)`::

        box               B box_gain sum_P w (1 - CIoU) / W
        classification    B class_gain sum_{points, classes} BCE(logits, w at the class, else 0) / W
        distribution      B distribution_gain sum_P w mean_{l, t, r, b} DFL / W

    The distances of the box's sides are predicted as expectations over `reg_max` bins, in strides.
    DFL is `distribution_focal` with targets of at most `reg_max - 1.01`. With `reg_max=1` there are
    no bins: the numbers are the distances, and the L1 of those over the image's sides stands in
    place of DFL. `B` is ultralytics's factor; an image has the size of the first grid times its
    stride.

    An image without boxes has its classification alone. Invalid slots reach nothing.

    Args:
      predictions: One array per level, `[B, H, W, 4 reg_max + C]`, floating: the bins of l, then of
        t, r and b, then the logits of the classes.
      alpha: Exponent of the score in the assignment.
      beta: Exponent of the CIoU in the assignment.
      box_loss: `"ciou"`, `"diou"`, `"giou"` or `"iou"`.

    Returns:
      The total, and its parts `box`, `classification` and `distribution`, with gains and batch size
      in them; float32 for half-precision input.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> total, parts = detection.yolo_v8(
      ...     [jnp.zeros((1, 2, 2, 4 * 3 + 2))],
      ...     jnp.array([[[0.0, 0.0, 14.0, 14.0]]]),
      ...     jnp.array([[1]]),
      ...     valid=jnp.array([[True]]),
      ...     strides=[8],
      ...     reg_max=3,
      ... )
      >>> print({name: round(float(part), 4) for name, part in parts.items()})
      {'box': 2.4947, 'classification': 2.7726, 'distribution': 0.9304}

    Reference:
      Jocher, Chaurasia and Qiu. Ultralytics YOLOv8, 2023. https://github.com/ultralytics
      Feng et al. TOOD: Task-aligned One-stage Object Detection. ICCV 2021.
      https://arxiv.org/abs/2108.07755
      Li et al. Generalized Focal Loss. NeurIPS 2020. https://arxiv.org/abs/2006.04388
    """
    head = read_head(predictions, strides, reg_max)
    targets = head.targets(boxes, labels, valid)
    checks.option("box_loss", box_loss, BOX_LOSSES)

    predicted = decode_distances(head.distances, head.points[None], strides=head.strides[None])
    numbers = top_k, alpha, beta, head.least
    found = task_aligned(head.by_class, predicted, head.points, targets, *numbers)
    chosen, at = found.chosen, head.at(found)
    box = gather(targets.boxes, chosen.index)
    apart = BOX_LOSSES[box_loss](
        decode_distances(at.distances, at.points, strides=at.strides),
        box,
        where=chosen.foreground,
        weights=chosen.weight,
        reduction="sum",
        axis_name=axis_name,
    )
    away = encode_distances(box, at.points, strides=at.strides)
    sums = {
        "box": apart,
        "classification": classification(head.logits, targets, found.every, axis_name),
        "distribution": distribution(at, away, chosen, head.size, axis_name),
    }
    gains = box_gain, class_gain, distribution_gain
    return finish(gained(sums, gains, found.every, axis_name), targets, axis_name)


class Sides(NamedTuple):
    """What a head predicts of boxes' sides at points.

    Attributes:
      bins: The scores of the distances' bins, `[B, K, 4, reg_max]`.
      points: Where the points are, in pixels, `[B, K, 2]`.
      strides: Pixels per cell of each point's level, `[B, K]`.
    """

    bins: Array
    points: Array
    strides: Array

    @property
    def distances(self) -> Array:
        """The distances of the sides from the points, in strides, `[B, K, 4]`."""
        return _distances(self.bins)


class Head(NamedTuple):
    """What a head predicts at `N` points.

    Attributes:
      bins: The scores of the distances' bins, `[B, N, 4, reg_max]`.
      logits: Those of the classes, `[B, N, C]`.
      points: Where the points are, in pixels, `[N, 2]`.
      strides: Pixels per cell of each point's level, `[N]`.
      size: The image's (width, height).
      least: The side, in pixels, to which shorter ones are enlarged in the assignment.
    """

    bins: Array
    logits: Array
    points: Array
    strides: Array
    size: tuple[float, float]
    least: Array

    @property
    def distances(self) -> Array:
        """The distances of the sides from the points, in strides, `[B, N, 4]`, constants."""
        return _distances(jax.lax.stop_gradient(self.bins))

    @property
    def by_class(self) -> Array:
        """The probabilities of the classes, `[B, C, N]`, constants."""
        return jax.lax.logistic(jax.lax.stop_gradient(self.logits).swapaxes(1, 2))

    def at(self, found: Aligned) -> Sides:
        """What is predicted at the chosen points, nothing where they have no box."""
        row, (images, count) = self.logits[..., 0], found.place.shape
        columns = [of_each_image(a, row) for a in (*self.points.T, self.strides)]
        x, y, unit = (gather(jnp.stack(columns, -1), found.place)[..., i] for i in range(3))
        bins = gather(jax.lax.collapse(self.bins, 2), found.place)
        bins = jnp.where(found.chosen.foreground[..., None], bins, 0)
        return Sides(bins.reshape(images, count, *self.bins.shape[2:]), jnp.stack([x, y], -1), unit)

    def targets(self, boxes: Numbers, labels: Numbers, valid: Numbers, numbers: int = 4) -> Targets:
        """The true boxes, checked."""
        images, _, classes = self.logits.shape
        shape = {"images": images, "classes": classes, "numbers": numbers}
        return read_targets(boxes, labels, valid, dtype=self.logits.dtype, **shape)


def _distances(bins: Array) -> Array:
    return bins[..., 0] if bins.shape[-1] == 1 else decode_distribution(bins)


def read_head(predictions: Levels, strides: Sequence[float], reg_max: int) -> Head:
    """Requires predictions `[B, H, W, 4 reg_max + C]` of each level, and joins the levels."""
    checks.integer("reg_max", reg_max, 1)
    levels = of_levels("predictions", predictions)
    above_0_per_level(len(levels), strides=strides)
    dtype, first, bins = checks.compute_dtype(levels[0]), levels[0].shape, 4 * reg_max
    meaning = f"images, rows, columns, and {bins} bins and one class at least"
    for level in levels:
        checks.rank("predictions", level, 4, meaning)
        expected = (first[0], *level.shape[1:3], max(first[3], bins + 1))
        checks.shape("predictions", level, expected, meaning)
    whole = [jax.lax.collapse(level, 1, 3).astype(dtype) for level in levels]
    scores = jnp.concatenate([level[..., :bins] for level in whole], 1)
    grids = [(level.shape[1], level.shape[2]) for level in levels]
    units = np.repeat(np.asarray(strides, dtype), [level.shape[1] for level in whole])
    return Head(
        bins=scores.reshape(*scores.shape[:2], 4, reg_max),
        logits=jnp.concatenate([level[..., bins:] for level in whole], 1),
        points=grid_points(grids, strides).astype(dtype),
        strides=jnp.asarray(units),
        size=(grids[0][1] * strides[0], grids[0][0] * strides[0]),
        least=jnp.asarray(strides[min(1, len(strides) - 1)], dtype),
    )


def classification(
    logits: Array, targets: Targets, assigned: Assignment, axis_name: AxisName | None
) -> Array:
    """The sum of the cross-entropies with the weights as targets of the boxes' classes."""
    hits = class_targets(targets.labels, assigned, logits.shape[-1])
    truth = jnp.where(hits, assigned.weight[..., None], 0)
    return binary_cross_entropy(logits, truth, reduction="sum", axis_name=axis_name)


def distribution(
    sides: Sides,
    away: Array,
    assigned: Assignment,
    size: tuple[float, float],
    axis_name: AxisName | None,
) -> Array:
    """The weighted sum of the sides' mean DFL, or L1 without bins; `away` are the distances."""
    away = jnp.where(assigned.foreground[..., None], away, 0)
    bins = sides.bins.shape[-1]
    if bins > 1:
        costs = _between_bins(sides.bins, jnp.clip(away, 0, bins - 1 - _SHORT_OF_LAST))
    else:
        unit = sides.strides[..., None] / jnp.asarray(size * 2, away.dtype)[None, None]
        costs = numerics.absolute(sides.distances - away) * unit
    costs = jnp.where(assigned.foreground, assigned.weight * costs.mean(-1), 0)
    return everywhere(costs.sum(), axis_name)


def _between_bins(scores: Array, target: Array) -> Array:
    """`distribution_focal` of targets below the last bin.

    Of the same sum over the bins as the distances: a compiler finds them equal and needs one.
    """
    below = scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    target = target[..., None]
    bins = jnp.arange(scores.shape[-1], dtype=scores.dtype).reshape(1, 1, 1, -1)
    share = jnp.maximum(1 - jnp.abs(bins - target), 0)  # of the bins at both sides of the target
    return jnp.log(jnp.exp(below).sum(-1)) - jnp.where(share > 0, share * below, 0).sum(-1)


def gained(
    sums: dict[str, Array],
    gains: tuple[Array, ...],
    assigned: Assignment,
    axis_name: AxisName | None,
) -> dict[str, Array]:
    """Divides the sums by that of the weights and multiplies them by their gains and the batch."""
    total: Any = at_least_one(assigned.weight.sum(), axis_name)
    batch = everywhere(jnp.asarray(len(assigned.weight), total.dtype), axis_name)
    return {
        part: batch * gain * value / total
        for (part, value), gain in zip(sums.items(), gains, strict=True)
    }
