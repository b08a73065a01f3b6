"""The true boxes of a batch: checked, and harmless in the slots that only fill it up."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks
from jaxloss._core.labels import int32
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss.detection._assignment import Assignment

Array = jax.Array

_FILLER = (0.0, 0.0, 1.0, 1.0, 0.0)  # a box with an area, in any format; the last is an angle


class Targets(NamedTuple):
    """The true boxes of a batch, `M >= 1` slots per image.

    Attributes:
      boxes: Boxes `[B, M, 4]` (or 5) in the compute dtype, a constant; a unit box where not valid.
      labels: Classes `[B, M]`, int32, inside the classes; 0 where not valid.
      valid: Which slots hold a box, `[B, M]`.
      wrong: The number of valid boxes whose label is none of the classes, a scalar.
    """

    boxes: Array
    labels: Array
    valid: Array
    wrong: Array


def read_targets(
    boxes: ArrayLike,
    labels: ArrayLike,
    valid: ArrayLike,
    *,
    images: int,
    classes: int,
    dtype: Any,
    numbers: int = 4,
) -> Targets:
    """Checks the targets of a head and cleans the slots that are not valid.

    Args:
      boxes: As the caller has them, `[B, M, numbers]`.
      labels: As the caller has them, `[B, M]`.
      valid: As the caller has it, `[B, M]`.
      images: How many images the predictions have.
      classes: How many classes the predictions have.
      dtype: The compute dtype.
      numbers: What describes a box: 4, or 5 with an angle.
    """
    box, mask = read_boxes(boxes, valid, images=images, dtype=dtype, numbers=numbers)
    ids = int32(checks.integer_ids("labels", labels))
    checks.shape("labels", ids, jnp.shape(boxes)[:2], "one class for each of the boxes")
    if classes < 1:
        checks.fail(ValueError, "logits", "of the background alone", "those of a class or more too")
    ids = _one_slot_at_least(ids)
    inside = (ids >= 0) & (ids < classes)
    clean = jnp.where(mask & inside, ids, 0)
    return Targets(box, clean, mask, (mask & ~inside).sum(dtype=jnp.int32))


def read_boxes(
    boxes: ArrayLike,
    valid: ArrayLike,
    *,
    dtype: Any = None,
    images: int | None = None,
    numbers: int = 4,
) -> tuple[Array, Array]:
    """Returns boxes and `valid` as `Targets` has them; dtype None: that of the boxes."""
    if dtype is None:
        dtype = checks.compute_dtype(checks.floating("boxes", boxes))
    box = checks.real("boxes", boxes, dtype)
    meaning = f"images, slots for boxes, and the {numbers} numbers of a box"
    checks.rank("boxes", box, 3, meaning)
    batch = len(box) if images is None else images
    checks.shape("boxes", box, (batch, box.shape[1], numbers), meaning)
    mask = checks.boolean("valid", valid)
    checks.shape("valid", mask, box.shape[:2], "which of the slots hold a box")
    box, mask = _one_slot_at_least(box), _one_slot_at_least(mask)
    filler = jnp.asarray(_FILLER[:numbers], dtype)
    box = jnp.where(mask[..., None], box, filler[None, None])
    return jax.lax.stop_gradient(box), mask


def read_dense(**predictions: ArrayLike) -> tuple[Array, Array]:
    """Requires scores `[B, N, C]` and four numbers for each place, `[B, N, 4]`."""
    (name, scores), (other, numbers) = predictions.items()
    score = checks.floating(name, scores)
    meaning = "images, places and classes, one place and one class at least"
    checks.rank(name, score, 3, meaning)
    checks.shape(name, score, (len(score), *(max(n, 1) for n in score.shape[1:])), meaning)
    number = checks.floating(other, numbers)
    checks.shape(other, number, (*score.shape[:2], 4), "four numbers for each place")
    dtype = checks.compute_dtype(score)
    return score.astype(dtype), number.astype(dtype)


def finish(
    parts: Mapping[str, Array], targets: Targets, axis_name: AxisName | None
) -> tuple[Array, dict[str, Array]]:
    """Returns what every head does: the sum of the parts, and the parts.

    All are NaN if a valid box has a label that is none of the classes.
    """
    wrong = everywhere(targets.wrong, axis_name)
    sound = {
        name: part * jnp.where(wrong == 0, 1, jnp.nan).astype(part.dtype)
        for name, part in parts.items()
    }
    return functools.reduce(jnp.add, sound.values()), sound


def read_points(points: ArrayLike, predicted: Array) -> Array:
    """Requires points `[N, 2]`, the same for all images, of predictions `[B, N, ...]`."""
    point = checks.real("points", points, predicted.dtype)
    checks.shape("points", point, (predicted.shape[1], 2), "x and y of each prediction")
    return jax.lax.stop_gradient(point)


def poisoned(assigned: Assignment, targets: Targets) -> Assignment:
    """Makes the weights NaN if a valid box has a label that is none of the classes."""
    weight = jnp.where(targets.wrong == 0, assigned.weight, jnp.nan)
    return assigned._replace(weight=weight)


def _one_slot_at_least(x: Array) -> Array:
    """Adds a slot of zeros where there is none, so that a best box can be looked for."""
    if x.shape[1]:
        return x
    return jnp.zeros_like(x, shape=(x.shape[0], 1, *x.shape[2:]))
