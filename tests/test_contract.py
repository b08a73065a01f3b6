"""What every loss promises, tested over `jaxloss.__all__` with the cases of the registry."""

import ast
import functools
import inspect
import logging
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

import jaxloss
from tests.registry import collect, dense

CASES = collect()
every_loss = pytest.mark.parametrize("name", jaxloss.__all__)
REDUCTIONS = ("mean", "sum", "none")
BATCH = PartitionSpec("batch")


def _leads(case, sample):
    """Whether a sample is the first of its form: ids, or targets of the prediction's shape."""
    return sample is next(s for s in case.samples if s.has_ids == sample.has_ids)


def _rows(chosen=lambda sample: True, long=lambda case, sample: False):
    """Names and samples for a test; those that are `long` run with `--all` only."""
    return pytest.mark.parametrize(
        "name, sample",
        [
            pytest.param(
                name,
                sample,
                id=f"{name}-{sample.name}",
                marks=[pytest.mark.slow] if long(case, sample) else [],
            )
            for name, case in CASES.items()
            for sample in case.samples
            if chosen(sample)
        ],
    )


def _follows(case, sample):
    return not _leads(case, sample)


every_sample = _rows()
every_form = _rows(long=_follows)
every_form_with_ids = _rows(lambda sample: sample.has_ids, _follows)


def _reductions(name):
    return REDUCTIONS[:2] if name == "dice_cross_entropy" else REDUCTIONS


def _first(name):
    return CASES[name].samples[0]


def _arguments(sample, dtype=jnp.float32):
    """Prediction and target as arrays: floats in `dtype`, ids in int32."""
    target = jnp.asarray(sample.target, jnp.int32 if sample.has_ids else dtype)
    return jnp.asarray(sample.prediction, dtype), target


def _loss(name, sample, **options):
    return functools.partial(getattr(jaxloss, name), **(sample.options | options))


def _run(name, sample, **options):
    """Value and gradient, compiled."""
    return jax.jit(jax.value_and_grad(_loss(name, sample, **options)))


def _mask(sample, seed=3):
    """A mask that leaves some positions of every image and drops others."""
    mask = np.random.default_rng(seed).random(sample.positions) < 0.6
    if mask.ndim > 1:
        mask[:, 0], mask[:, 1, 0] = True, False
    return mask


def test_every_public_name_has_a_case():
    assert set(CASES) == set(jaxloss.__all__)


@every_sample
def test_value_equals_the_oracle(name, sample):
    """Every reduction, plain and with every kind of mask and weight, in float64."""
    rng = np.random.default_rng(5)
    full = {"where": _mask(sample), "weights": rng.uniform(0.2, 2, sample.positions)}
    if sample.axis is not None:
        full["class_weights"] = rng.uniform(0.2, 2, sample.prediction.shape[sample.axis])
    single = [{key: value} for key, value in full.items()] if sample is _first(name) else []
    with jax.enable_x64(True):
        pair = _arguments(sample, jnp.float64)
        for extra in ({}, *single, full):
            run = jax.jit(
                lambda *pair, extra=extra: [
                    _loss(name, sample, reduction=r, **extra)(*pair) for r in _reductions(name)
                ]
            )
            for reduction, value in zip(_reductions(name), run(*pair), strict=True):
                expected = CASES[name].oracle(
                    sample.prediction, sample.target, reduction=reduction, **sample.options, **extra
                )
                assert value.shape == np.shape(expected)
                np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


@every_sample
def test_gradients_of_every_float_argument(name, sample):
    """Numerical derivatives, forward and reverse, in float64; detached factors held constant."""
    case = CASES[name]
    if case.derivative == "detached":
        with jax.enable_x64(True):
            gradient = jax.grad(_loss(name, sample, reduction="sum"))
            value = gradient(*_arguments(sample, jnp.float64))
        expected = case.gradient(sample.prediction, sample.target, **sample.options)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8)
        return
    loss, arguments = _of_floats(name, sample)
    with jax.enable_x64(True):
        check_grads(jax.jit(loss), arguments, order=1, rtol=1e-5, atol=1e-6)


@_rows(long=lambda case, sample: sample is not case.samples[0])
def test_second_derivatives(name, sample):
    """Forward and reverse over reverse, with respect to the prediction, in float64."""
    if CASES[name].derivative != "smooth":
        return
    loss, (prediction, floats) = _of_floats(name, sample)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda x: loss(x, floats)))
        check_grads(gradient, (prediction,), order=1, rtol=1e-5, atol=1e-6)


def _of_floats(name, sample):
    """The loss as a function of its prediction and a dictionary of all other float arguments."""
    with jax.enable_x64(True):
        prediction, target = _arguments(sample, jnp.float64)
        rng = np.random.default_rng(7)
        floats = {"weights": jnp.asarray(rng.uniform(0.5, 2, sample.positions))}
        for option, (inside, _) in CASES[name].parameters.items():
            if np.ndim(sample.options.get(option, 0)) == 0:
                floats[option] = jnp.float64(inside)
        if sample.axis is not None:
            classes = sample.prediction.shape[sample.axis]
            floats["class_weights"] = jnp.asarray(rng.uniform(0.5, 2, classes))
    if not sample.has_ids and name != "boundary":
        floats["target"] = target
    fixed = {k: v for k, v in sample.options.items() if k not in floats}

    def loss(prediction, floats):
        named = dict(floats)
        aim = named.pop("target", target)
        return getattr(jaxloss, name)(prediction, aim, **fixed, **named)

    return loss, (prediction, floats)


@every_loss
def test_transforms_change_nothing(name):
    sample = _first(name)
    pair = _arguments(sample)
    loss = _loss(name, sample)
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), pair)
    both = _run(name, sample)
    value, gradient = both(*pair)
    scanned = jax.jit(lambda xs: jax.lax.scan(lambda c, x: (c, both(*x)), 0, xs)[1])(stacked)
    for other in (
        (loss(*pair), gradient),  # without jit
        jax.tree.map(lambda x: x[1], jax.vmap(both)(*stacked)),
        jax.tree.map(lambda x: x[1], scanned),
        jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(*pair),
    ):
        np.testing.assert_allclose(other[0], value, rtol=2e-6, atol=1e-7)
        np.testing.assert_allclose(other[1], gradient, rtol=2e-5, atol=1e-7)


@every_loss
def test_forward_and_reverse_agree(name):
    sample = _first(name)
    prediction, target = _arguments(sample)
    loss = jax.jit(lambda x: _loss(name, sample)(x, target))
    direction = jnp.asarray(np.random.default_rng(1).normal(size=prediction.shape), jnp.float32)
    forward = jax.jvp(loss, (prediction,), (direction,))[1]
    linear = jax.linearize(loss, prediction)[1](direction)
    reverse = jnp.vdot(jax.grad(loss)(prediction), direction)
    np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(linear, forward, rtol=1e-5, atol=1e-7)


@every_loss
@pytest.mark.parametrize("masked", [True, False])
def test_sharded_over_devices(name, masked):
    """`axis_name` makes value and replicated gradient those of the whole batch."""
    sample = _first(name)
    pair = _arguments(sample)
    mask = _mask(sample)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))

    def loss(scale, prediction, target, mask, **options):
        options |= {"where": mask} if masked else {}
        return _loss(name, sample, **options)(prediction * scale, target)

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), BATCH, BATCH, BATCH),
        out_specs=PartitionSpec(),
    )
    def parts(*arguments):
        return jax.value_and_grad(functools.partial(loss, axis_name="batch"))(*arguments)

    arguments = (jnp.float32(1.3), *pair, mask)
    value, gradient = jax.jit(jax.value_and_grad(loss))(*arguments)
    sharded = parts(*arguments)
    np.testing.assert_allclose(sharded[0], value, rtol=1e-5)
    np.testing.assert_allclose(sharded[1], gradient, rtol=1e-4, atol=1e-7)


@every_loss
def test_mesh_with_explicit_axes(name):
    sample = _first(name)
    pair = _arguments(sample)
    expected = _run(name, sample)(*pair)
    with jax.set_mesh(jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Explicit,))):
        placed = (
            jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), BATCH)) for x in pair
        )
        value, gradient = jax.jit(jax.value_and_grad(_loss(name, sample)))(*placed)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-7)


@every_form
def test_dtypes(name, sample):
    """Half precision computes and returns float32; the gradient has the input's dtype."""
    reference = CASES[name].oracle(sample.prediction, sample.target, **sample.options)
    for dtype, tolerance in (("float16", 2e-2), ("bfloat16", 8e-2), ("float32", 5e-6)):
        pair = _arguments(sample, dtype)
        value, gradient = _run(name, sample)(*pair)
        assert value.dtype == jnp.float32
        assert gradient.dtype == pair[0].dtype
        np.testing.assert_allclose(value, reference, rtol=tolerance, atol=tolerance)


@every_loss
def test_x64_changes_nothing(name):
    sample = _first(name)
    expected = _run(name, sample)(*_arguments(sample))
    with jax.enable_x64(True):
        value, gradient = _run(name, sample)(*_arguments(sample))
        assert value.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in CASES if _first(n).axis is not None])
def test_every_class_axis(name):
    sample = _first(name)
    prediction, target = _arguments(sample)

    def moved(axis):
        aim = target if sample.has_ids else jnp.moveaxis(target, -1, axis)
        run = jax.jit(jax.value_and_grad(functools.partial(_loss(name, sample), axis=axis)))
        value, gradient = run(jnp.moveaxis(prediction, -1, axis), aim)
        return value, jnp.moveaxis(gradient, axis, -1)

    value, gradient = moved(-1)
    for axis in range(prediction.ndim - 1):
        other = moved(axis)
        np.testing.assert_allclose(other[0], value, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(other[1], gradient, rtol=1e-4, atol=1e-7)


@every_form_with_ids
def test_ids_equal_their_one_hot(name, sample):
    prediction, target = _arguments(sample)
    one_hot = jnp.asarray(dense(sample.target, sample.prediction, sample.axis), jnp.float32)
    choice = "activation" in inspect.signature(getattr(jaxloss, name)).parameters
    options = {"activation": "softmax"} if choice and name != "binary_cross_entropy" else {}
    options = {} if name == "sigmoid_focal" else options
    loss = _run(name, sample, **options)
    expected = loss(prediction, target)
    others = (one_hot.astype(bool), one_hot.astype(jnp.uint8)) if sample is _first(name) else ()
    for labels in (one_hot, *others):
        value, gradient = loss(prediction, labels)
        np.testing.assert_allclose(value, expected[0], rtol=2e-6)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@every_sample
def test_masked_slots_leak_nothing(name, sample):
    """Garbage in predictions, targets and weights of masked positions changes nothing."""
    mask = _mask(sample)
    slots = mask.reshape(mask.shape + (1,) * sample.inner)
    if slots.ndim < sample.prediction.ndim:
        slots = np.expand_dims(slots, sample.axis)
    target_slots = mask if sample.target.ndim == mask.ndim else slots
    weights = np.random.default_rng(2).uniform(0.5, 2, mask.shape)
    run = jax.jit(
        lambda prediction, target, weights: jax.value_and_grad(
            _loss(name, sample, where=mask, weights=weights)
        )(prediction, target)
    )

    def planted(garbage, label):
        dirty = sample._replace(
            prediction=np.where(slots, sample.prediction, garbage),
            target=np.where(target_slots, sample.target, label if sample.has_ids else garbage),
        )
        return run(*_arguments(dirty), jnp.asarray(np.where(mask, weights, garbage), jnp.float32))

    value, gradient = planted(0.5, 0)
    assert not np.where(slots, 0, gradient).any()
    for garbage, label in ((np.nan, -7), (np.inf, 3), (-np.inf, 255)):
        other = planted(garbage, label)
        np.testing.assert_array_equal(other[0], value)
        np.testing.assert_array_equal(other[1], gradient)


@every_form
def test_nothing_valid_is_zero_with_zero_gradient(name, sample):
    prediction, target = _arguments(sample)
    nothing = jnp.zeros(sample.positions, bool)
    runs = [
        lambda x: _loss(name, sample, where=nothing)(x, target),
        lambda x: _loss(name, sample, weights=nothing.astype(jnp.float32))(x, target),
    ]
    if sample.has_ids:
        ignored = jnp.full_like(target, 9)
        runs.append(lambda x: _loss(name, sample, ignore_index=9)(x, ignored))
    for value, gradient in jax.jit(lambda x: [jax.value_and_grad(run)(x) for run in runs])(
        prediction
    ):
        assert value == 0
        assert not gradient.any()


@every_form_with_ids
def test_ignored_ids_equal_a_mask(name, sample):
    prediction, target = _arguments(sample)
    mask = _mask(sample)
    marked = jnp.where(mask, target, 255).astype(jnp.uint8)
    value, gradient = _run(name, sample, ignore_index=255)(prediction, marked)
    expected = _run(name, sample, where=mask)(prediction, target)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)


@every_form_with_ids
def test_bad_ids_are_nan_there_and_only_there(name, sample):
    """Elsewhere, and in other images of a region loss, value and gradient stay finite."""
    prediction, target = _arguments(sample)
    at = (1,) + (0,) * (target.ndim - 1)
    run = _run(name, sample)
    for bad in (-1, 3, 255, -100):
        value, gradient = run(prediction, target.at[at].set(bad))
        assert jnp.isnan(value)
        gradient = jnp.moveaxis(gradient, sample.axis, -1)
        assert jnp.isnan(gradient[at]).all()
        if sample.options.get("per_image", True):
            assert jnp.isfinite(jnp.delete(gradient, 1, axis=0)).all()
    if "none" in _reductions(name) and sample.options.get("per_image", True):
        each = _loss(name, sample, reduction="none")
        finite = jnp.isfinite(jax.jit(each)(prediction, target.at[at].set(-1)))
        assert not finite[1].all()
        assert jnp.delete(finite, 1, axis=0).all()


@every_loss
def test_numbers_may_be_traced(name):
    """A traced option gives the concrete one's value; out of range it gives NaN."""
    sample = _first(name)
    pair = _arguments(sample)
    for option, (inside, outside) in CASES[name].parameters.items():
        run = jax.jit(lambda x, option=option: _loss(name, sample, **{option: x})(*pair))
        np.testing.assert_allclose(
            run(inside), _loss(name, sample, **{option: inside})(*pair), 1e-5
        )
        if outside is None or option == "gate":
            continue
        assert jnp.isnan(run(outside)), option


@every_loss
def test_invalid_calls_raise_while_tracing(name):
    loss = getattr(jaxloss, name)
    for call in CASES[name].invalid:
        with pytest.raises(call.error) as caught:
            jax.eval_shape(functools.partial(loss, **call.options), *call.arguments)
        for word in (rf"jaxloss\.{name}:", *call.words, "expected"):
            assert re.search(word, str(caught.value)), (word, str(caught.value))


@every_loss
def test_exports_to_every_platform(name):
    sample = _first(name)
    run = jax.jit(jax.value_and_grad(_loss(name, sample)))
    exported = jax.export.export(run, platforms=("cpu", "cuda", "rocm", "tpu"))(*_arguments(sample))
    value, gradient = exported.call(*_arguments(sample))
    expected = run(*_arguments(sample))
    np.testing.assert_allclose(value, expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@every_loss
def test_one_trace_and_no_callback_or_transfer(name, caplog):
    sample = _first(name)
    pair = _arguments(sample)
    loss = _loss(name, sample)
    assert "callback" not in str(jax.make_jaxpr(jax.grad(loss))(*pair))
    traces = []

    @jax.jit
    def run(prediction, target):
        traces.append(1)
        return jax.value_and_grad(loss)(prediction, target)

    jax.block_until_ready(run(*pair))
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(run(*pair))
    assert len(traces) == 1
    loss(*pair)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        loss(*pair)
    assert "Compiling" not in caplog.text


@every_loss
def test_python_and_numpy_inputs(name):
    sample = _first(name)
    expected = jax.jit(_loss(name, sample))(*_arguments(sample))
    prediction, target = sample.prediction.astype(np.float32), sample.target
    lists = _loss(name, sample)(prediction.tolist(), target.tolist())
    np.testing.assert_allclose(lists, expected, rtol=1e-6)
    np.testing.assert_allclose(_loss(name, sample)(prediction, target), expected, rtol=1e-6)


@every_loss
def test_empty_batches_cost_nothing(name):
    sample = _first(name)
    prediction, target = (x[:0] for x in _arguments(sample))
    value, gradient = _run(name, sample)(prediction, target)
    assert value == 0
    assert gradient.shape == prediction.shape


@every_loss
def test_temporaries_of_the_compiled_program_do_not_grow(name):
    """Value and gradient on a CPU at 4 x 64 x 64 x 21, temporary bytes over the prediction's."""
    sample = _first(name)
    shape = (100_000, 4) if sample.inner else (4, 64, 64, 21)
    target = jax.ShapeDtypeStruct(
        shape[:-1] if sample.has_ids else shape, jnp.int32 if sample.has_ids else jnp.float32
    )
    prediction = jax.ShapeDtypeStruct(shape, jnp.float32)
    options = {k: v for k, v in sample.options.items() if k != "axis"}
    loss = functools.partial(getattr(jaxloss, name), **options)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(prediction, target).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes / (4 * np.prod(shape))
    assert temporary <= CASES[name].temporary, temporary


@every_loss
def test_signature(name):
    """Data is positional and without default, options are keyword-only and have one."""
    for parameter in inspect.signature(getattr(jaxloss, name)).parameters.values():
        data = parameter.default is parameter.empty
        assert data == (parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
        assert data or parameter.kind is parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    "function",
    [getattr(jaxloss, name) for name in jaxloss.__all__]
    + [getattr(m, n) for m in (jaxloss.distance, jaxloss.geometry) for n in m.__all__],
    ids=lambda function: function.__name__,
)
def test_docstring_has_every_section_in_order(function):
    text = inspect.getdoc(function)
    places = [text.find(s) for s in ("Args:", "Returns:", "Raises:", "Example:", "Reference:")]
    assert -1 not in places
    assert places == sorted(places)
    assert ">>>" in text
    documented = text[places[0] : places[1]]
    for parameter in inspect.signature(function).parameters:
        assert f"\n  {parameter}: " in documented, parameter


FLOORS = (
    {"_core"},
    {"distance", "geometry"},
    {"_boundary", "_boxes", "_distribution", "_region", "_regression"},
    {"_compound"},
)
CORE_FLOORS = (
    {"checks"},
    {"numerics", "lean"},
    {"labels"},
    {"reduction", "sigmoid"},
    {"softmax", "confusion"},
)


def _imports(path):
    """The modules of jaxloss that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxloss":
            if node.module in ("jaxloss", "jaxloss._core"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_modules_import_only_lower_floors():
    root = pathlib.Path(jaxloss.__file__).parent
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        for module in _imports(path):
            target = module.split(".")[1:]
            if path.name == "__init__.py" or not target:
                continue
            if parts[0] == "_core" == target[0]:
                assert _floor(CORE_FLOORS, target[1]) < _floor(CORE_FLOORS, parts[1]), (
                    path,
                    module,
                )
            elif parts[0] != target[0]:
                assert _floor(FLOORS, target[0]) < _floor(FLOORS, parts[0]), (path, module)


def _floor(floors, module):
    return next(i for i, modules in enumerate(floors) if module in modules)


def test_only_checks_imports_chex():
    root = pathlib.Path(jaxloss.__file__).parent
    users = {
        p.name for p in root.rglob("*.py") if re.search(r"\b(import|from) chex", p.read_text())
    }
    assert users == {"checks.py"}
