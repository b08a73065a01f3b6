"""What many devices tell each other: sums and not pixels, as the compiled programs say."""

import functools
import inspect
import pathlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from jaxloss._core import margin
from tests.compiling import quick_jit
from tests.devices import BATCH, CLASSES, DEVICES, SIDE, batch_mesh, segmentation
from tests.registry import collect

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import collectives  # noqa: E402

CASES = collect()
POSITIONS = BATCH * SIDE * SIDE


class Row(NamedTuple):
    """A program to compile: a loss and the axis of its logits that is sharded."""

    name: str
    sharded: str
    pooled: bool = False


# Compiled in every run: one loss of each kind of computation; the others with `--all`.
HEADS = [
    Row("l2", "batch"),
    Row("cross_entropy", "batch"),
    Row("cross_entropy", "classes"),
    Row("top_k_cross_entropy", "batch"),
    Row("ghm", "batch"),
    Row("dice", "batch"),
    Row("dice", "batch", pooled=True),
    Row("lovasz_softmax", "batch"),
    Row("cldice", "batch"),
    Row("boundary", "batch"),
    Row("dice_cross_entropy", "classes"),
    Row("ciou", "batch"),
]

# Known: with classes sharded these send more. Strict, so that one that is mended must be taken out.
_LOOP = "a loop sorts class by class, and every device takes part in each: the errors are gathered"
TOO_MUCH = {
    Row("lovasz_hinge", "classes"): _LOOP,
    Row("lovasz_softmax", "classes"): _LOOP,
}
# Numbers of each position in one exchange, if classes are apart. What two losses need the compiler
# sends at once: Dice its softmax's normaliser, and to divide once more what others take of the
# target by it; the cross-entropy of every class against the rest the normaliser, and it less its
# largest term. It does not see that three of these are the same.
IN_ONE, OF_TWO_LOSSES = 4, {"combo": 5}
# Classes sharded on a mesh with Explicit axes: refused by JAX while tracing.
REFUSED = {
    "boundary": "the slice that drops the background",
    "lovasz_softmax": "the loop over classes",
}


def _rows():
    for name, case in CASES.items():
        options = inspect.signature(getattr(jaxloss, name)).parameters
        yield Row(name, "batch")
        if "per_image" in options and not name.startswith("lovasz"):
            yield Row(name, "batch", pooled=True)
        if case.samples[0].axis is not None:
            yield Row(name, "classes")


def _marked(row):
    marks = [] if row in HEADS else [pytest.mark.slow]
    if row in TOO_MUCH:
        marks.append(pytest.mark.xfail(DEVICES >= 8, strict=True, reason=TOO_MUCH[row]))
    return pytest.param(
        row, marks=marks, id="-".join([row.name, row.sharded] + ["pooled"] * row.pooled)
    )


def _collectives(row):
    """The exchanges of value and gradient of a loss's first sample, made larger, with a mask."""
    loss, sample = getattr(jaxloss, row.name), CASES[row.name].samples[0]
    shape, apart = (BATCH, SIDE, SIDE, CLASSES)[: sample.prediction.ndim], sample.axis is not None
    if sample.inner:
        shape = (64 * BATCH, *sample.prediction.shape[-sample.inner :])
        apart = sample.inner
    positions = shape[: len(shape) - apart]
    same = sample.target.ndim == sample.prediction.ndim
    options = {
        key: np.resize(value, (shape[-1],) * np.ndim(value))
        if np.ndim(value) and row.name != "ms_ssim"  # which has weights of its scales
        else value
        for key, value in sample.options.items()
    }
    if row.pooled or row.name.startswith("lovasz"):
        options["per_image"] = not row.pooled

    mesh = batch_mesh()
    along = PartitionSpec("batch")
    if row.sharded == "classes":
        along = PartitionSpec(*[None] * (len(shape) - 1), "batch")

    def argument(sizes, dtype):
        spec = along if sizes == shape or row.sharded == "batch" else PartitionSpec()
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, spec))

    prediction = argument(shape, jnp.float32)
    target = argument(shape if same else positions, jnp.int32 if sample.has_ids else jnp.float32)
    where = argument(positions, jnp.bool_)
    run = jax.value_and_grad(lambda x, y, m: loss(x, y, where=m, **options))
    compiled = quick_jit(run, out_shardings=(None, prediction.sharding)).lower(
        prediction, target, where
    )
    return collectives.read(compiled.compile().as_text())


@pytest.mark.rows(5)
@pytest.mark.parametrize("row", [_marked(row) for row in _rows()])
def test_devices_exchange_sums_not_pixels(row):
    """At most one number for each image and class; a few for each position, if classes are apart.

    A softmax over classes that lie on several devices needs a normaliser for each position. A CPU
    may sum a large array in chunks: then each chunk's sums are exchanged.
    """
    found = _collectives(row)
    assert found  # the mean at least
    if row.sharded == "batch":
        assert all(collective.numbers <= BATCH * CLASSES for collective in found), found
        assert found[0].total <= POSITIONS / 4, found
    else:
        each = OF_TWO_LOSSES.get(row.name, IN_ONE)
        assert found[0].total <= each * POSITIONS + BATCH * CLASSES, found


ROWS, LINES, FEW = 128, 24, 3  # of an image, whose rows are split; and its classes

# How many maps are measured along each line.
MAPS = {
    "boundary": FEW - 1,
    "distance_penalized_cross_entropy": 1,
    "distance_penalized_dice": FEW - 1,
    "hausdorff_dt": 2 * (FEW - 1),
    "signed_distance_regression": FEW,
}


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "boundary" else pytest.mark.slow) for name in MAPS],
)
def test_devices_that_split_an_image_exchange_two_numbers_for_each_line(name, kind):
    """One block of a line lies on each device; beyond its two numbers there are sums and loops."""
    mesh, loss = batch_mesh(kind), getattr(jaxloss, name)
    rows = NamedSharding(mesh, PartitionSpec(None, "batch"))
    logits = jax.ShapeDtypeStruct((1, ROWS, LINES, FEW), jnp.float32, sharding=rows)
    target = jax.ShapeDtypeStruct(logits.shape[:-1], jnp.int32, sharding=rows)
    if name == "signed_distance_regression":
        loss = functools.partial(loss, axis=-1)
        target = jax.ShapeDtypeStruct(logits.shape, jnp.bool_, sharding=rows)
    with jax.set_mesh(mesh):
        run = quick_jit(jax.value_and_grad(loss), out_shardings=(None, rows))
        found = collectives.read(run.lower(logits, target).compile().as_text())
    packed = [one for one in found if one.kind == "all-gather"]
    assert sum(one.total for one in packed) == 2 * DEVICES * MAPS[name] * LINES, found
    assert sum(one.bytes for one in packed) == 2 * sum(one.numbers for one in packed), found
    rest = [one.total for one in found if one.kind != "all-gather"]
    assert sum(rest) <= 4 * MAPS[name] * LINES, found


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("boundary_dou", FEW),
        pytest.param("shape_aware", 2, marks=pytest.mark.slow),  # of labels, predicted and true
        pytest.param("hausdorff_erosion", 2 * 10 * FEW, marks=pytest.mark.slow),  # and slopes
    ],
)
def test_devices_that_split_an_image_send_rows_to_their_neighbours(name, classes, kind):
    """One to each side; the rest are sums, and what a distance map needs."""
    mesh = batch_mesh(kind)
    rows = NamedSharding(mesh, PartitionSpec(None, "batch"))
    logits = jax.ShapeDtypeStruct((1, ROWS, LINES, FEW), jnp.float32, sharding=rows)
    target = jax.ShapeDtypeStruct(logits.shape[:-1], jnp.int32, sharding=rows)
    with jax.set_mesh(mesh):
        run = quick_jit(jax.value_and_grad(getattr(jaxloss, name)), out_shardings=(None, rows))
        found = collectives.read(run.lower(logits, target).compile().as_text())
    sent = [one for one in found if one.kind == "collective-permute"]
    assert 0 < sum(one.total for one in sent) <= 2 * classes * LINES, found
    assert {one.kind for one in found} <= {"collective-permute", "all-reduce", "all-gather"}, found


@pytest.mark.parametrize(
    ("name", "loops"), [("dice", False), ("focal", True), ("noise_robust_dice", True)]
)
def test_chunks_of_a_cpu_take_rows_of_all_devices(name, loops):
    """Of an image, whose rows are split, they exchange their sums; planes of few classes too."""
    rows = NamedSharding(batch_mesh(), PartitionSpec(None, "batch"))
    logits = jax.ShapeDtypeStruct((1, 2048, 128, FEW), jnp.float32, sharding=rows)
    target = jax.ShapeDtypeStruct(logits.shape[:-1], jnp.int32, sharding=rows)
    run = quick_jit(jax.value_and_grad(getattr(jaxloss, name)), out_shardings=(None, rows))
    compiled = run.lower(logits, target).compile().as_text()
    assert ("known_trip_count" in compiled) == loops
    found = collectives.read(compiled)
    assert sum(one.total for one in found) <= 40 * 4 * FEW, found


def _sent_on_a_mesh(loss, placed):
    """The bytes that 8 devices of Explicit axes exchange; value and slope are those of one."""
    arrays, specs = zip(*placed, strict=True)
    expected, slope = quick_jit(jax.value_and_grad(loss))(*arrays)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    at = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]
    arrays = jax.device_put(arrays, tuple(at))
    with jax.set_mesh(mesh):
        compiled = quick_jit(jax.value_and_grad(lambda z, y: loss(z, y))).lower(*arrays).compile()
        value, found = compiled(*arrays)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-9)
    return sum(one.total for one in collectives.read(compiled.as_text()))


@pytest.mark.parametrize("name", ["dice", "dice_focal"])
@pytest.mark.parametrize("split", [0, 1, 2])
def test_large_masks_stay_on_their_devices(name, split):
    """Where a CPU keeps probabilities of the images, classes or rows that it has."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(8, 8, 96, 48)).astype(np.float32)
    targets = (rng.random(logits.shape) < 0.3).astype(np.float32)
    loss = functools.partial(getattr(jaxloss, name), axis=1, activation="sigmoid")
    spec = ["x" if i == split else None for i in range(4)]
    assert _sent_on_a_mesh(loss, [(logits, spec), (targets, spec)]) < 4096


@pytest.mark.parametrize("name", ["dice", "dice_cross_entropy"])
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("split", [0, 1])
def test_kept_shares_stay_on_their_devices(name, per_image, split):
    """Of large images, or classes, that lie on several devices of a mesh with Explicit axes."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(8, 16, 96, 32)).astype(np.float32)
    ids = rng.integers(0, 16, (8, 96, 32)).astype(np.int32)
    loss = functools.partial(getattr(jaxloss, name), axis=1, per_image=per_image)
    spec = ["x" if i == split else None for i in range(4)]
    of_ids = ["x" if split == 0 else None]
    sent = _sent_on_a_mesh(loss, [(logits, spec), (ids, of_ids)])
    if split == 0:
        assert sent < logits.nbytes / 8 / 8, sent


PROGRAM = """
%body (p: f32[8,3]) -> f32[8,3] {
  %p = f32[8,3]{1,0} parameter(0)
  %g = (f32[8,3]{1,0:T(8,128)}, f32[64,3]{1,0}) all-gather-start(%p), metadata={op_name="jit(f)/a"}
  ROOT %d = f32[64,3]{1,0} all-gather-done(%g)
}

ENTRY %main (x: f32[8,3]) -> f32[8,3] {
  %x = f32[8,3]{1,0} parameter(0)
  %m = (f32[]{:T(128)}, f32[2]{0}) all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %w = f32[8,3] while(%x), body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_exchanges_are_counted_in_loops_and_while_they_run():
    gather, mean = collectives.read(PROGRAM)
    assert gather == ("all-gather", 64 * 3, 4 * 64 * 3, 5, "jit(f)/a")
    assert mean[:4] == ("all-reduce", 8 * 3, 4 * 8 * 3, 1)


def test_pooled_lovasz_gathers_what_it_sorts():
    """The one exception, and proof that the counting sees a gather."""
    loss = functools.partial(jaxloss.lovasz_softmax, per_image=False)
    sharding = NamedSharding(batch_mesh(), PartitionSpec("batch"))
    pair = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x in segmentation())
    found = collectives.read(jax.jit(loss).lower(*pair).compile().as_text())
    assert found[0].total >= BATCH * 6 * 4  # the pixels of one class after another


def _over_classes(loss, shape, kind):
    """Value and gradient, compiled for logits whose classes lie on different devices."""
    mesh = batch_mesh(kind)
    along = PartitionSpec(*[None] * (len(shape) - 1), "batch")
    logits = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, along))
    everywhere = NamedSharding(mesh, PartitionSpec())
    ids = jax.ShapeDtypeStruct(shape[:-1], jnp.int32, sharding=everywhere)
    with jax.set_mesh(mesh):
        run = jax.jit(jax.value_and_grad(loss), out_shardings=(None, logits.sharding))
        return run.lower(logits, ids).compile()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 3}])
def test_cross_entropy_over_classes_exchanges_a_few_numbers_per_sample(options):
    """A classifier of many classes: the logits `[B, C]` stay where they are."""
    samples, classes = 16, 4096
    loss = functools.partial(jaxloss.cross_entropy, **options)
    found = collectives.read(_over_classes(loss, (samples, classes), AxisType.Auto).as_text())
    assert sum(collective.total for collective in found) <= 16 * samples, found


def test_classes_in_blocks_are_reduced_as_the_whole():
    """Ties, removed and infinite classes, and NaN, in one block or several."""
    z = 5 * np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    z[1], z[2, :16], z[3, 5], z[4, (5, 20)], z[5, 7] = -np.inf, -np.inf, np.inf, np.inf, np.nan
    z[6], z[7, (3, 30)], z[8], z[8, 9], z[9, 1:] = 0, 50, -np.inf, 1, -np.inf
    ids = np.arange(10) + 1
    in_blocks, whole = (margin._one_reduction(z, ids, None, axis=1, blocks=n) for n in (8, 1))
    for found, expected in zip(in_blocks, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_cross_entropy_over_classes_exchanges_as_little_on_a_gpu(monkeypatch):
    """The form that reads the logits once takes the classes in blocks, one on each device."""
    form = functools.partial(margin._one_reduction, blocks=DEVICES)
    monkeypatch.setattr(margin, "_two_reductions", form)
    jax.clear_caches()  # of the losses' own programs
    samples, loss = 16, jaxloss.cross_entropy
    found = collectives.read(_over_classes(loss, (samples, 4096), AxisType.Auto).as_text())
    assert all(collective.numbers <= 3 * samples for collective in found), found


@pytest.mark.parametrize(("platform", "parted"), [("cuda", True), ("tpu", False)])
def test_a_gpu_takes_many_classes_in_blocks(platform, parted):
    """A TPU would write all logits anew for it."""
    shapes = jax.ShapeDtypeStruct((16, 4096), jnp.float32), jax.ShapeDtypeStruct((16,), jnp.int32)
    program = jax.jit(jaxloss.cross_entropy).trace(*shapes).lower(lowering_platforms=(platform,))
    assert (f"16x{DEVICES}x{4096 // DEVICES}xf32" in program.as_text()) == parted


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal", *REFUSED])
def test_classes_may_be_sharded_on_a_mesh_with_explicit_axes(name, request):
    if name in REFUSED:
        reason = REFUSED[name]
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    _over_classes(getattr(jaxloss, name), (BATCH, 6, 4, CLASSES), AxisType.Explicit)
