"""The pages of docs/coming_from: each row gives what the other library's call gave."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from tests.migration import write
from tests.migration.pages import ORDER, prediction, rows
from tests.migration.scenes import SCENES

GOLDENS = json.loads(write.GOLDENS.read_text())


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
        value = eval(
            call, {"jax": jax, "jnp": jnp, "jaxloss": jaxloss, "optax": optax, **arrays, by: x}
        )
        return jnp.sum(value), value

    return jax.value_and_grad(total, has_aux=True)(arrays[by])


@pytest.mark.parametrize("most", [4, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("page", ORDER)
def test_rows_give_what_the_other_library_gave(page, most):
    theirs = {(found["scene"], found["peer"]): found for found in GOLDENS[page]["rows"]}
    listed = list(rows(page))
    assert {(row.scene, row.peer) for row in listed} == set(theirs)
    for row in listed[:most]:
        with jax.enable_x64(True):
            (_, value), gradient = ours(row)
        found = theirs[row.scene, row.peer]
        assert_close(value, found["value"], row.rtol)
        if row.gradient:
            assert_close(gradient, found["gradient"], row.rtol)
        if row.right:  # what the other library itself gives is not that
            assert not np.allclose(value, found["wrong"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("file", write.pages())
def test_pages_are_what_their_source_makes(file):
    assert (write.DOCS / file).read_text() == write.pages()[file]
