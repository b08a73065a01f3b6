"""Region losses: oracles, cases and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

import jaxloss
from tests.registry import Case, Invalid, binary, dense, elements, ids, probabilities, soft


def probabilities_of(prediction, target, activation, axis):
    """The probabilities and dense targets that a segmentation loss sees, class axis last."""
    if activation == "auto":
        same = axis is None or prediction.shape == target.shape
        activation = "sigmoid" if same else "softmax"
    p = {"softmax": lambda x: softmax(x, axis), "sigmoid": expit, None: lambda x: x}[activation](
        prediction
    )
    y = dense(target, prediction, axis)
    if axis is None:
        return p[..., None], y[..., None]
    return np.moveaxis(p, axis, -1), np.moveaxis(y, axis, -1)


def pixel_weight(where, weights, p, axis):
    """`where * weights` in the shape of `p`, class axis last."""
    v = np.ones(p.shape)
    for factor in (where, weights):
        if factor is not None:
            if factor.ndim < p.ndim:
                factor = factor[..., None]
            elif axis is not None:
                factor = np.moveaxis(factor, axis, -1)
            v = v * factor
    return v


def mean_over_classes(values, part, class_weights, reduction, no_classes, include_background=True):
    """Mean over the classes that take part, then over the images that have any."""
    w = np.ones(values.shape[-1]) if class_weights is None else class_weights
    if not include_background:
        values, part, w = values[..., 1:], part[..., 1:], w[1:]
    v = part * w
    if reduction == "none":
        kept = np.where(v != 0, v * values, 0)
        return kept[..., 0] if no_classes else kept
    if reduction == "sum":
        return np.where(v != 0, v * values, 0).sum()
    total = v.sum(-1)
    image = (v * values).sum(-1)[total > 0] / total[total > 0]
    return image.mean() if image.size else np.float64(0)


def _region(loss):
    def oracle(
        prediction,
        target,
        where=None,
        weights=None,
        class_weights=None,
        reduction="mean",
        axis=-1,
        activation="auto",
        per_image=True,
        include_background=True,
        absent="score",
        **options,
    ):
        p, y = probabilities_of(prediction, target, activation, axis)
        v = pixel_weight(where, weights, p, axis)
        axes = tuple(range(1 if per_image else 0, p.ndim - 1))
        total = lambda x: (v * x).sum(axes)
        values = loss(total, p, y, **options)
        part = total(np.ones(p.shape)) > 0
        if absent == "skip":
            part &= total(y) > 0
        return mean_over_classes(
            values, part, class_weights, reduction, axis is None, include_background
        )

    return oracle


def dice_oracle(total, p, y, smooth=1.0, squared=False):
    if squared == "counts":
        tp, fp, fn = total((p * y) ** 2), total((p * (1 - y)) ** 2), total(((1 - p) * y) ** 2)
        return 1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
    power = 2 if squared else 1
    return 1 - (2 * total(p * y) + smooth) / (total(p**power) + total(y**power) + smooth)


def _jaccard(total, p, y, smooth=1.0):
    overlap = total(p * y)
    return 1 - (overlap + smooth) / (total(p) + total(y) - overlap + smooth)


def _tversky(total, p, y, alpha=0.5, beta=0.5, smooth=1.0):
    tp = total(p * y)
    errors = alpha * total(p * (1 - y)) + beta * total((1 - p) * y)
    return 1 - (tp + smooth) / (tp + errors + smooth)


X, IDS = np.zeros((2, 4, 3)), np.zeros((2, 4), int)


def invalid_segmentations(name="smooth"):
    """Calls that no loss on segmentations accepts."""
    single = np.zeros((2, 4, 1))
    return (
        Invalid((X.astype(int), IDS), {}, TypeError, ("logits", "int", "floating")),
        Invalid((X, np.zeros(2, int)), {}, ValueError, ("labels", r"\(2,\)", r"\(2, 4\)")),
        Invalid((X[0], IDS[0]), {}, ValueError, ("logits", r"\(4, 3\)", r"x\[None\]")),
        Invalid((X[:, 0, 0], X[:, 0, 0]), {"axis": None}, ValueError, ("logits", r"x\[None\]")),
        Invalid((single, IDS), {}, ValueError, ("labels", "single class", "axis=None")),
        Invalid((X, IDS), {"axis": 3}, ValueError, ("axis", "3", r"\[-3, 3\)")),
        Invalid((X, IDS), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
        Invalid((X, IDS), {"activation": "relu"}, ValueError, ("activation", "'relu'")),
        Invalid((X, IDS), {"where": IDS}, TypeError, ("where", "int", "bool")),
        Invalid((X, IDS), {"where": np.ones(2, bool)}, ValueError, ("where", r"\(2,\)", "rank")),
        Invalid((X, IDS), {"class_weights": [1.0]}, ValueError, ("class_weights", r"\(3,\)")),
        Invalid((X, X), {"ignore_index": 1}, ValueError, ("ignore_index", "float")),
        Invalid(
            (single, single),
            {"include_background": False},
            ValueError,
            ("include_background", "single class"),
        ),
        Invalid((X, IDS), {"include_background": "no"}, ValueError, ("include_background", "'no'")),
    ) + (
        (Invalid((X, IDS), {name: -1.0}, ValueError, (name, "-1.0", "number in")),) if name else ()
    )


_INVALID = (
    *invalid_segmentations(),
    Invalid((X, IDS), {"absent": "drop"}, ValueError, ("absent", "'drop'", "'skip'")),
)
_SAMPLES = (
    ids(),
    elements(),
    ids("channels", axis=1, include_background=False),
    ids("classes_first", axis=0, per_image=False),
    soft("soft_softmax", activation="softmax", smooth=0.0),
    binary(),
    probabilities(),
)

CASES = {
    "dice": Case(
        _region(dice_oracle),
        (
            *_SAMPLES,
            ids("squared", squared=True),
            elements("counts", squared="counts", smooth=1e-5),
        ),
        (
            *_INVALID,
            Invalid((X, IDS), {"squared": "twice"}, ValueError, ("squared", "'twice'", "'counts'")),
        ),
        {"smooth": (0.5, -1.0)},
        "smooth",
        4.2,
    ),
    "jaccard": Case(_region(_jaccard), _SAMPLES, _INVALID, {"smooth": (0.5, -1.0)}, "smooth", 4.2),
    "tversky": Case(
        _region(_tversky),
        (*_SAMPLES, ids("recall", alpha=0.3, beta=0.7)),
        (
            *_INVALID,
            Invalid((X, IDS), {"alpha": -0.1}, ValueError, ("alpha", "-0.1", "number in")),
            Invalid((X, IDS), {"beta": -0.1}, ValueError, ("beta", "-0.1", "number in")),
        ),
        {"alpha": (0.3, -1.0), "beta": (0.7, -1.0), "smooth": (0.5, -1.0)},
        "smooth",
        4.2,
    ),
}

P = jnp.array([[0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.9, 0.1, 0.0]])[None]
Y = jnp.array([[2, 0, 0]])


def test_tversky_with_equal_prices_is_dice_with_twice_the_smooth():
    halves = jaxloss.tversky(P, Y, activation=None, alpha=0.5, beta=0.5, smooth=0.7)
    np.testing.assert_allclose(halves, jaxloss.dice(P, Y, activation=None, smooth=1.4), 1e-6)


def test_tversky_with_unit_prices_is_jaccard():
    ones = jaxloss.tversky(P, Y, activation=None, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(ones, jaxloss.jaccard(P, Y, activation=None), 1e-6)


@pytest.mark.parametrize(
    "target, prediction, smooth, expected",
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.0, 1.0, 1.0, 1 - 1 / 5),
        (1.0, 0.0, 1.0, 1 - 1 / 5),
        (1.0, 1.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.5, 0.0, 1.0),
        (1.0, 1.0, 0.0, 0.0),
    ],
)
def test_dice_of_empty_and_full_masks(target, prediction, smooth, expected):
    p, y = jnp.full((1, 4), prediction), jnp.full((1, 4), target)
    loss = jaxloss.dice(p, y, axis=None, activation=None, smooth=smooth)
    np.testing.assert_allclose(loss, expected, 1e-6)


def test_absent_classes_can_be_skipped():
    scored, skipped = (
        jaxloss.dice(P, Y, activation=None, smooth=0.0, absent=a, reduction="none")[0]
        for a in ("score", "skip")
    )
    np.testing.assert_allclose(scored[1], 1.0)
    np.testing.assert_array_equal(skipped, scored.at[1].set(0.0))
    mean = jaxloss.dice(P, Y, activation=None, smooth=0.0, absent="skip")
    np.testing.assert_allclose(mean, (scored[0] + scored[2]) / 2, 1e-6)


def test_an_image_without_valid_pixels_takes_no_part():
    p, y = jnp.concatenate([P, 1 - P]), jnp.concatenate([Y, Y])
    where = jnp.array([[True] * 3, [False] * 3])
    alone = jaxloss.dice(P, Y, activation=None)
    np.testing.assert_allclose(jaxloss.dice(p, y, activation=None, where=where), alone, 1e-6)


def test_squared_dice_has_its_minimum_at_soft_targets():
    y = jnp.array([[0.2, 0.5, 0.9]])
    loss = lambda p: jaxloss.dice(p, y, axis=None, activation=None, squared=True)
    assert loss(y) == 0.0
    assert all(loss(jnp.clip(y + step, 0, 1)) > 0 for step in (-0.1, 0.1))
