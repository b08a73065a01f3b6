"""What a TPU pod of 256 chips does with a loss, read from its compiler on a machine without one.

Compiles value and gradient for a TPU v5e pod of 16 x 16 chips, bfloat16 logits, and prints what the
chips exchange and the memory that each needs: of the dense losses on a global batch of
(2048, 512, 512, 21), eight images a chip, and of a classifier's cross-entropy on (16384, 131072)
with the batch and the classes over 16 chips each.

The compiler is the package `libtpu`, which `./run bench pod` has. Without it the programs are
compiled for 256 fake CPU devices, whose collectives can differ.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import collectives
import deviceless
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxloss

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


def exchanged(hlo: str) -> str:
    """The collectives of a program, how many there are, in loops too, of how many numbers."""
    counts: Counter[tuple[str, int]] = Counter()
    for collective in collectives.read(hlo):
        counts[collective.kind, collective.numbers] += collective.times
    return ", ".join(f"{count} {kind} of {size:,}" for (kind, size), count in counts.items())


def main() -> None:
    """Prints the table."""
    devices = deviceless.v5e(f"{SIDE}x{SIDE}")
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
