"""The experiments of docs/claims.md, a few steps of them."""

import pathlib
import sys

import jax
import numpy as np
import pytest
from flax import nnx

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import claims  # noqa: E402
from survey_data import draw  # noqa: E402
from training import make_key  # noqa: E402

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "claims.md").read_text()


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Flax and Optax promote ranks and types inside; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_two_channels_at_half_the_rate_are_one(monkeypatch):
    monkeypatch.setattr(claims, "STEPS", 4)
    data = draw("digits, 20 %", "train", 16, 16)
    one, two = claims.one_channel(0), claims.two_channels(0)
    curves = [
        claims.descend(form["cross-entropy"], *nnx.split(model), data, make_key(0), rate)[1]
        for form, model, rate in (
            (claims.ONE, one, claims.RATE),
            (claims.TWO, two, claims.RATE / 2),
            (claims.TWO, two, claims.RATE),
        )
    ]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    assert abs(curves[2][-1] / curves[0][-1] - 1) > 1e-3


def test_page_has_the_rows_of_the_survey():
    for line in claims.of_survey():
        assert line in PAGE, "run python examples/claims.py survey"
