"""Masks, and their distances by brute force and SciPy."""

import functools

import jax
import numpy as np
from scipy import ndimage

from jaxloss._core import blocks


def brute_force(masks):
    """Squared distances over the last two axes, from every pair of pixels; infinite without one."""
    height, width = masks.shape[-2:]
    place = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2)
    pairs = ((place[:, None] - place[None]) ** 2).sum(-1)
    flat = masks.reshape(-1, 1, height * width)
    squared = np.where(flat, np.inf, pairs).min(-1)
    return squared.reshape(masks.shape)


def scipy_edt(masks, rank=2, sampling=None):
    """SciPy image by image, with infinity where an image has no False element."""
    images = masks.reshape(-1, *masks.shape[masks.ndim - rank :])
    found = [
        np.full(image.shape, np.inf) if image.all() else transform(image)
        for transform in [functools.partial(ndimage.distance_transform_edt, sampling=sampling)]
        for image in images
    ]
    return np.stack(found).reshape(masks.shape)


def random_masks(*shape, density=0.9, seed=0):
    return np.random.default_rng(seed).random(shape) < density


def one_far(*shape):
    mask = np.ones(shape, bool)
    mask[(0,) * len(shape)] = False
    return mask


MASKS = random_masks(8, 9, 12)
EXPECTED = scipy_edt(MASKS).astype(np.float32)


def in_blocks(body, count=1):
    """A body on elements and spacings of the last axes, the first of which is parted in blocks."""

    def run(elements, spacings):
        axis = elements.ndim - len(spacings)
        parts = elements.reshape(*elements.shape[:axis], count, -1, *elements.shape[axis + 1 :])
        spacings = tuple(s if s is None else s[None] for s in spacings)
        squared = body(parts, blocks.beyond(parts, axis), spacings)
        return squared.reshape(elements.shape)

    return jax.jit(run)
