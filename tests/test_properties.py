"""Properties that hold for every input, searched for exceptions by Hypothesis."""

import functools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss

settings = functools.partial(
    hypothesis.settings, deadline=None, derandomize=True, database=None, max_examples=60
)
HUGE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
LOGIT = st.one_of(st.floats(-20, 20, width=32), HUGE)
SHAPE = (2, 3, 3)
logits = arrays.arrays(np.float32, SHAPE, elements=LOGIT)
ids = arrays.arrays(np.int32, SHAPE[:-1], elements=st.integers(0, SHAPE[-1] - 1))
targets = arrays.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
boxes = arrays.arrays(np.float32, (3, 4), elements=st.one_of(st.floats(-4, 4, width=32), HUGE))
shifts = st.floats(0.125, 10, width=32)

COMPETING = ("cross_entropy", "softmax_focal", "dice", "jaccard", "tversky", "dice_cross_entropy")
INDEPENDENT = ("binary_cross_entropy", "sigmoid_focal", "dice", "jaccard", "tversky")


@functools.cache
def _compiled(name, **options):
    return jax.jit(jax.value_and_grad(functools.partial(getattr(jaxloss, name), **options)))


def _finite(results):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))


@pytest.mark.rows(3)
@pytest.mark.parametrize("name", COMPETING)
@settings()
@hypothesis.given(logits, ids)
def test_competing_losses_are_finite_and_never_negative(name, x, y):
    value, gradient = _compiled(name)(x, y)
    assert _finite((value, gradient))
    assert value >= 0


@pytest.mark.parametrize("name", INDEPENDENT)
@settings()
@hypothesis.given(logits, targets)
def test_independent_losses_are_finite_and_never_negative(name, x, y):
    value, gradient = _compiled(name)(x, y)
    assert _finite((value, gradient))
    assert value >= 0


@pytest.mark.parametrize("name", ["giou", "ciou"])
@settings()
@hypothesis.given(boxes, boxes)
def test_box_losses_are_finite_and_bounded(name, a, b):
    """GIoU in [0, 2]; CIoU in [0, 3]; rounding aside."""
    value, gradient = _compiled(name)(a, b)
    assert _finite((value, gradient))
    assert -1e-6 <= value <= {"giou": 2, "ciou": 3}[name] + 1e-5


@pytest.mark.parametrize("name", ["giou", "ciou"])
@settings()
@hypothesis.given(boxes)
def test_boxes_with_an_area_cost_nothing_against_themselves(name, a):
    a = np.concatenate([a[:, :2], a[:, :2] + 1 + np.abs(a[:, 2:])], -1)
    sizes = (a[:, 2:] - a[:, :2]).astype(float)
    hypothesis.assume((sizes > 0).all() and (sizes.max(-1) < 1e15 * sizes.min(-1)).all())
    assert _compiled(name)(a, a)[0] == 0


@pytest.mark.parametrize("name", ["giou", "ciou"])
@settings()
@hypothesis.given(boxes, boxes)
def test_box_values_are_symmetric(name, a, b):
    np.testing.assert_allclose(_compiled(name)(a, b)[0], _compiled(name)(b, a)[0], 1e-5, 1e-6)


@pytest.mark.parametrize("name", COMPETING)
@settings()
@hypothesis.given(ids)
def test_a_perfect_prediction_costs_nothing(name, y):
    x = np.float32(1e4) * np.eye(SHAPE[-1], dtype=np.float32)[y]
    assert _compiled(name)(x, y)[0] == 0


@pytest.mark.parametrize("name", COMPETING)
@settings()
@hypothesis.given(
    arrays.arrays(np.float32, SHAPE, elements=st.floats(-5, 5, width=32)), ids, shifts
)
def test_losses_fall_towards_the_target(name, x, y, shift):
    better = x + shift * np.eye(SHAPE[-1], dtype=np.float32)[y]
    assert _compiled(name)(better, y)[0] <= _compiled(name)(x, y)[0] + 1e-6


@pytest.mark.parametrize("name", ["l2", "huber"])
@settings()
@hypothesis.given(logits, shifts)
def test_regression_losses_are_zero_only_at_the_target(name, y, shift):
    y = np.clip(y, -1e4, 1e4)
    assert _compiled(name)(y, y)[0] == 0
    assert _compiled(name)(y + shift, y)[0] > 0


@pytest.mark.parametrize("name", ["cross_entropy", "softmax_focal", "binary_cross_entropy", "l2"])
@settings(max_examples=20)
@hypothesis.given(
    arrays.arrays(np.float32, SHAPE, elements=st.floats(-9, 9, width=32)), st.permutations(range(6))
)
def test_the_order_of_positions_does_not_matter(name, x, order):
    y = np.arange(6).reshape(2, 3) % 3
    aim = y if name in ("cross_entropy", "softmax_focal") else np.eye(3, dtype=np.float32)[y]
    moved = x.reshape(6, 3)[list(order)].reshape(SHAPE)
    aim_moved = aim.reshape(6, *aim.shape[2:])[list(order)].reshape(aim.shape)
    value = _compiled(name)(x, aim)[0]
    np.testing.assert_allclose(_compiled(name)(moved, aim_moved)[0], value, 1e-5, 1e-7)


@settings(max_examples=20)
@hypothesis.given(
    arrays.arrays(np.float32, SHAPE, elements=st.floats(-9, 9, width=32)), ids, shifts
)
def test_softmax_losses_ignore_a_common_offset(x, y, shift):
    value = _compiled("cross_entropy")(x, y)[0]
    np.testing.assert_allclose(_compiled("cross_entropy")(x + 64 * shift, y)[0], value, 1e-3, 1e-4)


def test_boundary_is_finite_for_every_3x3_mask():
    masks = (np.arange(512)[:, None] >> np.arange(9) & 1).reshape(512, 3, 3).astype(np.float32)
    x = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32) * 1e4
    each = functools.partial(jaxloss.boundary, axis=None, reduction="none")
    value, pull = jax.vjp(lambda x: each(x, masks), jnp.asarray(x))
    assert _finite((value, pull(jnp.ones_like(value))))
