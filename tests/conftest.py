"""Strict JAX for every test: eight fake devices, no silent promotion of ranks or dtypes."""

import collections
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


def pytest_configure(config):
    """Compiles an ordinary run in a hurry; XLA reads its flags with the first program."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] += FLAGS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the rows behind the first few of a table as slow, as `@pytest.mark.rows(few)` says."""
    seen = collections.Counter()
    for item in items:
        table = item.get_closest_marker("rows")
        if table and not item.get_closest_marker("slow"):
            seen[item.function] += 1
            if seen[item.function] > table.args[0]:
                item.add_marker(pytest.mark.slow)
