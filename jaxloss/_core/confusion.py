"""Primitive 3, the soft confusion: what a region loss needs to know of each image and class.

All sums are of terms that cannot be negative, so that a loss written as `wrong / (right + wrong)`
is exactly 0 at a perfect prediction and never below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import classes, gpu, lines, margin, masks, shares, turned
from jaxloss._core.cost import Cost
from jaxloss._core.images import Form, Frame, Pixels, of_statistics
from jaxloss._core.platforms import ALIKE, Ways, bind
from jaxloss._core.sharding import is_split
from jaxloss._core.sums import Pair, of_sums, pair_of

Array = jax.Array


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
    pairs = _pairs(pixels, beside) if more is None else ALIKE
    if constant and pixels.axis is not None and not is_split(pixels.arrays[0], pixels.axis):
        # By way of the statistics a TPU reads logits of ids less often, and a GPU of many classes.
        form = pixels.form._replace(by_statistics=True)
        with_cost = _with_cost(pixels._replace(form=form), beside, pixels.axis)
        of_three = bind(_terms, with_cost=with_cost, move=None, **fixed)
        pair = pair_of(of_three, frame.summed, len(arrays))
        pays = not maps and not classes.are_few(pixels.arrays[0], pixels.axis)
        pairs = pairs._replace(gpu=pairs.gpu or (pair if pays else None), tpu=pairs.tpu or pair)
    return of_sums(
        terms,
        frame.summed,
        arrays,
        finished,
        others,
        of_chunk,
        of_lines,
        pairs,
        short=pixels.form.activation != "softmax" or (more is None and not of_ids),
    )


def _are_lines(pixels: Pixels, beside: Cost | None) -> bool:
    """Whether a GPU computes with positions on one axis."""
    knows_axis = beside is not None and beside.classes is not None
    axis = pixels.axis
    return axis is not None and not knows_axis and lines.pays(pixels.arrays[0], axis)


def _are_few_lines(pixels: Pixels, beside: Cost | None) -> bool:
    """Whether a GPU sums `more` of few classes, which lie last, with the positions on one axis.

    Else it compiles them for minutes. It reads and writes up to two fifths more, so only these are.
    """
    z, axis = pixels.arrays[0], pixels.axis
    few = axis is not None and classes.are_few(z, axis)
    return few and _are_lines(pixels, beside) and lines.are_tiles(z)


def _pairs(pixels: Pixels, beside: Cost | None) -> Ways:
    """How platforms compute the soft counts of ids or masks, and a cost beside them, and slopes."""
    axis, rank = pixels.axis, pixels.frame.rank
    if pixels.form.without_background:
        return ALIKE
    if pixels.form.activation == "sigmoid" and beside is None:
        summed = pixels.frame.summed
        both = bind(masks.counts, summed=summed), bind(masks.slope_of_counts, summed=summed)
        return Ways(cpu=both)
    if axis is None or axis == 0 or rank < 3 or not pixels.form.has_competing_ids:
        return ALIKE
    formula = None if beside is None else beside.of_target
    if is_split(pixels.arrays[0], axis) or (beside is not None and formula is None):
        return ALIKE
    by_cpu = _by_cpu(pixels, axis, formula)
    fixed = {"half": pixels.form.half, "formula": formula}
    few = turned.pays(pixels.arrays[0], axis)
    if axis == rank - 1 and pixels.arrays[0].shape[axis] > gpu.PLANES:
        return Ways(by_cpu)
    way = turned if few else gpu
    counts, slope = bind(way.counts, **fixed), bind(way.slope_of_counts, **fixed)
    if few or not _are_lines(pixels, beside):
        pair = _pair(counts, slope, pixels, axis)
        on_tpu = turned.pays_on_tpu(pixels.arrays[0], axis, turned.COUNTS_ON_TPU)
        return Ways(by_cpu, pair, pair if on_tpu else None)
    sums, slopes = _pair(counts, slope, pixels, lines.CLASSES)
    return Ways(by_cpu, (lines.in_lines(sums), lines.in_lines(slopes)))


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
    stays = pixels.shape[-1] > classes.UNFILLED if last else pixels.form.activation != "softmax"
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


def _alone(*arrays: Any, form: Form, axis: int | None) -> tuple[Array, ...]:
    return form(*arrays, axis=axis)


def _of_logits(
    *arrays: Any, form: Form, axis: int | None, formula: Callable[..., Array], count: int
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
    return *of_statistics(three, z, ids, mask, axis), values
