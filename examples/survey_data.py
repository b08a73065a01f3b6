"""The data of the survey: small pictures with a foreground, `[N, S, S, 1]`, and its ids 0 and 1.

Training and test pictures share no digit, no photograph and no half of a micrograph.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import skimage.io
import sklearn.datasets
from PIL import Image
from scenes import INK, Split, background, load_digits
from skimage.morphology import skeletonize

BLUR = np.array([[1, 2, 1], [2, 8, 2], [1, 2, 1]], np.float32) / 8  # of a stroke's single pixels


class Pictures(NamedTuple):
    """N pictures.

    Attributes:
      images: `[N, S, S, 1]` float32 in [0, 1].
      masks: `[N, S, S]` int32, 1 in the foreground.
    """

    images: np.ndarray
    masks: np.ndarray


@functools.cache
def draw(name: str, split: Split, count: int, size: int) -> Pictures:
    """Returns so many pictures of a data set, the same for the same arguments."""
    rng = np.random.default_rng(split == "test")
    pairs = [DATA[name](rng, split, size) for _ in range(count)]
    images, masks = (np.stack(field) for field in zip(*pairs, strict=True))
    return Pictures(np.float32(images)[..., None], np.int32(masks))


def _digit(
    rng: np.random.Generator, split: Split, size: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """One digit in front of a photograph, so large that its ink covers a share of the picture."""
    images, _ = load_digits(split)
    count, height, width = round(share * size**2), 0, 0
    while not (max(height, width) <= size and height * width >= count):  # too long, or a mere dash
        digit = images[rng.integers(len(images))]
        y, x = np.nonzero(digit > INK * 255)
        digit = digit[y.min() : y.max() + 1, x.min() : x.max() + 1]
        height, width = (round(np.sqrt(count / len(y)) * side) for side in digit.shape)
    picture = Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC)
    ink = np.asarray(picture, np.float32) / 255
    least = np.partition(ink.ravel(), -count)[-count]  # near INK, which the new size may not keep
    return _paint(rng, split, size, ink, ink >= least)


def _stroke(rng: np.random.Generator, split: Split, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The skeleton of a digit of scikit-learn, one pixel wide and a little blurred."""
    digits = _small_digits()[int(split == "test") :: 2]
    digit = Image.fromarray(digits[rng.integers(len(digits))])
    side = rng.integers(size // 2, size, endpoint=True)
    large = np.asarray(digit.resize((side, side), Image.Resampling.BICUBIC))
    stroke = skeletonize(large > 127)
    padded = np.pad(np.float32(stroke), 1)
    ink = sum(BLUR[y, x] * padded[y : y + side, x : x + side] for y in range(3) for x in range(3))
    return _paint(rng, split, size, 0.5 * np.minimum(ink, 1), stroke)


@functools.cache
def _small_digits() -> np.ndarray:
    """Returns the digits of scikit-learn, uint8 `[N, 8, 8]`."""
    return np.uint8(sklearn.datasets.load_digits().images * (255 / 16))


def _paint(
    rng: np.random.Generator, split: Split, size: int, ink: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paints ink somewhere over a piece of a photograph."""
    image, mask = background(rng, split, size), np.zeros((size, size), bool)
    y, x = (rng.integers(size - side, endpoint=True) for side in ink.shape)
    place = slice(y, y + ink.shape[0]), slice(x, x + ink.shape[1])
    image[place] += ink * (rng.uniform(0.7, 1) - image[place])
    mask[place] = shape
    return image, mask


def _nuclei(rng: np.random.Generator, split: Split, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A piece of a micrograph of 125 stained nuclei, of its left or its right half."""
    image, mask = _micrograph()
    half = image.shape[1] // 2
    y = rng.integers(len(image) - size, endpoint=True)
    x = rng.integers(half - size, endpoint=True) + half * (split == "test")
    place = slice(y, y + size), slice(x, x + size)
    return image[place], mask[place]


@functools.cache
def _micrograph() -> tuple[np.ndarray, np.ndarray]:
    """Returns the micrograph that the package stardist ships, in [0, 1], and its nuclei."""
    found = importlib.util.find_spec("stardist")
    if found is None:
        raise SystemExit("--data nuclei: needs `pip install --no-deps stardist`")
    folder = pathlib.Path(found.submodule_search_locations[0]) / "data" / "images"
    image, mask = (skimage.io.imread(folder / f"{name}2d.tif") for name in ("img", "mask"))
    low, high = np.percentile(image, [1, 99.8])
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32), mask > 0


DATA: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "digits, 20 %": functools.partial(_digit, share=0.2),
    "digits, 5 %": functools.partial(_digit, share=0.05),
    "digits, 1 %": functools.partial(_digit, share=0.01),
    "strokes": _stroke,
    "nuclei": _nuclei,
}
