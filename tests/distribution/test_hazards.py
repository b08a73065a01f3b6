"""Bug reports about other libraries' losses of each position, one test for each.

What their names say: tests/test_hazards.py.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.hazards import (
    ELEMENT,
    HALVES,
    INF,
    LABELLED,
    NAN,
    POSITION,
    SAMPLES,
    array,
    assert_finite,
    assert_rows,
    compiled,
    one_hot,
    rows,
)

GAMMAS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0)
position_losses = pytest.mark.parametrize("name", POSITION)


def test_optax_896_removed_class_costs_nothing():
    """A logit of -inf against a target of 0 gave 0 * inf = NaN."""
    logits, labels = array([-INF, 0], [-INF, 0], [0, -INF]), array([0, 1], [0, 1], [1, 0])
    assert_rows(rows(jaxloss.cross_entropy, logits, labels), np.zeros(3))
    assert_rows(rows(jaxloss.cross_entropy, logits, np.array([1, 1, 0])), np.zeros(3))
    three = array([-INF, 0, np.log(3)], [-INF, 0, np.log(3)])
    results = rows(jaxloss.cross_entropy, three, np.array([1, 2]))
    assert_rows(results, np.log([4, 4 / 3]), [[0, -0.75, 0.75], [0, 0.25, -0.25]])


@pytest.mark.parametrize("loss", [jaxloss.cross_entropy, jaxloss.softmax_focal])
def test_optax_1762_forward_mode_at_removed_class(loss):
    """The gradient was finite at a logit of -inf, jvp and jacfwd were NaN."""
    logits = array([-INF, 0, 1], [0, -INF, 1], [0, 0, -INF], [-INF, -INF, 0], [-INF, 0, 0])
    ids = np.array([1, 0, 1, 2, 0])

    def both(z, y, dense):
        return jnp.stack([loss(z, y), loss(z, dense)])

    @jax.jit
    @jax.vmap
    def run(z, y, dense):
        return both(z, y, dense), *(d(both)(z, y, dense) for d in (jax.jacrev, jax.jacfwd))

    value, backward, forward = run(logits, ids, one_hot(ids, 3))
    assert_finite((value[:4], backward[:4], forward[:4]))
    np.testing.assert_allclose(backward, forward, atol=1e-7)
    np.testing.assert_array_equal(value[4], INF)  # the target itself is removed
    np.testing.assert_array_equal(backward[4], 0)


@position_losses
def test_optax_1335_ids_and_one_hot_agree_under_a_mask(name):
    """Masked rows had different gradients in the integer and the one-hot function."""
    loss, x, ids, where = SAMPLES[name]

    @jax.jit
    def both(x):
        return [
            jax.value_and_grad(loss)(x, y, where=where, label_smoothing=0.1)
            if name != "nll"
            else jax.value_and_grad(loss)(x, y, where=where)
            for y in (ids, one_hot(ids, 3))
        ]

    (sparse, by_ids), (dense, by_labels) = both(x)
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)
    np.testing.assert_allclose(by_ids, by_labels, rtol=1e-5, atol=1e-7)
    assert not np.any(by_ids[~where])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_optax_1020_half_precision_is_computed_in_float32(dtype):
    """The loss of bfloat16 logits was itself rounded to bfloat16: 4.75 for 4.7477."""
    logits = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 100)), dtype)
    ids = np.arange(8)
    loss = jax.jit(functools.partial(jaxloss.cross_entropy, reduction="none"))(logits, ids)
    z = np.asarray(logits, np.float64)
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, np.log(np.exp(z).sum(-1)) - z[ids, ids], rtol=1e-6)


def test_optax_1786_zero_targets_have_finite_gradients():
    """The gradient with respect to targets was NaN where they were 0, at a logit of -inf too."""
    logits, labels = array([-INF, 0, 1, 2], [0, 0, 1, 2]), array([0, 0.4, 0.6, 0], [0, 0.4, 0.6, 0])
    for loss in (jaxloss.cross_entropy, jaxloss.softmax_focal):
        both = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))
        assert_finite(both(logits, labels))


def test_optax_1771_losses_never_round_below_zero():
    """A loss of about -1e-8 made a later logarithm NaN."""
    rng = np.random.default_rng(0)

    def in_all_precisions(values):
        return np.concatenate(
            [np.asarray(jnp.asarray(values, d), np.float32) for d in ("float32", *HALVES)]
        )

    logits = in_all_precisions(rng.normal(scale=30, size=(100, 3)))
    ids = logits.argmax(-1).astype(np.int32)
    p = in_all_precisions(np.clip(rng.normal(0.5, 1, size=(100, 7)), 0, 1))
    boxes = in_all_precisions(rng.uniform(size=(100, 4)))

    @jax.jit
    def all_of_them(logits, p, boxes):
        none, region = {"reduction": "none"}, {"axis": None, "activation": None}
        values = [
            jaxloss.cross_entropy(logits, ids, **none),
            jaxloss.cross_entropy(logits, one_hot(ids, 3), label_smoothing=0.1, **none),
            jaxloss.softmax_focal(logits, ids, **none),
            jaxloss.binary_cross_entropy(logits, logits > 0, **none),
            jaxloss.sigmoid_focal(logits, logits > 0, gamma=0.5, **none),
            jaxloss.giou(boxes, boxes * 1.001, **none),
            jaxloss.ciou(boxes, boxes * 1.001, **none),
            jaxloss.huber(logits, logits + 1e-3, **none),
        ]
        for target in (p > 0.5, p):
            values += [
                jaxloss.dice(p, target, smooth=0, squared=squared, **none, **region)
                for squared in (False, True, "counts")
            ]
            values += [jaxloss.jaccard(p, target, **none, **region)]
            values += [jaxloss.tversky(p, target, alpha=0.3, beta=0.7, **none, **region)]
        return values

    for values in all_of_them(logits, p, boxes):
        assert np.all(values >= 0)


@pytest.mark.parametrize("loss", [jaxloss.cross_entropy, jaxloss.softmax_focal])
def test_pytorch_31829_jax_6811_row_without_classes_has_no_gradient(loss):
    """The gradient of a row whose classes are all removed was NaN."""
    logits, ids = np.full((2, 3), -INF), np.array([0, 2])
    where = np.array([True, False])

    def masked(z, y, where):
        return loss(z, y, where=where)

    assert_rows(rows(masked, logits, ids, where), [INF, 0])
    assert_rows(rows(masked, logits, one_hot(ids, 3), where), [INF, 0])


def test_jax_19490_masks_differ_under_vmap():
    """log_softmax with a mask of its own for each mapped row gave (inf, nan)."""
    rng = np.random.default_rng(0)
    logits = (100 * rng.normal(size=(20, 4, 3))).astype(np.float32)
    where = rng.integers(2, size=(20, 4)).astype(bool)
    ids = rng.integers(3, size=(20, 4)).astype(np.int32)

    def loss(x, where, y):
        return jaxloss.cross_entropy(x, y, where=where, label_smoothing=0.1)

    value, gradient, _ = rows(loss, logits, where, ids, forward=False)
    assert_finite((value, gradient))
    assert not np.any(gradient[~where])


def test_jax_16208_removed_classes_have_probability_zero():
    """Masked classes kept a share of the softmax."""
    logits = np.tile(array(1, -INF, 2, -INF), (4, 1))
    surprise, _, _ = rows(jaxloss.cross_entropy, logits, np.arange(4), forward=False)
    expected = [1 / (1 + np.e), 0, np.e / (1 + np.e), 0]
    np.testing.assert_allclose(np.exp(-surprise), expected, rtol=1e-6)


def test_jax_17070_smoothing_spreads_over_the_classes_that_are_left():
    """The log of a removed class met its share of the smoothing: infinite, and NaN backwards."""
    logits, left = array([-INF, 0, 1], [0, -INF, 1]), array([0, 1], [0, 1])
    smoothed = functools.partial(jaxloss.cross_entropy, label_smoothing=0.1)
    value, gradient, forward = rows(smoothed, logits, np.array([2, 2]))
    expected, by_two, _ = rows(smoothed, left, np.array([1, 1]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, forward, atol=1e-7)
    for i in (0, 1):
        assert gradient[i, i] == 0
        np.testing.assert_allclose(np.delete(gradient[i], i), by_two[i], rtol=1e-5)


def test_pytorch_12670_other_negative_ids_are_not_ignored():
    """With ignore_index=-1 a label of -4 read memory out of bounds, or passed for a class."""
    loss = jax.jit(functools.partial(jaxloss.cross_entropy, ignore_index=-1, reduction="none"))
    value = loss(np.zeros((4, 3), np.float32), np.array([-4, -1, 0, 2]))
    np.testing.assert_allclose(value, [NAN, 0, np.log(3), np.log(3)], rtol=1e-6)


def test_pytorch_15508_49882_ids_are_treated_alike_under_every_reduction():
    """ignore_index, and the check of ids, failed for reduction="none" only."""

    @jax.jit
    def reductions(ids):
        return [
            jaxloss.cross_entropy(jnp.zeros((3, 4)), ids, ignore_index=255, reduction=reduction)
            for reduction in ("mean", "sum", "none")
        ]

    for last, expected in ((2, np.log(4)), (22, NAN)):
        mean, total, none = reductions(np.array([255, 1, last], np.uint8))
        np.testing.assert_allclose(none, [0, np.log(4), expected], rtol=1e-6)
        np.testing.assert_allclose([mean, total / 2], expected, rtol=1e-6)


def test_pytorch_20406_repeated_calls_are_equal_to_the_bit():
    """reduction="none" with ignored labels read uninitialised memory."""
    _, x, ids, _ = SAMPLES["cross_entropy"]
    ids = np.where(ids == 1, -1, ids)
    loss = jax.jit(functools.partial(jaxloss.cross_entropy, ignore_index=-1, reduction="none"))
    first = np.asarray(loss(x, ids))
    assert not np.isnan(first).any()
    for _ in range(100):
        np.testing.assert_array_equal(loss(x, ids), first)


@pytest.mark.parametrize("name", LABELLED)
def test_jax_9839_14193_pytorch_18014_bad_ids_are_nan_in_their_position_only(name):
    """Out-of-range ids were wrapped, clamped, scored 0 or ended the process.

    Optax took -1 for the last class, and gave NaN with a finite, wrong gradient for others.
    """
    ids = np.array([1, -1, -100, 3, 127, 2**31 - 1, -(2**31)])
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)

    @jax.jit
    def run(x, ids):
        value, back = jax.vjp(lambda x: SAMPLES[name][0](x, ids, reduction="none"), x)
        return value.reshape(7, -1), back(jnp.ones_like(value))[0]

    for result in run(x, ids):
        bad = np.isnan(result).any(-1)
        np.testing.assert_array_equal(bad, ids != 1)


@pytest.mark.parametrize(
    "dtype, ids", [("int8", [1, -1, -100, 3]), ("uint8", [1, 3, 127, 255]), ("bool", [1, 0, 0, 0])]
)
def test_jax_9839_bad_ids_in_narrow_dtypes(dtype, ids):
    """The same in dtypes in which a class count or -1 wraps, mapped and not compiled."""
    ids, x = np.array(ids, dtype), np.zeros((4, 3), np.float32)
    bad = [False] + 3 * [dtype != "bool"]
    if dtype == "uint8":
        eager = jaxloss.cross_entropy(x, ids, reduction="none")
        np.testing.assert_array_equal(np.isnan(eager), bad)
    value, gradient, _ = rows(jaxloss.cross_entropy, x, ids, forward=False)
    np.testing.assert_array_equal(np.isnan(value), bad)
    np.testing.assert_array_equal(np.isnan(gradient).any(-1), bad)


def test_pytorch_71550_broadcast_and_reversed_inputs_equal_copies():
    """Expanded targets, whose stride is 0, were read wrongly in the backward pass."""
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    run = jax.jit(jax.value_and_grad(jaxloss.cross_entropy))
    for logits, ids in [
        (x, np.broadcast_to(np.array(2), (6,))),
        (x[::-1], np.arange(12)[::-2] % 3),
        (np.asfortranarray(x), np.arange(6) % 3),
    ]:
        given, copied = run(logits, ids), run(logits.copy(), ids.copy())
        np.testing.assert_array_equal(given[0], copied[0])
        np.testing.assert_array_equal(given[1], copied[1])


def test_pytorch_85791_float16_over_many_positions():
    """The sum over a large batch of half-precision logits was infinite."""
    x = np.random.default_rng(0).normal(size=(200_000, 4)).astype(np.float16)
    ids = np.arange(200_000) % 4
    z = x.astype(np.float64)
    each = np.log(np.exp(z).sum(-1)) - z[np.arange(200_000), ids]
    mean, total = (
        jax.jit(functools.partial(jaxloss.cross_entropy, reduction=reduction))(x, ids)
        for reduction in ("mean", "sum")
    )
    np.testing.assert_allclose([mean, total], [each.mean(), each.sum()], rtol=1e-5)


def test_pytorch_91597_mean_of_a_million_halves_is_one():
    """ones(100000).half().mean() was infinite."""
    ones, zeros = np.ones(1_000_000, np.float16), np.zeros(1_000_000, np.float16)

    @jax.jit
    def run(ones, zeros):
        entropy = jaxloss.binary_cross_entropy(zeros, ones)
        return jaxloss.l2(ones, zeros), jaxloss.huber(ones, zeros), entropy

    np.testing.assert_allclose(run(ones, zeros), [1, 0.5, np.log(2)], rtol=1e-5)


def test_pytorch_104776_class_weights_and_label_smoothing():
    """Weights act on the smoothed shares: the minimum is at p_c proportional to w_c t_c."""
    w, t = array(0.1, 0.9), array(0.95, 0.05)
    p = w * t / (w * t).sum()
    value, gradient = compiled(
        jaxloss.cross_entropy, np.log(p), 0, class_weights=w, label_smoothing=0.1
    )
    np.testing.assert_allclose(value, -(w * t * np.log(p)).sum() / w[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_pytorch_148884_smoothing_spreads_over_all_classes():
    """Each class receives e / C, the true one included, not e / (C - 1)."""
    z, e = array(0.3, -1.2, 2.0), 0.3
    surprise = np.log(np.exp(z).sum()) - z
    value, gradient = compiled(jaxloss.cross_entropy, z, 0, label_smoothing=e)
    np.testing.assert_allclose(value, (1 - e) * surprise[0] + e * surprise.mean(), rtol=1e-6)
    expected = np.exp(-surprise) - (1 - e) * array(1, 0, 0) - e / 3
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_keras_17634_confident_logits_keep_their_digits():
    """Clipped probabilities, and lse - z, lose the loss of a confident sample."""
    value, gradient = compiled(jaxloss.cross_entropy, array(14, 50, 3), 1)
    np.testing.assert_allclose(value, np.exp(-36.0) + np.exp(-47.0), rtol=1e-5)
    np.testing.assert_allclose(gradient[0], np.exp(-36.0), rtol=1e-5)
    value, gradient = compiled(jaxloss.binary_cross_entropy, 50.0, 1.0)
    np.testing.assert_allclose([value, -gradient], np.exp(-50.0), rtol=1e-5)
    value, gradient = compiled(jaxloss.sigmoid_focal, 20.0, 1.0)
    np.testing.assert_allclose([value, -gradient], [np.exp(-60.0), 3 * np.exp(-60.0)], rtol=1e-5)


@pytest.mark.parametrize("labels", ["ids", "one-hot"])
def test_logits_far_from_zero_lose_no_digits(labels):
    """log-sum-exp rounds to the size of the logits; the loss depends on their differences only."""
    z = np.array([0, 1, 3]) + np.array([0, 1e3, -1e3, 1e6, -1e6])[:, None]
    y = np.zeros(5, np.int32) if labels == "ids" else one_hot(np.zeros(5, np.int32), 3)
    value, gradient, _ = rows(jaxloss.cross_entropy, z.astype(np.float32), y, forward=False)
    share = np.exp([0, 1, 3]) / np.exp([0, 1, 3]).sum()
    np.testing.assert_allclose(value, -np.log(share[0]), rtol=2e-6)
    np.testing.assert_allclose(gradient, np.tile(share - [1, 0, 0], (5, 1)), rtol=2e-6)


def test_pytorch_49844_infinite_logits_on_the_right_side_cost_nothing():
    """BCE of -inf against 0, and of inf against 1, was inf * 0 = NaN."""
    x, y, w = array(INF, -INF, INF, -INF), array(1, 0, 1, 0), array(1, 1, 3, 3)

    def loss(x, y, w):
        return jaxloss.binary_cross_entropy(x, y, pos_weight=w)

    assert_rows(rows(loss, x, y, w), np.zeros(4))


def test_pytorch_103316_very_negative_logits_keep_their_gradient():
    """sigmoid, then log clamped at -100: the gradient of sigmoid(-50) was -1.9e-10, not -1."""
    x, ones = array(-50, -200, -1e4), np.ones(3, np.float32)
    assert_rows(rows(jaxloss.binary_cross_entropy, x, ones), -x, -1.0)
    from_p = functools.partial(jaxloss.binary_cross_entropy, activation=None)
    value, gradient, _ = rows(from_p, array(0, 0.5, 1), ones)
    np.testing.assert_allclose(value, [100, np.log(2), 0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, [0, -2, -1], rtol=1e-6)


@pytest.mark.parametrize("loss", [jaxloss.binary_cross_entropy, jaxloss.focal])
def test_pytorch_24933_logits_and_probabilities_agree(loss):
    """BCEWithLogits(x) and BCE(sigmoid(x)) differed."""
    x = np.tile(np.linspace(-8, 8, 161).astype(np.float32), 3)
    y = np.repeat(array(0, 0.3, 1), 161)

    @jax.jit
    def run(x, y):
        from_p = loss(jax.nn.sigmoid(x), y, activation=None, reduction="none")
        return from_p, loss(x, y, reduction="none")

    from_p, from_logits = run(x, y)
    # sigmoid(8) in float32 leaves 1 - p about four digits: why logits are the main path.
    np.testing.assert_allclose(from_p, from_logits, rtol=1e-3, atol=1e-6)


def test_pytorch_51866_61098_pytorch_xla_2448_probabilities_at_their_limits():
    """NaN for p = 1 + 6e-8, for half-precision p, and in the backward pass at p = 1."""
    p = array(0, 1, -1e-7, 1 + 1.2e-7, 1e-38)
    for loss in (jaxloss.binary_cross_entropy, functools.partial(jaxloss.focal, gamma=0.5)):
        for dtype in (np.float32, np.float16):
            both = np.tile(p.astype(dtype), 2), np.repeat(array(0, 1), 5)
            results = jax.jit(
                jax.vmap(jax.value_and_grad(functools.partial(loss, activation=None)))
            )
            assert_finite(results(*both))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_pytorch_61098_half_logits_on_a_grid(dtype):
    """Half-precision probabilities underflow to 0, and their logarithm to -inf."""
    x = jnp.tile(jnp.arange(-60, 61), 2).astype(dtype)
    y = np.repeat(array(0, 1), 121)
    value, gradient, _ = rows(jaxloss.binary_cross_entropy, x, y, forward=False)
    assert_finite(gradient)
    expected = np.logaddexp(0, np.asarray(x, np.float64) * (1 - 2 * y))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@functools.cache
def focal_grid():
    """Rows of logit, label and gamma: every saturated logit on both sides."""
    sizes = (17.0, 100.0, 1e4)
    x = [sign * size for size in sizes for sign in (-1, 1)]
    grid = itertools.product(x, (0.0, 0.3, 1.0), GAMMAS)
    return np.array(list(grid), np.float32).T


def test_optax_1267_kornia_918_torchvision_sigmoid_focal_of_saturated_logits():
    """(1 - p_t)^gamma with gamma < 1 had a NaN gradient where 1 - p_t rounds to 0.

    The same: fizyr/keras-retinanet#706, mkocabas/focal-loss-keras#5 and #17, sam3#576,
    tensorflow/addons#2697, MONAI and scenic; some for the second derivative below gamma = 2.
    """
    x, y, gamma = focal_grid()

    def loss(x, y, gamma):
        return jaxloss.sigmoid_focal(x, y, gamma=gamma)

    @jax.jit
    @jax.vmap
    def run(x, y, gamma):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 2))(x, y, gamma)
        return value, gradients, jax.hessian(loss)(x, y, gamma)

    value, gradients, hessian = run(x, y, gamma)
    assert_finite((value, gradients, hessian))
    assert np.all(value >= 0)
    hard = y != np.float32(0.3)
    s = np.where(y == 1, x, -x).astype(np.float64)[hard]
    expected = np.logaddexp(0, -s) * np.exp(-gamma[hard] * np.logaddexp(0, s))
    np.testing.assert_allclose(value[hard], expected, rtol=1e-4, atol=1e-37)


def test_optax_1267_sigmoid_focal_in_forward_mode_and_in_its_labels():
    """The same for the derivatives that training rarely asks for: jvp, and that by the labels."""
    x, y, gamma = focal_grid()

    def loss(x, y, gamma):
        return jaxloss.sigmoid_focal(x, y, gamma=gamma)

    by_labels = jax.grad(loss, argnums=1)
    run = jax.vmap(lambda *row: (jax.jacfwd(loss)(*row), jax.grad(loss)(*row), by_labels(*row)))
    forward, backward, by_label = jax.jit(run)(x, y, gamma)
    assert_finite((forward, by_label))
    np.testing.assert_allclose(forward, backward, rtol=1e-5, atol=1e-30)


def test_smp_monai_softmax_focal_of_saturated_logits():
    """The same NaN with softmax: logits [200, 0], gamma = 0.5."""
    x, y, gamma = focal_grid()
    hard = y != np.float32(0.3)
    x, y, gamma = x[hard], y[hard].astype(np.int32), gamma[hard]
    logits = np.stack([np.zeros_like(x), x], -1)

    def loss(z, y, gamma):
        return jaxloss.softmax_focal(z, y, gamma=gamma)

    @jax.jit
    @jax.vmap
    def run(z, y, gamma):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 2))(z, y, gamma)
        dense = jax.value_and_grad(loss)(z, jax.nn.one_hot(y, 2, dtype=z.dtype), gamma)
        return value, gradients, jax.hessian(loss)(z, y, gamma), dense

    value, gradients, hessian, dense = run(logits, y, gamma)
    assert_finite((value, gradients, hessian, dense))
    np.testing.assert_allclose(value, dense[0], rtol=1e-4, atol=1e-37)
    np.testing.assert_allclose(gradients[0], dense[1], rtol=1e-4, atol=1e-7)
    s = np.where(y == 1, x, -x).astype(np.float64)
    expected = np.logaddexp(0, -s) * np.exp(-gamma * np.logaddexp(0, s))
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("form", ["sigmoid", "ids", "one-hot"])
def test_torchvision_focal_of_infinite_logits_on_the_right_side(form):
    """An infinite logit that is right costs 0 and has no gradient, for every gamma."""
    gamma = np.array(GAMMAS * 2, np.float32)
    x, y = np.repeat(array(-INF, INF), len(GAMMAS)), np.repeat([0, 1], len(GAMMAS))

    def loss(x, y, gamma):
        if form == "sigmoid":
            return jaxloss.sigmoid_focal(x, y, gamma=gamma)
        return jaxloss.softmax_focal(jnp.stack([jnp.zeros_like(x), x]), y, gamma=gamma)

    labels = {"sigmoid": y.astype(np.float32), "ids": y, "one-hot": one_hot(y, 2)}[form]
    assert_rows(rows(loss, x, labels, gamma), np.zeros(14))


@pytest.mark.parametrize("name", ELEMENT)
def test_torchvision_infinite_logits_on_the_wrong_side(name):
    """The loss is infinite, as it must be, but its gradient is that of any very large logit."""
    results = rows(SAMPLES[name][0], array(INF, -INF), array(0, 1))
    assert_rows(results, [INF, INF], [1, -1])


def test_pytorch_vision_8519_focal_is_a_cost():
    """A reader missed the minus sign: the loss is positive and falls as p_t grows."""
    x = np.linspace(-20, 20, 81).astype(np.float32)
    value, gradient, _ = rows(jaxloss.sigmoid_focal, x, np.ones_like(x), forward=False)
    assert np.all(value > 0)
    assert np.all(gradient < 0)


def test_kornia_2365_alpha_weighs_positives_and_negatives():
    """A scalar alpha scaled the whole loss instead of weighing positives against negatives."""

    @jax.jit
    def run(x, y):
        one = jaxloss.sigmoid_focal(x, y, alpha=0.25, reduction="none")
        pairs = jnp.stack([x, x], -1)
        return one, jaxloss.softmax_focal(pairs, [0, 1], alpha=[0.25, 0.75], reduction="none")

    for value in run(array(0, 0), array(1, 0)):
        np.testing.assert_allclose(value, np.log(2) / 4 * array(0.25, 0.75), rtol=1e-6)
