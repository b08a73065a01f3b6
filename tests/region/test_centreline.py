"""Centreline Dice and the soft skeleton: oracles, cases, closed forms, public reports."""

import functools
import itertools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy import ndimage

import jaxloss
from tests.oracles import (
    PIXEL_IDS,
    PIXELS,
    invalid_segmentations,
    mean_over_classes,
    pixel_weight,
    probabilities_of,
    segmentation,
)
from tests.registry import Case, Helper, Invalid, binary, elements, ids, probabilities


def _skeleton(probabilities, iterations=3, axes=(-2, -1), where=None):
    """Every window as an explicit set of shifted copies."""
    v = np.asarray(probabilities, float)
    inside = np.ones(v.shape, bool) if where is None else np.broadcast_to(where, v.shape)
    axes = [a % v.ndim for a in axes]
    ones = lambda a, step: tuple(step if i == a else 0 for i in range(v.ndim))
    cross = [(0,) * v.ndim, *(ones(a, step) for a in axes for step in (-1, 1))]
    cube = list(itertools.product(*((-1, 0, 1) if i in axes else (0,) for i in range(v.ndim))))

    def extreme(v, offsets, outside, choose):
        padded = np.pad(np.where(inside, v, outside), 1, constant_values=outside)
        window = [
            padded[tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, v.shape, strict=True))]
            for offset in offsets
        ]
        return np.where(inside, choose(window, axis=0), 0)

    skeleton = np.zeros(v.shape)
    for _ in range(iterations + 1):
        eroded = extreme(v, cross, np.inf, np.min)
        ridge = np.maximum(v - extreme(eroded, cube, -np.inf, np.max), 0)
        skeleton = skeleton + np.maximum(ridge - skeleton * ridge, 0)
        v = eroded
    return np.where(inside, skeleton, 0)


def _cldice(
    prediction,
    target,
    where=None,
    weights=None,
    class_weights=None,
    reduction="mean",
    axis=-1,
    activation="auto",
    iterations=3,
    smooth=1.0,
    per_image=True,
    include_background=True,
    absent="score",
):
    p, y = probabilities_of(prediction, target, activation, axis)
    inside = pixel_weight(where, None, p, axis) > 0
    v = pixel_weight(where, weights, p, axis)
    sums = tuple(range(1 if per_image else 0, p.ndim - 1))
    total = lambda x: (v * x).sum(sums)
    spatial = tuple(range(1, p.ndim - 1))
    of_p, of_y = (_skeleton(x, iterations, spatial, inside) for x in (p, y))
    precision = (total(of_p * y) + smooth) / (total(of_p) + smooth)
    sensitivity = (total(of_y * p) + smooth) / (total(of_y) + smooth)
    values = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    part = total(np.ones(p.shape)) > 0
    if absent == "skip":
        part &= total(y) > 0
    return mean_over_classes(
        values, part, class_weights, reduction, axis is None, include_background
    )


# Not a hard target: its plateaus are kinks.
_SOFT = binary(smooth=0.1)._replace(target=np.random.default_rng(9).random((4, 3, 2)))
_NUMBERS = np.random.default_rng(0).random((2, 5, 6, 4))
_INVALID = (
    Invalid((PIXELS, PIXEL_IDS), {"iterations": -1}, ValueError, ("iterations", "-1", "at least")),
    Invalid((PIXELS, PIXEL_IDS), {"iterations": 1.5}, TypeError, ("iterations", "1.5", "integer")),
    Invalid((PIXELS, PIXEL_IDS), {"iterations": True}, TypeError, ("iterations", "True")),
)

CASES = {
    "cldice": Case(
        _cldice,
        (
            ids(),
            ids("channels", axis=1, include_background=False, iterations=1),
            elements("pooled", per_image=False, iterations=0),
            _SOFT,
            probabilities(iterations=2),
        ),
        (
            *invalid_segmentations(),
            *_INVALID,
            Invalid((PIXELS, PIXEL_IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'")),
        ),
        {"smooth": (0.5, -1.0)},
        "kinked",
        27.0,
    ),
}

_IDS = ids()
_SKELETON = np.random.default_rng(1).random(_IDS.target.shape) < 0.6


def _skeleton_recall(prediction, target, skeleton, smooth=1.0, per_image=True, **options):
    def loss(total, p, y):
        s = skeleton if skeleton.ndim == p.ndim else skeleton[..., None] * y
        return 1 - (total(p * s) + smooth) / (total(s) + smooth)

    return segmentation(loss)(prediction, target, per_image=per_image, **options)


def _recall_call(sample, skeleton, **options):
    return (sample.prediction, sample.target, skeleton), sample.options | options


_BINARY = binary()

HELPERS = {
    "skeleton_recall": Helper(
        _skeleton_recall,
        (
            _recall_call(_IDS, _SKELETON),
            _recall_call(_IDS, np.random.default_rng(2).random(_IDS.prediction.shape)),
            _recall_call(_IDS, _SKELETON, per_image=False, include_background=False),
            _recall_call(_IDS, _SKELETON, absent="skip", smooth=0.5, reduction="none"),
            _recall_call(_IDS, _SKELETON, where=_SKELETON[::-1], weights=1.0 + _SKELETON),
            _recall_call(_BINARY, _BINARY.target * _SKELETON),
        ),
        (
            *(
                call._replace(arguments=(*call.arguments, PIXEL_IDS))
                for call in invalid_segmentations()
                if len(call.arguments) == 2 and np.shape(call.arguments[0]) == PIXELS.shape
            ),
            Invalid(
                (PIXELS, PIXEL_IDS, np.zeros((2, 3))),
                {},
                ValueError,
                ("skeleton", r"\(2, 3\)", r"\(2, 4\)", "ids", r"\(2, 4, 3\)"),
            ),
        ),
    ),
    "soft_skeleton": Helper(
        _skeleton,
        (
            ((_NUMBERS,), {}),
            ((_NUMBERS,), {"iterations": 1, "axes": (1, 2)}),
            ((_NUMBERS,), {"iterations": 2, "axes": (1, 2, 3)}),
            ((_NUMBERS,), {"iterations": 0, "axes": (-1,)}),
            ((_NUMBERS > 0.3,), {"axes": (1, 2)}),
            ((_NUMBERS,), {"axes": (1, 2), "where": _NUMBERS[..., :1] < 0.8}),
        ),
        (
            Invalid((PIXEL_IDS,), {}, TypeError, ("probabilities", "int", "floating")),
            Invalid((PIXELS,), {"axes": (1, 1)}, ValueError, ("axes", "different")),
            Invalid((PIXELS,), {"axes": (3,)}, ValueError, ("axes", "3")),
            Invalid((PIXELS,), {"iterations": -1}, ValueError, ("iterations", "-1")),
            Invalid((PIXELS,), {"iterations": 1.0}, TypeError, ("iterations", "1.0")),
            Invalid((PIXELS,), {"where": PIXELS}, TypeError, ("where", "float", "bool")),
            Invalid((PIXELS,), {"where": np.ones(3, bool)}, ValueError, ("where", "rank")),
        ),
    ),
}


def test_skeleton_recall_has_its_derivatives_and_leaks_nothing():
    """By prediction and skeleton; what is masked, and a bad id elsewhere, reach nothing."""
    x, y, s = (jnp.asarray(a) for a in (_IDS.prediction, _IDS.target, 0.9 * _SKELETON))
    loss = jax.jit(lambda x, s, y, where: jaxloss.skeleton_recall(x, y, s, where=where))
    where = jnp.asarray(_SKELETON[::-1])
    with jax.enable_x64(True):
        data = [jnp.asarray(a, jnp.float64) for a in (_IDS.prediction, 0.9 * _SKELETON)]
        jax.test_util.check_grads(lambda x, s: loss(x, s, y, where), data, 2, rtol=1e-6)
    spoiled = jnp.where(where[..., None], x, jnp.nan), jnp.where(where, s, jnp.nan)
    run = jax.jit(jax.value_and_grad(loss, (0, 1)))
    for one, other in zip(
        jax.tree.leaves(run(x, s, y, where)), jax.tree.leaves(run(*spoiled, y, where)), strict=True
    ):
        np.testing.assert_allclose(one, other, 1e-6)
    values = jaxloss.skeleton_recall(x, y.at[0, 0, 0].set(9), s, reduction="none")
    np.testing.assert_array_equal(np.isnan(values).all(-1), np.arange(len(x)) == 0)


def test_skeleton_recall_of_what_is_found_is_exactly_0():
    tube, broken = _tube()
    line = np.zeros_like(tube)
    line[:, 4, :] = 1
    recall = functools.partial(jaxloss.skeleton_recall, axis=None, activation=None)
    assert recall(tube, tube, line) == 0
    np.testing.assert_allclose(recall(broken, tube, line), 2 / 17, 1e-6)
    assert recall(tube, 0 * tube, 0 * line, smooth=0) == 1


def _tube():
    """A horizontal tube three wide, and the same with a gap."""
    tube = np.zeros((1, 9, 16), np.float32)
    tube[:, 3:6, :] = 1
    broken = tube.copy()
    broken[:, :, 7:9] = 0
    return tube, broken


on_masks = functools.partial(jaxloss.cldice, axis=None, activation=None)


def test_the_skeleton_of_a_tube_is_its_middle_line():
    tube, _ = _tube()
    line = np.zeros_like(tube)
    line[:, 4, :] = 1
    np.testing.assert_array_equal(jaxloss.soft_skeleton(tube), line)
    np.testing.assert_array_equal(jaxloss.soft_skeleton(tube[..., None], axes=(1, 2))[..., 0], line)


def test_the_skeleton_of_a_mask_is_lantuejouls():
    """Union over n of erosion^n minus its opening, by SciPy, away from the border."""
    mask = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(24, 24)), 2) > 0
    mask[:5] = mask[-5:] = mask[:, :5] = mask[:, -5:] = False
    cross, cube = ndimage.generate_binary_structure(2, 1), np.ones((3, 3))
    skeleton, eroded = np.zeros_like(mask), mask
    for _ in range(4):
        smaller = ndimage.binary_erosion(eroded, cross)
        skeleton |= eroded & ~ndimage.binary_dilation(smaller, cube)
        eroded = smaller
    np.testing.assert_array_equal(jaxloss.soft_skeleton(mask), skeleton.astype(np.float32))


def test_perfect_masks_cost_nothing_and_a_gap_costs_more_than_its_area():
    tube, broken = _tube()
    assert on_masks(tube, tube) == 0
    assert on_masks(0 * tube, 0 * tube) == 0
    # Precision 1, sensitivity (14 + 1) / (16 + 1).
    np.testing.assert_allclose(on_masks(broken, tube), 1 - 2 * 15 / (15 + 17), 1e-6)
    thinner = tube.copy()
    thinner[:, 3] = 0
    lost = jaxloss.dice(thinner, tube, axis=None, activation=None)
    assert lost > jaxloss.dice(broken, tube, axis=None, activation=None)
    assert on_masks(thinner, tube) < on_masks(broken, tube)


@pytest.mark.parametrize("smooth, expected", [(0.0, 1.0), (1.0, 1 - 2 / (1 + 17))])
def test_an_empty_prediction(smooth, expected):
    tube, _ = _tube()
    value, gradient = jax.value_and_grad(on_masks)(0 * tube, tube, smooth=smooth)
    np.testing.assert_allclose(value, expected, 1e-6)
    assert jnp.isfinite(gradient).all()


def test_masked_pixels_are_outside_the_image():
    """Cutting an image and masking it are the same."""
    rng = np.random.default_rng(5)
    p, y = rng.random((2, 1, 8, 9)).astype(np.float32)
    y = np.round(y)
    where = np.zeros((1, 8, 9), bool)
    where[:, 2:7, 1:8] = True
    value, gradient = jax.value_and_grad(on_masks)(p, y, where=where)
    cut = (slice(None), slice(2, 7), slice(1, 8))
    expected, slope = jax.value_and_grad(on_masks)(p[cut], y[cut])
    np.testing.assert_allclose(value, expected, 1e-6)
    np.testing.assert_allclose(gradient[cut], slope, 1e-5, 1e-7)


def test_pixels_of_weight_zero_stay_in_the_image():
    tube, broken = _tube()
    weights = np.ones_like(tube)
    weights[:, :3] = 0
    np.testing.assert_allclose(
        on_masks(broken, tube, weights=weights), on_masks(broken, tube), 1e-6
    )


def test_equal_extremes_share_the_derivative():
    """On a plateau the minimum of a window and its maximum pass all of the derivative on."""
    total = lambda v: jaxloss.soft_skeleton(v, iterations=0).sum()
    direction = jnp.ones((6, 6))
    assert jax.jvp(total, (0.5 * direction,), (direction,))[1] == 0
    line = jnp.zeros((5, 6)).at[2].set(0.5)
    gradient = jax.grad(lambda v: jaxloss.soft_skeleton(v).sum())(line)
    np.testing.assert_allclose((gradient * line).sum(), 3, 1e-5)


def test_monai_single_channel_has_a_gradient():
    """MONAI's SoftclDiceLoss drops the only channel: loss 0 and gradient 0."""
    tube, broken = _tube()
    x = 4 * (2 * broken - 1)[..., None]
    value, gradient = jax.value_and_grad(jaxloss.cldice)(x, tube[..., None])
    assert value > 0.01
    assert gradient.any()
