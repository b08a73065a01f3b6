"""Keypoints: oracle, case and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from tests.registry import Case, Invalid, Sample


def _keypoint_similarity(
    prediction, target, where=None, weights=None, reduction="mean", areas=1.0, sigmas=1.0
):
    square = ((prediction - target) ** 2).sum(-1)
    area = np.broadcast_to(areas, square.shape[:-1])[..., None]
    v = np.ones(square.shape) * (True if where is None else where)
    v = v if weights is None else v * weights
    with np.errstate(invalid="ignore"):
        costs = (v * (1 - np.exp(-square / (2 * (2 * sigmas) ** 2 * area)))).sum(-1) / v.sum(-1)
    if reduction == "none":
        return np.nan_to_num(costs)
    return np.nansum(costs) if reduction == "sum" else np.nanmean(costs)


def _points(name, **options):
    prediction, target = np.random.default_rng(0).normal(size=(2, 4, 3, 2, 3))
    return Sample(name, prediction, target, options, prediction.shape[:-1], inner=1)


X, AREAS = np.ones((2, 3, 2)), np.ones(2)
GIVEN = {"areas": 1.0, "sigmas": 0.1}
CASES = {
    "keypoint_similarity": Case(
        _keypoint_similarity,
        (
            _points("points", areas=3.0, sigmas=0.4),
            _points(
                "each",
                areas=np.random.default_rng(1).uniform(1, 5, (4, 3)),
                sigmas=np.array([0.3, 0.5]),
            ),
        ),
        (
            Invalid((X.astype(int), X), GIVEN, TypeError, ("predictions", "int", "floating")),
            Invalid((X, X[:1]), GIVEN, ValueError, ("targets", r"\(1, 3, 2\)", "predictions")),
            Invalid((AREAS, AREAS), GIVEN, ValueError, ("predictions", "points of an object")),
            Invalid((X, X), GIVEN | {"areas": X[0]}, ValueError, ("areas", r"\(3, 2\)", "rank")),
            Invalid((X, X), GIVEN | {"sigmas": AREAS}, ValueError, ("sigmas", r"\(2,\)", r"\(3,")),
            Invalid((X, X), GIVEN | {"sigmas": 0.0}, ValueError, ("sigmas", "number in")),
            Invalid((X, X), GIVEN | {"where": X}, TypeError, ("where", "float", "bool")),
            Invalid((X, X), GIVEN | {"weights": AREAS}, ValueError, ("weights", "rank")),
            Invalid((X, X), GIVEN | {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
        ),
        {"areas": (2.0, None), "sigmas": (0.3, -1.0)},
        "smooth",
        3.0,
    ),
}


def test_padding_reaches_nothing():
    """Slots without a visible point: their areas neither, nor do they count in the mean."""
    points = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[jnp.nan, 0.0], [0.0, 0.0]]])
    targets, visible = jnp.ones((2, 2, 2)), jnp.array([[True, True], [False, False]])
    for area in (0.0, -1.0, jnp.nan):
        run = lambda x, a: jaxloss.keypoint_similarity(x, targets, a, 0.1, where=visible)
        value, slopes = jax.value_and_grad(run, (0, 1))(points, jnp.array([9.0, area]))
        alone = jax.value_and_grad(
            lambda x: jaxloss.keypoint_similarity(x, targets[:1], jnp.array([9.0]), 0.1)
        )
        expected, gradient = alone(points[:1])
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(slopes[0][:1], gradient, rtol=1e-6)
        assert not slopes[0][1].any()
        assert slopes[1][1] == 0


def test_an_object_without_area_is_the_limit():
    points, targets = jnp.array([[[1.0, 2.0]], [[3.0, 4.0]]]), jnp.array([[[1.0, 2.0]], [[3.0, 5]]])
    run = lambda x, a: jaxloss.keypoint_similarity(x, targets, a, 0.1, reduction="none")
    for area in (0.0, 1e-30):
        np.testing.assert_array_equal(run(points, jnp.full(2, area)), [0, 1])
        slopes = jax.jacobian(run, (0, 1))(points, jnp.full(2, area))
        assert all(not slope.any() for slope in slopes)


def test_one_standard_deviation_of_coco():
    """OKS is exp(-1/2) where the distance is 2 sigma sqrt(area)."""
    sigmas = np.array([0.026, 0.107], np.float32)
    targets = np.zeros((1, 2, 2), np.float32)
    points = np.stack([2 * sigmas * 30, np.zeros(2, np.float32)], -1)[None]
    loss = jaxloss.keypoint_similarity(points, targets, 900.0, sigmas)
    np.testing.assert_allclose(1 - loss, np.exp(-0.5), rtol=1e-6)
