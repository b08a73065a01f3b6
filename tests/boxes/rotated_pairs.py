"""Rotated boxes for tests: samples, invalid calls, and what the definitions say of a pair."""

import jax
import numpy as np

from tests.registry import Invalid, Sample

B = np.ones((3, 5))
INVALID = (
    Invalid((B[:, :4], B[:, :4]), {}, ValueError, ("boxes", r"\(3, 4\)", "five numbers")),
    Invalid((B, B[:1]), {}, ValueError, ("target_boxes", r"\(1, 5\)", r"\(3, 5\)")),
    Invalid((B.astype(int), B), {}, TypeError, ("boxes", "int", "floating")),
    Invalid((B, B), {"reduction": "avg"}, ValueError, ("reduction", "'avg'")),
    Invalid((B, B), {"where": np.ones(3)}, TypeError, ("where", "float", "bool")),
    Invalid((B, B), {"where": np.ones((3, 5), bool)}, ValueError, ("where", r"\(3, 5\)", "rank")),
)


def random_boxes(rng: np.random.Generator, count: int, spread: float = 3) -> np.ndarray:
    """Boxes of unequal aspect at every angle."""
    centres = rng.uniform(0, spread, (count, 2))
    sizes = rng.uniform(1, 5, (count, 2))
    return np.concatenate([centres, sizes, rng.uniform(-4, 4, (count, 1))], -1)


def rotated_pairs(name: str = "boxes", seed: int = 0, **options) -> Sample:
    """Pairs of boxes, most of which overlap."""
    rng = np.random.default_rng(seed)
    return Sample(name, random_boxes(rng, 8), random_boxes(rng, 8), options, (8,), inner=1)


def shifted_and_renamed(boxes: np.ndarray) -> list[np.ndarray]:
    """The same boxes under their other names: turned by pi, and with sides exchanged."""
    x, y, w, h, angle = np.moveaxis(boxes, -1, 0)
    others = [(w, h, angle + np.pi), (h, w, angle + np.pi / 2), (h, w, angle - np.pi / 2)]
    return [np.stack([x, y, *other], -1) for other in others]


def corners(boxes: np.ndarray) -> np.ndarray:
    """The corners of boxes `[n, 5]`, counter-clockwise: `[n, 4, 2]`."""
    x, y, w, h, angle = (column[:, None] for column in boxes.T)
    u, v = w / 2 * np.array([-1, 1, 1, -1]), h / 2 * np.array([-1, -1, 1, 1])
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x + c * u - s * v, y + s * u + c * v], -1)


def in_blocks(program, first, second, rows: int = 2048):
    """What a program of rows gives for pairs of boxes, in blocks of one size: compiled once."""
    pair = [np.atleast_2d(np.asarray(boxes, np.float32)) for boxes in (first, second)]
    size, blocks = len(pair[0]), []
    for start in range(0, size, rows):
        block = [boxes[start : start + rows] for boxes in pair]
        padded = [np.concatenate([x, np.zeros((rows - len(x), 5), np.float32)]) for x in block]
        blocks.append(jax.device_get(program(*padded)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *blocks)
