"""What all losses on axis-aligned boxes share: any pair of boxes, at any scale, in any number.

One compiled program per loss computes all rows below, in both modes.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import geometry
from jaxloss._core import chunks as chunked
from jaxloss._core.pairs import FORMATS
from tests.compiling import quick_jit
from tests.registry import box_pairs

SCALE_FREE = {
    "iou": {},
    "giou": {},
    "diou": {},
    "ciou": {},
    "eiou": {},
    "siou": {},
    "alpha_iou": {"base": "ciou"},
    "inner_iou": {"base": "ciou"},
    "focal_eiou": {},
    "wiou": {},
    "bounded_iou": {},
    "extended_iou": {},
}
OPTIONS = SCALE_FREE | {
    "mpdiou": {"image_size": 1.0},
    "nwd": {"constant": 1.0},
    "sqrt_size_l2": {},
    "area_scaled_l2": {"image_size": 1e6},
}
PULLING = ("giou", "diou", "ciou", "eiou", "siou")

every_loss = pytest.mark.parametrize("name", OPTIONS)
scale_free = pytest.mark.parametrize("name", SCALE_FREE)


def box(x, y, width, height):
    return [x, y, x + width, y + height]


def _degenerate(largest):
    """Every two of boxes that are points, lines, tiny, huge, inverted, in one another, apart."""
    extents = [0.0, 1e-18, 1.0, largest, -2.0]
    corners = [(x, y) for x in (0.0, 5.0) for y in (0.0, 1.0)]
    boxes = [box(x, y, w, h) for x, y in corners for w in extents for h in extents]
    boxes += [
        box(1, 0, 1, 1),  # touching the unit box
        box(0.25, 0.25, 0.5, 0.5),  # inside of it
        box(largest, -largest, 1, 1),
        box(0, 0, 1e-6, 1e6),
        box(0, 0, 1e6, 1e-6),
    ]
    boxes = np.array(boxes)
    first, second = np.meshgrid(np.arange(len(boxes)), np.arange(len(boxes)))
    return boxes[first.ravel()], boxes[second.ravel()]


def _identical():
    """Boxes of every size in the middle of their range, and pixels of a 4K image in [0, 1]."""
    sizes = 10.0 ** np.arange(-18, 19)
    own = np.stack([3 * sizes, 5 * sizes, 3.7 * sizes, 7.1 * sizes], -1)
    rng = np.random.default_rng(0)
    column, line = rng.integers(3839, size=200), rng.integers(2159, size=200)
    pixel = np.stack([column / 3840, line / 2160, (column + 1) / 3840, (line + 1) / 2160], -1)
    both = np.concatenate([own, pixel])
    return both, both


def _scaled():
    """The same pairs in eight units, powers of two: so they are the same numbers but for that."""
    sample = box_pairs()
    units = 2.0 ** np.array([-60, -40, -10, 0, 10, 40, 60])[:, None, None]
    pair = (np.float32(x) * units for x in (sample.prediction, sample.target))
    return tuple(x.reshape(-1, 4) for x in pair)


def _disjoint():
    """Boxes of three shapes around one, on a circle."""
    angles = np.deg2rad(np.arange(0, 360, 15))[:, None]
    centre = 10 * np.concatenate([np.cos(angles), np.sin(angles)], -1)
    sizes = np.array([[2.0, 1.0], [1.0, 3.0], [1.5, 1.5]])
    boxes = [np.concatenate([centre - size / 2, centre + size / 2], -1) for size in sizes]
    boxes = np.concatenate(boxes)
    return boxes, np.broadcast_to(np.array(box(-0.5, -1, 1, 2)), boxes.shape)


@functools.cache
def _rows(name):
    """Value, gradients by both boxes and forward-mode derivative of each row, by their kind."""
    largest = 1e18 if name in SCALE_FREE else 1e6  # elsewhere the square is the value
    kinds = {
        "degenerate": _degenerate(largest),
        "identical": _identical(),
        "scaled": _scaled(),
        "disjoint": _disjoint(),
    }
    loss = functools.partial(getattr(jaxloss, name), **OPTIONS[name])

    def one(a, b):
        value, gradients = jax.value_and_grad(loss, (0, 1))(a, b)
        return value, gradients, jax.jacfwd(loss)(a, b)

    first, second = (np.concatenate(column) for column in zip(*kinds.values(), strict=True))
    results = quick_jit(jax.vmap(one))(np.float32(first), np.float32(second))
    ends = np.cumsum([len(pair[0]) for pair in kinds.values()])[:-1]
    leaves, tree = jax.tree.flatten(jax.device_get(results))
    pieces = zip(*(np.split(leaf, ends) for leaf in leaves), strict=True)
    return {
        kind: (pair, *jax.tree.unflatten(tree, piece))
        for (kind, pair), piece in zip(kinds.items(), pieces, strict=True)
    }


def _options(name, **others):
    return functools.partial(getattr(jaxloss, name), **OPTIONS[name], **others)


def test_every_axis_aligned_loss_is_here():
    """By its first argument, all others of the family being of rotated boxes."""
    modules = ("_overlap", "_sides", "_variants", "_focusing", "_robust", "_distances")
    names = [n for m in modules for n in getattr(jaxloss._boxes, m).__all__]
    assert sorted(names) == sorted(OPTIONS)
    for name in names:
        assert next(iter(inspect.signature(getattr(jaxloss, name)).parameters)) == "boxes"


@pytest.mark.rows(6)
@every_loss
def test_any_pair_is_finite_in_value_and_gradient_in_both_modes(name):
    _, value, gradients, forward = _rows(name)["degenerate"]
    assert np.isfinite(value).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    # Where a gradient is huge for a tiny box, the other entries round against it.
    largest = np.abs(forward).max(-1, keepdims=True)
    assert (np.abs(forward - gradients[0]) <= 1e-5 * largest + 1e-7).all()


@pytest.mark.rows(4)
@every_loss
def test_no_pair_costs_less_than_nothing(name):
    """Unless a target is larger than the image, as `area_scaled_l2` of huge units would be."""
    for kind, (_, value, *_) in _rows(name).items():
        assert (value >= 0).all() or (kind == "scaled" and name == "area_scaled_l2")


@every_loss
def test_identical_boxes_cost_exactly_nothing_without_gradient(name):
    """One pixel of a 4K image in normalised coordinates, and any size between 1e-18 and 1e18."""
    _, value, gradients, forward = _rows(name)["identical"]
    np.testing.assert_array_equal(value, 0)
    for slope in (*gradients, forward):
        np.testing.assert_array_equal(slope, 0)


@scale_free
def test_losses_do_not_depend_on_the_unit(name):
    """To the last bit, as these units are powers of two; gradients are in their inverse."""
    _, value, gradients, forward = _rows(name)["scaled"]
    units = 2.0 ** np.array([-60, -40, -10, 0, 10, 40, 60])
    value = value.reshape(7, -1)
    np.testing.assert_array_equal(value, np.broadcast_to(value[3], value.shape))
    for slope in (*gradients, forward):
        slope = slope.reshape(7, -1, 4) * units[:, None, None]
        np.testing.assert_allclose(slope, np.broadcast_to(slope[3], slope.shape), 1e-6, 1e-12)


@pytest.mark.parametrize("name", PULLING)
def test_a_step_against_the_gradient_draws_disjoint_boxes_together(name):
    (boxes, targets), _, gradients, _ = _rows(name)["disjoint"]
    apart = boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]
    pull = gradients[0][:, :2] + gradients[0][:, 2:]
    assert ((apart * pull).sum(-1) > 0).all()


def test_iou_leaves_disjoint_boxes_where_they_are():
    (_, _), value, gradients, forward = _rows("iou")["disjoint"]
    np.testing.assert_array_equal(value, 1)
    for slope in (*gradients, forward):
        np.testing.assert_array_equal(slope, 0)


def test_ranges():
    """tensorflow/addons#2800, #2701: readers asked what they are."""
    tops = {"iou": 1, "giou": 2, "diou": 2, "ciou": 3, "eiou": 4, "siou": 3, "wiou": np.e}
    for name, top in tops.items():
        for _, value, *_ in _rows(name).values():
            assert (value <= top * (1 + 1e-6)).all(), name


def test_inverted_boxes_are_the_point_or_segment_at_their_centre():
    """In every format: xyxy with swapped corners, the others with a negative size."""
    inverted = np.array([[10.0, 10, 2, 4], [10, 0, 2, 4]])
    points = np.array([[6.0, 7, 6, 7], [6, 0, 6, 4]])
    target = np.broadcast_to(np.array([0.0, 0, 10, 10]), inverted.shape)
    expected = jaxloss.eiou(jnp.float32(points), jnp.float32(target), reduction="none")
    centres = (inverted[:, :2] + inverted[:, 2:]) / 2
    sizes = inverted[:, 2:] - inverted[:, :2]
    given = {
        "xyxy": inverted,
        "cxcywh": np.concatenate([centres, sizes], -1),
        "xywh": np.concatenate([inverted[:, :2], sizes], -1),
    }
    for format, boxes in given.items():
        aim = geometry.convert(jnp.float32(target), "xyxy", format)
        value = jaxloss.eiou(np.float32(boxes), aim, format=format, reduction="none")
        np.testing.assert_allclose(value, expected, 1e-6)


@pytest.mark.parametrize("format", ["cxcywh", "xywh"])
def test_sizes_below_the_rounding_of_the_position_count(format):
    """As corners, boxes of 1e-9 at 0.5 would be points."""
    boxes = jnp.array([[0.5, 0.5, 1e-9, 2e-9], [0.5, 0.5, 2e-9, 2e-9]])
    targets = jnp.array([[0.5, 0.5, 1e-9, 2e-9], [0.5, 0.5, 1e-9, 2e-9]])
    value = jaxloss.iou(boxes, targets, format=format, reduction="none")
    np.testing.assert_allclose(value, [0, 0.5], 1e-6)


@pytest.fixture
def cut(monkeypatch):
    """Makes a CPU compute in chunks, or at once; programs of the other way are forgotten."""

    def into(chunks):
        monkeypatch.setattr(chunked, "CHUNKS", chunks)
        monkeypatch.setattr(chunked, "CHUNK", 1)
        monkeypatch.setattr(chunked, "CHUNKED_FROM", 0 if chunks > 1 else 10**9)
        jax.clear_caches()

    yield into
    jax.clear_caches()


def _pairs(*shape):
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 6, (2, *shape, 2)), rng.uniform(1, 5, (2, *shape, 2))
    return jnp.float32(np.concatenate([corner, corner + size], -1))


def test_many_boxes_in_chunks_equal_all_at_once(cut):
    """Value, gradients by both boxes, and a derivative along a direction and through a gradient.

    With a mask and weights that broadcast, and a rest.
    """
    a, b = _pairs(5, 30)
    rng = np.random.default_rng(1)
    slope = jnp.float32(rng.normal(size=a.shape))
    where, weights = rng.random((5, 30)) < 0.7, jnp.float32(rng.uniform(1, 2, (1, 30)))

    def run(chunks):
        cut(chunks)
        loss = _options("ciou", where=where, weights=weights)
        both = lambda a, b: jax.value_and_grad(loss, (0, 1))(a, b)
        alone = lambda a: loss(a, b)
        return jax.jit(
            lambda a, b: (
                both(a, b),
                jax.jvp(alone, (a,), (slope,)),
                jax.jvp(jax.grad(alone), (a,), (slope,))[1],
            )
        )(a, b)

    whole, parts = run(1), run(4)
    for expected, found in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(found, expected, 1e-5, 1e-7)


def test_chunks_under_vmap_and_on_a_mesh(cut):
    """With Explicit axes the boxes stay where they are: no chunk is cut across devices."""
    a, b = _pairs(2, 4, 25)
    run = jax.value_and_grad(_options("giou"))
    cut(1)
    expected = [quick_jit(run)(*pair) for pair in zip(a, b, strict=True)]
    cut(4)
    values, gradients = quick_jit(jax.vmap(run))(a, b)
    for i, (value, gradient) in enumerate(expected):
        np.testing.assert_allclose(values[i], value, 1e-6)
        np.testing.assert_allclose(gradients[i], gradient, 1e-5, 1e-8)
    explicit = jax.sharding.AxisType.Explicit
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(explicit,))
    with jax.set_mesh(mesh):
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        value, gradient = jax.jit(run)(*(jax.device_put(x[0], place) for x in (a, b)))
    np.testing.assert_allclose(value, expected[0][0], 1e-6)
    np.testing.assert_allclose(gradient, expected[0][1], 1e-5, 1e-8)


@pytest.mark.parametrize("name", SCALE_FREE)
@pytest.mark.slow
def test_formats_agree(name):
    a, b = (jnp.asarray(x, jnp.float32) for x in box_pairs()[1:3])
    expected = _options(name, reduction="none")(a, b)
    for format in FORMATS[1:]:
        pair = (geometry.convert(x, "xyxy", format) for x in (a, b))
        value = _options(name, reduction="none", format=format)(*pair)
        np.testing.assert_allclose(value, expected, 1e-5, 1e-6)


EXTREME = [  # a box, its target, and the derivative of a loss by the box
    ("iou", (0, 0, 1e-18, 1), (0, 0, 1e-18, 1e-18), (-0.5, 0.5, 0.5, 0)),
    ("iou", (0, 1, 1e-18, 1e18), (0, 0, 1e-18, 1e18), (0.5, 0, -0.5, 0)),
    ("giou", (0, 0, 1e-18, -2), (0, 0, 0, 1), (0, 0, 0, 0)),
    ("giou", (5, 0, 5, 1e-18), (0, 0, 1, 0), (0.2, 0, -0.2, 0)),
]


@pytest.mark.parametrize(("name", "one", "other", "expected"), EXTREME)
def test_derivatives_of_extreme_pairs_do_not_cancel(name, one, other, expected):
    """By hand; the mean over both sides of a kink."""
    pair = jnp.array(one, jnp.float32), jnp.array(other, jnp.float32)
    slope = jax.grad(getattr(jaxloss, name))(*pair)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)
