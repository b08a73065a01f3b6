"""Arrays that the tests of `validate` share, and calls of it."""

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

import jaxloss

BATCH, REPLICATED = PartitionSpec("batch"), PartitionSpec()
NAN, INF = np.nan, np.inf


def normal(shape=(2, 3, 4), **bad):
    """Logits with bad values at an index: `normal(nan=(0, 1, 2))`."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for value, index in bad.items():
        values[index] = {"nan": NAN, "inf": INF, "removed": -INF}[value]
    return values


def put(values, index, value):
    """A copy with another value."""
    values = np.array(values)
    values[index] = value
    return values


X, IDS = normal(), np.array([[0, 1, 2], [3, 0, 1]], np.int32)
SHARES = np.full((2, 3, 4), 0.25, np.float32)
UNIT = np.full((2, 3, 4), 0.5, np.float32)
HARD = np.zeros((2, 3, 4), np.float32)
MASK = np.array([[True, True, False], [True, False, True]])
BOXES = np.array([[0, 0, 1, 2], [1, 1, 4, 3]], np.float32)
TURNED = np.array([[0, 0, 1, 2, 0.3], [1, 1, 4, 3, -9]], np.float32)
FINITE = "expected a finite number"
BAD = put(np.zeros((8, 3), np.int32), (5, 1), 9)
LOGITS = normal((8, 3, 4))


def _floats(tree):
    """NumPy's arrays, float64 in float32."""
    return jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, tree)


def compiled(calls):
    """The reports of calls, by one program whose arguments are all arrays of the calls."""
    arrays = {
        key: (args, {k: v for k, v in options.items() if isinstance(v, np.ndarray)})
        for key, (_, args, options, *_) in calls.items()
    }

    def run(arrays):
        return {
            key: jaxloss.validate(calls[key][0], *args, **(calls[key][2] | options))
            for key, (args, options) in arrays.items()
        }

    run = jax.jit(run)
    return lambda change: jax.device_get(run(change(_floats(arrays))))


def sharded(axis_name, wrap=lambda report: report, out=REPLICATED, **options):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))

    def run(*pair):
        return wrap(jaxloss.validate("focal", *pair, axis_name=axis_name, **options))

    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(BATCH, BATCH), out_specs=out))
