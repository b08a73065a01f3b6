"""Distance transforms: exact against brute force and SciPy, under every transform of JAX."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import ndimage

from jaxloss import distance


def brute_force(masks):
    """Squared distances over the last two axes, from every pair of pixels; infinite without one."""
    height, width = masks.shape[-2:]
    place = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2)
    pairs = ((place[:, None] - place[None]) ** 2).sum(-1)
    flat = masks.reshape(-1, 1, height * width)
    squared = np.where(flat, np.inf, pairs).min(-1)
    return squared.reshape(masks.shape)


def scipy_edt(masks, rank=2, sampling=None):
    """SciPy image by image, with infinity where an image has no False element."""
    images = masks.reshape(-1, *masks.shape[masks.ndim - rank :])
    found = [
        np.full(image.shape, np.inf) if image.all() else transform(image)
        for transform in [functools.partial(ndimage.distance_transform_edt, sampling=sampling)]
        for image in images
    ]
    return np.stack(found).reshape(masks.shape)


def kervadec(masks, sampling=(1, 1)):
    """The map of Kervadec's code: distance outside, minus (distance - 1) inside."""
    outside = scipy_edt(~masks, sampling=sampling)
    inside = scipy_edt(masks, sampling=sampling)
    bounded = masks.any((-2, -1), keepdims=True) & ~masks.all((-2, -1), keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(bounded, np.where(masks, min(sampling) - inside, outside), 0)


def random_masks(*shape, density=0.9, seed=0):
    return np.random.default_rng(seed).random(shape) < density


def one_far(*shape):
    mask = np.ones(shape, bool)
    mask[(0,) * len(shape)] = False
    return mask


MASKS = random_masks(8, 9, 12)
EXPECTED = scipy_edt(MASKS).astype(np.float32)


# Values.


@pytest.mark.parametrize("size", [3, 4])
def test_squared_edt_of_every_small_mask_is_brute_force(size):
    bits = np.arange(2 ** (size * size))[:, None] >> np.arange(size * size) & 1
    masks = bits.astype(bool).reshape(-1, size, size)
    expected = brute_force(masks)
    np.testing.assert_array_equal(distance.squared_edt(masks), expected)
    by_reduction = distance._passes_by_reduction(jnp.asarray(masks), (None, None))
    np.testing.assert_array_equal(by_reduction, np.where(np.isinf(expected), 2**30, expected))


@pytest.mark.parametrize(
    "mask",
    [
        random_masks(1, 1),
        random_masks(2, 2, seed=1),
        random_masks(7, 41),
        random_masks(63, 65, density=0.995),
        random_masks(1, 1025, density=0.99),
        random_masks(1025, 1, density=0.99),
        np.stack([one_far(40, 50), random_masks(40, 50), random_masks(40, 50, density=0)]),
    ],
    ids=lambda mask: "x".join(map(str, mask.shape)),
)
def test_edt_is_scipy(mask):
    np.testing.assert_array_equal(distance.edt(mask), scipy_edt(mask).astype(np.float32))


@pytest.mark.parametrize("shape", [(50,), (9, 11, 13), (3, 4, 5, 6)], ids=str)
def test_edt_takes_any_number_of_spatial_axes(shape):
    mask = random_masks(2, *shape, density=0.95)
    axes = tuple(range(1, len(shape) + 1))
    if len(shape) < 4:
        expected = scipy_edt(mask, len(shape)).astype(np.float32)
        np.testing.assert_array_equal(distance.edt(mask, axes=axes), expected)
    sampling = (0.7, 2.0, 1.3, 0.5)[: len(shape)]
    expected = scipy_edt(mask, len(shape), sampling)
    found = distance.edt(mask, axes=axes, sampling=sampling)
    np.testing.assert_allclose(found, expected, rtol=5e-7)


@pytest.mark.parametrize(
    "mask",
    [one_far(50, 60), ~np.eye(50, 60, dtype=bool), random_masks(50, 60, density=0.99)],
    ids=["far", "line", "random"],
)
def test_both_algorithms_are_scipy(mask, monkeypatch):
    monkeypatch.setattr(distance, "_BLOCK", 7 * 60)  # the last block overlaps the one before
    for algorithm in [distance._passes_by_neighbours, distance._passes_by_reduction]:
        passes = jax.jit(algorithm)
        squared = passes(jnp.asarray(mask), (None, None))
        np.testing.assert_array_equal(squared, np.round(scipy_edt(mask) ** 2))
        for sampling in [(1.0, 1.7), (1.7, 1.0)]:
            spacings = tuple(jnp.full((1, 1), spacing) for spacing in sampling)
            squared = passes(jnp.asarray(mask), spacings)
            expected = scipy_edt(mask, sampling=sampling) ** 2
            np.testing.assert_allclose(squared, expected, rtol=5e-7)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_edt_of_a_batch_is_the_edt_of_each_image(batch):
    masks = random_masks(*batch, 9, 12)
    np.testing.assert_array_equal(distance.edt(masks), scipy_edt(masks).astype(np.float32))


def test_sampling_follows_the_order_of_the_axes():
    masks = np.moveaxis(MASKS, 0, -1)
    expected = np.moveaxis(scipy_edt(MASKS, sampling=(2, 0.5)), 0, -1)
    for axes, sampling in [((0, 1), (2, 0.5)), ((-2, -3), np.array([0.5, 2]))]:
        found = distance.edt(masks, axes=axes, sampling=sampling)
        np.testing.assert_allclose(found, expected, rtol=5e-7)


@pytest.mark.parametrize("sampling", [1e-30, 0.3, 1e30, (3e-30, 1e-30), (2e30, 1e30)], ids=str)
def test_edt_keeps_tiny_and_huge_spacings(sampling):
    per_axis = sampling if isinstance(sampling, tuple) else (sampling, sampling)
    found = distance.edt(MASKS, sampling=sampling)
    np.testing.assert_allclose(found, scipy_edt(MASKS, sampling=per_axis), rtol=1e-6)


def test_squared_edt_is_correctly_rounded_beyond_two_to_the_24():
    mask = one_far(3, 6000)
    rows, columns = np.mgrid[:3, :6000]
    expected = rows**2 + columns**2
    assert expected.max() > 2**25
    np.testing.assert_array_equal(distance.squared_edt(mask), expected.astype(np.float32))


def test_edt_of_a_line_longer_than_integers_can_square():
    mask = one_far(40_000)
    np.testing.assert_array_equal(distance.edt(mask, axes=0), np.arange(40_000, dtype=np.float32))


def test_without_boundary_the_distances_are_defined():
    full, void = np.ones_like(MASKS), np.zeros_like(MASKS)
    np.testing.assert_array_equal(distance.edt(full), np.inf)  # scipy/scipy#15585
    np.testing.assert_array_equal(distance.edt(full, empty=-1), -1)
    np.testing.assert_array_equal(distance.squared_edt(full, sampling=(1, 2), empty=7), 7)
    np.testing.assert_array_equal(distance.edt(void), 0)
    for masks in [full, void]:
        np.testing.assert_array_equal(distance.signed_distance(masks), 0)
        np.testing.assert_array_equal(distance.signed_distance(masks, sampling=(3, 2)), 0)


def test_signed_distance_is_kervadecs():
    masks = np.concatenate([random_masks(4, 9, 12, density=0.3), MASKS[:4]])
    found = distance.signed_distance(masks)
    np.testing.assert_allclose(found, kervadec(masks), rtol=1e-6, atol=1e-7)
    found = distance.signed_distance(masks, sampling=(2, 0.5))
    np.testing.assert_allclose(found, kervadec(masks, (2, 0.5)), rtol=1e-6, atol=1e-6)


def test_arrays_without_elements_pass():
    assert distance.edt(np.ones((0, 4, 5), bool)).shape == (0, 4, 5)
    assert distance.signed_distance(np.ones((2, 0, 5), bool)).shape == (2, 0, 5)


# Transforms, dtypes, gradients.


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        jax.vmap,
        lambda f: lambda masks: jax.vmap(jax.vmap(f))(masks.reshape(2, 4, 9, 12)).reshape(8, 9, 12),
        lambda f: lambda masks: jax.lax.scan(lambda c, mask: (c, f(mask)), 0, masks)[1],
    ],
    ids=["jit", "vmap", "vmap-vmap", "scan"],
)
def test_edt_under_transforms(transform):
    np.testing.assert_array_equal(transform(distance.edt)(jnp.asarray(MASKS)), EXPECTED)


def test_sampling_may_be_mapped():
    sampling = np.random.default_rng(0).uniform(0.5, 2, (8, 2)).astype(np.float32)
    found = jax.vmap(lambda mask, s: distance.edt(mask, sampling=s))(MASKS, sampling)
    shared = jax.vmap(lambda s: distance.edt(MASKS[0], sampling=s))(sampling)
    for n in range(8):
        np.testing.assert_allclose(found[n], scipy_edt(MASKS[n], 2, sampling[n]), rtol=1e-6)
        np.testing.assert_allclose(shared[n], scipy_edt(MASKS[0], 2, sampling[n]), rtol=1e-6)


def test_distances_are_constants():
    def total(x, sampling, empty):
        masks = jnp.asarray(MASKS) & (x < 10)
        far = distance.edt(masks, sampling=sampling, empty=empty)
        signed = jax.vmap(lambda mask: distance.signed_distance(mask, sampling=sampling))(masks)
        return jnp.sum(x * far) + jnp.sum(signed)

    x, sampling = jnp.ones(MASKS.shape), jnp.array([1.0, 2.0])
    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(x, sampling, 5.0)
    expected = distance.edt(MASKS, sampling=sampling, empty=5.0)
    np.testing.assert_allclose(gradients[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(gradients[1], 0)
    np.testing.assert_array_equal(gradients[2], 0)


def test_only_a_float64_sampling_makes_float64():
    for sampling in [None, 0.5, (2.0, 0.5), np.float32(0.5), np.array([2, 1])]:
        f = functools.partial(distance.edt, sampling=sampling)
        for x64 in [False, True]:
            with jax.enable_x64(x64):
                assert jax.eval_shape(f, MASKS).dtype == jnp.float32
    with jax.enable_x64(True):
        np.testing.assert_array_equal(distance.edt(MASKS), EXPECTED)
        found = distance.edt(MASKS, sampling=np.array([0.7, 1.3]))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, scipy_edt(MASKS, sampling=(0.7, 1.3)), rtol=1e-15)


def test_a_traced_sampling_that_is_not_positive_makes_nan():
    f = jax.jit(lambda s: distance.edt(MASKS, sampling=s))
    for sampling in [[-1.0, 1.0], [1.0, 0.0], [jnp.nan, 1.0]]:
        assert jnp.isnan(f(jnp.array(sampling))).all()
    assert jnp.isnan(f(jnp.float32(-1.0))).all()


# Devices, compilation.


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=["explicit", "auto"])
def test_a_sharded_batch_stays_where_it_is(kind):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    split = PartitionSpec("data")
    with jax.set_mesh(mesh):
        masks = jax.device_put(MASKS, NamedSharding(mesh, split))
        program = jax.jit(distance.edt).lower(masks).compile()
        assert not re.search("all-gather|all-to-all|collective-permute", program.as_text())
        found = program(masks)
        np.testing.assert_array_equal(found, EXPECTED)
        assert found.sharding.is_equivalent_to(masks.sharding, masks.ndim)
        mapped = jax.jit(jax.shard_map(distance.edt, in_specs=split, out_specs=split))
        np.testing.assert_array_equal(mapped(masks), EXPECTED)


def test_the_reduction_runs_on_an_explicit_mesh():
    passes = functools.partial(distance._passes_by_reduction, spacings=(None, None))
    mesh = jax.make_mesh((4,), ("data",))
    split = PartitionSpec("data")
    with jax.set_mesh(mesh):
        masks = jax.device_put(MASKS, NamedSharding(mesh, split))
        for f in [passes, jax.shard_map(passes, in_specs=split, out_specs=split)]:
            np.testing.assert_array_equal(jax.jit(f)(masks), brute_force(MASKS))


def test_distances_export_to_every_platform():
    function = jax.vmap(distance.signed_distance)
    platforms = ("cpu", "cuda", "rocm", "tpu")
    masks = jax.ShapeDtypeStruct(MASKS.shape, bool)
    exported = jax.export.export(jax.jit(function), platforms=platforms)(masks)
    assert exported.platforms == platforms
    assert "callback" not in exported.mlir_module()
    np.testing.assert_array_equal(exported.call(MASKS), function(jnp.asarray(MASKS)))


def test_a_second_eager_call_compiles_nothing(caplog):
    calls = [
        functools.partial(distance.edt, MASKS),
        functools.partial(distance.squared_edt, MASKS, sampling=(1, 2), empty=0),
        functools.partial(distance.signed_distance, MASKS, sampling=2.0),
    ]
    for call in calls:
        call()
    with jax.log_compiles():
        for call in calls:
            call()
    assert "ompiling" not in caplog.text


# Errors.


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"mask": MASKS.astype(np.float32)}, TypeError, ["mask", "float32", "bool"]),
        ({"mask": MASKS.astype(np.int32)}, TypeError, ["mask", "int32", "bool"]),
        ({"mask": MASKS[0, 0]}, ValueError, ["axes", "-2", r"\[-1, 1\)"]),
        ({"axes": (1, 3)}, ValueError, ["axes", "3", r"\[-3, 3\)"]),
        ({"axes": (1, -2)}, ValueError, ["axes", r"\(1, -2\)", "different"]),
        ({"axes": ()}, ValueError, ["axes", r"\(\)", "one or more"]),
        ({"axes": (0.5, 1)}, TypeError, ["axes", "0.5", "integer"]),
        ({"sampling": (1, 2, 3)}, ValueError, ["sampling", r"\(3,\)", "2 axes"]),
        ({"sampling": ()}, ValueError, ["sampling", r"\(0,\)", "2 axes"]),
        ({"sampling": np.ones((2, 2))}, ValueError, ["sampling", r"\(2, 2\)", "2 axes"]),
        ({"sampling": (1, 0)}, ValueError, ["sampling", "0", r"\(0, inf\)"]),
        ({"sampling": -2.0}, ValueError, ["sampling", "-2.0", r"\(0, inf\)"]),
        ({"sampling": np.array([1.0, np.nan])}, ValueError, ["sampling", "nan", r"\(0, inf\)"]),
        ({"sampling": (1, np.inf)}, ValueError, ["sampling", "inf", r"\(0, inf\)"]),
    ],
)
@pytest.mark.parametrize("name", distance.__all__)
def test_errors_name_function_argument_and_expectation(name, options, error, words):
    options = {"mask": MASKS, **options}
    mask = options.pop("mask")
    with pytest.raises(error) as raised:
        jax.jit(functools.partial(getattr(distance, name), **options))(mask)
    for word in [f"jaxloss.{name}", *words]:
        assert re.search(word, str(raised.value)), (word, str(raised.value))


@pytest.mark.parametrize("name", ["edt", "squared_edt"])
def test_empty_must_be_a_scalar(name):
    with pytest.raises(ValueError, match=rf"jaxloss.{name}: `empty` is of shape \(2,\)"):
        getattr(distance, name)(MASKS, empty=np.ones(2))
