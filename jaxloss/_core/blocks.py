"""One axis of an array in blocks, and what each block must know of the others.

Where the rows of an image lie on several devices, each block stays on its device. Of a line that
crosses the blocks the others need to know only which label it begins and ends with in each of them,
and where that label changes first and last: two numbers for each block and line, no matter how many
rows the blocks have. Blocks of a reshaped array are shared out by `jit` without a word; inside
`shard_map` each device has one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import sharding
from jaxloss._core.reduction import AxisName

Array = jax.Array


def far(dtype: Any) -> int | float:
    """Stands for infinity; a number of steps, or a squared distance, can be added to it."""
    if jnp.issubdtype(dtype, jnp.integer):
        return 2 ** (jnp.iinfo(dtype).bits - 2)
    return float(jnp.finfo(dtype).max) / 4


def steps_dtype(size: int) -> Any:
    """The dtype that counts steps along a line."""
    return jnp.int16 if size < far(jnp.int16) else jnp.int32


def beyond(blocks: Array, axis: int, axis_name: AxisName | None = None) -> tuple[Array, Array]:
    """Counts the steps from the first and the last row of each block to the other blocks.

    Args:
      blocks: Boolean or integer labels, whose product with the rows of a block has 32 bits. The
        blocks are along `axis`, their rows along the next.
      axis: Not negative.
      axis_name: The mesh axis over which `shard_map` has split the rows, one block on each device.

    Returns:
      How far above the first and below the last row of a block the nearest unlike element is
      outside of it, shaped like these rows; `far` or more if there is none.
    """
    count, size = blocks.shape[axis : axis + 2]
    me = jnp.arange(count, dtype=jnp.int32)
    if axis_name is not None:
        me, count = lax.axis_index(axis_name)[None], lax.axis_size(axis_name)
    dtype = steps_dtype(count * size)
    first, last = (lax.index_in_dim(blocks, n, axis + 1) for n in (0, -1))
    if count == 1:
        nothing = jnp.full_like(first.squeeze(axis + 1), far(dtype), dtype)
        return nothing, nothing
    row = jnp.arange(size, dtype=dtype)
    row = jnp.expand_dims(row, [a for a in range(blocks.ndim) if a != axis + 1])
    # No first change is at row 0, no last one at the last row: these stand for none.
    up = jnp.min(jnp.where(blocks != first, row, size), axis + 1) % size
    down = jnp.max(jnp.where(blocks != last, row, -1), axis + 1) % size
    # Label and change become one number, the difference of two of which fits too.
    bits = 1 if blocks.dtype == bool else jnp.iinfo(blocks.dtype).bits
    packed = jnp.int16 if size << bits <= 2**15 else jnp.int32
    first, last = (x.squeeze(axis + 1).astype(packed) * size for x in (first, last))
    begins, ends = first + up.astype(packed), last + down.astype(packed)
    if axis_name is None:
        begins, ends = (sharding.whole(x, (axis,)) for x in (begins, ends))
    else:
        begins, ends = (lax.all_gather(x, axis_name, axis=axis, tiled=True) for x in (begins, ends))

    def nearest(packed: Array, label: Array, sign: int) -> Array:
        """From the edge of a block, of this label, to the blocks above (-1) or below (1) it."""
        # The first use is of two operands: what is done to `packed` alone would be done before the
        # exchange, and its result be sent.
        change = jnp.expand_dims(packed, axis) - jnp.expand_dims(label, axis + 1)
        alike = (change >= 0) & (change < size)
        change = change.astype(dtype)
        inwards = change if sign > 0 else size - 1 - change  # from the edge that faces this block
        inwards = jnp.where(alike, jnp.where(inwards == 0, far(dtype), inwards), 0)
        apart = sign * (jnp.arange(count, dtype=jnp.int32)[None] - me[:, None])
        apart = jnp.expand_dims(apart, [*range(axis), *range(axis + 2, change.ndim)])
        between = ((apart - 1) * size + 1).astype(dtype)
        return jnp.min(jnp.where(apart > 0, inwards + between, far(dtype)), axis + 1)

    return nearest(ends, first, -1), nearest(begins, last, 1)
