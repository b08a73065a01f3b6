"""The matching of queries and boxes against SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxloss.detection import match_hungarian
from tests.compiling import quick_jit

match = quick_jit(match_hungarian)
RNG = np.random.default_rng(0)
IMAGES, QUERIES, SLOTS = 8, 12, 7


def like_detr():
    """Queries near boxes, of which several want the same."""
    box = RNG.uniform(size=(IMAGES, SLOTS, 4))
    query = box[:, RNG.integers(0, SLOTS // 2, QUERIES)] + RNG.normal(0, 0.1, (IMAGES, QUERIES, 4))
    return np.abs(query[:, :, None] - box[:, None]).sum(-1)


COSTS = {
    "uniform": RNG.uniform(size=(IMAGES, QUERIES, SLOTS)),
    "negative": RNG.normal(size=(IMAGES, QUERIES, SLOTS)) - 5,
    "like detr": like_detr(),
    # Long paths: every box wants the same queries in the same order.
    "of one order": np.outer(np.arange(QUERIES), np.arange(SLOTS))[None]
    + RNG.uniform(size=(IMAGES, 1, 1)),
    "with ties": RNG.integers(0, 3, (IMAGES, QUERIES, SLOTS)).astype(float),
    "all equal": np.ones((IMAGES, QUERIES, SLOTS)),
    "huge": RNG.uniform(size=(IMAGES, QUERIES, SLOTS)) * 1e30,
    "tiny": RNG.uniform(size=(IMAGES, QUERIES, SLOTS)) * 1e-30,
}


def assert_best(found, cost, valid):
    """One query for each valid slot, none for others, and SciPy's sum."""
    for image, use in enumerate(valid):
        taken = np.flatnonzero(found.foreground[image])
        slot = np.asarray(found.index)[image, taken]
        assert sorted(slot) == list(np.flatnonzero(use))
        rest = cost[image][:, use].astype(float)
        best = rest[scipy.optimize.linear_sum_assignment(rest)].sum()
        total = cost[image][taken, slot].astype(float).sum()
        np.testing.assert_allclose(total, best, rtol=1e-6, atol=1e-6 * np.abs(rest).max(initial=0))


@pytest.mark.parametrize("name", COSTS)
def test_sum_is_the_smallest(name):
    cost = COSTS[name].astype(np.float32)
    valid = np.arange(SLOTS)[None] < np.array([7, 6, 5, 3, 1, 0, 7, 7])[:, None]
    valid[6, [0, 3]] = False
    found = match(cost, valid)
    assert found.index.dtype == np.int32
    np.testing.assert_array_equal(found.weight, found.foreground)
    assert not found.ignore.any()
    assert_best(found, cost, valid)


def test_as_many_boxes_as_queries_and_in_float64():
    with jax.enable_x64(True):
        cost = RNG.normal(size=(IMAGES, SLOTS, SLOTS)) + np.linspace(0, 1e-9, SLOTS)
        valid = np.ones((IMAGES, SLOTS), bool)
        found = match(cost, valid)
        assert found.weight.dtype == np.float64
    for image in range(IMAGES):
        expected = scipy.optimize.linear_sum_assignment(cost[image])[1]
        np.testing.assert_array_equal(found.index[image], expected)


def test_slots_that_are_not_valid_have_no_influence():
    cost = COSTS["like detr"].astype(np.float32)
    valid = RNG.uniform(size=(IMAGES, SLOTS)) < 0.6
    expected = match(cost, valid)
    for junk in (np.nan, np.inf, -np.inf, -1e38, 0.0):
        found = match(np.where(valid[:, None], cost, np.float32(junk)), valid)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 3e38])
def test_costs_that_are_not_finite_end_and_stay_in_their_image(junk):
    """transformers PR 34074: a NaN in the matcher; such a pair is matched only if it must be."""
    cost = COSTS["like detr"].astype(np.float32)
    valid = np.ones((IMAGES, SLOTS), bool)
    expected = match(cost, valid)
    bad = cost.copy()
    bad[0] = junk
    bad[1, :, 2] = junk
    bad[2, 5:] = np.where(np.arange(SLOTS) < SLOTS, junk, 0)  # seven queries are no use
    bad[3, 4] = junk
    found = match(bad, valid)
    for image in range(4, IMAGES):
        np.testing.assert_array_equal(found.index[image], expected.index[image])
    assert (found.foreground.sum(1) == SLOTS).all()
    assert not found.foreground[3, 4]
    pairs = np.asarray(found.index)[2, np.flatnonzero(found.foreground[2])]
    assert sorted(pairs) == list(range(SLOTS))
    assert found.foreground[2, :5].all()  # all that are sound are used


def test_the_order_of_queries_and_boxes_changes_nothing():
    cost = COSTS["uniform"].astype(np.float32)
    valid = np.arange(SLOTS)[None] < RNG.integers(1, SLOTS + 1, (IMAGES, 1))
    found = match(cost, valid)
    queries, slots = RNG.permutation(QUERIES), RNG.permutation(SLOTS)
    turned = match(cost[:, queries][:, :, slots], valid[:, slots])
    expected = np.where(found.foreground, found.index, -1)[:, queries]
    np.testing.assert_array_equal(np.where(turned.foreground, slots[turned.index], -1), expected)


def test_mapped_sharded_and_without_slots():
    cost, valid = COSTS["uniform"].astype(np.float32), np.ones((IMAGES, SLOTS), bool)
    expected = match(cost, valid)
    mapped = quick_jit(jax.vmap(match_hungarian))(cost[None], valid[None])
    np.testing.assert_array_equal(mapped.index[0], expected.index)
    batch = jax.sharding.PartitionSpec("batch")
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.shard_map(match_hungarian, mesh=mesh, in_specs=batch, out_specs=batch)
    np.testing.assert_array_equal(quick_jit(sharded)(cost, valid).index, expected.index)
    nobody = match_hungarian(jnp.zeros((2, 3, 0)), jnp.zeros((2, 0), bool))
    assert nobody.index.shape == (2, 3)
    assert not nobody.foreground.any()
    half = jax.eval_shape(match_hungarian, cost.astype(jnp.bfloat16), valid)
    assert half.weight.dtype == jnp.float32


def test_no_gradient_passes():
    loss = lambda cost: match_hungarian(cost, np.ones((IMAGES, SLOTS), bool)).weight.sum()
    cost = jnp.asarray(COSTS["uniform"], jnp.float32)
    value, slope = quick_jit(lambda cost: jax.jvp(loss, (cost,), (cost,)))(cost)
    assert value == IMAGES * SLOTS
    assert slope == 0


GOOD = np.ones((2, 4, 3), np.float32), np.ones((2, 3), bool)


def error(words, kind=ValueError, cost=GOOD[0], valid=GOOD[1]):
    return pytest.param(words, kind, cost, valid, id=words)


@pytest.mark.parametrize(
    "words, kind, cost, valid",
    [
        error("a query for each slot", cost=np.ones((2, 2, 3), np.float32)),
        error("images, queries and slots", cost=np.ones((4, 3), np.float32)),
        error("floating", TypeError, cost=np.ones((2, 4, 3), int)),
        error("which of the slots", valid=np.ones((2, 4), bool)),
        error("bool", TypeError, valid=np.ones((2, 3))),
    ],
)
def test_bad_input_raises_while_tracing(words, kind, cost, valid):
    with pytest.raises(kind, match=rf"jaxloss\.detection\.match_hungarian: `.*{words}"):
        jax.eval_shape(match_hungarian, cost, valid)
