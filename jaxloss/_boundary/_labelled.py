"""Cross-entropy of each pixel beside a map of its labels, for losses that weight it by a map."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, classes, numerics, reading, sigmoid, softmax
from jaxloss._core.cost import Cost
from jaxloss._core.images import Frame
from jaxloss._core.labels import Competing, Independent
from jaxloss._core.platforms import bind

Array = jax.Array

NOWHERE = -1  # the label of a masked position: of no class


class Labelled(NamedTuple):
    """A segmentation of which each position, or each element, has one label.

    Attributes:
      data: As it was read.
      cost: The cross-entropy, in the shape of the ids where classes compete, else of the logits.
      labels: int32 ids in that shape; negative where a pixel is of no class. Elements: 0 and 1.
      predicted: The labels that are predicted, negative where masked (elements: 0).
      valid: Where a pixel counts, in that shape; None: everywhere.
      spatial: The axes of an image's pixels.
      classes: The number of labels.
    """

    data: Competing | Independent
    cost: Cost
    labels: Array
    predicted: Array
    valid: Array | None
    spatial: tuple[int, ...]
    classes: int


def read(logits: ArrayLike, labels: ArrayLike, options: Mapping[str, Any]) -> Labelled:
    """Reads logits and labels of a segmentation, whatever their form."""
    scores, axis = checks.images(logits, labels, options["axis"])
    data = reading.read(scores, labels, options["activation"], options)
    return _of_positions(data) if isinstance(data, Competing) else _of_elements(data, axis)


def _of_positions(data: Competing) -> Labelled:
    predicted = classes.best(data.unmasked_logits(), data.axis)
    target = data.labels
    if not data.has_ids:
        target = classes.best(data.labels, data.axis)
    valid = None
    if data.mask is not None:
        valid = jnp.broadcast_to(data.mask, target.shape)
        target, predicted = (jnp.where(valid, x, NOWHERE) for x in (target, predicted))
    return Labelled(
        data=data,
        cost=softmax.cross_entropy(data),
        labels=target,
        predicted=predicted,
        valid=valid,
        spatial=tuple(range(1, target.ndim)),
        classes=data.logits.shape[data.axis],
    )


def _of_elements(data: Independent, axis: int | None) -> Labelled:
    masks = [data.labels > 0.5, data.logits > (0.5 if data.are_probabilities else 0)]
    valid = None
    if data.mask is not None:
        valid = jnp.broadcast_to(data.mask, data.logits.shape)
        masks = [valid & mask for mask in masks]
    target, predicted = (mask.astype(jnp.int32) for mask in masks)
    return Labelled(
        data=data,
        cost=sigmoid.cost(bind(_entropy, probabilities=data.are_probabilities), data),
        labels=target,
        predicted=predicted,
        valid=valid,
        spatial=Frame(data.logits.ndim, axis, per_image=True, axis_name=None).spatial,
        classes=2,
    )


def _entropy(x: Array, y: Array, *, probabilities: bool) -> Array:
    return sigmoid.entropy(x, y, 1 - y, probabilities)


def map_of_targets(distance_map: Array, data: Competing | Independent) -> Array:
    """Reads the map that a caller brings: of each pixel, or of each class, whose target counts."""
    shape, dtype = data.logits.shape, data.logits.dtype
    given = jax.lax.stop_gradient(checks.real("distance_map", distance_map, dtype))
    if isinstance(data, Independent):
        checks.shape("distance_map", given, shape, "the shape of `logits`")
        return numerics.masked(given, data.mask)
    positions = checks.without(shape, data.axis)
    if given.shape == positions:
        return numerics.masked(given, data.mask)
    meaning = f"the shape of `logits` (or {positions}, that of the ids)"
    checks.shape("distance_map", given, shape, meaning)
    return jax.lax.stop_gradient(data.at_target(data.masked(given)))
