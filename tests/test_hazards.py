"""One test for each public bug report about another library that a loss here could repeat.

A test is named after the report: project, number of the issue or pull request, and what must hold.
Those without a number guard against a fault that was reproduced in that project, or read in its
source. Many inputs go as rows through one compiled call. What belongs to one family lies in its
folder; here is what holds for several.
"""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss._core import numerics
from tests.hazards import (
    BOXES,
    ELEMENT,
    HALVES,
    IMAGES,
    LABELLED,
    NAN,
    POSITION,
    SAMPLES,
    array,
    assert_finite,
    masked,
    slots,
)

EVERY = [name for name in SAMPLES if "-" not in name]
# A pixel that is masked belongs to no class in a distance map, unlike one of weight 0.
COMPRESSIBLE = [name for name in EVERY if name != "boundary"]
every_loss = pytest.mark.parametrize("name", EVERY)


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
    compiled = jax.jit(loss)(x, y)
    with jax.disable_jit():
        np.testing.assert_allclose(compiled, loss(x, y), rtol=1e-6)


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
