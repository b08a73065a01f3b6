"""The smallest numbers of rows, against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss.detection._sampling import anywhere
from jaxloss.detection._smallest import smallest
from tests.compiling import quick_jit
from tests.detection.scenes import waves


@pytest.mark.parametrize(("size", "count"), [(1, 1), (33, 33), (100, 0), (1000, 250)])
def test_smallest_against_sorting(size, count):
    """Ties, zeros, infinities, NaN, denormal numbers; no index twice."""
    x = np.abs(waves((7, size), 0, 3.0)).astype(np.float32)
    x[1] = np.round(x[1], 1)
    x[2] = 0
    x[3] = np.nan
    x[4] = np.where(x[4] > 1, np.inf, x[4])
    x[5] *= np.float32(1e-40)
    x[6, ::2] = np.nan
    index = np.asarray(quick_jit(lambda x: smallest(x, count))(x))
    assert index.shape == (7, count)
    found = np.sort(np.take_along_axis(np.where(np.isnan(x), np.inf, x), index, 1), 1)
    expected = np.sort(np.where(np.isnan(x), np.inf, x), 1)[:, :count]
    np.testing.assert_array_equal(found, expected)
    assert all(len(set(row)) == count for row in index)


def test_points_are_uniform_and_ordered():
    """Moments of each coordinate, and gaps that vary as those of independent points do."""
    (points,) = quick_jit(lambda: anywhere(jax.random.key(0), 40, [(500,)], jnp.float32))()
    points = np.asarray(points, float)
    x, y = points[..., 0], points[..., 1]
    assert (np.diff(y) >= 0).all()
    assert points.min() >= 0
    assert points.max() <= 1
    for power in (1, 2, 3):
        for z in (x, y):
            np.testing.assert_allclose((z**power).mean(), 1 / (power + 1), atol=0.01)
    np.testing.assert_allclose(np.diff(y).std() * 501, 1, rtol=0.05)
    np.testing.assert_allclose(y.mean(1).std(), (1 / 12 / 500) ** 0.5, rtol=0.4)
