"""Predictions and boxes that tests and the scripts of golden numbers make alike."""

import numpy as np


def waves(shape, phase, size=2.0):
    """Numbers without order, the same everywhere: `size` times a sine of steps."""
    k = np.arange(np.prod(shape))
    return (size * np.sin(1.7 * k + 0.3 * (k % 11) + phase)).reshape(shape)


def projections(arrays):
    """Three numbers that tell a set of arrays from others: sums with different weights."""
    return [
        float(sum((np.asarray(a) * waves(a.shape, 10 + p)).sum() for a in arrays)) for p in range(3)
    ]


def boxes(images, slots, size, seed, least=3.0):
    """Boxes `[images, slots, 4]` of all sizes in an image of a size (rows, columns), labels."""
    rng = np.random.default_rng(seed)
    limits = np.array([size[1], size[0]])
    sides = np.exp(rng.uniform(np.log(least), np.log(limits), (images, slots, 2)))
    corner = rng.uniform(0, 1, (images, slots, 2)) * (limits - sides)
    return np.concatenate([corner, corner + sides], -1).round(3), rng.integers(
        0, 4, (images, slots)
    )
