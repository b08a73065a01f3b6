"""Where arrays lie on the devices of a mesh, as far as their types tell."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Array = jax.Array

_MANY = 16  # blocks, where they are only supposed to be of use: what is exchanged grows with them


def is_split(x: Array, axis: int) -> bool:
    """Whether an axis is known to be sharded: that of a mesh with Explicit axes."""
    return jax.typeof(x).sharding.spec[axis] is not None


def shards(x: Array, axis: int) -> int:
    """Over how many devices an axis is split, as far as types tell: on meshes of Explicit axes."""
    sharding = jax.typeof(x).sharding
    names = sharding.spec[axis] or ()
    names = names if isinstance(names, tuple) else (names,)
    return math.prod(sharding.mesh.shape[name] for name in names)


def blocks(x: Array, axis: int) -> int:
    """Into how many blocks to part an axis, so that each lies on one device.

    Where types do not tell how an axis is split, the program's devices: any of them may have a part
    of it, as far as they divide it.
    """
    known = shards(x, axis)
    if known > 1:
        return known
    mesh = jax.typeof(x).sharding.mesh
    kinds = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    silent = math.prod(size for size, kind in kinds if kind == AxisType.Auto)
    count = math.gcd(x.shape[axis], jax.device_count() if mesh.empty else silent)
    while count > _MANY and count % 2 == 0:
        count //= 2
    return count


def placed(like: Array) -> NamedSharding | None:
    """Where an array lies on a mesh of Explicit axes, as `out_sharding` wants it; else None."""
    sharding = jax.typeof(like).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def whole(x: Array, axes: Sequence[int]) -> Array:
    """Brings together what is split along some axes, as far as types tell."""
    spec = jax.typeof(x).sharding.spec
    if all(spec[axis] is None for axis in axes):
        return x
    return jax.sharding.reshard(
        x, PartitionSpec(*(None if axis in axes else name for axis, name in enumerate(spec)))
    )


def like(x: Array, y: Array) -> Array:
    """Places `y` like `x`, as far as types tell."""
    sharding = jax.typeof(x).sharding
    same = jax.typeof(y).sharding.spec == sharding.spec
    return y if same else jax.sharding.reshard(y, sharding.spec)


def beside(x: Array, y: Any, axis: int | None = None) -> Any:
    """Places `y`, if not None, which broadcasts to `x` and may lack `axis`, where `x` lies.

    JAX places the result of one operation on arrays that lie apart, but refuses a loop over them.
    Without `jax.set_mesh` nothing is moved.
    """
    if y is None or jax.sharding.get_abstract_mesh().empty:
        return y
    spec = jax.typeof(x).sharding.spec
    if y.ndim < x.ndim and axis is not None:
        spec = [name for i, name in enumerate(spec) if i != axis]
    names = tuple(None if n == 1 else name for n, name in zip(y.shape, spec, strict=False))
    same = tuple(jax.typeof(y).sharding.spec) == names
    return y if same else jax.sharding.reshard(y, PartitionSpec(*names))


def varying(*arrays: Any) -> tuple[Any, ...]:
    """Returns arrays that all vary over the mesh axes over which one of them does.

    A gradient by an array that the devices of a `shard_map` share would be the sum of theirs.
    """
    zeros = [jnp.zeros_like(a, jnp.float32, shape=()) for a in arrays if a is not None]
    zero = functools.reduce(jnp.add, zeros)  # adding it is no operation to the compiler
    floating = (a is not None and jnp.issubdtype(a.dtype, jnp.floating) for a in arrays)
    return tuple(
        a + zero.astype(a.dtype) if yes else a for a, yes in zip(arrays, floating, strict=True)
    )
