"""Weighted sums, deep supervision and learned weights."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxloss
from tests.compiling import compiled
from tests.registry import Helper, Invalid, ids

TERMS = {"dice": (0.5, jaxloss.dice), "ce": (2.0, jaxloss.cross_entropy)}

HELPERS = {
    "weighted_sum": Helper(
        None,
        (),
        tuple(
            Invalid((), {"terms": terms}, error, words)
            for terms, error, words in (
                ([("dice", 1.0)], TypeError, ("terms", "list", "mapping")),
                ({}, ValueError, ("terms", "empty")),
                ({"dice": jaxloss.dice}, ValueError, ("dice", "pair")),
                ({"dice": (1.0, 2.0)}, TypeError, ("dice", "loss function")),
            )
        ),
    ),
    "deep_supervision": Helper(
        None,
        (),
        tuple(
            Invalid((), {"loss": loss, "weights": weights}, error, words)
            for loss, weights, error, words in (
                (1.0, [1.0], TypeError, ("loss", "1.0", "function")),
                (jaxloss.dice, [], ValueError, ("weights", "one number or more")),
                (jaxloss.dice, 2.0, ValueError, ("weights", "one number or more")),
                (jaxloss.dice, np.ones((2, 2)), ValueError, ("weights", "one number")),
            )
        ),
    ),
    "uncertainty_weighted": Helper(
        None,
        (),
        tuple(
            Invalid((), {"losses": losses, "log_variances": s}, error, words)
            for losses, s, error, words in (
                ({"a": 1.0}, [0.0], TypeError, ("log_variances", "list", "form")),
                ({"a": 1.0}, {"b": 0.0}, ValueError, ("log_variances", "'b'", "'a'")),
                ([1.0], [0.0, 0.0], ValueError, ("log_variances", r"\[0, 1\]")),
                ([1], [0.0], TypeError, ("losses", "int", "floating")),
                (np.ones((1, 2)), np.ones(1), ValueError, (r"losses\[0\]", r"\(2,\)")),
                ([1.0], np.ones((1, 2)), ValueError, (r"log_variances\[0\]", r"\(2,\)")),
                ([], [], ValueError, ("losses", "empty")),
                (1.0, 0.0, ValueError, ("losses", "1.0", "sequence")),
            )
        ),
    ),
}


def _pair(**options):
    sample = ids(**options)
    return jnp.asarray(sample.prediction, jnp.float32), jnp.asarray(sample.target)


def _raises(error, *words):
    """An error of jaxloss with all of the words, in any order."""
    together = "".join(f"(?=.*{word})" for word in (r"jaxloss\.\w+:", *words, "expected"))
    return pytest.raises(error, match=f"(?s){together}")


# ---- weighted_sum ----------------------------------------------------------------------------


def test_weighted_sum_and_its_parts():
    x, y = _pair()
    loss = jaxloss.weighted_sum(TERMS)
    (total, parts), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(x, y)
    assert set(parts) == {"dice", "ce"}
    np.testing.assert_allclose(parts["dice"], compiled(jaxloss.dice)(x, y), 1e-6)
    np.testing.assert_allclose(parts["ce"], compiled(jaxloss.cross_entropy)(x, y), 1e-6)
    np.testing.assert_allclose(total, 0.5 * parts["dice"] + 2.0 * parts["ce"], 1e-6)
    both = functools.partial(jaxloss.dice_cross_entropy, dice_weight=0.5, cross_entropy_weight=2.0)
    np.testing.assert_allclose(slope, jax.jit(jax.grad(both))(x, y), 1e-5, 1e-8)


def test_weighted_sum_hands_options_to_every_loss():
    x, y = _pair(axis=1)
    where = jnp.arange(y.size).reshape(y.shape) % 3 > 0
    _, parts = jaxloss.weighted_sum(TERMS)(x, y, axis=1, where=where)
    np.testing.assert_allclose(
        parts["dice"], compiled(jaxloss.dice)(x, y, axis=1, where=where), 1e-6
    )


def test_weighted_sum_follows_a_schedule_without_recompiling():
    x, y = _pair()
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    loss = jaxloss.weighted_sum({"dice": (schedule, jaxloss.dice), "ce": (1.0, jaxloss.nll)})
    traces = []

    @jax.jit
    def run(step):
        traces.append(1)
        return loss(x, y, step=step)

    for step in (0, 5, 10):
        total, parts = run(jnp.int32(step))
        np.testing.assert_allclose(total, (1 - step / 10) * parts["dice"] + parts["ce"], 1e-5, 1e-6)
    assert len(traces) == 1


def test_weighted_sum_replaces_weights_by_name():
    x, y = _pair()
    loss = jaxloss.weighted_sum({"dice": (lambda step: step, jaxloss.dice), "ce": TERMS["ce"]})

    @jax.jit
    @jax.value_and_grad
    def run(weights):
        return loss(x, y, weights=weights)[0]  # a replaced schedule needs no step

    value, slope = run({"dice": jnp.float32(3.0)})
    np.testing.assert_allclose(
        value, 3 * compiled(jaxloss.dice)(x, y) + 2 * compiled(jaxloss.cross_entropy)(x, y)
    )
    np.testing.assert_allclose(slope["dice"], compiled(jaxloss.dice)(x, y), 1e-6)
    value, _ = loss(x, y, weights={"dice": lambda step: step / 4, "ce": 0}, step=2)
    np.testing.assert_allclose(value, compiled(jaxloss.dice)(x, y) / 2, 1e-6)


def test_weighted_sum_refuses_what_it_cannot_sum():
    x, y = _pair()
    loss = jaxloss.weighted_sum({"dice": (lambda step: step, jaxloss.dice), "ce": TERMS["ce"]})
    with _raises(ValueError, "step", "None", "'dice'"):
        loss(x, y)
    with _raises(ValueError, "weights", "dise", "'ce', 'dice'"):
        loss(x, y, weights={"dise": 1.0}, step=1)
    with _raises(TypeError, "weights", "list", "mapping"):
        loss(x, y, weights=[1.0, 2.0])
    with _raises(ValueError, "'dice'", r"\(4, 3\)", "scalar"):
        loss(x, y, step=1, reduction="none")
    with _raises(ValueError, "'ce'", r"\(2,\)", "scalar"):
        loss(x, y, step=1, weights={"ce": np.ones(2)})
    nested = jaxloss.weighted_sum({"both": (1.0, jaxloss.weighted_sum(TERMS))})
    with _raises(ValueError, "'both'", "tuple", "scalar"):
        nested(x, y)


def test_weight_zero_silences_an_infinite_loss():
    terms = {"never": (0.0, lambda x, y: jnp.sum(x) * jnp.inf), "l2": (1.0, jaxloss.l2)}
    total, _ = jaxloss.weighted_sum(terms)(jnp.ones(3), jnp.zeros(3))
    assert total == 1


# ---- deep_supervision ------------------------------------------------------------------------


def _index(n, m):
    """Where pixel centres fall, with fractions instead of integers."""
    return np.floor((np.arange(m) + 0.5) * n / m).astype(int)


@pytest.mark.parametrize("n, m", [(4, 2), (6, 2), (5, 5), (5, 3), (7, 2), (2, 4), (3, 7), (1, 3)])
def test_labels_are_picked_at_pixel_centres(n, m):
    """As torch.nn.functional.interpolate(mode="nearest-exact"); the sums tell the pixels apart."""
    labels = np.random.default_rng(0).normal(size=(2, n))
    picked = lambda output, labels, axis: jnp.vdot(output, labels)
    probe = np.random.default_rng(1).normal(size=(2, m))
    loss = jaxloss.deep_supervision(picked, [1.0])
    np.testing.assert_allclose(
        loss([probe], labels, axis=None), np.vdot(probe, labels[:, _index(n, m)]), 1e-5
    )


def _pyramid(axis):
    rng = np.random.default_rng(0)
    shapes = [(2, 8, 6, 3), (2, 4, 3, 3), (2, 3, 2, 3)]
    outputs = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]
    labels = jnp.asarray(rng.integers(0, 3, (2, 8, 6)))
    small = [labels[:, _index(8, s[1])][:, :, _index(6, s[2])] for s in shapes]
    return [jnp.moveaxis(o, -1, axis) for o in outputs], labels, small


@pytest.mark.parametrize(
    "axis", [pytest.param(-1, marks=pytest.mark.slow), 1, pytest.param(0, marks=pytest.mark.slow)]
)
def test_deep_supervision_is_a_weighted_sum_over_levels(axis):
    outputs, labels, small = _pyramid(axis)
    base = functools.partial(jaxloss.dice_cross_entropy, axis=axis)
    expected = sum(
        w * compiled(base)(o, s) for w, o, s in zip((0.5, 0.3, 0.0), outputs, small, strict=True)
    )
    by_signature = jaxloss.deep_supervision(base, (0.5, 0.3, 0.0))
    np.testing.assert_allclose(jax.jit(by_signature)(outputs, labels), expected, 1e-6)
    by_option = jaxloss.deep_supervision(jaxloss.dice_cross_entropy, jnp.array([0.5, 0.3, 0.0]))
    np.testing.assert_allclose(compiled(by_option)(outputs, labels, axis=axis), expected, 1e-6)
    one_hot = jax.nn.one_hot(labels, 3, axis=axis)
    soft = compiled(by_option)(outputs, one_hot, axis=axis, activation="softmax")
    np.testing.assert_allclose(soft, expected, 1e-5)


def test_deep_supervision_resizes_masks():
    outputs, labels, small = _pyramid(-1)
    rng = np.random.default_rng(1)
    where, weights = rng.random((2, 8, 6)) < 0.7, rng.random((2, 1, 6, 1))
    loss = jaxloss.deep_supervision(jaxloss.dice_cross_entropy, [1.0, 1.0, 1.0])
    value = compiled(loss)(outputs, labels, where=where, weights=weights[..., 0], smooth=0.1)
    expected = 0
    for output, target in zip(outputs, small, strict=True):
        rows, columns = (_index(n, m) for n, m in zip((8, 6), output.shape[1:3], strict=True))
        masks = {
            "where": where[:, rows][:, :, columns],
            "weights": weights[..., 0][:, :, columns],
        }
        expected += compiled(jaxloss.dice_cross_entropy)(output, target, smooth=0.1, **masks)
    np.testing.assert_allclose(value, expected, 1e-6)
    flat = jaxloss.deep_supervision(jaxloss.dice, [1.0])
    full = compiled(flat)(
        outputs[1:2],
        jax.nn.one_hot(labels, 3),
        weights=weights,  # of the logits' rank
    )
    np.testing.assert_allclose(
        full,
        compiled(jaxloss.dice)(
            outputs[1], jax.nn.one_hot(small[1], 3), weights=weights[:, :, _index(6, 3)]
        ),
        1e-6,
    )


def test_deep_supervision_of_labels_for_each_output():
    outputs, labels, small = _pyramid(-1)
    loss = jax.jit(jaxloss.deep_supervision(jaxloss.dice_cross_entropy, [0.5, 0.3, 0.2]))
    masks = [y > 0 for y in small]
    np.testing.assert_allclose(loss(outputs, small), loss(outputs, labels), 1e-6)
    np.testing.assert_allclose(
        loss(outputs, tuple(small), where=masks, weights=[1 + y for y in small]),
        loss(outputs, labels, where=labels > 0, weights=1 + labels),
        1e-6,
    )


def test_deep_supervision_traces_weights_and_differentiates_outputs_and_labels():
    outputs, labels, _ = _pyramid(-1)
    soft = jax.nn.one_hot(labels, 3) * 0.8 + 0.1

    @jax.jit
    def run(outputs, soft, weights):
        return jaxloss.deep_supervision(jaxloss.dice, list(weights))(outputs, soft)

    weights = jnp.array([0.5, 0.3, 0.2])
    slopes = jax.grad(run, argnums=(0, 1, 2))(outputs, soft, weights)
    each = [run(outputs, soft, row) for row in jnp.eye(3)]
    np.testing.assert_allclose(slopes[2], each, 1e-6)
    assert all(slope.any() for slope in slopes[0])
    step = 1e-2 * slopes[1] / jnp.vdot(slopes[1], slopes[1])
    change = run(outputs, soft + step, weights) - run(outputs, soft - step, weights)
    np.testing.assert_allclose(change, 2e-2, 1e-2)


def test_deep_supervision_of_a_loss_with_parts():
    outputs, labels, small = _pyramid(-1)
    loss = jaxloss.deep_supervision(jaxloss.weighted_sum(TERMS), [0.6, 0.4, 0.0])
    total, parts = loss(outputs, labels, axis=-1)
    expected = sum(
        w * compiled(jaxloss.dice)(o, s)
        for w, o, s in zip((0.6, 0.4), outputs[:2], small[:2], strict=True)
    )
    np.testing.assert_allclose(parts["dice"], expected, 1e-6)
    np.testing.assert_allclose(total, 0.5 * parts["dice"] + 2.0 * parts["ce"], 1e-6)


def test_deep_supervision_on_a_mesh_with_explicit_axes():
    outputs, labels, _ = _pyramid(-1)
    outputs, labels = [jnp.tile(o, (2, 1, 1, 1)) for o in outputs], jnp.tile(labels, (2, 1, 1))
    loss = jax.jit(jaxloss.deep_supervision(jaxloss.cross_entropy, [0.5, 0.3, 0.2]))
    expected = loss(outputs, labels)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = jax.NamedSharding(mesh, PartitionSpec("batch"))
        placed = jax.device_put((outputs, labels), sharding)
        np.testing.assert_allclose(loss(*placed), expected, 1e-6)


@pytest.mark.parametrize("axis, shape", [(1, (2, 2, 8, 8)), (None, (2, 8, 8))])
def test_deep_supervision_of_regression_is_told_the_channels(axis, shape):
    """Flow of two channels, or depths without: a loss of regression has no option `axis`."""
    rng = np.random.default_rng(3)
    fine, truth = rng.normal(size=(2, *shape)).astype(np.float32)
    coarse, where = fine[..., ::2, ::2], rng.random(shape) > 0.3
    loss = jaxloss.deep_supervision(jaxloss.l1, [0.8, 0.2])
    found = loss([fine, coarse], truth, axis=axis, where=where)
    rest = jaxloss.l1(coarse, truth[..., 1::2, 1::2], where=where[..., 1::2, 1::2])
    np.testing.assert_allclose(found, 0.8 * jaxloss.l1(fine, truth, where=where) + 0.2 * rest)
    with pytest.raises(ValueError, match="`axis` is not given, expected .*channels"):
        loss([fine, coarse], truth)


def test_deep_supervision_refuses_what_does_not_fit():
    outputs, labels, _ = _pyramid(-1)
    loss = jaxloss.deep_supervision(jaxloss.dice, [1.0, 0.5])
    with _raises(ValueError, "outputs", "3 arrays", "2"):
        loss(outputs, labels)
    with _raises(ValueError, "labels", r"\(8, 6\)", "rank"):
        loss(outputs[:2], labels[0])
    with _raises(ValueError, "where", r"\(1,\)", "rank"):
        loss(outputs[:2], labels, where=np.ones(1, bool))
    with _raises(ValueError, "axis", "9"):
        loss(outputs[:2], labels, axis=9)
    with _raises(ValueError, "outputs", "along axis -1", "did you mean axis=1"):
        loss([jnp.moveaxis(o, -1, 1) for o in outputs[:2]], labels)
    with _raises(ValueError, "outputs", "as many classes"):
        loss([outputs[0], outputs[1][..., :2]], labels)
    with _raises(ValueError, "labels", "3 arrays", "2, one for each output"):
        loss(outputs[:2], [labels] * 3)
    with _raises(ValueError, "labels"):  # of another batch: never resized
        loss(outputs[:2], labels[:1])
    blind = jaxloss.deep_supervision(lambda x, y: compiled(jaxloss.dice)(x, y), [1.0])
    with _raises(ValueError, "axis", "not given", "class axis"):
        blind(outputs[:1], labels)


# ---- uncertainty_weighted --------------------------------------------------------------------


@pytest.mark.parametrize(
    "losses, s, expected",
    [
        ([1.0], [0.0], 0.5),
        ([2.0, 3.0], [0.0, 0.0], 2.5),
        ([2.0, 3.0], [math.log(2), math.log(3)], 1 + math.log(6) / 2),
        ({"b": 1.0, "a": 4.0}, {"a": math.log(4), "b": 0.0}, 1 + math.log(4) / 2),
        (np.array([-1.0, 1.0]), np.array([1.0, -1.0]), (math.e - 1 / math.e) / 2),
    ],
)
def test_uncertainty_weighted_closed_form(losses, s, expected):
    np.testing.assert_allclose(jaxloss.uncertainty_weighted(losses, s), expected, 1e-6)


def test_uncertainty_weighted_is_least_at_the_log_of_the_loss():
    losses = {"a": jnp.float32(0.3), "b": jnp.float32(7.0)}
    run = jax.jit(jax.grad(jaxloss.uncertainty_weighted, argnums=(0, 1)))
    at = jax.tree.map(jnp.log, losses)
    by_loss, by_s = run(losses, at)
    for slope in jax.tree.leaves(by_s):
        np.testing.assert_allclose(slope, 0, atol=1e-6)
    np.testing.assert_allclose(by_loss["b"], 1 / 14, 1e-5)
    _, by_s = run(losses, jax.tree.map(jnp.zeros_like, losses))
    np.testing.assert_allclose(by_s["a"], (1 - 0.3) / 2, 1e-6)


def test_uncertainty_weighted_in_half_precision_and_far_out():
    value = jaxloss.uncertainty_weighted(jnp.array([2.0], jnp.float16), jnp.array([0.0]))
    assert value.dtype == jnp.float32
    run = jax.value_and_grad(lambda s: jaxloss.uncertainty_weighted([1e-30], [s]))
    value, slope = run(-100.0)  # exp(100) does not fit float32, the product does
    np.testing.assert_allclose(value, math.exp(100) * 1e-30 / 2 - 50, 1e-4)
    np.testing.assert_allclose(slope, -math.exp(100) * 1e-30 / 2, 1e-4)
    value, slope = jax.value_and_grad(lambda s: jaxloss.uncertainty_weighted([0.0], [s]))(-1e4)
    np.testing.assert_allclose((value, slope), (-5e3, 0.5))
