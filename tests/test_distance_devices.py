"""Distance transforms on many devices, and as compiled: no mask is gathered, no pair is kept."""

import functools
import importlib
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from jaxloss import distance
from jaxloss._core import transform
from tests.compiling import quick_jit
from tests.distances import MASKS, brute_force, in_blocks, one_far, random_masks, scipy_edt

LARGE = random_masks(8, 40, 50, density=0.99)  # beyond what a CPU leaves to the reduction


def labelled(masks):
    return jnp.cumsum(~masks, -1, dtype=jnp.int32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=["explicit", "auto"])
@pytest.mark.parametrize("name", ["edt", "compute_edts_for_penalized_loss", "border_weights"])
def test_a_sharded_batch_stays_where_it_is(name, kind):
    data = np.asarray(labelled(LARGE) % 4) if name == "border_weights" else LARGE
    function = getattr(distance, name)
    expected = function(data)
    split = PartitionSpec("data")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(data, NamedSharding(mesh, split))
        program = jax.jit(function).lower(placed).compile()
        assert not re.search("all-gather|all-to-all|collective-permute", program.as_text())
        found = program(placed)
        np.testing.assert_array_equal(found, expected)
        assert found.sharding.is_equivalent_to(placed.sharding, placed.ndim)
        mapped = jax.jit(jax.shard_map(function, in_specs=split, out_specs=split))
        np.testing.assert_array_equal(mapped(placed), expected)


def split_masks(*shape):
    """Random and sparse masks, an empty one, a pixel, one device's share, the rims of shares."""
    noise, share = np.random.default_rng(0).random(shape), shape[0] // 8
    masks = np.zeros((6, *shape), bool)
    masks[0], masks[1] = noise < 0.5, noise < 0.02
    masks[3][tuple(n // 3 for n in shape)] = True
    masks[4, 5 * share : 6 * share] = noise[5 * share : 6 * share] < 0.1
    masks[5, ::share] = True
    return np.concatenate([masks, ~masks])


SPLIT = [((80, 24), (2.0, 0.7)), ((40, 16, 6), None)]


@pytest.mark.parametrize(
    "kind, axis",
    [
        (AxisType.Auto, 1),
        (AxisType.Explicit, 1),
        pytest.param(AxisType.Auto, 2, marks=pytest.mark.slow),
        (AxisType.Explicit, 2),
        ("shard_map", 1),
    ],
    ids=str,
)
def test_an_image_that_is_split_over_devices_is_measured_as_a_whole(kind, axis):
    mapped = kind == "shard_map"
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit if mapped else kind,))
    split = PartitionSpec(*[None] * axis, "rows")

    def measure(every):
        """Of each shape the distances inside, and those on both sides less the finest spacing."""
        for masks, (shape, sampling) in zip(every, SPLIT, strict=True):
            options = {"axes": tuple(range(1, len(shape) + 1)), "sampling": sampling}
            if mapped:
                options["space_axis_name"] = "rows"
            yield distance.edt(masks, **options), distance.signed_distance(masks, **options)

    run = lambda every: list(measure(every))
    if mapped:
        run = jax.shard_map(run, mesh=mesh, in_specs=split, out_specs=split)
    every = [split_masks(*shape) for shape, _ in SPLIT]
    with jax.set_mesh(mesh):
        results = quick_jit(run)(jax.device_put(every, NamedSharding(mesh, split)))
    for masks, (shape, sampling), (inside, signed) in zip(every, SPLIT, results, strict=True):
        rank, finest = len(shape), min(sampling or (1,))
        expected = scipy_edt(masks, rank, sampling)
        np.testing.assert_allclose(inside, expected, rtol=5e-7)
        outside = scipy_edt(~masks, rank, sampling)
        bounded = np.isfinite(expected) & np.isfinite(outside)
        expected = np.where(masks, finest - np.where(bounded, expected, finest), outside)
        np.testing.assert_allclose(signed, np.where(bounded, expected, 0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [70, 67])
def test_rows_that_devices_do_not_divide(rows):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    masks = split_masks(rows, 9)
    split = NamedSharding(mesh, PartitionSpec(None, "rows"))
    run = quick_jit(lambda x: distance.edt(jax.lax.with_sharding_constraint(x, split)))
    np.testing.assert_array_equal(run(masks), scipy_edt(masks).astype(np.float32))


@pytest.mark.parametrize("name", distance.__all__[:4])
def test_maps_inside_shard_map_are_those_of_the_whole_image(name):
    """Largest distances, ids of instances and the rim of the image are everybody's."""
    masks = split_masks(40, 12)
    data = np.cumsum(masks & (np.arange(12) > 9), 1, dtype=np.int32) if name[0] == "b" else masks
    options = {"normalize": True} if name == "compute_sdf" else {}
    function = functools.partial(getattr(distance, name), **options)
    split = PartitionSpec(None, "rows")
    run = jax.shard_map(
        functools.partial(function, space_axis_name="rows"),
        mesh=jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,)),
        in_specs=split,
        out_specs=split,
    )
    np.testing.assert_allclose(quick_jit(run)(data), function(data), rtol=1e-6, atol=1e-7)


def test_a_split_line_may_be_too_long_for_small_integers():
    """Its steps and packed numbers need 32 bits."""
    mask = one_far(8 * 2**12)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(mask, NamedSharding(mesh, PartitionSpec("rows")))
    with jax.set_mesh(mesh):
        found = quick_jit(functools.partial(distance.edt, axes=0))(placed)
    np.testing.assert_array_equal(found, np.arange(len(mask), dtype=np.float32))


def test_data_parallel_losses_gather_no_mask():
    """Value and gradient of a batch that is split over devices exchange scalars only."""
    logits = np.zeros((8, 40, 50, 2), np.float32)
    losses = {
        "boundary": {},
        "distance_penalized_dice": {},
        "distance_penalized_cross_entropy": {},
        "hausdorff_dt": {},
        "shape_aware": {},
    }
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = NamedSharding(mesh, PartitionSpec("data"))
        pair = [jax.device_put(x, placed) for x in (logits, LARGE.astype(np.int32))]
        run = jax.jit(
            lambda x, y: [jax.grad(getattr(jaxloss, name))(x, y) for name in losses],
            out_shardings=placed,
        )
        text = run.lower(*pair).compile().as_text()
    assert not re.search("all-gather|all-to-all|collective-permute", text)
    exchanged = re.findall(r"= (\S+) all-reduce", text)
    assert all(re.match(r"\(?(\w+\[\](\{\})?(, )?)+\)?$", one) for one in exchanged), exchanged


def test_the_reduction_runs_on_an_explicit_mesh():
    passes = functools.partial(in_blocks(transform._passes_by_reduction), spacings=(None, None))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    split = PartitionSpec("data")
    with jax.set_mesh(mesh):
        masks = jax.device_put(MASKS, NamedSharding(mesh, split))
        for f in [passes, jax.shard_map(passes, in_specs=split, out_specs=split)]:
            np.testing.assert_array_equal(jax.jit(f)(masks), brute_force(MASKS))


def test_distances_export_to_every_platform():
    function = lambda masks: (
        jax.vmap(distance.signed_distance)(masks),
        distance.edt(masks),
        distance.border_weights(labelled(masks) % 4),
    )
    platforms = ("cpu", "cuda", "rocm", "tpu")
    masks = jax.ShapeDtypeStruct(LARGE.shape, bool)
    exported = jax.export.export(jax.jit(function), platforms=platforms)(masks)
    assert exported.platforms == platforms
    assert "callback" not in exported.mlir_module()
    # Eagerly each map is a program of its own, which rounds differently.
    jax.tree.map(np.testing.assert_array_equal, exported.call(LARGE), jax.jit(function)(LARGE))


def test_a_second_eager_call_compiles_nothing(caplog):
    calls = [
        functools.partial(distance.edt, MASKS),
        functools.partial(distance.squared_edt, MASKS, sampling=(1, 2), empty=0),
        functools.partial(distance.signed_distance, MASKS, sampling=2.0),
        functools.partial(distance.compute_sdf, MASKS, normalize=True),
        functools.partial(distance.compute_edts_for_hausdorff_loss, MASKS),
        functools.partial(distance.compute_edts_for_penalized_loss, MASKS),
        functools.partial(distance.border_weights, MASKS.astype(np.int32)),
    ]
    for call in calls:
        call()
    with jax.log_compiles():
        for call in calls:
            call()
    assert "ompiling" not in caplog.text


def test_no_pair_of_pixels_is_stored_on_a_gpu(monkeypatch):
    """Compiled for an H100, where the compiler's CUDA parts are installed: at most three maps."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "benchmarks")
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    deviceless, programs = map(importlib.import_module, ("deviceless", "programs"))
    devices = deviceless.h100()
    if devices is None:
        pytest.skip("needs jax-cuda12-plugin: see benchmarks/deviceless.py")
    for name, (function, mask) in programs.MAPS.items():
        compiled = deviceless.compiled(function, (mask,), devices[0])
        assert compiled.memory_analysis().temp_size_in_bytes <= 3 * 4 * mask.size, name
