"""Images as a region loss reads them: pixels with probabilities, targets and weights.

Labels of every form end in one place, and so does the choice of what is summed: the pixels of an
image or of the batch, for each class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import (
    checks,
    labels,
    log_softmax,
    margin,
    numerics,
    reading,
    reduction,
    sigmoid,
)

Array = jax.Array
Data = labels.Competing | labels.Independent


class Frame(NamedTuple):
    """Which pixels are summed: those of an image, or of the batch.

    Attributes:
      rank: How many axes the pixels have, that of the classes included.
      axis: The class axis, or None.
      per_image: Whether sums keep the images apart.
      axis_name: A mesh axis over which pooled sums are global.
    """

    rank: int
    axis: int | None
    per_image: bool
    axis_name: reduction.AxisName | None

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes of one image's pixels."""
        image = 1 if self.axis == 0 else 0
        return tuple(i for i in range(self.rank) if i not in (self.axis, image))

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes over which pixels are summed."""
        if self.per_image:
            return self.spatial
        return tuple(i for i in range(self.rank) if i != self.axis)

    def total(self, values: Array, weight: Array | None = None) -> Array:
        """Sums over the pixels: `[B, C]`, `[C]` if pooled, `[B]` or `[]` without classes."""
        return self.placed(numerics.times(values, weight).sum(self.summed))

    def placed(self, sums: Array) -> Array:
        """Gives sums over an image's pixels, or the batch's, their place."""
        if not self.per_image:
            return reduction.everywhere(sums, self.axis_name)
        return sums.T if self.axis == 0 else sums

    def over_pixels(self, values: Array) -> Array:
        """Shapes what `total` gave so that it broadcasts against the pixels."""
        values = values.T if self.per_image and self.axis == 0 else values
        return jnp.expand_dims(values, self.summed)

    def size(self, like: Array, weight: Array | None) -> Array:
        """The (weighted) number of pixels of an array; broadcasts to the shape of `total`."""
        if weight is None:
            size = float(math.prod(like.shape[i] for i in self.summed))  # beyond int32 too
            return self.total(jnp.ones_like(like, shape=(1,) * self.rank) * size)
        sizes = [n if i in self.summed else 1 for i, n in enumerate(like.shape)]
        shape = jnp.broadcast_shapes(weight.shape, tuple(sizes))
        return self.total(jnp.broadcast_to(weight, shape))


class Form(NamedTuple):
    """How probabilities and targets are made of logits and labels.

    Attributes:
      activation: `"softmax"`, `"sigmoid"` or None.
      has_ids: Whether labels are ids, with size 1 at the class axis.
      without_background: Whether class 0 is left out.
      by_statistics: Whether what a position's target needs of all classes comes first.
      half: The dtype of half precision in which the logits came, or None.
    """

    activation: str | None
    has_ids: bool
    without_background: bool = False
    by_statistics: bool = False
    half: Any = None

    @property
    def has_competing_ids(self) -> bool:
        """Whether labels are ids under a softmax."""
        return self.has_ids and self.activation == "softmax"

    def __call__(
        self, z: Array, y: Array, mask: Array | None, *, axis: int | None
    ) -> tuple[Array, ...]:
        """Returns `p y`, `p (1 - y)`, `(1 - p) y`, `p`, `1 - p` and `y`; all 0 where masked.

        Of ids under a softmax the third is a constant for the derivative: `_of_sums` adds it.
        """
        z = numerics.masked(z, mask)
        if self.has_ids:
            assert axis is not None
            ids, valid = y.squeeze(axis), None if mask is None else mask.squeeze(axis)
            if self.by_statistics:
                three = margin.statistics(z, ids, valid, axis)
                tp, fp, fn, *rest = of_statistics(three, z, ids, valid, axis)
                return self._scored((tp, fp, jax.lax.stop_gradient(fn), *rest), axis)
            y = labels.one_hot(ids, valid, z, axis)
            if self.activation == "softmax":
                p, fn = jax.nn.softmax(z, axis), margin.missed(z, ids, valid, axis, self.half)
                q = fn + y * (jax.lax.stop_gradient(p) - p) + (1 - y) * (1 - p)
                return self._scored((p * y, p * (1 - y), fn, p, q, y), axis)
        else:
            y = numerics.masked(y, mask)
        p, q = z, 1 - z
        if self.activation == "sigmoid":
            p, q = sigmoid.probability_pair(z)
        elif self.activation == "softmax":
            assert axis is not None
            p, q = log_softmax.probability_pair(z, axis)
        return self._scored((p * y, p * (1 - y), q * y, p, q, y), axis)

    def _scored(self, values: tuple[Array, ...], axis: int | None) -> tuple[Array, ...]:
        """Leaves out the background."""
        if not self.without_background or axis is None:
            return values
        return tuple(without_first(x, axis) for x in values)


class Pixels(NamedTuple):
    """The pixels of segmentations, and how much each counts.

    Attributes:
      data: Their logits and labels as a distribution loss reads them.
      form: Makes probabilities and targets of `arrays`.
      arrays: The logits, and the labels and the mask in their rank.
      weight: `where` and `weights` in one, broadcasting to the logits; None: all 1.
      class_weights: One number per class, shape `[C]`; None: all 1.
      compete: Whether classes compete, so that class 0 is the background of the others.
      frame: Which of them are summed.
    """

    data: Data
    form: Form
    arrays: tuple[Array, Array, Array | None]
    weight: Array | None
    class_weights: Array | None
    compete: bool
    frame: Frame

    @property
    def axis(self) -> int | None:
        """The class axis, or None."""
        return self.frame.axis

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes of one image's pixels."""
        return self.frame.spatial

    @property
    def dtype(self) -> Any:
        """The dtype of the probabilities."""
        return self.arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the probabilities."""
        dropped = [i == self.axis and self.form.without_background for i in range(self.frame.rank)]
        return tuple(n - d for n, d in zip(self.arrays[0].shape, dropped, strict=True))

    def both(self) -> tuple[Array, Array]:
        """Returns probabilities and targets; a bad id's target is NaN."""
        *_, p, _, y = self.form(*self.arrays, axis=self.axis)
        return p, y

    def targets(self) -> Array:
        """Returns the targets alone."""
        return self._replace(form=self.form._replace(activation=None)).both()[1]

    def total(self, values: Array) -> Array:
        """Sums over the valid pixels: `[B, C]`, `[C]` if pooled, `[B]` or `[]` without classes."""
        return self.frame.total(values, self.weight)

    def valid(self) -> Array:
        """The (weighted) number of valid pixels; broadcasts to the shape of `total`."""
        return self.frame.size(self.arrays[0], self.weight)

    def foreground(self, include_background: bool | None) -> Pixels:
        """Leaves out class 0 where it is not scored; None: where classes compete."""
        checks.option("include_background", include_background, (True, False, None))
        if include_background or (include_background is None and not self.compete):
            return self
        if self.axis is None or self.shape[self.axis] == 1:
            got = "False with a single class"
            checks.fail(ValueError, "include_background", got, "True")
        return self._replace(
            form=self.form._replace(without_background=True),
            weight=None if self.weight is None else without_first(self.weight, self.axis),
            class_weights=None if self.class_weights is None else self.class_weights[1:],
        )


def of_statistics(
    three: tuple[Array, Array, Array], z: Array, ids: Array, mask: Array | None, axis: int
) -> tuple[Array, ...]:
    """Returns what a `Form` does, of which the derivative reaches all."""
    tp, fp, fn, y = margin.shares(three, z, ids, mask, axis)
    return tp, fp, fn, tp + fp, fn + (1 - y) * (1 - fp), y


def without_first(x: Array, axis: int) -> Array:
    """Leaves out class 0 of an array that broadcasts to the logits."""
    size = x.shape[axis]
    return x if size == 1 else jax.lax.slice_in_dim(x, 1, size, axis=axis)


def read(logits: ArrayLike, targets: ArrayLike, options: Mapping[str, Any]) -> Pixels:
    """Reads logits and labels of a segmentation, whatever their form."""
    scores, axis = checks.images(logits, targets, options["axis"])
    activation, compete = reading.resolve(options["activation"], scores, targets, axis)
    data: Data
    if activation == "softmax":
        data = reading.competing(scores, targets, options)
        form, arrays, mask, weight = _competing(data)
    else:
        each = reading.independent(scores, targets, options)
        form, arrays = Form(activation, has_ids=False), (each.logits, each.labels, each.mask)
        data, mask, weight = each, each.mask, each.weights
        if compete:  # ids and probabilities
            data = reading.competing(scores, targets, options)
    if mask is not None:
        weight = mask.astype(data.logits.dtype) * (1 if weight is None else weight)
    factors = data.class_weights
    return Pixels(
        data=data._replace(are_probabilities=activation is None),
        form=form,
        arrays=arrays,
        weight=weight,
        class_weights=None if factors is None else factors.reshape(-1),
        compete=compete,
        frame=Frame(scores.ndim, axis, options["per_image"], options["axis_name"]),
    )


def _competing(
    data: labels.Competing,
) -> tuple[Form, tuple[Array, Array, Array | None], Array | None, Array | None]:
    """The form and arrays of pixels whose classes compete, their mask and weight."""
    mask, weight = (
        None if x is None else jnp.expand_dims(x, data.axis) for x in (data.mask, data.weights)
    )
    y = jnp.expand_dims(data.labels, data.axis) if data.has_ids else data.labels
    return Form("softmax", data.has_ids, half=data.half), (data.logits, y, mask), mask, weight


def difference(p: Array, q: Array, y: Array) -> Array:
    """Returns `p - y` of probabilities and `q = 1 - p` without a digit less than they have."""
    return jnp.where(y > 0.5, (1 - y) - q, p - y)
