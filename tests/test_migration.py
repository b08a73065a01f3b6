"""The pages of docs/coming_from: each row gives what the other library's call gave."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.migration import write
from tests.migration.pages import ORDER, prediction, read, rows
from tests.migration.scenes import SCENES

GOLDENS = json.loads(write.GOLDENS.read_text())
RIGHT = {"np": np, **{name: getattr(np, name) for name in ("exp", "log", "sqrt", "where")}}


def assert_close(actual, expected, rtol):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    # Entries that are small beside the others are small by cancellation.
    np.testing.assert_allclose(actual, expected, rtol, rtol * np.max(np.abs(expected)))


def ours(row):
    """Value and gradient of our call."""
    by = prediction(row)
    arrays = {name: jnp.asarray(a) for name, a in SCENES[row.scene].items()}

    def total(x):
        call = compile(row.ours, row.ours, "eval")
        value = eval(call, {"jax": jax, "jnp": jnp, "jaxloss": jaxloss, **arrays, by: x})
        return jnp.sum(value), value

    return jax.value_and_grad(total, has_aux=True)(arrays[by])


