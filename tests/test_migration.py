"""The pages of docs/coming_from: each row gives what the other library's call gave."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from tests.compiling import quick_jit
from tests.migration import write
from tests.migration.pages import ORDER, prediction, rows
from tests.migration.scenes import SCENES

GOLDENS = json.loads(write.GOLDENS.read_text())


def ours(row):
    """Our call as a function of its prediction: value, gradient of the sum."""
    by = prediction(row)
    names = {"jax": jax, "jnp": jnp, "jaxloss": jaxloss, "optax": optax}

    def total(x):
        arrays = {name: jnp.asarray(a) for name, a in SCENES[row.scene].items()}
        value = eval(row.ours, names | arrays | {by: x})
        return jnp.sum(value), value

    def run(x):
        gradient, value = jax.grad(total, has_aux=True)(x)
        return value, gradient

    return run


def assert_close(actual, expected, row, what):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, (row.ours, what)
    # Entries that are small beside the others are small by cancellation.
    atol = row.rtol * np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, row.rtol, atol, err_msg=f"{what}: {row.ours}")


@pytest.mark.parametrize("page", ORDER)
def test_rows(page):
    table = rows(page)
    theirs = {(row["scene"], row["peer"]): row for row in GOLDENS[page]["rows"]}
    missing = [row.peer for row in table if (row.scene, row.peer) not in theirs]
    assert not missing, "run tests/goldens/make_migration.py"
    assert len(theirs) == len(table)
    assert all(row.rtol <= 1e-5 for row in table)

    with jax.enable_x64(True):
        predictions = [jnp.asarray(SCENES[row.scene][prediction(row)]) for row in table]
        everything = quick_jit(lambda xs: [ours(row)(x) for row, x in zip(table, xs, strict=True)])
        found = jax.device_get(everything(predictions))

    for row, (value, gradient) in zip(table, found, strict=True):
        golden = theirs[row.scene, row.peer]
        assert_close(value, golden["value"], row, "value")
        if row.gradient:
            assert_close(gradient, golden["gradient"], row, "gradient")
        assert np.isfinite(gradient).all()
        if row.right:
            assert not np.allclose(golden["wrong"], golden["value"], 1e-5, equal_nan=True)


def test_pages_are_what_the_script_writes():
    written = {file.name: file.read_text() for file in write.DOCS.glob("*.md")}
    assert written == write.pages(), "run python -m tests.migration.write"
