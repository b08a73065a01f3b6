"""Cross-entropy of each pixel beside a map of its labels, for losses that weight it by a map."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, sigmoid, softmax
from jaxloss._core import labels as labelled
from jaxloss._core.labels import Competing, Independent
from jaxloss._core.lean import Costs

Array = jax.Array

NOWHERE = -1  # the label of a masked position: of no class


class Labelled(NamedTuple):
    """A segmentation of which each position, or each element, has one label.

    Attributes:
      data: As it was read.
      costs: The cross-entropy, in the shape of the ids where classes compete, else of the logits.
      labels: int32 ids in that shape; negative where a pixel is of no class. Elements: 0 and 1.
      predicted: The labels that are predicted, negative where masked (elements: 0).
      valid: Where a pixel counts, in that shape; None: everywhere.
      spatial: The axes of an image's pixels.
      classes: The number of labels.
    """

    data: Competing | Independent
    costs: Costs
    labels: Array
    predicted: Array
    valid: Array | None
    spatial: tuple[int, ...]
    classes: int

    def weighted(self, factor: Array) -> Costs:
        """Returns the cross-entropy times a map in its shape."""
        (x, *others), classes = self.costs.arguments, self.costs.classes
        factor = factor if classes is None else jnp.expand_dims(factor, classes)

        def product(x: Array, factor: Array, *others: Any) -> Array:
            return factor * self.costs.cost(x, *others)

        return Costs(product, (x, factor, *others), classes)


def read(
    function: str,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    activation: str | None,
    axis: int | None,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: int | None,
    class_weights: ArrayLike | None,
) -> Labelled:
    """Reads logits and labels of a segmentation, whatever their form."""
    scores, axis = checks.images(function, logits, axis)
    activation, compete = labelled.resolve(function, activation, scores, labels, axis)
    if compete:
        assert axis is not None
        data = labelled.competing(
            function,
            scores,
            labels,
            axis=axis,
            where=where,
            weights=weights,
            ignore_index=ignore_index,
            class_weights=class_weights,
        )
        return _of_positions(data, is_p=activation is None)
    each = labelled.independent(
        function,
        scores,
        labels,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    return _of_elements(each, axis, is_p=activation is None)


def _of_positions(data: Competing, is_p: bool) -> Labelled:
    costs = softmax.costs(lambda hit, miss: hit, data, probabilities=is_p)
    predicted = jnp.argmax(data.unmasked_logits(), data.axis).astype(jnp.int32)
    target = data.labels
    if not data.has_ids:
        target = jnp.argmax(data.labels, data.axis).astype(jnp.int32)
    valid = None
    if data.mask is not None:
        valid = jnp.broadcast_to(data.mask, target.shape)
        target, predicted = (jnp.where(valid, x, NOWHERE) for x in (target, predicted))
    return Labelled(
        data=data,
        costs=costs,
        labels=target,
        predicted=predicted,
        valid=valid,
        spatial=tuple(range(1, target.ndim)),
        classes=data.logits.shape[data.axis],
    )


def _of_elements(data: Independent, axis: int | None, is_p: bool) -> Labelled:
    def cost(x: Array, y: Array) -> Array:
        return sigmoid.entropy(x, y, 1 - y, is_p)

    masks = [data.labels > 0.5, data.logits > (0.5 if is_p else 0)]
    valid = None
    if data.mask is not None:
        valid = jnp.broadcast_to(data.mask, data.logits.shape)
        masks = [valid & mask for mask in masks]
    target, predicted = (mask.astype(jnp.int32) for mask in masks)
    image = 1 if axis == 0 else 0
    return Labelled(
        data=data,
        costs=sigmoid.costs(cost, data),
        labels=target,
        predicted=predicted,
        valid=valid,
        spatial=tuple(i for i in range(data.logits.ndim) if i not in (axis, image)),
        classes=2,
    )


def map_of_targets(function: str, distance_map: ArrayLike, data: Competing | Independent) -> Array:
    """Reads the map that a caller brings: of each pixel, or of each class, whose target counts."""
    shape, dtype = data.logits.shape, data.logits.dtype
    given = jax.lax.stop_gradient(checks.real(function, "distance_map", distance_map, dtype))
    if isinstance(data, Independent):
        checks.shape(function, "distance_map", given, shape, "the shape of `logits`")
        return given if data.mask is None else jnp.where(data.mask, given, 0)
    positions = checks.without(shape, data.axis)
    if given.shape == positions:
        return given if data.mask is None else jnp.where(data.mask, given, 0)
    meaning = f"the shape of `logits` (or {positions}, that of the ids)"
    checks.shape(function, "distance_map", given, shape, meaning)
    if data.mask is not None:
        given = jnp.where(jnp.expand_dims(data.mask, data.axis), given, 0)
    return jax.lax.stop_gradient(data.at_target(given))
