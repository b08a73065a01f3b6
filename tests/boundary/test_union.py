"""Boundary difference over union: oracle, case and closed forms."""

import numpy as np
import pytest
from scipy import ndimage

import jaxloss
from tests.boundary.maps import scored
from tests.boundary.test_hausdorff import loss_of
from tests.oracles import invalid_segmentations
from tests.registry import Case, Invalid, binary, elements, ids


def _inner(mask, sampling):
    return ndimage.binary_erosion(mask)  # by the cross, outside of the image is not target


@scored
def _over_union(total, p, y, valid, each, alpha_max=0.8, smooth=1e-5):
    target = (y > 0.5) & valid
    contour, size = total(target & ~each(_inner, target)), total(y)
    a = np.minimum(1 - 2 * contour / np.where(size, size, 1), alpha_max)
    both = total(p**2) + size - 2 * total(p * y)
    return both / (both + (1 - a) * total(p * y) + smooth)


def _boundary_dou(prediction, target, include_background=True, **options):
    return _over_union(prediction, target, include_background=include_background, **options)


CASES = {
    "boundary_dou": Case(
        _boundary_dou,
        (
            ids(),
            ids("pooled", axis=1, include_background=False, per_image=False, smooth=1.0),
            binary(alpha_max=0.0),
            elements(),
        ),
        (
            *invalid_segmentations(),
            *(
                Invalid(
                    (np.zeros((2, 4, 3)), np.zeros((2, 4), int)),
                    {"alpha_max": value},
                    ValueError,
                    ("alpha_max", "number in"),
                )
                for value in (-0.1, 1.0)
            ),
        ),
        {"alpha_max": (0.5, 1.0), "smooth": (0.7, -1.0)},
        "smooth",
        1.1,
    ),
}


@pytest.mark.parametrize(
    "side, a",
    [(1, -1.0), (2, -1.0), (3, 1 - 16 / 9), (6, 1 - 40 / 36), (20, 1 - 152 / 400), (60, 0.8)],
)
def test_a_square_and_its_half(side, a):
    """All but the inner square of a square is contour: 4 (side - 1) pixels, or all."""
    y = np.zeros((1, 64, 64))
    y[:, 1 : 1 + side, 1 : 1 + side] = 1
    p, size = y / 2, side**2
    expected = (size / 4) / (size / 4 + (1 - a) * size / 2)
    np.testing.assert_allclose(loss_of("boundary_dou", p, y, smooth=0), [expected], 2e-6)


def test_outside_of_the_image_is_not_target():
    full = np.ones((1, 10, 10))  # 36 of 100 pixels lie at the edge
    expected = 25 / (25 + (1 - (1 - 72 / 100)) * 50)
    np.testing.assert_allclose(loss_of("boundary_dou", full / 2, full, smooth=0), [expected], 2e-6)


def test_a_perfect_prediction_costs_nothing():
    """The authors' smooth in the numerator makes it cost the more, the smaller the target."""
    masks = np.random.default_rng(0).random((16, 6, 6)) < np.linspace(0, 1, 16)[:, None, None]
    np.testing.assert_array_equal(loss_of("boundary_dou", masks, masks, smooth=1.0), 0)
    np.testing.assert_array_equal(loss_of("boundary_dou", masks, masks, smooth=0.0), 0)


def test_a_cube_has_six_neighbours():
    y = np.zeros((1, 9, 9, 9))
    y[:, 1:8, 1:8, 1:8] = 1
    contour, size = 7**3 - 5**3, 7**3
    a = 1 - 2 * contour / size
    expected = (size / 4) / (size / 4 + (1 - a) * size / 2)
    np.testing.assert_allclose(loss_of("boundary_dou", y / 2, y, smooth=0), [expected], 2e-6)


def test_the_background_takes_part_by_default():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 6, 6, 3)), rng.integers(0, 3, (2, 6, 6))
    each = jaxloss.boundary_dou(logits, labels, reduction="none")
    assert each.shape == (2, 3)
    np.testing.assert_allclose(
        jaxloss.boundary_dou(logits, labels, include_background=False), each[:, 1:].mean(), 1e-6
    )
