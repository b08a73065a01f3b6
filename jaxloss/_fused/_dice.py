"""Dice and cross-entropy as a function of sums over the upsampled pixels."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import numerics
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss._core.scores import complement
from jaxloss._fused import _cost, _pass, _rows
from jaxloss._fused._pass import Arrays

Array = jax.Array


def counts(squared: bool | str, z: Array, ids: Array, step: Array, arrays: Arrays) -> Arrays:
    """Returns what Dice and cross-entropy need to know of some pixels.

    Of each image and class: `right`, twice the overlap of `p` and `y`; `wrong`, what of their sizes
    is no overlap, in terms that cannot be negative; `actual`, how much of it the target holds. Of
    all pixels: `entropy`.
    """
    # Once for both: a compiler does not see that two such comparisons in a loop are the same.
    seen = _cost.compared(z, None, ids, step)
    mine = seen.hit.astype(z.dtype)
    target = jnp.exp(seen.target)
    total = seen.beside + target
    weight = arrays["factors"] * (ids != _cost.MASKED).astype(z.dtype)
    bad = (ids == -1) | (ids == z.shape[-1])
    weight = weight * jnp.where(bad, jnp.nan, jnp.ones_like(weight))
    power = 2 if squared else 1
    right = 2 * (target / total) ** (2 if squared == "counts" else 1)
    missed = (seen.beside / total) ** power  # 1 - p of the target, which does not cancel like this
    pixels = tuple(range(1, z.ndim - 1))
    of_class = lambda values: (values[..., None] * mine).sum(pixels)
    wrong = ((weight / total**power)[..., None] * seen.away**power).sum(pixels)
    return {
        "right": of_class(weight * right),
        "wrong": wrong + of_class(weight * missed),
        "actual": of_class(weight),
        "entropy": (arrays["factors"] * _cost.of_compared(seen, z, None, ids, arrays)).sum(),
    }


class Options(NamedTuple):
    """The options by which the loss follows from the sums."""

    per_image: bool
    include_background: bool
    absent: str
    reduction: str
    axis_name: AxisName | None


def _finish(options: Options, sums: Arrays, others: Arrays) -> Array:
    """Returns the loss.

    Args:
      options: How it follows from the sums.
      sums: Those of `counts`.
      others: `smooth`, `dice_weight`, `cross_entropy_weight`; `valid`, the weight of each
        image's pixels; `count`, what the cross-entropy is divided by; `class_weights`, if any.
    """
    right, wrong, actual = (sums[name] for name in ("right", "wrong", "actual"))
    valid, weights = others["valid"][:, None], others.get("class_weights")
    if not options.per_image:
        right, wrong, actual, valid = (
            everywhere(a.sum(0, keepdims=True), options.axis_name)
            for a in (right, wrong, actual, valid)
        )
    values = complement(wrong, right + others["smooth"])
    part = jnp.zeros_like(values, bool) | (valid > 0)
    if options.absent == "skip":
        part &= actual != 0
    if not options.include_background:
        values, part = values[:, 1:], part[:, 1:]
        weights = None if weights is None else weights[1:]
    weight = part.astype(values.dtype)
    weight = weight if weights is None else weight * weights[None]
    values, total = (weight * jnp.where(part, values, 0)).sum(-1), weight.sum(-1)
    axis_name = options.axis_name if options.per_image else None
    if options.reduction == "sum":
        dice = everywhere(values.sum(), axis_name)
    else:
        images = numerics.divide(values, total)
        dice = numerics.divide(
            everywhere(images.sum(), axis_name),
            everywhere((total != 0).astype(images.dtype).sum(), axis_name),
        )
    entropy = everywhere(sums["entropy"], options.axis_name)
    entropy = numerics.divide(entropy, everywhere(others["count"], options.axis_name))
    return others["dice_weight"] * dice + others["cross_entropy_weight"] * entropy


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def of_sums(
    options: Options,
    of_pixels: Callable[..., Arrays],
    align_corners: bool,
    arrays: Arrays,
    ids: Array,
    others: Arrays,
) -> Array:
    """Returns the loss as a function of the sums over all pixels.

    Its derivative passes over the pixels again, which then know how much each sum counts.
    """
    return _finish(options, _rows.sums(of_pixels, align_corners, arrays, ids), others)


def _of_sums_jvp(
    options: Options,
    of_pixels: Callable[..., Arrays],
    align_corners: bool,
    primals: tuple[Arrays, Array, Arrays],
    tangents: tuple[Any, Any, Any],
) -> tuple[Array, Array]:
    arrays, ids, others = primals
    sums = _rows.sums(of_pixels, align_corners, arrays, ids)
    directions = _pass.moving(tangents[2])
    now = {name: others[name] for name in directions}
    value, along = jax.jvp(
        lambda moved: _finish(options, sums, others | moved), (now,), (directions,)
    )
    directions = _pass.moving(tangents[0])
    if directions:
        slopes = {
            f"by_{name}": a for name, a in jax.grad(_finish, 1)(options, sums, others).items()
        }
        one_pass = functools.partial(
            _rows.with_slopes, functools.partial(_weighted, of_pixels), align_corners
        )

        def weighted(moved: Arrays) -> Array:
            return _pass.total(one_pass, None, arrays | slopes | moved, ids)

        now = {name: arrays[name] for name in directions}
        part = jax.jvp(weighted, (now,), (directions,))[1]
        along += everywhere(part, options.axis_name)
    return value, along


of_sums.defjvp(_of_sums_jvp, symbolic_zeros=True)


def _weighted(
    of_pixels: Callable[..., Arrays], z: Array, ids: Array, step: Array, arrays: Arrays
) -> Arrays:
    """The sums, each times the slope by it."""
    sums = of_pixels(z, ids, step, arrays)
    return {"total": jnp.stack([(arrays[f"by_{k}"] * a).sum() for k, a in sums.items()]).sum()}
