"""Strict JAX for every test: eight fake devices, no silent promotion of ranks or dtypes.

Calls of losses compile as one program each, their derivatives too. Without `jit` every operation
compiles by itself, which takes ten times as long; the contract tests call each kind of loss that
way too.
"""

import functools
import gc
import inspect
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import jaxloss  # noqa: E402
from tests.compiling import FLAGS  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

gc.set_threshold(100_000, 50, 100)  # tracing makes many objects: by default a fifth of the time

collect_ignore_glob = ["goldens/*.py"]  # they need the original implementations

TRACED = ("where", "weights", "distance_map")


@functools.cache
def _program(loss, options, precision):
    return jax.jit(functools.partial(loss, **{key: value for key, value, _ in options}))


def _compiling(loss):
    """The loss as one program, in calls of arrays, differentiated or mapped ones too."""

    @functools.wraps(loss)
    def call(*data, **options):
        traced = {
            key: value
            for key, value in options.items()
            if isinstance(value, jax.core.Tracer) or (key in TRACED and value is not None)
        }
        fixed = {key: value for key, value in options.items() if key not in traced}
        leaves = [*data, *traced.values()]
        plain = all(isinstance(x, (jax.Array, np.ndarray)) for x in leaves)
        plain &= all(isinstance(x, (str, bool, int, float, type(None))) for x in fixed.values())
        zero = jnp.zeros(())
        if not plain or isinstance(zero, jax.core.Tracer):  # inside another program
            return loss(*data, **options)
        # With its type: 1 and True and 1.0 are equal, but not the same option.
        key = tuple((name, fixed[name], type(fixed[name])) for name in sorted(fixed))
        data = jax.tree.map(jnp.asarray, data)  # NumPy's integers have 64 bits
        return _program(loss, key, zero.dtype)(*data, **traced)

    return call


for name in jaxloss.__all__:
    if "reduction" in inspect.signature(getattr(jaxloss, name)).parameters:
        setattr(jaxloss, name, _compiling(getattr(jaxloss, name)))

# How many rows of a long table an ordinary run takes, those in front; `--all` takes all.
ROWS = {
    "test_value_and_derivatives": 4,
    "test_mapped_and_sharded": 3,
    "test_values_gradients_and_dtypes_are_those_of_optax": 12,
    "test_any_pair_is_finite_in_value_and_gradient_in_both_modes": 6,
    "test_finite_at_every_margin": 3,
    "test_x64_changes_nothing": 20,
    "test_ulps_of_gradients": 14,
    "test_identical_boxes_cost_nothing_at_any_size": 5,
    "test_competing_losses_are_finite_and_never_negative": 3,
    "test_devices_exchange_sums_not_pixels": 5,
    "test_switched_off_it_is_cross_entropy": 2,
    "test_focal_tversky_unet_10_29_smp_perfect_predictions": 2,
    "test_no_pair_costs_less_than_nothing": 4,
    "test_keeps_its_digits_on_confident_samples": 2,
    "test_limits_are_the_cross_entropy": 3,
    "test_nothing_is_found_in_sound_data": 0,
    "test_a_nan_in_the_prediction_is_found": 0,
}


def pytest_configure(config):
    """Compiles an ordinary run in a hurry; XLA reads its flags with the first program."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] += FLAGS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the further rows of long tables as slow."""
    seen = dict.fromkeys(ROWS, 0)
    for item in items:
        name = getattr(item, "originalname", None)
        if name in ROWS and not item.get_closest_marker("slow"):
            seen[name] += 1
            if seen[name] > ROWS[name]:
                item.add_marker(pytest.mark.slow)
