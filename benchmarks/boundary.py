"""Boundary losses beside plain Dice: milliseconds for value and gradient, maps made inside.

Run `python benchmarks/boundary.py [--size 256]`. Images hold smooth random regions, logits of two
classes and ids, shape (8, 256, 256, 2). Each round times everybody once, so that a busy machine is
busy for all; the table shows the fastest of the rounds.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import numpy as np
from edt import blobs, machine
from jax import numpy as jnp

import jaxloss

ROUNDS = 15

LOSSES: dict[str, Callable[..., jax.Array]] = {
    "dice": functools.partial(jaxloss.dice, include_background=False),
    "cross_entropy": jaxloss.cross_entropy,
    "boundary": jaxloss.boundary,
    "boundary_dou": jaxloss.boundary_dou,
    "dice_boundary": functools.partial(jaxloss.dice_boundary, alpha=0.5),
    "distance_penalized_cross_entropy": jaxloss.distance_penalized_cross_entropy,
    "distance_penalized_dice": jaxloss.distance_penalized_dice,
    "hausdorff_dt": jaxloss.hausdorff_dt,
    "hausdorff_erosion": jaxloss.hausdorff_erosion,
    "shape_aware": jaxloss.shape_aware,
}


def milliseconds(run: Callable[..., object], *arguments: jax.Array) -> float:
    """The time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    size = parser.parse_args().size
    masks = blobs(8, size, size)
    noise = np.random.default_rng(1).normal(size=(*masks.shape, 2))
    logits = jnp.asarray(noise + 3 * np.stack([~masks, masks], -1), jnp.float32)
    labels = jnp.asarray(masks, jnp.int32)

    programs = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in LOSSES.items()}
    for run in programs.values():
        jax.block_until_ready(run(logits, labels))
    rounds = [
        [milliseconds(run, logits, labels) for run in programs.values()] for _ in range(ROUNDS)
    ]
    fastest = np.min(rounds, axis=0)
    print(machine())
    print(f"{'value and gradient':34}{'ms':>8}{'of dice':>9}   logits {logits.shape}")
    for name, value in zip(programs, fastest, strict=True):
        print(f"{name:34}{value:8.1f}{value / fastest[0]:9.1f}")


if __name__ == "__main__":
    main()
