"""Cross-entropy of a linear layer: oracle, derivatives, transforms, splits over devices."""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from tests.compiling import quick_jit, usual_jit
from tests.distribution.test_cross_entropy import CASES
from tests.registry import Helper, Invalid

N, D, C = (3, 8), 5, 6
P = PartitionSpec
RNG = np.random.default_rng(0)
X, KERNEL = RNG.normal(size=(*N, D)), RNG.normal(size=(D, C))
IDS = RNG.integers(0, C, N).astype(np.int32)
BIAS, CLASS_WEIGHTS = RNG.normal(size=C), RNG.uniform(0.5, 2, C)
WHERE, WEIGHTS = RNG.random(N) < 0.7, RNG.uniform(0.5, 2, N)
NUMBERS = {"label_smoothing": 0.1, "z_loss": 0.01, "soft_cap": 3.0}
ALL = {
    "bias": BIAS,
    "class_weights": CLASS_WEIGHTS,
    "weights": WEIGHTS,
    "where": WHERE,
    **NUMBERS,
}


def _oracle(x, kernel, ids, bias=0.0, soft_cap=None, chunk_size=None, ignore_index=None, **options):
    logits = x @ kernel + bias
    if soft_cap is not None:
        logits = soft_cap * np.tanh(logits / soft_cap)
    if ignore_index is not None:
        options["where"] = options.get("where", True) & (ids != ignore_index)
    return CASES["cross_entropy"].oracle(logits, ids, **options)


DATA = (X, KERNEL, IDS)
HELPERS = {
    "linear_cross_entropy": Helper(
        _oracle,
        (
            (DATA, {}),
            (DATA, {"chunk_size": 5, "reduction": "sum", "ignore_index": 2}),
            (DATA, {"chunk_size": 6, **ALL}),
            (DATA, {"chunk_size": 6, **ALL, "reduction": "none"}),
            ((X[0, :7], KERNEL, IDS[0, :7]), {"chunk_size": 2, "reduction": "none"}),
        ),
        (
            Invalid((X.astype(int), KERNEL, IDS), {}, TypeError, ("features", "int", "floating")),
            Invalid((X, KERNEL.astype(int), IDS), {}, TypeError, ("kernel", "int", "floating")),
            Invalid((X[0, 0], KERNEL, IDS[0, 0]), {}, ValueError, ("features", r"\(5,\)", "token")),
            Invalid((X, KERNEL.T, IDS), {}, ValueError, ("kernel", r"\(6, 5\)", r"\[5, C\]")),
            Invalid((X, KERNEL[0], IDS), {}, ValueError, ("kernel", r"\(6,\)", r"\[5, C\]")),
            Invalid((X, KERNEL, IDS[0]), {}, ValueError, ("labels", r"\(8,\)", r"\(3, 8\)")),
            Invalid((X, KERNEL, WEIGHTS), {}, TypeError, ("labels", "float", "integer ids")),
            Invalid(DATA, {"bias": BIAS[1:]}, ValueError, ("bias", r"\(5,\)", r"\(6,\)")),
            Invalid(DATA, {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(6,\)")),
            Invalid(DATA, {"where": IDS}, TypeError, ("where", "int", "bool")),
            Invalid(DATA, {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)", "rank")),
            Invalid(DATA, {"ignore_index": 0.5}, TypeError, ("ignore_index", "0.5", "integer")),
            Invalid(DATA, {"label_smoothing": 1.0}, ValueError, ("label_smoothing", "number in")),
            Invalid(DATA, {"z_loss": -1.0}, ValueError, ("z_loss", "number in")),
            Invalid(DATA, {"soft_cap": 0.0}, ValueError, ("soft_cap", "number in")),
            Invalid(DATA, {"reduction": "avg"}, ValueError, ("reduction", "'avg'", "'mean'")),
            Invalid(DATA, {"chunk_size": 0}, ValueError, ("chunk_size", "0", "at least 1")),
            Invalid(DATA, {"chunk_size": 1.5}, TypeError, ("chunk_size", "1.5", "integer")),
            Invalid(DATA, {"class_axis_name": "model"}, ValueError, ("class_axis_name", "'model'")),
        ),
    )
}


def _plain(x, kernel, ids, *, bias, class_weights, weights, where, **numbers):
    """The loss of ids in operations that have no derivative of their own."""
    smoothing, z_loss, cap = (numbers[k] for k in ("label_smoothing", "z_loss", "soft_cap"))
    logits = cap * jnp.tanh((x @ kernel + bias[None, None]) / cap)
    lse = jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
    hits = (ids[..., None] == np.arange(kernel.shape[1])).astype(x.dtype)
    class_weights = class_weights[None, None]
    shares = class_weights * ((1 - smoothing) * hits + smoothing / kernel.shape[1])
    of_target = (class_weights * hits).sum(-1)
    values = (shares * (lse - logits)).sum(-1) + z_loss * lse[..., 0] ** 2 * of_target
    factors = jnp.where(where, weights, 0)
    return (factors * values).sum() / (factors * of_target).sum()


def _floats():
    return {"features": X, "kernel": KERNEL} | {k: v for k, v in ALL.items() if k != "where"}


def _of(loss, **options):
    """A loss as a function of all its floats."""

    def function(floats):
        named = dict(floats)
        return loss(
            named.pop("features"), named.pop("kernel"), IDS, where=WHERE, **named, **options
        )

    return function


def _mean_of_each(*data, **options):
    """The mean by the values of single tokens."""
    values = jaxloss.linear_cross_entropy(*data, **options, reduction="none")
    factors = jnp.where(options["where"], options["weights"], 0)
    return values.sum() / (factors * options["class_weights"][data[2]]).sum()


@pytest.mark.parametrize(
    "loss, chunk_size",
    [
        (jaxloss.linear_cross_entropy, 6),
        (jaxloss.linear_cross_entropy, 5),
        (jaxloss.linear_cross_entropy, None),
        (_mean_of_each, 6),
    ],
    ids=["chunks", "chunks_with_a_rest", "at_once", "none"],
)
def test_first_and_second_derivatives_are_those_of_the_plain_form(loss, chunk_size):
    """By every float, forward and reverse; second ones forward and reverse over reverse.

    JAX 0.10.2 gives silently wrong second derivatives of a loop in the rule of a custom JVP, around
    a function with another: first ones stay right.
    """
    direction = {k: np.random.default_rng(1).normal(size=np.shape(a)) for k, a in _floats().items()}

    def derivatives(function):
        @quick_jit
        def run(floats, along):
            gradient = jax.grad(function)
            value, forward = jax.jvp(function, (floats,), (along,))
            second = jax.jvp(gradient, (floats,), (along,))[1]
            dot = lambda a: sum(jnp.vdot(a[k], along[k]) for k in along)
            reverse = jax.grad(lambda floats: dot(gradient(floats)))(floats)
            return value, forward, gradient(floats), second, reverse

        with jax.enable_x64(True):
            floats = jax.tree.map(jnp.float64, _floats())
            return jax.device_get(run(floats, jax.tree.map(jnp.float64, direction)))

    expected = derivatives(_of(_plain))
    found = derivatives(_of(loss, chunk_size=chunk_size))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, found, expected)


def test_no_custom_derivative_stands_inside_a_loop():
    """In the gradient's program: what makes JAX's second derivatives wrong."""
    loss = functools.partial(jaxloss.linear_cross_entropy, chunk_size=6)
    program = jax.make_jaxpr(jax.grad(loss))(jnp.float32(X), jnp.float32(KERNEL), IDS)
    loops = [e for e in _equations(program.jaxpr) if e.primitive.name == "scan"]
    assert loops
    inside = {e.primitive.name for loop in loops for e in _equations(loop.params["jaxpr"].jaxpr)}
    assert not {name for name in inside if name.startswith("custom_")}


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


FLOAT32 = tuple(jnp.asarray(a, jnp.float32) for a in (X, KERNEL))


@functools.cache
def _whole(reduction="mean"):
    """Value and gradients of the plain call, compiled."""
    loss = functools.partial(jaxloss.linear_cross_entropy, reduction=reduction)
    return usual_jit(jax.value_and_grad(lambda x, w, ids: loss(x, w, ids), (0, 1)))


def _assert_close(found, expected, rtol=1e-5):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-7), found, expected
    )


def test_transforms_change_nothing():
    """vmap, scan, remat and linearize."""
    both = jax.value_and_grad(functools.partial(jaxloss.linear_cross_entropy, chunk_size=6), (0, 1))

    @jax.jit
    def run(x, w):
        stacked = jnp.stack([x, 2 * x]), jnp.stack([w, w]), jnp.stack([IDS, IDS])
        mapped = jax.tree.map(lambda a: a[0], jax.vmap(both)(*stacked))
        scanned = jax.lax.scan(lambda c, a: (c, both(*a)), 0, stacked)[1]
        loss = lambda x, w: both(x, w, IDS)[0]
        return [
            mapped,
            jax.tree.map(lambda a: a[0], scanned),
            jax.value_and_grad(jax.checkpoint(loss), (0, 1))(x, w),
            (loss(x, w), jax.linear_transpose(jax.linearize(loss, x, w)[1], x, w)(1.0)),
        ]

    expected = _whole()(*FLOAT32, IDS)
    for found in run(*FLOAT32):
        _assert_close(found, expected)


def test_exports_to_every_platform():
    """With chunks of another size on each."""
    run = jax.jit(jax.grad(functools.partial(jaxloss.linear_cross_entropy), (0, 1)))
    x, ids = jnp.ones((4096, 8)), jnp.zeros(4096, jnp.int32)
    platforms = ("cpu", "cuda", "rocm", "tpu")
    exported = jax.export.export(run, platforms=platforms)(x, jnp.ones((8, 5000)), ids)
    assert exported.platforms == platforms


@pytest.mark.parametrize("kernel_dtype", [jnp.bfloat16, jnp.float32])
def test_half_precision_sums_in_float32(kernel_dtype):
    x, w = FLOAT32[0].astype(jnp.bfloat16), FLOAT32[1].astype(kernel_dtype)
    loss = jax.value_and_grad(functools.partial(jaxloss.linear_cross_entropy, chunk_size=6), (0, 1))
    value, gradients = usual_jit(loss)(x, w, IDS)
    assert value.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.bfloat16, kernel_dtype]
    rounded = [jnp.float32(a.astype(jnp.bfloat16)) for a in (x, w)]
    expected, exact = _whole()(*rounded, IDS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for gradient, other in zip(gradients, exact, strict=True):
        error = np.linalg.norm(jnp.float32(gradient) - other) / np.linalg.norm(other)
        assert error < 4e-3


def test_masked_tokens_leak_nothing_and_bad_ids_are_nan_alone():
    """Garbage in masked features, ids and weights; then one bad id."""

    @quick_jit
    def run(x, ids, weights, where):
        loss = functools.partial(jaxloss.linear_cross_entropy, where=where, chunk_size=6)
        mean = lambda x, w: loss(x, w, ids, weights=weights)
        each = loss(x, FLOAT32[1], ids, weights=weights, reduction="none")
        return jax.value_and_grad(mean, (0, 1))(x, FLOAT32[1]), each

    weights = jnp.float32(WEIGHTS)
    clean = run(FLOAT32[0], IDS, weights, WHERE)
    for garbage, label in ((np.nan, -7), (np.inf, C), (-np.inf, -2)):
        x = jnp.where(WHERE[..., None], FLOAT32[0], garbage)
        dirty = run(x, jnp.where(WHERE, IDS, label), jnp.where(WHERE, weights, garbage), WHERE)
        jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert not clean[0][1][0][~WHERE].any()
    nothing = run(FLOAT32[0], IDS, weights, np.zeros_like(WHERE))
    assert not any(a.any() for a in jax.tree.leaves(nothing))
    at = tuple(np.argwhere(WHERE)[0])
    for bad in (-1, -2, C, 2**31 - 1, -(2**31)):
        (value, (gradient, _)), each = run(
            FLOAT32[0], jnp.asarray(IDS).at[at].set(bad), weights, WHERE
        )
        assert np.isnan(value)
        assert np.argwhere(np.isnan(each)).tolist() == [list(at)]
        assert np.unique(np.argwhere(np.isnan(gradient))[:, :2], axis=0).tolist() == [list(at)]


def test_a_bias_of_minus_infinity_removes_a_class():
    """Value and gradients are those without the class; its target costs +inf, without gradient."""
    bias = jnp.float32(BIAS).at[-1].set(-jnp.inf)
    loss = functools.partial(jaxloss.linear_cross_entropy, chunk_size=6)
    smoothed = functools.partial(loss, label_smoothing=0.1, z_loss=0.1)
    ids = jnp.minimum(IDS, C - 2)

    @quick_jit
    def run(x, w):
        both = lambda loss, w, bias, ids: jax.value_and_grad(
            lambda x, w: loss(x, w, ids, bias=bias), (0, 1)
        )(x, w)
        return (
            both(smoothed, w, bias, ids),
            both(smoothed, w[:, :-1], bias[:-1], ids),
            both(loss, w, bias, jnp.full_like(ids, C - 1)),
        )

    (value, (by_x, by_w)), without, of_removed = run(*FLOAT32)
    _assert_close((value, (by_x, by_w[:, :-1])), without)
    assert not by_w[:, -1].any()
    assert of_removed[0] == np.inf
    assert not any(g.any() for g in of_removed[1])


def test_it_keeps_its_digits_on_confident_tokens():
    margins = np.float32([10, 17, 40, 80])
    exact = np.log1p(np.exp(-margins.astype(float)))
    kernel, ids = np.float32([[1, 0]]), np.zeros(4, np.int32)
    value = jaxloss.linear_cross_entropy(margins[:, None], kernel, ids, reduction="none")
    np.testing.assert_allclose(value, exact, rtol=1e-6)


def test_eager_calls_compile_once(caplog):
    loss = functools.partial(jaxloss.linear_cross_entropy, weights=jnp.ones(N))
    run = jax.value_and_grad(loss, (0, 1))
    run(*FLOAT32, IDS, z_loss=0.1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(*FLOAT32, IDS, z_loss=0.2)
    assert "Compiling" not in caplog.text


# Split over devices.


def _mesh(kind=AxisType.Auto):
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind, kind))


TOKENS, VOCABULARY = np.float32(RNG.normal(size=(16, D))), np.float32(RNG.normal(size=(D, 32)))
TOKEN_IDS = RNG.integers(0, 32, 16).astype(np.int32)
SPLIT = {
    "bias": np.float32(RNG.normal(size=32)),
    "class_weights": np.float32(RNG.uniform(0.5, 2, 32)),
    "weights": np.float32(RNG.uniform(0.5, 2, 16)),
    **{name: np.float32(value) for name, value in NUMBERS.items()},
}


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_tokens_and_classes_split_inside_shard_map(reduction):
    """Value and gradients by every float are those of the whole, in chunks."""
    mean = lambda loss: loss if loss.ndim == 0 else loss.mean()

    def loss(x, w, ids, options, **names):
        call = functools.partial(jaxloss.linear_cross_entropy, chunk_size=4, reduction=reduction)
        return mean(call(x, w, ids, **options, **names))

    def split(x, w, ids, options):
        def of_shard(x, w, options):
            value = loss(x, w, ids_here[0], options, class_axis_name="model", axis_name="data")
            return value if reduction == "mean" else jax.lax.pmean(value, "data")

        ids_here = [ids]
        return jax.value_and_grad(of_shard, (0, 1, 2))(x, w, options)

    by_class, by_token = {"bias", "class_weights"}, {"weights"}
    specs = {k: P("model") if k in by_class else P("data") if k in by_token else P() for k in SPLIT}
    gradients = (P("data"), P(None, "model"), specs)
    run = jax.jit(
        jax.shard_map(
            split,
            mesh=_mesh(),
            in_specs=(P("data"), P(None, "model"), P("data"), specs),
            out_specs=(P(), gradients),
        )
    )
    arguments = (TOKENS, VOCABULARY, TOKEN_IDS, SPLIT)
    expected = jax.jit(jax.value_and_grad(loss, (0, 1, 3)))(*arguments)
    _assert_close(run(*arguments), expected, rtol=1e-4)


def _exchanged(program):
    """The elements that each collective of a compiled program gives a device."""
    found = re.findall(
        r"= (.*?) (?:all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", program
    )
    sizes = [re.findall(r"\w+\[([\d,]*)\]", shapes) for shapes in found]
    return [int(np.prod([int(n) for n in s.split(",") if n])) for each in sizes for s in each]


def test_under_jit_a_kernel_split_along_its_classes_exchanges_a_few_numbers_per_token():
    mesh = _mesh()
    place = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, P(*spec)))
    placed = place(TOKENS), place(VOCABULARY, None, "model"), place(TOKEN_IDS)
    loss = functools.partial(jaxloss.linear_cross_entropy, chunk_size=4)
    run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*placed).compile()
    _assert_close(run(*placed), _whole()(TOKENS, VOCABULARY, TOKEN_IDS))
    sizes = _exchanged(run.as_text())
    # Per token and chunk of 4: maximum, sum and target, and the slopes of its features.
    assert sizes
    assert max(sizes) <= 4 * D, sizes
    assert sum(sizes) <= 4 * (3 + D) + 8, sizes


RATES = np.linspace(-1, 1, VOCABULARY.shape[1], dtype=np.float32)


def _of_tokens(x, w, ids, bias, weights, chunk_size=4):
    """With what each class has."""
    options = {"bias": bias, "class_weights": weights, "chunk_size": chunk_size}
    return jaxloss.linear_cross_entropy(x, w, ids, **options)


@pytest.mark.parametrize("kernel_spec", [(), (None, "model")])
def test_explicit_axes(kernel_spec):
    mesh = _mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, P(*spec)))
        placed = put(TOKENS, "data"), put(VOCABULARY, *kernel_spec), put(TOKEN_IDS, "data")
        run = jax.jit(jax.value_and_grad(_of_tokens, (0, 1, 3, 4)))
        of_classes = put(RATES, *kernel_spec[1:]), put(RATES + 2, *kernel_spec[1:])
        found = run(*placed, *of_classes)
    _assert_close(found, run(TOKENS, VOCABULARY, TOKEN_IDS, RATES, RATES + 2))


@pytest.mark.parametrize("tokens, chunk_size", [(16, 2), (16, 5), (12, 5)])
def test_explicit_axes_of_more_devices_than_a_chunk_has_tokens_for(tokens, chunk_size):
    """Each device has a part of every chunk, also where no number of chunks divides the tokens."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    x, ids = TOKENS[:tokens], TOKEN_IDS[:tokens]
    loss = functools.partial(_of_tokens, chunk_size=chunk_size)
    run = jax.jit(jax.value_and_grad(loss, (0, 1, 3, 4)))
    with jax.set_mesh(mesh):
        put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, P(*spec)))
        placed = put(x, "data"), put(VOCABULARY), put(ids, "data"), put(RATES), put(RATES + 2)
        found = run(*placed)
    _assert_close(found, run(x, VOCABULARY, ids, RATES, RATES + 2))


# Memory.


def test_the_logits_do_not_exist():
    """Temporaries of value and gradient over the float32 logits, in chunks of the CPU's size."""
    n, d, c = 4096, 64, 4096
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (((n, d), jnp.float32), ((d, c), jnp.float32), ((n,), jnp.int32))
    ]
    run = usual_jit(jax.value_and_grad(jaxloss.linear_cross_entropy, (0, 1)))
    compiled = run.lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 0.2 * 4 * n * c


def test_validate_finds_bad_values():
    """Those of tokens that count, and of kernel and bias."""
    validate = functools.partial(jaxloss.validate, "linear_cross_entropy")
    x, kernel = (np.array(a) for a in FLOAT32)
    assert validate(x, kernel, IDS, **ALL).ok
    ids = IDS.copy()
    ids[1, 2], x[2, 3, 1], kernel[0, 1] = C, np.nan, np.inf
    report = validate(x, kernel, ids, bias=np.full(C, -np.inf, np.float32))
    found = {f.argument: tuple(f.index) for f in report.findings if f.count}
    assert found == {"labels": (1, 2), "features": (2, 3, 1), "kernel": (0, 1)}
    where = np.ones(N, bool)
    where[1, 2] = where[2, 3] = False
    report = validate(x, kernel, ids, where=where)
    assert {f.argument for f in report.findings if f.count} == {"kernel"}
