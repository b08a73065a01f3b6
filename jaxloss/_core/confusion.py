"""Primitive 3, the soft confusion: what a region loss needs to know of each image and class.

All sums are of terms that cannot be negative, so that a loss written as `wrong / (right + wrong)`
is exactly 0 at a perfect prediction and never below.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, labels, lean, numerics, reduction, softmax
from jaxloss._core.lean import Costs

Array = jax.Array
Data = labels.Competing | labels.Independent

ABSENT = ("score", "skip")

FEW = 16  # classes, which a CPU holds first
FEWER = 8  # of which the statistics of a position take as much memory as its logits


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
      form: `form(*data, axis=axis)` gives `p` and `y`, of all pixels or of some.
      data: The logits, and the labels and the mask in their rank.
      source: The logits and labels as a distribution loss reads them.
    """

    p: Array
    y: Array
    weight: Array | None
    class_weights: Array | None
    axis: int | None
    compete: bool
    per_image: bool
    axis_name: reduction.AxisName | None
    form: Callable[..., tuple[Array, Array]] | None = None
    data: tuple[Any, ...] = ()
    source: Data | None = None

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
        return self.placed(sums)

    def placed(self, sums: Array) -> Array:
        """Gives sums over an image's pixels, or the batch's, their place."""
        if not self.per_image:
            return reduction.everywhere(sums, self.axis_name)
        return sums.T if self.axis == 0 else sums

    def spread(self, values: Array) -> Array:
        """Shapes what `total` gave so that it broadcasts against the pixels."""
        values = values.T if self.per_image and self.axis == 0 else values
        return jnp.expand_dims(values, self.summed)

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
    """Soft counts per (image, class): true and false positives and negatives.

    Attributes:
      tp: `sum p y`.
      fp: `sum p (1 - y)`.
      fn: `sum (1 - p) y`.
      tn: `sum (1 - p) (1 - y)`.
      actual: `sum y`, how much of the class the target holds.
      more: Other sums that were asked for.
    """

    tp: Array
    fp: Array
    fn: Array
    tn: Array
    actual: Array
    more: tuple[Array, ...] = ()


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
    scores, axis = checks.images(function, logits, axis)
    activation, compete = labels.resolve(function, activation, scores, targets, axis)
    masks: dict[str, Any] = {"where": where, "weights": weights, "ignore_index": ignore_index}
    source: Data
    if activation == "softmax":
        assert axis is not None
        source = labels.competing(function, scores, targets, axis=axis, **masks)
        form, data, mask, weight = _competing(source)
    else:
        source = each = labels.independent(function, scores, targets, axis=axis, **masks)
        form, data, mask, weight = _independent(each, activation)
        if compete:  # ids and probabilities
            assert axis is not None
            source = labels.competing(function, scores, targets, axis=axis, **masks)
    p, y = form(*data, axis=axis)
    if mask is not None:
        weight = mask.astype(p.dtype) * (1 if weight is None else weight)
    shaped = None
    if class_weights is not None:
        shaped = labels.per_class(function, "class_weights", class_weights, p, axis)
    return Pixels(
        p=p,
        y=y,
        weight=weight,
        class_weights=None if shaped is None else shaped.reshape(-1),
        axis=axis,
        compete=compete,
        per_image=per_image,
        axis_name=axis_name,
        form=form,
        data=data,
        source=source._replace(class_weights=shaped),
    )


def _competing(
    read: labels.Competing,
) -> tuple[Callable[..., tuple[Array, Array]], tuple[Any, ...], Array | None, Array | None]:
    axis, has_ids = read.axis, read.has_ids

    def form(z: Array, y: Array, mask: Array | None, *, axis: int) -> tuple[Array, Array]:
        z = z if mask is None else jnp.where(mask, z, 0)
        if has_ids:
            valid = None if mask is None else mask.squeeze(axis)
            y = labels.one_hot(y.squeeze(axis), valid, z, axis)
        elif mask is not None:
            y = jnp.where(mask, y, 0)
        return jax.nn.softmax(z, axis), y

    mask, weight = (
        None if x is None else jnp.expand_dims(x, axis) for x in (read.mask, read.weights)
    )
    y = jnp.expand_dims(read.labels, axis) if has_ids else read.labels
    return form, (read.logits, y, mask), mask, weight


def _independent(
    read: labels.Independent, activation: str | None
) -> tuple[Callable[..., tuple[Array, Array]], tuple[Any, ...], Array | None, Array | None]:
    def form(z: Array, y: Array, mask: Array | None, *, axis: int | None) -> tuple[Array, Array]:
        if mask is not None:
            z, y = jnp.where(mask, z, 0), jnp.where(mask, y, 0)
        return z if activation is None else jax.nn.sigmoid(z), y

    return form, (read.logits, read.labels, read.mask), read.mask, read.weights


def confusion(pixels: Pixels) -> Confusion:
    """Sums the soft counts of each image and class."""
    sums = (pixels.total(term) for term in _terms(pixels.p, pixels.y))
    return _counts(pixels.valid(), *sums)


def _terms(p: Array, y: Array) -> tuple[Array, ...]:
    return p * y, p * (1 - y), y


def _counts(valid: Array, tp: Array, fp: Array, actual: Array, *more: Array) -> Confusion:
    return Confusion(tp, fp, actual - tp, valid - actual - fp, actual, more)


class Beside(NamedTuple):
    """A distribution loss of the same logits and labels, to be added to a score.

    Attributes:
      values: Its values.
      data: What they were read from.
      shares: The factors of the score and of the reduced values.
    """

    values: Costs
    data: Data
    shares: tuple[Array, ...]


def of_counts(
    finish: Callable[..., Array],
    pixels: Pixels,
    *parameters: Array | None,
    more: Callable[..., tuple[Array, ...]] | None = None,
    extra: tuple[Array, ...] = (),
    scalar: bool = True,
    beside: Costs | None = None,
) -> Array:
    """Returns a function of the soft counts.

    Args:
      finish: `finish(counts, valid, class_weights, *parameters)`.
      pixels: What the counts are of.
      *parameters: Derivatives reach them.
      more: Further values `more(p, y, *extra)` of each pixel, whose sums are `counts.more`.
      extra: What `more` needs besides, scalars or maps of the pixels in the rank of the logits;
        derivatives reach them.
      scalar: Whether the result is a number: then a CPU keeps nothing of the pixels' size.
      beside: Costs of the same logits; their sums are the last of `counts.more`.
    """
    of_form, of_more = len(pixels.data), len(extra)
    moved = pixels._replace(axis=1) if _have_few_classes(pixels, beside) else pixels
    form, rest = _with_costs(pixels, beside, moved.axis)

    def terms(*data: Any) -> tuple[Array, ...]:
        if moved is not pixels:
            data = tuple(
                jnp.moveaxis(a, -1, 1) if a is not None and jnp.ndim(a) == pixels.p.ndim else a
                for a in data
            )
        weight, *others = data[of_form:]
        p, *counted = form(*data[:of_form], *others[of_more:])
        y, *cost = counted[2:]
        values = (*counted[:3], *(more(p, y, *others[:of_more]) if more else ()), *cost)
        return values if weight is None else tuple(value * weight for value in values)

    def finished(sums: tuple[Array, ...], *others: Any) -> Array:
        return finish(_counts(others[0], *map(pixels.placed, sums)), *others)

    data = (*pixels.data, pixels.weight, *extra, *rest)
    others = (pixels.valid(), pixels.class_weights, *parameters)
    if scalar and pixels.axis_name is None:
        return lean.of_sums(terms, pixels.summed, data, finished, others, moved.summed)
    return finished(tuple(term.sum(moved.summed) for term in terms(*data)), *others)


def _have_few_classes(pixels: Pixels, beside: Costs | None) -> bool:
    """Whether a chunk should hold the classes first: a CPU's compiler vectorises the last axis."""
    if pixels.axis in (None, 0, 1) or pixels.axis != pixels.p.ndim - 1:
        return False
    knows_axis = beside is not None and beside.classes is not None
    return pixels.p.shape[-1] <= FEW and not knows_axis


def _with_costs(
    pixels: Pixels, costs: Costs | None, axis: int | None
) -> tuple[Callable[..., tuple[Array, ...]], tuple[Any, ...]]:
    """Returns what gives `p`, the terms of the counts and the costs, and its further arguments."""
    form, of_form = pixels.form, len(pixels.data)
    assert form is not None
    if costs is None:

        def alone(*data: Any) -> tuple[Array, ...]:
            p, y = form(*data, axis=axis)
            return p, *_terms(p, y)

        return alone, ()

    if not costs.statistics:

        def of_logits(*data: Any) -> tuple[Array, ...]:
            p, y = form(*data[:of_form], axis=axis)
            return p, *_terms(p, y), costs.cost(data[0], *data[of_form:])

        return of_logits, costs.arguments[1:]

    rest = costs.arguments[3:]
    assert axis is not None
    assert pixels.axis is not None
    of_position = [a is not None and jnp.ndim(a) == pixels.p.ndim - 1 for a in rest]

    def of_statistics(z: Array, ids: Array, mask: Array | None, *rest: Any) -> tuple[Array, ...]:
        ids, mask = ids.squeeze(axis), None if mask is None else mask.squeeze(axis)
        each = zip(rest, of_position, strict=True)
        rest = tuple(a.squeeze(axis) if yes else a for a, yes in each)
        rows = softmax.statistics(z, ids, mask, axis)
        right, wrong, y = softmax.shares(rows, z, ids, mask, axis)
        return right + wrong, right, wrong, y, jnp.expand_dims(costs.cost(*rows, *rest), axis)

    each = zip(rest, of_position, strict=True)
    return of_statistics, tuple(jnp.expand_dims(a, pixels.axis) if yes else a for a, yes in each)


def score(
    function: str,
    loss: Callable[..., Array],
    pixels: Pixels,
    reduction_: str,
    *parameters: Array,
    more: Callable[..., tuple[Array, ...]] | None = None,
    extra: tuple[Array, ...] = (),
    include_background: bool | None = True,
    absent: str = "score",
    beside: Beside | None = None,
) -> Array:
    """Returns the reduced loss of a function `loss(counts, *parameters)` of the soft counts.

    It is one of each image and class. What stands `beside` it is computed in the same pass over
    the logits where it can be. The other arguments are those of `of_counts` and `reduce`.
    """

    def finish(counts: Confusion, valid: Array, weights: Array | None, *parameters: Array) -> Array:
        return _reduce(
            function,
            loss(counts, *parameters),
            pixels,
            valid,
            weights,
            counts.actual,
            reduction_,
            include_background=include_background,
            absent=absent,
        )

    def with_costs(counts: Confusion, *others: Any) -> Array:
        share, other, count = others[-3:]
        value = finish(counts._replace(more=counts.more[:-1]), *others[:-3])
        return share * value + other * numerics.divide(counts.more[-1].sum(), count)

    scalar = reduction_ in ("mean", "sum")
    options: dict[str, Any] = {"more": more, "extra": extra, "scalar": scalar}
    if beside is None:
        return of_counts(finish, pixels, *parameters, **options)
    values, (share, other) = beside.values, beside.shares
    is_lean = values.statistics and pixels.axis is not None and pixels.p.shape[pixels.axis] > FEWER
    if scalar and (is_lean or values.arguments[0] is pixels.data[0]) and pixels.axis_name is None:
        count = reduction.denominator(values, reduction_, beside.data)
        parameters = (*parameters, share, other, count)
        return of_counts(with_costs, pixels, *parameters, **options, beside=values)
    mean = reduction.reduce_labelled(function, values, reduction_, beside.data, pixels.axis_name)
    return share * of_counts(finish, pixels, *parameters, **options) + other * mean


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
    return _reduce(
        function,
        values,
        pixels,
        pixels.valid(),
        pixels.class_weights,
        actual,
        reduction_,
        include_background=include_background,
        absent=absent,
    )


def _reduce(
    function: str,
    values: Array,
    pixels: Pixels,
    valid: Array,
    weights: Array | None,
    actual: Array,
    reduction_: str,
    *,
    include_background: bool | None,
    absent: str,
) -> Array:
    """The same, with what is valid and the weights of the classes apart from the pixels."""
    checks.option(function, "absent", absent, ABSENT)
    checks.option(function, "include_background", include_background, (True, False, None))
    checks.option(function, "reduction", reduction_, reduction.REDUCTIONS)
    part = jnp.zeros_like(values, bool) | (valid > 0)  # sharded as the values
    if absent == "skip":
        part = part & (actual != 0)
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
