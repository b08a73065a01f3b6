"""One test for each public bug report about another library that a loss here could repeat.

A test is named after the report: project, number of the issue or pull request, and what must hold.
Those without a number guard against a fault that was reproduced in that project, or read in its
source. Many inputs go as rows through one compiled call.
"""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import jaxloss
from jaxloss import distance, geometry
from jaxloss._core import numerics

INF, NAN = np.float32(np.inf), np.float32(np.nan)
GAMMAS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0)
HALVES = (np.dtype("float16"), jnp.dtype("bfloat16"))


def array(*values):
    return np.array(values, np.float32)


def one_hot(ids, classes):
    return np.eye(classes, dtype=np.float32)[ids]


def samples():
    """For each loss: the function, its prediction and target, and a mask of what takes part."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    logits, ids, labels = normal(6, 3), array(0, 1, 2, 2, 1, 0).astype(np.int32), normal(6, 3) > 0
    images, masks = normal(2, 4, 5, 3), rng.integers(3, size=(2, 4, 5)).astype(np.int32)
    corners = rng.uniform(size=(2, 6, 2)).astype(np.float32)
    sizes = rng.uniform(0.5, 1, size=(2, 6, 2)).astype(np.float32)
    boxes, others = np.concatenate([corners, corners + sizes], -1)
    rows, pixels = np.arange(6) % 3 > 0, np.arange(20).reshape(4, 5) % 3 > 0
    elements, pixels = (normal(6, 3) > -0.5), np.stack([pixels, pixels])
    position, element = (logits, ids, rows), (logits, labels.astype(np.float32), elements)
    region, pair = (images, masks, pixels), (boxes, others, rows)
    line = (logits[:, 0], logits[:, 1], rows)
    squared = functools.partial(jaxloss.dice, squared=True)
    counts = functools.partial(jaxloss.dice, squared="counts")
    return {
        "l2": (jaxloss.l2, *line),
        "huber": (jaxloss.huber, *line),
        "nll": (jaxloss.nll, *position),
        "cross_entropy": (jaxloss.cross_entropy, *position),
        "softmax_focal": (jaxloss.softmax_focal, *position),
        "binary_cross_entropy": (jaxloss.binary_cross_entropy, *element),
        "sigmoid_focal": (jaxloss.sigmoid_focal, *element),
        "dice": (jaxloss.dice, *region),
        "dice-squared": (squared, *region),
        "dice-counts": (counts, *region),
        "jaccard": (jaxloss.jaccard, *region),
        "tversky": (jaxloss.tversky, *region),
        "dice_cross_entropy": (jaxloss.dice_cross_entropy, *region),
        "boundary": (jaxloss.boundary, *region),
        "giou": (jaxloss.giou, *pair),
        "ciou": (jaxloss.ciou, *pair),
    }


SAMPLES = samples()
POSITION = ("nll", "cross_entropy", "softmax_focal")
ELEMENT = ("binary_cross_entropy", "sigmoid_focal")
LABELLED = (*POSITION, *ELEMENT)
REGION = ("dice", "dice-squared", "dice-counts", "jaccard", "tversky")
IMAGES = (*REGION, "dice_cross_entropy", "boundary")
BOXES = ("giou", "ciou")

EVERY = [name for name in SAMPLES if "-" not in name]
# A pixel that is masked belongs to no class in a distance map, unlike one of weight 0.
COMPRESSIBLE = [name for name in EVERY if name != "boundary"]

every_loss = pytest.mark.parametrize("name", EVERY)
position_losses = pytest.mark.parametrize("name", POSITION)
region_losses = pytest.mark.parametrize("name", REGION)
image_losses = pytest.mark.parametrize("name", IMAGES)
box_losses = pytest.mark.parametrize("name", BOXES)


def rows(loss, x, *others, forward=True):
    """Value, gradient and full forward-mode derivative of each row, from one compiled call."""

    def one(x, *others):
        value, gradient = jax.value_and_grad(loss)(x, *others)
        return value, gradient, jax.jacfwd(loss)(x, *others) if forward else gradient

    return jax.jit(jax.vmap(one))(x, *others)


def compiled(loss, x, *others, **options):
    """Value and gradient, compiled with the options and the other arguments as constants."""
    return jax.jit(jax.value_and_grad(lambda x: loss(x, *others, **options)))(x)


def assert_rows(results, value, gradient=0.0, rtol=1e-6):
    """Requires a value and a gradient of each row, the gradient in both modes."""
    np.testing.assert_allclose(results[0], value, rtol=rtol)
    expected = np.broadcast_to(gradient, results[1].shape)
    np.testing.assert_allclose(results[1], expected, rtol=rtol, atol=1e-7)
    np.testing.assert_allclose(results[2], expected, rtol=rtol, atol=1e-7)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


# Softmax cross-entropy


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


@pytest.mark.parametrize("name", ["dice", "jaccard", "dice_cross_entropy", "boundary"])
def test_pytorch_1204_a_bad_id_costs_its_image_only(name):
    """One label out of range ended the whole run; here it makes its image NaN, and no other."""
    loss, x, ids, _ = SAMPLES[name]
    ids = ids.copy()
    ids[0, 0, 0] = 3
    reduction = "mean" if name == "dice_cross_entropy" else "none"

    @jax.jit
    def run(x):
        value, back = jax.vjp(lambda x: loss(x, ids, reduction=reduction), x)
        return value, back(jnp.ones_like(value))[0]

    value, gradient = run(x)
    bad = np.isnan(value)
    assert bad.all() if reduction == "mean" else (bad[0].all() and not bad[1].any())
    assert np.isnan(gradient[0]).any()
    assert np.isfinite(gradient[1]).all()


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


@pytest.mark.slow
@every_loss
def test_tensorflow_41095_keras_15363_dtype_follows_the_prediction(name):
    """float32 constants, or float64 ones where x64 is on, broke other dtypes."""
    loss, x, y, where = SAMPLES[name]
    options = {"where": where, "weights": where.astype(np.float32)}
    if name in ("cross_entropy", "softmax_focal", *ELEMENT, "dice_cross_entropy"):
        options["label_smoothing"] = np.float64(0.1)
    run = jax.value_and_grad(lambda x: loss(x, y, **options))
    for dtype, x64 in ((np.dtype("float32"), True), *((half, False) for half in HALVES)):
        with jax.enable_x64(x64):
            trace = jax.make_jaxpr(run)(jax.ShapeDtypeStruct(x.shape, dtype))
        value, gradient = trace.out_avals
        assert value.dtype == np.float32
        assert gradient.dtype == dtype
        assert not re.search(r"f64\[\d", str(trace))  # only Python numbers are, for a moment


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


# What is masked, ignored or weighs nothing


def slots(mask, x):
    """The mask in the rank of the prediction."""
    return mask if mask.ndim == x.ndim else mask[..., None]


@functools.cache
def masked(name):
    """Value, gradient and directional derivative of seven ways to leave something out.

    The slots that the mask leaves out hold: themselves, NaN, inf, -inf; then nothing is valid and
    all is NaN, all weights are 0, and the mask is given as weights.
    """
    loss, x, y, where = SAMPLES[name]
    everything, ones = np.ones_like(where), np.ones(where.shape, np.float32)

    def filled(values, mask, filler):
        if values.dtype != np.float32:
            return values
        return np.where(slots(mask, values), values, np.float32(filler))

    cases = [(x, y, where, ones)]
    cases += [(filled(x, where, f), filled(y, where, f), where, ones) for f in (NAN, INF, -INF)]
    nothing = np.zeros_like(where)
    cases += [(filled(x, nothing, NAN), filled(y, nothing, NAN), nothing, ones)]
    cases += [(x, y, everything, 0 * ones), (x, y, everything, where.astype(np.float32))]

    def one(x, y, where, weights):
        def of(x):
            return loss(x, y, where=where, weights=weights)

        value, gradient = jax.value_and_grad(of)(x)
        return value, gradient, jax.jvp(of, (x,), (jnp.ones_like(x),))[1]

    stacked = [np.stack(column) for column in zip(*cases, strict=True)]
    return [np.asarray(leaf) for leaf in jax.jit(jax.vmap(one))(*stacked)]


@pytest.mark.slow
@every_loss
def test_pytorch_11551_jax_17117_tensorflow_11756_masked_slots_leak_nothing(name):
    """NaN or infinity where ignored reached the gradient: 0 * inf is NaN."""
    value, gradient, directional = masked(name)
    _, x, _, where = SAMPLES[name]
    assert_finite((value, gradient, directional))
    assert value[0] != 0
    left_out = np.broadcast_to(~slots(where, x), x.shape)
    for i in range(4):
        np.testing.assert_array_equal(value[i], value[0])
        np.testing.assert_array_equal(gradient[i], gradient[0])
        assert not gradient[i][left_out].any()
        np.testing.assert_allclose(directional[i], gradient[0].sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@every_loss
def test_pytorch_70348_116349_75181_all_ignored_is_zero(name):
    """The mean over no positions was 0 / 0 = NaN."""
    value, gradient, directional = masked(name)
    assert value[4] == directional[4] == 0
    assert not gradient[4].any()


@pytest.mark.slow
@every_loss
def test_transformers_10796_keras_21908_weights_of_zero_cost_nothing(name):
    """A batch whose weights were all 0 gave NaN, or exploded by an epsilon in the wrong place."""
    value, gradient, directional = masked(name)
    assert value[5] == directional[5] == 0
    assert not gradient[5].any()


@pytest.mark.parametrize("name", COMPRESSIBLE)
def test_keras_21908_a_mask_is_a_weight_of_zero_or_one(name):
    """The mask entered the denominator in another way than weights."""
    value, gradient, _ = masked(name)
    np.testing.assert_allclose(value[6], value[0], rtol=1e-6)
    np.testing.assert_allclose(gradient[6], gradient[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", COMPRESSIBLE)
def test_smp_852_mmdetection_7367_keras_15323_mean_is_over_what_is_valid(name):
    """The mean divided by all pixels, the ignored ones included."""
    loss, x, y, where = SAMPLES[name]
    if name in IMAGES:  # the same pixels in both images
        x, y = x[:, where[0]], y[:, where[0]]
    else:
        x, y = x[where], y[where]
    np.testing.assert_allclose(masked(name)[0][0], jax.jit(loss)(x, y), rtol=1e-6)


@pytest.mark.parametrize("name", [*LABELLED, "dice", "jaccard", "dice_cross_entropy", "boundary"])
def test_smp_852_ignored_labels_are_masked_ones(name):
    """ignore_index=255 in uint8 equals -1 there, and was left in the denominator."""
    loss, x, y, where = SAMPLES[name]
    labels = np.where(where, y, 255).astype(np.uint8)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: loss(x, labels, ignore_index=255)))(
        np.where(slots(where, x), x, NAN)
    )
    np.testing.assert_allclose(value, masked(name)[0][0], rtol=1e-6)
    np.testing.assert_allclose(gradient, masked(name)[1][0], rtol=1e-5, atol=1e-8)


def test_smp_lovasz_all_ignored_keeps_the_documented_shape():
    """All-ignored input gave an array of shape (0, 3) instead of a scalar."""
    for name in (*LABELLED, *IMAGES):
        loss, x, y, _ = SAMPLES[name]
        labels = np.full(y.shape, 255, np.uint8)
        assert jax.eval_shape(functools.partial(loss, ignore_index=255), x, labels).shape == ()


# Binary cross-entropy and focal loss


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


@every_loss
def test_monai_3025_shapes_of_reduction_none(name):
    """reduction="none" returned another shape than documented."""
    loss, x, y, _ = SAMPLES[name]
    if name == "dice_cross_entropy":
        with pytest.raises(ValueError, match="reduction"):
            jax.eval_shape(functools.partial(loss, reduction="none"), x, y)
        return
    expected = x.shape
    if name in POSITION or name in BOXES:
        expected = (6,)
    if name in IMAGES:
        expected = (2, 2) if name == "boundary" else (2, 3)
    assert jax.eval_shape(functools.partial(loss, reduction="none"), x, y).shape == expected
    for reduction in ("mean", "sum"):
        assert jax.eval_shape(functools.partial(loss, reduction=reduction), x, y).shape == ()
    with pytest.raises(ValueError, match="reduction"):
        jax.eval_shape(functools.partial(loss, reduction="average"), x, y)


def test_pytorch_187180_half_precision_returns_float32():
    """A loss computed in float32 overflowed when it was cast back to half precision."""
    for dtype in HALVES:
        loss = jaxloss.l2(jnp.full(4, 400, dtype), jnp.zeros(4, dtype))
        assert loss.dtype == np.float32
        assert loss == 160_000


# Boxes


def box(x, y, width, height):
    return array(x, y, x + width, y + height)


@functools.cache
def box_rows(name):
    """The results of every degenerate pair, by what is wrong with it."""
    loss = SAMPLES[name][0]
    pairs = {
        f"flat {sizes}": (box(0, 0, *sizes[:2]), box(0, 0, *sizes[2:]))
        for sizes in itertools.product((0, 10), repeat=4)
    }
    pairs |= {
        f"flat elsewhere {sizes}": (box(3, 5, *sizes), box(0, 0, 10, 4))
        for sizes in itertools.product((0, 10), repeat=2)
    }
    pairs |= {
        "points": (box(1, 1, 0, 0), box(2, 3, 0, 0)),
        "disjoint": (box(0, 0, 1, 1), box(5, 7, 2, 1)),
        "far": (box(0, 0, 1, 1), box(1e7, -1e7, 1, 1)),
        "touching": (box(0, 0, 1, 1), box(1, 0, 1, 1)),
        "inside": (box(2, 2, 1, 1), box(0, 0, 10, 10)),
        "needle": (box(0, 0, 1e6, 1e-6), box(0, 0, 1e-6, 1e6)),
        "tiny in huge": (box(0, 0, 1e-18, 1e-18), box(0, 0, 1e18, 1e18)),
        "inverted": (array(10, 10, 2, 4), box(0, 0, 10, 10)),
        "centre of inverted": (box(6, 7, 0, 0), box(0, 0, 10, 10)),
        "inverted in x": (array(10, 0, 2, 4), box(0, 0, 10, 10)),
        "xywh for xyxy": (array(10, 40, 20, 20), array(10, 40, 20, 20)),
        "both inverted": (array(10, 10, 2, 4), array(5, 5, 1, 1)),
    }
    first, second = (np.stack(column) for column in zip(*pairs.values(), strict=True))
    results = [np.asarray(leaf) for leaf in rows(loss, first, second)]
    return {key: [leaf[i] for leaf in results] for i, key in enumerate(pairs)}


@box_losses
def test_torchvision_ciou_flat_box_is_finite(name):
    """complete_box_iou_loss was NaN, or finite with a NaN gradient, for a box of no height.

    The same: yolov5#13416, mmdetection#3394, YOLOX#1565, DIoU-pytorch-detectron#3 and #19,
    tensorflow/addons#914.
    """
    for key, (value, gradient, forward) in box_rows(name).items():
        if key.startswith("flat") or key == "points":
            assert np.isfinite(value), key
            assert np.isfinite(gradient).all(), key
            np.testing.assert_allclose(gradient, forward, rtol=1e-5, atol=1e-7)


@box_losses
def test_torchvision_7746_two_equal_points(name):
    """Nothing said what identical boxes without area cost: here 1, with zero gradient."""
    value, gradient, _ = box_rows(name)["flat (0, 0, 0, 0)"]
    assert value == 1
    assert not gradient.any()


@box_losses
def test_torchvision_3404_2582_any_four_numbers_are_finite(name):
    """xywh passed as xyxy, or swapped corners, gave NaN."""
    for key, (value, gradient, forward) in box_rows(name).items():
        assert np.isfinite(value), key
        assert np.isfinite(gradient).all(), key
        assert np.isfinite(forward).all(), key


@pytest.mark.parametrize("name, value, shift", [("giou", 1, 0), ("ciou", 1 + 5 / 200 + 0.05, 0.03)])
@pytest.mark.parametrize("pair", ["inverted", "centre of inverted"])
def test_torchvision_2582_inverted_boxes_are_points(name, value, shift, pair):
    """Swapped corners were silently 0; here such a box is the point at its centre."""
    actual, gradient, _ = box_rows(name)[pair]
    np.testing.assert_allclose(actual, value, rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(), shift, rtol=1e-5, atol=1e-6)


@box_losses
def test_tensorflow_addons_2800_2701_ranges(name):
    """Readers asked what the ranges are: GIoU [0, 2), CIoU [0, 3)."""
    top = 2 if name == "giou" else 3
    values = np.array([value for value, _, _ in box_rows(name).values()])
    assert np.all((values >= 0) & (values <= top))
    assert box_rows("giou")["far"][0] > 1.99


def identical_boxes():
    """Boxes of every size in the middle of their own range, and pixels of a 4K image in [0, 1]."""
    sizes = 10.0 ** np.arange(-18, 19)
    own = np.stack([3 * sizes, 5 * sizes, 3.7 * sizes, 7.1 * sizes], -1)
    rng = np.random.default_rng(0)
    column, line = rng.integers(3839, size=200), rng.integers(2159, size=200)
    pixel = np.stack([column / 3840, line / 2160, (column + 1) / 3840, (line + 1) / 2160], -1)
    return np.concatenate([own, pixel]).astype(np.float32)


@box_losses
def test_torchvision_eps_identical_boxes_cost_exactly_nothing(name):
    """With eps = 1e-7 two identical pixels of a 1080p image, normalised, cost 0.17.

    The same: rf-detr#1180, mmdetection#11647, and yolov5#2376, where 1 + eps - iou was 0.
    """
    loss, boxes = SAMPLES[name][0], identical_boxes()
    value, gradient, _ = rows(loss, boxes, boxes, forward=False)
    np.testing.assert_array_equal(value, 0)
    assert_finite(gradient)
    for format in ("cxcywh", "xywh"):
        same = jax.jit(functools.partial(loss, format=format, reduction="none"))
        converted = np.asarray(geometry.convert(boxes, "xyxy", format))
        np.testing.assert_array_equal(same(converted, converted), 0)


@box_losses
def test_yolov5_736_2376_half_precision_boxes(name):
    """In float16 the epsilon vanished: identical boxes were NaN, as were small ones."""
    loss = SAMPLES[name][0]
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(size=(2, 50, 2)) * np.repeat([1e-3, 0.1, 1, 30, 1000], 10)[:, None]
    boxes = np.concatenate([corner, corner + size], -1).astype(np.float16)
    boxes, others = np.concatenate([boxes, boxes]), np.concatenate([boxes, boxes[::-1]])
    value, gradient, _ = rows(loss, boxes, others, forward=False)
    assert gradient.dtype == np.float16
    assert_finite((value, gradient))
    has_area = (boxes[:50, 2:] > boxes[:50, :2]).all(-1)
    np.testing.assert_allclose(value[:50], np.where(has_area, 0, 1), atol=1e-12)


@box_losses
def test_torchvision_3371_float16_areas_do_not_overflow(name):
    """The area of 1000 x 1000 pixels is infinite in float16."""
    boxes, others = box(0, 0, 1000, 1000), box(100, 200, 1000, 1000)
    loss = jax.jit(SAMPLES[name][0])
    half = loss(boxes.astype(np.float16), others.astype(np.float16))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, loss(boxes, others), rtol=1e-6)


@box_losses
def test_torchvision_losses_do_not_depend_on_the_scale(name):
    """Coordinates of 1e20 had infinite areas and a NaN loss; those of 1e-20 had none."""
    loss = SAMPLES[name][0]
    _, boxes, others, _ = SAMPLES[name]
    expected = jax.jit(functools.partial(loss, reduction="none"))(boxes, others)
    scales = array(1e-20, 1e-18, 1e-8, 1e-3, 1e3, 1e8, 1e18, 1e20)[:, None, None]

    def total(boxes, others):
        values = loss(boxes, others, reduction="none")
        return values.sum(), values

    mapped = jax.jit(jax.vmap(jax.value_and_grad(total, has_aux=True)))
    (_, values), gradient = mapped(boxes * scales, others * scales)
    # These scales round the corners, which alone moves exact values by 4e-7 of them, and gradients,
    # in units of the boxes, by 2e-7: entries are up to 1, and small ones are differences of large.
    for value in values:
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    relative = np.asarray(gradient, np.float64) * scales
    for one in relative:
        np.testing.assert_allclose(one, relative[4], rtol=0, atol=5e-7)


@box_losses
def test_torchvision_5322_detr_551_nan_boxes_stop_nothing(name):
    """assert (x2 >= x1).all() ended the run at a NaN box, and made the device wait each step."""
    loss, boxes, others, _ = SAMPLES[name]
    boxes = jax.device_put(np.where(np.arange(6)[:, None] == 2, NAN, boxes))
    others = jax.device_put(others)

    @jax.jit
    def run(boxes, others):
        def total(boxes):
            values = loss(boxes, others, reduction="none")
            return values.sum(), values

        return jax.grad(total, has_aux=True)(boxes)

    run(boxes, others)
    with jax.transfer_guard("disallow"):
        gradient, value = run(boxes, others)
    np.testing.assert_array_equal(np.isnan(value), np.arange(6) == 2)
    np.testing.assert_array_equal(np.isnan(gradient).any(-1), np.arange(6) == 2)


@box_losses
def test_ultralytics_490_no_boxes_cost_nothing(name):
    """A batch without objects divided by 0."""
    loss, none = SAMPLES[name][0], np.zeros((0, 4), np.float32)
    value, gradient = compiled(loss, none, none)
    assert value == 0
    assert gradient.shape == (0, 4)
    assert jax.eval_shape(functools.partial(loss, reduction="none"), none, none).shape == (0,)


def test_torchvision_tests_ciou_is_not_diou():
    """All boxes of torchvision's tests have one aspect ratio, where CIoU equals DIoU."""
    wide, tall = box(0, 0, 4, 1), box(1.5, -1.5, 1, 4)
    v = 4 / np.pi**2 * (np.arctan(4) - np.arctan(0.25)) ** 2
    loss = 1 - 1 / 7 + 0  # the centres coincide
    np.testing.assert_allclose(jaxloss.ciou(wide, tall), loss + v * v / (loss + v), rtol=1e-6)


# Region losses


def region_options(name):
    """The loss of probabilities of binary images."""
    return functools.partial(SAMPLES[name][0], axis=None, activation=None)


@region_losses
def test_monai_807_empty_masks_have_gentle_gradients(name):
    """smooth = 1e-5 in an empty image gave each pixel a gradient of 100000."""
    p = np.tile(array(0, 1e-3, 0.5)[:, None, None], (1, 1, 8))
    value, gradient, _ = rows(region_options(name), p, np.zeros_like(p), forward=False)
    assert np.abs(gradient).max() <= 1
    assert value[0] == 0
    assert value[2] > value[1] > 0


@region_losses
def test_monai_120_4510_7504_empty_and_full_masks(name):
    """An empty class was NaN, always 1 or always 0, as the version went; smooth=0 was NaN.

    The documented table: with `smooth` nothing for nothing costs 0 and something for nothing
    1 - s / (P + s); with `smooth=0` a class that is not there costs 1.
    """
    n = 8
    p = np.tile(array(0, 1, 0, 1)[:, None, None], (2, 1, n))
    y = np.tile(array(0, 1, 1, 0)[:, None, None], (2, 1, n))
    smooth = np.repeat(array(1, 0), 4)

    def loss(p, y, smooth):
        return region_options(name)(p, y, smooth=smooth)

    value, gradient, _ = rows(loss, p, y, smooth, forward=False)
    price = 0.5 if name == "tversky" else 1
    far = 1 - 1 / (price * n + 1)
    np.testing.assert_allclose(value, [0, 0, far, far, 1, 0, 1, 1], rtol=1e-6)
    assert_finite(gradient)


@pytest.mark.parametrize("name", ["dice", "dice_cross_entropy", "boundary"])
def test_monai_120_empty_and_full_masks_from_logits(name):
    """The same from saturated logits of classes that compete."""
    loss = SAMPLES[name][0]
    one = np.broadcast_to(array(0, 1), (1, 3, 3, 2))
    predictions = np.stack([s * one for s in array(-1e4, -100, -1, 1, 100, 1e4)] * 2)
    ids = np.repeat(np.array([0, 1]), 6)[:, None, None, None] * np.ones((1, 1, 3, 3), np.int32)
    value, gradient, _ = rows(loss, predictions, ids, forward=False)
    assert_finite((value, gradient))
    if name == "boundary":
        assert not value.any()  # no boundary, no cost
        assert not gradient.any()
    else:
        assert value[0] < value[2] < value[3] < value[5]
        assert value[11] < value[9] < value[8] < value[6]


def test_smp_absent_classes_can_be_skipped():
    """Classes that are not there pulled the mean up or down: `absent="skip"` leaves them out."""
    ids = np.array([[[0, 0, 1, 1]], [[0, 0, 0, 0]]])
    p = np.full((2, 1, 4, 3), 1 / 3, np.float32)

    @jax.jit
    def run(p):
        loss = functools.partial(jaxloss.dice, p, ids, activation=None)
        foreground = loss(absent="skip", include_background=False)
        return loss(reduction="none"), loss(absent="skip"), foreground

    each, present, foreground = run(p)
    np.testing.assert_allclose(present, (each[0, :2].mean() + each[1, 0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(foreground, each[0, 1], rtol=1e-6)  # the other image has none


@pytest.mark.parametrize(
    "name, dtype",
    [*((name, HALVES[0]) for name in (*REGION, "dice_cross_entropy")), ("dice", HALVES[1])],
)
def test_smp_463_monai_7622_half_precision_images(name, dtype):
    """The sums of 512 x 512 pixels exceed 65504, float16's largest number."""
    loss = functools.partial(SAMPLES[name][0], axis=None)
    y = np.ones((1, 512, 512), np.float32)
    logits = jnp.full((1, 512, 512), 12, dtype)
    run = jax.jit(jax.value_and_grad(loss))
    for x, low, high in ((logits, 0, 1e-3), (-logits, 0.9, np.inf)):
        value, gradient = run(x, y)
        assert value.dtype == np.float32
        assert low <= value < high
        assert gradient.dtype == dtype
        assert_finite(gradient)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_smp_712_the_mean_over_images_is_the_loss_of_each(name):
    """Sums over the whole batch made the loss depend on how it was split."""
    loss, x, ids, _ = SAMPLES[name]
    run = jax.jit(lambda x, y: (loss(x, y), jax.vmap(lambda x, y: loss(x[None], y[None]))(x, y)))
    together, alone = run(x, ids)
    np.testing.assert_allclose(together, alone.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["dice", "tversky", "dice_cross_entropy", "boundary"])
def test_monai_7729_6855_class_weights_have_one_length(name):
    """The length changed with include_background, and differed between the parts of a sum."""
    loss, x, ids, _ = SAMPLES[name]
    weights = array(5, 1, 2)

    def foreground(weights, **options):
        of = functools.partial(loss, class_weights=weights, include_background=False, **options)
        return of(x, ids)

    with pytest.raises(ValueError, match=r"`class_weights` is of shape \(2,\), expected \(3,\)"):
        jax.eval_shape(foreground, weights[1:])
    if name == "dice_cross_entropy":
        assert np.isfinite(jax.jit(foreground)(weights))
    else:
        each = jax.jit(functools.partial(loss, include_background=False, reduction="none"))(x, ids)
        expected = (each @ weights[1:] / 3).mean()
        np.testing.assert_allclose(jax.jit(foreground)(weights), expected, rtol=1e-6)


def test_focal_tversky_10_29_smp_gradient_at_a_perfect_prediction():
    """The gradient was NaN where the Tversky index is 1."""
    y = array([1, 0, 0, 1, 0, 1])

    def loss(p, smooth, activation=None):
        options = {"alpha": 0.3, "beta": 0.7, "smooth": smooth, "activation": activation}
        return jaxloss.tversky(p, y, axis=None, **options)

    smooth = array(0, 1)
    results = rows(loss, np.stack([y, y]), smooth)
    by_pixel = np.where(y == 1, -0.7, 0.3) / (3 + smooth[:, None, None])
    assert_rows(results, [0, 0], by_pixel)
    logits = array(100, 1e4, INF)[:, None, None] * (2 * y - 1)
    results = rows(functools.partial(loss, activation="sigmoid"), logits, np.ones(3, np.float32))
    assert_rows(results, np.zeros(3))


@image_losses
def test_optax_dice_checks_no_values_under_jit(name):
    """dice_loss(apply_softmax=False) looked at the values, which a traced array does not have."""
    loss, x, ids, where = SAMPLES[name]
    numbers = {"smooth": 1.0} if name in (*REGION, "dice_cross_entropy") else {}

    def of_probabilities(p, ids, where, weights, numbers):
        options = {"where": where, "weights": weights, "activation": None, **numbers}
        return loss(p, ids, class_weights=weights[0, 0, :3], **options)

    weights = where.astype(np.float32)
    gradient = jax.eval_shape(jax.grad(of_probabilities), x, ids, where, weights, numbers)
    assert gradient.shape == x.shape


@pytest.mark.parametrize("name", [*REGION, "dice_cross_entropy"])
def test_pytorch_49844_infinite_logits_in_region_losses(name):
    """The same 0 * inf: certain predictions cost 0 when right, and are not NaN when wrong."""
    y = array([1, 0, 1, 0])
    x = np.where(y == 1, INF, -INF)
    value, gradient, _ = rows(
        lambda x: SAMPLES[name][0](x, y, axis=None), np.stack([x, -x]), forward=False
    )
    assert value[0] == 0
    assert value[1] > 0.5
    np.testing.assert_array_equal(gradient[0], 0)
    assert not np.isnan(gradient[1]).any()


# Distances


def test_scipy_15585_1616_no_background_is_no_distance():
    """The distance of an image without background was that to a phantom pixel at (-1, 0)."""
    full, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    np.testing.assert_array_equal(distance.edt(full), INF)
    np.testing.assert_array_equal(distance.edt(full, empty=0), 0)
    np.testing.assert_array_equal(distance.edt(empty), 0)
    np.testing.assert_array_equal(distance.signed_distance(full), 0)
    np.testing.assert_array_equal(distance.signed_distance(empty), 0)


@pytest.mark.parametrize("shape", [(7, 4099), (1200, 1025)], ids=str)
def test_cucim_392_sizes_beyond_a_block(shape):
    """Images of more than 1024 pixels gave wrong distances."""
    mask = np.random.default_rng(0).uniform(size=shape) > 1e-3
    mask.flat[0] = False
    expected = scipy.ndimage.distance_transform_edt(mask)
    np.testing.assert_allclose(distance.edt(mask), expected, rtol=1e-6)


def test_edt_3d_15_23_scipy_4143_squares_do_not_overflow():
    """Squared distances overflowed their integers in long images."""
    mask = np.ones((2, 30_000), bool)
    mask[0, 0] = False
    steps = np.arange(30_000, dtype=np.int64)
    expected = (steps**2 + np.array([[0], [1]])).astype(np.float32)
    np.testing.assert_array_equal(distance.squared_edt(mask), expected)


def test_boundary_loss_42_seglossodyssey_21_sign_and_gradient():
    """Ports disagreed on the sign and the -1 inside, or lost the gradient with the maps."""
    y = array([0, 0, 1, 1, 1, 0])[None]
    phi = array([2, 1, 0, -1, 0, 1])[None]
    p = np.full_like(y, 0.3)

    def loss(p):
        return jaxloss.boundary(p, y, axis=None, activation=None)

    value, gradient = jax.jit(jax.value_and_grad(loss))(p)
    np.testing.assert_allclose(value, 0.3 * phi.mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, phi / 6, rtol=1e-6)


# Autodiff and regression


def test_jax_14397_4177_powers_and_roots_of_zero():
    """x ** p and norm(x) have NaN or infinite derivatives at 0."""
    exponents = array(0, 0.3, 0.5, 0.75, 1, 2)

    @jax.jit
    @jax.vmap
    def run(x, p):
        roots = [d(numerics.sqrt)(x) for d in (jax.grad, jax.jacfwd)]
        shares = [d(lambda x: numerics.divide(x, 0 * x))(x + 1) for d in (jax.grad, jax.jacfwd)]
        by_both = jax.grad(numerics.power, argnums=(0, 1))(x, p)
        return numerics.power(x, p), (by_both, roots, shares)

    value, derivatives = run(np.zeros(6, np.float32), exponents)
    np.testing.assert_array_equal(value, exponents == 0)
    for derivative in jax.tree.leaves(derivatives):
        np.testing.assert_array_equal(derivative, 0)


def test_pytorch_96813_68558_huber_with_delta_zero():
    """smooth_l1 with beta = 0 had a NaN gradient where prediction and target are equal."""
    x, y = array(0, 1, -2, 3e38), array(0, 0, 0, 0)
    assert_rows(rows(functools.partial(jaxloss.huber, delta=0), x, y), np.zeros(4))
    assert_rows(rows(jaxloss.huber, x, y), [0, 0.5, 1.5, 3e38], [0, 1, -1, 1])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_jax_17792_half_precision_accumulates_in_float32(dtype):
    """The mean of a million small halves was inexact, and a sum in bfloat16 stops at 256."""

    @jax.jit
    def run(tiny, y):
        region = functools.partial(jaxloss.dice, axis=None, activation=None, smooth=0)
        return jaxloss.l2(tiny, jnp.zeros_like(tiny)), region(y, y), region(y / 2, y)

    tiny, y = jnp.full(1_000_000, 1e-2, dtype), jnp.ones((1, 4096), dtype)
    expected = [float(tiny[0]) ** 2, 0, 1 - 2 / 3]
    np.testing.assert_allclose(run(tiny, y), expected, rtol=1e-5)


def test_jax_23007_bfloat16_is_the_same_with_and_without_jit():
    """Compiled bfloat16 code keeps float32 between operations, eager code does not."""
    loss, x, y, _ = SAMPLES["binary_cross_entropy"]
    x = jnp.asarray(x, "bfloat16")
    np.testing.assert_allclose(jax.jit(loss)(x, y), loss(x, y), rtol=1e-6)


def wrongly_shaped(name):
    """A target that NumPy would broadcast against the prediction."""
    _, x, y, _ = SAMPLES[name]
    if name in BOXES:
        return x, y[:1]
    if name in IMAGES:
        return x, y[..., None]
    return (x, y[:, None]) if y.ndim < x.ndim else (x[:, None], y)


@every_loss
def test_optax_huber_never_broadcasts_columns_against_rows(name):
    """(N, 1) against (N,) became (N, N): a wrong mean, without an error."""
    loss = SAMPLES[name][0]
    x, y = wrongly_shaped(name)
    with pytest.raises(ValueError, match=r"of shape .* expected"):
        loss(x, y)
    with pytest.raises(ValueError, match=r"of shape .* expected"):
        jax.eval_shape(loss, x, y)


@every_loss
def test_optax_huber_masks_and_weights_never_broadcast(name):
    """The same for masks and weights of another rank."""
    loss, x, y, where = SAMPLES[name]
    for option in ("where", "weights"):
        given = where if option == "where" else where.astype(np.float32)
        with pytest.raises(ValueError, match=f"`{option}` is of shape .* expected"):
            loss(x, y, **{option: given[None]})
        with pytest.raises(ValueError, match=f"`{option}` is of shape .* expected"):
            loss(x, y, **{option: np.concatenate([given, given])})


@pytest.mark.slow
@every_loss
def test_optax_1162_1261_lists_are_arrays(name):
    """Labels given as Python lists crashed."""
    loss, x, y, where = SAMPLES[name]

    def of_lists():
        weights = where.astype(np.float32).tolist()
        return loss(x.tolist(), y.tolist(), where=where.tolist(), weights=weights)

    np.testing.assert_allclose(jax.jit(of_lists)(), masked(name)[0][0], rtol=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "boundary"])
def test_optax_1162_any_axis_holds_the_classes(name):
    """An axis other than the last was documented and did not work."""
    loss, x, y, where = SAMPLES[name]
    axis = np.int64(0) if name == "cross_entropy" else 1
    moved = np.moveaxis(x, -1, axis)
    run = jax.jit(lambda x: loss(x, y, axis=axis, where=where))
    np.testing.assert_allclose(run(moved), masked(name)[0][0], rtol=1e-5)
    for axis, error in ((x.ndim, ValueError), ((0, 1), TypeError), (1.0, TypeError)):
        with pytest.raises(error, match="`axis`"):
            jax.eval_shape(functools.partial(loss, axis=axis), x, y)


def test_mmocr_1616_hyper_parameters_out_of_range_raise():
    """smooth_l1 with a negative beta, focal with a negative gamma: silently wrong."""
    _, x, ids, _ = SAMPLES["cross_entropy"]
    for bad in (-1, -1.0, np.float32(-1), jnp.array(-1.0), np.nan):
        with pytest.raises(ValueError, match="`gamma`"):
            jaxloss.focal(x, ids, gamma=bad)
        with pytest.raises(ValueError, match="`delta`"):
            jaxloss.huber(x, x, delta=bad)
        with pytest.raises(ValueError, match="`label_smoothing`"):
            jaxloss.cross_entropy(x, ids, label_smoothing=bad)
    traced = jax.jit(lambda gamma: jaxloss.softmax_focal(x, ids, gamma=gamma))
    assert np.isnan(traced(-1.0))
    assert np.isfinite(traced(1.0))


def test_chex_disable_asserts_leaves_the_checks_on():
    """chex.disable_asserts() is meant for the user's own assertions."""
    _, x, ids, where = SAMPLES["cross_entropy"]
    chex.disable_asserts()
    try:
        with pytest.raises(ValueError, match="`labels`"):
            jaxloss.cross_entropy(x, ids[:, None])
        with pytest.raises(TypeError, match="`logits`"):
            jaxloss.cross_entropy(ids, ids)
        with pytest.raises(TypeError, match="`where`"):
            jaxloss.cross_entropy(x, ids, where=where.astype(np.int32))
        with pytest.raises(ValueError, match="`targets`"):
            jaxloss.l2(x, x[:, :1])
        with pytest.raises(ValueError, match="`class_weights`"):
            jaxloss.cross_entropy(x, ids, class_weights=[1.0])
        with pytest.raises(ValueError, match="`logits`"):
            jaxloss.dice(x, ids)
        with pytest.raises(ValueError, match="`boxes`"):
            jaxloss.giou(x, x)
    finally:
        chex.enable_asserts()


def test_ids_of_a_single_class_are_an_error():
    """A softmax over one class is 1 whatever the logit: the loss would be 0 without a word."""
    with pytest.raises(ValueError, match="axis=None"):
        jaxloss.cross_entropy(np.zeros((4, 1), np.float32), np.zeros(4, np.int32))
    with pytest.raises(ValueError, match="axis=None"):
        jaxloss.dice(np.zeros((1, 4, 4, 1), np.float32), np.zeros((1, 4, 4), np.int32))
