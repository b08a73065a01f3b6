"""Values and gradients against numbers that the original implementations gave.

The scripts in `goldens/` say which, how, and where a convention of theirs was undone; nothing of
theirs is needed here.
"""

import collections
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.compiling import quick_jit, usual_jit

FILES = sorted((pathlib.Path(__file__).parent / "goldens").glob("*.json"))
# Those of heads, measures, recipes and geometry have tests of their own.
_OTHERS = ("detection", "geometry", "metrics", "migration", "recipes")
FILES = [file for file in FILES if not file.stem.startswith(_OTHERS)]
ROWS = [row for file in FILES for row in json.loads(file.read_text())["rows"]]


def name(row):
    return f"{row['loss']}-{row['case']}".replace(",", "").replace(" ", "_")


def decode(value):
    """An array where the file has one, anything else as it is."""
    if isinstance(value, dict):
        return np.array(value["data"], dtype=value["dtype"])
    return value


def assert_close(actual, expected, rtol):
    expected = decode(expected)
    assert actual.shape == expected.shape
    # Entries that are small beside the others are small by cancellation.
    largest = np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * largest)


def _parameters():
    """The rows; those after the first of a loss run with `--all` only."""
    seen = collections.Counter()
    for row in ROWS:
        seen[row["loss"]] += 1
        marks = [pytest.mark.slow] if seen[row["loss"]] > 1 else []
        yield pytest.param(row, id=name(row), marks=marks)


@pytest.mark.parametrize("row", list(_parameters()))
def test_golden(row):
    loss = getattr(jaxloss, row["loss"])
    prediction, *others = [decode(a) for a in row["args"]]
    options = {key: decode(value) for key, value in row["kwargs"].items()}

    def total(x):
        value = loss(x, *others, **options)
        return jnp.sum(value), value

    with jax.enable_x64(True):
        # Its maxima and minima are compared with what unoptimised code rounds otherwise.
        compiling = usual_jit if row["loss"] == "hausdorff_erosion" else quick_jit
        run = compiling(jax.value_and_grad(total, has_aux=True))
        (_, value), gradient = run(jnp.asarray(prediction))

    assert value.dtype == gradient.dtype == np.float64
    assert_close(value, row["value"], row["rtol"])
    if row["gradient"] is not None:
        assert_close(gradient, row["gradient"], row["rtol"])
