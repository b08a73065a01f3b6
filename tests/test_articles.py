"""The worked numbers of the articles that this library began with, at their printed precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss._core import images


def assert_prints(actual, expected, digits=6):
    """Requires the article's number, up to the rounding of its print and of float32."""
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=0.5 * 10.0**-digits)


def wave(*shape):
    """The sine of 0, 1, 2, ... in C order."""
    return np.sin(np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


def counting(classes, *shape):
    """The ids 0, 1, ..., classes - 1, 0, ... in C order."""
    return (np.arange(np.prod(shape)) % classes).reshape(shape).astype(np.int32)


# Mean squared error, binary cross-entropy


def test_squared_error():
    assert jaxloss.l2([[1.0, 2.0], [3.0, 4.0]], [[3.0, 5.0], [8.0, 6.0]]) == 10.5


def test_binary_cross_entropy_of_probabilities():
    loss = jaxloss.binary_cross_entropy(
        [[0.6, 0.1], [0.3, 0.8]], [[0.0, 1.0], [1.0, 0.0]], activation=None
    )
    assert_prints(loss, 1.508072)


def test_binary_cross_entropy_of_logits():
    loss = jaxloss.binary_cross_entropy([[0.6, 0.1], [0.3, 0.8]], [[0.0, 1.0], [1.0, 0.0]])
    assert_prints(loss, 0.851835)


@pytest.mark.parametrize(
    "probabilities, costs, total",
    [
        ([0.95, 0.73, 0.05], [0.0513, 0.3147, 0.0513], 0.4173),
        ([0.3, 0.5, 0.7], [1.2040, 0.6931, 1.2040], 3.1011),
    ],
)
def test_multi_label(probabilities, costs, total):
    def loss(reduction):
        return jaxloss.binary_cross_entropy(
            probabilities, [1.0, 1.0, 0.0], activation=None, reduction=reduction
        )

    assert_prints(loss("none"), costs, 4)
    assert_prints(loss("sum"), total, 4)


def test_binary_cross_entropy_of_two_rows():
    probabilities = [[0.3410, 0.1810, 0.1073], [0.7485, 0.6879, 0.2198]]
    targets = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    loss = jaxloss.binary_cross_entropy(probabilities, targets, activation=None)
    assert_prints(loss, 0.758525)
    assert_prints(loss, 0.7586, 3)  # the article's, from input that was not yet rounded


def test_weighted_binary_cross_entropy_under_both_rules():
    probabilities = [[0.1531, 0.3302, 0.7537], [0.22, 0.6875, 0.2268], [0.5109, 0.5873, 0.9275]]
    targets = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], np.float32)
    w = np.where(targets == 1, 0.9, 0.1).astype(np.float32)

    def loss(**options):
        return jaxloss.binary_cross_entropy(probabilities, targets, activation=None, **options)

    assert_prints((w * loss(reduction="none")).mean(), 0.462068)  # divided by the count
    assert_prints(loss(weights=w), 1.260184)  # divided by the sum of the weights


# Softmax, sigmoid, cross-entropy


@pytest.mark.parametrize(
    "logits, probabilities",
    [
        ([3.0, 1.0, -3.0], [0.8789, 0.1189, 0.0022]),
        ([1.0, 2.0, 3.0, 4.0], [0.0321, 0.0871, 0.2369, 0.6439]),
    ],
)
def test_softmax(logits, probabilities):
    ids = np.arange(len(logits))
    rows = np.tile(np.array(logits, np.float32), (len(logits), 1))
    surprise = jaxloss.cross_entropy(rows, ids, reduction="none")
    assert_prints(jnp.exp(-surprise), probabilities, 4)


def test_sigmoid():
    loss = jaxloss.binary_cross_entropy(2.0, 1.0)
    assert_prints(loss, 0.1269, 4)
    assert_prints(jnp.exp(-loss), 0.8808, 4)


@pytest.mark.parametrize("p, cost", [(0.9, 0.1054), (0.1, 2.3026)])
def test_cost_of_a_probability(p, cost):
    assert_prints(jaxloss.cross_entropy(np.log([p, 1 - p]).astype(np.float32), 0), cost, 4)
    assert_prints(jaxloss.nll(np.log([p, 1 - p]).astype(np.float32), 0), cost, 4)
    assert_prints(jaxloss.binary_cross_entropy(p, 1.0, activation=None), cost, 4)


@pytest.mark.parametrize(
    "logits, costs",
    [([1000.0, 0.0, 0.0], [0.0, 1000.0, 1000.0]), ([-1000.0, -1000.0, -1000.0], [np.log(3)] * 3)],
)
def test_large_logits_are_finite(logits, costs):
    rows = np.array([logits] * 3, np.float32)
    assert_prints(jaxloss.cross_entropy(rows, [0, 1, 2], reduction="none"), costs, 4)


def test_negative_log_likelihood():
    assert jaxloss.nll([[2.0, 3.0, 1.0], [3.0, 7.0, 9.0]], [1, 2]) == -6


def test_negative_log_likelihood_of_an_image():
    log_probs = [[[2.0, 3.0], [1.0, 5.0]], [[3.0, 7.0], [1.0, 9.0]]]
    assert jaxloss.nll(log_probs, [[1, 1], [0, 0]], axis=1) == -4


@pytest.mark.parametrize("class_weights, expected", [(None, 1.795481), ([1.0, 9.0], 1.161660)])
def test_cross_entropy_of_an_image(class_weights, expected):
    logits = [[[1.0, 2.0], [3.0, 5.0]], [[4.0, 7.0], [4.0, 6.0]]]
    loss = jaxloss.cross_entropy(logits, [[0, 0], [1, 1]], axis=1, class_weights=class_weights)
    assert_prints(loss, expected)


@pytest.mark.parametrize("label_smoothing, expected", [(0.0, 2.477598), (0.1, 2.425002)])
def test_label_smoothing(label_smoothing, expected):
    logits = [
        [0.51491, 0.48284, -0.54881, 0.33695, -0.92449],
        [0.75421, -1.3219, 0.083139, -0.094772, 0.94742],
        [-0.35083, 1.1744, -1.0697, 0.0019165, -2.4743],
    ]
    loss = jaxloss.cross_entropy(logits, [2, 4, 4], label_smoothing=label_smoothing)
    assert_prints(loss, expected)


# Soft counts


PROBABILITIES = [[[0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.9, 0.1, 0.0]]]
IDS = [[2, 0, 0]]


def test_soft_counts():
    options = {"activation": None, "axis": -1, "per_image": True, "axis_name": None}
    pixels = images.read(PROBABILITIES, IDS, options)
    tp, fp, fn, *_ = map(pixels.total, pixels.form(*pixels.arrays, axis=pixels.axis))
    for count, expected in [(tp, [1.7, 0.0, 0.6]), (fp, [0.2, 0.4, 0.1]), (fn, [0.3, 0.0, 0.4])]:
        np.testing.assert_allclose(count, [expected], atol=1e-6)


def test_jaccard_of_soft_counts():
    loss = jaxloss.jaccard(PROBABILITIES, IDS, activation=None, smooth=0, reduction="none")
    assert_prints(loss, [[0.2273, 1.0, 0.4545]], 4)


def test_f_score_of_soft_counts_is_dice():
    assert_prints(jaxloss.dice(PROBABILITIES, IDS, activation=None, smooth=1e-5), 0.474099)


# Focal loss


@pytest.mark.parametrize("p, weight", [(0.95, 1 / 400), (0.5, 1 / 4)])
def test_focal_weight(p, weight):
    logit = np.float32(np.log(p / (1 - p)))
    entropy = jaxloss.binary_cross_entropy(logit, 1.0)
    np.testing.assert_allclose(jaxloss.sigmoid_focal(logit, 1.0) / entropy, weight, rtol=2e-6)
    pair = jnp.stack([logit, jnp.zeros_like(logit)])
    np.testing.assert_allclose(jaxloss.softmax_focal(pair, 0) / entropy, weight, rtol=2e-6)


def test_focal_of_a_probability():
    logits = np.log([0.7, 0.2, 0.1]).astype(np.float32)
    assert_prints(jaxloss.focal(logits, 0, alpha=0.5), 0.016050)


FOCAL_LOGITS, FOCAL_LABELS = [[0.6, 0.1], [0.3, 0.8]], [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    "reduction, expected",
    [
        ("mean", 0.249574),
        ("sum", 0.998296),
        ("none", [[0.403689, 0.052743], [0.038474, 0.503391]]),
    ],
)
def test_focal_reductions(reduction, expected):
    loss = jaxloss.focal(FOCAL_LOGITS, FOCAL_LABELS, gamma=1.5, alpha=0.25, reduction=reduction)
    assert_prints(loss, expected)


def test_focal_of_soft_labels():
    loss = jaxloss.focal(FOCAL_LOGITS, [[0.2, 0.9], [0.7, 0.1]], gamma=1.5, alpha=0.25)
    assert_prints(loss, 0.204739)


@pytest.mark.parametrize("alpha, expected", [(None, 0.308954), (0.25, 0.200991)])
def test_focal_with_and_without_alpha(alpha, expected):
    assert_prints(jaxloss.focal(FOCAL_LOGITS, FOCAL_LABELS, gamma=2, alpha=alpha), expected)


# Gradients in closed form


def test_gradient_of_softmax_cross_entropy():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 5, 4)).astype(np.float32)
    y = np.abs(y)  # does not sum to one
    gradient = jax.jit(jax.grad(lambda z: jaxloss.cross_entropy(z, y, reduction="sum")))(z)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradient, p * y.sum(-1, keepdims=True) - y, atol=1e-6)


@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_gradient_of_binary_cross_entropy(pos_weight):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=20).astype(np.float32), rng.uniform(size=20).astype(np.float32)

    def loss(x):
        return jaxloss.binary_cross_entropy(x, y, pos_weight=pos_weight, reduction="sum")

    p = 1 / (1 + np.exp(-x))
    w = 1 if pos_weight is None else pos_weight
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), (1 - y) * p - w * y * (1 - p), atol=1e-6)


@pytest.mark.parametrize(
    "smooth",
    [pytest.param(0.0, marks=pytest.mark.slow), pytest.param(1e-5, marks=pytest.mark.slow), 1.0],
)
def test_gradients_of_dice_and_jaccard(smooth):
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(1, 12)).astype(np.float32)
    y = rng.integers(2, size=(1, 12)).astype(np.float32)
    options = {"smooth": smooth, "activation": None, "axis": None}
    total, inner = p.sum() + y.sum(), (p * y).sum()

    gradient = jax.grad(jaxloss.dice)(p, y, **options)
    size = total + smooth
    expected = -(2 * y * size - (2 * inner + smooth)) / size**2
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)

    gradient = jax.grad(jaxloss.jaccard)(p, y, **options)
    size = total - inner + smooth
    expected = -(y * size - (1 - y) * (inner + smooth)) / size**2
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


# One channel or two


def test_two_channel_softmax_is_one_channel_sigmoid():
    rng = np.random.default_rng(0)
    x = rng.normal(scale=3, size=(30, 2)).astype(np.float32)
    y = rng.integers(2, size=30).astype(np.int32)
    two, by_pair = jax.jit(jax.value_and_grad(jaxloss.cross_entropy))(x, y)
    one, g = jax.jit(jax.value_and_grad(jaxloss.binary_cross_entropy))(x[:, 1] - x[:, 0], y)
    np.testing.assert_allclose(two, one, rtol=1e-6)
    np.testing.assert_allclose(by_pair, np.stack([-g, g], -1), rtol=1e-5, atol=1e-8)


def test_training_curves_agree_at_half_the_learning_rate():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    labels = (features @ rng.normal(size=5) > 0).astype(np.int32)

    def curve(loss, head, rate):
        def step(head, _):
            value, gradient = jax.value_and_grad(lambda w: loss(features @ w, labels))(head)
            return head - rate * gradient, value

        return jax.jit(lambda head: jax.lax.scan(step, head, length=50)[1])(head)

    two = curve(jaxloss.cross_entropy, jnp.zeros((5, 2)), 0.5)
    one = curve(jaxloss.binary_cross_entropy, jnp.zeros(5), 1.0)
    assert one[-1] < 0.5 * one[0]
    np.testing.assert_allclose(two, one, rtol=1e-5)


# Images of sines


@pytest.mark.parametrize("class_weights, expected", [(None, 1.321662), ([1.0, 2.0, 0.5], 1.446222)])
def test_cross_entropy_of_sines(class_weights, expected):
    logits, ids = wave(2, 3, 2, 2), counting(3, 2, 2, 2)
    loss = jaxloss.cross_entropy(logits, ids, axis=1, class_weights=class_weights)
    assert_prints(loss, expected)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, 0.498819),
        ({"per_image": False}, 0.578252),
        ({"include_background": False}, 0.515505),
        ({"per_image": False, "include_background": False}, 0.597532),
        ({"smooth": 1e-5}, 0.696006),
        ({"squared": "counts"}, 0.443434),
        ({"squared": True}, 0.374657),
    ],
)
def test_dice_of_sines(options, expected):
    logits, ids = wave(2, 3, 2, 2), counting(3, 2, 2, 2)
    assert_prints(jaxloss.dice(logits, ids, axis=1, **options), expected)


# Sines brought to twice the size, one class ignored


def stretching(size, length):
    """The matrix that resizes a line by linear interpolation with its ends in place."""
    at = np.arange(length) * (size - 1) / (length - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(size)), 0)


def upsampled():
    logits = np.einsum("bchw,Hh,Ww->bcHW", wave(1, 3, 2, 2), stretching(2, 4), stretching(2, 4))
    return logits.astype(np.float32), counting(4, 1, 4, 4)


@pytest.mark.parametrize("class_weights, expected", [(None, 1.294443), ([1.0, 2.0, 0.5], 1.387916)])
def test_cross_entropy_of_upsampled_sines(class_weights, expected):
    logits, ids = upsampled()
    loss = jaxloss.cross_entropy(logits, ids, axis=1, ignore_index=3, class_weights=class_weights)
    assert_prints(loss, expected)


def test_corner_alignment_changes_the_cross_entropy():
    logits = jax.image.resize(wave(1, 3, 2, 2), (1, 3, 4, 4), "bilinear")
    _, ids = upsampled()
    assert_prints(jaxloss.cross_entropy(logits, ids, axis=1, ignore_index=3), 1.3322, 4)


def test_focal_of_upsampled_sines():
    logits, ids = upsampled()
    options = {"alpha": 0.5, "axis": 1, "ignore_index": 3}
    total = jaxloss.focal(logits, ids, reduction="sum", **options)
    assert_prints(total / ids.size, 0.281044)  # the article divides by all pixels
    assert_prints(jaxloss.focal(logits, ids, **options), 0.374725)


def test_dice_of_upsampled_sines():
    logits, ids = upsampled()
    options = {"axis": 1, "per_image": False}
    one_hot = np.moveaxis(np.eye(4, dtype=np.float32)[ids][..., :3], -1, 1)  # id 3: no class

    loss = jaxloss.dice(logits, one_hot, activation="softmax", smooth=1e-5, **options)
    assert_prints(loss, 0.738686)
    # F2, in which a false negative weighs four times a false positive.
    loss = jaxloss.tversky(
        logits, one_hot, activation="softmax", alpha=0.2, beta=0.8, smooth=2e-6, **options
    )
    assert_prints(loss, 0.711771)
    loss = jaxloss.dice(logits, ids, ignore_index=3, smooth=1e-5, **options)
    assert_prints(loss, 0.694922)
