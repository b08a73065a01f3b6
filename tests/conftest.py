"""Strict JAX for every test: eight fake devices, no silent promotion of ranks or dtypes.

Calls of losses compile as one program each. Without `jit` every operation compiles by itself, which
takes ten times as long; the contract tests call each kind of loss that way too.
"""

import functools
import inspect
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402

import jaxloss  # noqa: E402
from tests.compiling import quick_jit  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

collect_ignore_glob = ["goldens/*.py"]  # they need the original implementations

TRACED = ("where", "weights", "distance_map")


@functools.cache
def _program(loss, options):
    return quick_jit(functools.partial(loss, **{key: value for key, value, _ in options}))


def _compiling(loss):
    """The loss, compiled where its options other than masks are plain Python values."""

    @functools.wraps(loss)
    def call(*data, **options):
        arrays = {key: options[key] for key in TRACED if options.get(key) is not None}
        fixed = {key: value for key, value in options.items() if key not in arrays}
        leaves = [*data, *arrays.values()]
        plain = all(
            isinstance(x, (jax.Array, np.ndarray)) and not isinstance(x, jax.core.Tracer)
            for x in leaves
        ) and all(isinstance(x, (str, bool, int, float, type(None))) for x in fixed.values())
        if not plain:
            return loss(*data, **options)
        # With its type: 1 and True and 1.0 are equal, but not the same option.
        key = tuple((name, fixed[name], type(fixed[name])) for name in sorted(fixed))
        return _program(loss, key)(*data, **arrays)

    return call


for name in jaxloss.__all__:
    if "reduction" in inspect.signature(getattr(jaxloss, name)).parameters:
        setattr(jaxloss, name, _compiling(getattr(jaxloss, name)))
