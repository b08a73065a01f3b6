"""Arithmetic that box losses stand on: exact at the ends of the range, in value and derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss._core import numerics

DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_units_are_powers_of_two_whose_inverses_are_exact(dtype):
    with jax.enable_x64(dtype == "float64"):
        limits = jnp.finfo(dtype)
        lengths = [0.0, -3.0, limits.tiny, 1e-30, 0.7, 1.0, 1.4, 3e30, limits.max, np.inf]
        x = jnp.asarray(lengths, dtype)
        unit, inverse = numerics.unit(x), numerics.per_unit(x)
        assert unit.dtype == inverse.dtype == x.dtype
        np.testing.assert_array_equal(unit * inverse, 1)
        np.testing.assert_array_equal(np.frexp(unit)[0], 0.5)
        inside = slice(2, -2)
        ratio = np.asarray(x * inverse)[inside]
        assert ((ratio >= 0.66) & (ratio <= 1.5)).all()
        np.testing.assert_array_equal(numerics.unit(unit), unit)
        assert jax.grad(lambda x: numerics.per_unit(x) * numerics.unit(x) * 2)(x[4]) == 0


@pytest.mark.parametrize(("part", "rest"), [(1.0, 1e-18), (1e-18, 1.0), (3.0, 0.0), (0.0, 2.0)])
def test_share_keeps_what_is_left_of_nearly_all(part, rest):
    """In both modes, where numerator and denominator change by almost the same."""
    share = jnp.float32(part), jnp.float32(rest)
    total = part + rest
    expected = rest / total**2, -part / total**2
    np.testing.assert_allclose(jax.grad(numerics.share, (0, 1))(*share), expected, 1e-6)
    np.testing.assert_allclose(jax.jacfwd(numerics.share, (0, 1))(*share), expected, 1e-6)


def test_share_of_nothing_is_nothing():
    zero = jnp.float32(0)
    value, slopes = jax.value_and_grad(numerics.share, (0, 1))(zero, zero)
    np.testing.assert_array_equal([value, *slopes], 0)


def test_ties_have_half_the_derivative():
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(numerics.positive(x), [0, 0, 3])
    slope = jax.vmap(jax.grad(numerics.positive))
    np.testing.assert_array_equal(slope(x), [0, 0.5, 1])
    np.testing.assert_array_equal(slope(x) + slope(-x), 1)
    larger = jax.vmap(jax.grad(lambda x: numerics.in_order(x, jnp.float32(0))[1]))
    np.testing.assert_array_equal(larger(x), [0, 0.5, 1])
    assert jnp.isnan(numerics.positive(jnp.float32(jnp.nan)))


def test_square_roots_from_0_to_infinity():
    x = jnp.array([-1.0, 0.0, 4e-38, 4.0, jnp.inf])
    np.testing.assert_allclose(numerics.sqrt(x), [0, 0, 2e-19, 2, np.inf], 1e-6)
    slopes = jax.vmap(jax.grad(numerics.sqrt))(x)
    np.testing.assert_allclose(slopes, [0, 0, 2.5e18, 0.25, 0], 1e-6)
    curves = jax.vmap(jax.grad(jax.grad(numerics.sqrt)))(x[jnp.array([1, 3])])
    np.testing.assert_allclose(curves, [0, -1 / 32], 1e-6)
    value, slope = jax.value_and_grad(numerics.sqrt)(jnp.float32(jnp.nan))
    assert jnp.isnan(value)
    assert jnp.isnan(slope)


def test_expm1_has_a_derivative_where_it_rounds_to_minus_1():
    x = jnp.array([-80.0, -20.0, -1e-8, 0.0, 1.0])
    np.testing.assert_array_equal(numerics.expm1(x), jnp.expm1(x))
    np.testing.assert_allclose(jax.vmap(jax.grad(numerics.expm1))(x), jnp.exp(x), 1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(numerics.expm1)))(x), jnp.exp(x), 1e-6)
