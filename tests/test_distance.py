"""Distance transforms: exact against brute force and SciPy, under every transform of JAX."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxloss
from jaxloss import distance
from jaxloss._core import blocks, transform
from tests.distances import (
    EXPECTED,
    MASKS,
    brute_force,
    in_blocks,
    one_far,
    random_masks,
    scipy_edt,
)


def kervadec(masks, sampling=(1, 1)):
    """The map of Kervadec's code: distance outside, minus (distance - 1) inside."""
    outside = scipy_edt(~masks, sampling=sampling)
    inside = scipy_edt(masks, sampling=sampling)
    bounded = masks.any((-2, -1), keepdims=True) & ~masks.all((-2, -1), keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.where(bounded, np.where(masks, min(sampling) - inside, outside), 0)


def to_the_other_side(masks, sampling=None):
    """SciPy's distances on both sides; infinite in an image without a boundary."""
    return np.where(
        masks, scipy_edt(masks, sampling=sampling), scipy_edt(~masks, sampling=sampling)
    )


# Values.


def every_mask(size):
    bits = np.arange(2 ** (size * size))[:, None] >> np.arange(size * size) & 1
    return bits.astype(bool).reshape(-1, size, size)


BODIES = [transform._passes_by_neighbours, transform._passes_by_reduction]


@pytest.mark.parametrize("size", [3, 4])
def test_squared_edt_of_every_small_mask_is_brute_force(size):
    masks = every_mask(size)
    expected = brute_force(masks)
    np.testing.assert_array_equal(distance.squared_edt(masks), expected)
    for body in BODIES:
        for count in {1, size // 2, size}:
            found = in_blocks(body, count)(jnp.asarray(masks), (None, None))
            np.testing.assert_array_equal(found, np.where(np.isinf(expected), 2**30, expected))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_both_sides_of_every_small_mask_are_brute_force(count):
    masks = every_mask(4)
    expected = np.where(masks, brute_force(masks), brute_force(~masks))
    for body in BODIES:
        found = in_blocks(body, count)(jnp.asarray(masks, jnp.int8), (None, None))
        far = found >= 2**30
        np.testing.assert_array_equal(far, np.isinf(expected))
        np.testing.assert_array_equal(np.where(far, np.inf, found), expected)


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
    monkeypatch.setattr(transform, "_CACHED", 7 * 60)  # the last rows overlap those before
    for passes in map(in_blocks, BODIES):
        squared = passes(jnp.asarray(mask), (None, None))
        np.testing.assert_array_equal(squared, np.round(scipy_edt(mask) ** 2))
        for sampling in [(1.0, 1.7), (1.7, 1.0)]:
            spacings = tuple(jnp.full((1, 1), spacing) for spacing in sampling)
            squared = passes(jnp.asarray(mask), spacings)
            expected = scipy_edt(mask, sampling=sampling) ** 2
            np.testing.assert_allclose(squared, expected, rtol=5e-7)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((70,), marks=pytest.mark.slow),
        (40, 50),
        pytest.param((9, 31, 37), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_both_algorithms_measure_all_labels_at_once(shape, monkeypatch):
    """Each label's distances are those from its own mask to the rest."""
    monkeypatch.setattr(transform, "_CACHED", 7 * 60)
    rng = np.random.default_rng(0)
    rank = len(shape)
    blobs = ndimage.zoom(
        rng.integers(0, 5, (2, *(-(-n // 8) for n in shape))), (1, *(8,) * rank), order=0
    )
    labels = blobs[(slice(None), *(slice(n) for n in shape))] - (rng.random((2, *shape)) < 0.01)
    labels[1] = np.minimum(labels[1], 1)
    for sampling in [None, (0.7, 2.0, 1.3)[:rank]]:
        expected = np.zeros(labels.shape)
        for label in np.unique(labels):
            inside = labels == label
            expected = np.where(inside, scipy_edt(inside, rank, sampling), expected)
        spacings = (None,) * rank
        if sampling is not None:
            spacings = tuple(jnp.full((1,) * labels.ndim, spacing) for spacing in sampling)
        for body in BODIES:
            squared = in_blocks(body)(jnp.asarray(labels, jnp.int32), spacings)
            squared = np.where(squared >= blocks.far(squared.dtype), np.inf, squared)
            np.testing.assert_allclose(squared, expected**2, rtol=1e-6)


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


OF_MASKS = [name for name in distance.__all__ if name != "border_weights"]
TRIVIAL = np.stack([np.zeros((9, 12), bool), np.ones((9, 12), bool)])


@pytest.mark.parametrize("name", distance.__all__)
def test_arrays_without_elements_pass(name):
    dtype = np.int32 if name == "border_weights" else bool
    for shape in [(0, 4, 5), (2, 0, 5)]:
        assert getattr(distance, name)(np.ones(shape, dtype)).shape == shape


@pytest.mark.parametrize("sampling", [None, (2.0, 0.5)], ids=str)
def test_compute_sdf_is_scipy(sampling):
    masks = np.concatenate([random_masks(4, 9, 12, density=0.3), MASKS[:4]])
    sides = to_the_other_side(masks, sampling)
    expected = np.where(masks, -sides, sides)
    np.testing.assert_allclose(distance.compute_sdf(masks, sampling=sampling), expected, rtol=1e-6)
    high = [np.where(side, sides, 0).max((1, 2), keepdims=True) for side in (masks, ~masks)]
    found = distance.compute_sdf(masks, normalize=True, sampling=sampling)
    np.testing.assert_allclose(found, expected / np.where(masks, *high), rtol=1e-6)
    np.testing.assert_allclose([found.min((1, 2)), -found.max((1, 2))], -1, rtol=1e-6)
    for normalize in (False, True):
        found = distance.compute_sdf(TRIVIAL, normalize=normalize, sampling=sampling)
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("name", OF_MASKS)
def test_maps_of_every_small_mask_are_finite(name):
    """Points, lines and empty masks too: the code that is copied divides 0 by 0 there."""
    options = {"empty": 0} if "edt" in name and "compute" not in name else {}
    found = getattr(distance, name)(every_mask(3), **options)
    assert jnp.isfinite(found).all()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((31,), marks=pytest.mark.slow),
        (7, 9, 11),
        pytest.param((3, 4, 5, 6), marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", OF_MASKS)
def test_maps_take_any_number_of_spatial_axes(name, shape):
    """The last axes or others; an axis of one element changes nothing."""
    masks = random_masks(2, *shape, density=0.7)
    function = getattr(distance, name)
    axes = tuple(range(1, len(shape) + 1))
    found = function(masks, axes=axes)
    moved = function(np.moveaxis(masks, 0, -1), axes=tuple(range(len(shape))))
    np.testing.assert_array_equal(np.moveaxis(moved, -1, 0), found)
    if name != "compute_edts_for_hausdorff_loss" or not masks.all(axes).any():
        thin = function(masks[..., None], axes=(*axes, len(shape) + 1))
        np.testing.assert_array_equal(thin[..., 0], found)


def two_nearest(labels, sampling=None):
    """The distances to the two nearest instances, one after the other."""
    each = [scipy_edt(labels != i, sampling=sampling) for i in np.unique(labels[labels > 0])]
    return np.sort([*each, *[np.full(labels.shape, np.inf)] * 2], axis=0)[:2]


@pytest.mark.parametrize("sampling", [None, (2.0, 0.5)], ids=str)
def test_border_weights_are_the_unets(sampling):
    labels = np.zeros((4, 24, 30), np.int32)
    for n, image in enumerate(labels):  # none, one, two and three instances
        for instance, y, x in [(7, 3, 3), (2, 5, 10), (90, 12, 6)][:n]:
            image[y : y + 4, x : x + 4] = instance
    labels[3, 0, 0] = -1  # neither background nor an instance
    d1, d2 = two_nearest(labels, sampling)
    expected = np.where(labels == 0, 4 * np.exp(-((d1 + d2) ** 2) / (2 * 3.0**2)), 0)
    assert (expected[2:] > 0.1).any((1, 2)).all()
    options = {"w0": 4.0, "sigma": 3.0, "sampling": sampling}
    found = distance.border_weights(labels, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found[:2], 0)
    mapped = jax.vmap(lambda image: distance.border_weights(image, **options))(labels)
    np.testing.assert_allclose(mapped, found, rtol=1e-6)
    small = distance.border_weights(labels.astype(np.int8), **options)
    np.testing.assert_array_equal(small, found)


def test_border_weights_have_derivatives():
    labels = np.array([[1, 0, 0, 2, 2, 0, 0], [0, 0, 0, 0, 0, 0, 3]])[:, None]
    loss = lambda w0, sigma: distance.border_weights(labels, w0=w0, sigma=sigma).sum()
    value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(10.0, 5.0)
    np.testing.assert_allclose(slopes[0], value / 10, rtol=1e-6)
    up, down = loss(10.0, 5.01), loss(10.0, 4.99)
    np.testing.assert_allclose(slopes[1], (up - down) / 0.02, rtol=1e-3)


def test_top_level_names_are_the_same_functions():
    for name in ("compute_edts_for_hausdorff_loss", "compute_edts_for_penalized_loss"):
        assert getattr(jaxloss, name) is getattr(distance, name)


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
        others = [getattr(distance, name)(masks, sampling=sampling) for name in OF_MASKS[:-2]]
        mapped = jax.vmap(lambda mask: distance.signed_distance(mask, sampling=sampling))(masks)
        return jnp.sum(x * far) + sum(map(jnp.sum, (mapped, *others)))

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
    for name in OF_MASKS[:-2]:
        f = jax.jit(lambda s, name=name: getattr(distance, name)(MASKS, sampling=s))
        assert jnp.isnan(f(jnp.array([-1.0, 1.0]))).any()


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
@pytest.mark.parametrize("name", OF_MASKS)
def test_errors_name_function_argument_and_expectation(name, options, error, words):
    options = {"mask": MASKS, **options}
    mask = options.pop("mask")
    with pytest.raises(error) as raised:
        jax.jit(functools.partial(getattr(distance, name), **options))(mask)
    for word in [rf"jaxloss\.(distance\.)?{name}: ", *words]:
        assert re.search(word, str(raised.value)), (word, str(raised.value))


@pytest.mark.parametrize("name", ["edt", "squared_edt"])
def test_empty_must_be_a_scalar(name):
    with pytest.raises(ValueError, match=rf"jaxloss.distance.{name}: `empty` is of shape \(2,\)"):
        getattr(distance, name)(MASKS, empty=np.ones(2))


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"labels": MASKS}, TypeError, ["labels", "bool", "integer"]),
        ({"labels": np.zeros((3, 3))}, TypeError, ["labels", "float", "integer"]),
        ({"axes": (1, -2)}, ValueError, ["axes", r"\(1, -2\)", "different"]),
        ({"sampling": (1, 0)}, ValueError, ["sampling", "0", r"\(0, inf\)"]),
        ({"sampling": (1, 2, 3)}, ValueError, ["sampling", r"\(3,\)", "2 axes"]),
        ({"w0": -1}, ValueError, ["w0", "-1", r"\[0, inf\)"]),
        ({"sigma": 0}, ValueError, ["sigma", "0", r"\(0, inf\)"]),
    ],
)
def test_errors_of_border_weights(options, error, words):
    options = {"labels": MASKS.astype(np.int32), **options}
    with pytest.raises(error) as raised:
        distance.border_weights(**options)
    for word in ["jaxloss.distance.border_weights", *words]:
        assert re.search(word, str(raised.value)), (word, str(raised.value))


def test_normalize_is_a_choice():
    with pytest.raises(ValueError, match=r"jaxloss.distance.compute_sdf: `normalize` is 2"):
        distance.compute_sdf(MASKS, normalize=2)
