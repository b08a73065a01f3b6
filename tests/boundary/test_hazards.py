"""Bug reports about other libraries' distance maps, one test for each.

What their names say: tests/test_hazards.py.
"""

import jax
import numpy as np
import pytest
import scipy.ndimage

import jaxloss
from jaxloss import distance
from tests.hazards import INF, array


def test_scipy_15585_1616_no_background_is_no_distance():
    """The distance of an image without background was that to a phantom pixel at (-1, 0)."""
    full, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    np.testing.assert_array_equal(distance.edt(full), INF)
    np.testing.assert_array_equal(distance.edt(full, empty=0), 0)
    np.testing.assert_array_equal(distance.edt(empty), 0)
    np.testing.assert_array_equal(distance.signed_distance(full), 0)
    np.testing.assert_array_equal(distance.signed_distance(empty), 0)


@pytest.mark.parametrize("shape", [(7, 4099), (1200, 1025)], ids=str)
def test_cucim_392_sizes_beyond_a_block(shape):
    """Images of more than 1024 pixels gave wrong distances."""
    mask = np.random.default_rng(0).uniform(size=shape) > 1e-3
    mask.flat[0] = False
    expected = scipy.ndimage.distance_transform_edt(mask)
    np.testing.assert_allclose(distance.edt(mask), expected, rtol=1e-6)


def test_edt_3d_15_23_scipy_4143_squares_do_not_overflow():
    """Squared distances overflowed their integers in long images."""
    mask = np.ones((2, 30_000), bool)
    mask[0, 0] = False
    steps = np.arange(30_000, dtype=np.int64)
    expected = (steps**2 + np.array([[0], [1]])).astype(np.float32)
    np.testing.assert_array_equal(distance.squared_edt(mask), expected)


def test_boundary_loss_42_seglossodyssey_21_sign_and_gradient():
    """Ports disagreed on the sign and the -1 inside, or lost the gradient with the maps."""
    y = array([0, 0, 1, 1, 1, 0])[None]
    phi = array([2, 1, 0, -1, 0, 1])[None]
    p = np.full_like(y, 0.3)

    def loss(p):
        return jaxloss.boundary(p, y, axis=None, activation=None)

    value, gradient = jax.jit(jax.value_and_grad(loss))(p)
    np.testing.assert_allclose(value, 0.3 * phi.mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, phi / 6, rtol=1e-6)
