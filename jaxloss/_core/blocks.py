"""One axis of an array in blocks, and what each block must know of the others.

Where the rows of an image lie on several devices, each block stays on its device. Of a line that
crosses the blocks the others need to know only which label it begins and ends with in each of them,
and where that label changes first and last: two numbers for each block and line, no matter how many
rows the blocks have. Blocks of a reshaped array are shared out by `jit` without a word; inside
`shard_map` each device has one.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

Array = jax.Array
AxisName = str | tuple[str, ...]

_DEVICES = 16  # a number of blocks that the usual numbers of devices divide
_ROWS = 8  # of a block at least: with fewer, the lines themselves are sooner sent


def far(dtype: Any) -> int | float:
    """Stands for infinity; a number of steps, or a squared distance, can be added to it."""
    if jnp.issubdtype(dtype, jnp.integer):
        return 2 ** (jnp.iinfo(dtype).bits - 2)
    return float(jnp.finfo(dtype).max) / 4


def steps_dtype(size: int) -> Any:
    """The dtype that counts steps along a line."""
    return jnp.int16 if size <= far(jnp.int16) else jnp.int32


def number(size: int, devices: int = 1) -> int:
    """Into how many blocks to part an axis: a divisor near the root of its size.

    It is a multiple of `devices`, over which the axis is known to be split. Where nothing is known
    many devices should have whole blocks.
    """
    most = max(devices, size // _ROWS)
    divisors = [n for n in range(devices, most + 1, devices) if size % n == 0]
    return min(divisors, key=lambda n: (-math.gcd(n, _DEVICES), abs(n - math.sqrt(size))))


def shards(x: Array, axis: int) -> int:
    """Over how many devices an axis is split, as far as types tell: on meshes of Explicit axes."""
    sharding = jax.typeof(x).sharding
    names = sharding.spec[axis] or ()
    names = names if isinstance(names, tuple) else (names,)
    return math.prod(sharding.mesh.shape[name] for name in names)


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


def beyond(blocks: Array, axis: int, axis_name: AxisName | None = None) -> tuple[Array, Array]:
    """Counts the steps from the first and the last row of each block to the other blocks.

    Args:
      blocks: Boolean or integer labels, whose product with the rows of a block has 32 bits. The
        blocks are along `axis`, their rows along the next.
      axis: Not negative.
      axis_name: The mesh axis over which `shard_map` has split the rows, one block on each device.

    Returns:
      How far above the first and below the last row of a block the nearest unlike element is
      outside of it, shaped like these rows; `far` if there is none.
    """
    count, size = blocks.shape[axis : axis + 2]
    first, last = (lax.index_in_dim(blocks, n, axis + 1, keepdims=False) for n in (0, -1))
    me = jnp.arange(count)
    if axis_name is not None:
        me, count = lax.axis_index(axis_name)[None], lax.axis_size(axis_name)
    dtype = steps_dtype(count * size)
    if count == 1:
        nothing = jnp.full_like(first, far(dtype), dtype)
        return nothing, nothing
    row = jnp.arange(size).reshape([size if a == axis + 1 else 1 for a in range(blocks.ndim)])
    top, bottom = (jnp.expand_dims(x, axis + 1) for x in (first, last))
    # No first change is at row 0, no last one at the last row: these stand for none.
    up = jnp.min(jnp.where(blocks != top, row, size), axis + 1) % size
    down = jnp.max(jnp.where(blocks != bottom, row, -1), axis + 1) % size
    # Label and change become one number, the difference of two of which fits too.
    bits = 1 if blocks.dtype == bool else jnp.iinfo(blocks.dtype).bits
    packed_dtype = jnp.int16 if size << bits <= 2**15 else jnp.int32
    first, last = (x.astype(packed_dtype) * size for x in (first, last))
    begins, ends = first + up.astype(packed_dtype), last + down.astype(packed_dtype)
    if axis_name is None:
        begins, ends = (whole(x, (axis,)) for x in (begins, ends))
    else:
        begins, ends = (lax.all_gather(x, axis_name, axis=axis, tiled=True) for x in (begins, ends))

    def nearest(packed: Array, label: Array, sign: int) -> Array:
        """From the edge of a block, of this label, to the blocks above (-1) or below (1) it."""
        # The first use is of two operands: what is done to `packed` alone would be done before the
        # exchange, and its result be sent.
        change = jnp.expand_dims(packed, axis) - jnp.expand_dims(label, axis + 1)
        alike = (change >= 0) & (change < size)
        change = change.astype(jnp.int32)
        inwards = change if sign > 0 else size - 1 - change  # from the edge that faces this block
        inwards = jnp.where(alike, jnp.where(inwards == 0, far(jnp.int32), inwards), 0)
        apart = sign * (jnp.arange(count)[None] - me[:, None])
        apart = apart.reshape(*apart.shape, *(1,) * (label.ndim - axis - 1))
        apart = jnp.expand_dims(apart, range(axis))
        steps = jnp.where(apart > 0, inwards + (apart - 1) * size + 1, far(jnp.int32))
        return jnp.minimum(jnp.min(steps, axis + 1), far(dtype)).astype(dtype)

    return nearest(ends, first, -1), nearest(begins, last, 1)
