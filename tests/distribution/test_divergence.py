"""Kullback-Leibler and Jensen-Shannon divergence: oracles, cases, closed forms, hazards."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

import jaxloss
from tests.compiling import usual_jit
from tests.oracles import X, shaped
from tests.registry import SHAPE, Case, Invalid, Sample, reduced, soft

NAMES = ("kl_divergence", "js_divergence")


def _kl(p, y, axis):
    return rel_entr(y, p).sum(axis)


def _js(p, y, axis):
    m = (p + y) / 2
    return (rel_entr(y, m) + rel_entr(p, m)).sum(axis) / 2


def _oracle(divergence):
    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
    ):
        v = (shaped(class_weights, prediction, axis) * target).sum(axis)
        loss = divergence(softmax(prediction, axis), target, axis)
        return reduced(v * loss, reduction, where, weights, v)

    return oracle


def _distributions(name, axis=-1, seed=0):
    """Targets that keep their distance from 0, at which the curvature is infinite."""
    sample = soft(name, seed=seed)
    prediction, target = sample.prediction, 0.1 + 0.7 * sample.target
    prediction, target = (np.moveaxis(x, -1, axis) for x in (prediction, target))
    return sample._replace(
        prediction=prediction, target=target, options={"axis": axis}, axis=axis % 4
    )


def _distillation(prediction, target, axis=-1, temperature=4.0, **options):
    q = softmax(target / temperature, axis)
    return temperature**2 * _oracle(_kl)(prediction / temperature, q, axis=axis, **options)


def _students(name, axis=-1, **options):
    """The logits of a student and of its teacher."""
    pair = np.random.default_rng(3).normal(size=(2, *SHAPE)) * 2
    prediction, target = (np.moveaxis(x, -1, axis) for x in pair)
    return Sample(name, prediction, target, options | {"axis": axis}, SHAPE[:-1], axis % 4)


SAMPLES = (_distributions("last"), _distributions("channels", axis=1, seed=1))


IDS = np.zeros(2, int)
_INVALID = (
    Invalid((X.astype(int), X), {}, TypeError, ("logits", "int", "floating")),
    Invalid((X, IDS), {}, ValueError, ("targets", r"\(2,\)", r"\(2, 3\)")),
    Invalid((X, X[:1]), {}, ValueError, ("targets", r"\(1, 3\)", r"\(2, 3\)")),
    Invalid((X, X), {"axis": 2}, ValueError, ("axis", "2", r"\[-2, 2\)")),
    Invalid((X, X), {"reduction": "batchmean"}, ValueError, ("reduction", "'batchmean'", "'mean'")),
    Invalid((X, X), {"where": IDS}, TypeError, ("where", "int", "bool")),
    Invalid((X, X), {"where": np.ones(3, bool)}, ValueError, ("where", r"\(3,\)", "rank")),
    Invalid((X, X), {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)", "rank")),
    Invalid((X, X), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")),
    Invalid((X, X), {"ignore_index": 1}, ValueError, ("ignore_index", "float", "integer")),
)
CASES = {
    "kl_divergence": Case(_oracle(_kl), SAMPLES, _INVALID, {}, "smooth", 0.235),
    "js_divergence": Case(_oracle(_js), SAMPLES, _INVALID, {}, "smooth", 0.27),
    "distillation": Case(
        _distillation,
        (_students("last"), _students("channels", axis=1, temperature=1.5)),
        (
            Invalid((X.astype(int), X), {}, TypeError, ("logits", "int", "floating")),
            Invalid((X, IDS), {}, TypeError, ("teacher_logits", "int", "floating")),
            Invalid((X, X[:1]), {}, ValueError, ("teacher_logits", r"\(1, 3\)", r"\(2, 3\)")),
            Invalid((X, X), {"axis": 2}, ValueError, ("axis", "2", r"\[-2, 2\)")),
            Invalid((X, X), {"temperature": 0.0}, ValueError, ("temperature", "number in")),
            Invalid((X, X), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")),
            Invalid((X, X), {"ignore_index": 1}, TypeError, ("ignore_index", "no option")),
        ),
        {"temperature": (2.0, -1.0)},
        "smooth",
        0.3,
    ),
}


@pytest.mark.parametrize(
    "name, p, y, expected",
    [
        ("kl_divergence", [0.5, 0.5], [1.0, 0.0], math.log(2)),
        ("kl_divergence", [0.25, 0.75], [0.5, 0.5], 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        ("kl_divergence", [1.0, 0.0], [1.0, 0.0], 0.0),
        ("kl_divergence", [1.0, 0.0], [0.5, 0.5], math.inf),
        ("js_divergence", [0.5, 0.5], [1.0, 0.0], 0.75 * math.log(4 / 3)),
        ("js_divergence", [1.0, 0.0], [0.0, 1.0], math.log(2)),
        ("js_divergence", [1.0, 0.0], [1.0, 0.0], 0.0),
        ("js_divergence", [1.0, 0.0], [0.5, 0.5], 0.75 * math.log(4 / 3)),
    ],
)
def test_closed_form(name, p, y, expected):
    """Probabilities of 0 are logits of -inf."""
    value = getattr(jaxloss, name)(jnp.log(jnp.array(p)), jnp.array(y))
    np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_never_negative_where_target_and_prediction_agree(name):
    """pytorch/pytorch#32520: -3e-8; the difference of cross-entropy and entropy has any sign."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1000, 20)) * rng.choice([0.1, 1, 10], (1000, 1)), jnp.float32)
    loss = jax.jit(lambda x, y: getattr(jaxloss, name)(x, y, reduction="none"))
    value = loss(x, jax.nn.softmax(x))
    assert (value >= 0).all()
    assert (value < 1e-12).all()
    np.testing.assert_array_equal(loss(jnp.zeros((3, 4)), jnp.full((3, 4), 0.25)), 0)


@pytest.mark.parametrize("name, factor", [("kl_divergence", 0.5), ("js_divergence", 0.125)])
def test_almost_equal_distributions_keep_their_digits(name, factor):
    """Both are half and an eighth of the squared relative error, down to 1e-12 and below.

    Within 4 ulp times 1 / (2 h), by which an ulp of a logarithm moves the loss. Targets of 1/2 +- h
    have an exact float32.
    """
    h = np.array([2.0**-4, 2.0**-8, 2.0**-12, 2.0**-16, 2.0**-20])
    y = np.stack([0.5 + h, 0.5 - h], -1)
    loss = lambda x: getattr(jaxloss, name)(x, jnp.asarray(y, jnp.float32), reduction="none")
    value = usual_jit(loss)(jnp.zeros((5, 2)))
    p = np.full(2, 0.5)
    exact = (_kl if name == "kl_divergence" else _js)(p, y, -1)
    exact[2:] = factor * (2 * h[2:]) ** 2  # float64 cancels too; the next term is of order h^4
    assert (np.abs(value / exact - 1) <= 4 * 2**-23 / (2 * h)).all()
    gradient = usual_jit(jax.grad(lambda x: loss(x).sum()))(jnp.zeros((5, 2)))
    if name == "kl_divergence":
        slope = p - y
    else:
        slope = p * np.log(2 * p / (p + y)) / 2
        slope = slope - p * slope.sum(-1, keepdims=True)
    assert (np.abs(gradient / slope - 1).max(-1) <= 4 * 2**-23 / (2 * h)).all()


@pytest.mark.rows(3)
@pytest.mark.parametrize("name", NAMES)
def test_finite_at_every_margin(name):
    """Value where it is finite, gradient by logits and targets, in both modes, zeros included.

    optax#1786: a target of 0 makes the gradient NaN, and against a log-probability of -inf the
    value.
    """
    margins = np.array([-1e30, -1e4, -200.0, -1.0, 0.0, 1.0, 40.0, 1e4, 1e30, np.inf, -np.inf])
    for y in (jnp.array([1.0, 0.0, 0.0]), jnp.array([0.6, 0.4, 0.0])):
        loss = getattr(jaxloss, name)

        @jax.jit
        @jax.vmap
        def run(margin, y=y, loss=loss):
            x = jnp.stack([margin, jnp.zeros_like(margin), -jnp.ones_like(margin)])
            both = jax.value_and_grad(loss, (0, 1))(x, y)
            return *both, jax.jvp(loss, (x, y), (jnp.ones(3), jnp.zeros(3)))[1]

        value, (gradient, by_target), forward = run(jnp.asarray(margins, jnp.float32))
        for derivative in (gradient, by_target, forward):
            assert jnp.isfinite(derivative).all()
        np.testing.assert_allclose(forward, 0, atol=1e-6)
        assert (value >= 0).all()
        if name == "js_divergence":
            assert (value <= math.log(2) * (1 + 2**-22)).all()
        infinite = () if name == "js_divergence" else (-np.inf,) if y[0] == 1 else (-np.inf, np.inf)
        assert set(margins[np.isinf(value)]) == set(infinite)


def test_a_student_that_is_its_teacher_costs_nothing():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1000, 20)) * rng.choice([0.1, 1, 10], (1000, 1)), jnp.float32)
    loss = lambda x, y: jaxloss.distillation(x, y, reduction="none")
    value = jax.jit(loss)(x, x)
    assert (value >= 0).all()
    assert (value < 1e-11).all()
    gradients = jax.jit(jax.grad(lambda *pair: loss(*pair).sum(), (0, 1)))(x, x)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_distillation_is_finite_at_every_margin():
    """+inf, with zero gradient, where the teacher expects what the student has removed."""
    margins = np.array([-np.inf, -1e30, -1e4, -1.0, 0.0, 1.0, 1e4, 1e30, np.inf], np.float32)

    @jax.jit
    def run(margin, teacher):
        x, y = (jnp.stack([m, jnp.zeros_like(m)]) for m in (margin, teacher))
        return jax.value_and_grad(jaxloss.distillation, (0, 1))(x, y)

    pairs = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    value, (by_student, by_teacher) = pairs(margins, margins)
    infinite = np.isinf(margins)[:, None] & (margins[:, None] != margins)
    certain = np.abs(margins) >= 1e4  # whose other class has no mass left in float32
    infinite &= ~(certain & (np.sign(margins)[:, None] == np.sign(margins)))
    np.testing.assert_array_equal(np.isinf(value), infinite)
    assert (value >= 0).all()
    assert jnp.isfinite(by_student).all()
    assert jnp.isfinite(by_teacher).all()


def test_js_is_symmetric():
    rng = np.random.default_rng(0)
    p, y = (jnp.asarray(rng.dirichlet(np.full(4, 0.3), 50), jnp.float32) for _ in range(2))
    there, back = (
        jaxloss.js_divergence(jnp.log(a), b, reduction="none") for a, b in ((p, y), (y, p))
    )
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-9)


def test_kl_is_cross_entropy_less_entropy():
    sample = soft()
    x, y = (jnp.asarray(a, jnp.float32) for a in (sample.prediction, sample.target))
    entropy = -(sample.target * np.log(sample.target)).sum(-1).mean()
    kl, ce = (
        jax.jit(jax.value_and_grad(lambda x, f=f: f(x, y)))(x)
        for f in (jaxloss.kl_divergence, jaxloss.cross_entropy)
    )
    np.testing.assert_allclose(kl[0], ce[0] - entropy, rtol=1e-5)
    np.testing.assert_allclose(kl[1], ce[1], rtol=1e-5, atol=1e-8)


def test_kl_of_targets_that_do_not_sum_to_one():
    """They are shares of their sum, which is a factor; a target without mass costs nothing."""
    x, y = jnp.array([[1.0, 0.0, -1.0]]), jnp.array([[0.2, 0.5, 0.3]])
    loss = jax.jit(jax.value_and_grad(jaxloss.kl_divergence))
    expected = loss(x, y)
    for scale in (0.5, 3.0, 1 + 2**-20):
        value, gradient = loss(x, scale * y)
        np.testing.assert_allclose(value, scale * expected[0], rtol=1e-6)
        np.testing.assert_allclose(gradient, scale * expected[1], rtol=1e-5)
    value, gradient = loss(x, 0 * y)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_removed_classes_are_as_if_absent(name):
    loss = jax.jit(jax.value_and_grad(getattr(jaxloss, name), (0, 1)))
    x, y = jnp.array([[1.0, -0.5, 2.0]]), jnp.array([[0.3, 0.3, 0.4]])
    wide = jnp.concatenate([x, jnp.full((1, 2), -jnp.inf)], -1)
    value, gradients = loss(wide, jnp.concatenate([y, jnp.zeros((1, 2))], -1))
    expected = loss(x, y)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    for gradient, other in zip(gradients, expected[1], strict=True):
        np.testing.assert_allclose(gradient[:, :3], other, rtol=1e-6)
        assert not gradient[:, 3:].any()


def test_a_teacher_that_has_removed_all_classes_costs_nothing():
    """It has no distribution, as a target without mass has none."""
    student, teacher = jnp.array([1.0, 2.0, 3.0]), jnp.full(3, -jnp.inf)
    value, slope = jax.value_and_grad(jaxloss.distillation)(student, teacher)
    assert value == 0
    assert not slope.any()


@pytest.mark.parametrize("temperature", [4.0, 1.0, 0.5])
def test_the_temperature_moves_beside_removed_classes(temperature):
    student, teacher = jnp.array([0.0, 0.0, -1.0, 0.5]), jnp.array([0.0, 0.3, -1.0, -jnp.inf])
    slope = jax.grad(lambda t: jaxloss.distillation(student, teacher, temperature=t))(temperature)

    def of_three(t):  # the student's last class is a constant share of its normaliser
        q = softmax(np.asarray(teacher[:3], np.float64) / t)
        p = softmax(np.asarray(student, np.float64) / t)[:3]
        return t**2 * rel_entr(q, p).sum()

    step = 1e-5
    expected = (of_three(temperature + step) - of_three(temperature - step)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax_focal", "poly1", *NAMES])
@pytest.mark.parametrize("target", [(0.9, 0.1, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)])
def test_second_derivatives_of_confident_rows(name, target):
    """Of which `1 - p` is far too small to be squared; forward over reverse, and reverse twice."""
    loss = getattr(jaxloss, name)
    for margin in (10.0, 44.0, 60.0, 80.0):
        z, y = np.array([margin, 0, -1, 0.5]), np.array(target)
        with jax.enable_x64(True):
            exact = jax.jacfwd(jax.jacfwd(lambda z, y=y: loss(z, jnp.asarray(y))))(jnp.asarray(z))
            exact = np.asarray(exact)
        gradient = jax.grad(lambda z, y=y: loss(z, jnp.asarray(y, jnp.float32)))
        for derive in (jax.jacfwd, jax.jacrev):
            found = usual_jit(derive(gradient))(jnp.asarray(z, jnp.float32))
            assert np.isfinite(found).all(), (margin, derive)
        found = usual_jit(jax.jacfwd(gradient))(jnp.asarray(z, jnp.float32))
        # What is below the smallest number of 32 bits is 0.
        np.testing.assert_allclose(found, exact, atol=max(1e-5 * np.abs(exact).max(), 2.0**-126))
