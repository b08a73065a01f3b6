"""The pictures that the examples leave behind."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch, Rectangle
from metrics import Detections
from scenes import Scenes

DIGIT_COLOURS = ["#f94144", "#f8961e", "#f9e04c", "#a7c957", "#2a9d4e"]
DIGIT_COLOURS += ["#48dbd0", "#3a86ff", "#9b5de5", "#ff70c8", "#ffffff"]
ERROR_COLOURS = {"missed": "#ff4d6d", "invented": "#ffd60a", "wrong digit": "#4cc9f0"}


def draw_segmentation(
    path: pathlib.Path, scenes: Scenes, predictions: np.ndarray, title: str, columns: int = 8
) -> None:
    """Draws the first scenes, one a column: the image, truth, prediction and errors."""
    images = scenes.images[:columns, ..., 0]
    truth, predicted = scenes.masks[:columns], predictions[:columns]
    wrong = {
        "missed": (truth > 0) & (predicted == 0),
        "invented": (truth == 0) & (predicted > 0),
        "wrong digit": (truth > 0) & (predicted > 0) & (truth != predicted),
    }
    digits = [(str(digit), colour) for digit, colour in enumerate(DIGIT_COLOURS)]
    rows = {
        "Image": _shade(images, 1.0),
        "Truth": _paint(images, [(truth == 1 + int(d), colour) for d, colour in digits]),
        "Prediction": _paint(images, [(predicted == 1 + int(d), colour) for d, colour in digits]),
        "Errors": _paint(images, [(wrong[kind], c) for kind, c in ERROR_COLOURS.items()]),
    }

    figure = Figure(figsize=(1.35 * len(images) + 0.5, 7.1), layout="constrained")
    figure.suptitle(title, fontsize=14)
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for strip, (name, pictures) in zip(axes, rows.items(), strict=True):
        strip[0].set_ylabel(name, fontsize=12)
        for ax, picture in zip(strip, pictures, strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    _legend(figure, "Digits", digits, "outside lower left")
    _legend(figure, "Errors", list(ERROR_COLOURS.items()), "outside lower right")
    figure.savefig(path, dpi=130)


def draw_curves_and_maps(
    path: pathlib.Path,
    runs: Mapping[str, Any],
    images: np.ndarray,
    strokes: np.ndarray,
    maps: np.ndarray,
    columns: int = 6,
) -> None:
    """Draws two curves for each run, and the first scenes with their distance maps and errors."""
    heights = [3.4, 2.1 * (2 + len(runs)) + 0.5]
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, height_ratios=heights)
    left, right = above.subplots(1, 2)
    for name, run in runs.items():
        left.plot(run.steps, run.iou, marker="o", label=name)
        right.plot(run.steps, run.distance, marker="o", label=name)
    left.set(xlabel="step", title="Intersection over union")
    right.set(xlabel="step", title="95 % Hausdorff distance, pixels", yscale="log")
    for formatter in (right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
        formatter("{x:g}")
    for ax in (left, right):
        ax.grid(which="both", alpha=0.3)
    left.legend()

    count = min(columns, len(images))
    axes = below.subplots(2 + len(runs), count, squeeze=False)
    limit = np.abs(maps[:count]).max()
    for ax, image, phi in zip(axes[0], images, maps, strict=False):
        ax.imshow(image, cmap="gray", interpolation="nearest")
        ax.contour(phi, levels=[0.5], colors="tab:orange", linewidths=0.8)
    for ax, phi in zip(axes[1], maps, strict=False):
        scale = ax.imshow(phi, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.contour(phi, levels=[0.5], colors="tab:orange", linewidths=0.8)
    below.colorbar(scale, ax=axes[1], label="pixels", aspect=12, pad=0.01)
    for strip, run in zip(axes[2:], runs.values(), strict=True):
        found = run.predictions
        wrong = [(found & ~strokes, ERROR_COLOURS["invented"])]
        wrong += [(~found & strokes, ERROR_COLOURS["missed"]), (found & strokes, "#ffffff")]
        for ax, picture in zip(strip, _paint(images, wrong), strict=False):
            ax.imshow(picture, interpolation="nearest")
    for strip, name in zip(axes, ["Image", "Distance map", *runs], strict=True):
        strip[0].set_ylabel(name, fontsize=12)
        for ax in strip:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    kinds = [(kind, ERROR_COLOURS[kind]) for kind in ("missed", "invented")]
    _legend(below, "Pixels", [("found", "#ffffff"), *kinds], "outside lower center")
    figure.savefig(path, dpi=110)


def draw_detections(
    path: pathlib.Path,
    pictures: Any,
    found: Detections,
    names: Sequence[str],
    title: str,
    count: int = 12,
    least: float = 0.3,
) -> None:
    """Draws the first pictures with the true boxes, dashed, and those found with a score."""
    images = pictures.images[:count]
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    side = 2.2 if len(images) > 1 else 9
    figure = Figure(figsize=(side * columns, side * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=14)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for n, (ax, image) in enumerate(zip(axes, images, strict=False)):
        ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for box in pictures.boxes[n][pictures.valid[n]]:
            _outline(ax, box, "#ffffff", linestyle="--", linewidth=0.9)
        for slot in np.flatnonzero(found.valid[n] & (found.scores[n] > least)):
            box, label = found.boxes[n, slot], found.labels[n, slot]
            colour = DIGIT_COLOURS[label % len(DIGIT_COLOURS)]
            _outline(ax, box, colour, linewidth=1.6)
            text = f"{names[label]} {found.scores[n, slot]:.2f}"
            ax.text(*box[:2], text, color=colour, fontsize=8, va="bottom", clip_on=True)
    figure.savefig(path, dpi=110)


def _outline(ax: Axes, box: np.ndarray, colour: str, **style: Any) -> None:
    """Draws the sides of a box, whose pixels have their centres at whole numbers."""
    width, height = box[2:] - box[:2]
    ax.add_patch(Rectangle(box[:2] - 0.5, width, height, fill=False, edgecolor=colour, **style))


def _shade(images: np.ndarray, strength: float) -> np.ndarray:
    """Turns grey images `[N, H, W]` into colour, darkened by `strength`."""
    return np.repeat(strength * images[..., None], 3, axis=-1)


def _paint(images: np.ndarray, layers: list[tuple[np.ndarray, str]]) -> np.ndarray:
    """Paints masks in their colours over the darkened images."""
    canvas = _shade(images, 0.35)
    for mask, colour in layers:
        canvas[mask] = to_rgb(colour)
    return canvas


def _legend(figure: FigureBase, title: str, entries: list[tuple[str, str]], place: str) -> None:
    patches = [Patch(facecolor=colour, edgecolor="grey", label=name) for name, colour in entries]
    figure.legend(
        handles=patches,
        title=title,
        loc=place,
        ncols=len(patches),
        frameon=False,
        handlelength=1,
        handleheight=1,
        columnspacing=1.2,
    )
