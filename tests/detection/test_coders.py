"""Coders and places against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import detection
from tests.detection.scenes import boxes, waves


def pairs(dtype=jnp.float32):
    box, _ = boxes(2, 6, (64, 96), 0)
    anchor, _ = boxes(1, 6, (64, 96), 1)
    return jnp.asarray(box, dtype), jnp.asarray(anchor[0], dtype)


def test_deltas():
    box, anchor = pairs()
    weights = (10.0, 10.0, 5.0, 5.0)
    found = detection.encode_deltas(box, anchor, weights=weights)
    b, a = np.float64(box), np.float64(anchor)
    size, unit = b[..., 2:] - b[..., :2], a[..., 2:] - a[..., :2]
    shift = (b[..., :2] + size / 2 - a[..., :2] - unit / 2) / unit
    expected = np.concatenate([shift, np.log(size / unit)], -1) * weights
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    back = detection.decode_deltas(found, anchor, weights=weights)
    np.testing.assert_allclose(back, box, rtol=1e-5, atol=1e-4)


def test_decoded_sides_are_bounded():
    anchor = jnp.array([[0.0, 0.0, 16.0, 16.0]])
    deltas = jnp.array([[0.0, 0.0, 90.0, 0.0]])
    run = jax.value_and_grad(lambda d: detection.decode_deltas(d, anchor)[0, 2])
    side, slope = run(deltas)
    np.testing.assert_allclose(side, 8 + 500, rtol=1e-6)
    assert slope[0, 2] == 0
    assert detection.decode_deltas(deltas, anchor, largest=1.0)[0, 2] == 8 + 8 * jnp.exp(1.0)


def test_distances():
    box, _ = pairs()
    point = jnp.asarray(waves((6, 2), 0, 30.0), jnp.float32)
    stride = jnp.array([8.0, 8.0, 8.0, 16.0, 16.0, 32.0])
    found = detection.encode_distances(box, point, strides=stride)
    b, p, s = np.float64(box), np.float64(point), np.float64(stride)[:, None]
    expected = np.concatenate([(p - b[..., :2]) / s, (b[..., 2:] - p) / s], -1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    back = detection.decode_distances(found, point, strides=stride)
    np.testing.assert_allclose(back, box, rtol=1e-5, atol=1e-5)


def test_distribution():
    logits = jnp.asarray(waves((3, 4, 16), 0, 4.0), jnp.float32)
    p = np.exp(np.float64(logits))
    expected = (p * np.arange(16)).sum(-1) / p.sum(-1)
    np.testing.assert_allclose(detection.decode_distribution(logits), expected, rtol=1e-5)
    assert detection.decode_distribution(logits.astype(jnp.bfloat16)).dtype == jnp.float32


def test_derivatives_of_distributions():
    """Its slope is written out; a far bin that is certain has none."""

    def plain(logits):
        return jax.nn.softmax(logits) @ jnp.arange(logits.shape[-1], dtype=logits.dtype)

    scores = 3 * waves((2, 5), 0)
    with jax.enable_x64(True):
        logits = jnp.asarray(np.asarray(scores), jnp.float64)
        for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
            found, expected = (
                derivative(f)(logits) for f in (detection.decode_distribution, plain)
            )
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    certain = jnp.array([0.0, 0.0, 1000.0])
    assert not jax.grad(detection.decode_distribution)(certain).any()


def test_half_precision():
    box, anchor = pairs(jnp.bfloat16)
    assert detection.encode_deltas(box, anchor).dtype == jnp.float32
    assert detection.decode_distances(box, anchor[:, :2]).dtype == jnp.float32


def test_places():
    grids, strides, sizes = [(2, 3), (1, 2)], [8, 16], [32, 64]
    points = [
        [(j + 0.5) * s, (i + 0.5) * s]
        for (h, w), s in zip(grids, strides, strict=True)
        for i in range(h)
        for j in range(w)
    ]
    np.testing.assert_array_equal(detection.grid_points(grids, strides), points)
    found = detection.grid_anchors(grids, strides, sizes, ratios=[0.5, 1, 2], scales=[1, 1.5])
    assert found.shape == (8 * 6, 4)
    sides = np.asarray(found[:, 2:] - found[:, :2]).reshape(8, 3, 2, 2)
    np.testing.assert_allclose((found[:, :2] + found[:, 2:]) / 2, np.repeat(points, 6, 0))
    ratios = np.broadcast_to(np.array([0.5, 1, 2])[None, :, None], (8, 3, 2))
    np.testing.assert_allclose(sides[..., 1] / sides[..., 0], ratios, rtol=1e-5)
    size = np.repeat([32, 64], [6, 2])[:, None, None] * np.array([1, 1.5])
    area = np.broadcast_to(size**2, (8, 3, 2))
    np.testing.assert_allclose(sides.prod(-1), area, rtol=1e-5)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: detection.grid_points([(2, 3)], [8, 16]), "grid_points: `strides`"),
        (lambda: detection.grid_points([(2, 3, 1)], [8]), "grid_points: `grids`"),
        (lambda: detection.grid_anchors([(2, 3)], [8], []), "grid_anchors: `sizes`"),
        (lambda: detection.encode_deltas(jnp.ones((2, 4)), jnp.ones((3, 4))), "`anchors`"),
        (lambda: detection.decode_deltas(jnp.ones((2, 5)), jnp.ones((2, 4))), "`deltas`"),
        (lambda: detection.decode_deltas(*jnp.ones((2, 2, 4)), weights=(1, 1)), "`weights`"),
        (lambda: detection.decode_distances(*jnp.ones((2, 2, 4))), "`points`"),
        (lambda: detection.decode_distribution(jnp.ones(())), "`logits`"),
    ],
)
def test_bad_input_raises(call, words):
    with pytest.raises(ValueError, match=words):
        call()
