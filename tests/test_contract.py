"""What every loss promises, tested over `jaxloss.__all__` with the cases of the registry.

Compiling costs far more than running, so each sample has a few programs that many tests call with
different data. The tests of one loss run in one process, which compiles them once.
"""

import functools
import inspect
import logging
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from tests.compiling import FUSED, QUICK, quick_jit, usual_jit
from tests.registry import collect, dense

CASES, HELPERS = collect(), collect("HELPERS")
REDUCTIONS = ("mean", "sum", "none")
BATCH = PartitionSpec("batch")
MEASURED = "0.10.2"  # the JAX whose temporary memory the bounds of the cases are


def _together(name, *values, marks=(), **keywords):
    """A row of a parametrised test, in the process of all tests of that loss."""
    return pytest.param(name, *values, marks=[pytest.mark.xdist_group(name), *marks], **keywords)


def _leads(case, sample):
    """Whether a sample is the first of its form: ids, or targets of the prediction's shape."""
    return sample is next(s for s in case.samples if s.has_ids == sample.has_ids)


# Losses whose computation has a shape of its own: a primitive, a loop, a sort, a window, a map.
HEADS = [
    "l2",
    "cross_entropy",
    "binary_cross_entropy",
    "focal",
    "top_k_cross_entropy",
    "seesaw",
    "dice",
    "lovasz_softmax",
    "cldice",
    "boundary",
    "dice_cross_entropy",
    "ciou",
]


def _names(chosen=lambda name: True, long=lambda name: False):
    """Names for a test; those that are `long` run with `--all` only."""
    rows = [
        _together(name, marks=[pytest.mark.slow] if long(name) else [])
        for name in CASES
        if chosen(name)
    ]
    return pytest.mark.parametrize("name", rows)


def _rows(chosen=lambda case, sample: True, long=lambda name, sample: False):
    """Names and samples for a test; those that are `long` run with `--all` only."""
    rows = [
        _together(
            name,
            sample,
            id=f"{name}-{sample.name}",
            marks=[pytest.mark.slow] if long(name, sample) else [],
        )
        for name, case in CASES.items()
        for sample in case.samples
        if chosen(case, sample)
    ]
    return pytest.mark.parametrize("name, sample", rows)


def _first(name):
    return CASES[name].samples[0]


def _follows(name, sample):
    """Whether a sample is neither the first, nor the first of its form for one of the kinds."""
    lead = _leads(CASES[name], sample) if name in HEADS else sample is _first(name)
    return not lead


# What a loss computes itself is tested for each in every run; what it leaves to `_core` (axes,
# meshes, transforms, dtypes) for one loss of each kind in every run, and for all with `--all`.
def _shared(name, sample=None):
    return name not in HEADS


every_loss = _names()
every_module = _names(long=_shared)
every_sample = _rows(long=lambda name, sample: _follows(name, sample))
every_form = _rows(_leads, _shared)
every_form_with_ids = _rows(lambda case, sample: sample.has_ids and _leads(case, sample), _shared)


def _reductions(name):
    return REDUCTIONS[:2] if name in vars(jaxloss._compound) else REDUCTIONS


def _arguments(sample, dtype=jnp.float32):
    """Prediction and target as arrays: floats in `dtype`, ids in int32."""
    target = jnp.asarray(sample.target, jnp.int32 if sample.has_ids else dtype)
    return jnp.asarray(sample.prediction, dtype), target


def _loss(name, sample, **options):
    return functools.partial(getattr(jaxloss, name), **(sample.options | options))


def _mask(sample, seed=3):
    """A mask that leaves some positions of every image and drops others."""
    mask = np.random.default_rng(seed).random(sample.positions) < 0.6
    if mask.ndim > 1:
        mask[:, 0], mask[:, 1, 0] = True, False
    return mask


class Inputs(NamedTuple):
    """All that a loss may depend on, in NumPy and float64.

    `floats` holds every array that has a derivative: the prediction, a float target, weights, class
    weights and the numeric options.
    """

    floats: dict
    ids: np.ndarray | None
    where: np.ndarray

    def moved(self, direction, step):
        """The inputs a step further along a direction of all floats."""
        floats = {key: x + step * direction[key] for key, x in self.floats.items()}
        return self._replace(floats=floats)

    def having(self, **floats):
        """The inputs with other floats."""
        return self._replace(floats=self.floats | floats)


def _inputs(name, sample):
    """Inputs with a mask, weights and numeric options."""
    rng = np.random.default_rng(7)
    floats = {
        "prediction": sample.prediction,
        "weights": sample.options.get("weights", rng.uniform(0.5, 2, sample.positions)),
        **_parameters(name, sample),
    }
    if sample.axis is not None:
        floats["class_weights"] = rng.uniform(0.5, 2, sample.prediction.shape[sample.axis])
    if not sample.has_ids:
        floats["target"] = sample.target
    ids = sample.target if sample.has_ids else None
    return Inputs({key: np.float64(x) for key, x in floats.items()}, ids, _mask(sample))


def _parameters(name, sample):
    """The numeric options that a sample may vary: its own value, or one inside the range."""
    return {
        option: sample.options.get(option) or inside  # not 0, which may be the end of the range
        for option, (inside, _) in CASES[name].parameters.items()
        if np.ndim(sample.options.get(option, 0)) == 0
    }


def _of_inputs(name, sample):
    """The loss as a function of all its floats, ids and mask."""

    def loss(floats, ids, where, reduction):
        named = sample.options | floats
        pair = named.pop("prediction"), ids if sample.has_ids else named.pop("target")
        return getattr(jaxloss, name)(*pair, where=where, reduction=reduction, **named)

    return loss


def _direction(inputs):
    """A random direction of all floats, along which hard targets stay as they are."""
    rng = np.random.default_rng(11)
    return {key: rng.normal(size=x.shape) for key, x in inputs.floats.items()}


class Result(NamedTuple):
    """What the full program of a sample returns, `mean` differentiated."""

    values: dict
    gradient: dict
    forward: np.ndarray


@functools.cache
def _full(name, index):
    """Every reduction, the gradient by all floats and the derivative along a direction.

    Compiled once, in float64, with `where`, `weights`, `class_weights` and all numeric options.
    """
    loss = _of_inputs(name, CASES[name].samples[index])

    @quick_jit
    def run(inputs, direction):
        floats, ids, where = inputs
        mean = lambda floats: loss(floats, ids, where, "mean")
        value, forward = jax.jvp(mean, (floats,), (direction,))
        others = {r: loss(floats, ids, where, r) for r in _reductions(name) if r != "mean"}
        return Result({"mean": value, **others}, jax.grad(mean)(floats), forward)

    def call(inputs):
        with jax.enable_x64(True):
            return jax.device_get(run(inputs, _direction(inputs)))

    return call


def _program(name, sample):
    """The full program of a sample and its inputs."""
    index = next(i for i, s in enumerate(CASES[name].samples) if s is sample)
    return _full(name, index), _inputs(name, sample)


@functools.cache
def _plain(name, index=0):
    """Value and gradient of a sample's call as it is, compiled for float32."""
    return jax.jit(jax.value_and_grad(_loss(name, CASES[name].samples[index])))


def _run(name, sample, **options):
    """Value and gradient, compiled."""
    return jax.jit(jax.value_and_grad(_loss(name, sample, **options)))


def test_every_public_name_has_a_case():
    assert set(CASES) | set(HELPERS) == set(jaxloss.__all__)
    assert not set(CASES) & set(HELPERS)


def _assert_oracle(name, sample, values, **options):
    for reduction, value in values.items():
        expected = CASES[name].oracle(
            sample.prediction, sample.target, reduction=reduction, **(sample.options | options)
        )
        assert value.shape == np.shape(expected)
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


@every_sample
def test_value_equals_the_oracle(name, sample):
    """Every reduction, as it is and with all masks, weights and options, in float64."""
    with jax.enable_x64(True):
        pair = _arguments(sample, jnp.float64)
        run = lambda *pair: {r: _loss(name, sample, reduction=r)(*pair) for r in _reductions(name)}
        _assert_oracle(name, sample, jax.jit(run)(*pair))
    program, inputs = _program(name, sample)
    options = {k: v for k, v in inputs.floats.items() if k not in ("prediction", "target")}
    _assert_oracle(name, sample, program(inputs).values, where=inputs.where, **options)


@every_sample
def test_first_derivatives(name, sample):
    """By every float argument, forward and reverse, against differences of values in float64.

    Where a factor is detached, the prediction's gradient is compared with the oracle's instead.
    """
    case = CASES[name]
    program, inputs = _program(name, sample)
    result = program(inputs)
    direction = _direction(inputs)
    reverse = sum(np.vdot(result.gradient[key], direction[key]) for key in direction)
    np.testing.assert_allclose(result.forward, reverse, rtol=1e-9, atol=1e-12)
    if case.derivative == "detached":
        with jax.enable_x64(True):
            gradient = jax.jit(jax.grad(_loss(name, sample, reduction="sum")))
            value = gradient(*_arguments(sample, jnp.float64))
        expected = case.gradient(sample.prediction, sample.target, **sample.options)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8)
        return
    step = 1e-5
    up, down = (program(inputs.moved(direction, s)).values["mean"] for s in (step, -step))
    np.testing.assert_allclose(result.forward, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


@every_module
def test_second_derivatives(name):
    """By every float argument, forward and reverse over reverse, against differences of gradients.

    In float64, with masks, weights and all numeric options.
    """
    if CASES[name].derivative != "smooth":
        return
    sample = _first(name)
    program, inputs = _program(name, sample)
    loss = _of_inputs(name, sample)
    direction = _direction(inputs)

    @jax.jit
    def second(inputs, direction):
        floats, ids, where = inputs
        gradient = jax.grad(lambda floats: loss(floats, ids, where, "mean"))
        along = lambda floats: sum(
            map(jnp.vdot, *map(jax.tree.leaves, (gradient(floats), direction)))
        )
        return jax.jvp(gradient, (floats,), (direction,))[1], jax.grad(along)(floats)

    with jax.enable_x64(True):
        forward, reverse = jax.device_get(second(inputs, direction))
    step = 1e-5
    up, down = (program(inputs.moved(direction, s)).gradient for s in (step, -step))
    for key in forward:
        expected = (up[key] - down[key]) / (2 * step)
        np.testing.assert_allclose(forward[key], expected, rtol=1e-5, atol=1e-7, err_msg=key)
        np.testing.assert_allclose(reverse[key], forward[key], rtol=1e-7, atol=1e-9, err_msg=key)


@every_sample
def test_masked_slots_leak_nothing(name, sample):
    """Garbage in predictions, targets and weights of masked positions changes nothing."""
    program, inputs = _program(name, sample)
    mask = inputs.where
    slots = mask.reshape(mask.shape + (1,) * sample.inner)
    if slots.ndim < sample.prediction.ndim:
        slots = np.expand_dims(slots, sample.axis)
    target_slots = mask if sample.target.ndim == mask.ndim else slots

    def planted(garbage, label):
        floats = dict(inputs.floats)
        kept = {"prediction": slots, "target": target_slots}
        if floats["weights"].shape == mask.shape:  # those of ms_ssim are of its scales
            kept["weights"] = mask
        for key in kept.keys() & floats.keys():
            floats[key] = np.where(kept[key], floats[key], garbage)
        ids = None if inputs.ids is None else np.where(mask, inputs.ids, np.int32(label))
        return program(inputs._replace(floats=floats, ids=ids))

    clean = planted(0.5, 0)
    assert not np.where(slots, 0, clean.gradient["prediction"]).any()
    for garbage, label in ((np.nan, -7), (np.inf, 3), (-np.inf, 255)):
        jax.tree.map(np.testing.assert_array_equal, planted(garbage, label), clean)


@every_sample
def test_nothing_valid_is_zero_with_zero_gradient(name, sample):
    program, inputs = _program(name, sample)
    nothing = inputs._replace(where=np.zeros_like(inputs.where))
    for empty in (nothing, inputs.having(weights=np.zeros_like(inputs.floats["weights"]))):
        result = program(empty)
        assert result.values["mean"] == 0
        assert not result.gradient["prediction"].any()
    for leaf in jax.tree.leaves(program(nothing)):
        assert not leaf.any()


@every_sample
def test_numbers_out_of_their_range_are_nan(name, sample):
    """Traced, where nobody can raise."""
    program, inputs = _program(name, sample)
    for option, (_, outside) in CASES[name].parameters.items():
        if outside is None or option not in inputs.floats:
            continue
        value = program(inputs.having(**{option: np.float64(outside)})).values["mean"]
        assert np.isnan(value), option


@_rows(
    lambda case, sample: sample.has_ids,
    lambda name, sample: _follows(name, sample),
)
def test_bad_ids_are_nan_there_and_only_there(name, sample):
    """Elsewhere, and in other images of a region loss, value and gradient stay finite."""
    program, inputs = _program(name, sample)
    at = (1,) + (0,) * (inputs.ids.ndim - 1)
    per_image = sample.options.get("per_image", True)
    for bad in (-1, 3, 255, -100):
        ids, where = inputs.ids.copy(), inputs.where.copy()
        ids[at], where[at] = bad, True
        result = program(inputs._replace(ids=ids, where=where))
        assert np.isnan(result.values["mean"])
        gradient = np.moveaxis(result.gradient["prediction"], sample.axis, -1)
        assert np.isnan(gradient[at]).all()
        if per_image:
            assert np.isfinite(np.delete(gradient, 1, axis=0)).all()
        if per_image and "none" in result.values:
            finite = np.isfinite(result.values["none"])
            assert not finite[1].all()
            assert np.delete(finite, 1, axis=0).all()


@every_form_with_ids
def test_ignored_ids_equal_a_mask(name, sample):
    prediction, target = _arguments(sample)
    mask = _mask(sample)
    marked = jnp.where(mask, target, 255).astype(jnp.uint8)
    run = jax.jit(
        lambda x, marked, where: (
            jax.value_and_grad(_loss(name, sample, ignore_index=255))(x, marked),
            jax.value_and_grad(_loss(name, sample, where=where))(x, target),
        )
    )
    (value, gradient), expected = run(prediction, marked, mask)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)
    (value, gradient), _ = run(prediction, jnp.full_like(marked, 255), mask)
    assert value == 0
    assert not gradient.any()


@every_form_with_ids
def test_ids_equal_their_one_hot(name, sample):
    prediction, target = _arguments(sample)
    one_hot = jnp.asarray(dense(sample.target, sample.prediction, sample.axis), jnp.float32)
    parameters = inspect.signature(getattr(jaxloss, name)).parameters
    default = parameters["activation"].default if "activation" in parameters else None
    options = {"activation": "softmax"} if default in ("auto", "softmax") else {}
    if sample.options.get("activation", "auto") != "auto":
        options = {}
    loss = _loss(name, sample, **options)
    run = jax.jit(
        lambda x, *labels: (
            [jax.value_and_grad(loss)(x, y) for y in labels[:2]],
            [loss(x, y) for y in labels[2:]],
        )
    )
    ids_and_floats, others = run(
        prediction, target, one_hot, one_hot.astype(bool), one_hot.astype(jnp.uint8)
    )
    (value, gradient), (dense_value, dense_gradient) = ids_and_floats
    np.testing.assert_allclose([dense_value, *others], [value] * 3, rtol=2e-6)
    # Small entries of the dense form are differences of larger ones: exact to a rounding of those.
    rounding = np.finfo(np.float32).eps * np.abs(gradient).max()
    np.testing.assert_allclose(dense_gradient, gradient, rtol=1e-5, atol=rounding)


@every_form
def test_dtypes(name, sample):
    """Half precision computes and returns float32; the gradient has the input's dtype.

    Compiled as users do.
    """
    reference = CASES[name].oracle(sample.prediction, sample.target, **sample.options)
    dtypes = {"float16": 2e-2, "bfloat16": 8e-2, "float32": 5e-6}
    pairs = {dtype: _arguments(sample, dtype) for dtype in dtypes}
    loss = jax.value_and_grad(_loss(name, sample))
    run = usual_jit(lambda pairs: {dtype: loss(*pair) for dtype, pair in pairs.items()})
    results = run(pairs)
    for dtype, (value, gradient) in results.items():
        assert value.dtype == jnp.float32
        assert gradient.dtype == dtype
        tolerance = dtypes[dtype]
        np.testing.assert_allclose(value, reference, rtol=tolerance, atol=tolerance)


@every_module
def test_transforms_change_nothing(name):
    """vmap, scan and remat; forward and linearised derivatives."""
    sample = _first(name)
    prediction, target = pair = _arguments(sample)
    loss = _loss(name, sample)
    both = jax.value_and_grad(loss)
    slope = jnp.asarray(np.random.default_rng(1).normal(size=prediction.shape), jnp.float32)

    @jax.jit
    def run(pair, stacked):
        alone = lambda x: loss(x, target)
        mapped = jax.tree.map(lambda x: x[1], jax.vmap(both)(*stacked))
        scanned = jax.lax.scan(lambda c, x: (c, both(*x)), 0, stacked)[1]
        checkpointed = jax.value_and_grad(jax.checkpoint(loss))(*pair)
        forward = jax.jvp(alone, (pair[0],), (slope,))[1]
        linear = jax.linearize(alone, pair[0])[1](slope)
        others = (mapped, jax.tree.map(lambda x: x[1], scanned), checkpointed)
        return others, forward, linear

    value, gradient = _plain(name)(*pair)
    others, forward, linear = run(pair, jax.tree.map(lambda x: jnp.stack([x, x]), pair))
    for other in others:
        np.testing.assert_allclose(other[0], value, rtol=2e-6, atol=1e-7)
        np.testing.assert_allclose(other[1], gradient, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(forward, jnp.vdot(gradient, slope), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(linear, forward, rtol=1e-5, atol=1e-7)


@every_module
def test_sharded_over_devices(name):
    """`axis_name` makes value and replicated gradient those of the whole batch."""
    sample = _first(name)
    prediction, target = pair = _arguments(sample)
    mask = _mask(sample)

    def loss(scale, prediction, target, **options):
        return _loss(name, sample, **options)(prediction * scale, target)

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,)),
        in_specs=(PartitionSpec(), BATCH, BATCH, BATCH),
        out_specs=PartitionSpec(),
    )
    def parts(scale, prediction, target, mask):
        whole = jax.value_and_grad(functools.partial(loss, axis_name="batch"))
        masked = jax.value_and_grad(functools.partial(loss, axis_name="batch", where=mask))
        return whole(scale, prediction, target), masked(scale, prediction, target)

    runs = _plain(name), _run(name, sample, where=mask)
    sharded = parts(jnp.float32(1), *pair, mask)
    for (value, slope), run in zip(sharded, runs, strict=True):
        expected, gradient = run(*pair)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(slope, jnp.vdot(gradient, prediction), rtol=1e-4, atol=1e-6)


@every_module
def test_mesh_with_explicit_axes(name):
    sample = _first(name)
    pair = _arguments(sample)
    expected = _plain(name)(*pair)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = (jax.device_put(x, NamedSharding(mesh, BATCH)) for x in pair)
        value, gradient = jax.jit(jax.value_and_grad(_loss(name, sample)))(*placed)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.rows(20)
@every_loss
def test_x64_changes_nothing(name):
    """With 64-bit types switched on, float32 data is computed in float32 throughout."""
    sample = _first(name)
    pair = _arguments(sample)
    with jax.enable_x64(True):
        run = jax.value_and_grad(_loss(name, sample))
        assert {x.dtype for x in jax.eval_shape(run, *pair)} == {np.dtype(np.float32)}
        program = str(jax.make_jaxpr(run)(*pair))
    assert "f32[" in program
    wide = [line for line in program.splitlines() if re.search(r"f64\[\d", line)]
    assert not wide


@_names(lambda name: _first(name).axis is not None, _shared)
def test_every_class_axis(name):
    sample = _first(name)
    pair = _arguments(sample)
    axes = range(pair[0].ndim - 1)

    def moved(prediction, target, axis):
        aim = target if sample.has_ids else jnp.moveaxis(target, -1, axis)
        run = jax.value_and_grad(functools.partial(_loss(name, sample), axis=axis))
        value, gradient = run(jnp.moveaxis(prediction, -1, axis), aim)
        return value, jnp.moveaxis(gradient, axis, -1)

    value, gradient = _plain(name)(*pair)
    for other in jax.jit(lambda *pair: [moved(*pair, axis) for axis in axes])(*pair):
        np.testing.assert_allclose(other[0], value, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(other[1], gradient, rtol=1e-4, atol=1e-7)


@every_loss
def test_invalid_calls_raise_while_tracing(name):
    _assert_raises(name, CASES[name].invalid)


def _assert_raises(name, calls):
    function = getattr(jaxloss, name)
    for call in calls:
        with pytest.raises(call.error) as caught:
            jax.eval_shape(functools.partial(function, **call.options), *call.arguments)
        for word in (rf"jaxloss\.{name}:", *call.words, "expected"):
            assert re.search(word, str(caught.value)), (word, str(caught.value))


@every_module
def test_exports_to_every_platform(name):
    pair = _arguments(_first(name))
    run = _plain(name)
    exported = jax.export.export(run, platforms=("cpu", "cuda", "rocm", "tpu"))(*pair)
    value, gradient = exported.call(*pair)
    expected = run(*pair)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@every_module
def test_one_trace_and_no_callback_or_transfer(name):
    sample = _first(name)
    pair = _arguments(sample)
    loss = _loss(name, sample)
    assert "callback" not in str(jax.make_jaxpr(jax.grad(loss))(*pair))
    run = _plain(name)
    jax.block_until_ready(run(*pair))
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(run(*pair))
    assert run._cache_size() == 1


@every_module
def test_eager_calls(name, caplog):
    """NumPy arrays and lists are taken too; a second call compiles nothing."""
    sample = _first(name)
    expected, _ = _plain(name)(*_arguments(sample))
    prediction, target = sample.prediction.astype(np.float32), sample.target
    loss = functools.partial(getattr(jaxloss, name), **sample.options)
    np.testing.assert_allclose(loss(prediction, target), expected, rtol=2e-6, atol=1e-7)
    lists = loss(prediction.tolist(), target.tolist())
    np.testing.assert_allclose(lists, expected, rtol=2e-6, atol=1e-7)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        loss(prediction, target)
    assert "Compiling" not in caplog.text


@every_module
def test_empty_batches_cost_nothing(name):
    sample = _first(name)
    prediction, target = (x[:0] for x in _arguments(sample))
    value, gradient = _run(name, sample)(prediction, target)
    assert value == 0
    assert gradient.shape == prediction.shape


@every_loss
def test_temporaries_of_the_compiled_program_do_not_grow(name, monkeypatch):
    """Value and gradient on a CPU at 4 x 256 x 256 x 21, temporary bytes over the prediction's."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # several have fewer, larger chunks
    sample = _first(name)
    numbers = sample.prediction.shape[-1]  # of a box 4 or 5
    shape = (4, 25_000, numbers) if sample.inner and numbers in (4, 5) else (4, 256, 256, 21)
    same = sample.target.ndim == sample.prediction.ndim
    target = jax.ShapeDtypeStruct(
        shape if same else shape[:-1], jnp.int32 if sample.has_ids else jnp.float32
    )
    prediction = jax.ShapeDtypeStruct(shape, jnp.float32)
    options = {
        key: np.resize(value, shape[-1:] * value.ndim) if isinstance(value, np.ndarray) else value
        for key, value in sample.options.items()
        if key != "axis"
    }
    loss = functools.partial(getattr(jaxloss, name), **options)
    # Fused as users' programs are: what is fused needs no memory.
    run = jax.jit(jax.value_and_grad(loss), compiler_options=QUICK | FUSED)
    compiled = run.lower(prediction, target).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes / (4 * np.prod(shape))
    # Other compilers fuse otherwise: there a program must only not become another one.
    bound = CASES[name].temporary * (1 if jax.__version__ == MEASURED else 2)
    assert temporary <= bound, temporary


def _leaves(tree, dtype):
    return jax.tree.map(
        lambda x: jnp.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else jnp.asarray(x), tree
    )


@pytest.mark.parametrize("name", [_together(n) for n in HELPERS if HELPERS[n].oracle is not None])
def test_helpers_equal_their_oracles(name):
    """In float64, compiled; in float32, without."""
    helper, function = HELPERS[name], getattr(jaxloss, name)
    for arguments, options in helper.calls:
        expected = helper.oracle(*arguments, **options)
        with jax.enable_x64(True):
            run = jax.jit(functools.partial(function, **options))
            value = run(*_leaves(arguments, jnp.float64))
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
        value = function(*_leaves(arguments, jnp.float32), **options)
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", [_together(n) for n in HELPERS])
def test_invalid_calls_of_helpers_raise(name):
    _assert_raises(name, HELPERS[name].invalid)
