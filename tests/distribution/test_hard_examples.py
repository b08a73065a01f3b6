"""Hard-example mining: oracle, case, the exact selection, and what others got wrong."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import jaxloss
from jaxloss._distribution._hard_examples import hardest
from tests.oracles import IDS, X, invalid_classifications, out_of_range, shaped
from tests.registry import Case, Invalid, dense, ids, soft


def _top_k(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    label_smoothing=0.0,
    fraction=0.1,
    threshold=None,
    min_kept=0,
):
    y = dense(target, prediction, axis)
    t = (1 - label_smoothing) * y + label_smoothing / prediction.shape[axis]
    w = shaped(class_weights, prediction, axis)
    values = -(w * t * log_softmax(prediction, axis)).sum(axis)
    values = values if weights is None else values * weights
    valid = np.ones(values.shape, bool) if where is None else where
    if threshold is not None:
        p = np.exp((y * log_softmax(prediction, axis)).sum(axis))
        ranked = np.append(np.sort(p[valid]), np.inf)
        chosen = valid & (p < max(threshold, ranked[min(min_kept, valid.sum())]))
        selected = np.where(chosen, values, 0)
        mean = selected.sum() / max(chosen.sum(), 1)
        return {"none": selected, "sum": selected.sum(), "mean": mean}[reduction]
    k = max(1, math.floor(fraction * valid.sum()))
    ranked = np.sort(values[valid])[::-1]
    selected = np.where(valid & (values >= ranked[k - 1]), values, 0)
    return {"none": selected, "sum": selected.sum(), "mean": selected.sum() / k}[reduction]


CASES = {
    "top_k_cross_entropy": Case(
        _top_k,
        (
            ids(),
            ids("half", fraction=0.5, axis=1),
            soft("smoothed", fraction=0.3, label_smoothing=0.1),
            ids("threshold", threshold=0.2, min_kept=3, label_smoothing=0.1),
            soft("few", threshold=0.01, min_kept=5),
        ),
        (
            *invalid_classifications("logits"),
            *out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1)),
            *out_of_range(("fraction", 0.0), ("fraction", 1.1), ("fraction", jnp.array(-0.1))),
            *out_of_range(("threshold", 0.0), ("threshold", 1.0)),
            Invalid((X, IDS), {"min_kept": 2}, ValueError, ("min_kept", "threshold")),
            Invalid((X, IDS), {"threshold": 0.5, "min_kept": -1}, ValueError, ("min_kept", "-1")),
            Invalid((X, IDS), {"threshold": 0.5, "min_kept": 2.0}, TypeError, ("min_kept", "2.0")),
        ),
        {"fraction": (0.3, 0.0), "label_smoothing": (0.1, 1.5)},
        "smooth",
        0.23,
    ),
}


def _logits(losses):
    """Binary logits whose cross-entropy with id 0 is as given."""
    margin = np.log(np.expm1(np.asarray(losses, float)))
    return jnp.stack([jnp.zeros(len(margin)), jnp.asarray(margin, jnp.float32)], -1)


@pytest.mark.parametrize(
    "fraction, expected",
    [(0.01, 5.0), (0.2, 5.0), (0.39, 5.0), (0.4, 4.5), (0.6, 4.0), (0.99, 3.5), (1.0, 3.0)],
)
def test_mean_of_the_hardest(fraction, expected):
    logits = _logits([2, 5, 1, 3, 4])
    value = jaxloss.top_k_cross_entropy(logits, jnp.zeros(5, int), fraction=fraction)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_all_positions_is_cross_entropy():
    sample = ids()
    x, y = jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)
    both = [
        jax.value_and_grad(loss)(x, y)
        for loss in (
            functools.partial(jaxloss.top_k_cross_entropy, fraction=1),
            jaxloss.cross_entropy,
        )
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), *both)


@pytest.mark.parametrize(
    "threshold, min_kept, expected",
    [
        (0.3, None, (5 + 4 + 3 + 2) / 4),  # exp(-1) is above 0.3
        (0.03, 1, (5 + 4) / 2),
        (0.001, None, 0),
        (0.001, 3, (5 + 4 + 3) / 3),
        (0.001, 4, (5 + 4 + 3 + 2) / 4),
        (0.001, 5, 3),
        (0.001, 100, 3),
    ],
)
def test_a_threshold_keeps_what_is_improbable_and_some_at_least(threshold, min_kept, expected):
    value, gradient = jax.value_and_grad(jaxloss.top_k_cross_entropy)(
        _logits([2, 5, 1, 3, 4]), jnp.zeros(5, int), threshold=threshold, min_kept=min_kept
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert jnp.isfinite(gradient).all()


def test_a_threshold_looks_at_the_label_alone():
    """Weights and smoothing change what the positions cost, not which of them count."""
    logits, labels = _logits([2, 5, 1, 3, 4]), jnp.zeros(5, int)
    each = functools.partial(jaxloss.top_k_cross_entropy, threshold=0.1, reduction="none")
    kept = np.float32([0, 1, 0, 1, 1])
    np.testing.assert_array_equal(each(logits, labels, label_smoothing=0.5) != 0, kept)
    weights = jnp.array([9.0, 1.0, 9.0, 0.1, 1.0])
    expected = kept * weights * np.float32([2, 5, 1, 3, 4])
    np.testing.assert_allclose(each(logits, labels, weights=weights), expected, rtol=1e-6)
    without = jnp.array([1.0, 0.0, 1.0, 1.0, 1.0])  # what weighs 0 is not among those kept
    fewest = each(logits, labels, weights=without, threshold=0.001, min_kept=1)
    np.testing.assert_allclose(fewest, [0, 0, 0, 0, 4], rtol=1e-6)


def test_weights_choose_and_never_divide():
    logits, labels = _logits([1, 2, 3, 4]), jnp.zeros(4, int)
    top = functools.partial(jaxloss.top_k_cross_entropy, logits, labels, fraction=0.5)
    weights = jnp.array([9.0, 1.0, 2.0, 0.5])
    np.testing.assert_allclose(top(weights=weights), (9 + 6) / 2, rtol=1e-6)
    np.testing.assert_allclose(top(class_weights=[0.5, 1.0]), (4 + 3) / 4, rtol=1e-6)
    without = jnp.array([1.0, 1.0, 0.0, 0.0])  # two positions are left: k is 1
    np.testing.assert_allclose(top(weights=without), 2, rtol=1e-6)


def test_ties_share_in_value_and_gradient():
    logits, labels = _logits([3, 1, 1, 1, 1, 0.5]), jnp.zeros(6, int)
    top = functools.partial(jaxloss.top_k_cross_entropy, fraction=0.5)
    each = top(logits, labels, reduction="none")
    np.testing.assert_allclose(each, [3, 0.5, 0.5, 0.5, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(top(logits, labels), 5 / 3, rtol=1e-6)
    gradient = jax.grad(top)(logits, labels)
    np.testing.assert_allclose(gradient[1:5], np.broadcast_to(gradient[1], (4, 2)), rtol=1e-6)
    whole = jax.grad(jaxloss.cross_entropy)(logits, labels) * 6
    share = np.array([1, 0.5, 0.5, 0.5, 0.5, 0])[:, None] / 3
    np.testing.assert_allclose(gradient, whole * share, rtol=1e-6)


def test_segloss_percentage_that_rounds_to_nothing():
    """SegLoss `int(N k / 100)` is 0 on small inputs, and its mean NaN."""
    logits = _logits([1, 2, 3])
    np.testing.assert_allclose(
        jaxloss.top_k_cross_entropy(logits, jnp.zeros(3, int), fraction=0.1), 3, rtol=1e-6
    )


def test_segloss_ignored_pixels_enter_as_zeros():
    """There they count in `k`, and fill it where few pixels are labelled."""
    logits = jnp.concatenate([_logits([1, 2]), jnp.full((18, 2), jnp.nan)])
    labels = jnp.concatenate([jnp.zeros(2, int), jnp.full(18, 255)])
    loss = functools.partial(jaxloss.top_k_cross_entropy, ignore_index=255, fraction=0.5)
    value, gradient = jax.value_and_grad(loss)(logits, labels)
    np.testing.assert_allclose(value, 2, rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    assert not gradient[2:].any()


def test_fraction_is_not_lost_to_rounding():
    """0.29 * 100 is 28.999999999999996 in float64."""
    for x64 in (False, True):
        with jax.enable_x64(x64):
            values = jnp.arange(100.0)
            _, k = hardest(values, jnp.asarray(0.29, values.dtype), None, None)
            assert k == 29


def test_a_bad_id_is_selected():
    logits, labels = _logits([1, 2, 3, 4]), jnp.array([0, 7, 0, 0])
    loss = functools.partial(jaxloss.top_k_cross_entropy, fraction=0.5)
    each = loss(logits, labels, reduction="none")
    np.testing.assert_allclose(each, [0, np.nan, 0, 4], rtol=1e-6)
    gradient = jax.grad(loss)(logits, labels)
    assert jnp.isnan(gradient[1]).all()
    assert jnp.isfinite(jnp.delete(gradient, 1, axis=0)).all()


def _rows(dtype):
    """Eight rows of 200 values: many scales, ties, both zeros, subnormal, infinite, equal, NaN."""
    rng = np.random.default_rng(0)
    tiny = np.finfo(dtype).smallest_subnormal
    spread = rng.normal(size=200) * 10.0 ** rng.integers(-30, 30, 200)
    return np.stack(
        [
            rng.exponential(size=200),
            spread,
            rng.integers(0, 4, 200),
            np.where(rng.random(200) < 0.5, 0.0, -0.0),
            rng.integers(-3, 4, 200) * tiny,
            np.where(rng.random(200) < 0.3, np.inf, np.where(spread > 1, -np.inf, spread)),
            np.ones(200),
            np.nextafter(dtype(1), dtype(2)) * np.where(np.arange(200) < 7, 1, dtype(1)),
        ]
    ).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selection_is_exact(dtype):
    """Against a sort: the weights' sum is `k`, and nothing left out exceeds what is selected."""
    with jax.enable_x64(dtype == np.float64):
        rows = _rows(dtype)
        mask = np.random.default_rng(1).random(rows.shape) < 0.8
        select = jax.jit(jax.vmap(lambda v, f, m: hardest(v, f, m, None), in_axes=(0, None, 0)))
        for fraction in (1e-3, 0.1, 0.5, 0.77, 1.0):
            weights, k = select(rows, dtype(fraction), mask)
            n = mask.sum(1)
            np.testing.assert_array_equal(k, np.maximum(1, np.floor(fraction * n + 1e-9)))
            np.testing.assert_allclose(weights.sum(1), k, rtol=1e-6)
            assert not np.where(mask, 0, weights).any()
            for row, weight, kept, size in zip(rows, np.asarray(weights), mask, k, strict=True):
                kth = np.sort(row[kept])[-int(size)]
                np.testing.assert_array_equal(weight[kept & (row > kth)], 1)
                np.testing.assert_array_equal(weight[kept & (row < kth)], 0)
                equal = weight[kept & (row == kth)]
                if kth != 0:  # the two zeros are ordered
                    np.testing.assert_array_equal(equal, equal[0])


def test_nan_is_largest():
    values = jnp.array([1.0, jnp.nan, jnp.inf, -jnp.nan, 2.0])
    weights, k = hardest(values, jnp.float32(0.6), None, None)
    assert k == 3
    np.testing.assert_array_equal(weights, [0, 1, 1, 1, 0])


def test_selection_on_a_mesh_is_global():
    """All of the hardest may lie on one device."""
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("batch")
    values = jnp.arange(40.0)
    select = jax.jit(
        jax.shard_map(
            lambda v: hardest(v, jnp.float32(0.2), None, "batch")[0],
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
        )
    )
    np.testing.assert_array_equal(select(values), values >= 32)


def test_huge_and_removed_logits_are_finite():
    """Value and gradient, wherever the exact value fits."""
    logits = jnp.array([[1e4, -1e4], [-1e30, 1e30], [jnp.inf, 0.0], [0.0, -jnp.inf]])
    labels = jnp.zeros(4, int)
    loss = jax.jit(jax.value_and_grad(jaxloss.top_k_cross_entropy))
    value, gradient = loss(logits, labels)
    np.testing.assert_allclose(value, 2e30, rtol=1e-6)
    np.testing.assert_array_equal(gradient, [[0, 0], [-1, 1], [0, 0], [0, 0]])
