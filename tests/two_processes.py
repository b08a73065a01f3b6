"""One of two processes that share the batch of a loss, and an image that a network learns.

    python tests/two_processes.py localhost:1234 0 & python tests/two_processes.py localhost:1234 1

Each holds a half of the batch, and half of the rows of the image. Prints value and gradient of each
loss, and the loss and the kernel of a training step on the image, as JSON.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss

LOSSES = {
    "cross_entropy": jaxloss.cross_entropy,
    "dice": lambda *data, **options: jaxloss.dice(*data, per_image=False, **options),
}


def batch():
    """Parameters, which every process holds, and a batch; most valid pixels are in one half."""
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(8, 4, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (8, 4, 4)).astype(np.int32)
    where = rng.random((8, 4, 4)) < np.where(np.arange(8) < 4, 0.2, 0.9)[:, None, None]
    return np.array([[[[0.5, 1.0, 1.5]]]], np.float32), logits, labels, where


@jax.jit
def run(scale, logits, labels, where):
    """Value and gradient of each loss."""

    def of(loss):
        return jax.value_and_grad(lambda scale: loss(scale * logits, labels, where=where))(scale)

    return {name: of(loss) for name, loss in LOSSES.items()}


def split_image():
    """A kernel, which every process holds, and an image of many rows with its ids."""
    rng = np.random.default_rng(6)
    image = rng.normal(size=(1, 64, 8, 2)).astype(np.float32)
    labels = np.sort(rng.integers(0, 3, (1, 64, 8)), axis=1).astype(np.int32)
    return rng.normal(size=(3, 3, 2, 3)).astype(np.float32), image, labels


@jax.jit
def train(kernel, image, labels):
    """A step of a network of one layer: the loss before it, and the kernel after it."""

    def loss(kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        logits = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=layout
        )
        return jaxloss.dice(logits, labels) + 0.1 * jaxloss.boundary(logits, labels)

    value, slope = jax.value_and_grad(loss)(kernel)
    return value, kernel - 0.1 * slope


def main(address: str, process: int) -> None:
    """Joins the other process, shares the batch with it and prints what comes out."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def shared(axis, arrays):
        """Shares an axis of arrays, of which this process gives its half."""
        sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "batch"))
        halves = (np.split(x, 2, axis)[process] for x in arrays)
        return [jax.make_array_from_process_local_data(sharding, x) for x in halves]

    scale, *data = batch()
    results = run(jax.device_put(scale, everywhere), *shared(0, data))
    kernel, *data = split_image()
    results["split image"] = train(jax.device_put(kernel, everywhere), *shared(1, data))
    results = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)).tolist(), results)
    print(json.dumps(results))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
