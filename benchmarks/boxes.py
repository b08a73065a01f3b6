"""Box losses and matrices of overlaps on this machine's CPU, side by side with torchvision.

Prints milliseconds per call and torchvision's time over ours, from interleaved runs of one process;
the best of several rounds, as other load only ever adds. Losses: value and gradient of the mean
over 1,000,000 pairs; matrices: the IoU of 4096 by 4096 boxes. Without torch and torchvision their
column stays empty; `tests/goldens/peers.py` says how to install them.

    python benchmarks/boxes.py [name ...]
"""

import functools
import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import jaxloss  # noqa: E402

try:
    import torch
except ImportError:
    torch = None

PAIRS, SIDE = 1_000_000, 4096
ROUNDS, THREADS = 15, 2
LOSSES: dict[str, dict[str, Any]] = {
    "iou": {},
    "giou": {},
    "diou": {},
    "ciou": {},
    "eiou": {},
    "focal_eiou": {},
    "siou": {},
    "alpha_iou": {},
    "inner_iou": {},
    "mpdiou": {"image_size": 640.0},
    "wiou": {},
    "bounded_iou": {},
    "extended_iou": {},
    "nwd": {"constant": 12.8},
    "sqrt_size_l2": {},
    "area_scaled_l2": {"image_size": 640.0},
}
PEERS = {
    "giou": ("giou_loss", "generalized_box_iou_loss"),
    "diou": ("diou_loss", "distance_box_iou_loss"),
    "ciou": ("ciou_loss", "complete_box_iou_loss"),
    "pairwise_iou": ("boxes", "box_iou"),
    "pairwise_giou": ("boxes", "generalized_box_iou"),
}


def random_boxes(count: int, seed: int) -> np.ndarray:
    """Boxes of 8 to 200 pixels in an image of 640 by 640."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 440, (count, 2)), rng.uniform(8, 200, (count, 2))
    return np.concatenate([corner, corner + size], -1).astype(np.float32)


def pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, each with another that most often overlaps it."""
    boxes = random_boxes(count, 0)
    jitter = np.random.default_rng(1).normal(size=boxes.shape) * 20
    return boxes, (boxes + jitter).astype(np.float32)


def peer(name: str) -> Callable[..., Any] | None:
    """The function of torchvision, if there is one."""
    if torch is None or name not in PEERS:
        return None
    for package in ("torchvision", "torchvision.ops"):
        # Its operators belong to one exact torch; these functions are Python.
        found = None if package in sys.modules else importlib.util.find_spec(package)
        if found is not None:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = list(found.submodule_search_locations)
    file, function = PEERS[name]
    try:
        return getattr(importlib.import_module(f"torchvision.ops.{file}"), function)
    except ImportError:
        return None


def runs_of_a_loss(name: str) -> dict[str, Callable[[], None]]:
    """Value and gradient, here and there."""
    boxes, targets = pairs(PAIRS)
    loss = functools.partial(getattr(jaxloss, name), **LOSSES[name])
    step, pair = jax.jit(jax.value_and_grad(loss)), (jnp.asarray(boxes), jnp.asarray(targets))
    runs = {"jaxloss": lambda: jax.block_until_ready(step(*pair))}
    other = peer(name)
    if other is not None:
        x, y = torch.tensor(boxes, requires_grad=True), torch.tensor(targets)

        def run() -> None:
            x.grad = None
            other(x, y, reduction="mean").backward()

        runs["torchvision"] = run
    return runs


def runs_of_a_matrix(name: str) -> dict[str, Callable[[], None]]:
    """The matrix, here and there."""
    data = random_boxes(SIDE, 0), random_boxes(SIDE, 1)
    function, pair = jax.jit(getattr(jaxloss.geometry, name)), tuple(map(jnp.asarray, data))
    runs = {"jaxloss": lambda: jax.block_until_ready(function(*pair))}
    other = peer(name)
    if other is not None:
        tensors = tuple(map(torch.tensor, data))
        runs["torchvision"] = lambda: other(*tensors)
    return runs


def best(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of each run, the best of interleaved rounds."""
    times = dict.fromkeys(runs, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name] = min(times[name], 1e3 * (time.perf_counter() - start))
    return times


def main(chosen: list[str]) -> None:
    """Prints the table."""
    if torch is not None:
        torch.set_num_threads(THREADS)
    print("| | jaxloss, ms | torchvision, ms (over ours) |\n|---|---|---|")
    for name in [*LOSSES, "pairwise_iou", "pairwise_giou"]:
        if chosen and name not in chosen:
            continue
        times = best(runs_of_a_loss(name) if name in LOSSES else runs_of_a_matrix(name))
        ours = times.pop("jaxloss")
        others = ", ".join(f"{value:.1f} ({value / ours:.2f})" for value in times.values())
        print(f"| {name} | {ours:.1f} | {others} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
