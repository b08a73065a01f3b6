"""Moves boxes down the gradients of the box losses: the simulation of the DIoU paper.

    python examples/box_regression.py                   a minute on two CPU cores
    python examples/box_regression.py --points 5000     the paper's 1,715,000 cases

Around (10, 10), where seven targets of area 1 lie, anchors of seven areas and seven aspect ratios
start from points in a disc of radius 3. Each case takes 200 steps
`box <- box - rate (2 - IoU) gradient` on its centre and size, and its error is the sum of the
absolute differences of the four. Every loss is differentiated exactly here. That is not what made
the curves of the paper: its released code moves the boxes by hand-written rules that differ from
the derivatives (twice the step in width and height, other signs and factors for boxes that do not
meet), and with those GIoU stalls. The picture shows both, and says which is which.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tqdm import tqdm

import jaxloss
from jaxloss import geometry

Loss = Callable[..., jax.Array]

CENTRE, RADIUS = 10.0, 3.0
RATIOS = np.array([1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4])  # of width to height
AREAS = np.array([0.5, 0.67, 0.75, 1, 1.33, 1.5, 2])
CASES = len(RATIOS) * len(RATIOS) * len(AREAS)  # of each point
SMALLEST = 1e-3  # side of a box that shrinks
CHUNK = 40  # points of one compiled call, whose boxes stay in a processor's cache

LOSSES: dict[str, Loss] = {
    "IoU": jaxloss.iou,
    "GIoU": jaxloss.giou,
    "DIoU": jaxloss.diou,
    "CIoU": jaxloss.ciou,
    "EIoU": jaxloss.eiou,
    "SIoU": jaxloss.siou,
    "WIoU": jaxloss.wiou,
    "Extended IoU": jaxloss.extended_iou,
    "Bounded IoU": jaxloss.bounded_iou,
    "Inner DIoU": functools.partial(jaxloss.inner_iou, base="diou"),
    "Alpha DIoU": functools.partial(jaxloss.alpha_iou, base="diou"),
    "MPDIoU": functools.partial(jaxloss.mpdiou, image_size=2 * CENTRE),
    "NWD": functools.partial(jaxloss.nwd, constant=1.0),
}

# The summed error over 1,715,000 cases, in millions, read off the figure of the paper. After 200
# steps those of DIoU and CIoU are too small to be read.
PUBLISHED = {
    "IoU": {1: 6.63, 50: 6.03, 100: 5.99, 160: 5.98, 200: 5.91},
    "GIoU": {1: 6.4, 50: 3.35, 100: 2.35, 160: 1.87, 200: 1.52},
    "DIoU": {1: 6.35, 50: 0.53, 100: 0.41, 160: 0.40},
    "CIoU": {1: 6.35, 50: 0.43, 100: 0.41, 160: 0.40},
}
TRAJECTORY = {"start": (12.0, 11.2, 1.6, 0.8), "target": (10.0, 10.0, 0.7, 1.4)}
SHOWN = (0.0, 0.05, 0.2, 0.6, 1.0)  # shares of the iterations at which a trajectory is drawn


class Run(NamedTuple):
    """What one loss does.

    Attributes:
      error: The mean error of all cases at the start and after every step, `[iterations + 1]`.
      final: The mean error of each point's cases at the end, `[points]`.
      path: The boxes of the trajectory, `[iterations + 1, 4]`, centre and size.
    """

    error: np.ndarray
    final: np.ndarray
    path: np.ndarray


def main(argv: Sequence[str] | None = None) -> dict[str, Run]:
    """Simulates, draws and prints; returns what came out."""
    options = parse(argv)
    points = scatter(options.points, options.seed)
    rates = schedule(options.iterations)
    names = options.losses or list(LOSSES)
    cores = os.cpu_count() or 1
    steps = len(points) * CASES * options.iterations * len(names)
    print(
        f"{len(points) * CASES:,} cases, {options.iterations} steps, {len(names)} losses: "
        f"about {3 * len(names) + steps * 1e-7 / cores:.0f} s"
    )
    runs = {name: simulate(name, points, rates) for name in names}
    print(f"{'loss':14}{'after 1/4':>10}{'1/2':>10}{'end':>10}{'worst point':>13}")
    for name, run in runs.items():
        quarter, half, end = (run.error[options.iterations // n] for n in (4, 2, 1))
        print(f"{name:14}{quarter:10.4f}{half:10.4f}{end:10.4f}{run.final.max():13.4f}")

    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / "box_regression.png"
    draw(picture, runs, points)
    print(f"picture {picture}")
    return runs


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--points", type=int, default=300, help="starting points; 5000 in the paper")
    add("--iterations", type=int, default=200, help="steps of each case")
    add("--losses", nargs="+", choices=list(LOSSES), help="losses to follow; all by default")
    add("--seed", type=int, default=0, help="of the starting points")
    add("--output", type=pathlib.Path, default="output", help="folder of the picture")
    options = parser.parse_args(argv)
    for name in ("points", "iterations"):
        if getattr(options, name) < 1:
            parser.error(f"argument --{name}: {getattr(options, name)} is not positive")
    return options


def scatter(count: int, seed: int) -> np.ndarray:
    """Points spread evenly over the disc, `[count, 2]`."""
    radius, turn = np.random.default_rng(seed).random((2, count))
    radius, turn = RADIUS * np.sqrt(radius), 2 * np.pi * turn
    return CENTRE + np.stack([radius * np.cos(turn), radius * np.sin(turn)], -1)


def schedule(iterations: int) -> np.ndarray:
    """The rate of each step: 0.1, and a tenth and a hundredth of it in the last two tenths."""
    share = np.arange(iterations) / iterations
    return np.where(share < 0.8, 0.1, np.where(share < 0.9, 0.01, 0.001)).astype(np.float32)


def shapes(areas: np.ndarray) -> np.ndarray:
    """Width and height for every area and every ratio, `[areas * ratios, 2]`."""
    ratios = np.sqrt(RATIOS)
    sides = np.sqrt(areas)[:, None, None] * np.stack([ratios, 1 / ratios], -1)
    return sides.reshape(-1, 2)


def simulate(name: str, points: np.ndarray, rates: np.ndarray) -> Run:
    """Follows all cases, in chunks of points, one chunk on each core."""
    size = min(CHUNK, len(points))
    padded = np.resize(points, (-(-len(points) // size) * size, 2)).astype(np.float32)
    chunks = padded.reshape(-1, size, 2)
    run = functools.partial(_descend_from, rates=rates, loss=LOSSES[name])
    run(chunks[0]).block_until_ready()  # compiled once, not by each thread
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = tqdm(
            pool.map(lambda chunk: np.asarray(run(chunk)), chunks),
            desc=f"{name:12}",
            total=len(chunks),
            unit="chunk",
        )
        each = np.concatenate(list(errors), axis=1)[:, : len(points)]
    start, target = (np.float32([TRAJECTORY[key]]) for key in ("start", "target"))
    path = _descend(start, target, rates=rates, loss=LOSSES[name], watch=lambda boxes: boxes[0])
    return Run(each.mean(1), each[-1], np.asarray(path))


@functools.partial(jax.jit, static_argnames="loss")
def _descend_from(points: jax.Array, *, rates: jax.Array, loss: Loss) -> jax.Array:
    """The mean error of each point's cases, `[steps + 1, points]`."""
    anchors, targets = shapes(AREAS), shapes(np.ones(1))
    grid = (len(points), len(anchors), len(targets), 2)
    centres = jnp.broadcast_to(points[:, None, None], grid)
    boxes = jnp.concatenate([centres, jnp.broadcast_to(anchors[:, None], grid)], -1)
    goals = jnp.broadcast_to(targets, grid)
    goals = jnp.concatenate([jnp.full_like(goals, CENTRE), goals], -1)

    def watch(boxes: jax.Array) -> jax.Array:
        error = jnp.abs(boxes - goals.reshape(-1, 4)).sum(-1)
        return error.reshape(len(points), -1).mean(-1)

    start, goals = (x.astype(jnp.float32) for x in (boxes, goals))
    return _descend(start.reshape(-1, 4), goals.reshape(-1, 4), rates=rates, loss=loss, watch=watch)


@functools.partial(jax.jit, static_argnames=("loss", "watch"))
def _descend(
    boxes: jax.Array,
    targets: jax.Array,
    *,
    rates: jax.Array,
    loss: Loss,
    watch: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """What `watch` sees of boxes `[cases, 4]`, centre and size, at first and after each step."""

    def step(boxes: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = lambda boxes: loss(boxes, targets, format="cxcywh", reduction="sum")
        overlap = geometry.iou(boxes, targets, format="cxcywh")
        moved = boxes - rate * (2 - overlap)[:, None] * jax.grad(total)(boxes)
        sizes = jnp.maximum(moved[:, 2:], SMALLEST)
        moved = jnp.concatenate([moved[:, :2], sizes], -1)
        return moved, watch(moved)

    _, seen = jax.lax.scan(step, boxes, rates)
    return jnp.concatenate([watch(boxes)[None], seen])


def draw(path: pathlib.Path, runs: dict[str, Run], points: np.ndarray) -> None:
    """Draws the errors over the steps, where they remain, and how one box moves."""
    figure = Figure(figsize=(16, 13), layout="constrained")
    curves, maps, paths = figure.subfigures(3, height_ratios=[4.4, 4.2, 4.2])
    colours = {name: f"C{i % 10}" for i, name in enumerate(LOSSES)}
    left, right = curves.subplots(1, 2, sharey=True)
    for i, (name, run) in enumerate(runs.items()):
        style = "-" if i < 10 else "--"
        left.plot(run.error, style, color=colours[name], label=name)
    for name, values in PUBLISHED.items():
        millions = np.array(list(values.values()))
        right.plot(list(values), millions / 1.715, "o--", color=colours[name], label=name)
    left.set(title="Gradients of the losses, computed here", ylabel="mean error of a case")
    right.set(title="Hand-written update rules: read off the DIoU paper's figure")
    for ax in (left, right):
        ax.set(xlabel="step", yscale="log", ylim=(1e-3, 6))
        ax.legend(fontsize=8, ncols=2)

    _draw_maps(maps, runs, points)
    _draw_paths(paths, runs)
    figure.savefig(path, dpi=100)


def _draw_maps(figure: Figure, runs: dict[str, Run], points: np.ndarray) -> None:
    figure.suptitle("Error that remains, by starting point")
    columns = -(-len(runs) // 2)
    grid = figure.subplots(2, columns, squeeze=False)
    largest = max(run.final.max() for run in runs.values())
    size = np.clip(6000 / len(points), 1.5, 40)
    for ax in grid.flat:
        ax.set_axis_off()
    for ax, (name, run) in zip(grid.flat, runs.items(), strict=False):
        shown = ax.scatter(
            *points.T, c=run.final + 1e-3, s=size, cmap="magma", norm="log", vmin=1e-3, vmax=largest
        )
        ax.set(title=f"{name}: mean {run.final.mean():.3g}", aspect="equal")
        ax.title.set_fontsize(9)
    figure.colorbar(shown, ax=grid, shrink=0.8)


def _draw_paths(figure: Figure, runs: dict[str, Run]) -> None:
    figure.suptitle("One box on its way to the target (black), from light to dark")
    grid = figure.subplots(2, -(-len(runs) // 2), squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for ax, (name, run) in zip(grid.flat, runs.items(), strict=False):
        for share in SHOWN:
            box = run.path[round(share * (len(run.path) - 1))]
            ax.add_patch(_outline(box, color="tab:blue", alpha=0.25 + 0.75 * share))
        ax.plot(*run.path[:, :2].T, color="tab:blue", linewidth=0.8)
        ax.add_patch(_outline(TRAJECTORY["target"], color="black", linestyle="--"))
        ax.set(title=name, xlim=(9, 13.2), ylim=(8.9, 12), aspect="equal")
        ax.title.set_fontsize(9)


def _outline(box: Sequence[float], **style: object) -> Rectangle:
    x, y, width, height = box
    return Rectangle((x - width / 2, y - height / 2), width, height, fill=False, **style)


if __name__ == "__main__":
    main()
