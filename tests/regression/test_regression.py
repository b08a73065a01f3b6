"""Regression losses: oracles, cases and closed forms."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxloss
from tests.registry import Case, Invalid, reduced, values


def _elementwise(cost):
    """The oracle of a cost of the error `prediction - target`."""

    def oracle(prediction, target, where=None, weights=None, reduction="mean", **options):
        return reduced(cost(prediction - target, **options), reduction, where, weights)

    return oracle


def _huber(d, delta=1.0):
    size = np.abs(d)
    return np.where(size <= delta, d**2 / 2, delta * (size - delta / 2))


def _smooth_l1(d, beta=1.0):
    size = np.abs(d)
    return np.where(size < beta, d**2 / (2 * beta), size - beta / 2)


def _balanced_l1(d, alpha=0.5, gamma=1.5, beta=1.0):
    size, b = np.abs(d), np.exp(gamma / alpha) - 1
    near = alpha / b * (b * size + beta) * np.log(b * size / beta + 1) - alpha * size
    return np.where(size < beta, near, gamma * size + beta * gamma / b - alpha * beta)


def _wing(d, width=10.0, curvature=2.0):
    size, constant = np.abs(d), width - width * np.log(1 + width / curvature)
    return np.where(size < width, width * np.log(1 + size / curvature), size - constant)


def _gaussian_nll(
    prediction, target, where=None, weights=None, reduction="mean", variance=1.0, full=False
):
    v = np.maximum(variance, 1e-6) * np.ones(prediction.shape)
    loss = (np.log(v) + (prediction - target) ** 2 / v) / 2
    return reduced(loss + full * np.log(2 * np.pi) / 2, reduction, where, weights)


def _poisson_nll(
    prediction, target, where=None, weights=None, reduction="mean", log_input=True, full=False
):
    if log_input:
        loss = np.exp(prediction) - target * prediction
    else:
        loss = prediction - target * np.log(prediction)
    if full:
        y = np.where(target > 1, target, 1)
        loss = loss + (target > 1) * (y * np.log(y) - y + np.log(2 * np.pi * y) / 2)
    return reduced(loss, reduction, where, weights)


def _cosine(prediction, target, where=None, weights=None, reduction="mean", axis=-1):
    dot = (prediction * target).sum(axis)
    lengths = np.linalg.norm(prediction, axis=axis) * np.linalg.norm(target, axis=axis)
    return reduced(1 - dot / lengths, reduction, where, weights)


def _general_robust(d, alpha=1.0, scale=1.0):
    square = (d / scale) ** 2
    if alpha == 0:
        return np.log1p(square / 2)
    if alpha == -np.inf:
        return -np.expm1(-square / 2)
    b = np.abs(alpha - 2)
    return b / alpha * ((square / b + 1) ** (alpha / 2) - 1)


def rates(name="rates", **options):
    """Positive rates and counts."""
    sample = values(name)
    rng = np.random.default_rng(1)
    return sample._replace(
        prediction=rng.uniform(0.5, 3, sample.prediction.shape),
        target=rng.integers(0, 6, sample.target.shape) + 0.3,
        options=options,
    )


def vectors(name="vectors"):
    sample = values(name)
    return sample._replace(positions=sample.positions[:-1], inner=1)


ONES = np.ones((3,))
_INVALID = (
    Invalid((np.ones((3, 1)), ONES), {}, ValueError, ("targets", r"\(3,\)", r"\(3, 1\)")),
    Invalid((np.ones(3, int), ONES), {}, TypeError, ("predictions", "int", "floating")),
    Invalid((ONES, ONES), {"reduction": "avg"}, ValueError, ("reduction", "avg", "mean")),
    Invalid((ONES, ONES), {"where": ONES}, TypeError, ("where", "float", "bool")),
    Invalid((ONES, ONES), {"where": np.ones((1, 3), bool)}, ValueError, ("where", "shape", "rank")),
)


def _out_of_range(**options):
    return tuple(
        Invalid((ONES, ONES), {name: value}, ValueError, (name, str(value), "number in"))
        for name, value in options.items()
    )


def _case(cost, *samples, kind="kinked", temporary=0.22, **parameters):
    outside = {name: out for name, (_, out) in parameters.items() if out is not None}
    return Case(
        _elementwise(cost),
        samples or (values(),),
        (*_INVALID, *_out_of_range(**outside)),
        parameters,
        kind,
        temporary,
    )


CASES = {
    "l1": _case(np.abs),
    "l2": _case(np.square, kind="smooth"),
    "huber": _case(_huber, values(), values("wide", delta=3.0), delta=(1.3, -1.0)),
    "smooth_l1": _case(_smooth_l1, values(), values("wide", beta=3.0), beta=(1.3, -1.0)),
    "log_cosh": _case(lambda d: np.log(np.cosh(d)), kind="smooth"),
    "charbonnier": _case(
        lambda d, epsilon=1e-3: np.sqrt(d**2 + epsilon**2),
        values(),
        values("wide", epsilon=0.5),
        kind="smooth",
        epsilon=(0.7, -1.0),
    ),
    "quantile": _case(
        lambda d, q=0.5: np.maximum(-q * d, (1 - q) * d),
        values(),
        values("q", q=0.8),
        q=(0.3, 1.5),
    ),
    "balanced_l1": _case(
        _balanced_l1,
        values(),
        values("wide", beta=2.5, alpha=0.7),
        alpha=(0.6, -1.0),
        gamma=(1.2, -1.0),
        beta=(1.3, 0.0),
    ),
    "wing": _case(
        _wing,
        values(),
        values("narrow", width=1.5, curvature=0.5),
        width=(3.0, -1.0),
        curvature=(1.5, 0.0),
    ),
    "general_robust": _case(
        _general_robust,
        values(),
        values("between", alpha=0.6, scale=2.5),
        values("steep", alpha=2.4),
        values("Geman-McClure", alpha=-2.0),
        values("Cauchy", alpha=0.0),
        values("Welsch", alpha=-np.inf),
        kind="smooth",
        temporary=0.32,
        alpha=(0.6, None),
        scale=(1.3, -1.0),
    ),
    "gaussian_nll": Case(
        _gaussian_nll,
        (values(variance=0.7), values("full", variance=0.7, full=True)),
        tuple(call._replace(options={"variance": 1.0} | call.options) for call in _INVALID)
        + (
            Invalid(
                (ONES, ONES), {"variance": np.ones((1, 3))}, ValueError, ("variance", r"\(1, 3\)")
            ),
        ),
        {"variance": (0.7, None)},
        "smooth",
        0.04,
    ),
    "poisson_nll": Case(
        _poisson_nll,
        (rates(), rates("rate", log_input=False), rates("full", full=True)),
        _INVALID,
        {},
        "smooth",
        0.1,
    ),
    "cosine": Case(
        _cosine,
        (vectors(),),
        (
            *_INVALID[:3],
            Invalid((ONES, ONES), {"axis": 1}, ValueError, ("axis", "1", r"\[-1, 1\)")),
            Invalid((ONES, ONES), {"where": ONES}, TypeError, ("where", "float", "bool")),
        ),
        {},
        "smooth",
        0.17,
    ),
}


@pytest.mark.parametrize(
    "error, expected", [(0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (3.0, 2.5), (-1e20, 1e20)]
)
def test_huber_is_squared_near_and_linear_far(error, expected):
    assert jaxloss.huber([error], [0.0]) == np.float32(expected)


def test_huber_without_a_squared_part_is_zero():
    assert jaxloss.huber([3.0], [1.0], delta=0.0) == 0.0


@pytest.mark.parametrize("name", ["l1", "smooth_l1", "log_cosh", "quantile", "balanced_l1", "wing"])
def test_the_gradient_at_the_target_is_zero(name):
    assert jax.grad(getattr(jaxloss, name))(jnp.ones(3), jnp.ones(3)).tolist() == [0.0] * 3


def test_log_cosh_is_accurate_at_every_size():
    """`logaddexp(x, -x) - log 2` has no digit left near 0, `log(cosh(x))` overflows far from it."""
    x = np.concatenate(
        [10.0 ** np.arange(-15, 0), np.arange(0.1, 40, 0.3), 10.0 ** np.arange(2, 9)]
    )
    x = x.astype(np.float32)
    with mpmath.workdps(40):
        exact = [float(mpmath.log(mpmath.cosh(mpmath.mpf(float(v))))) for v in x]
    loss = jaxloss.log_cosh(x, np.zeros_like(x), reduction="none")
    np.testing.assert_allclose(loss, exact, rtol=16 * np.finfo(np.float32).eps)


def test_smooth_l1_without_a_smooth_part_is_l1():
    x, y = jnp.array([1.0, -2.0, 0.0]), jnp.zeros(3)
    np.testing.assert_array_equal(
        jaxloss.smooth_l1(x, y, beta=0.0, reduction="none"), jaxloss.l1(x, y, reduction="none")
    )
    assert jnp.isfinite(jax.grad(jaxloss.smooth_l1)(x, y, beta=0.0)).all()


def test_charbonnier_neither_underflows_nor_overflows():
    x = jnp.array([0.0, 1e-30, 1e30])
    loss, gradient = jax.vmap(
        jax.value_and_grad(lambda x: jaxloss.charbonnier(x, 0.0, epsilon=1e-30))
    )(x)
    np.testing.assert_allclose(loss, [1e-30, 2**0.5 * 1e-30, 1e30], rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, 0.5**0.5, 1], rtol=1e-6)


def test_cosine_of_vectors_without_direction():
    """optax 946: the gradient at a zero vector was NaN."""
    value, gradient = jax.value_and_grad(jaxloss.cosine)(jnp.zeros(2), jnp.array([0.0, 1.0]))
    assert value == 1
    assert not gradient.any()


@pytest.mark.parametrize("length", [1e-30, 1.0, 1e30])
def test_cosine_does_not_depend_on_the_length(length):
    a, b = jnp.array([3.0, 4.0]), jnp.array([4.0, 3.0])
    np.testing.assert_allclose(jaxloss.cosine(a * length, b), 1 - 24 / 25, rtol=1e-6)
    assert jaxloss.cosine(a * length, a) < 1e-13


def test_cosine_along_another_axis():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    np.testing.assert_allclose(
        jaxloss.cosine(a, b, axis=0, reduction="none"), jaxloss.cosine(a.T, b.T, reduction="none")
    )


def test_poisson_rate_of_zero():
    """No count, no cost; a count costs infinity. PyTorch adds 1e-8 to the rate."""
    loss = jaxloss.poisson_nll([0.0, 0.0], [0.0, 1.0], log_input=False, reduction="none")
    np.testing.assert_array_equal(loss, [0.0, np.inf])


def test_tiny_variance_is_floored_with_zero_gradient():
    gradient = jax.grad(lambda v: jaxloss.gaussian_nll(0.0, 0.0, v))(jnp.float32(1e-9))
    assert gradient == 0


def test_the_weight_of_a_single_number_cancels():
    """Its denominator is a scalar, as the prediction is."""
    slope = jax.grad(lambda w: jaxloss.l2(1.0, 3.0, weights=w))(jnp.float32(2))
    assert slope == 0


def test_gaussian_nll_of_errors_and_variances_whose_squares_overflow():
    zero, run = jnp.zeros(1), jax.jit(jax.value_and_grad(jaxloss.gaussian_nll, (0, 2)))
    value, (by_x, by_v) = run(jnp.array([2e19]), zero, jnp.array([1e30]))
    np.testing.assert_allclose(value, (math.log(1e30) + 4e8) / 2, 1e-6)
    np.testing.assert_allclose(by_x, [2e-11], 1e-6)
    np.testing.assert_allclose(by_v, [-2e-22], 1e-6)
    np.testing.assert_allclose(
        run(jnp.array([1e19]), zero, jnp.array([1e30]))[1][1], [-5e-23], 1e-5
    )


def test_poisson_nll_of_no_count_and_a_tiny_rate_is_linear():
    loss = lambda x, y: jaxloss.poisson_nll(x, y, log_input=False)
    rate, none = jnp.array([1e-20]), jnp.zeros(1)
    assert jax.jit(jax.hessian(loss))(rate, none) == 0
    np.testing.assert_allclose(jax.grad(loss, 1)(rate, none), [-math.log(1e-20)], 1e-6)
    np.testing.assert_allclose(
        jax.hessian(loss)(jnp.array([0.5]), jnp.array([3.0])), [[12.0]], 1e-6
    )
