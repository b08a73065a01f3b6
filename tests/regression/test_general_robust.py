"""The general robust loss at and about the limits of its shape, beside 60 digits."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxloss
from tests.compiling import quick_jit

INF = float("inf")
ERRORS = [0.0, 1e-8, 1e-3, 0.1, 0.5, 0.9, 1.5, 3.0, 5.0, 30.0, 1e4, 1e9, 1e18, 1e30]


def _next_to(alpha, dtype):
    """A shape, its neighbours in a dtype, and others about it."""
    one = dtype(alpha)
    near = [np.nextafter(one, dtype(INF)), np.nextafter(one, dtype(-INF))]
    return [one, *near, *(one + dtype(s * h) for h in (1e-6, 1e-3, 0.1, 0.6) for s in (1, -1))]


def _shapes(dtype):
    far = [-4.0, -1e3, -1e6, -1e30, -INF, 1.0, 3.0, 10.0, 1e8, INF]
    return [*_next_to(2.0, dtype), *_next_to(0.0, dtype), *map(dtype, far)]


def _exact(x, alpha):
    """Value and slope by the error; mpmath's numbers."""
    x, alpha = mpmath.mpf(x), mpmath.mpf(alpha)
    if mpmath.isinf(alpha):
        sign = mpmath.sign(alpha)
        return sign * mpmath.expm1(sign * x**2 / 2), x * mpmath.exp(sign * x**2 / 2)
    if alpha == 2:
        return x**2 / 2, x
    b = abs(alpha - 2)
    log = mpmath.log1p(x**2 / b)
    value = b / alpha * mpmath.expm1(alpha / 2 * log) if alpha != 0 else b / 2 * log
    return value, x * mpmath.exp((alpha / 2 - 1) * log)


def _by_alpha(x, alpha):
    """The slope by a finite shape other than 2."""
    return mpmath.diff(lambda a: _exact(x, a)[0], mpmath.mpf(alpha), h=mpmath.mpf(10) ** -45)


@functools.cache
def _program():
    loss = lambda x, alpha: jaxloss.general_robust(x, jnp.zeros_like(x), alpha=alpha)
    both = jax.value_and_grad(loss, (0, 1))
    return quick_jit(jax.vmap(jax.vmap(both, (0, None)), (None, 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_slopes_at_and_about_every_limit(dtype):
    """For errors of any size, wherever the exact number fits the dtype, times 256."""
    eps, most = float(np.finfo(dtype).eps), float(np.finfo(dtype).max) / 256
    errors, shapes = np.array(ERRORS, dtype), np.array(_shapes(dtype), dtype)
    with jax.enable_x64(dtype == np.float64):
        values, (slopes, by_alpha) = jax.device_get(_program()(errors, shapes))
    assert values.dtype == dtype
    for i, alpha in enumerate(map(float, shapes)):
        for j, x in enumerate(map(float, errors)):
            with mpmath.workdps(60):
                value, slope = _exact(x, alpha)
                if value > most:
                    continue
                # A power has as many ulp as its exponent has units.
                units = 4 + 2 * abs(float(mpmath.log(value))) if value > 1 else 4
                case = (alpha, x)
                assert abs(values[i, j] - value) <= units * eps * value, case
                assert abs(slopes[i, j] - slope) <= (units + 200) * eps * slope + 1e-37, case
                if np.isinf(alpha):
                    assert by_alpha[i, j] == 0, case
                elif alpha == 2 or x == 0 or (by := _by_alpha(x, alpha)) > most:
                    continue
                else:  # it may be far smaller than the loss, whose rounding it shares
                    close = 4 * units * eps * (by + value) + 1e-37
                    assert abs(by_alpha[i, j] - by) <= close, case


def test_the_squared_error_is_exact():
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    loss = jaxloss.general_robust(x, 0 * x, alpha=2, reduction="none")
    np.testing.assert_array_equal(loss, x**2 / 2)


def test_the_slope_by_alpha_at_2_is_that_of_its_neighbours():
    """It is infinite there: neither is it, nor 0, which would hold a learned alpha at 2."""
    run = jax.grad(lambda alpha: jaxloss.general_robust(3.0, 0.0, alpha=alpha))
    below, at, above = (run(jnp.float32(a)) for a in (2 - 1.2e-7, 2.0, 2 + 2.4e-7))
    assert above < at * (1 + 1e-6)
    np.testing.assert_allclose([below, above], at, rtol=0.15)


def test_second_derivatives_are_finite():
    loss = lambda z: jaxloss.general_robust(z[0], 0.0, alpha=z[1], scale=z[2])
    points = [[x, a, 1.0] for x in (0.0, 0.1, 2.0, 1e4) for a in (2.0, 1.0, 0.0, -2.0, -INF)]
    hessians = quick_jit(jax.vmap(jax.hessian(loss)))(jnp.array(points))
    assert jnp.isfinite(hessians).all()
    np.testing.assert_allclose(hessians[:5, 0, 0], 1)  # at the target, 1 / scale^2


def test_shapes_that_have_names():
    x, y = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    robust = functools.partial(jaxloss.general_robust, x, y)
    np.testing.assert_allclose(robust(alpha=2), jaxloss.l2(x, y) / 2, rtol=1e-6)
    smooth = jaxloss.charbonnier(x, y, epsilon=1) - 1
    np.testing.assert_allclose(robust(alpha=1), smooth, rtol=2e-6)
    d = x - y
    np.testing.assert_allclose(robust(alpha=-2), (2 * d**2 / (d**2 + 4)).mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "alpha, scale, error, expected",
    [
        (2.0, 0.7, 1e19, 1.0204082e38),
        (1.999, 1.0, 1.4e19, 9.3496686e37),
        (2.0, 1.0, 1.8e19, 1.62e38),
    ],
)
def test_errors_whose_square_just_fits(alpha, scale, error, expected):
    loss = lambda x: jaxloss.general_robust(x, jnp.zeros(1), alpha=alpha, scale=scale)
    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.array([error]))
    np.testing.assert_allclose(value, expected, 1e-5)
    np.testing.assert_allclose(slope, alpha * expected / error, 1e-2)
