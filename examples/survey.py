"""Trains the same small U-Net with every loss that takes ids, and measures six things.

    python examples/survey.py
    python examples/survey.py --loss dice focal --data strokes

Every loss of the distribution, region, boundary and compound families that trains a network alone
on scores and ids, on five data sets of small pictures with two classes, with three seeds each. Each
training is a row that docs/survey.csv has at once: the same command goes on where it was stopped,
and then writes the tables of docs/survey.md. `--tables` writes them of the rows that there are.
All of it takes about an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import csv
import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import commands
import jax
import losses
import numpy as np
from flax import nnx
from metrics import calibration_error, class_iou, confusion_matrix, hausdorff_95
from survey_data import DATA, Pictures, draw
from survey_tables import write_tables
from tqdm import tqdm
from training import apply, fit, make_key
from unet import UNet

import jaxloss

CLASSES = 2
WIDTHS = (8, 16)
TRAINING, TESTING = 1000, 100  # pictures
DOCS = pathlib.Path(__file__).parents[1] / "docs"

# A sigmoid for each class in place of a softmax; all other losses say it by their `activation`.
SIGMOID = ("hinge", "lovasz_hinge", "sigmoid_focal", "squared_hinge")

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Trains what is missing and writes the tables; returns all rows."""
    options = parse(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "survey.csv"
    rows = read(path)
    done = {identity(row) for row in rows}
    plan = planned(options)
    missing = [row for row in plan if identity(row) not in done]
    with tqdm([] if options.tables else missing, unit="training", smoothing=0.05) as progress:
        for row in progress:
            progress.set_description(f"{row['loss']}, {row['data']}")
            row |= measure(row, options.devices)
            append(path, row)
            rows.append(row)
    write_tables(path.with_suffix(".md"), rows, len(plan))
    return rows


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = commands.make_parser(__doc__, steps=300, batch=8, output=DOCS)
    commands.add_loss(parser, losses.FAMILIES, nargs="+", help="some of those below")
    add = parser.add_argument
    add(
        "--data",
        nargs="+",
        choices=DATA,
        default=list(DATA),
        metavar="NAME",
        help="of " + ", ".join(DATA),
    )
    add("--seeds", type=int, default=3, help="trainings with each loss and data set")
    add("--size", type=int, default=32, help="side of a picture, a multiple of 16")
    add("--tables", action="store_true", help="train nothing")
    options = parser.parse_args(argv)
    commands.check_size(parser, options.size)
    commands.check_devices(parser, options.devices, options.batch)
    every = [name for family in losses.FAMILIES for name in losses.in_family(family)]
    why = {name: complaint(name, options.size) for name in options.loss or every}
    for reason in filter(None, why.values()):
        if options.loss:
            parser.error(f"argument --loss: {reason}")
        print(f"Left out: {reason}")
    options.loss = [name for name, reason in why.items() if not reason]
    return options


def complaint(name: str, size: int) -> str:
    """Returns why a loss does not take scores and ids of such pictures; empty where it does."""
    loss = losses.bind(name, {}, known=losses.facts(np.arange(CLASSES), CLASSES))
    return losses.complaint(loss, *losses.shapes((1, size, size, CLASSES), (1, size, size)))


def planned(options: argparse.Namespace) -> list[Row]:
    """Returns all rows as they are before they are measured, those of a loss together."""
    families = {name: f for f in losses.FAMILIES for name in losses.in_family(f)}
    versions = {"jaxloss": jaxloss.__version__, "jax": jax.__version__}
    fixed = {"steps": options.steps, "batch": options.batch, "size": options.size} | versions
    return [
        {"family": families[name], "loss": name, "data": data, "seed": options.seed + n} | fixed
        for name in options.loss
        for data in options.data
        for n in range(options.seeds)
    ]


def identity(row: Row) -> tuple[str, ...]:
    """Returns what tells a row from all others."""
    return tuple(str(row[name]) for name in ("loss", "data", "seed", "steps", "batch", "size"))


def read(path: pathlib.Path) -> list[Row]:
    """Returns the rows that are there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: pathlib.Path, row: Row) -> None:
    """Adds a row, under the names of its columns where it is the first."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def measure(row: Row, devices: int) -> Row:
    """Trains one network and returns its measures, and the seconds of processors."""
    start = time.process_time()
    loss, data, size = row["loss"], row["data"], row["size"]
    train, test = draw(data, "train", TRAINING, size), draw(data, "test", TESTING, size)
    key = make_key(row["seed"])
    model = build(key)
    fit(
        model,
        bind(loss, data if losses.required(loss) else None, size),
        train,
        key,
        name=loss,
        steps=row["steps"],
        batch=row["batch"],
        devices=devices,
        quiet=True,
    )
    found = probabilities(loss, apply(model, test.images))
    return judge(found, test) | {"seconds": round(time.process_time() - start, 2)}


@nnx.jit
def build(key: jax.Array) -> UNet:
    """Returns a network that has learned nothing yet."""
    return UNet(CLASSES, widths=WIDTHS, rngs=nnx.Rngs(key))


@functools.cache
def bind(name: str, data: str | None, size: int) -> losses.Loss:
    """Returns a loss, with what it has to know of a data set.

    One that knows nothing is the same for all data sets, and compiles once for all of them.
    """
    if data is None:
        return losses.bind(name, {})
    labels = draw(data, "train", TRAINING, size).masks
    return losses.bind(name, {}, known=losses.facts(labels, CLASSES))


def probabilities(name: str, logits: jax.Array) -> np.ndarray:
    """Returns the probabilities of both classes, as the loss understands the logits."""
    activation = losses.parameters(name).get("activation")
    if name in SIGMOID or (activation and activation.default == "sigmoid"):
        each = jax.nn.sigmoid(logits)
        return np.asarray(each / each.sum(-1, keepdims=True))
    return np.asarray(jax.nn.softmax(logits))


def judge(found: np.ndarray, test: Pictures) -> Row:
    """Returns the measures of probabilities `[N, S, S, 2]`.

    Of all pixels together, but for the distance, which is the mean over the pictures. The
    precision is 0 where nothing is found.
    """
    predicted = found.argmax(-1)
    counts = confusion_matrix(test.masks, predicted, CLASSES)
    (_, false), (missed, right) = counts
    pairs = zip(predicted > 0, test.masks > 0, strict=True)
    measures = {
        "dice": 2 * right / (2 * right + false + missed),
        "iou": class_iou(counts)[1],
        "hd95": np.mean([hausdorff_95(*pair) for pair in pairs]),
        "calibration": calibration_error(found, test.masks),
        "precision": right / max(right + false, 1),
        "recall": right / (right + missed),
    }
    return {name: round(float(value), 5) for name, value in measures.items()}


if __name__ == "__main__":
    main()
