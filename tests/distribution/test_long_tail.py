"""Losses for long-tailed classes: oracles, cases, closed forms and classes without samples."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import jaxloss
from tests.oracles import IDS, X, competing, invalid_classifications, out_of_range
from tests.registry import Case, Invalid, dense, ids, soft

COUNTS = np.array([500, 20, 90])


def _logit_adjusted_cost(logits, axis, priors, tau=1.0):
    x = np.moveaxis(logits, axis, -1)
    x = x + tau * np.log(np.asarray(priors, float) / np.sum(priors, dtype=float))
    return -np.moveaxis(log_softmax(x, -1), -1, axis), 0.0


def _ldam_logits(x, c, class_counts, max_margin=0.5, scale=30.0):
    margins = 1 / np.sqrt(np.sqrt(np.asarray(class_counts, float)))
    margins = margins * max_margin / margins.max()
    return scale * (x - margins[c] * np.eye(x.shape[-1])[c])


def _seesaw_logits(x, c, class_counts, p=0.8, q=2.0):
    counts = np.maximum(np.asarray(class_counts, float), 1)
    s = softmax(x, -1)
    mitigation = np.minimum(1, (counts / counts[c]) ** p)
    compensation = np.maximum(1, s / np.maximum(s[..., c : c + 1], 0.01)) ** q
    factor = np.where(np.arange(x.shape[-1]) == c, 1, mitigation * compensation)
    return x + np.log(factor)


def _each_class(changed, logits, axis, **options):
    """The logits as class `c` changes them while it is the target, `c` last."""
    x = np.moveaxis(logits, axis, -1)
    return np.stack([changed(x, c, **options) for c in range(x.shape[-1])], -1)


def _cost(changed):
    """The cross-entropy of every class as the target."""

    def cost(logits, axis, **options):
        log_p = log_softmax(_each_class(changed, logits, axis, **options), -2)
        return -np.moveaxis(np.diagonal(log_p, axis1=-2, axis2=-1), -1, axis), 0.0

    return cost


def _seesaw_gradient(prediction, target, axis=-1, label_smoothing=0.0, **options):
    """Of the sum, the factors held constant."""
    y = np.moveaxis(dense(target, prediction, axis), axis, -1)
    classes = prediction.shape[axis]
    t = (1 - label_smoothing) * y + label_smoothing / classes
    p = softmax(_each_class(_seesaw_logits, prediction, axis, **options), -2)
    return np.moveaxis(((p - np.eye(classes)) * t[..., None, :]).sum(-1), -1, axis)


def _invalid(argument, *parameters):
    """The common invalid calls with the counts given, and those of the counts themselves."""
    common = (
        *invalid_classifications("logits"),
        *out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1)),
        *out_of_range(*parameters),
    )
    single = "single class"  # there one number fits
    given = tuple(
        call._replace(options={argument: [1] if single in call.words else [3, 2, 1]} | call.options)
        for call in common
    )
    wrong = (
        ([3, 2], (argument, r"\(2,\)", r"\(3,\)")),
        (2.0, (argument, r"\(\)", r"\(3,\)")),
        ([3, 2, -1], (argument, "-1", "number in")),
        (np.array([3, 2, np.inf]), (argument, "inf", "number in")),
        (np.zeros(3), (argument, "above 0")),
        (jnp.zeros(3, int), (argument, "above 0")),
    )
    return given + tuple(
        Invalid((X, IDS), {argument: value}, ValueError, words) for value, words in wrong
    )


_SMOOTHING = {"label_smoothing": (0.1, 1.5)}

CASES = {
    "ldam": Case(
        competing(_cost(_ldam_logits)),
        (
            ids(class_counts=COUNTS, scale=3.0),
            ids("default", axis=1, class_counts=COUNTS),
            soft("smoothed", class_counts=COUNTS, scale=2.0, label_smoothing=0.1),
        ),
        _invalid("class_counts", ("max_margin", -0.1), ("scale", 0.0), ("scale", jnp.array(-1.0))),
        {"max_margin": (0.7, -0.1), "scale": (2.5, -1.0)} | _SMOOTHING,
        "smooth",
        0.1,
    ),
    "logit_adjusted": Case(
        competing(_logit_adjusted_cost),
        (
            ids(priors=COUNTS),
            ids("tau", axis=1, priors=np.float32([0.5, 0.125, 0.375]), tau=1.5),
            soft("smoothed", priors=COUNTS, label_smoothing=0.1),
        ),
        _invalid("priors", ("tau", -0.5), ("tau", jnp.array(-0.5))),
        {"tau": (1.3, -0.5)} | _SMOOTHING,
        "smooth",
        0.095,
    ),
    "seesaw": Case(
        competing(_cost(_seesaw_logits)),
        (
            ids(class_counts=COUNTS),
            ids("other_powers", axis=1, class_counts=COUNTS, p=0.5, q=1.0),
            ids("smoothed", class_counts=COUNTS, label_smoothing=0.1),
            soft("soft", class_counts=COUNTS),
        ),
        _invalid("class_counts", ("p", -0.1), ("q", -0.1), ("q", jnp.array(-1.0))),
        {"p": (0.7, -0.1), "q": (1.5, -0.1)} | _SMOOTHING,
        "detached",
        0.125,
        _seesaw_gradient,
    ),
}

LOSSES = [jaxloss.ldam, jaxloss.logit_adjusted, jaxloss.seesaw]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def _data():
    sample = ids()
    return jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)


@pytest.mark.parametrize("priors", [[0.7, 0.2, 0.1], [70, 20, 10], np.array([7, 2, 1], np.uint8)])
def test_logit_adjusted_closed_form(priors):
    """Equal logits cost the surprise of the prior, whatever its scale."""
    for tau in (0.5, 1.0, 2.0):
        value = jaxloss.logit_adjusted(
            jnp.zeros((3, 3)), jnp.arange(3), priors, tau=tau, reduction="none"
        )
        powers = np.array([0.7, 0.2, 0.1]) ** tau
        np.testing.assert_allclose(value, -np.log(powers / powers.sum()), rtol=1e-5)


def test_balanced_softmax():
    """With counts and `tau=1` it is the cross-entropy of `n_c exp(x_c)`, as Ren et al. write it."""
    x, y = _data()
    scores = jnp.asarray(COUNTS, jnp.float32)[None, None, None] * jnp.exp(x)
    expected = jaxloss.nll(jnp.log(scores / scores.sum(-1, keepdims=True)), y)
    np.testing.assert_allclose(jaxloss.logit_adjusted(x, y, COUNTS), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "counts, label, expected",
    [
        ([81, 1], 0, math.log1p(math.exp(6 * 0.5 / 3))),
        ([81, 1], 1, math.log1p(math.exp(6 * 0.5))),
        ([8.1, 0.1], 0, math.log1p(math.exp(6 * 0.5 / 3))),
        ([5, 5], 1, math.log1p(math.exp(6 * 0.5))),
        ([5, 0], 1, math.log1p(math.exp(6 * 0.5))),  # without samples: the largest margin
        ([81, 1, 0], 0, math.log1p(2 * math.exp(6 * 0.5 / 3))),  # and it does not set the scale
    ],
)
def test_ldam_closed_form(counts, label, expected):
    value = jaxloss.ldam(jnp.zeros(len(counts)), label, counts, scale=6.0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "logits, label, counts, options, expected",
    [
        ([0.0, 0.0], 0, [100, 1], {}, math.log1p(100**-0.8)),
        ([0.0, 0.0], 1, [100, 1], {}, math.log(2)),
        ([0.0, 0.0], 0, [100, 1], {"p": 0.0}, math.log(2)),
        ([0.0, 0.0], 0, [100, 0], {}, math.log1p(100**-0.8)),  # no sample counts as one
        ([0.0, math.log(3)], 0, [1, 1], {}, math.log1p(3 * 3**2)),
        ([0.0, math.log(3)], 0, [1, 1], {"q": 0.0}, math.log1p(3)),
        ([0.0, math.log(3)], 1, [1, 1], {}, math.log1p(1 / 3)),
        ([0.0, math.log(999)], 0, [1, 1], {}, math.log1p(999 * (0.999 / 0.01) ** 2)),
    ],
)
def test_seesaw_closed_form(logits, label, counts, options, expected):
    value = jaxloss.seesaw(jnp.array(logits), label, counts, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.rows(2)
@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(jaxloss.logit_adjusted, priors=COUNTS, tau=0.0),
        functools.partial(jaxloss.logit_adjusted, priors=[0, 1, 2], tau=0.0),
        functools.partial(jaxloss.logit_adjusted, priors=[2, 2, 2]),
        functools.partial(jaxloss.ldam, class_counts=COUNTS, max_margin=0.0, scale=1.0),
        functools.partial(jaxloss.seesaw, class_counts=COUNTS, p=0.0, q=0.0),
        functools.partial(jaxloss.seesaw, class_counts=[3, 3, 3], q=0.0),
    ],
)
def test_switched_off_it_is_cross_entropy(loss):
    x, y = _data()
    value, gradient = jax.value_and_grad(loss)(x, y)
    expected = jax.value_and_grad(jaxloss.cross_entropy)(x, y)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-7)


@every_loss
def test_soft_labels_mix_the_losses_of_ids(loss):
    """As mixing samples does: the loss is linear in the label."""
    x, _ = _data()
    one = functools.partial(loss, x, reduction="none")
    full = functools.partial(jnp.full, x.shape[:-1])
    mixed = one(jnp.broadcast_to(jnp.array([0.3, 0.0, 0.7]), x.shape), COUNTS)
    parts = 0.3 * one(full(0), COUNTS) + 0.7 * one(full(2), COUNTS)
    np.testing.assert_allclose(mixed, parts, rtol=1e-5)


def test_a_prior_of_zero_removes_the_class():
    x = jnp.array([0.5, 3.0, -1.0])
    run = jax.value_and_grad(jaxloss.logit_adjusted, argnums=(0, 2))
    value, (gradient, by_prior) = run(x, 0, jnp.array([0.6, 0.0, 0.4]))
    expected = jaxloss.cross_entropy(x.at[1].set(-jnp.inf) + jnp.log(jnp.array([0.6, 1, 0.4])), 0)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert gradient[1] == 0
    assert jnp.isfinite(by_prior).all()
    value, (gradient, by_prior) = run(x, 1, jnp.array([0.6, 0.0, 0.4]))
    assert value == jnp.inf
    assert not gradient.any()
    assert not by_prior.any()
    smoothed = jaxloss.logit_adjusted(x, 0, [0.6, 0.0, 0.4], label_smoothing=0.2)
    left = jaxloss.logit_adjusted(x[jnp.array([0, 2])], 0, [0.6, 0.4], label_smoothing=0.2)
    np.testing.assert_allclose(smoothed, left, rtol=1e-6)


@every_loss
def test_traced_counts(loss):
    """Equal to concrete ones; NaN where those would raise."""
    x, y = _data()
    run = jax.jit(lambda counts: jax.value_and_grad(loss)(x, y, counts))
    value, gradient = run(jnp.asarray(COUNTS))
    np.testing.assert_allclose(value, loss(x, y, COUNTS), rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    for wrong in ([0, 0, 0], [3, -1, 2]):
        assert jnp.isnan(run(jnp.array(wrong))[0])


@every_loss
def test_derivative_by_the_counts(loss):
    """Numerical, in float64; the seesaw's factors are constants."""
    with jax.enable_x64(True):
        sample = soft()
        x, y = jnp.asarray(sample.prediction), jnp.asarray(sample.target)
        counts, step = jnp.asarray(COUNTS, jnp.float64), jnp.array([1e-3, -2e-4, 3e-4])
        run = jax.jit(jax.value_and_grad(lambda counts: loss(x, y, counts)))
        _, gradient = run(counts)
        assert gradient.dtype == jnp.float64
        if loss is jaxloss.seesaw:
            assert not gradient.any()
            return
        difference = (run(counts + step)[0] - run(counts - step)[0]) / 2
        np.testing.assert_allclose(gradient @ step, difference, rtol=1e-6)


ROWS = np.array(
    [
        [1e4, -1e4, 0.0],
        [1e30, -1e30, 0.0],
        [1e30, 1e30, 1e30],
        [1e4, 1e4 + 1, 1e4 - 1],
        [-200.0, 0.0, 0.0],
        [200.0, 0.0, 0.0],
    ]
)


@every_loss
def test_huge_logits(loss):
    """Value against float64, gradients finite in both modes, for every target."""
    costs = {
        jaxloss.ldam: _cost(_ldam_logits),
        jaxloss.logit_adjusted: _logit_adjusted_cost,
        jaxloss.seesaw: _cost(_seesaw_logits),
    }
    name = "priors" if loss is jaxloss.logit_adjusted else "class_counts"
    # No offset changes the loss, but 1e30 would round the margins away, in float64 too.
    expected, _ = costs[loss](ROWS - ROWS.max(-1, keepdims=True), -1, **{name: COUNTS})
    rows = jnp.repeat(jnp.asarray(ROWS, jnp.float32), 3, axis=0)
    labels = jnp.tile(jnp.arange(3), len(ROWS))

    @jax.jit
    @jax.vmap
    def run(x, y):
        one = lambda x, y: loss(x, y, COUNTS)
        value, gradient = jax.value_and_grad(one)(x, y)
        dense_value, dense_gradient = jax.value_and_grad(one)(x, jax.nn.one_hot(y, 3))
        return value, gradient, jax.jacfwd(one)(x, y), dense_value, dense_gradient

    value, gradient, forward, dense_value, dense_gradient = run(rows, labels)
    np.testing.assert_allclose(value, expected.reshape(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dense_value, expected.reshape(-1), rtol=1e-5, atol=1e-6)
    for slope in (gradient, forward, dense_gradient):
        assert jnp.isfinite(slope).all()
    np.testing.assert_allclose(forward, gradient, rtol=1e-5, atol=1e-6)


@every_loss
def test_removed_and_infinite_logits(loss):
    """-inf is a class that has been removed, +inf one that is certain; ids and one-hot agree."""
    inf = jnp.inf
    rows = jnp.array([[0.5, -inf, 0.2], [0.5, -inf, 0.2], [inf, 0.0, 1.0], [-inf, -inf, 1.0]])
    labels = jnp.array([0, 1, 0, 2])
    run = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, 0, None)))
    kept = loss(jnp.array([0.5, 0.2]), 0, COUNTS[[0, 2]])
    if loss is jaxloss.ldam:  # without the removed class its count still sets the margins
        kept = loss(jnp.array([0.5, 0.2]), 0, COUNTS[[0, 2]], max_margin=0.5 * (20 / 90) ** 0.25)
    for targets in (labels, jax.nn.one_hot(labels, 3)):
        value, gradient = run(rows, targets, jnp.asarray(COUNTS))
        np.testing.assert_allclose(value, [kept, inf, 0, 0], rtol=1e-5)
        assert jnp.isfinite(gradient).all()
        assert gradient[0, 1] == 0
        assert not gradient[1:].any()


@every_loss
def test_an_offset_changes_nothing(loss):
    """It cancels before anything is rounded."""
    x = jnp.array([1.0, 2.0, -3.0])
    for y in (2, jnp.array([0.2, 0.3, 0.5])):
        np.testing.assert_allclose(loss(x + 8192, y, COUNTS), loss(x, y, COUNTS), rtol=1e-6)


def test_seesaw_large_powers_stay_finite():
    """100^q alone would overflow from q = 20 on."""
    x = jnp.array([-20.0, 0.0, 0.0])
    run = jax.jit(jax.value_and_grad(lambda x, q: jaxloss.seesaw(x, 0, [1, 1, 1], q=q)))
    value, gradient = run(x, 30.0)
    np.testing.assert_allclose(value, 20 + math.log(2) + 30 * math.log(50), rtol=1e-5)
    np.testing.assert_allclose(gradient, [-1, 0.5, 0.5], rtol=1e-5)


def test_mmdet_seesaw_detaches_its_factors():
    """The gradient is that of the changed logits, not through the change."""
    x, y = _data()
    gradient = jax.grad(lambda x: jaxloss.seesaw(x, y, COUNTS, reduction="sum"))(x)
    np.testing.assert_allclose(
        gradient,
        _seesaw_gradient(np.asarray(x, float), np.asarray(y), class_counts=COUNTS),
        1e-4,
        1e-6,
    )


def test_ldam_counts_of_zero():
    """The authors' `1 / sqrt(sqrt(n))` is infinite there, and every margin NaN."""
    x, y = _data()
    run = jax.value_and_grad(jaxloss.ldam, argnums=(0, 2))
    value, (gradient, by_count) = run(x, y, jnp.array([5.0, 0.0, 2.0]))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(by_count).all()


@pytest.mark.parametrize("labels", ["ids", "soft"])
def test_seesaw_has_second_derivatives_on_confident_samples(labels):
    """Whose other classes together are less than the root of the smallest number."""
    lead = jnp.array([10.0, 40.0, 43.0, 60.0, 80.0])
    z = jnp.stack([lead, 0 * lead], -1)
    y = jnp.zeros(5, int) if labels == "ids" else jnp.tile(jnp.array([1.0, 0.0]), (5, 1))
    loss = lambda z, y: jaxloss.seesaw(z, y, [5, 1])
    curvature = jax.jit(jax.vmap(jax.hessian(loss)))(z, y)
    # The other class has (1 / 5)^0.8 of its weight, and none of its gradient has a factor.
    p = np.exp(-lead) * 0.2**0.8
    np.testing.assert_allclose(curvature[:, 0, 0], p * (1 - p), rtol=1e-4)
    np.testing.assert_allclose(curvature[:, 0, 1], -p * (1 - p), rtol=1e-4)
