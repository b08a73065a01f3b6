"""What a CPU computes in chunks is what it computes at once, under every transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from jaxloss._core import chunks as chunked
from jaxloss._core import lines, shares
from tests.compiling import quick_jit

RNG = np.random.default_rng(0)
SHAPE = (4, 7, 5, 3)
X = RNG.normal(size=SHAPE)
IDS = RNG.integers(0, 3, SHAPE[:-1])
SOFT = RNG.dirichlet(np.ones(3), SHAPE[:-1])
WHERE, WEIGHTS = RNG.random(SHAPE[:-1]) < 0.7, RNG.uniform(0.5, 2, SHAPE[:-1])
CALLS = {
    "ids": (jaxloss.cross_entropy, IDS, {}),
    "ids masked": (jaxloss.focal, IDS, {"where": WHERE, "weights": WEIGHTS}),
    "ids of weighted classes": (jaxloss.cross_entropy, IDS, {"class_weights": [1.0, 2.0, 0.5]}),
    "soft": (jaxloss.cross_entropy, SOFT, {"label_smoothing": 0.1, "weights": WEIGHTS}),
    "soft masked": (jaxloss.softmax_focal, SOFT, {"where": WHERE}),
    "elements": (jaxloss.binary_cross_entropy, SOFT, {"class_weights": [1.0, 2.0, 0.5]}),
    "elements masked": (jaxloss.sigmoid_focal, SOFT, {"where": WHERE, "weights": WEIGHTS}),
    "sum": (jaxloss.binary_cross_entropy, SOFT, {"reduction": "sum"}),
    "each": (jaxloss.top_k_cross_entropy, IDS, {"where": WHERE, "fraction": 0.5}),
    "counts": (jaxloss.ghm, SOFT, {"bins": 4}),
    "divergence": (jaxloss.kl_divergence, SOFT, {"where": WHERE}),
    "ids one against the rest": (jaxloss.binary_cross_entropy, IDS, {"weights": WEIGHTS}),
    "positions": (jaxloss.bi_tempered, IDS, {"where": WHERE, "class_weights": [1.0, 2.0, 0.5]}),
    "every class": (jaxloss.seesaw, SOFT, {"class_counts": [5, 2, 9], "where": WHERE}),
    "hardest": (jaxloss.top_k_cross_entropy, SOFT, {"fraction": 0.3, "weights": WEIGHTS}),
    "region": (jaxloss.dice, IDS, {"where": WHERE, "weights": WEIGHTS}),
    "region, pooled": (jaxloss.noise_robust_dice, SOFT, {"per_image": False}),
    "region, squares": (jaxloss.dice, SOFT, {"squared": "counts", "class_weights": [1.0, 2, 0.5]}),
    "region, foreground": (jaxloss.generalized_dice, IDS, {"include_background": False}),
}
SLOW = {"ids of weighted classes", "soft masked", "sum", "divergence", "region, foreground"}
every_call = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CALLS]
)


@pytest.fixture
def chunks(monkeypatch):
    """Makes the chunks small enough for small arrays: of 7 rows two chunks of 3 and a rest.

    What is computed otherwise instead is in `test_platforms.py`.
    """
    monkeypatch.setattr(chunked, "CHUNKS", 3)
    monkeypatch.setattr(chunked, "CHUNK", 1)
    monkeypatch.setattr(chunked, "CHUNKED_FROM", 0)
    monkeypatch.setattr(shares, "pays", lambda *_: False)
    monkeypatch.setattr(lines, "planes_pay", lambda *_: False)
    jax.clear_caches()  # of the losses' own programs
    yield
    jax.clear_caches()


def _loss(name):
    loss, target, options = CALLS[name]
    return functools.partial(loss, **options), target  # traced anew for each size


def _at_once(monkeypatch, function, *arguments):
    with monkeypatch.context() as context:
        context.setattr(chunked, "CHUNKED_FROM", 10**9)
        jax.clear_caches()
        result = quick_jit(lambda *arguments: function(*arguments))(*arguments)
    jax.clear_caches()
    return result


def _close(actual, expected, rtol=1e-12):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), actual, expected
    )


@pytest.mark.rows(4)
@every_call
def test_value_and_derivatives(name, chunks, monkeypatch):
    """Of first and second order, in both modes; the loop is really there."""
    loss, target = _loss(name)
    slope = RNG.normal(size=SHAPE)

    def everything(x, slope):
        both = jax.value_and_grad(lambda x: loss(x, target))
        forward = jax.jvp(lambda x: loss(x, target), (x,), (slope,))[1]
        twice = jax.jvp(jax.grad(lambda x: loss(x, target)), (x,), (slope,))[1]
        reverse = jax.grad(lambda x: jnp.vdot(both(x)[1], slope))(x)
        return both(x), forward, twice, reverse

    with jax.enable_x64(True):
        expected = _at_once(monkeypatch, everything, X, slope)
        compiled = quick_jit(everything).lower(X, slope).compile()
        assert "while(" in compiled.as_text()
        _close(compiled(X, slope), expected)


@pytest.mark.rows(3)
@every_call
def test_mapped_and_sharded(name, chunks, monkeypatch):
    """vmap, scan, and a mesh with Explicit axes."""
    loss, target = _loss(name)
    run = jax.value_and_grad(loss)
    with jax.enable_x64(True):
        expected = _at_once(monkeypatch, run, X, target)
        stacked = np.stack([X, X]), np.stack([target, target])
        mapped = quick_jit(jax.vmap(run))(*stacked)
        _close(jax.tree.map(lambda x: x[1], mapped), expected)
        scanned = quick_jit(lambda xs: jax.lax.scan(lambda c, x: (c, run(*x)), 0, xs)[1])(stacked)
        _close(jax.tree.map(lambda x: x[1], scanned), expected)
        mesh = jax.make_mesh((4,), ("b",), axis_types=(AxisType.Explicit,))
        with jax.set_mesh(mesh):
            sharding = NamedSharding(mesh, PartitionSpec("b"))
            placed = jax.device_put((X, target), sharding)
            _close(quick_jit(run)(*placed), expected)


@pytest.mark.parametrize("loss", [jaxloss.binary_cross_entropy, jaxloss.dice])
def test_rows_on_several_devices_are_not_cut(loss, chunks, monkeypatch):
    shape = 2, 8, 6, 3
    pair = RNG.normal(size=shape), RNG.random(shape)
    run = jax.value_and_grad(loss)
    with jax.enable_x64(True):
        expected = _at_once(monkeypatch, run, *pair)
        mesh = jax.make_mesh((4,), ("b",), axis_types=(AxisType.Explicit,))
        with jax.set_mesh(mesh):
            sharding = NamedSharding(mesh, PartitionSpec(None, "b"))
            _close(quick_jit(lambda *pair: run(*pair))(*jax.device_put(pair, sharding)), expected)


@pytest.mark.parametrize("name", ["sigmoid_focal", "top_k_cross_entropy", "noise_robust_dice"])
def test_chunks_across_the_rows_of_several_devices(name, chunks, monkeypatch):
    """Each has 7, of which no type tells: two chunks of 3 and a rest."""
    devices = jax.device_count()
    shape = 2, 7 * devices, 3
    data = RNG.normal(size=(*shape, 2)), RNG.dirichlet(np.ones(2), shape), RNG.random(shape)

    def run(x, y, weights):
        options = {"where": weights > 0.3, "weights": weights}
        return jax.value_and_grad(lambda x: getattr(jaxloss, name)(x, y, **options))(x)

    with jax.enable_x64(True):
        expected = _at_once(monkeypatch, run, *data)
        mesh = jax.make_mesh((devices,), ("h",), axis_types=(AxisType.Auto,))
        data = jax.device_put(data, NamedSharding(mesh, PartitionSpec(None, "h")))
        compiled = quick_jit(lambda *data: run(*data)).lower(*data).compile()
        assert "while(" in compiled.as_text()
        _close(compiled(*data), expected)


@pytest.mark.parametrize("name", ["ids", "soft", "elements"])
def test_inside_shard_map(name, chunks, monkeypatch):
    """Value and the gradient of what every device has, a scale."""
    loss, target = CALLS[name][0], CALLS[name][1]
    axis = PartitionSpec("b")

    @functools.partial(
        jax.shard_map,
        mesh=jax.make_mesh((4,), ("b",), axis_types=(AxisType.Auto,)),
        in_specs=(PartitionSpec(), axis, axis),
        out_specs=PartitionSpec(),
    )
    def parts(scale, x, target):
        return jax.value_and_grad(lambda s: loss(s * x, target, axis_name="b"))(scale)

    def whole(scale, x, target):
        return jax.value_and_grad(lambda s: loss(s * x, target))(scale)

    with jax.enable_x64(True):
        arguments = np.float64(1.3), X, target
        _close(quick_jit(parts)(*arguments), _at_once(monkeypatch, whole, *arguments))


def test_derivatives_by_weights_and_parameters(chunks, monkeypatch):
    def loss(weights, gamma, target):
        return jaxloss.sigmoid_focal(X, target, gamma=gamma, weights=weights)

    arguments = WEIGHTS, 1.5, SOFT
    with jax.enable_x64(True):
        expected = _at_once(monkeypatch, jax.grad(loss, (0, 1, 2)), *arguments)
        _close(quick_jit(jax.grad(loss, (0, 1, 2)))(*arguments), expected)


def test_derivatives_of_a_region_by_weights_and_parameters(chunks, monkeypatch):
    def loss(x, target, weights, smooth):
        return jaxloss.dice(x, target, weights=weights, smooth=smooth)

    arguments, run = (X, SOFT, WEIGHTS, 1.5), jax.grad(loss, (0, 1, 2, 3))
    with jax.enable_x64(True):
        expected = _at_once(monkeypatch, run, *arguments)
        _close(quick_jit(lambda *arguments: run(*arguments))(*arguments), expected)


def test_any_class_axis(chunks, monkeypatch):
    run = jax.value_and_grad(functools.partial(jaxloss.cross_entropy, axis=1))
    x, labels = np.moveaxis(X, -1, 1), np.moveaxis(SOFT, -1, 1)
    with jax.enable_x64(True):
        for target in (IDS, labels):
            expected = _at_once(monkeypatch, run, x, target)
            _close(quick_jit(lambda *a: run(*a))(x, target), expected)
