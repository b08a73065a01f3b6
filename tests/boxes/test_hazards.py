"""Bug reports about other libraries' box losses, one test for each.

What their names say: tests/test_hazards.py.
"""

import functools
import itertools

import jax
import numpy as np
import pytest

import jaxloss
from jaxloss import geometry
from tests.hazards import BOXES, NAN, SAMPLES, array, assert_finite, compiled, rows

box_losses = pytest.mark.parametrize("name", BOXES)


def box(x, y, width, height):
    return array(x, y, x + width, y + height)


@functools.cache
def box_rows(name):
    """The results of every degenerate pair, by what is wrong with it."""
    loss = SAMPLES[name][0]
    pairs = {
        f"flat {sizes}": (box(0, 0, *sizes[:2]), box(0, 0, *sizes[2:]))
        for sizes in itertools.product((0, 10), repeat=4)
    }
    pairs |= {
        f"flat elsewhere {sizes}": (box(3, 5, *sizes), box(0, 0, 10, 4))
        for sizes in itertools.product((0, 10), repeat=2)
    }
    pairs |= {
        "points": (box(1, 1, 0, 0), box(2, 3, 0, 0)),
        "disjoint": (box(0, 0, 1, 1), box(5, 7, 2, 1)),
        "far": (box(0, 0, 1, 1), box(1e7, -1e7, 1, 1)),
        "touching": (box(0, 0, 1, 1), box(1, 0, 1, 1)),
        "inside": (box(2, 2, 1, 1), box(0, 0, 10, 10)),
        "needle": (box(0, 0, 1e6, 1e-6), box(0, 0, 1e-6, 1e6)),
        "tiny in huge": (box(0, 0, 1e-18, 1e-18), box(0, 0, 1e18, 1e18)),
        "inverted": (array(10, 10, 2, 4), box(0, 0, 10, 10)),
        "centre of inverted": (box(6, 7, 0, 0), box(0, 0, 10, 10)),
        "inverted in x": (array(10, 0, 2, 4), box(0, 0, 10, 10)),
        "xywh for xyxy": (array(10, 40, 20, 20), array(10, 40, 20, 20)),
        "both inverted": (array(10, 10, 2, 4), array(5, 5, 1, 1)),
    }
    first, second = (np.stack(column) for column in zip(*pairs.values(), strict=True))
    results = [np.asarray(leaf) for leaf in rows(loss, first, second)]
    return {key: [leaf[i] for leaf in results] for i, key in enumerate(pairs)}


@box_losses
def test_torchvision_ciou_flat_box_is_finite(name):
    """complete_box_iou_loss was NaN, or finite with a NaN gradient, for a box of no height.

    The same: yolov5#13416, mmdetection#3394, YOLOX#1565, DIoU-pytorch-detectron#3 and #19,
    tensorflow/addons#914.
    """
    for key, (value, gradient, forward) in box_rows(name).items():
        if key.startswith("flat") or key == "points":
            assert np.isfinite(value), key
            assert np.isfinite(gradient).all(), key
            np.testing.assert_allclose(gradient, forward, rtol=1e-5, atol=1e-7)


@box_losses
def test_torchvision_7746_two_equal_points(name):
    """Nothing said what identical boxes without area cost: here 1, with zero gradient."""
    value, gradient, _ = box_rows(name)["flat (0, 0, 0, 0)"]
    assert value == 1
    assert not gradient.any()


@box_losses
def test_torchvision_3404_2582_any_four_numbers_are_finite(name):
    """xywh passed as xyxy, or swapped corners, gave NaN."""
    for key, (value, gradient, forward) in box_rows(name).items():
        assert np.isfinite(value), key
        assert np.isfinite(gradient).all(), key
        assert np.isfinite(forward).all(), key


@pytest.mark.parametrize("name, value, shift", [("giou", 1, 0), ("ciou", 1 + 5 / 200 + 0.05, 0.03)])
@pytest.mark.parametrize("pair", ["inverted", "centre of inverted"])
def test_torchvision_2582_inverted_boxes_are_points(name, value, shift, pair):
    """Swapped corners were silently 0; here such a box is the point at its centre."""
    actual, gradient, _ = box_rows(name)[pair]
    np.testing.assert_allclose(actual, value, rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(), shift, rtol=1e-5, atol=1e-6)


@box_losses
def test_tensorflow_addons_2800_2701_ranges(name):
    """Readers asked what the ranges are: GIoU [0, 2), CIoU [0, 3)."""
    top = 2 if name == "giou" else 3
    values = np.array([value for value, _, _ in box_rows(name).values()])
    assert np.all((values >= 0) & (values <= top))
    assert box_rows("giou")["far"][0] > 1.99


def identical_boxes():
    """Boxes of every size in the middle of their own range, and pixels of a 4K image in [0, 1]."""
    sizes = 10.0 ** np.arange(-18, 19)
    own = np.stack([3 * sizes, 5 * sizes, 3.7 * sizes, 7.1 * sizes], -1)
    rng = np.random.default_rng(0)
    column, line = rng.integers(3839, size=200), rng.integers(2159, size=200)
    pixel = np.stack([column / 3840, line / 2160, (column + 1) / 3840, (line + 1) / 2160], -1)
    return np.concatenate([own, pixel]).astype(np.float32)


@box_losses
def test_torchvision_eps_identical_boxes_cost_exactly_nothing(name):
    """With eps = 1e-7 two identical pixels of a 1080p image, normalised, cost 0.17.

    The same: rf-detr#1180, mmdetection#11647, and yolov5#2376, where 1 + eps - iou was 0.
    """
    loss, boxes = SAMPLES[name][0], identical_boxes()
    value, gradient, _ = rows(loss, boxes, boxes, forward=False)
    np.testing.assert_array_equal(value, 0)
    assert_finite(gradient)
    for format in ("cxcywh", "xywh"):
        same = jax.jit(functools.partial(loss, format=format, reduction="none"))
        converted = np.asarray(geometry.convert(boxes, "xyxy", format))
        np.testing.assert_array_equal(same(converted, converted), 0)


@box_losses
def test_yolov5_736_2376_half_precision_boxes(name):
    """In float16 the epsilon vanished: identical boxes were NaN, as were small ones."""
    loss = SAMPLES[name][0]
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(size=(2, 50, 2)) * np.repeat([1e-3, 0.1, 1, 30, 1000], 10)[:, None]
    boxes = np.concatenate([corner, corner + size], -1).astype(np.float16)
    boxes, others = np.concatenate([boxes, boxes]), np.concatenate([boxes, boxes[::-1]])
    value, gradient, _ = rows(loss, boxes, others, forward=False)
    assert gradient.dtype == np.float16
    assert_finite((value, gradient))
    has_area = (boxes[:50, 2:] > boxes[:50, :2]).all(-1)
    np.testing.assert_allclose(value[:50], np.where(has_area, 0, 1), atol=1e-12)


@box_losses
def test_torchvision_3371_float16_areas_do_not_overflow(name):
    """The area of 1000 x 1000 pixels is infinite in float16."""
    boxes, others = box(0, 0, 1000, 1000), box(100, 200, 1000, 1000)
    loss = jax.jit(SAMPLES[name][0])
    half = loss(boxes.astype(np.float16), others.astype(np.float16))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, loss(boxes, others), rtol=1e-6)


@box_losses
def test_torchvision_losses_do_not_depend_on_the_scale(name):
    """Coordinates of 1e20 had infinite areas and a NaN loss; those of 1e-20 had none."""
    loss = SAMPLES[name][0]
    _, boxes, others, _ = SAMPLES[name]
    expected = jax.jit(functools.partial(loss, reduction="none"))(boxes, others)
    scales = array(1e-20, 1e-18, 1e-8, 1e-3, 1e3, 1e8, 1e18, 1e20)[:, None, None]

    def total(boxes, others):
        values = loss(boxes, others, reduction="none")
        return values.sum(), values

    mapped = jax.jit(jax.vmap(jax.value_and_grad(total, has_aux=True)))
    (_, values), gradient = mapped(boxes * scales, others * scales)
    # These scales round the corners, which alone moves exact values by 4e-7 of them, and gradients,
    # in units of the boxes, by 2e-7: entries are up to 1, and small ones are differences of large.
    for value in values:
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    relative = np.asarray(gradient, np.float64) * scales
    for one in relative:
        np.testing.assert_allclose(one, relative[4], rtol=0, atol=5e-7)


@box_losses
def test_torchvision_5322_detr_551_nan_boxes_stop_nothing(name):
    """assert (x2 >= x1).all() ended the run at a NaN box, and made the device wait each step."""
    loss, boxes, others, _ = SAMPLES[name]
    boxes = jax.device_put(np.where(np.arange(6)[:, None] == 2, NAN, boxes))
    others = jax.device_put(others)

    @jax.jit
    def run(boxes, others):
        def total(boxes):
            values = loss(boxes, others, reduction="none")
            return values.sum(), values

        return jax.grad(total, has_aux=True)(boxes)

    run(boxes, others)
    with jax.transfer_guard("disallow"):
        gradient, value = run(boxes, others)
    np.testing.assert_array_equal(np.isnan(value), np.arange(6) == 2)
    np.testing.assert_array_equal(np.isnan(gradient).any(-1), np.arange(6) == 2)


@box_losses
def test_ultralytics_490_no_boxes_cost_nothing(name):
    """A batch without objects divided by 0."""
    loss, none = SAMPLES[name][0], np.zeros((0, 4), np.float32)
    value, gradient = compiled(loss, none, none)
    assert value == 0
    assert gradient.shape == (0, 4)
    assert jax.eval_shape(functools.partial(loss, reduction="none"), none, none).shape == (0,)


def test_torchvision_tests_ciou_is_not_diou():
    """All boxes of torchvision's tests have one aspect ratio, where CIoU equals DIoU."""
    wide, tall = box(0, 0, 4, 1), box(1.5, -1.5, 1, 4)
    v = 4 / np.pi**2 * (np.arctan(4) - np.arctan(0.25)) ** 2
    loss = 1 - 1 / 7 + 0  # the centres coincide
    np.testing.assert_allclose(jaxloss.ciou(wide, tall), loss + v * v / (loss + v), rtol=1e-6)
