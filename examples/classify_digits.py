"""Compares losses on real handwritten digits: a table over losses and seeds.

    python examples/classify_digits.py --loss cross_entropy focal --seeds 5
    python examples/classify_digits.py --long-tail 50
    python examples/classify_digits.py --label-noise 0.4

A small convolutional network learns to name the 2500 digits of the training split and is judged on
the other 2500, by its accuracy on all classes, on the three rarest ones, and by how far its
confidence is from its accuracy. With `--long-tail 50` the zeros of the training split are 50 times
as many as the nines, with `--label-noise 0.4` so large a share of its labels is wrong. Takes a
minute or two on two CPU cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import commands
import jax
import losses
import numpy as np
from flax import nnx
from metrics import calibration_error
from scenes import Split, load_digits
from training import apply, fit, make_key
from unet import Block

CLASSES = 10
RAREST = 3  # of the classes, whose accuracy is shown beside that of all
USUAL = ["cross_entropy", "focal", "generalized_cross_entropy", "symmetric_cross_entropy"]
USUAL += ["logit_adjusted", "ldam"]


class Classifier(nnx.Module):
    """Three strided convolutions and a linear layer: a score for each digit."""

    def __init__(self, side: int, *, rngs: nnx.Rngs):
        """Takes images of so many pixels a side."""
        widths = (16, 32, 32)
        inputs = (1, *widths[:-1])
        self.down = nnx.List(
            Block(i, o, stride=2, rngs=rngs) for i, o in zip(inputs, widths, strict=True)
        )
        self.head = nnx.Linear(widths[-1] * (-(-side // 8)) ** 2, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, S, S, 1]` to logits `[B, 10]`."""
        x = images
        for down in self.down:
            x = down(x)
        return self.head(x.reshape(len(x), -1))


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Trains with each loss and prints the table; returns its rows, `[measures, seeds]`."""
    options = parse(argv)
    rng = np.random.default_rng(options.seed)
    images, labels = load("train")
    kept = long_tail(labels, options.long_tail)
    images, labels = images[kept], spoil(labels[kept], options.label_noise, rng)
    judge = load("test")
    print(f"{len(labels)} digits, {np.bincount(labels, minlength=CLASSES)} of each class")

    start, rows = time.perf_counter(), {}
    for name in options.loss:
        loss = make_loss(name, labels, options)
        seeds = range(options.seed, options.seed + options.seeds)
        models = [train(loss, (images, labels), seed, name, options) for seed in seeds]
        rows[name] = np.stack([measure(model, *judge) for model in models], axis=1)
    print(table(rows))
    platform = jax.devices()[0].platform
    print(
        f"{options.seeds} seeds of each loss, {time.perf_counter() - start:.0f} s on a {platform}"
    )
    return rows


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = commands.make_parser(__doc__, steps=200, batch=64)
    families = ("distribution",)
    commands.add_loss(parser, families, nargs="+", default=USUAL, help="one or several of those")
    commands.add_options(parser)
    add = parser.add_argument
    add("--seeds", type=int, default=3, help="networks that each loss trains")
    add("--long-tail", type=float, default=1.0, help="the commonest class over the rarest")
    add("--label-noise", type=float, default=0.0, help="share of the labels that are wrong")
    options = parser.parse_args(argv)
    commands.check_devices(parser, options.devices, options.batch)
    if options.long_tail < 1:
        parser.error(f"argument --long-tail: {options.long_tail} is below 1")
    if not 0 <= options.label_noise <= 1:
        parser.error(f"argument --label-noise: {options.label_noise} is not in [0, 1]")
    for name, _ in options.options:
        if not any(name in losses.parameters(loss) for loss in options.loss):
            parser.error(f"argument --option: {name} is of none of {', '.join(options.loss)}")
    for name in options.loss:
        loss = make_loss(name, np.arange(CLASSES), options)
        if complaint := losses.complaint(loss, *losses.shapes((1, CLASSES), (1,))):
            parser.error(f"argument --loss: {complaint}")
    return options


def make_loss(name: str, labels: np.ndarray, options: argparse.Namespace) -> losses.Loss:
    """Returns a loss with those of the options that it has."""
    given = {n: value for n, value in options.options if n in losses.parameters(name)}
    known = losses.facts(labels, CLASSES)
    return losses.bind(name, given, known=known, steps=options.steps)


def load(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the split's digits, float32 `[N, H, W, 1]` in [0, 1], and their labels."""
    images, labels = load_digits(split)
    return np.float32(images)[..., None] / 255, labels


def long_tail(labels: np.ndarray, ratio: float) -> np.ndarray:
    """Returns the places of the digits to keep: of each class fewer than of the one before.

    The numbers fall evenly on a logarithmic scale, to 1 / ratio of the first (Cui et al. 2019,
    https://arxiv.org/abs/1901.05555).
    """
    places = [np.flatnonzero(labels == digit) for digit in range(CLASSES)]
    shares = ratio ** -np.linspace(0, 1, CLASSES)
    most = min(map(len, places)) if ratio > 1 else max(map(len, places))
    return np.concatenate(
        [place[: max(round(most * share), 1)] for place, share in zip(places, shares, strict=True)]
    )


def spoil(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replaces a share of the labels by another digit, each as probable."""
    wrong = (labels + rng.integers(1, CLASSES, len(labels))) % CLASSES
    return np.where(rng.random(len(labels)) < share, wrong, labels).astype(np.int32)


def train(
    loss: losses.Loss,
    data: tuple[np.ndarray, np.ndarray],
    seed: int,
    name: str,
    options: argparse.Namespace,
) -> Classifier:
    """Returns a network trained on images and labels."""
    key = make_key(seed)
    model = build(key, side=data[0].shape[1])
    fit(
        model,
        loss,
        data,
        key,
        name=f"{name}, seed {seed}",
        steps=options.steps,
        batch=options.batch,
        devices=options.devices,
    )
    return model


@nnx.jit(static_argnames="side")
def build(key: jax.Array, side: int) -> Classifier:
    """Returns a network that has learned nothing yet."""
    return Classifier(side, rngs=nnx.Rngs(key))


def measure(model: Classifier, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns accuracy, accuracy on the rarest classes, and calibration error."""
    logits = apply(model, images)
    right, rare = np.argmax(logits, -1) == labels, labels >= CLASSES - RAREST
    error = calibration_error(np.asarray(jax.nn.softmax(logits)), labels)
    return np.array([right.mean(), right[rare].mean(), error])


def table(rows: dict[str, Any]) -> str:
    """Lays out mean and standard deviation over the seeds."""
    lines = [f"{'loss':28}{'accuracy':>16}{f'of {RAREST} rarest':>16}{'calibration':>16}"]
    for name, values in rows.items():
        spread = values.std(1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
        cells = zip(values.mean(1), spread, strict=True)
        lines.append(f"{name:28}" + "".join(f"{m:9.3f} ± {s:.3f}" for m, s in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
