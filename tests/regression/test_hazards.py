"""Bug reports about other libraries' regressions, one test for each.

What their names say: tests/test_hazards.py.
"""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from tests.hazards import HALVES, array, assert_rows, rows


def test_pytorch_187180_half_precision_returns_float32():
    """A loss computed in float32 overflowed when it was cast back to half precision."""
    for dtype in HALVES:
        loss = jaxloss.l2(jnp.full(4, 400, dtype), jnp.zeros(4, dtype))
        assert loss.dtype == np.float32
        assert loss == 160_000


def test_pytorch_96813_68558_huber_with_delta_zero():
    """smooth_l1 with beta = 0 had a NaN gradient where prediction and target are equal."""
    x, y = array(0, 1, -2, 3e38), array(0, 0, 0, 0)
    assert_rows(rows(functools.partial(jaxloss.huber, delta=0), x, y), np.zeros(4))
    assert_rows(rows(jaxloss.huber, x, y), [0, 0.5, 1.5, 3e38], [0, 1, -1, 1])
