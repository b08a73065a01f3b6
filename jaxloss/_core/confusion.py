"""Primitive 3, the soft confusion: what a region loss needs to know of each image and class.

All sums are of terms that cannot be negative, so that a loss written as `wrong / (right + wrong)`
is exactly 0 at a perfect prediction and never below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import (
    checks,
    classes,
    gpu,
    labels,
    lines,
    log_softmax,
    margin,
    masks,
    reduction,
    shares,
    sigmoid,
    turned,
)
from jaxloss._core.cost import Cost
from jaxloss._core.platforms import bind
from jaxloss._core.sharding import is_split
from jaxloss._core.sums import Pair, Written, of_sums

Array = jax.Array
Data = labels.Competing | labels.Independent

FEW = 16  # classes, which do not stay last


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
        weighted = values if weight is None else values * weight
        return self.placed(weighted.sum(self.summed))

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


class _Form(NamedTuple):
    """How probabilities and targets are made of logits and labels.

    Attributes:
      activation: `"softmax"`, `"sigmoid"` or None.
      has_ids: Whether labels are ids, with size 1 at the class axis.
      without_background: Whether class 0 is left out.
      given: The dtype of half precision in which the logits came, or None.
    """

    activation: str | None
    has_ids: bool
    without_background: bool = False
    given: Any = None

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
        if mask is not None:
            z = jnp.where(mask, z, 0)
        if self.has_ids:
            assert axis is not None
            ids, valid = y.squeeze(axis), None if mask is None else mask.squeeze(axis)
            y = labels.one_hot(ids, valid, z, axis)
            if self.activation == "softmax":
                p, fn = jax.nn.softmax(z, axis), margin.missed(z, ids, valid, axis, self.given)
                q = fn + y * (jax.lax.stop_gradient(p) - p) + (1 - y) * (1 - p)
                return self._scored((p * y, p * (1 - y), fn, p, q, y), axis)
        elif mask is not None:
            y = jnp.where(mask, y, 0)
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
    form: _Form
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


def without_first(x: Array, axis: int) -> Array:
    """Leaves out class 0 of an array that broadcasts to the logits."""
    size = x.shape[axis]
    return x if size == 1 else jax.lax.slice_in_dim(x, 1, size, axis=axis)


class Confusion(NamedTuple):
    """Soft counts per (image, class): true and false positives and negatives.

    Attributes:
      tp: `sum p y`.
      fp: `sum p (1 - y)`.
      fn: `sum (1 - p) y`.
      more: Other sums that were asked for.
    """

    tp: Array
    fp: Array
    fn: Array
    more: tuple[Array, ...] = ()

    @property
    def actual(self) -> Array:
        """`sum y`, how much of the class the target holds."""
        return self.tp + self.fn


def read(logits: ArrayLike, targets: ArrayLike, options: Mapping[str, Any]) -> Pixels:
    """Reads logits and labels of a segmentation, whatever their form."""
    scores, axis = checks.images(logits, targets, options["axis"])
    activation, compete = labels.resolve(options["activation"], scores, targets, axis)
    data: Data
    if activation == "softmax":
        data = labels.competing(scores, targets, options)
        form, arrays, mask, weight = _competing(data)
    else:
        each = labels.independent(scores, targets, options)
        form, arrays = _Form(activation, has_ids=False), (each.logits, each.labels, each.mask)
        data, mask, weight = each, each.mask, each.weights
        if compete:  # ids and probabilities
            data = labels.competing(scores, targets, options)
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
) -> tuple[_Form, tuple[Array, Array, Array | None], Array | None, Array | None]:
    """The form and arrays of pixels whose classes compete, their mask and weight."""
    mask, weight = (
        None if x is None else jnp.expand_dims(x, data.axis) for x in (data.mask, data.weights)
    )
    y = jnp.expand_dims(data.labels, data.axis) if data.has_ids else data.labels
    return _Form("softmax", data.has_ids, given=data.given), (data.logits, y, mask), mask, weight


Finish = Callable[..., Array]


def of_counts(
    finish: Finish,
    pixels: Pixels,
    *parameters: Array | None,
    more: Callable[..., tuple[Array, ...]] | None = None,
    maps: tuple[Array, ...] = (),
    scalar: bool = True,
    beside: Cost | None = None,
) -> Array:
    """Returns a function of the soft counts.

    Args:
      finish: `finish(counts, valid, class_weights, *parameters)`; closes over no array.
      pixels: What the counts are of.
      *parameters: Derivatives reach them.
      more: Further values `more(p, 1 - p, y, *maps)` of each pixel, whose sums are `counts.more`.
      maps: What `more` needs besides, scalars or maps of the pixels in the rank of the logits;
        derivatives reach them.
      scalar: Whether the result is a number: then a CPU keeps nothing of the pixels' size.
      beside: A cost of the same logits; its sum is the last of `counts.more`.
    """
    frame, move = pixels.frame, _moved_classes(pixels, beside)
    rest = _further_arrays(pixels, beside)
    of_ids = pixels.form.has_competing_ids
    constant = of_ids and not (beside and beside.of_target)
    fixed: dict[str, Any] = {
        "more": more,
        "counts": (len(pixels.arrays), len(maps)),
        "rank": frame.rank,
        "constant": constant,
    }
    terms = bind(_terms, with_cost=_with_cost(pixels, beside, pixels.axis), move=None, **fixed)
    finished = bind(_of_sums, finish=finish, frame=frame, constant=constant)
    arrays = (*pixels.arrays, pixels.weight, *maps, *rest)
    others = (pixels.valid(), pixels.class_weights, *parameters)
    if not scalar or frame.axis_name is not None:
        return finished(tuple(term.sum(frame.summed) for term in terms(*arrays)), *others)
    of_chunk = None
    if move is not None:
        moved = bind(_terms, with_cost=_with_cost(pixels, beside, move[1]), move=move, **fixed)
        of_chunk = moved, frame._replace(axis=move[1]).summed
    of_lines = None
    if of_ids and more and not maps and _are_few_lines(pixels, beside):
        merged = _with_cost(pixels, beside, lines.CLASSES)
        of_lines = (
            bind(_terms, with_cost=merged, move=None, **fixed),
            frame._replace(rank=lines.CLASSES + 1, axis=lines.CLASSES).summed,
        )
    return of_sums(
        terms,
        frame.summed,
        arrays,
        finished,
        others,
        of_chunk,
        of_lines,
        written=_written(pixels, beside) if more is None else None,
        short=pixels.form.activation != "softmax" or (more is None and not of_ids),
    )


def _are_lines(pixels: Pixels, beside: Cost | None) -> bool:
    """Whether a GPU computes with positions on one axis."""
    knows_axis = beside is not None and beside.classes is not None
    axis = pixels.axis
    return axis is not None and not knows_axis and lines.pays(pixels.arrays[0], axis)


def _are_few_lines(pixels: Pixels, beside: Cost | None) -> bool:
    """Whether other sums are of classes that are written out, which a GPU compiles for minutes.

    In lines it reads and writes up to two fifths more, so nothing else is.
    """
    z, axis = pixels.arrays[0], pixels.axis
    few = axis is not None and classes.are_few(z, axis)
    return few and _are_lines(pixels, beside) and lines.are_tiles(z)


def _written(pixels: Pixels, beside: Cost | None) -> Written | None:
    """How platforms compute the soft counts of ids or masks, and a cost beside them, and slopes."""
    axis, rank = pixels.axis, pixels.frame.rank
    if pixels.form.without_background:
        return None
    if pixels.form.activation == "sigmoid" and beside is None:
        summed = pixels.frame.summed
        both = bind(masks.counts, summed=summed), bind(masks.slope_of_counts, summed=summed)
        return Written(cpu=both)
    if axis is None or axis == 0 or rank < 3 or not pixels.form.has_competing_ids:
        return None
    formula = None if beside is None else beside.of_target
    if is_split(pixels.arrays[0], axis) or (beside is not None and formula is None):
        return None
    by_cpu = _by_cpu(pixels, axis, formula)
    fixed = {"given": pixels.form.given, "formula": formula}
    few = turned.pays(pixels.arrays[0], axis)
    way = turned if few else gpu
    counts, slope = bind(way.counts, **fixed), bind(way.slope_of_counts, **fixed)
    if few or not _are_lines(pixels, beside):
        return Written(_pair(counts, slope, pixels, axis), by_cpu)
    sums, slopes = _pair(counts, slope, pixels, lines.CLASSES)
    return Written((lines.in_lines(sums), lines.in_lines(slopes)), by_cpu)


def _by_cpu(pixels: Pixels, axis: int, formula: Callable[..., Array] | None) -> Pair | None:
    z = pixels.arrays[0]
    if not shares.pays(z, axis):
        return None
    counts, slope = (bind(f, formula=formula) for f in (shares.counts, shares.slope_of_counts))
    if not lines.planes_pay(z, axis):
        return _pair(counts, slope, pixels, axis)
    sums, slopes = _pair(counts, slope, pixels, lines.PLANES)
    return lines.in_planes(sums, axis), lines.in_planes(slopes, axis)


def _pair(
    counts: Callable[..., tuple[Array, ...]],
    slope: Callable[..., tuple[Array]],
    pixels: Pixels,
    axis: int,
) -> Pair:
    """Makes of the counts of each image, and their slope, those of the frame."""
    counts, slope = bind(counts, axis=axis), bind(slope, axis=axis)
    if pixels.frame.per_image:
        return counts, slope
    return bind(_pooled_counts, counts=counts), bind(_slope_of_pooled, slope=slope)


def _pooled_counts(*arrays: Any, counts: Callable[..., tuple[Array, ...]]) -> tuple[Array, ...]:
    return tuple(x.sum(0) for x in counts(*arrays))


def _slope_of_pooled(
    z: Array,
    ids: Array,
    mask: Array | None,
    weight: Array | None,
    *others: Any,
    slope: Callable[..., tuple[Array]],
) -> tuple[Array]:
    of_cost, factors = others[:-4], others[-4:]
    each = (jnp.broadcast_to(x, (z.shape[0], *x.shape)) for x in factors)
    return slope(z, ids, mask, weight, *of_cost, *each)


def _of_sums(
    sums: tuple[Array, ...], *others: Any, finish: Finish, frame: Frame, constant: bool
) -> Array:
    tp, fp, fn, *more = map(frame.placed, sums)
    if constant:
        *more, still = more
        fn = fn + (still - tp)
    return finish(Confusion(tp, fp, fn, tuple(more)), *others)


def _terms(
    *arrays: Any,
    with_cost: Callable[..., tuple[Array, ...]],
    more: Callable[..., tuple[Array, ...]] | None,
    counts: tuple[int, int],
    rank: int,
    move: tuple[int, int] | None,
    constant: bool,
) -> tuple[Array, ...]:
    """What is summed of each pixel. In arrays of some rank the classes may move to another axis.

    They are copied there: to read them where they were takes a CPU longer.

    Where `(1 - p) y` is `constant`, `p y` stands last once more, without derivative: the difference
    of both moves as the former does.
    """
    if move is not None:
        arrays = tuple(
            jax.lax.optimization_barrier(jnp.moveaxis(a, *move))
            if a is not None and jnp.ndim(a) == rank
            else a
            for a in arrays
        )
    of_form, of_more = counts
    weight, *others = arrays[of_form:]
    tp, fp, fn, p, q, y, *of_cost = with_cost(*arrays[:of_form], *others[of_more:])
    further = more(p, q, y, *others[:of_more]) if more else ()
    values = (tp, fp, fn, *further, *of_cost)
    if constant:
        values = (*values, jax.lax.stop_gradient(tp))
    return values if weight is None else tuple(value * weight for value in values)


def _moved_classes(pixels: Pixels, beside: Cost | None) -> tuple[int, int] | None:
    """Where the classes are, and to which axis a chunk should move them; None: they stay.

    A CPU's compiler vectorises the last axis, which a few classes do not fill, and reduces over the
    second of a single image, as a softmax does, ten times slower than over the last but one.
    """
    rank, axis = pixels.frame.rank, pixels.axis
    knows_axis = beside is not None and beside.classes is not None
    if axis in (None, 0, rank - 2) or rank < 3 or knows_axis:
        return None
    last = axis == rank - 1
    stays = pixels.shape[-1] > FEW if last else pixels.form.activation != "softmax"
    return None if stays else (axis, rank - 2)


def _with_cost(
    pixels: Pixels, beside: Cost | None, axis: int | None
) -> Callable[..., tuple[Array, ...]]:
    """Returns what gives the terms of a form and a cost, of classes on some axis."""
    if beside is None:
        return bind(_alone, form=pixels.form, axis=axis)
    formula, count = beside.formula, len(pixels.arrays)
    if not beside.of_target:
        return bind(_of_logits, form=pixels.form, axis=axis, formula=formula, count=count)
    of_position = _of_position(beside, pixels.frame.rank)
    return bind(_of_statistics, axis=axis, formula=formula, of_position=of_position)


def _further_arrays(pixels: Pixels, beside: Cost | None) -> tuple[Any, ...]:
    """Returns the arrays that such terms need behind those of the form."""
    if beside is None:
        return ()
    if not beside.of_target:
        return beside.arrays[1:]
    assert pixels.axis is not None
    each = zip(beside.arrays[3:], _of_position(beside, pixels.frame.rank), strict=True)
    return tuple(jnp.expand_dims(a, pixels.axis) if yes else a for a, yes in each)


def _of_position(beside: Cost, rank: int) -> tuple[bool, ...]:
    """Which arrays of such a cost, behind the statistics, have a number for each position."""
    return tuple(a is not None and jnp.ndim(a) == rank - 1 for a in beside.arrays[3:])


def _alone(*arrays: Any, form: _Form, axis: int | None) -> tuple[Array, ...]:
    return form(*arrays, axis=axis)


def _of_logits(
    *arrays: Any, form: _Form, axis: int | None, formula: Callable[..., Array], count: int
) -> tuple[Array, ...]:
    return *form(*arrays[:count], axis=axis), formula(arrays[0], *arrays[count:])


def _of_statistics(
    z: Array,
    ids: Array,
    mask: Array | None,
    *rest: Any,
    axis: int,
    formula: Callable[..., Array],
    of_position: tuple[bool, ...],
) -> tuple[Array, ...]:
    """The terms of a form and a cost, which both need the statistics."""
    ids, mask = ids.squeeze(axis), None if mask is None else mask.squeeze(axis)
    each = zip(rest, of_position, strict=True)
    rest = tuple(a.squeeze(axis) if yes else a for a, yes in each)
    three = margin.statistics(z, ids, mask, axis)
    values = jnp.expand_dims(formula(*three, *rest), axis)
    tp, fp, fn, y = margin.shares(three, z, ids, mask, axis)
    p, q = tp + fp, fn + (1 - y) * (1 - fp)
    return tp, fp, fn, p, q, y, values


def difference(p: Array, q: Array, y: Array) -> Array:
    """Returns `p - y` of probabilities and `q = 1 - p` without a digit less than they have."""
    return jnp.where(y > 0.5, (1 - y) - q, p - y)
