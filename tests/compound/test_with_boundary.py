"""Dice beside a boundary loss: oracles, cases, identities and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from tests.boundary.test_hausdorff import CASES as HAUSDORFF
from tests.boundary.test_hausdorff import INVALID_MAPS
from tests.boundary.test_surface import CASES as SURFACE
from tests.oracles import invalid_segmentations
from tests.region.test_generalized import CASES as GENERALIZED
from tests.region.test_overlap import CASES as OVERLAP
from tests.registry import Case, Invalid, binary, ids


def _parts(dice, distant, prediction, target, include_background=None, **options):
    """Both parts by their own oracles, of the same classes."""
    same = options.get("axis", -1) is None or prediction.shape == target.shape
    keep = same if include_background is None else include_background
    own = {"sampling", "log", "alpha"}
    of_dice = {k: v for k, v in options.items() if k not in own}
    of_distant = {k: v for k, v in options.items() if k not in ("smooth", "squared", "weighting")}
    region = dice(prediction, target, include_background=keep, **of_dice)
    return region, distant(prediction, target, include_background=keep, **of_distant)


def _dice_boundary(prediction, target, alpha=0.5, **options):
    oracles = GENERALIZED["generalized_dice"].oracle, SURFACE["boundary"].oracle
    dice, boundary = _parts(*oracles, prediction, target, **options)
    return alpha * dice + (1 - alpha) * boundary


def _dice_hausdorff(prediction, target, dice_weight=1.0, hausdorff_weight=1.0, **options):
    oracles = OVERLAP["dice"].oracle, HAUSDORFF["hausdorff_dt"].oracle
    dice, hausdorff = _parts(*oracles, prediction, target, **options)
    if dice_weight == "adaptive":
        return hausdorff + hausdorff_weight * hausdorff
    return dice_weight * dice + hausdorff_weight * hausdorff


PAIR = INVALID_MAPS[0].arguments
INVALID = (
    *(c for c in invalid_segmentations() if "reduction" not in c.options),
    *INVALID_MAPS,
    Invalid(PAIR, {"reduction": "none"}, ValueError, ("reduction", "'none'", "'mean'")),
)

CASES = {
    "dice_boundary": Case(
        _dice_boundary,
        (
            ids(),
            ids("pooled", axis=1, include_background=True, per_image=False, sampling=(2.0, 0.5)),
            binary(alpha=0.2),
        ),
        (
            *INVALID,
            Invalid(PAIR, {"alpha": 1.5}, ValueError, ("alpha", "1.5", r"\[0, 1\]")),
            Invalid(PAIR, {"weighting": "cube"}, ValueError, ("weighting", "'cube'")),
        ),
        {"alpha": (0.3, 1.5), "smooth": (0.7, -1.0)},
        "smooth",
        5.7,
    ),
    "dice_hausdorff": Case(
        _dice_hausdorff,
        (
            ids(),
            ids("pooled", axis=1, include_background=True, per_image=False, squared=True),
            binary(alpha=1.5, log=True, hausdorff_weight=0.1),
        ),
        (
            *INVALID,
            Invalid(PAIR, {"dice_weight": -1.0}, ValueError, ("dice_weight", "-1.0")),
            Invalid(PAIR, {"dice_weight": "auto"}, ValueError, ("dice_weight", "'adaptive'")),
            Invalid(PAIR, {"hausdorff_weight": -1.0}, ValueError, ("hausdorff_weight", "-1.0")),
        ),
        {
            "alpha": (1.5, -1.0),
            "dice_weight": (0.7, -1.0),
            "hausdorff_weight": (0.7, -1.0),
            "smooth": (0.7, -1.0),
        },
        "smooth",
        11.4,
    ),
}

LOGITS = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, (2, 6, 6))


@pytest.mark.parametrize("include", [True, False])
def test_dice_boundary_is_the_blend_of_its_parts(include):
    dice = jaxloss.generalized_dice(LOGITS, LABELS, include_background=include)
    boundary = jaxloss.boundary(LOGITS, LABELS, include_background=include)
    for alpha in (0.0, 0.3, 1.0):
        loss = jaxloss.dice_boundary(LOGITS, LABELS, alpha=alpha, include_background=include)
        np.testing.assert_allclose(loss, alpha * dice + (1 - alpha) * boundary, 1e-5)


def test_a_schedule_compiles_once():
    """The paper's: from 1 by 0.01 an epoch down to 0.01."""
    schedule = optax.linear_schedule(1.0, 0.01, transition_steps=99)
    traces = []

    @jax.jit
    def run(step):
        traces.append(step)
        return jaxloss.dice_boundary(LOGITS, LABELS, alpha=schedule(step))

    losses = [run(jnp.int32(step)) for step in (0, 50, 99, 200)]
    assert len(traces) == 1
    assert losses[2] == losses[3]
    np.testing.assert_allclose(losses[0], jaxloss.dice_boundary(LOGITS, LABELS, alpha=1.0), 1e-6)
    np.testing.assert_allclose(losses[3], jaxloss.dice_boundary(LOGITS, LABELS, alpha=0.01), 1e-6)


def test_dice_hausdorff_is_the_sum_of_its_parts():
    dice = jaxloss.dice(LOGITS, LABELS, include_background=False)
    hausdorff = jaxloss.hausdorff_dt(LOGITS, LABELS)
    loss = jaxloss.dice_hausdorff(LOGITS, LABELS, dice_weight=2, hausdorff_weight=0.5)
    np.testing.assert_allclose(loss, 2 * dice + 0.5 * hausdorff, 1e-6)


def test_the_adaptive_weight_is_a_constant():
    """Both parts then have one value, and each the gradient of its own."""
    adaptive = jax.grad(lambda x: jaxloss.dice_hausdorff(x, LABELS, dice_weight="adaptive"))
    dice, by_dice = jax.value_and_grad(lambda x: jaxloss.dice(x, LABELS, include_background=False))(
        LOGITS
    )
    hausdorff, by_hausdorff = jax.value_and_grad(lambda x: jaxloss.hausdorff_dt(x, LABELS))(LOGITS)
    expected = hausdorff / dice * by_dice + by_hausdorff
    np.testing.assert_allclose(adaptive(LOGITS), expected, rtol=1e-4, atol=1e-6)
    loss = jaxloss.dice_hausdorff(LOGITS, LABELS, dice_weight="adaptive")
    np.testing.assert_allclose(loss, 2 * hausdorff, 1e-6)


def test_a_perfect_prediction_costs_nothing():
    y = np.zeros((1, 6, 6), np.float32)
    y[0, 2:4, 2:5] = 1
    for weight in (1.0, "adaptive"):
        loss = lambda p, weight=weight: jaxloss.dice_hausdorff(
            p, y, dice_weight=weight, axis=None, activation=None
        )
        value, slope = jax.value_and_grad(loss)(jnp.asarray(y))
        assert value == 0
        assert jnp.isfinite(slope).all()


def test_maps_may_be_passed_in():
    masks = LABELS[..., None] == np.arange(3)
    signed = jaxloss.distance.signed_distance(masks, axes=(1, 2))
    both = jaxloss.distance.compute_edts_for_hausdorff_loss(masks, axes=(1, 2))
    for name, given in (("dice_boundary", signed), ("dice_hausdorff", both)):
        loss = getattr(jaxloss, name)
        np.testing.assert_allclose(
            loss(LOGITS, LABELS, distance_map=given), loss(LOGITS, LABELS), 1e-6
        )
