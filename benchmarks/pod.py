"""What a TPU pod of 256 chips does with a loss, read from its compiler on a machine without one.

Compiles value and gradient for a TPU v5e pod of 16 x 16 chips, bfloat16 logits, and prints what the
chips exchange and the memory that each needs: of the dense losses on a global batch of
(2048, 512, 512, 21), eight images a chip, and of a classifier's cross-entropy on (16384, 131072)
with the batch and the classes over 16 chips each.

The compiler is the package `libtpu`, best in an environment of its own::

    pip install jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.52
    pip install -e .
    python benchmarks/pod.py

Without it the programs are compiled for 256 fake CPU devices, whose collectives can differ.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(  # of a machine that is no part of a pod, but compiles for one
    TPU_SKIP_MDS_QUERY="1",
    TPU_ACCELERATOR_TYPE="v5litepod-256",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_WORKER_ID="0",
)

import collectives  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import jaxloss  # noqa: E402

SIDE = 16  # of the pod, in chips
IMAGES = (2048, 512, 512, 21)
SAMPLES = (16384, 131072)
OVER_ALL = PartitionSpec(("batch", "classes"))
OVER_BOTH = PartitionSpec("batch", "classes")


class Program(NamedTuple):
    """A loss of logits and ids, the logits' shape and how they are sharded."""

    loss: Callable[..., jax.Array]
    shape: tuple[int, ...] = IMAGES
    spec: PartitionSpec = OVER_ALL


PROGRAMS = {
    "cross_entropy": Program(jaxloss.cross_entropy),
    "cross_entropy, ignored": Program(
        lambda x, y: jaxloss.cross_entropy(x, y, ignore_index=255),
    ),
    "focal": Program(jaxloss.focal),
    "dice": Program(jaxloss.dice),
    "dice, pooled": Program(lambda x, y: jaxloss.dice(x, y, per_image=False)),
    "dice_cross_entropy": Program(jaxloss.dice_cross_entropy),
    "boundary": Program(jaxloss.boundary),
    "lovasz_softmax, by image": Program(
        lambda x, y: jaxloss.lovasz_softmax(x, y, per_image=True),
    ),
    "cross_entropy, classes sharded": Program(jaxloss.cross_entropy, SAMPLES, OVER_BOTH),
}


def compiled(program: Program, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles value and gradient; the gradient lies where the logits lie."""
    sharding = NamedSharding(mesh, program.spec)
    logits = jax.ShapeDtypeStruct(program.shape, jnp.bfloat16, sharding=sharding)
    of_ids = NamedSharding(mesh, PartitionSpec(program.spec[0]))
    ids = jax.ShapeDtypeStruct(program.shape[:-1], jnp.int32, sharding=of_ids)
    step = jax.jit(jax.value_and_grad(program.loss), out_shardings=(None, sharding))
    return step.lower(logits, ids).compile()


def chips() -> list[Any] | None:
    """The compile-only chips of a pod, or None where the compiler is not installed."""
    try:
        return topologies.get_topology_desc(f"v5e:{SIDE}x{SIDE}", "tpu").devices
    except (RuntimeError, NotImplementedError, ValueError):
        return None


def exchanged(hlo: str) -> str:
    """The collectives of a program, how many there are, in loops too, of how many numbers."""
    counts: Counter[tuple[str, int]] = Counter()
    for collective in collectives.read(hlo):
        counts[collective.kind, collective.numbers] += collective.times
    return ", ".join(f"{count} {kind} of {size:,}" for (kind, size), count in counts.items())


def main() -> None:
    """Prints the table."""
    devices = chips()
    if devices is None:
        print("Without libtpu: the table is that of 256 fake CPU devices.\n")
        jax.config.update("jax_num_cpu_devices", SIDE * SIDE)
        devices = jax.devices()
    mesh = Mesh(np.array(devices).reshape(SIDE, SIDE), ("batch", "classes"))
    print(
        "| value and gradient | exchanged, in numbers | logits, MB a chip | temporary, MB a chip |"
    )
    print("|---|---|---|---|")
    for name, program in PROGRAMS.items():
        result = compiled(program, mesh)
        logits = 2 * np.prod(program.shape) / len(devices) / 1e6
        temporary = result.memory_analysis().temp_size_in_bytes / 1e6
        row = (name, exchanged(result.as_text()), f"{logits:.1f}", f"{temporary:.1f}")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
