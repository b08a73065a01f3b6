"""Time and temporary memory of losses whose logits never exist, beside the plain forms and peers.

    python benchmarks/fused.py

Value and gradients, compiled, on this machine's processor; the programs take turns, the best of
some rounds counts. Temporary memory is over the float32 logits, of all tokens or upsampled. The
peers jax-cce (chunks of classes) and tokamax (its form for any platform) are left out where they
are not installed: `pip install jax-cce tokamax`.
"""

import argparse
import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxloss

Loss = Callable[..., jax.Array]


def logits(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Half precision is summed in float32."""
    return jnp.dot(x, kernel, preferred_element_type=jnp.float32)


def linear() -> dict[str, Loss]:
    """The losses of features, kernel and ids that there are."""
    of_ids = optax.losses.softmax_cross_entropy_with_integer_labels
    losses: dict[str, Loss] = {
        "linear_cross_entropy": jaxloss.linear_cross_entropy,
        "cross_entropy of the product": lambda x, w, y: jaxloss.cross_entropy(logits(x, w), y),
        "Optax of the product": lambda x, w, y: of_ids(logits(x, w), y).mean(),
    }
    if importlib.util.find_spec("jax_cce"):
        import jax_cce

        losses["jax-cce"] = lambda x, w, y: jax_cce.linear_cross_entropy(x, w.T, y)
    if importlib.util.find_spec("tokamax"):
        import tokamax

        losses["tokamax, xla"] = functools.partial(_tokamax, tokamax)
    return losses


def _tokamax(tokamax: Any, x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
    return tokamax.linear_softmax_cross_entropy_loss(
        x, y, w, reduction="mean", implementation="xla"
    )


def upsampled(loss: str) -> dict[str, Loss]:
    """A loss of small logits, and the same of logits resized first."""

    def first(z: jax.Array, y: jax.Array) -> jax.Array:
        return getattr(jaxloss, loss)(jaxloss.resize_logits(z, y.shape[1:]), y)

    return {f"upsampled_{loss}": getattr(jaxloss, f"upsampled_{loss}"), f"{loss}, resized": first}


def measure(losses: dict[str, Loss], arguments: tuple[Any, ...], size: int, rounds: int) -> None:
    """Prints a row for each loss."""
    floats = tuple(i for i, a in enumerate(arguments) if jnp.issubdtype(a.dtype, jnp.floating))
    programs = {}
    for name, loss in losses.items():
        run = jax.jit(jax.value_and_grad(loss, floats)).lower(*arguments).compile()
        value, _ = jax.block_until_ready(run(*arguments))
        programs[name] = (run, float(value), [])
    for _ in range(rounds):
        for run, _, times in programs.values():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            times.append(time.perf_counter() - start)
    for name, (run, value, times) in programs.items():
        temporary = run.memory_analysis().temp_size_in_bytes / (4 * size)
        print(
            f"  {name:32} {min(times) * 1e3:7.0f} ms  {temporary:5.2f} of the logits  {value:.5f}"
        )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each program")
    rounds = parser.parse_args().rounds
    del sys.argv[1:]  # which tokamax reads too
    rng = np.random.default_rng(0)
    for n, d, c in ((4096, 256, 32000), (16384, 64, 1000)):
        for dtype in (jnp.float32, jnp.bfloat16):
            x = jnp.asarray(rng.normal(size=(n, d)), dtype)
            kernel = jnp.asarray(rng.normal(size=(d, c)) / d**0.5, dtype)
            ids = jnp.asarray(rng.integers(0, c, n), jnp.int32)
            print(f"{n} tokens, {d} features, {c} classes, {dtype.__name__}")
            measure(linear(), (x, kernel, ids), n * c, rounds)
    small = jnp.asarray(rng.normal(size=(4, 128, 128, 21)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 21, (4, 512, 512)), jnp.int32)
    print(f"{small.shape} to {labels.shape}")
    for loss in ("cross_entropy", "dice_cross_entropy"):
        measure(upsampled(loss), (small, labels), labels.size * 21, rounds)


if __name__ == "__main__":
    main()
