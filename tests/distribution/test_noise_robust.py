"""Generalised and symmetric cross-entropy, Poly-1: oracles, cases, closed forms, hazards."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import jaxloss
from tests.oracles import competing, invalid_classifications, out_of_range, shaped
from tests.registry import Case, dense, ids, reduced, soft

NAMES = ("generalized_cross_entropy", "poly1", "symmetric_cross_entropy")


def _of_positions(cost):
    """The oracle of a loss `v cost(p, t)` with `v = sum_c w_c y_c`, `y` before smoothing."""

    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        label_smoothing=0.0,
        **options,
    ):
        y = dense(target, prediction, axis)
        t = (1 - label_smoothing) * y + label_smoothing / prediction.shape[axis]
        v = (shaped(class_weights, prediction, axis) * y).sum(axis)
        loss = cost(softmax(prediction, axis), t, axis, **options)
        return reduced(v * loss, reduction, where, weights, v)

    return oracle


def _generalized(p, t, axis, q=0.7):
    mixture = (t * p).sum(axis)
    return (1 - mixture**q) / q if q else -np.log(mixture)


def _symmetric(prediction, target, *arguments, alpha=0.1, beta=1.0, log_zero=-4.0, **options):
    forward = competing(lambda z, axis: (-log_softmax(z, axis), 0.0))
    reverse = _of_positions(
        lambda p, t, axis: -(p * np.log(np.maximum(t, np.exp(log_zero)))).sum(axis)
    )
    return alpha * forward(prediction, target, *arguments, **options) + beta * reverse(
        prediction, target, *arguments, **options
    )


def _poly1_cost(prediction, axis, epsilon=2.0):
    log_p = log_softmax(prediction, axis)
    return -log_p + epsilon * (1 - np.exp(log_p)), 0.0


_SHARED = (
    *invalid_classifications("logits"),
    *out_of_range(("label_smoothing", 1.0), ("label_smoothing", -0.1)),
)
_SMOOTHING = {"label_smoothing": (0.1, 1.5)}
CASES = {
    "generalized_cross_entropy": Case(
        _of_positions(_generalized),
        (
            ids(),
            soft(),
            ids("smoothed", label_smoothing=0.2, axis=1, q=0.4),
            soft("limit", q=0.0),
        ),
        (*_SHARED, *out_of_range(("q", -0.1), ("q", 1.5), ("q", jnp.array(2.0)))),
        {"q": (0.6, 1.5), **_SMOOTHING},
        "smooth",
        0.425,
    ),
    "symmetric_cross_entropy": Case(
        _symmetric,
        (
            ids(),
            soft(),
            ids("smoothed", label_smoothing=0.2, axis=1),
            soft("options", alpha=6.0, beta=0.1, log_zero=-9.21, label_smoothing=0.1),
        ),
        (*_SHARED, *out_of_range(("alpha", -0.1), ("beta", -1.0), ("log_zero", 0.5))),
        {"alpha": (0.3, -1.0), "beta": (0.7, -1.0), "log_zero": (-5.0, 1.0), **_SMOOTHING},
        "smooth",
        0.525,
    ),
    "poly1": Case(
        competing(_poly1_cost),
        (ids(), soft(), ids("smoothed", label_smoothing=0.2, axis=1, epsilon=-0.5)),
        (*_SHARED, *out_of_range(("epsilon", math.nan), ("epsilon", math.inf))),
        {"epsilon": (1.5, None), **_SMOOTHING},
        "smooth",
        0.475,
    ),
}


def _margin(p):
    """Logits of two classes of which the first has probability `p`."""
    return jnp.array([[math.log(p / (1 - p)), 0.0]])


@pytest.mark.parametrize(
    "name, p, options, expected",
    [
        ("generalized_cross_entropy", 0.25, {"q": 0.5}, 1.0),
        ("generalized_cross_entropy", 0.3, {"q": 1.0}, 0.7),
        ("generalized_cross_entropy", 0.3, {"q": 0.0}, -math.log(0.3)),
        ("generalized_cross_entropy", 0.3, {}, (1 - 0.3**0.7) / 0.7),
        ("symmetric_cross_entropy", 0.3, {}, 0.1 * -math.log(0.3) + 4 * 0.7),
        ("symmetric_cross_entropy", 0.3, {"alpha": 6, "beta": 0.1}, -6 * math.log(0.3) + 0.28),
        ("symmetric_cross_entropy", 0.5, {"alpha": 0, "log_zero": -9.0}, 4.5),
        ("poly1", 0.3, {}, -math.log(0.3) + 1.4),
        ("poly1", 0.3, {"epsilon": -1.0}, -math.log(0.3) - 0.7),
    ],
)
def test_closed_form(name, p, options, expected):
    for labels in (jnp.array([0]), jnp.array([[1.0, 0.0]])):
        value = getattr(jaxloss, name)(_margin(p), labels, **options)
        np.testing.assert_allclose(value, expected, 2e-6)


@pytest.mark.rows(3)
@pytest.mark.parametrize("labels", ["ids", "soft"])
@pytest.mark.parametrize(
    "name, options, scale",
    [
        ("generalized_cross_entropy", {"q": 0.0}, 1.0),
        ("generalized_cross_entropy", {"q": 1e-9}, 1.0),
        ("poly1", {"epsilon": 0.0}, 1.0),
        ("symmetric_cross_entropy", {"alpha": 3.0, "beta": 0.0}, 3.0),
    ],
)
def test_limits_are_the_cross_entropy(name, options, scale, labels):
    sample = ids() if labels == "ids" else soft()
    y = jnp.asarray(sample.target)
    if name == "generalized_cross_entropy" and labels == "soft":
        y = jax.nn.one_hot(ids().target, 3)  # of a mixture it is the log of the mean
    x = jnp.asarray(sample.prediction, jnp.float32)
    y = y if y.dtype == jnp.int32 else y.astype(jnp.float32)
    loss = lambda x: getattr(jaxloss, name)(x, y, **options)
    value, gradient = jax.jit(jax.value_and_grad(loss))(x)
    expected = jax.jit(jax.value_and_grad(lambda x: jaxloss.cross_entropy(x, y)))(x)
    np.testing.assert_allclose(value, scale * expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, scale * expected[1], rtol=1e-5, atol=1e-8)


def test_derivative_by_q_is_smooth_through_its_limit():
    """The quotient `(1 - p^q) / q` has lost all digits at q = 1e-6 and is 0/0 at 0."""
    slope = jax.jit(
        jax.grad(lambda q: jaxloss.generalized_cross_entropy(_margin(0.25), jnp.array([0]), q=q))
    )
    h = -math.log(0.25)
    for q in (0.0, 1e-6, 1e-3, 0.5, 1.0):
        exact = sum(
            (-1) ** k * (k - 1) * q ** (k - 2) * h**k / math.factorial(k) for k in range(2, 40)
        )
        np.testing.assert_allclose(slope(q), -exact, rtol=1e-5)


MARGINS = np.array([-1e30, -1e4, -200.0, -30.0, 0.0, 17.0, 40.0, 80.0, 1e4, 1e30, np.inf, -np.inf])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "form",
    [
        "ids",
        pytest.param("one-hot", marks=pytest.mark.slow),
        "soft",
        pytest.param("smoothed", marks=pytest.mark.slow),
    ],
)
def test_finite_at_every_margin(name, form):
    """Value and gradient, in both modes, from a certain miss over a tie to a certain hit."""
    if form == "soft":
        labels = jnp.array([0.7, 0.3, 0.0])
    else:
        labels = jnp.array([1.0, 0.0, 0.0]) if form == "one-hot" else jnp.array(0)
    options = {"label_smoothing": 0.1} if form == "smoothed" else {}
    loss = lambda x: getattr(jaxloss, name)(x, labels, **options)

    @jax.jit
    @jax.vmap
    def run(margin):
        x = jnp.stack([margin, jnp.zeros_like(margin), -jnp.ones_like(margin)])
        return *jax.value_and_grad(loss)(x), jax.jvp(loss, (x,), (jnp.ones(3),))[1]

    value, gradient, forward = run(jnp.asarray(MARGINS, jnp.float32))
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(forward).all()
    np.testing.assert_allclose(forward, gradient.sum(-1), atol=1e-5)
    # Mass on a removed class costs +inf, as does mass beside a class that is certain.
    bounded, hard = name == "generalized_cross_entropy", form in ("ids", "one-hot")
    costly = () if bounded else (-np.inf,) if hard else (-np.inf, np.inf)
    assert set(MARGINS[~np.isfinite(value)]) == set(costly)
    if hard:
        assert (jnp.diff(value[:-2]) <= 0).all()
        assert value[-2] == 0
        np.testing.assert_allclose(gradient[-2:], 0, atol=5e-7)
        if bounded:
            np.testing.assert_allclose(value[-1], 1 / 0.7, rtol=1e-6)


@pytest.mark.rows(2)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("one_hot", [False, True])
def test_keeps_its_digits_on_confident_samples(name, one_hot):
    """`1 - p_y` is 0 in float32 from a margin of 17 on, and the loss is not."""
    margin = np.array([10.0, 17.0, 40.0, 80.0])
    logits = jnp.asarray(np.stack([margin, 0 * margin], -1), jnp.float32)
    labels = jnp.tile(jnp.array([1.0, 0.0]), (4, 1)) if one_hot else jnp.zeros(4, int)
    loss = lambda x: getattr(jaxloss, name)(x, labels, reduction="none")
    slope = {"generalized_cross_entropy": 1.0, "poly1": 3.0, "symmetric_cross_entropy": 4.1}[name]
    expected = slope * np.exp(-margin)
    np.testing.assert_allclose(jax.jit(loss)(logits), expected, rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda x: loss(x).sum()))(logits)
    exact = not one_hot or name == "generalized_cross_entropy"
    accuracy = {"rtol": 1e-4} if exact else {"rtol": 1e-4, "atol": slope * 2**-23}
    np.testing.assert_allclose(gradient, np.stack([-expected, expected], -1), **accuracy)


def test_generalized_of_a_mixture_at_every_margin():
    """A mixture of probability e^-1000 has no float32, its power has."""
    y = jnp.array([0.5, 0.5, 0.0])
    loss = lambda x, q: jaxloss.generalized_cross_entropy(x, y, q=q)
    x = jnp.array([-1000.0, -1000.0, 0.0])
    np.testing.assert_allclose(loss(x, 0.0), 1000 + math.log(1), rtol=1e-6)
    np.testing.assert_allclose(loss(x, 1e-3), 1000 * (1 - math.exp(-1)), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(loss)(x, 0.0), [-0.5, -0.5, 1.0], rtol=1e-6)


@pytest.mark.rows(40)
@pytest.mark.parametrize("excess", [0.0, 1e-4])
@pytest.mark.parametrize("q", [0.0, 0.7, 1.0])
def test_generalized_of_a_mixture_on_confident_rows(q, excess):
    """Value and slopes in float32 against float64; rounded shares may sum to more than 1."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 5)) * 4).astype(np.float32)
    t = (rng.dirichlet(np.ones(5), 40) * (1 + excess)).astype(np.float32)
    t[:4] = [1 + excess, 0, 0, 0, 0]
    x[:4, 0] += [4, 8, 16, 40]
    p = softmax(x.astype(float), -1)
    mixture = (t * p).sum(-1, keepdims=True)
    pull = (p[:, None, :] * (t[:, None, :].astype(float) - t[:, :, None])).sum(-1)  # P - t_c
    loss = lambda x: jaxloss.generalized_cross_entropy(x, t, q=q, reduction="none")
    gradient = jax.jit(jax.grad(lambda x: loss(x).sum()))(x)
    others = ((1 - t.astype(float)) * p).sum(-1)
    expected = -np.log1p(-others) if q == 0 else -np.expm1(q * np.log1p(-others)) / q
    np.testing.assert_allclose(jax.jit(loss)(x), expected, rtol=2e-6, atol=excess * 1e-3)
    np.testing.assert_allclose(gradient, p * pull * mixture ** (q - 1), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "x",
    [[-math.inf, 0.0, -1.0], [-1e30, 0.0, 0.0], [-2.0, math.inf, 0.0], [-math.inf] * 3],
)
def test_generalized_of_a_mixture_that_is_impossible(x):
    """It costs the most that there is, with zero gradient."""
    loss = lambda x, y: jaxloss.generalized_cross_entropy(x, y)
    value, gradients = jax.value_and_grad(loss, (0, 1))(jnp.array(x), jnp.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(value, 1 / 0.7, 1e-6)
    assert not gradients[0].any()
    assert jnp.isfinite(gradients[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_removed_classes_are_as_if_absent(name):
    loss = getattr(jaxloss, name)
    x, labels = jnp.array([[1.0, -0.5, 2.0]]), jnp.array([2])
    wide = jnp.concatenate([x, jnp.full((1, 2), -jnp.inf)], -1)
    for smoothing in (0.0, 0.2):
        run = jax.jit(jax.value_and_grad(lambda x, e=smoothing: loss(x, labels, label_smoothing=e)))
        value, gradient = run(wide)
        expected = run(x)
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(gradient[:, :3], expected[1], rtol=1e-6)
        assert not gradient[:, 3:].any()


def test_symmetric_is_symmetric_between_two_distributions():
    """With alpha = beta and no cut, target and prediction may change places."""
    rng = np.random.default_rng(0)
    p, y = (jnp.asarray(rng.dirichlet(np.ones(4), 5), jnp.float32) for _ in range(2))
    options = {"alpha": 1.0, "beta": 1.0, "log_zero": -80.0}
    there = jaxloss.symmetric_cross_entropy(jnp.log(p), y, **options)
    back = jaxloss.symmetric_cross_entropy(jnp.log(y), p, **options)
    np.testing.assert_allclose(there, back, rtol=1e-6)


def test_generalized_is_bounded_summed_over_all_labels():
    """The sum over all C labels lies in [(C - C^(1-q))/q, (C - 1)/q]."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 6)) * 4, jnp.float32)
    each = [
        jaxloss.generalized_cross_entropy(x, jnp.full(50, c), reduction="none") for c in range(6)
    ]
    total = sum(each)
    assert (total >= (6 - 6**0.3) / 0.7 * (1 - 1e-6)).all()
    assert (total <= 5 / 0.7 * (1 + 1e-6)).all()
