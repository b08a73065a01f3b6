"""Primitive 3, the soft confusion: what a region loss needs to know of each image and class.

All sums are of terms that cannot be negative, so that a loss written as `wrong / (right + wrong)`
is exactly 0 at a perfect prediction and never below.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, labels, numerics, reduction

Array = jax.Array

ABSENT = ("score", "skip")


class Pixels(NamedTuple):
    """The probabilities and targets of every pixel, and how much each counts.

    Attributes:
      p: Probabilities, in the shape of the logits.
      y: Targets, in the shape of the logits; NaN where the id is outside the range.
      weight: `where` and `weights` in one, broadcasting to the logits; None: all 1.
      class_weights: One number per class, shape `[C]`; None: all 1.
      axis: The class axis, or None.
      compete: Whether classes compete, so that class 0 is the background of the others.
      per_image: Whether sums keep the images apart.
      axis_name: A mesh axis over which pooled sums are global.
    """

    p: Array
    y: Array
    weight: Array | None
    class_weights: Array | None
    axis: int | None
    compete: bool
    per_image: bool
    axis_name: reduction.AxisName | None

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes of one image's pixels."""
        image = 1 if self.axis == 0 else 0
        return tuple(i for i in range(self.p.ndim) if i not in (self.axis, image))

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes over which pixels are summed."""
        if self.per_image:
            return self.spatial
        return tuple(i for i in range(self.p.ndim) if i != self.axis)

    def total(self, values: Array) -> Array:
        """Sums over the valid pixels: `[B, C]`, `[C]` if pooled, `[B]` or `[]` without classes."""
        sums = (values if self.weight is None else values * self.weight).sum(self.summed)
        if not self.per_image:
            return reduction.everywhere(sums, self.axis_name)
        return sums.T if self.axis == 0 else sums

    def valid(self) -> Array:
        """The (weighted) number of valid pixels; broadcasts to the shape of `total`."""
        if self.weight is None:
            size = math.prod(self.p.shape[i] for i in self.summed)
            ones = jnp.ones_like(self.p, shape=(1,) * self.p.ndim)
            return self._replace(weight=None).total(ones * size)
        sizes = [n if i in self.summed else 1 for i, n in enumerate(self.p.shape)]
        shape = jnp.broadcast_shapes(self.weight.shape, tuple(sizes))
        return self._replace(weight=None).total(jnp.broadcast_to(self.weight, shape))


class Confusion(NamedTuple):
    """Soft counts per (image, class): true and false positives and negatives."""

    tp: Array
    fp: Array
    fn: Array
    tn: Array

    @property
    def actual(self) -> Array:
        """How much of the class the target holds."""
        return self.tp + self.fn


def read(
    function: str,
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    activation: str | None,
    axis: int | None,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore_index: int | None,
    class_weights: ArrayLike | None,
    per_image: bool,
    axis_name: reduction.AxisName | None,
) -> Pixels:
    """Reads logits and labels of a segmentation, whatever their form."""
    scores = checks.floating(function, "logits", logits)
    if axis is None:
        meaning = "images and their pixels (a single image is x[None])"
        checks.minimum_rank(function, "logits", scores, 2, meaning)
    else:
        meaning = "images, their pixels and classes (a single image is x[None])"
        checks.minimum_rank(function, "logits", scores, 3, meaning)
        axis = checks.axis(function, axis, scores.ndim)
    activation, compete = labels.resolve(function, activation, scores, targets, axis)
    masks: dict[str, Any] = {"where": where, "weights": weights, "ignore_index": ignore_index}
    if activation == "softmax":
        assert axis is not None
        data = labels.competing(function, scores, targets, axis=axis, **masks)
        p, y = jax.nn.softmax(data.unmasked_logits(), axis), data.dense_labels()
        mask, weight = (
            None if x is None else jnp.expand_dims(x, axis) for x in (data.mask, data.weights)
        )
    else:
        each = labels.independent(function, scores, targets, axis=axis, **masks)
        mask, weight, p, y = each.mask, each.weights, each.logits, each.labels
        if mask is not None:
            p, y = jnp.where(mask, p, 0), jnp.where(mask, y, 0)
        p = p if activation is None else jax.nn.sigmoid(p)
    if mask is not None:
        weight = mask.astype(p.dtype) * (1 if weight is None else weight)
    if class_weights is not None:
        shaped = labels.per_class(function, "class_weights", class_weights, p, axis)
        class_weights = None if shaped is None else shaped.reshape(-1)
    return Pixels(
        p=p,
        y=y,
        weight=weight,
        class_weights=class_weights,
        axis=axis,
        compete=compete,
        per_image=per_image,
        axis_name=axis_name,
    )


def confusion(pixels: Pixels) -> Confusion:
    """Sums the soft counts of each image and class."""
    p, y = pixels.p, pixels.y
    tp, fp, actual = (pixels.total(x) for x in (p * y, p * (1 - y), y))
    fn = actual - tp
    return Confusion(tp, fp, fn, pixels.valid() - actual - fp)


def complement(wrong: Array, right: Array) -> Array:
    """Returns `1 - right / (right + wrong)`; a score of 0/0 is 0, so its loss is 1."""
    total = right + wrong
    return jnp.where(total == 0, 1, numerics.divide(wrong, total))


def reduce(
    function: str,
    values: Array,
    pixels: Pixels,
    actual: Array,
    reduction_: str,
    *,
    include_background: bool | None = True,
    absent: str = "score",
) -> Array:
    """Takes the mean over the classes of each image that take part, then over the images.

    Args:
      function: The public name of the loss, for error messages.
      values: The loss of each image and class, in the shape of `pixels.total`.
      pixels: What the values were computed from.
      actual: How much of each class the target holds, in the same shape.
      reduction_: `"mean"`, `"sum"` or `"none"`.
      include_background: Whether class 0 takes part; None: unless classes compete.
      absent: `"skip"` leaves out the classes that the target of an image does not hold.

    Returns:
      A scalar, or one value per (image, class). An image without valid pixels takes no part.
    """
    checks.option(function, "absent", absent, ABSENT)
    checks.option(function, "include_background", include_background, (True, False, None))
    checks.option(function, "reduction", reduction_, reduction.REDUCTIONS)
    part = jnp.broadcast_to(pixels.valid() > 0, values.shape)
    if absent == "skip":
        part = part & (actual != 0)
    weights = pixels.class_weights
    if include_background is None:
        include_background = not pixels.compete
    if not include_background:
        if pixels.axis is None or values.shape[-1] == 1:
            got = "False with a single class"
            checks.fail(ValueError, function, "include_background", got, "True")
        values, part = values[..., 1:], part[..., 1:]
        weights = None if weights is None else weights[1:]
    axis_name = pixels.axis_name if pixels.per_image else None
    if pixels.axis is None:
        return reduction.reduce(function, values, reduction_, mask=part, axis_name=axis_name)
    if weights is not None:
        weights = weights.reshape((1,) * (values.ndim - 1) + (-1,))
    if reduction_ != "mean":
        return reduction.reduce(
            function, values, reduction_, mask=part, weights=weights, axis_name=axis_name
        )
    share = part.astype(values.dtype) * (1 if weights is None else weights)
    total = share.sum(-1)
    images = numerics.divide((share * jnp.where(part, values, 0)).sum(-1), total)
    return reduction.reduce(function, images, "mean", mask=total != 0, axis_name=axis_name)
