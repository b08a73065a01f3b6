"""Cross-entropy of `features @ kernel + bias` whose logits never exist in memory at once.

Chunks of tokens, in one pass: logits, their costs and slopes, and at once the slopes of features
and kernel. No chunk needs to know what another gives, so that there are 3 matrix products, as in
the plain form. A chunk takes every n-th token: a sharded axis stays sharded, and each device works
on its own part of every chunk.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, sharding
from jaxloss._core.families import linear
from jaxloss._core.platforms import by_platform
from jaxloss._core.reduction import REDUCTIONS, AxisName, everywhere
from jaxloss._fused import _cost, _pass
from jaxloss._fused._pass import Arrays
from jaxloss.options import Factor, Labelled, Numbers, Positive, Share

__all__ = ["linear_cross_entropy"]

Array = jax.Array

# Each chunk reads and writes all slopes of the kernel, which takes long if it has few tokens.
FEWEST = {"cpu": 128, "default": 1024}  # tokens in a chunk
LOGITS = {"cpu": 2**19, "default": 2**26}  # in a chunk, where that is more tokens
MOST = 32  # chunks: tokens may lie on many devices, of which nothing is known here

OF_TOKENS = ("features", "factors")  # arrays that are cut, with the ids


@linear
def linear_cross_entropy(
    features: Numbers,
    kernel: Numbers,
    labels: Numbers,
    *,
    bias: Numbers | None = None,
    label_smoothing: Share = 0.0,
    z_loss: Factor = 0.0,
    soft_cap: Positive | None = None,
    chunk_size: int | None = None,
    class_axis_name: AxisName | None = None,
    **options: Unpack[Labelled],
) -> Array:
    """Computes the cross-entropy of a linear layer's logits without ever holding them all.

    With `p = softmax(z)`, smoothed targets `t` and class weights `w`::

        z    = features @ kernel + bias, or soft_cap tanh(z / soft_cap)
        t    = (1 - label_smoothing) y + label_smoothing / C
        CE   = -sum_c w_c t_c log p_c + z_loss (log sum_c exp z_c)^2 w_y
        mean = sum CE / sum w_y

    This is :func:`jaxloss.cross_entropy` of the logits, in value and derivatives of any order. The
    `[N, C]` logits, their probabilities and slopes exist for one chunk of tokens at a time; value
    and gradient take the plain form's three matrix products. With `reduction="none"` the gradient
    takes a fourth. Where all tokens fit into a chunk the logits are computed at once.

    Features of half precision are multiplied as they are, and so are the slopes of their logits,
    but on a CPU in float32; sums are float32. The kernel is cast to the features' dtype. On a GPU
    or TPU prefer a float32 kernel: the sum of a bfloat16 kernel's gradient takes its size twice
    more.

    A bias of -inf removes a class, for instance one that pads the vocabulary: it costs nothing
    (smoothing spreads over the others), and +inf with zero gradient where it is the label.

    Under `jit` tokens and classes may be sharded. For classes split inside `shard_map` name the
    axis: of each token only the largest logit, the sum and the target's logit are exchanged, and
    the gradient of its features. The gradient is right under the checks of `shard_map` (its
    default `check_vma=True`).

    Args:
      kernel: Its weights, shape `[D, C]`, floating.
      bias: Added to the logits, shape `[C]`.
      z_loss: Weight of the squared log-normaliser, at least 0; PaLM uses 1e-4.
      soft_cap: The bound that no logit exceeds, above 0; Gemma 2 uses 30. None: no bound.
      chunk_size: Tokens in a chunk, at least 1; None: what was found fast and small, by platform.
      class_axis_name: Mesh axis over which the classes of `kernel`, `bias` and `class_weights` are
        split inside `shard_map`; `C` then counts all classes, and ids are among all.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> features, kernel = jnp.eye(2), jnp.array([[2.0, 1.0], [0.0, 3.0]])
      >>> labels = jnp.array([0, 1])
      >>> print(jaxloss.linear_cross_entropy(features, kernel, labels).round(4))
      0.1809
      >>> print(jaxloss.cross_entropy(features @ kernel, labels).round(4))
      0.1809

    Reference:
      Wijmans et al. Cut Your Losses in Large-Vocabulary Language Models. ICLR 2025.
      https://arxiv.org/abs/2411.09009
      Hsu et al. Liger Kernel: Efficient Triton Kernels for LLM Training (chunks of tokens). 2024.
      https://arxiv.org/abs/2410.10989
      Shoeybi et al. Megatron-LM (a vocabulary split over devices). 2019.
      https://arxiv.org/abs/1909.08053
      Gemma Team. Gemma 2 (soft cap). 2024. https://arxiv.org/abs/2408.00118
    """
    checks.option("reduction", options["reduction"], REDUCTIONS)
    if chunk_size is not None:
        checks.integer("chunk_size", chunk_size, 1)
    x, w = checks.floating("features", features), checks.floating("kernel", kernel)
    checks.minimum_rank("features", x, 2, "tokens and their features")
    if w.ndim != 2 or w.shape[0] != x.shape[-1]:
        expected = f"[{x.shape[-1]}, C]: one row for each of the features, one column per class"
        checks.fail(ValueError, "kernel", f"of shape {w.shape}", expected)
    dtype, classes = checks.compute_dtype(x), w.shape[1]
    in_all = classes * _cost.devices(class_axis_name)
    ids, factors = _cost.read(labels, x.shape[:-1], in_all, dtype, options)
    parameters = _cost.parameters(
        classes,
        dtype,
        bias=bias,
        class_weights=options["class_weights"],
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        soft_cap=soft_cap,
    )
    if options["where"] is not None or options["ignore_index"] is not None:
        x = jnp.where((ids == _cost.MASKED)[..., None], 0, x)
    arrays = {"features": x, "kernel": w} | parameters
    if options["reduction"] == "none":
        return factors * _values(chunk_size, class_axis_name, arrays, ids)
    count = jnp.ones((), dtype)
    if options["reduction"] == "mean":
        count = _cost.count(ids, factors, parameters.get("class_weights"), class_axis_name)
        count = everywhere(count, options["axis_name"])
    # In the factors it costs nothing, afterwards another copy of the kernel's slopes; but those of
    # float16 would underflow.
    late = x.dtype == jnp.float16
    factors = factors if late else numerics.divide(factors, count)
    arrays["factors"] = jnp.broadcast_to(factors, ids.shape)
    one_pass = functools.partial(_with_slopes, chunk_size, class_axis_name)
    total = _pass.total(one_pass, class_axis_name, arrays, ids)
    total = everywhere(total, options["axis_name"])
    return numerics.divide(total, count) if late else total


class _Way(NamedTuple):
    """How a platform works.

    Attributes:
      chunks: How many there are.
      slopes: The dtype in which the slopes of the logits are multiplied. That of the features, but
        float32 on a CPU, which is slow with half precision; the plain form does so everywhere.
    """

    chunks: int
    slopes: Any


def _values(
    chunk_size: int | None, class_axis_name: AxisName | None, arrays: Arrays, ids: Array
) -> Array:
    """The cost of each token; its derivatives compute every chunk again: 4 matrix products."""

    def of_chunk(way: _Way, step: Array, ids: Array, arrays: Arrays) -> tuple[Arrays, Arrays]:
        logits = _logits(arrays["features"], arrays["kernel"])
        return {}, {"values": _cost.cross_entropy(logits, ids, step, arrays, class_axis_name)}

    return _in_chunks(of_chunk, chunk_size, class_axis_name, arrays, ids)["values"]


def _with_slopes(
    chunk_size: int | None,
    class_axis_name: AxisName | None,
    moving: tuple[str, ...],
    arrays: Arrays,
    ids: Array,
) -> Arrays:
    """The sum of the costs times their factors, with its slopes: a pass for `_pass.total`."""

    def of_chunk(way: _Way, step: Array, ids: Array, arrays: Arrays) -> tuple[Arrays, Arrays]:
        x, kernel = arrays["features"], arrays["kernel"]

        def total(logits: Array, moved: Arrays) -> Array:
            now = arrays | moved
            return (
                now["factors"] * _cost.cross_entropy(logits, ids, step, now, class_axis_name)
            ).sum()

        logits = _logits(x, kernel)
        of_logits = ("features", "kernel", "bias")  # whose slopes are made of those of the logits
        moved = {name: arrays[name] for name in moving if name not in of_logits}
        if not moving:
            return {"total": total(logits, moved)}, {}
        sum_, (slope, slopes) = jax.value_and_grad(total, (0, 1))(logits, moved)
        tokens = tuple(range(x.ndim - 1))
        if "bias" in moving:
            # A product: a GPU's compiler would join a sum with what makes the slopes, which it then
            # does not write over the logits.
            ones = jnp.ones_like(ids, slope.dtype)
            contracted, exact = (tokens, tokens), jax.lax.Precision.HIGHEST
            slopes["bias"] = _product(ones, slope, contracted, arrays["bias"], exact)
        slope = slope.astype(way.slopes)
        if "features" in moving:
            seen = kernel.astype(x.dtype).astype(slope.dtype)
            back = _product(slope, seen, ((x.ndim - 1,), (1,)), x)
            slopes["features"] = back.astype(x.dtype)
        if "kernel" in moving:
            slopes["kernel"] = _product(x.astype(slope.dtype), slope, (tokens, tokens), kernel)
        each = {name: slopes.pop(name) for name in OF_TOKENS if name in slopes}
        return {"total": sum_} | slopes, each

    return _in_chunks(of_chunk, chunk_size, class_axis_name, arrays, ids)


def _logits(x: Array, kernel: Array) -> Array:
    return _product(x, kernel.astype(x.dtype), ((x.ndim - 1,), (0,)))


def _product(
    a: Array,
    b: Array,
    contracted: tuple[Any, Any],
    like: Array | None = None,
    precision: jax.lax.Precision | None = None,
) -> Array:
    """A matrix product with sums in float32; on a mesh of Explicit axes it is placed as `like`."""
    return jax.lax.dot_general(
        a,
        b,
        (contracted, ((), ())),
        precision,
        preferred_element_type=checks.compute_dtype(a),
        out_sharding=None if like is None else sharding.placed(like),
    )


def _in_chunks(
    of_chunk: Callable[..., tuple[Arrays, Arrays]],
    chunk_size: int | None,
    class_axis_name: AxisName | None,
    arrays: Arrays,
    ids: Array,
) -> Arrays:
    """Adds up what `of_chunk(way, step, ids, arrays)` returns first, and joins its arrays."""
    axis = max(range(ids.ndim), key=lambda i: ids.shape[i])
    devices = _devices(axis, arrays, ids)

    def way(platform: str, slopes: Any) -> _Way:
        few = max(FEWEST[platform], LOGITS[platform] // arrays["kernel"].shape[1], ids.size // MOST)
        n = -(-ids.size // (chunk_size or few))
        chunks = _pass.pieces(ids.shape[axis] // devices, n)
        return _Way(chunks, jnp.dtype(slopes))

    def run(way: _Way, arrays: Arrays, ids: Array) -> Arrays:
        on_way = functools.partial(of_chunk, way)
        return _scan(on_way, class_axis_name, axis, way.chunks, arrays, ids)

    x = arrays["features"]
    cpu, default = way("cpu", checks.compute_dtype(x)), way("default", x.dtype)
    return _pass.with_setting(run, cpu, default, arrays, ids)


def _devices(axis: int, arrays: Arrays, ids: Array) -> int:
    """Over how many devices the tokens along an axis are split: each has a part of every chunk."""
    cut = (ids, *(arrays[name] for name in OF_TOKENS if name in arrays))
    return math.lcm(*(sharding.shards(a, axis) for a in cut))


def _scan(
    of_chunk: Callable[..., tuple[Arrays, Arrays]],
    class_axis_name: AxisName | None,
    axis: int,
    n: int,
    arrays: Arrays,
    ids: Array,
) -> Arrays:
    cut = [name for name in OF_TOKENS if name in arrays]
    # Not as the kernel varies, if that is by the classes that a device has.
    like = arrays if class_axis_name is None else cut
    dtype = checks.compute_dtype(arrays["features"])
    arrays = _pass.varying(arrays, (arrays[name] for name in like), dtype)
    if n == 1:
        sums, each = of_chunk(jnp.int32(0), ids, arrays)
        return sums | each
    of_chunk = jax.checkpoint(of_chunk, prevent_cse=False)
    still = {name: a for name, a in arrays.items() if name not in cut}
    rest = -ids.shape[axis] % (n * _devices(axis, arrays, ids))
    chunks = (
        jnp.arange(n, dtype=jnp.int32),
        _split(ids, axis, n, rest, _cost.MASKED),
        {name: _split(arrays[name], axis, n, rest, 0) for name in cut},
    )

    def body(sums: Arrays, chunk: tuple[Any, ...]) -> tuple[Arrays, Arrays]:
        step, ids, part = chunk
        kernel = {"kernel": _read_anew(still["kernel"], step, part["features"].dtype)}
        new, each = of_chunk(step, ids, part | still | kernel)
        return jax.tree.map(jnp.add, sums, new), each

    step, first, part = jax.tree.map(lambda a: a[0], chunks)
    like_sums, _ = of_chunk(step, first, part | still)  # of which only shapes and places are used
    sums, each = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, like_sums), chunks)
    return sums | {name: _merge(a, axis, ids.shape[axis]) for name, a in each.items()}


def _read_anew(kernel: Array, step: Array, dtype: Any) -> Array:
    """Returns the kernel as a step of the loop reads it.

    A TPU multiplies float32 as bfloat16, and of a kernel that is the same at each step its compiler
    would keep a copy in bfloat16, of half its size.
    """
    if kernel.dtype != jnp.float32 or dtype != jnp.float32:
        return kernel
    return by_platform(kernel, step, tpu=_plus_zero, default=_unchanged)


def _plus_zero(kernel: Array, step: Array) -> Array:
    return kernel + (step < 0).astype(kernel.dtype)


def _unchanged(kernel: Array, step: Array) -> Array:
    return kernel


def _split(a: Array, axis: int, n: int, rest: int, fill: int) -> Array:
    """Cuts `[..., L, ...]` to `[n, ..., (L + rest) / n, ...]`, with `fill` for the rest."""
    pad = [(0, rest if i == axis else 0) for i in range(a.ndim)]
    a = jnp.pad(a, pad, constant_values=fill)
    return jnp.moveaxis(a.reshape(*a.shape[:axis], -1, n, *a.shape[axis + 1 :]), axis + 1, 0)


def _merge(a: Array, axis: int, length: int) -> Array:
    """Joins the chunks again."""
    a = jnp.moveaxis(a, 0, axis + 1)
    a = a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])
    return jax.lax.slice_in_dim(a, 0, length, axis=axis)
