"""Sums of Dice and a distribution loss: oracles, cases and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss._core import scores
from tests.compiling import quick_jit
from tests.distribution.test_cross_entropy import CASES as ENTROPIES
from tests.distribution.test_focal import CASES as FOCALS
from tests.oracles import PIXEL_IDS, PIXELS, invalid_segmentations
from tests.region.test_overlap import CASES as REGION
from tests.registry import Case, Invalid, binary, elements, ids, probabilities

DICE = ("smooth", "squared", "per_image", "include_background", "absent")


def sum_of(first, second):
    """The oracle of a weighted sum: Dice, and what `second` makes of the same data."""

    def oracle(prediction, target, activation="auto", axis=-1, **options):
        one, two = (options.pop(f"{name}_weight", 1.0) for name in (first, second.__name__))
        dice_options = {key: options.pop(key) for key in DICE if key in options}
        smoothing = options.pop("label_smoothing", 0.0)
        shared = {
            key: options.pop(key)
            for key in ("where", "weights", "class_weights", "reduction")
            if key in options
        }
        dice = REGION["dice"].oracle(
            prediction, target, activation=activation, axis=axis, **shared, **dice_options
        )
        shared["label_smoothing"] = smoothing
        competes = activation == "softmax" or (axis is not None and target.ndim < prediction.ndim)
        if activation is None and competes:
            prediction = np.log(prediction)  # whose softmax is the prediction again
        elif not competes:
            shared["activation"] = None if activation is None else "sigmoid"
        other = second(prediction, target, competes, axis=axis, **shared, **options)
        return one * dice + two * other

    return oracle


def cross_entropy(prediction, target, competes, **options):
    name = "cross_entropy" if competes else "binary_cross_entropy"
    return ENTROPIES[name].oracle(prediction, target, **options)


def focal(prediction, target, competes, **options):
    name = "softmax_focal" if competes else "sigmoid_focal"
    return FOCALS[name].oracle(prediction, target, **options)


def top_k(prediction, target, competes, fraction=0.1, reduction="mean", **options):
    """The mean of the k largest of the n values with a weight."""
    values = cross_entropy(prediction, target, competes, reduction="none", **options)
    valid = np.ones(values.shape)
    for factor in (options.get("where"), options.get("weights")):
        if factor is not None:
            if factor.ndim < values.ndim:
                factor = np.expand_dims(factor, options["axis"])
            valid = valid * (factor != 0)
    n = int(valid.sum())
    k = min(max(1, int(fraction * n)), n)
    total = np.sort(values[valid != 0])[n - k :].sum()
    return total if reduction == "sum" or not k else total / k


NO_ELEMENTS = Invalid(
    (PIXELS, PIXEL_IDS), {"reduction": "none"}, ValueError, ("reduction", "'none'", "'mean'")
)


def out_of_range(**numbers):
    """Calls with one number out of its range each."""
    return tuple(
        Invalid((PIXELS, PIXEL_IDS), {key: value}, ValueError, (key, str(value), "number in"))
        for key, value in numbers.items()
    )


SQUARED = Invalid(
    (PIXELS, PIXEL_IDS), {"squared": "twice"}, ValueError, ("squared", "'twice'", "'counts'")
)

CASES = {
    "dice_cross_entropy": Case(
        sum_of("dice", cross_entropy),
        (
            ids(),
            elements(),
            ids("weighted", dice_weight=0.3, cross_entropy_weight=2.0, label_smoothing=0.1),
            ids("channels", axis=1, include_background=False),
            binary(),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            NO_ELEMENTS,
            SQUARED,
            *out_of_range(dice_weight=-1.0, cross_entropy_weight=-1.0, label_smoothing=1.0),
        ),
        {
            "dice_weight": (0.5, -1.0),
            "cross_entropy_weight": (0.5, -1.0),
            "smooth": (0.5, -1.0),
            "label_smoothing": (0.1, 1.5),
        },
        "smooth",
        0.58,
    ),
    "dice_focal": Case(
        sum_of("dice", focal),
        (
            ids(),
            elements("elements", alpha=0.3, label_smoothing=0.1),
            ids("per_class", axis=1, alpha=np.array([0.2, 1.0, 3.0]), gamma=0.5, squared=True),
            binary(dice_weight=0.3, focal_weight=2.0),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            NO_ELEMENTS,
            SQUARED,
            *out_of_range(
                dice_weight=-1.0, focal_weight=-1.0, gamma=-1.0, alpha=-0.5, label_smoothing=1.0
            ),
        ),
        {
            "dice_weight": (0.5, -1.0),
            "focal_weight": (0.5, -1.0),
            "smooth": (0.5, -1.0),
            "gamma": (1.5, -1.0),
            "alpha": (0.3, -0.1),
            "label_smoothing": (0.1, 1.5),
        },
        "smooth",
        0.79,
    ),
    "dice_top_k": Case(
        sum_of("dice", top_k),
        (
            ids("ids", fraction=0.3),
            elements("elements", fraction=0.2, label_smoothing=0.1),
            ids("channels", axis=1, fraction=0.9, per_image=False),
            binary(dice_weight=0.3, top_k_weight=2.0, fraction=0.05),
            probabilities(),
        ),
        (
            *invalid_segmentations(),
            NO_ELEMENTS,
            SQUARED,
            *out_of_range(dice_weight=-1.0, top_k_weight=-1.0, fraction=0.0, label_smoothing=1.0),
        ),
        {
            "dice_weight": (0.5, -1.0),
            "top_k_weight": (0.5, -1.0),
            "smooth": (0.5, -1.0),
            "fraction": (0.3, 1.5),
            "label_smoothing": (0.1, 1.5),
        },
        "kinked",
        1.68,
    ),
}


def _pair(sample):
    return jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)


def test_dice_cross_entropy_is_the_sum_of_its_parts():
    x, y = _pair(ids())
    np.testing.assert_allclose(
        jaxloss.dice_cross_entropy(x, y, dice_weight=0.5, cross_entropy_weight=2.0),
        0.5 * jaxloss.dice(x, y) + 2.0 * jaxloss.cross_entropy(x, y),
        1e-6,
    )


def test_dice_cross_entropy_of_competing_probabilities():
    sample = ids()
    x = sample.prediction.astype(np.float32)
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        jaxloss.dice_cross_entropy(p, sample.target, activation=None, label_smoothing=0.1),
        jaxloss.dice_cross_entropy(x, sample.target, label_smoothing=0.1),
        1e-5,
    )


@pytest.mark.parametrize(
    "options, part",
    [
        ({"gamma": 1.5, "alpha": 0.5}, lambda x, y: jaxloss.focal(x, y, gamma=1.5, alpha=0.5)),
        ({"gamma": 0.0}, jaxloss.cross_entropy),
    ],
)
def test_dice_focal_is_the_sum_of_its_parts(options, part):
    x, y = _pair(ids())
    np.testing.assert_allclose(
        jaxloss.dice_focal(x, y, dice_weight=0.5, focal_weight=2.0, **options),
        0.5 * jaxloss.dice(x, y) + 2.0 * part(x, y),
        1e-6,
    )


def test_dice_focal_of_a_softmax_takes_the_softmax_focal():
    """MONAI's DiceFocalLoss(softmax=True) takes a sigmoid there."""
    x, y = _pair(ids())
    loss = jaxloss.dice_focal(x, y, dice_weight=0.0, gamma=2.0)
    np.testing.assert_allclose(loss, jaxloss.softmax_focal(x, y), 1e-6)
    shifted = jaxloss.dice_focal(x + 3.0, y, dice_weight=0.0, gamma=2.0)
    np.testing.assert_allclose(shifted, loss, 1e-5)


def test_dice_top_k_is_the_sum_of_its_parts():
    x, y = _pair(ids())
    for fraction in (0.1, 1.0):
        np.testing.assert_allclose(
            jaxloss.dice_top_k(x, y, fraction=fraction, dice_weight=0.5, top_k_weight=2.0),
            0.5 * jaxloss.dice(x, y) + 2.0 * jaxloss.top_k_cross_entropy(x, y, fraction=fraction),
            1e-6,
        )


def test_dice_top_k_of_few_pixels_takes_one():
    """SegLossOdyssey's TopKLoss takes int(n k / 100) = 0 pixels there, and returns NaN."""
    logits, labels = jnp.array([[[2.0, 0.0], [0.0, 1.0]]]), jnp.array([[0, 0]])
    loss = jaxloss.dice_top_k(logits, labels, fraction=0.1, dice_weight=0.0)
    np.testing.assert_allclose(loss, np.log1p(np.exp(1.0)), 1e-6)


def test_dice_top_k_has_no_gradient_by_easy_pixels():
    x, y = _pair(ids())
    run = lambda x: jaxloss.dice_top_k(x, y, fraction=0.25, dice_weight=0.0)
    moved = (jax.grad(run)(x) != 0).any(-1)
    assert moved.sum() == y.size // 4
    each = jaxloss.cross_entropy(x, y, reduction="none")
    assert each[moved].min() >= each[~moved].max()


@pytest.mark.parametrize("name", ["dice_cross_entropy", "dice_focal", "dice_top_k"])
def test_finite_at_extreme_logits(name):
    labels = jnp.array([[0, 1, 1, 0]])
    right = jax.nn.one_hot(labels, 3) * 2 - 1

    def loss(x):
        return getattr(jaxloss, name)(x, labels)

    sizes = jnp.array([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30])
    logits = sizes[:, None, None, None] * right[None]
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(logits)
    tangents = jax.jit(jax.vmap(lambda x: jax.jvp(loss, (x,), (right,))[1]))(logits)
    for array in (values, slopes, tangents):
        assert jnp.isfinite(array).all()
    np.testing.assert_array_equal(values[-3:], 0)
    assert not slopes[-3:].any()


@pytest.mark.parametrize(
    "loss", [jaxloss.dice_cross_entropy, jaxloss.dice_focal, jaxloss.exp_log, jaxloss.unified_focal]
)
def test_one_pass_equals_two(loss, monkeypatch):
    """Value and two derivatives of ids, for many classes and for few; masked garbage is nothing."""
    rng = np.random.default_rng(5)
    shape = 2, 3, 4, 5
    x, slope = rng.normal(size=(2, *shape)) * 3
    labels, where = rng.integers(0, 5, shape[:-1]), rng.random(shape[:-1]) < 0.7
    x[~where] = np.nan
    options = {"where": where, "weights": rng.uniform(0.5, 2, shape[:-1])}

    def everything(x, fewer):
        monkeypatch.setattr(scores, "FEW", fewer)
        jax.clear_caches()  # of the losses' own programs
        run = lambda x: loss(x, labels, **options)
        along = lambda x: jnp.vdot(slope, jax.grad(run)(x))
        return run(x), jax.jvp(jax.grad(run), (x,), (slope,)), jax.grad(along)(x)

    with jax.enable_x64(True):
        one, two = (quick_jit(everything, static_argnums=1)(x, fewer) for fewer in (0, 9))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, two)
