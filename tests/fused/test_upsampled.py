"""Losses of upsampled logits: oracles, articles' numbers, derivatives, transforms, memory."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from jaxloss._fused import _rows
from tests.compiling import quick_jit, usual_jit
from tests.compound.test_sums import CASES as SUMS
from tests.distribution.test_cross_entropy import CASES as ENTROPIES
from tests.registry import Helper, Invalid

RNG = np.random.default_rng(0)
SMALL, IDS = RNG.normal(size=(2, 3, 4, 3)), RNG.integers(0, 3, (2, 8, 9)).astype(np.int32)
SMALL_IDS = IDS[:, :5, :7]
WHERE, WEIGHTS = RNG.random(IDS.shape) < 0.7, RNG.uniform(0.5, 2, IDS.shape)
CLASS_WEIGHTS = RNG.uniform(0.5, 2, 3)
ALL = {"where": WHERE, "weights": WEIGHTS, "class_weights": CLASS_WEIGHTS, "label_smoothing": 0.1}
LOSSES = ("upsampled_cross_entropy", "upsampled_dice_cross_entropy")
FORMS = {  # loss and options, of which all numbers are differentiated
    "cross_entropy": (LOSSES[0], {"z_loss": 0.01}),
    "none": (LOSSES[0], {"z_loss": 0.01, "reduction": "none"}),
    "dice": (LOSSES[1], {"smooth": 0.5, "dice_weight": 0.7, "cross_entropy_weight": 1.3}),
    "counts": (LOSSES[1], {"squared": "counts", "per_image": False, "absent": "skip"}),
    "squares": (LOSSES[1], {"squared": True, "include_background": False, "reduction": "sum"}),
}


@pytest.fixture
def chunked(monkeypatch):
    """Several chunks of few pixels."""
    monkeypatch.setattr(_rows, "LOGITS", {"cpu": 64, "default": 64})
    monkeypatch.setattr(_rows, "FEWEST", 3)
    jax.clear_caches()
    yield
    jax.clear_caches()


def _resized(logits, shape, axis=-1, align_corners=True):
    """Linear interpolation along one pixel axis after the other, with edges held."""
    result = np.moveaxis(logits, axis, -1)
    for i, new in enumerate(shape, 1):
        size = result.shape[i]
        if align_corners:
            at = np.arange(new) * (size - 1) / max(new - 1, 1)
        else:
            at = (np.arange(new) + 0.5) * size / new - 0.5
        line = lambda values, at=at, size=size: np.interp(at, np.arange(size), values)
        result = np.apply_along_axis(line, i, result)
    return np.moveaxis(result, -1, axis)


def _of_resized(oracle):
    def of_small(logits, ids, align_corners=True, axis=-1, ignore_index=None, **options):
        if ignore_index is not None:
            options["where"] = options.get("where", True) & (ids != ignore_index)
            ids = np.where(ids == ignore_index, 0, ids)
        large = _resized(logits, ids.shape[1:], axis, align_corners)
        return oracle(large, ids, axis=axis, **options)

    return of_small


def _invalid(numbers):
    def call(logits, labels, options, error, *words):
        return Invalid((logits, labels), options, error, words)

    bad = functools.partial(call, SMALL, IDS)
    return (
        call(SMALL.astype(int), IDS, {}, TypeError, "logits", "int", "floating"),
        call(SMALL[0, 0], IDS[0], {}, ValueError, "logits", r"\(4, 3\)", r"x\[None\]"),
        call(SMALL[:, :0], IDS, {}, ValueError, "logits", r"\(2, 0, 4, 3\)", "one pixel"),
        call(SMALL, IDS[0], {}, ValueError, "labels", r"\(8, 9\)", r"\(2, 3, 4\)"),
        call(SMALL, IDS[:1], {}, ValueError, "labels", r"\(1, 8, 9\)", r"\(2, 8, 9\)"),
        call(SMALL, WEIGHTS, {}, TypeError, "labels", "float", "integer ids"),
        bad({"axis": 4}, ValueError, "axis", "4", r"\[-4, 4\)"),
        bad({"align_corners": "yes"}, ValueError, "align_corners", "'yes'", "True or False"),
        bad({"reduction": "avg"}, ValueError, "reduction", "'avg'", "'mean'"),
        bad({"where": IDS}, TypeError, "where", "int", "bool"),
        bad({"where": np.ones((2, 3, 4), bool)}, ValueError, "where", r"\(2, 3, 4\)", "rank"),
        bad({"class_weights": [1.0]}, ValueError, "class_weights", r"\(3,\)"),
        bad({"ignore_index": 0.5}, TypeError, "ignore_index", "0.5", "integer"),
        *(bad({name: value}, ValueError, name, "number in") for name, value in numbers.items()),
    )


HELPERS = {
    "resize_logits": Helper(
        _resized,
        (
            ((SMALL,), {"shape": (8, 9)}),
            ((SMALL,), {"shape": (8, 9), "align_corners": False}),
            ((SMALL,), {"shape": (2, 1)}),
            ((SMALL[..., None],), {"shape": (2, 7, 4), "axis": 1, "align_corners": False}),
            ((SMALL[0],), {"shape": (5,), "axis": 0}),
        ),
        tuple(
            Invalid((logits,), {"shape": shape} | options, error, words)
            for logits, shape, options, error, words in (
                (SMALL.astype(int), (8, 9), {}, TypeError, ("logits", "int", "floating")),
                (SMALL[0, 0], (), {}, ValueError, ("logits", r"\(4, 3\)", r"x\[None\]")),
                (SMALL, (8,), {}, ValueError, ("shape", r"\(8,\)", "2 pixel axes")),
                (SMALL, (8, 0), {}, ValueError, ("shape", r"\(8, 0\)", "positive integer")),
                (SMALL, (8, 9.0), {}, ValueError, ("shape", "9.0", "positive integer")),
                (SMALL[:, :0], (8, 9), {}, ValueError, ("logits", r"\(2, 0, 4, 3\)", "pixel")),
                (SMALL, (8, 9), {"axis": -5}, ValueError, ("axis", "-5", r"\[-4, 4\)")),
                (SMALL, (8, 9), {"align_corners": 2}, ValueError, ("align_corners", "2")),
            )
        ),
    ),
    "upsampled_cross_entropy": Helper(
        _of_resized(ENTROPIES["cross_entropy"].oracle),
        (
            ((SMALL, IDS), {}),
            ((SMALL, IDS), {**ALL, "z_loss": 0.1, "align_corners": False}),
            ((SMALL, IDS), {**ALL, "reduction": "none"}),
            ((np.moveaxis(SMALL, -1, 1), SMALL_IDS), {"axis": 1, "reduction": "sum"}),
            (
                (SMALL[..., 0, :], IDS[:, 0]),
                {"ignore_index": 1, "weights": np.float32(WEIGHTS[:1, :1, 0])},
            ),
        ),
        (
            *_invalid({"label_smoothing": 1.0, "z_loss": -1.0}),
            Invalid((SMALL, IDS), {"weights": np.ones(3)}, ValueError, ("weights", r"\(3,\)")),
        ),
    ),
    "upsampled_dice_cross_entropy": Helper(
        _of_resized(SUMS["dice_cross_entropy"].oracle),
        (
            ((SMALL, IDS), {}),
            ((SMALL, IDS), {**ALL, "squared": True, "align_corners": False, "absent": "skip"}),
            ((SMALL, IDS), {**ALL, "squared": "counts", "per_image": False, "smooth": 0.1}),
            (
                (np.moveaxis(SMALL, -1, 1), IDS),
                {"axis": 1, "reduction": "sum", "include_background": False, "dice_weight": 0.3},
            ),
        ),
        (
            *_invalid(
                {
                    "label_smoothing": 1.0,
                    "smooth": -1.0,
                    "dice_weight": -1.0,
                    "cross_entropy_weight": -1.0,
                }
            ),
            Invalid((SMALL, IDS), {"reduction": "none"}, ValueError, ("reduction", "'none'")),
            Invalid((SMALL, IDS), {"squared": "twice"}, ValueError, ("squared", "'twice'")),
            Invalid((SMALL, IDS), {"absent": "no"}, ValueError, ("absent", "'no'")),
            Invalid((SMALL, IDS), {"per_image": 2}, ValueError, ("per_image", "2")),
            Invalid(
                (SMALL[..., :1], IDS),
                {"include_background": False},
                ValueError,
                ("include_background", "single class"),
            ),
        ),
    ),
}


# The articles' numbers.

SINES = np.sin(np.arange(12.0)).reshape(1, 3, 2, 2).astype(np.float32)
COUNTING = (np.arange(16) % 4).reshape(1, 4, 4)


@pytest.mark.parametrize(
    "options, expected",
    [({}, 1.294443), ({"class_weights": [1.0, 2.0, 0.5]}, 1.387916)],
    ids=["plain", "weighted"],
)
def test_cross_entropy_of_upsampled_sines(options, expected):
    loss = functools.partial(jaxloss.upsampled_cross_entropy, axis=1, ignore_index=3)
    value = loss(SINES, COUNTING, **options)
    np.testing.assert_allclose(value, expected, atol=6e-7)
    large = jaxloss.resize_logits(SINES, (4, 4), axis=1)
    plain = functools.partial(jaxloss.cross_entropy, axis=1, ignore_index=3)
    np.testing.assert_allclose(plain(large, COUNTING, **options), expected, atol=6e-7)


def test_corner_alignment_changes_the_cross_entropy():
    options = {"axis": 1, "ignore_index": 3, "align_corners": False}
    value = jaxloss.upsampled_cross_entropy(SINES, COUNTING, **options)
    np.testing.assert_allclose(value, 1.3322, atol=5e-5)


# Derivatives.


def _plain(logits, ids, align_corners, where, weights, class_weights, label_smoothing, **options):
    """The losses in operations that have no derivative of their own."""
    z = logits
    for i, new in enumerate(ids.shape[1:], 1):
        eye = np.eye(z.shape[i])
        matrix = _resized(eye[None], (new,), -1, align_corners)[0]
        z = jnp.moveaxis(jnp.tensordot(matrix, z, (1, i)), 0, i)
    p = jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True)
    lse = jnp.log(jnp.exp(z).sum(-1, keepdims=True))
    y = (ids[..., None] == np.arange(3)).astype(z.dtype)
    w, v = class_weights[None, None, None], jnp.where(where, weights, 0)
    shares = w * ((1 - label_smoothing) * y + label_smoothing / 3)
    of_target = (w * y).sum(-1)
    squared_lse = options.get("z_loss", 0.0) * lse[..., 0] ** 2 * of_target
    values = v * ((shares * (lse - z)).sum(-1) + squared_lse)
    if options.get("reduction") == "none":
        return values
    is_sum = options.get("reduction") == "sum"
    entropy = values.sum() / (1.0 if is_sum else (v * of_target).sum())
    if "z_loss" in options:
        return entropy
    squared, v = options.get("squared", False), v[..., None]
    axes = (1, 2) if options.get("per_image", True) else (0, 1, 2)
    total = lambda a: (v * a).sum(axes).reshape(-1, 3)
    k = 2 if squared == "counts" else 1
    tp, fp, fn = (total(a**k) for a in (p * y, p * (1 - y), (1 - p) * y))
    size = total(p**2) + total(y) if squared is True else 2 * tp + fp + fn
    smooth, first = options.get("smooth", 1.0), 0 if options.get("include_background", True) else 1
    dice = (1 - (2 * tp + smooth) / (size + smooth))[:, first:]
    share = class_weights[None, first:]
    dice = (dice * share).sum(-1)
    dice = dice.sum() if is_sum else dice.mean() / share.sum()
    dice_weight, entropy_weight = (
        options.get(key, 1.0) for key in ("dice_weight", "cross_entropy_weight")
    )
    return dice_weight * dice + entropy_weight * entropy


@pytest.mark.parametrize("align_corners", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "form", [*FORMS][:3] + [pytest.param(form, marks=pytest.mark.slow) for form in [*FORMS][3:]]
)
def test_first_and_second_derivatives_are_those_of_the_plain_form(form, align_corners, chunked):
    """By every float, forward and reverse; second ones forward and reverse over reverse."""
    name, options = FORMS[form]
    named = {k: v for k, v in options.items() if isinstance(v, float)}
    fixed = {k: v for k, v in options.items() if k not in named} | {"align_corners": align_corners}
    floats = named | {"logits": SMALL} | {k: v for k, v in ALL.items() if k != "where"}
    rng = np.random.default_rng(1)
    direction = {k: rng.normal(size=np.shape(a)) for k, a in floats.items()}

    def derivatives(loss):
        def function(floats):
            named = dict(floats)
            value = loss(named.pop("logits"), IDS, where=WHERE, **named, **fixed)
            return (value * np.cos(np.arange(value.size)).reshape(value.shape)).sum()

        @quick_jit
        def run(floats, along):
            gradient = jax.grad(function)
            value, forward = jax.jvp(function, (floats,), (along,))
            second = jax.jvp(gradient, (floats,), (along,))[1]
            dot = lambda a: sum(jnp.vdot(a[k], along[k]) for k in along)
            reverse = jax.grad(lambda floats: dot(gradient(floats)))(floats)
            return value, forward, gradient(floats), second, reverse

        with jax.enable_x64(True):
            doubles = [jax.tree.map(jnp.float64, a) for a in (floats, direction)]
            return jax.device_get(run(*doubles))

    found, expected = derivatives(getattr(jaxloss, name)), derivatives(_plain)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    jax.tree.map(close, found, expected)


# Masks, dtypes, transforms.


@pytest.mark.parametrize("name", LOSSES)
def test_masked_labels_leak_nothing_and_bad_ids_are_nan(name):
    @quick_jit
    def run(ids, weights, where):
        loss = lambda x: getattr(jaxloss, name)(x, ids, weights=weights, where=where)
        return jax.value_and_grad(loss)(jnp.float32(SMALL))

    weights = jnp.float32(WEIGHTS)
    clean = run(IDS, weights, WHERE)
    for garbage, label in ((np.nan, -7), (np.inf, 3), (-np.inf, -2)):
        dirty = run(jnp.where(WHERE, IDS, label), jnp.where(WHERE, weights, garbage), WHERE)
        jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert not any(a.any() for a in run(IDS, weights, np.zeros_like(WHERE)))
    at = tuple(np.argwhere(WHERE[1])[0])
    for bad in (-1, -2, 3, -(2**31)):
        value, gradient = run(jnp.asarray(IDS).at[(1, *at)].set(bad), weights, WHERE)
        assert np.isnan(value)
        assert np.isfinite(gradient[0]).all()
        assert np.isnan(gradient[1]).any()


@pytest.mark.parametrize("name", LOSSES)
def test_transforms_dtypes_and_meshes_change_nothing(name, chunked):
    """vmap, scan, remat, linearize, NCHW, half precision, Explicit axes, `axis_name`."""
    x, ids = jnp.float32(np.tile(SMALL, (2, 1, 1, 1))), jnp.asarray(np.tile(IDS, (2, 1, 1)))
    loss = functools.partial(getattr(jaxloss, name), label_smoothing=0.1)
    both = jax.value_and_grad(loss)

    def nchw(x, ids):
        return loss(jnp.moveaxis(x, -1, 1), ids, axis=1)

    @jax.jit
    def run(x, ids):
        stacked = jnp.stack([x, 2 * x]), jnp.stack([ids, ids])
        first = functools.partial(jax.tree.map, lambda a: a[0])
        alone = lambda x: loss(x, ids)
        return (
            both(x, ids),
            first(jax.vmap(both)(*stacked)),
            first(jax.lax.scan(lambda c, a: (c, both(*a)), 0, stacked)[1]),
            jax.value_and_grad(jax.checkpoint(loss))(x, ids),
            (alone(x), jax.linear_transpose(jax.linearize(alone, x)[1], x)(1.0)[0]),
            jax.value_and_grad(nchw)(x, ids),
            both(x.astype(jnp.bfloat16), ids),
        )

    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-7)
    expected, *others, half = run(x, ids)
    for found in others:
        jax.tree.map(close, found, expected)
    assert (half[0].dtype, half[1].dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(half[0], expected[0], rtol=1e-2)

    batch, rows = PartitionSpec("batch"), PartitionSpec(None, "rows")
    mesh = jax.make_mesh((4, 2), ("batch", "rows"), axis_types=(AxisType.Explicit,) * 2)
    for spec in (batch, rows):
        with jax.set_mesh(mesh):
            place = lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec))
            found = jax.jit(both)(place(x, batch), place(ids, spec))
        jax.tree.map(close, found, expected)

    def of_shard(scale, x, ids):
        return jax.value_and_grad(lambda s: loss(s * x, ids, axis_name="batch"))(scale)

    value, slope = jax.jit(
        jax.shard_map(
            of_shard,
            mesh=jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,)),
            in_specs=(PartitionSpec(), batch, batch),
            out_specs=PartitionSpec(),
        )
    )(jnp.float32(1), x, ids)
    close(value, expected[0])
    np.testing.assert_allclose(slope, jnp.vdot(expected[1], x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_exports_to_every_platform(name):
    x, ids = jnp.ones((2, 64, 64, 8)), jnp.zeros((2, 256, 256), jnp.int32)
    platforms = ("cpu", "cuda", "rocm", "tpu")
    run = jax.jit(jax.grad(getattr(jaxloss, name)))
    assert jax.export.export(run, platforms=platforms)(x, ids).platforms == platforms


@pytest.mark.parametrize("name", ["resize_logits", *LOSSES])
def test_eager_calls_compile_once(name, caplog):
    function = getattr(jaxloss, name)
    function = jax.value_and_grad(function) if name in LOSSES else function
    second = (8, 9) if name == "resize_logits" else IDS
    function(np.float32(SMALL), second)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        function(np.float32(SMALL), second)
    assert "Compiling" not in caplog.text


@pytest.mark.parametrize("size, new", [(1, 5), (5, 5), (7, 3), (3, 29), (33, 257)])
def test_odd_sizes_in_chunks_are_those_of_resizing_first(size, new, chunked):
    """Rows that chunks do not divide, and of which a chunk reads one, or skips some."""
    x = np.float32(RNG.normal(size=(1, size, 2, 3)))
    ids = RNG.integers(0, 3, (1, new, 3)).astype(np.int32)
    for align_corners in (True, False):
        options = {"align_corners": align_corners}
        small = lambda x, o=options: jaxloss.upsampled_cross_entropy(x, ids, **o)
        first = lambda x, o=options: jaxloss.cross_entropy(
            jaxloss.resize_logits(x, ids.shape[1:], **o), ids
        )
        (value, gradient), expected = (
            quick_jit(jax.value_and_grad(loss))(x) for loss in (small, first)
        )
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_the_upsampled_logits_do_not_exist(name):
    """Temporaries of value and gradient over them, at factor 4."""
    x = jax.ShapeDtypeStruct((4, 128, 128, 21), jnp.float32)
    ids = jax.ShapeDtypeStruct((4, 512, 512), jnp.int32)
    compiled = usual_jit(jax.value_and_grad(getattr(jaxloss, name))).lower(x, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 4 * ids.size * 21 / 8


@pytest.mark.parametrize("name", LOSSES)
def test_validate_finds_bad_values(name):
    small, ids = np.float32(SMALL), IDS.copy()
    assert jaxloss.validate(name, small, ids, weights=np.float32(WEIGHTS)).ok
    small[1, 2, 3, 0], ids[0, 7, 8] = np.nan, 3
    report = jaxloss.validate(name, small, ids)
    found = {f.argument: tuple(f.index) for f in report.findings if f.count}
    assert found == {"labels": (0, 7, 8), "logits": (1, 2, 3, 0)}
    assert jaxloss.validate(name, SMALL, ids, ignore_index=3).ok
