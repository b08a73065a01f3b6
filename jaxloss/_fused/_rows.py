"""Sums over bilinearly upsampled logits, which never exist in memory at once.

Chunks of output rows: a chunk reads the few rows of the small logits that it mixes, widens them by
small matrix products, and its slopes go back the same way into the same rows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core import checks, sharding
from jaxloss._fused import _cost, _pass, _resize
from jaxloss._fused._pass import Arrays

Array = jax.Array

LOGITS = {"cpu": 2**18, "default": 2**23}  # upsampled, in a chunk: those fit into a CPU's cache
FEWEST, MOST = 32, 128  # chunks, where one is not enough

# `of_pixels(z, ids, step, arrays)` gives sums over some pixels, `z [B, rows, ..., C]`, by name;
# `values` is not summed. Of the arrays, `logits` are `[B, ..., C]` and `factors` like the ids.
OfPixels = Callable[[Array, Array, Array, Arrays], Arrays]


def sums(of_pixels: OfPixels, align_corners: bool, arrays: Arrays, ids: Array) -> Arrays:
    """Returns the sums over all pixels, and `values` in the shape of the ids."""

    def of_chunk(chunk: "_Chunk", arrays: Arrays) -> tuple[Arrays, Arrays]:
        found = dict(of_pixels(chunk.widened(chunk.part), chunk.ids, chunk.step, arrays))
        each = {"values": found.pop("values")} if "values" in found else {}
        return found, each

    return _over_rows(of_chunk, align_corners, arrays, ids)


def with_slopes(
    of_pixels: OfPixels, align_corners: bool, moving: tuple[str, ...], arrays: Arrays, ids: Array
) -> Arrays:
    """Returns the one sum, `total`, with its slopes by what moves: a pass for `_pass.total`."""

    def of_chunk(chunk: "_Chunk", arrays: Arrays) -> tuple[Arrays, Arrays]:
        def total(part: Array, moved: Arrays) -> Array:
            z = chunk.widened(part)
            return of_pixels(z, chunk.ids, chunk.step, arrays | moved)["total"]

        moved = {name: arrays[name] for name in moving if name != "logits"}
        if not moving:
            return {"total": total(chunk.part, moved)}, {}
        sum_, (slope, slopes) = jax.value_and_grad(total, (0, 1))(chunk.part, moved)
        is_cut = "factors" in slopes and _has_rows(arrays["factors"], chunk.ids)
        each = {"factors": slopes.pop("factors")} if is_cut else {}
        slopes |= {"logits": slope} if "logits" in moving else {}
        return {"total": sum_} | slopes, each

    return _over_rows(of_chunk, align_corners, arrays, ids)


class _Chunk(NamedTuple):
    """Some rows of the output.

    Attributes:
      step: The number of the chunk.
      part: The rows of the small logits that they mix.
      ids: The targets.
      widened: Upsamples the part.
    """

    step: Array
    part: Array
    ids: Array
    widened: Callable[[Array], Array]


def _over_rows(
    of_chunk: Callable[..., tuple[Arrays, Arrays]],
    align_corners: bool,
    arrays: Arrays,
    ids: Array,
) -> Arrays:
    """Adds up what `of_chunk` returns first, of which `logits` is in the shape of the part."""
    size = ids.size * arrays["logits"].shape[-1]

    def chunks(platform: str) -> int:
        few = size <= LOGITS[platform]
        n = 1 if few else min(max(size // LOGITS[platform], FEWEST), MOST)
        return _pass.pieces(ids.shape[1], n)

    def run(n: int, arrays: Arrays, ids: Array) -> Arrays:
        return _scan(of_chunk, align_corners, n, arrays, ids)

    cpu, default = chunks("cpu"), chunks("default")
    if max(cpu, default) > 1:
        # Some rows are no slice that JAX takes of an axis split on a mesh of Explicit axes.
        ids = sharding.whole(ids, (1,))
        of_rows = ("logits", "factors")
        arrays = arrays | {name: sharding.whole(arrays[name], (1,)) for name in of_rows}
    return _pass.with_setting(run, cpu, default, arrays, ids)


def _scan(
    of_chunk: Callable[..., tuple[Arrays, Arrays]],
    align_corners: bool,
    n: int,
    arrays: Arrays,
    ids: Array,
) -> Arrays:
    (height, *widths), (_, rows, *columns, _) = ids.shape[1:], arrays["logits"].shape
    dtype = checks.compute_dtype(arrays["logits"])
    arrays = _pass.varying(arrays, arrays.values(), dtype)
    logits = arrays["logits"]
    step = -(-height // n)  # rows of a chunk
    windows = _windows(rows, height, step, align_corners)
    across = [
        jnp.asarray(_resize.matrix(size, new, align_corners), dtype)
        for size, new in zip(columns, widths, strict=True)
    ]
    cut = {"factors"} if _has_rows(arrays["factors"], ids) else set()
    still = {name: a for name, a in arrays.items() if name not in cut | {"logits"}}
    chunks = (
        jnp.arange(len(windows.start), dtype=jnp.int32),
        jnp.asarray(windows.start, jnp.int32),
        jnp.asarray(windows.down, dtype),
        _split(ids, step, _cost.MASKED),
        {name: _split(arrays[name], step, 0) for name in cut},
    )

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_rows(
        logits: Array,
        still: Arrays,
        step: Array,
        start: Array,
        down: Array,
        ids: Array,
        cut: Arrays,
    ) -> tuple[Arrays, Arrays]:
        def widened(part: Array) -> Array:
            z = _resize.along(down, part, 1)
            for axis, weights in enumerate(across, 2):
                z = _resize.along(weights, z, axis)
            return z

        part = jax.lax.dynamic_slice_in_dim(logits, start, down.shape[-1], 1).astype(dtype)
        return of_chunk(_Chunk(step, part, ids, widened), still | cut)

    def add(slope: Array, part: Array, start: Array) -> Array:
        old = jax.lax.dynamic_slice_in_dim(slope, start, part.shape[1], 1)
        return jax.lax.dynamic_update_slice_in_dim(slope, old + part, start, 1)

    def body(added: Arrays, chunk: tuple[Any, ...]) -> tuple[Arrays, Arrays]:
        found, each = of_rows(logits, still, *chunk)
        slope = {k: add(added[k], found.pop(k), chunk[1]) for k in ("logits",) if k in found}
        return slope | {k: added[k] + a for k, a in found.items()}, each

    # Of this only shapes and places are used.
    found, _ = of_rows(logits, still, *jax.tree.map(lambda a: a[0], chunks))
    empty = {k: jnp.zeros_like(logits if k == "logits" else a, dtype) for k, a in found.items()}
    added, each = jax.lax.scan(body, empty, chunks)
    return added | {name: _merge(a, height) for name, a in each.items()}


def _has_rows(factors: Array, ids: Array) -> bool:
    """Whether each row has factors of its own, so that they are cut with it."""
    return factors.shape[1] == ids.shape[1]


class _Windows(NamedTuple):
    """What each chunk reads.

    Attributes:
      start: Its first row of the small logits, `[n]`.
      down: The weights by which it mixes them, `[n, rows, span]`; 0 for rows beyond the last.
    """

    start: np.ndarray
    down: np.ndarray


def _windows(size: int, new: int, rows: int, align_corners: bool) -> _Windows:
    """Returns the windows of chunks of so many of the `new` rows."""
    n = -(-new // rows)
    padded = np.zeros((n * rows, size))
    padded[:new] = _resize.matrix(size, new, align_corners)
    weights = padded.reshape(n, rows, size)
    used = np.any(weights, axis=1)
    first, last = used.argmax(1), size - 1 - used[:, ::-1].argmax(1)
    span = int((last - first).max()) + 1
    start = np.minimum(first, size - span)
    down = [part[:, i : i + span] for part, i in zip(weights, start, strict=True)]
    return _Windows(start, np.stack(down))


def _split(a: Array, rows: int, fill: int) -> Array:
    """Cuts `[B, H, ...]` to `[n, B, rows, ...]`, with `fill` for rows beyond the last."""
    pad = [(0, -a.shape[1] % rows if i == 1 else 0) for i in range(a.ndim)]
    a = jnp.pad(a, pad, constant_values=fill)
    return jnp.moveaxis(a.reshape(a.shape[0], -1, rows, *a.shape[2:]), 1, 0)


def _merge(a: Array, height: int) -> Array:
    """Joins the rows again."""
    a = jnp.moveaxis(a, 0, 1)
    a = a.reshape(a.shape[0], -1, *a.shape[3:])
    return jax.lax.slice_in_dim(a, 0, height, axis=1)
