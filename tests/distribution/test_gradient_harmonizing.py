"""Gradient harmonizing: oracle, case and closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from scipy.special import expit

import jaxloss
from tests.hazards import INF, array, assert_finite, assert_rows, compiled, rows
from tests.oracles import (
    X,
    binary_entropy,
    independent,
    invalid_classifications,
    out_of_range,
)
from tests.registry import Case, Invalid, binary, dense, elements, ids, probabilities


def _harmony(p, y, valid, bins=10, momentum=0.0, previous=None):
    """The weight of each element and the new counts, one element at a time."""
    at = np.minimum(np.floor(np.abs(p - y) * bins), bins - 1).astype(int)
    found = np.bincount(at[valid], minlength=bins)
    previous = np.zeros(bins) if previous is None else previous
    counts = np.where(momentum == 0, 0, previous) * np.ones(bins)
    for b in range(bins):
        if found[b] > 0:
            counts[b] = momentum * previous[b] + (1 - momentum) * found[b]
    filled = (found > 0).sum()
    weight = np.zeros(p.shape)
    for i in np.ndindex(p.shape):
        if valid[i]:
            weight[i] = valid.sum() / (counts[at[i]] * filled)
    return weight, counts


def _read(prediction, target, axis, activation, where=None):
    p = prediction if activation is None else expit(prediction)
    valid = np.ones(p.shape, bool)
    if where is not None:
        where = where if where.ndim == p.ndim else np.expand_dims(where, axis)
        valid = np.broadcast_to(where, p.shape)
    return p, dense(target, prediction, axis), valid


def _ghm(
    prediction,
    target,
    where=None,
    axis=-1,
    activation="sigmoid",
    bins=10,
    momentum=0.0,
    **options,
):
    weight, _ = _harmony(*_read(prediction, target, axis, activation, where), bins, momentum)
    cost = lambda p, t: weight * binary_entropy(p, t)
    options |= {"axis": axis, "activation": activation}
    return independent(cost)(prediction, target, where=where, **options)


def _gradient(prediction, target, axis=-1, activation="sigmoid", **options):
    p, y, valid = _read(prediction, target, axis, activation)
    slope = p - y if activation == "sigmoid" else (p - y) / (p * (1 - p))
    return _harmony(p, y, valid, **options)[0] * slope


CASES = {
    "ghm": Case(
        _ghm,
        (
            elements(),
            binary(bins=4),
            ids("one_against_the_rest", momentum=0.5),
            probabilities(bins=20),
        ),
        (
            *invalid_classifications("logits"),
            *out_of_range(("momentum", -0.1), ("momentum", 1.0), ("counts", -np.ones(10))),
            Invalid((X, X), {"bins": 2.0}, TypeError, ("bins", "2.0", "integer")),
            Invalid((X, X), {"bins": True}, TypeError, ("bins", "True", "integer")),
            Invalid((X, X), {"bins": 0}, ValueError, ("bins", "0", "at least 1")),
            Invalid((X, X), {"counts": np.ones(9)}, ValueError, ("counts", r"\(9,\)", r"\(10,\)")),
            Invalid((X, X), {"counts": 1.0}, ValueError, ("counts", r"\(\)", r"\(10,\)")),
            Invalid((X, X), {"activation": "softmax"}, ValueError, ("activation", "'softmax'")),
        ),
        {"momentum": (0.3, 1.0)},
        "detached",
        0.23,
        _gradient,
    )
}

LOG3 = math.log(3)
# With three easy and one hard element in 10 bins: |p - y| is 1/4 and 3/4.
EASY = jnp.array([-LOG3, -LOG3, -LOG3, LOG3]), jnp.zeros(4)
COSTS = np.array([math.log(4 / 3)] * 3 + [math.log(4)])


def test_closed_form():
    loss, counts = jaxloss.ghm(*EASY, counts=jnp.zeros(10), reduction="none")
    np.testing.assert_allclose(loss, COSTS * [2 / 3, 2 / 3, 2 / 3, 2], rtol=1e-6)
    np.testing.assert_array_equal(counts, [0, 0, 3, 0, 0, 0, 0, 1, 0, 0])


def test_a_single_bin_is_binary_cross_entropy():
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    expected = jaxloss.binary_cross_entropy(x, y)
    np.testing.assert_allclose(jaxloss.ghm(x, y, bins=1), expected, rtol=1e-6)


def test_more_bins_than_a_byte_counts():
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    _, counts = jax.jit(functools.partial(jaxloss.ghm, bins=300))(x, y, counts=jnp.zeros(300))
    assert counts.sum() == x.size
    at = np.floor(np.abs(expit(np.float64(x)) - y) * 300).astype(int)
    np.testing.assert_array_equal(counts, np.bincount(at.ravel(), minlength=300))


def test_each_filled_bin_has_the_same_share():
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    value = jaxloss.ghm(x, y, reduction="none") / jaxloss.binary_cross_entropy(
        x, y, reduction="none"
    )
    np.testing.assert_allclose(value.mean(), 1, rtol=1e-6)


def test_counts_are_carried_with_momentum():
    """A bin that this call leaves empty keeps its count; without momentum it is emptied."""
    before = jnp.arange(10.0)
    loss, counts = jaxloss.ghm(*EASY, momentum=0.75, counts=before, reduction="none")
    expected = before.at[2].set(0.75 * 2 + 0.25 * 3).at[7].set(0.75 * 7 + 0.25)
    np.testing.assert_allclose(counts, expected, rtol=1e-6)
    weights = 4 / (2 * expected[jnp.array([2, 2, 2, 7])])
    np.testing.assert_allclose(loss, COSTS * weights, rtol=1e-6)
    _, counts = jaxloss.ghm(*EASY, counts=before)
    np.testing.assert_array_equal(counts, [0, 0, 3, 0, 0, 0, 0, 1, 0, 0])


def test_counts_through_a_scan_equal_the_original_rule():
    """The state of a training loop, with a traced momentum, against a loop over elements."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 6, 3)) * 2, (rng.random((5, 6, 3)) < 0.3).astype(float)

    @jax.jit
    def run(x, y, momentum):
        def step(counts, pair):
            loss, counts = jaxloss.ghm(*pair, bins=5, momentum=momentum, counts=counts)
            return counts, loss

        return jax.lax.scan(step, jnp.zeros(5), (x, y))

    for momentum in (0.0, 0.6):
        counts, losses = run(x.astype(np.float32), y.astype(np.float32), momentum)
        previous, expected = np.zeros(5), []
        for a, b in zip(expit(x), y, strict=True):
            valid = np.ones(a.shape, bool)
            weight, previous = _harmony(a, b, valid, 5, momentum, previous)
            expected.append((weight * binary_entropy(a, b)).mean())
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(counts, previous, rtol=1e-6)


def test_state_has_no_gradient_and_hard_limits_fall_in_the_last_bin():
    x, y = array(-INF, INF, -INF, 0), array(0, 0, 1, 0)

    def loss(counts):
        return jaxloss.ghm(x[3:], y[3:], momentum=0.5, counts=counts)[0]

    assert not jax.grad(loss)(jnp.ones(10)).any()
    _, counts = jaxloss.ghm(x, y, counts=jnp.zeros(10))
    np.testing.assert_array_equal(counts, [1, 0, 0, 0, 0, 1, 0, 0, 0, 2])


def test_what_is_not_valid_is_not_counted():
    """mmdet counts where the label weight is above 0; other weights are factors, as everywhere."""
    x, y = jnp.array([0.3, -1.0, 2.0, 0.5]), jnp.array([1, 0, 0, 1])
    counted = functools.partial(jaxloss.ghm, counts=jnp.zeros(10))
    value, counts = counted(x[:3], y[:3])
    kept = jnp.array([True, True, True, False])
    for labels, options in (
        (y, {"where": kept}),
        (y, {"weights": 3 * kept.astype(float)}),
        (jnp.where(kept, y, 255), {"ignore_index": 255}),
    ):
        other, held = counted(x, labels, **options)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        np.testing.assert_array_equal(held, counts)
    infinite = counted(x.at[3].set(-INF), y, weights=kept.astype(float))[0]
    np.testing.assert_allclose(infinite, value, rtol=1e-6)


def test_harmonizing_weights_never_enter_the_denominator():
    """The mean over half of the elements is that of their own call."""
    weights = jnp.array([1.0, 1.0, 1.0, 3.0])
    expected = (np.array(weights) * COSTS * [2 / 3, 2 / 3, 2 / 3, 2]).sum() / 6
    np.testing.assert_allclose(jaxloss.ghm(*EASY, weights=weights), expected, rtol=1e-6)


def test_a_bad_label_spoils_its_own_element_only():
    x, y = jnp.array([0.3, -1.0, 2.0, 0.5]), jnp.array([1, 0, 0, 7])
    loss = functools.partial(jaxloss.ghm, reduction="none", counts=jnp.zeros(10))
    (value, counts), gradient = loss(x, y), jax.grad(lambda x: loss(x, y)[0].sum())(x)
    for result in (value, gradient):
        np.testing.assert_array_equal(jnp.isnan(result), [False, False, False, True])
    expected, held = loss(x[:3], y[:3])
    np.testing.assert_allclose(value[:3], expected, rtol=1e-6)
    np.testing.assert_array_equal(counts, held)


def test_saturated_logits_are_finite():
    right = rows(jaxloss.ghm, array(INF, -INF, 1e30, -1e30), array(1, 0, 1, 0))
    assert_rows(right, np.zeros(4))
    wrong = rows(jaxloss.ghm, array(-1e4, 1e4, -1e30, 1e30), array(1, 0, 1, 0))
    assert_rows(wrong, array(1e4, 1e4, 1e30, 1e30), array(-1, 1, -1, 1))
    assert_finite(compiled(jaxloss.ghm, array(-1e4, 1e4, -100, 17), array(0.3, 0.3, 0.7, 0.5)))


def test_counts_are_exact_beyond_the_integers_of_float32():
    """Counted in float32, or in half precision, a bin would stop growing."""
    x = jnp.zeros((5, 2**20), jnp.float16)
    _, counts = jax.jit(jaxloss.ghm)(x, jnp.zeros_like(x), counts=jnp.zeros(10))
    assert counts.dtype == jnp.float32
    assert counts[5] == 5 * 2**20


@pytest.mark.parametrize("masked", [False, True])
def test_counts_are_global_over_a_mesh_axis(masked):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(a, jnp.float32) for a in elements()[1:3])
    mask = jnp.asarray(rng.random(x.shape) < 0.6) if masked else jnp.ones(x.shape, bool)
    options = {"momentum": 0.3, "counts": jnp.arange(10.0)}
    batch = PartitionSpec("batch")

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,)),
        in_specs=(batch, batch, batch),
        out_specs=PartitionSpec(),
    )
    def parts(x, y, mask):
        return jaxloss.ghm(x, y, where=mask, axis_name="batch", **options)

    value, counts = parts(x, y, mask)
    expected, held = jaxloss.ghm(x, y, where=mask, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(counts, held, rtol=1e-6)


def test_makes_no_nan_of_sound_data():
    """Elements without a bin once began as NaN, which `jax_debug_nans` refuses."""
    sample = elements()
    x, y = (jnp.asarray(a, jnp.float32) for a in (sample.prediction, sample.target))
    with jax.debug_nans(True):
        value, gradient = jax.value_and_grad(jaxloss.ghm)(x, y)
        loss, counts = jaxloss.ghm(x, y, momentum=0.5, counts=jnp.ones(10))
    assert_finite((value, gradient, loss, counts))
