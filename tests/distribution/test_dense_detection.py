"""Losses of dense detectors: oracles, cases and closed forms."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

import jaxloss
from tests.hazards import INF, NAN, array, assert_finite, assert_rows, compiled, rows
from tests.oracles import X, binary_entropy, independent
from tests.registry import SHAPE, Case, Invalid, Sample, elements, probabilities, reduced


def _hard(sample, end):
    """The sample with some targets at an end of the range."""
    at = np.random.default_rng(9).random(sample.target.shape) < 0.4
    return sample._replace(target=np.where(at, end, sample.target))


def _binary(end, **options):
    sample = elements("binary", **options)
    sample = sample._replace(prediction=sample.prediction[..., 0], target=sample.target[..., 0])
    options |= {"axis": None}
    return _hard(sample._replace(options=options, positions=SHAPE[:-1], axis=None), end)


def _quality_cost(p, q, beta=2.0):
    return np.abs(q - p) ** beta * binary_entropy(p, q)


def _negative(p, alpha, gamma):
    return -alpha * p**gamma * np.log1p(-p)


def _varifocal_cost(p, q, alpha=0.75, gamma=2.0):
    return np.where(q > 0, q * binary_entropy(p, q), _negative(p, alpha, gamma))


def _matchability_cost(p, q, gamma=1.5):
    return np.where(q > 0, binary_entropy(p, q**gamma), _negative(p, 1, gamma))


def _gaussian_cost(p, y, alpha=2.0, beta=4.0):
    return np.where(y == 1, _negative(1 - p, 1, alpha), (1 - y) ** beta * _negative(p, 1, alpha))


def _slope_of_negative(p, alpha, gamma):
    return alpha * (p**gamma / (1 - p) - gamma * p ** (gamma - 1) * np.log1p(-p))


def _by_logit(slope):
    """The gradient of the sum by the prediction, from that by the probability."""

    def gradient(prediction, target, axis=-1, activation="sigmoid", **options):
        p = prediction if activation is None else expit(prediction)
        by_p = slope(p, target, **options)
        return by_p if activation is None else by_p * p * (1 - p)

    return gradient


def _varifocal_slope(p, q, alpha=0.75, gamma=2.0):
    return np.where(q > 0, q * (p - q) / (p * (1 - p)), _slope_of_negative(p, alpha, gamma))


def _matchability_slope(p, q, gamma=1.5):
    return np.where(q > 0, (p - q**gamma) / (p * (1 - p)), p**gamma / (1 - p))


def _gaussian_slope(p, y, alpha=2.0, beta=4.0):
    elsewhere = (1 - y) ** beta * _slope_of_negative(p, 1, alpha)
    return np.where(y == 1, -_slope_of_negative(1 - p, 1, alpha), elsewhere)


def _distribution(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
):
    x = np.moveaxis(prediction, axis, -1)
    log_p = log_softmax(x, -1)
    w = np.ones(x.shape[-1]) if class_weights is None else class_weights
    low = np.minimum(np.floor(target), x.shape[-1] - 2).astype(int)
    values, normalizer = np.zeros(target.shape), np.zeros(target.shape)
    for at in np.ndindex(target.shape):
        left, right = low[at], low[at] + 1
        for c, share in ((left, right - target[at]), (right, target[at] - left)):
            values[at] -= w[c] * share * log_p[at][c]
            normalizer[at] += w[c] * share
    return reduced(values, reduction, where, weights, normalizer)


def _distances(name, axis=-1, **options):
    """Logits over bins and a distance for each position."""
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=SHAPE) * 2, rng.uniform(0, SHAPE[-1] - 1, SHAPE[:-1])
    options |= {"axis": axis}
    # Bins are no classes that ids could name: like the numbers of a box, they are one position.
    inner = 1 if axis == -1 else 0
    return Sample(name, np.moveaxis(logits, -1, axis), target, options, SHAPE[:-1], inner=inner)


def _invalid(argument):
    return (
        Invalid((X.astype(int), X), {}, TypeError, ("logits", "int", "floating")),
        Invalid((X, X[0]), {}, ValueError, (argument, r"\(3,\)", r"\(2, 3\)")),
        Invalid((X, X[:, :1]), {}, ValueError, (argument, r"\(2, 1\)", r"\(2, 3\)")),
        Invalid((X, X[:, 0].astype(int)), {}, ValueError, (argument, r"\(2,\)", r"\(2, 3\)")),
        Invalid((X, X), {"axis": 2}, ValueError, ("axis", "2", r"\[-2, 2\)")),
        Invalid((X, X), {"reduction": "avg"}, ValueError, ("reduction", "'avg'", "'mean'")),
        Invalid((X, X), {"where": X}, TypeError, ("where", "float", "bool")),
        Invalid((X, X), {"where": np.ones(3, bool)}, ValueError, ("where", r"\(3,\)", "rank")),
        Invalid((X, X), {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)", "rank")),
        Invalid((X, X), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")),
        Invalid((X, X), {"ignore_index": 1}, ValueError, ("ignore_index", "float", "integer")),
        Invalid((X, X), {"activation": "softmax"}, ValueError, ("activation", "'softmax'")),
    )


def _out_of_range(*names):
    return tuple(Invalid((X, X), {n: -1.0}, ValueError, (n, "-1.0", "number in")) for n in names)


CASES = {
    "quality_focal": Case(
        independent(_quality_cost),
        (
            elements(),
            elements("no_classes", axis=None, beta=1.5)._replace(axis=None),
            elements("channels", axis=1)._replace(axis=1),
            probabilities(),
        ),
        (*_invalid("quality"), *_out_of_range("beta")),
        {"beta": (1.5, -1.0)},
        "smooth",
        0.165,
    ),
    "varifocal": Case(
        independent(_varifocal_cost),
        (
            _hard(elements(), 0.0),
            _binary(0.0, alpha=0.3, gamma=1.5),
            _hard(probabilities(), 0.0),
        ),
        (*_invalid("quality"), *_out_of_range("alpha", "gamma")),
        {"alpha": (0.6, -1.0), "gamma": (1.5, -1.0)},
        "detached",
        0.13,
        _by_logit(_varifocal_slope),
    ),
    "matchability_aware": Case(
        independent(_matchability_cost),
        (
            _hard(elements(), 0.0),
            _binary(0.0, gamma=2.0),
            _hard(probabilities(), 0.0),
        ),
        (*_invalid("quality"), *_out_of_range("gamma")),
        {"gamma": (0.7, -1.0)},
        "detached",
        0.165,
        _by_logit(_matchability_slope),
    ),
    "gaussian_focal": Case(
        independent(_gaussian_cost),
        (
            _hard(elements(), 1.0),
            _binary(1.0, alpha=1.5, beta=2.5),
            _hard(probabilities(), 1.0),
        ),
        (*_invalid("heatmap"), *_out_of_range("alpha", "beta")),
        {"alpha": (1.5, -1.0), "beta": (3.0, -1.0)},
        "detached",
        0.2,
        _by_logit(_gaussian_slope),
    ),
    "distribution_focal": Case(
        _distribution,
        (_distances("bins"),),
        (
            Invalid((X.astype(int), X[:, 0]), {}, TypeError, ("logits", "int", "floating")),
            Invalid((X[0, 0], 0.0), {}, ValueError, ("logits", r"\(\)", "bins")),
            Invalid((X[:, :1], X[:, 0]), {}, ValueError, ("logits", r"\(2, 1\)", "two bins")),
            Invalid((X, X), {}, ValueError, ("target", r"\(2, 3\)", r"\(2,\)")),
            Invalid((X, X[:, :1]), {}, ValueError, ("target", r"\(2, 1\)", r"\(2,\)")),
            Invalid((X, X[:, 0]), {"axis": None}, TypeError, ("axis", "None")),
            Invalid((X, X[:, 0]), {"axis": 2}, ValueError, ("axis", "2", r"\[-2, 2\)")),
            Invalid((X, X[:, 0]), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
            Invalid((X, X[:, 0]), {"where": np.ones(3, bool)}, ValueError, ("where", r"\(3,\)")),
            Invalid((X, X[:, 0]), {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)")),
            Invalid((X, X[:, 0]), {"class_weights": [1.0]}, ValueError, ("class_weights",)),
        ),
        {},
        "smooth",
        0.22,
    ),
}

FROM_QUALITY = ("quality_focal", "varifocal", "matchability_aware", "gaussian_focal")
LOG2 = math.log(2)


@pytest.mark.parametrize(
    "name, logit, target, options, expected",
    [
        ("quality_focal", 0.0, 1.0, {}, LOG2 / 4),
        ("quality_focal", 0.0, 0.0, {"beta": 1.0}, LOG2 / 2),
        ("quality_focal", 0.0, 0.5, {}, 0.0),
        ("quality_focal", 0.0, 0.5, {"beta": 0.0}, LOG2),
        ("quality_focal", math.log(3), 1.0, {"beta": 1.0}, -0.25 * math.log(0.75)),
        ("quality_focal", math.log(3), 0.25, {}, (math.log(4) - 0.25 * math.log(3)) / 4),
        ("varifocal", 0.0, 1.0, {}, LOG2),
        ("varifocal", 0.0, 0.5, {}, LOG2 / 2),
        ("varifocal", 0.0, 0.0, {}, 0.75 * LOG2 / 4),
        ("varifocal", 0.0, 0.0, {"alpha": 1.0, "gamma": 1.0}, LOG2 / 2),
        ("matchability_aware", 0.0, 1.0, {}, LOG2),
        ("matchability_aware", 0.0, 0.25, {}, LOG2),
        ("matchability_aware", math.log(3), 0.25, {"gamma": 0.5}, math.log(4) - math.log(3) / 2),
        ("matchability_aware", 0.0, 0.0, {}, LOG2 / 8**0.5),
        ("gaussian_focal", 0.0, 1.0, {}, LOG2 / 4),
        ("gaussian_focal", 0.0, 0.0, {}, LOG2 / 4),
        ("gaussian_focal", 0.0, 0.5, {}, LOG2 / 64),
        ("gaussian_focal", 0.0, 0.5, {"alpha": 1.0, "beta": 1.0}, LOG2 / 4),
    ],
)
def test_closed_form(name, logit, target, options, expected):
    value = getattr(jaxloss, name)(jnp.array([logit]), jnp.array([target]), **options)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_varifocal_may_hold_its_weights_constant(activation):
    """By logits and by quality: only the cross-entropy moves."""
    x, q = jnp.array([-2.0, 0.5, 1.0, 3.0]), jnp.array([0.3, 0.0, 0.9, 0.0])
    p = jax.nn.sigmoid(x)
    weight = jnp.where(q > 0, q, 0.75 * p**2)
    loss = functools.partial(
        jaxloss.varifocal, detach_weight=True, activation=activation, reduction="sum"
    )
    value, (by_x, by_q) = jax.value_and_grad(loss, (0, 1))(x if activation else p, q)
    np.testing.assert_allclose(value, jaxloss.varifocal(x, q, reduction="sum"), rtol=1e-6)
    slope = weight * (p - q)
    np.testing.assert_allclose(by_x, slope if activation else slope / (p * (1 - p)), rtol=1e-5)
    np.testing.assert_allclose(by_q, jnp.where(q > 0, -weight * x, 0), rtol=1e-5)


def test_quality_focal_of_hard_targets_is_sigmoid_focal():
    x, y = jnp.linspace(-40, 40, 21), jnp.arange(21) % 2
    value = jaxloss.quality_focal(x, y, beta=1.5, reduction="none")
    expected = jaxloss.sigmoid_focal(x, y, gamma=1.5, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=2e-6)


def test_gaussian_focal_of_a_hard_heatmap_is_sigmoid_focal():
    x, y = jnp.linspace(-40, 40, 21), jnp.arange(21) % 2
    value = jaxloss.gaussian_focal(x, y, alpha=1.5, reduction="none")
    expected = jaxloss.sigmoid_focal(x, y, gamma=1.5, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize("name", FROM_QUALITY)
@pytest.mark.parametrize("traced", [False, True])
def test_targets_outside_the_range_are_nan_there_only(name, traced):
    loss = functools.partial(getattr(jaxloss, name), reduction="none")
    both = lambda x, y: (loss(x, y), jax.grad(lambda x: loss(x, y).sum())(x))
    x, y = jnp.array([0.3, -1.0, 0.0, 2.0, 0.5]), array(-0.01, 1.01, 0.0, 1.0, NAN)
    for result in (jax.jit(both) if traced else both)(x, y):
        np.testing.assert_array_equal(jnp.isnan(result), [True, True, False, False, True])
    kept = (y >= 0) & (y <= 1)
    assert_finite(compiled(getattr(jaxloss, name), x, y, where=kept))


@pytest.mark.parametrize("name", FROM_QUALITY)
def test_ignored_integer_targets_are_masked(name):
    loss = functools.partial(getattr(jaxloss, name), reduction="none")
    x, y = jnp.array([0.3, -1.0, 0.5]), jnp.array([1, 0, 255])
    value = loss(x, y, ignore_index=255)
    np.testing.assert_allclose(value[:2], loss(x[:2], y[:2]), rtol=1e-6)
    assert value[2] == 0


@pytest.mark.parametrize("name", FROM_QUALITY)
def test_mmdet_saturated_logits_are_finite(name):
    """Its gaussian focal loss adds 1e-12 inside the logarithms, beyond which nothing is learnt."""
    option = {"quality_focal": "beta", "gaussian_focal": "alpha"}.get(name, "gamma")
    sizes = (-1e4, -100, -88, -17, 17, 88, 100, 1e4)
    grid = itertools.product(sizes, (0, 0.3, 1), (0, 0.25, 0.5, 1.5, 2))
    x, y, exponent = np.array(list(grid), np.float32).T

    def loss(x, y, exponent):
        return getattr(jaxloss, name)(x, y, **{option: exponent})

    @jax.jit
    @jax.vmap
    def run(x, y, exponent):
        arguments = (x, y, exponent)
        value, gradients = jax.value_and_grad(loss, argnums=(0, 2))(*arguments)
        return value, gradients, jax.jacfwd(loss)(*arguments), jax.hessian(loss)(*arguments)

    value, gradients, forward, hessian = run(x, y, exponent)
    assert_finite((value, gradients, forward, hessian))
    assert (value >= 0).all()
    np.testing.assert_allclose(forward, gradients[0], rtol=1e-5, atol=1e-30)
    wrong = ((x > 50) & (y == 0)) | ((x < -50) & (y == 1))
    factor = np.where((y[wrong] == 0) & (name == "varifocal"), 0.75, 1)
    np.testing.assert_allclose(value[wrong], factor * np.abs(x[wrong]), rtol=1e-5)
    np.testing.assert_allclose(gradients[0][wrong], factor * np.sign(x[wrong]), rtol=1e-5)


@pytest.mark.parametrize("name", FROM_QUALITY)
def test_infinite_logits_on_the_right_side_cost_nothing(name):
    loss = getattr(jaxloss, name)
    assert_rows(rows(loss, array(INF, -INF, 1e30, -1e30), array(1, 0, 1, 0)), np.zeros(4))


@pytest.mark.parametrize("name", FROM_QUALITY)
def test_probabilities_at_their_limits_are_finite(name):
    loss = functools.partial(getattr(jaxloss, name), activation=None)
    grid = itertools.product((0, 1e-30, 0.5, 1), (0, 0.5, 1))
    p, y = np.array(list(grid), np.float32).T
    value, gradient, forward = rows(loss, p, y)
    assert_finite((value, gradient, forward))
    np.testing.assert_allclose(value[(p == y) & (p != 0.5)], 0)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_distribution_focal_closed_form(axis):
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 6, np.float32))
    target = array(0, 1, 1.25, 2.5, 2.9, 3)
    weights = np.maximum(0, 1 - np.abs(target[:, None] - np.arange(4)))
    expected = -(weights * logits).sum(-1)
    options = {"reduction": "sum", "axis": axis}
    value, gradient = compiled(
        jaxloss.distribution_focal, np.moveaxis(logits, -1, axis), target, **options
    )
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-6)
    slope = np.exp(logits) - weights
    np.testing.assert_allclose(np.moveaxis(gradient, axis, -1), slope, rtol=1e-5, atol=1e-6)


def test_distribution_focal_of_whole_distances_is_cross_entropy():
    x = jnp.asarray(_distances("bins").prediction, jnp.float32)
    ids = np.random.default_rng(1).integers(0, 3, SHAPE[:-1])
    for target in (ids, ids.astype(np.float32)):
        value = jaxloss.distribution_focal(x, target, class_weights=[1.0, 2.0, 0.5])
        expected = jaxloss.cross_entropy(x, ids, class_weights=[1.0, 2.0, 0.5])
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_distribution_focal_with_channels_and_bin_weights():
    sample = _distances("bins")
    w = np.array([0.5, 2.0, 1.0])
    expected = _distribution(sample.prediction, sample.target, class_weights=w)
    x, t = (jnp.asarray(a, jnp.float32) for a in sample[1:3])
    value = jaxloss.distribution_focal(jnp.moveaxis(x, -1, 1), t, axis=1, class_weights=w)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_distribution_focal_by_its_target():
    """The slope between two bins, at a whole distance that to its right, at the last bin left."""
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    grid = array(0, 0.5, 1, 1.5, 2)
    slope = jax.vmap(jax.grad(lambda t: jaxloss.distribution_focal(logits, t)))(grid)
    rise = logits[:-1] - logits[1:]
    np.testing.assert_allclose(slope, rise[[0, 0, 1, 1, 1]], rtol=1e-5)


def test_mmdet_160_ultralytics_targets_at_and_beyond_the_last_bin():
    """mmdet indexes past the end at the last bin; ultralytics clamps the caller's array."""
    logits = np.tile(array(0, 1, 2), (6, 1))
    target = array(2, -0.01, 2.01, NAN, INF, 1.5)
    loss = functools.partial(jaxloss.distribution_focal, reduction="none")
    value = jax.jit(loss)(logits, target)
    gradient = jax.jit(jax.grad(lambda x: loss(x, target).sum()))(logits)
    bad = [False, True, True, True, True, False]
    np.testing.assert_array_equal(np.isnan(value), bad)
    np.testing.assert_array_equal(np.isnan(gradient), np.repeat(bad, 3).reshape(6, 3))
    np.testing.assert_allclose(value[0], np.log(1 + np.exp(-1) + np.exp(-2)), rtol=1e-6)
    assert_finite(compiled(jaxloss.distribution_focal, logits, target, where=~np.array(bad)))


def test_distribution_focal_of_extreme_logits():
    """A removed bin without weight costs nothing, however large the other logits."""
    z = array([0, 0, -INF], [1e4, 0, -1e4], [-1e30, 1e30, 0], [-INF, 0, 0], [0, 1e4, 0])
    results = rows(jaxloss.distribution_focal, z, array(0.5, 0, 1, 1.5, 1.5))
    value, gradient, forward = results
    np.testing.assert_allclose(value, array(LOG2, 0, 0, LOG2, 5e3), rtol=1e-6)
    assert_finite((gradient, forward))
    removed = jaxloss.distribution_focal(z[0], jnp.float32(1.5))
    assert removed == INF
