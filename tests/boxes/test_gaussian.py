"""Rotated boxes as normal distributions: oracles, cases, closed forms and hazards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

import jaxloss
from tests.boxes.rotated_pairs import (
    INVALID,
    B,
    in_blocks,
    random_boxes,
    rotated_pairs,
    shifted_and_renamed,
)
from tests.compiling import quick_jit
from tests.registry import Case, Invalid, reduced


def _covariances(boxes, variance=4):
    c, s = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    spread = boxes[:, 2:4, None] ** 2 / variance * np.eye(2)
    return turn @ spread @ turn.swapaxes(-1, -2), turn


def _pair(a, b, variance=4):
    apart = (a - b)[:, :2, None]
    return apart, _covariances(a, variance)[0], _covariances(b, variance)[0]


def _trace(matrices):
    return np.trace(matrices, axis1=-2, axis2=-1)


def _quadratic(apart, matrices):
    return (apart.swapaxes(-1, -2) @ np.linalg.solve(matrices, apart))[:, 0, 0]


def _gwd_distance(a, b, normalize=False):
    apart, first, second = _pair(a, b)
    both = [sqrtm(sqrtm(p) @ q @ sqrtm(p)) for p, q in zip(first, second, strict=True)]
    squared = (apart**2).sum((1, 2)) + _trace(first + second - 2 * np.array(both))
    return squared / (np.sqrt((a[:, 2:4] * b[:, 2:4]).prod(-1)) if normalize else 1)


def _kld_distance(a, b):
    apart, first, second = _pair(a, b)
    ratio = np.linalg.det(second) / np.linalg.det(first)
    trace = _trace(np.linalg.solve(second, first))
    return (_quadratic(apart, second) + trace + np.log(ratio)) / 2 - 1


def _bhattacharyya_distance(a, b, variance=4):
    apart, first, second = _pair(a, b, variance)
    mean = (first + second) / 2
    det = np.linalg.det
    volume = det(mean) / np.sqrt(det(first) * det(second))
    return _quadratic(apart, mean) / 8 + np.log(volume) / 2


def _bounded(distance):
    """The oracle of `1 / tau - 1 / (tau + fun(distance))`."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        reduction="mean",
        fun="log1p",
        tau=1.0,
        **options,
    ):
        functions = {"log1p": np.log1p, "sqrt": np.sqrt, "none": lambda d: d}
        changed = functions[fun](distance(prediction, target, **options))
        return reduced(1 / tau - 1 / (tau + changed), reduction, where, weights)

    return oracle


def _probiou(prediction, target, where=None, weights=None, reduction="mean", mode="hellinger"):
    distance = _bhattacharyya_distance(prediction, target, 12)
    values = {"hellinger": np.sqrt(1 - np.exp(-distance)), "bhattacharyya": distance}
    return reduced(values[mode], reduction, where, weights)


def _overlap(a, b):
    """KFIoU: the area of the Kalman-filtered distribution over the union, at most 1/3."""
    _, first, second = _pair(a, b)
    gain = first @ np.linalg.inv(first + second)
    shared = 4 * np.sqrt(np.linalg.det(first - gain @ first))
    return shared / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)


def _kfiou(prediction, target, where=None, weights=None, reduction="mean", fun="linear"):
    k = 3 * _overlap(prediction, target)
    values = {"linear": 1 - k, "exp": np.exp(1 - k) - 1, "log": -np.log(k)}[fun]
    turn = _covariances(target)[1]
    offset = turn.swapaxes(-1, -2) @ (prediction - target)[:, :2, None]
    size = np.abs(offset[..., 0] / target[:, 2:4])
    smooth = np.where(size < 1 / 9, size**2 / (2 / 9), size - 1 / 18)
    return reduced(values + smooth.sum(-1), reduction, where, weights)


def _no_option(option, value, *words):
    return Invalid((B, B), {option: value}, ValueError, (option, repr(value), *words))


_BOUNDED_INVALID = (
    *INVALID,
    _no_option("fun", "log", "'log1p'"),
    _no_option("tau", 0.5, r"\[1, inf\)"),
    _no_option("tau", 0, r"\[1, inf\)"),  # mmrotate's: the bare distance
)
_TAU = {"tau": (1.5, 0.5)}

CASES = {
    "gwd": Case(
        _bounded(_gwd_distance),
        (
            rotated_pairs(),
            rotated_pairs("best", seed=1, fun="sqrt", tau=2.0),
            rotated_pairs("normalized", seed=2, fun="none", normalize=True),
        ),
        _BOUNDED_INVALID,
        _TAU,
        "smooth",
        0.25,
    ),
    "kld": Case(
        _bounded(_kld_distance),
        (
            rotated_pairs(),
            rotated_pairs("sqrt", seed=1, fun="sqrt", tau=2.0),
            rotated_pairs("none", seed=2, fun="none"),
        ),
        _BOUNDED_INVALID,
        _TAU,
        "smooth",
        0.4,
    ),
    "bhattacharyya": Case(
        _bounded(_bhattacharyya_distance),
        (
            rotated_pairs(),
            rotated_pairs("sqrt", seed=1, fun="sqrt", tau=2.0),
            rotated_pairs("none", seed=2, fun="none"),
        ),
        _BOUNDED_INVALID,
        _TAU,
        "smooth",
        0.3,
    ),
    "probiou": Case(
        _probiou,
        (rotated_pairs(), rotated_pairs("bhattacharyya", seed=1, mode="bhattacharyya")),
        (*INVALID, _no_option("mode", "l1", "'hellinger'")),
        {},
        "smooth",
        0.3,
    ),
    "kfiou": Case(
        _kfiou,
        (
            rotated_pairs(),
            rotated_pairs("exp", seed=1, fun="exp"),
            rotated_pairs("log", seed=2, fun="log"),
        ),
        (*INVALID, _no_option("fun", "ln", "'log'")),
        {},
        "smooth",
        1.0,
    ),
}

# One process for all tests here, which share programs.
pytestmark = pytest.mark.xdist_group("rotated boxes")

LOSSES = {
    "gwd": jaxloss.gwd,
    "gwd-normalized": functools.partial(jaxloss.gwd, fun="none", normalize=True),
    "kld": jaxloss.kld,
    "kld-sqrt": functools.partial(jaxloss.kld, fun="sqrt"),
    "kld-none": functools.partial(jaxloss.kld, fun="none"),
    "bhattacharyya": jaxloss.bhattacharyya,
    "probiou": jaxloss.probiou,
    "probiou-bhattacharyya": functools.partial(jaxloss.probiou, mode="bhattacharyya"),
    "kfiou": jaxloss.kfiou,
    "kfiou-log": functools.partial(jaxloss.kfiou, fun="log"),
}


@functools.cache
def _program():
    """Values and gradients by both boxes of all losses, for rows of pairs."""

    @quick_jit
    def run(first, second):
        each = {n: jax.vmap(jax.value_and_grad(f, (0, 1))) for n, f in LOSSES.items()}
        return {name: loss(first, second) for name, loss in each.items()}

    return run


def _rows(first, second):
    return in_blocks(_program(), first, second)


every_loss = pytest.mark.parametrize("name", LOSSES)


def _value(loss, box, target, **options):
    pair = (jnp.array(x, jnp.float32) for x in (box, target))
    return loss(*pair, **options)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_squares_on_one_centre(ratio):
    """Sides 1 and r; the angles of squares do not matter."""
    pair = [0.5, 2, ratio, ratio, 1.2], [0.5, 2, 1, 1, 0.3]
    r2 = ratio**2
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-7)
    close(_value(jaxloss.gwd, *pair), 1 - 1 / (1 + np.log1p((ratio - 1) ** 2 / 2)))
    close(_value(jaxloss.kld, *pair), 1 - 1 / (1 + np.log1p(r2 - 1 - np.log(r2))))
    distance = np.log((1 + r2) / (2 * ratio))
    close(_value(jaxloss.bhattacharyya, *pair, fun="none"), 1 - 1 / (1 + distance))
    close(_value(jaxloss.probiou, *pair), np.sqrt(1 - 2 * ratio / (1 + r2)))
    shared = r2 / (1 + r2)
    close(_value(jaxloss.kfiou, *pair, fun="log"), -np.log(3 * shared / (1 + r2 - shared)))


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_one_box_moved_along_its_width(angle):
    w, h, d = 4.0, 1.0, 2.0
    pair = [1 + d * np.cos(angle), d * np.sin(angle), w, h, angle], [1, 0, w, h, angle]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    close(_value(jaxloss.gwd, *pair, fun="none"), 1 - 1 / (1 + d**2))
    normalized = d**2 / (w * h)
    close(_value(jaxloss.gwd, *pair, fun="none", normalize=True), 1 - 1 / (1 + normalized))
    close(_value(jaxloss.kld, *pair, fun="none"), 1 - 1 / (1 + 2 * d**2 / w**2))
    close(_value(jaxloss.bhattacharyya, *pair, fun="none"), 1 - 1 / (1 + d**2 / w**2 / 2))
    close(_value(jaxloss.probiou, *pair, mode="bhattacharyya"), 1.5 * d**2 / w**2)
    close(_value(jaxloss.kfiou, *pair), d / w - 1 / 18)


def test_kld_is_the_divergence_of_the_prediction_from_the_target():
    """`KL(prediction || target)`; the authors' code and one of mmrotate's files exchange them."""
    large, small = [0, 0, 4, 2, 0.3], [0, 0, 2, 1, 0.3]
    distance = functools.partial(_value, jaxloss.kld, fun="none")
    to_distance = lambda loss: 1 / (1 - loss) - 1
    np.testing.assert_allclose(to_distance(distance(large, small)), 3 - np.log(4), rtol=1e-5)
    np.testing.assert_allclose(to_distance(distance(small, large)), np.log(4) - 0.75, rtol=1e-5)


@pytest.mark.rows(5)
@every_loss
def test_identical_boxes_cost_nothing_at_any_size(name):
    """Not mmrotate's 0.5 (gwd), 2/3 (kfiou), floor of 1e-6, or the 0.0005 of an epsilon."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([random_boxes(rng, 500) for _ in range(8)])
    rows[:, :4] *= np.repeat(10.0 ** np.arange(-18, 19, 5.14), 500)[:, None]
    rows[::3, 3] *= 1e-4
    value, gradients = _rows(rows, rows)[name]
    np.testing.assert_array_equal(value, 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@every_loss
def test_one_box_has_many_names(name):
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 50), random_boxes(rng, 50)
    value, _ = _rows(a, b)[name]
    renamed = [(other, b) for other in shifted_and_renamed(a)]
    renamed += [(a, other) for other in shifted_and_renamed(b)]
    for pair in renamed:
        other, _ = _rows(*pair)[name]
        np.testing.assert_allclose(other, value, rtol=2e-5, atol=2e-6)


@every_loss
def test_a_renamed_box_costs_a_rounding_of_its_angle(name):
    """`(h, w, a + pi / 2)` against `(w, h, a)`: what an aspect of 5 makes of an error of 2e-7."""
    boxes = random_boxes(np.random.default_rng(2), 50)
    for other in shifted_and_renamed(boxes):
        value, _ = _rows(other, boxes)[name]
        assert value.max() < (1e-5 if name in ("probiou", "kld-sqrt") else 1e-9)


@every_loss
def test_the_angle_of_a_square_has_no_gradient(name):
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 200), random_boxes(rng, 200)
    a[:, 3] = a[:, 2]
    _, gradients = _rows(a, b)[name]
    np.testing.assert_allclose(gradients[0][:, 4], 0, atol=2e-6)
    if not name.startswith("kfiou"):  # whose centres' term has the target's axes
        _, gradients = _rows(b, a)[name]
        np.testing.assert_allclose(gradients[1][:, 4], 0, atol=2e-6)


@every_loss
def test_small_differences_do_not_cancel(name):
    """Boxes that differ by 1e-4, in float32, against the matrices in float64."""
    rng = np.random.default_rng(4)
    b = random_boxes(rng, 200).astype(np.float32)
    a = (b * (1 + 1e-4 * rng.normal(size=b.shape))).astype(np.float32)
    value, _ = _rows(a, b)[name]
    loss, _, option = name.partition("-")
    keywords = getattr(LOSSES[name], "keywords", {})
    with np.errstate(all="raise"):
        expected = CASES[loss].oracle(
            a.astype(float), b.astype(float), reduction="none", **keywords
        )
    # The oracle itself loses 1e-15 of 1 to cancellation.
    np.testing.assert_allclose(value, expected, rtol=3e-5, atol=1e-13)


@every_loss
def test_extreme_pairs_have_finite_values_and_gradients(name):
    """Points, segments, aspects of 1e4 and more, sizes and distances of 1e-18 and 1e18."""
    extents = [0.0, 1e-18, 1e-4, 1.0, 1e18, -2.0]
    rows = [
        (x, 0.5 * x, w, h, angle)
        for x in (0.0, 1.0, 1e18)
        for w in extents
        for h in extents
        for angle in (0.0, 0.4)
    ]
    rows = np.array(rows)
    first, second = np.meshgrid(np.arange(len(rows)), np.arange(0, len(rows), 11))
    first, second = first.ravel(), second.ravel()
    value, gradients = _rows(rows[first], rows[second])[name]
    fits = np.ones(len(value), bool)
    if name in ("probiou-bhattacharyya", "kfiou", "kfiou-log"):
        # Not bounded: a distance of 1e18 in sides of 1e-18.
        sides = np.maximum(np.concatenate([rows[first, 2:4], rows[second, 2:4]], 1), 0).max(1)
        fits = np.abs(rows[first, 0] - rows[second, 0]) < 1e9 * sides
        fits |= np.all(rows[first, :2] == rows[second, :2], -1)
        assert fits.any()
    assert np.isfinite(value[fits]).all()
    assert (value[fits] >= 0).all()
    for gradient in gradients:
        assert np.isfinite(gradient[fits]).all()


@every_loss
def test_distance_is_felt_however_far(name):
    """Except for the Hellinger distance, which ends at 1."""
    far = np.array([[10.0**k, 0, 2, 1, 0.3] for k in (1, 4, 9, 18)])
    value, (gradient, _) = _rows(far, np.tile([[0, 0, 2, 1, 0]], (4, 1)))[name]
    assert (np.diff(value) >= 0).all()
    if name in ("gwd", "kld", "bhattacharyya"):
        assert (np.diff(value) > 0).all()
        assert (gradient[:, 0] > 0).all()
    if name == "probiou":
        np.testing.assert_allclose(value[1:], 1)


@pytest.mark.parametrize("distance", [1e15, 1e25, 1e30])
def test_distances_whose_squares_overflow(distance):
    """`log1p(d)` of a square that float32 does not hold, from its logarithm."""
    pair = [distance, 0, 2, 2, 0], [0, 0, 2, 2, 0]
    log = 2 * np.log(distance)
    for loss, factor in ((jaxloss.kld, 1 / 2), (jaxloss.bhattacharyya, 1 / 8), (jaxloss.gwd, 1)):
        changed = log + np.log(factor)
        np.testing.assert_allclose(_value(loss, *pair), 1 - 1 / (1 + changed), rtol=1e-6)
        gradient = jax.grad(lambda x, loss=loss: _value_of(loss, x, pair[1]))(jnp.array(pair[0]))
        np.testing.assert_allclose(gradient[0], 2 / distance / (1 + changed) ** 2, rtol=3e-5)


def _value_of(loss, box, target):
    return loss(box, jnp.array(target, jnp.float32))


@every_loss
def test_boxes_far_from_the_origin_lose_nothing(name):
    rng = np.random.default_rng(5)
    a, b = (np.round(4 * random_boxes(rng, 100)) / 4 for _ in range(2))
    shift = np.array([2.0**20, -(2.0**20), 0, 0, 0])
    near, far = _rows(a, b)[name], _rows(a + shift, b + shift)[name]
    jax.tree.map(np.testing.assert_array_equal, far, near)


@every_loss
def test_losses_without_a_unit(name):
    if name == "gwd":
        return
    rng = np.random.default_rng(6)
    a, b = random_boxes(rng, 50), random_boxes(rng, 50)
    value, _ = _rows(a, b)[name]
    for scale in (1e-18, 1e-6, 1e6, 1e18):
        factor = np.array([scale] * 4 + [1])
        other, _ = _rows(a * factor, b * factor)[name]
        np.testing.assert_allclose(other, value, rtol=1e-5)


@every_loss
def test_nan_sides_stay_where_they_are(name):
    bad, good = [0, 0, np.nan, 1, 0], [0, 0, 1, 1, 0.2]
    value, gradients = _rows([bad, good, good], [good, bad, good])[name]
    assert np.isnan(value[:2]).all()
    assert value[2] == 0
    assert all(np.isfinite(gradient[2]).all() for gradient in gradients)


@every_loss
def test_a_negative_side_is_none(name):
    target = [0, 0, 1, 1, 0.2]
    negative, nothing = [1, 0, -2, 1, 0.3], [1, 0, 0, 1, 0.3]
    value, (gradient, _) = _rows([negative, nothing], [target, target])[name]
    assert value[0] == value[1]
    assert gradient[0, 2] == 0


@pytest.mark.slow
def test_second_derivatives_are_finite():
    """At identical boxes the root and the Hellinger distance have a kink, with derivative 0."""
    rows = np.array(
        [[0, 0, 2, 1, 0.3], [0, 0, 2, 1, 0], [1e6, 0, 2, 1, 0], [0, 0, 0, 1, 0]],
        np.float32,
    )
    targets = np.array([[1, 0, 1, 1, 0.2], *rows[[1, 1, 1]]], np.float32)
    slopes = np.random.default_rng(7).normal(size=rows.shape).astype(np.float32)

    def curvature(loss):
        def of_one(box, target, slope):
            gradient = jax.grad(lambda box: loss(box, target))
            return jax.jvp(gradient, (box,), (slope,))[1]

        return jax.vmap(of_one)

    run = quick_jit(lambda *rows: {n: curvature(LOSSES[n])(*rows) for n in CASES})
    for name, value in run(rows, targets, slopes).items():
        assert np.isfinite(value).all(), name


@pytest.mark.parametrize("name", ["gwd", "kld", "bhattacharyya"])
def test_tau_keeps_a_perfect_prediction_at_zero(name):
    """The papers' `1 - 1 / (tau + fun)` leaves 1 - 1 / tau."""
    sample = rotated_pairs()
    pair = [jnp.asarray(x, jnp.float32) for x in (sample.prediction, sample.target)]
    loss = functools.partial(getattr(jaxloss, name), reduction="none")
    run = quick_jit(lambda *pair, tau: (loss(*pair, tau=tau), loss(pair[1], pair[1], tau=tau)))
    plain = 1 / (1 - run(*pair, tau=1.0)[0]) - 1
    for tau in (1.0, 2.0, 10.0):
        value, perfect = run(*pair, tau=tau)
        papers = 1 - 1 / (tau + plain)
        np.testing.assert_allclose(value, papers - (1 - 1 / tau), rtol=1e-4)
        np.testing.assert_array_equal(perfect, 0)
