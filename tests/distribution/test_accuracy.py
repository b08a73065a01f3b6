"""How many units in the last place the losses are off, against 50-digit numbers.

The points are written once: scores over many decades of either sign. Every loss is compared at all
of them with its formula in extended precision, written so that nothing cancels; that formula in
turn with its textbook form in 120 digits, at some of the points, the extremes among them. A loss
may be off by a number of ulp times its condition number,

    max(1, sum over its inputs of |x f'(x) / f(x)|)

which is how many ulp the exact loss moves when its inputs move by one; the derivatives are
numerical, of the formula in extended precision.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxloss
from tests.compiling import usual_jit
from tests.distribution.test_bi_tempered import exact as exact_bi_tempered

COUNT, CHECKED = 20_000, 150
SMALLEST = 2.0**-126  # below it float32 loses digits one by one
RNG = np.random.default_rng(0)


def _points():
    """Scores from 1e-6 to 85 of either sign, half of them by decades, half evenly; and 0."""
    decades = 10 ** RNG.uniform(-6, np.log10(85), COUNT // 2)
    size = np.concatenate([decades, RNG.uniform(0, 85, COUNT // 2)])
    size[:4] = 0, 85, 85, 1e-6
    sign = np.where(np.arange(COUNT) % 2, 1, -1)
    return (size * sign).astype(np.float32)


SCORE = _points()
OTHERS = (2 * RNG.normal(size=(2, COUNT))).astype(np.float32)  # the logits beside the target's
HARD = (np.arange(COUNT) // 2 % 2).astype(np.float32)
SOFT = RNG.uniform(0.01, 0.99, COUNT).astype(np.float32)
SUBSET = np.unique(np.concatenate([np.arange(8), RNG.integers(0, COUNT, CHECKED)]))


class Extended:
    """Formulas on arrays in extended precision, in the form that does not cancel."""

    exp, log, expm1, where = np.exp, np.log, np.expm1, np.where
    maximum, cos, arccos = np.maximum, np.cos, np.arccos
    log1m = staticmethod(lambda x: np.log1p(-x))
    number = staticmethod(lambda x: np.asarray(x, np.longdouble))

    @staticmethod
    def pair(x):
        """`-log p` and `-log(1 - p)`."""
        return np.logaddexp(0, -x), np.logaddexp(0, x)

    @staticmethod
    def odds(z, *others):
        return z - functools.reduce(np.logaddexp, others)


class Digits:
    """Textbook formulas on single numbers."""

    exp, log, maximum, cos, arccos = mpmath.exp, mpmath.log, max, mpmath.cos, mpmath.acos
    log1m = staticmethod(lambda x: mpmath.log(1 - x))
    expm1 = staticmethod(lambda x: mpmath.exp(x) - 1)
    where = staticmethod(lambda condition, a, b: a if condition else b)
    number = staticmethod(lambda x: mpmath.mpf(float(x)))

    @staticmethod
    def pair(x):
        p = 1 / (1 + mpmath.exp(-x))
        return -mpmath.log(p), -mpmath.log(1 - p)

    @staticmethod
    def odds(z, *others):
        return z - mpmath.log(sum(mpmath.exp(x) for x in others))


class Row(NamedTuple):
    """One loss.

    Attributes:
      formula: `formula(lib, *inputs)`, the exact value.
      call: From the inputs to the loss of each point.
      inputs: float32 arrays of which the loss is a function.
      ulp: The bound.
      condition: `condition(*inputs)` in place of the numerical one.
      detached: Whether a factor is a constant for the gradient, which so is not that of the value.
    """

    formula: Callable[..., Any]
    call: Callable[..., jax.Array]
    inputs: tuple[np.ndarray, ...]
    ulp: float
    condition: Callable[..., np.ndarray] | None = None
    detached: bool = False


def _softmax(name, cost, ulp=32.0, condition=None, **options):
    """A loss of the target's log-odds, by `cost(lib, -log p, -log(1 - p))`; two other classes."""

    def formula(lib, *z):
        return cost(lib, *lib.pair(lib.odds(*z)))

    def call(*z):
        labels = jnp.zeros(z[0].shape, int)
        return getattr(jaxloss, name)(jnp.stack(z, -1), labels, reduction="none", **options)

    return Row(formula, call, (SCORE, *OTHERS), ulp, condition)


def _sigmoid(name, cost, ulp=32.0, condition=None, soft=False, **options):
    """A loss of a logit and a target, by `cost(lib, x, y)`."""

    def call(x, y):
        return getattr(jaxloss, name)(x, y, axis=None, reduction="none", **options)

    return Row(cost, call, (SCORE, SOFT if soft else HARD), ulp, condition)


def _entropy(lib, x, y):
    hit, miss = lib.pair(x)
    return y * hit + (1 - y) * miss


def _focal(lib, x, y):
    hit, miss = lib.pair(x)
    return lib.where(y == 1, hit * lib.exp(-2 * miss) / 4, 3 * miss * lib.exp(-2 * hit) / 4)


def _reduced(lib, x, y):
    hit, miss = lib.pair(lib.where(y == 1, x, -x))
    weight = lib.where(x * (2 * y - 1) < 0, 1, 4 * lib.exp(-2 * miss))
    return weight * hit


def _varifocal(lib, x, y):
    hit, miss = lib.pair(x)
    return lib.where(y == 1, hit, 0.75 * lib.exp(-2 * hit) * miss)


def _gaussian(lib, x, y):
    hit, miss = lib.pair(x)
    negative = (1 - y) ** 4 * lib.exp(-2 * hit) * miss
    return lib.where(y == 1, lib.exp(-2 * miss) * hit, negative)


def _quality(lib, x, y):
    return (y - lib.exp(-lib.pair(x)[0])) ** 2 * _entropy(lib, x, y)


def _divergence(name, terms):
    """Two classes, whose target is an input too."""

    def formula(lib, x, y):
        hit, miss = lib.pair(x)
        total = y + _rest(lib, y)
        return terms(lib, hit, y / total) + terms(lib, miss, _rest(lib, y) / total)

    def _rest(lib, y):  # the second target as the loss sees it, rounded
        return lib.number(np.float32(1) - np.asarray(y, np.float32))

    def call(x, y):
        z, targets = (jnp.stack([a, b], -1) for a, b in ((x, jnp.zeros_like(x)), (y, 1 - y)))
        return getattr(jaxloss, name)(z, targets, reduction="none")

    return Row(formula, call, (SCORE, SOFT), 32)


def _js_terms(lib, cost, y):
    p = lib.exp(-cost)
    return (y * lib.log(2 * y / (y + p)) + p * (lib.log(2 / (y + p)) - cost)) / 2


def _logits(name, formula, ulp=32.0, condition=None, inputs=None, detached=False, **options):
    """A loss of three logits, of which the first is the target's, by `formula(lib, *logits)`."""

    def call(*z):
        labels = jnp.zeros(z[0].shape, int)
        return getattr(jaxloss, name)(jnp.stack(z, -1), labels, reduction="none", **options)

    return Row(formula, call, inputs or (SCORE, *OTHERS), ulp, condition, detached)


def _hit(lib, *z):
    """`-log p` of the first logit."""
    return lib.pair(lib.odds(*z))[0]


COUNTS = 1000, 10, 100
COSINES = tuple((0.999 * np.tanh(x / 4)).astype(np.float32) for x in (SCORE, *OTHERS))
QUARTER = (SCORE / 4, *OTHERS)


def _smoothed(lib, *z):
    costs = [_hit(lib, z[i], *z[:i], *z[i + 1 :]) for i in range(3)]
    return lib.number(1 - 0.25) * costs[0] + sum(costs) / 12


def _adjusted(lib, *z):
    return _hit(lib, *(x + lib.log(lib.number(n) / 1110) for x, n in zip(z, COUNTS, strict=True)))


def _ldam(lib, target, *others):
    margin = lib.number(0.5) * (lib.number(10) / COUNTS[0]) ** lib.number(0.25)
    return _hit(lib, 4 * (target - margin), *(4 * z for z in others))


def _seesaw(lib, target, *others):
    def lifted(z, rest, count):
        fewer = lib.number(np.float32(0.8)) * lib.log(lib.number(count) / COUNTS[0])
        ahead = floor - _hit(lib, z, target, rest)
        return z + fewer + 2 * lib.maximum(ahead, 0)

    floor = -lib.maximum(-_hit(lib, target, *others), lib.log(lib.number(np.float32(0.01))))
    first, second = others
    lifted_others = lifted(first, second, COUNTS[1]), lifted(second, first, COUNTS[2])
    return _hit(lib, target, *lifted_others)


def _arcface(lib, target, *others):
    turned = lib.cos(lib.arccos(target) + lib.number(0.5))
    return _hit(lib, 8 * turned, *(8 * z for z in others))


def _asymmetric(lib, x, y):
    hit, miss = lib.pair(x)
    shifted = lib.maximum(lib.exp(-hit) - lib.number(np.float32(0.05)), 0)
    return lib.where(y == 1, lib.exp(-miss) * hit, -(shifted**4) * lib.log1m(shifted))


def _harmony(lib, x, y):
    return _entropy(lib, x, y) * lib.where(x * (2 * y - 1) > 0, 0.5, 1)


def _beside_mirrors(x, y):
    """Two bins, right and wrong, that hold as much: each point has its mirror image beside it."""
    n = x.shape[0]
    previous = jnp.array([3.0 * n, n])  # with the n of this call: 2n and n
    both = jnp.concatenate([x, -x]), jnp.concatenate([y, y])
    options = {"bins": 2, "momentum": 0.5, "counts": previous, "axis": None}
    return jaxloss.ghm(*both, reduction="none", **options)[0][:n]


def _between_bins(lib, *z):
    return 3 * _hit(lib, *z) / 4 + _hit(lib, z[1], z[0], z[2]) / 4


def _softmax_condition(scale):
    """`max(1, scale |d|)` with the target margin `d`."""
    return lambda *z: np.maximum(1, scale * np.abs(Extended.odds(*z)))


ROWS = {
    "cross_entropy": _softmax("cross_entropy", lambda lib, h, m: h, 4, _softmax_condition(1)),
    "binary_cross_entropy": _sigmoid("binary_cross_entropy", _entropy, 4, lambda x, y: 1),
    "softmax_focal": _softmax(
        "focal", lambda lib, h, m: h * lib.exp(-2 * m), 16, _softmax_condition(2)
    ),
    "sigmoid_focal": _sigmoid(
        "focal", _focal, 16, lambda x, y: np.maximum(1, 2 * np.abs(x)), alpha=0.25
    ),
    "weighted_binary_cross_entropy": _sigmoid(
        "weighted_binary_cross_entropy",
        lambda lib, x, y: _entropy(lib, x, y) * lib.where(y == 1, 3, 1),
        beta=3.0,
    ),
    "balanced_binary_cross_entropy": _sigmoid(
        "balanced_binary_cross_entropy",
        lambda lib, x, y: _entropy(lib, x, y) * lib.where(y == 1, 0.25, 0.75),
        beta=0.25,
    ),
    "reduced_focal": _sigmoid("reduced_focal", _reduced),
    "quality_focal": _sigmoid("quality_focal", _quality, soft=True),
    "varifocal": _sigmoid("varifocal", _varifocal),
    "gaussian_focal": _sigmoid("gaussian_focal", _gaussian),
    "gaussian_focal, soft": _sigmoid("gaussian_focal", _gaussian, soft=True),
    "poly1": _softmax("poly1", lambda lib, h, m: h + 2 * lib.exp(-m)),
    "generalized_cross_entropy": _softmax(
        "generalized_cross_entropy", lambda lib, h, m: -lib.expm1(-h / 2) * 2, q=0.5
    ),
    "symmetric_cross_entropy": _softmax(
        "symmetric_cross_entropy", lambda lib, h, m: h / 8 + 4 * lib.exp(-m), alpha=0.125
    ),
    "cross_entropy, smoothed": _logits("cross_entropy", _smoothed, label_smoothing=0.25),
    "top_k_cross_entropy": _logits(
        "top_k_cross_entropy", _hit, 4, _softmax_condition(1), fraction=1.0
    ),
    "logit_adjusted": _logits(
        "logit_adjusted", _adjusted, inputs=QUARTER, priors=np.array(COUNTS) / 1110
    ),
    "ldam": _logits(
        "ldam", _ldam, inputs=(SCORE / 8, *OTHERS), class_counts=np.array(COUNTS), scale=4.0
    ),
    "seesaw": _logits(
        "seesaw", _seesaw, inputs=QUARTER, detached=True, class_counts=np.array(COUNTS)
    ),
    "cosface": _logits(
        "cosface",
        lambda lib, t, *others: _hit(lib, 8 * (t - lib.number(0.25)), *(8 * z for z in others)),
        inputs=COSINES,
        scale=8.0,
        margin=0.25,
    ),
    "arcface": _logits("arcface", _arcface, inputs=COSINES, scale=8.0),
    "multiclass_hinge": _logits(
        "multiclass_hinge",
        lambda lib, t, a, b: lib.maximum(lib.maximum(a, b) + 1 - t, 0),
    ),
    "hinge": _sigmoid("hinge", lambda lib, x, y: lib.maximum(1 - x * (2 * y - 1), 0)),
    "squared_hinge": _sigmoid(
        "squared_hinge", lambda lib, x, y: lib.maximum(1 - x * (2 * y - 1), 0) ** 2
    ),
    "asymmetric": _sigmoid("asymmetric", _asymmetric)._replace(detached=True),
    "distribution_focal": Row(
        _between_bins,
        lambda *z: jaxloss.distribution_focal(
            jnp.stack(z, -1), jnp.full(z[0].shape, 0.25), reduction="none"
        ),
        (SCORE, *OTHERS),
        32,
    ),
    "kl_divergence": _divergence("kl_divergence", lambda lib, cost, y: y * (lib.log(y) + cost)),
    "js_divergence": _divergence("js_divergence", _js_terms),
    "nll": _logits("nll", lambda lib, z, *others: -1.5 * z, 1, class_weights=(1.5, 1.0, 1.0)),
    "ghm": Row(_harmony, _beside_mirrors, (np.where(SCORE == 0, np.float32(1), SCORE), HARD), 4),
}


def _slope(function, inputs, i):
    """The derivative by one input, by differences of the fourth order."""
    h = 1e-4
    at = lambda k: function(*inputs[:i], inputs[i] + k * h, *inputs[i + 1 :])
    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)


def _sensitivity(function, inputs):
    """The condition number of a function. Hard targets have no neighbours and are left out."""
    moving = [i for i, x in enumerate(inputs) if not np.isin(x, (0, 1)).all()]
    total = sum(np.abs(inputs[i] * _slope(function, inputs, i)) for i in moving)
    value = np.abs(function(*inputs))
    return np.maximum(1, total / np.where(value == 0, np.inf, value))


def _extended(row, at=slice(None)):
    """The exact loss as a function, and its inputs at some of the points."""
    inputs = [Extended.number(x[at]) for x in row.inputs]
    return functools.partial(row.formula, Extended), inputs


def _condition(row, at=slice(None)):
    function, inputs = _extended(row, at)
    return row.condition(*inputs) if row.condition else _sensitivity(function, inputs)


def _ulps(value, exact):
    """The distance in units in the last place; 0 where both underflow."""
    tiny = np.abs(exact) < SMALLEST
    distance = np.abs(np.asarray(value, np.longdouble) - exact)
    return np.where(
        tiny & (np.abs(value) <= 2 * SMALLEST),
        0,
        distance / np.spacing(np.maximum(np.abs(exact), SMALLEST).astype(np.float32)),
    )


def _report(name, what, row, at, value, exact, condition):
    """Prints the worst point, and requires all to be within the bound."""
    ulps = _ulps(value, exact)
    relative = ulps / condition
    worst = int(np.argmax(relative))
    print(
        f"\n{name:30} {what:8} {ulps.max():12.1f} ulp, {relative[worst]:9.2f} times the condition,"
        f" bound {row.ulp:g}, at {[float(x[at][worst]) for x in row.inputs]}",
        end="",
    )
    assert np.isfinite(ulps).all()
    assert relative[worst] <= row.ulp


def _compare(name, at):
    row = ROWS[name]
    function, inputs = _extended(row, at)
    value = usual_jit(row.call)(*(x[at] for x in row.inputs))
    _report(name, "value", row, at, value, function(*inputs), _condition(row, at))


# Points whose sum over the other classes has a term below the smallest number of float32.
UNDERFLOW = SCORE - OTHERS.min(0) > -np.log(SMALLEST)


@pytest.mark.parametrize("name", ROWS)
def test_ulps(name):
    """Each value within its bound times its condition; `pytest -s` prints the measured table."""
    softmax = len(ROWS[name].inputs) == 3
    _compare(name, ~UNDERFLOW if softmax else np.full(COUNT, True))


@pytest.mark.parametrize(
    "name",
    ["cross_entropy", "poly1", "generalized_cross_entropy", "symmetric_cross_entropy"],
)
def test_where_a_term_underflows(name):
    """A processor flushes terms below the smallest number to 0: the loss is off by no more.

    There are two of them, and a loss rises at most 4.1 times as fast as their sum.
    """
    row = ROWS[name]
    function, inputs = _extended(row, UNDERFLOW)
    value = usual_jit(row.call)(*(x[UNDERFLOW] for x in row.inputs))
    assert UNDERFLOW.sum() > 10
    assert (np.abs(np.asarray(value, np.longdouble) - function(*inputs)) <= 8.2 * SMALLEST).all()


GRADED = np.flatnonzero((np.abs(SCORE) > 1e-3) & ~UNDERFLOW)[:4000]  # off the kinks at 0


@pytest.mark.rows(14)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.detached])
def test_ulps_of_gradients(name):
    """The derivative by the score, within 32 ulp times its own condition number.

    Left out are the points at which it is not known, because the differences have rounding errors
    of 1e-14 of the loss, or within 64 times the smallest number, where factors of it underflow.
    """
    row = ROWS[name]._replace(ulp=32)
    function, inputs = _extended(row, GRADED)
    slope = np.abs(_slope(function, inputs, 0))
    at = GRADED[(slope > 1e-5 * np.abs(function(*inputs))) & (slope > 64 * SMALLEST)]
    assert at.size > 1000
    function, inputs = _extended(row, at)
    slope = lambda *inputs: _slope(function, inputs, 0)
    gradient = usual_jit(jax.grad(lambda *z: row.call(*z).sum()))(*(x[at] for x in row.inputs))
    condition = _sensitivity(slope, inputs)
    _report(name, "gradient", row, at, gradient, slope(*inputs), condition)


@pytest.mark.parametrize("name", ROWS)
def test_the_formulas_hold_in_many_digits(name):
    """What does not cancel in extended precision equals the textbook in 120 digits."""
    row = ROWS[name]
    function, inputs = _extended(row, SUBSET)
    value, condition = function(*inputs), _condition(row, SUBSET)
    with mpmath.workdps(120):
        for point, found, factor in zip(
            zip(*inputs, strict=True), value, np.broadcast_to(condition, value.shape), strict=True
        ):
            exact = row.formula(Digits, *(Digits.number(x) for x in point))
            error = abs(mpmath.mpf(repr(found).split("'")[1]) - exact)
            assert error <= 1e-13 * float(factor) * abs(exact), (point, found, exact)


def test_ulps_of_bi_tempered():
    """Its 60-digit oracle solves for the normaliser: 200 points, within 16 ulp times `-log p`."""
    at = RNG.integers(0, COUNT, 200)
    z = np.stack([SCORE, *OTHERS], -1)[at]
    value = usual_jit(lambda z: jaxloss.bi_tempered(z, jnp.zeros(200, int), reduction="none"))(z)
    rows = [exact_bi_tempered(x, (1, 0, 0), np.float32(0.8), np.float32(1.2)) for x in z]
    exact, condition = np.array(rows).T
    relative = _ulps(value, exact) / condition
    print(f"\n{'bi_tempered':32} {relative.max():.2f} times -log p", end="")
    assert (relative <= 16).all()
