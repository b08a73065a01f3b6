"""Sums over chunks, computed together with their slopes in one pass."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxloss._core.platforms import by_platform
from jaxloss._core.reduction import AxisName, everywhere

Array = jax.Array
Arrays = dict[str, Array]

OF_CLASSES = ("features", "kernel", "bias", "class_weights")  # slopes are sums over the classes


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def total(
    one_pass: Callable[..., Arrays], class_axis_name: AxisName | None, arrays: Arrays, ids: Array
) -> Array:
    """Returns the `total` of a pass `one_pass(moving, arrays, ids)`.

    It gives the total and its slopes by the arrays that are named as `moving`, each in the shape of
    its array. All is done by `jax.custom_jvp`, for both modes and any order.
    """
    return one_pass((), arrays, ids)["total"]


def _total_jvp(
    one_pass: Callable[..., Arrays],
    class_axis_name: AxisName | None,
    primals: tuple[Arrays, Array],
    tangents: tuple[Any, Any],
) -> tuple[Array, Array]:
    directions = moving(tangents[0])
    slopes = one_pass(tuple(directions), *primals)
    along = jnp.zeros_like(slopes["total"])
    for name, t in directions.items():
        # In the tangent's dtype, so that the slopes of bfloat16 are bfloat16.
        product = (slopes[name].astype(t.dtype) * t).astype(along.dtype).sum()
        along += everywhere(product, class_axis_name) if name in OF_CLASSES else product
    return slopes["total"], along


total.defjvp(_total_jvp, symbolic_zeros=True)


def moving(tangents: dict[str, Any]) -> Arrays:
    """Returns the tangents of what moves."""
    return {name: t for name, t in tangents.items() if not isinstance(t, SymbolicZero)}


def with_setting(run: Callable[..., Any], cpu: Any, default: Any, *operands: Any) -> Any:
    """Returns `run(setting, *operands)` with the setting of the platform."""
    if cpu == default:
        return run(cpu, *operands)
    on_cpu, elsewhere = functools.partial(run, cpu), functools.partial(run, default)
    return by_platform(*operands, cpu=on_cpu, default=elsewhere)


def varying(arrays: Arrays, like: Iterable[Array], dtype: Any) -> Arrays:
    """Returns arrays that vary over the mesh axes over which one of those `like` varies.

    A slope by an array that the devices of a `shard_map` share would be the sum of theirs.
    """
    zeros = (jnp.zeros_like(a, dtype, shape=()) for a in like)
    zero = functools.reduce(jnp.add, zeros)  # adding it is no operation to the compiler
    return {name: a + zero.astype(a.dtype) for name, a in arrays.items()}


def pieces(length: int, n: int) -> int:
    """Returns a number of pieces, at least `n`, into which a length is cut without a rest.

    If there is none below `2 n`, it is `n`.
    """
    n = max(1, min(n, length))
    return next((k for k in range(n, min(2 * n, length + 1)) if length % k == 0), n)
