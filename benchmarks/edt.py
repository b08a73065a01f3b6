"""Exact distance transforms of image batches: jaxloss beside SciPy and the C++ package `edt`.

Run `python benchmarks/edt.py`; SciPy is required, `edt` is timed where it is installed. The others
take one image at a time, as they must. Each round times everybody once, so that a busy machine is
busy for all; the table shows the fastest of the rounds in milliseconds.
"""

import importlib.util
import os
import pathlib
import platform
import re
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from scipy import ndimage

from jaxloss import distance

ROUNDS = 9
FOLDER = pathlib.Path(__file__).resolve().parent


def blobs(*shape: int) -> np.ndarray:
    """Smooth random regions over a fifth of each image."""
    noise = np.random.default_rng(0).standard_normal(shape)
    width = [0] + [shape[1] / 32] * (len(shape) - 1)
    smooth = ndimage.gaussian_filter(noise, width, mode="wrap")
    return smooth > np.quantile(smooth, 0.8)


def strokes(*shape: int) -> np.ndarray:
    """Random walks, three pixels wide."""
    generator = np.random.default_rng(0)
    masks = np.zeros(shape, bool)
    for mask in masks:
        turns = generator.normal(0, 0.05, (12, 400)).cumsum(1) + generator.uniform(0, 6, (12, 1))
        steps = np.stack([np.sin(turns), np.cos(turns)], -1).cumsum(1)
        walks = steps + generator.uniform(0, mask.shape[0], (12, 1, 2))
        mask[tuple(walks.reshape(-1, 2).astype(int).T % mask.shape[0])] = True
    return ndimage.binary_dilation(masks, np.ones((1, 3, 3)))


def far(*shape: int) -> np.ndarray:
    """One background pixel near a corner, at another place in each image."""
    masks = np.ones(shape, bool)
    for n, mask in enumerate(masks):
        mask[(3 + n,) * mask.ndim] = False
    return masks


MASKS = {
    "blobs": blobs(8, 512, 512),
    "around blobs": ~blobs(8, 512, 512),
    "blobs, large": blobs(2, 1024, 1024),
    "strokes": strokes(8, 512, 512),
    "around strokes": ~strokes(8, 512, 512),
    "one far pixel": far(8, 512, 512),
    "far from a diagonal": np.broadcast_to(~np.eye(512, dtype=bool), (8, 512, 512)).copy(),
    "blobs, 3-D": blobs(4, 96, 96, 96),
    "one far voxel, 3-D": far(4, 96, 96, 96),
}


def peers() -> dict[str, Callable[[np.ndarray], object]]:
    """The implementations, each from a batch of masks to its distances."""

    def ours(masks: np.ndarray, sampling: tuple[float, ...] | None = None) -> object:
        axes = tuple(range(1, masks.ndim))
        return jax.block_until_ready(distance.edt(masks, axes=axes, sampling=sampling))

    found = {
        "jaxloss": ours,
        "sampled": lambda masks: ours(masks, (2.0,) + (1.0,) * (masks.ndim - 2)),
        "scipy": lambda masks: [ndimage.distance_transform_edt(mask) for mask in masks],
    }
    # Run as a script, this file's folder comes first on the path and hides the package `edt`.
    sys.path = [folder for folder in sys.path if pathlib.Path(folder).resolve() != FOLDER]
    if importlib.util.find_spec("edt") is not None:
        import edt

        found["edt"] = lambda masks: [edt.edt(mask, black_border=False) for mask in masks]
    return found


def milliseconds(f: Callable[[np.ndarray], object], masks: np.ndarray) -> float:
    """The time of one call."""
    start = time.perf_counter()
    f(masks)
    return (time.perf_counter() - start) * 1e3


def machine() -> str:
    """The processor and the device that JAX runs on."""
    information = pathlib.Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    processor = model[1] if model else platform.processor()
    device = jax.devices()[0].device_kind
    return f"{processor}, {os.cpu_count()} cores; JAX {jax.__version__} on {device}"


def main() -> None:
    """Prints the table."""
    print(machine())
    implementations = peers()
    print(f"{'milliseconds':21}{'shape':17}", *(f"{name:>8}" for name in implementations))
    for name, masks in MASKS.items():
        for f in implementations.values():
            f(masks)
        rounds = [[milliseconds(f, masks) for f in implementations.values()] for _ in range(ROUNDS)]
        fastest = np.min(rounds, axis=0)
        print(f"{name:21}{masks.shape!s:17}", *(f"{value:8.1f}" for value in fastest), flush=True)


if __name__ == "__main__":
    main()
