"""Strict JAX for every test: eight fake devices, no silent promotion of ranks or dtypes."""

import gc
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.compiling import FLAGS  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

gc.set_threshold(100_000, 50, 100)  # tracing makes many objects: by default a fifth of the time

collect_ignore_glob = ["goldens/*.py"]  # they need the original implementations

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
