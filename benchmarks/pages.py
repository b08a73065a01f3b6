"""What a CPU spends on memory that it gets anew, and how to spend less of it.

XLA asks for the temporaries and results of each call, and from 32 MiB on Linux hands them over page
by page, of 4 KiB, when they are first touched. Since glibc 2.35 an environment variable makes it
ask for pages of 2 MiB, where the system lets programs (`madvise` or `always` is chosen in
/sys/kernel/mm/transparent_hugepage/enabled)::

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python train.py

    python benchmarks/pages.py

Prints milliseconds of value and gradient with and without, each the best of several calls of
several processes in turn, and how often a call makes the system hand over a page.
"""

import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
ROUNDS, CALLS = 3, 7
SHAPES = (4, 256, 256, 21), (1, 96, 96, 96, 14), (64, 512, 512, 1)
LOSSES = {
    "cross_entropy": (jaxloss.cross_entropy, (0, 1)),
    "dice": (jaxloss.dice, (0, 1)),
    "dice_cross_entropy": (jaxloss.dice_cross_entropy, (0, 1)),
    "binary_cross_entropy": (jaxloss.binary_cross_entropy, (2,)),
}


def measured() -> dict[str, tuple[float, int]]:
    """Milliseconds of each program in this process, and the pages of a call."""
    rng = np.random.default_rng(0)
    found = {}
    for name, (loss, shapes) in LOSSES.items():
        for shape in (SHAPES[i] for i in shapes):
            logits = jnp.asarray(rng.standard_normal(shape, np.float32))
            ids = rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
            labels = jnp.asarray(ids) if shape[-1] > 1 else jnp.asarray(logits > 0, jnp.float32)
            step = jax.jit(jax.value_and_grad(loss))
            jax.block_until_ready(step(logits, labels))
            calls = [_call(step, logits, labels) for _ in range(CALLS)]
            found[f"{name} {shape}"] = min(calls)
    return found


def _call(step: jax.stages.Wrapped, *arrays: jax.Array) -> tuple[float, int]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    jax.block_until_ready(step(*arrays))
    spent = 1e3 * (time.perf_counter() - start)
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main() -> None:
    """Prints the table."""
    best: dict[str, list[tuple[float, int]]] = {}
    for _ in range(ROUNDS):
        for i, more in enumerate(({}, LARGE_PAGES)):
            command = [sys.executable, __file__, "--measure"]
            done = subprocess.run(
                command, env=os.environ | more, capture_output=True, text=True, check=True
            )
            for name, (spent, pages) in json.loads(done.stdout.splitlines()[-1]).items():
                both = best.setdefault(name, [(float("inf"), 0)] * 2)
                both[i] = min(both[i], (spent, pages))
    print("| value and gradient | ms | pages of a call | large pages: ms | pages | ratio |")
    print("|---|---|---|---|---|---|")
    for name, ((usual, many), (large, few)) in best.items():
        print(f"| {name} | {usual:.1f} | {many} | {large:.1f} | {few} | {usual / large:.2f} |")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measured()))
    else:
        main()
