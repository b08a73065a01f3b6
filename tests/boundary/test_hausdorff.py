"""Hausdorff losses: oracles, cases, closed forms and what other code gets wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxloss
from tests.boundary.maps import mean, scored, to_boundary
from tests.compiling import usual_jit
from tests.oracles import invalid_segmentations
from tests.registry import Case, Helper, Invalid, binary, ids, probabilities


@scored
def _hausdorff_dt(total, p, y, valid, each, alpha=2.0, log=False):
    maps = (each(to_boundary, mask & valid) for mask in (p > 0.5, y > 0.5))
    loss = mean(total, (p - y) ** 2 * sum(d**alpha for d in maps))
    return np.log1p(loss) if log else loss


@scored
def _hausdorff_erosion(total, p, y, valid, each, erosions=10, alpha=2.0):
    sizes = p.shape[1:-1]
    cross = ndimage.generate_binary_structure(len(sizes), 1).astype(float)
    eroded = np.zeros(p.shape)
    for b in range(len(p)):
        for c in range(p.shape[-1]):
            inside = valid[b, ..., c]
            e = np.where(inside, (p - y)[b, ..., c] ** 2, 0)
            for k in range(1, erosions + 1):
                spread = ndimage.convolve(e, cross / cross.sum(), mode="constant")
                e = np.where(inside, np.maximum(spread - 0.5, 0), 0)
                high = e[inside].max() if inside.any() else 0
                low = e[inside].min() if inside.any() else 0
                e = np.where(inside & (high > low), (e - low) / ((high - low) or 1), e)
                eroded[b, ..., c] += k**alpha * e
    return mean(total, eroded)


X, IDS = np.zeros((2, 4, 5, 3)), np.zeros((2, 4, 5), int)
INVALID_MAPS = (
    Invalid((X, IDS), {"sampling": (1.0,)}, ValueError, ("sampling",)),
    Invalid((X, IDS), {"sampling": -1.0}, ValueError, ("sampling",)),
    Invalid(
        (X, IDS), {"distance_map": IDS}, ValueError, ("distance_map", r"\(2, 4, 5\)", "logits")
    ),
)


def certain(sample, scale=3.0):
    """A sample whose predictions make errors that survive an erosion."""
    return sample._replace(prediction=sample.prediction * scale)


CASES = {
    "hausdorff_dt": Case(
        _hausdorff_dt,
        (
            ids(),
            ids("pooled", axis=1, include_background=True, per_image=False, sampling=(2.0, 0.5)),
            binary(alpha=1.5, log=True),
            probabilities(),
        ),
        (
            *invalid_segmentations("alpha"),
            *INVALID_MAPS,
            Invalid((X, IDS), {"log": 2}, ValueError, ("log", "2", "True")),
        ),
        {"alpha": (1.5, -1.0)},
        "smooth",
        10.3,
    ),
    "hausdorff_erosion": Case(
        _hausdorff_erosion,
        (
            certain(ids(), 20.0),
            certain(ids("pooled", axis=1, include_background=True, per_image=False, erosions=3)),
            certain(binary(alpha=1.5)),
        ),
        (
            *invalid_segmentations("alpha"),
            Invalid((X, IDS), {"erosions": 0}, ValueError, ("erosions", "0", "at least 1")),
            Invalid((X, IDS), {"erosions": 2.0}, TypeError, ("erosions", "2.0", "integer")),
        ),
        {"alpha": (1.5, -1.0)},
        "kinked",
        24.2,
    ),
}


def _of_each(mask, axes=(-2, -1), sampling=1.0):
    spacing = np.broadcast_to(sampling, len(axes))
    return np.stack([to_boundary(np.asarray(image), spacing) for image in mask])


_MASKS = np.stack(
    [np.random.default_rng(0).random((5, 7)) < 0.6, np.zeros((5, 7)), np.ones((5, 7))]
).astype(bool)

HELPERS = {
    "compute_edts_for_hausdorff_loss": Helper(
        _of_each,
        (((_MASKS,), {"sampling": np.array([2.0, 0.7])}), ((_MASKS,), {"sampling": np.ones(2)})),
        (
            Invalid((_MASKS.astype(int),), {}, TypeError, ("mask", "int", "bool")),
            Invalid((_MASKS,), {"axes": 3}, ValueError, ("axes", "3")),
            Invalid((_MASKS,), {"sampling": 0.0}, ValueError, ("sampling", "0.0")),
        ),
    ),
}
BINARY = {"axis": None, "activation": None}


def loss_of(name, p, y, **options):
    """The loss of each image without a class axis, of probabilities."""
    p, y = jnp.asarray(p, jnp.float32), jnp.asarray(y, jnp.float32)
    return getattr(jaxloss, name)(p, y, **(BINARY | {"reduction": "none"} | options))


@pytest.mark.parametrize("shift, total", [(0, 0), (1, 4), (2, 20), (3, 56)])
def test_hausdorff_dt_of_a_shifted_block(shift, total):
    """Both wrong runs lie at 1..shift from one boundary and at shift..1 from the other."""
    y = np.zeros((1, 24))
    y[:, 8:16] = 1
    np.testing.assert_allclose(loss_of("hausdorff_dt", np.roll(y, shift), y), total / 24, 1e-6)


def test_hausdorff_dt_with_its_own_map_passed_in():
    labels = np.zeros((1, 6, 6), int)
    labels[:, 2:5, 1:4] = 1
    logits = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)
    own = np.stack([to_boundary(labels[0] == c, np.ones(2)) for c in range(2)], -1)[None]
    for include in (True, None):
        options = {"include_background": include}
        np.testing.assert_allclose(
            jaxloss.hausdorff_dt(logits, labels, distance_map=own, **options),
            jaxloss.hausdorff_dt(logits, labels, **options),
            1e-6,
        )


def test_hausdorff_dt_in_a_volume_with_thick_slices():
    y, p = np.zeros((1, 3, 5, 5)), np.zeros((1, 3, 5, 5))
    y[0, 1, 2, 2], p[0, 0, 2, 2] = 1, 1
    loss = loss_of("hausdorff_dt", p, y, sampling=(3.0, 1.0, 1.0))
    # Each is at 3 from the other's mask, and at 1 inside its own.
    np.testing.assert_allclose(loss, 2 * (9 + 1) / 75, 1e-6)


def test_the_worst_prediction_costs_most():
    """MONAI's HausdorffDTLoss: all or nothing of an empty or full target scored 0."""
    y = np.stack([np.zeros((8, 8)), np.ones((8, 8))])
    worst, bad, good = (np.where(y > 0, right, 1 - right) for right in (0.1, 0.4, 0.9))
    losses = [loss_of("hausdorff_dt", p, y) for p in (worst, bad, good)]
    assert (losses[0] > losses[1]).all()
    assert (losses[1] > losses[2]).all()
    slope = jax.grad(lambda p: loss_of("hausdorff_dt", p, y).sum())(jnp.asarray(worst))
    np.testing.assert_array_equal(jnp.sign(slope), np.where(y > 0, -1, 1))


def test_an_error_costs_more_the_farther_it_is_from_the_target():
    """LIVIAETS, SegWithDistMap: the inside of the maps alone does not know how far it is."""
    y = np.zeros((5, 1, 32))
    y[..., :3] = 1
    p = y.copy()
    for n, place in enumerate((4, 9, 14, 19, 24)):
        p[n, 0, place : place + 2] = 1
    losses = loss_of("hausdorff_dt", p, y)
    assert (jnp.diff(losses) > 1).all()


def test_integer_labels_do_not_truncate_distances():
    """MONAI, SegLoss: a map in the dtype of an integer target."""
    y = np.zeros((1, 6, 6), np.int32)
    y[0, 1:4, 2:6] = 1
    p = np.full((1, 6, 6), 0.3, np.float32)
    of_ints = jaxloss.hausdorff_dt(p, y, **BINARY)
    np.testing.assert_array_equal(of_ints, jaxloss.hausdorff_dt(p, y.astype(np.float32), **BINARY))
    by_hand = (p[0] - y[0]) ** 2 * to_boundary(y[0] > 0, np.ones(2)) ** 2
    np.testing.assert_allclose(of_ints, by_hand.mean(), 1e-6)


def test_full_masks_measure_to_the_outside():
    """SciPy, SegLoss: to a point at -1, or to none."""
    full = np.ones((3, 5), bool)
    expected = [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    found = jaxloss.compute_edts_for_hausdorff_loss(full)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(jaxloss.compute_edts_for_hausdorff_loss(~full), 0)


def test_erosion_in_closed_form():
    """A square of 3 x 3: one erosion leaves its middle 1, its sides 0.6 and corners 0.2."""
    y = np.zeros((1, 9, 9))
    p = y.copy()
    p[0, 3:6, 3:6] = 1
    once = (1 + 4 * 0.6 + 4 * 0.2) / 81
    np.testing.assert_allclose(loss_of("hausdorff_erosion", p, y, erosions=1), once, 1e-6)
    # The second leaves the middle alone, scaled to 1, and the third nothing.
    for erosions in (2, 3, 10):
        loss = loss_of("hausdorff_erosion", p, y, erosions=erosions)
        np.testing.assert_allclose(loss, once + 4 / 81, 1e-6)
        loss = loss_of("hausdorff_erosion", p, y, erosions=erosions, alpha=0)
        np.testing.assert_allclose(loss, once + 1 / 81, 1e-6)


def test_erosion_has_a_gradient():
    """SegLossOdyssey#21: made by NumPy, it had none."""
    y = np.zeros((1, 9, 9))
    p = np.full((1, 9, 9), 0.9)
    p[0, :2] = 0.1
    # Its maximum looks for what equals it, which unoptimised code may have rounded otherwise.
    slope = usual_jit(jax.grad(lambda p: loss_of("hausdorff_erosion", p, y).sum()))(p)
    assert jnp.isfinite(slope).all()
    assert (slope > 0).any()


def test_erosion_of_a_volume_is_not_that_of_its_slices():
    """SegLoss: the kernel of volumes had its depth on the channel axis."""
    y = np.zeros((1, 5, 5, 5))
    p = y.copy()
    p[0, 2, 1:4, 1:4] = 1  # one slice thick: 5/7 - 1/2 in its middle
    loss = loss_of("hausdorff_erosion", p, y, erosions=1)
    sides = 4 / 7 - 0.5
    np.testing.assert_allclose(loss, (1 + 4 * sides / (5 / 7 - 0.5)) / 125, 1e-5)
    thick = np.stack([p[0], np.broadcast_to(p[0, 2], (5, 5, 5))])
    losses = loss_of("hausdorff_erosion", thick, np.zeros_like(thick))
    assert losses[1] > 5 * losses[0]


def test_a_constant_error_is_not_scaled():
    y = np.zeros((1, 6))
    found = loss_of("hausdorff_erosion", np.zeros((1, 6)), y)
    np.testing.assert_array_equal(found, 0)


def test_sharp_logits_stay_finite():
    logits = jnp.array([1e4, -1e4, 1e30, -1e30, jnp.inf, -jnp.inf, 0.0])
    x = jnp.broadcast_to(logits[:, None, None], (7, 4, 4)).at[:, 0].set(0.3)
    y = jnp.zeros((4, 4)).at[1:3, 1:3].set(1.0)
    for name in ("hausdorff_dt", "hausdorff_erosion"):
        loss = lambda x, name=name: getattr(jaxloss, name)(x[None], y[None], axis=None)
        value, slope = usual_jit(jax.vmap(jax.value_and_grad(loss)))(x)
        assert jnp.isfinite(value).all()
        assert jnp.isfinite(slope).all()
