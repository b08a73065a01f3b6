"""One of two processes that compute a loss over a batch of which each holds a half.

    python tests/two_processes.py localhost:1234 0 & python tests/two_processes.py localhost:1234 1

Prints value and gradient of each loss, as JSON.
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


def main(address: str, process: int) -> None:
    """Joins the other process, shares the batch with it and prints what comes out."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    scale, *data = batch()
    half = slice(4 * process, 4 * process + 4)
    shared = (jax.make_array_from_process_local_data(sharding, x[half]) for x in data)
    results = run(jax.device_put(scale, NamedSharding(mesh, PartitionSpec())), *shared)
    results = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)).tolist(), results)
    print(json.dumps(results))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
