"""The devices of the tests, a mesh of them, and a batch that they share."""

import jax
import numpy as np
from jax.sharding import AxisType

DEVICES = jax.device_count()
BATCH, CLASSES, SIDE = 8, 32, 64  # large enough for the loops and chunks of a CPU


def batch_mesh(kind=AxisType.Auto):
    return jax.make_mesh((DEVICES,), ("batch",), axis_types=(kind,))


def segmentation(seed=0, classes=5):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(BATCH, 6, 4, classes))
    return logits.astype(np.float32), rng.integers(0, classes, (BATCH, 6, 4)).astype(np.int32)
