"""Trains a U-Net to find and name handwritten digits, with a loss of your choice.

    python examples/segment_digits.py --loss dice_cross_entropy
    python examples/segment_digits.py --loss dice_boundary --option alpha=1..0.01

Takes every loss of jaxloss on scores and ids by its name, and its options, which may change over
the training: there the boundary loss takes over from Dice. It alone finds no digit from a random
start.

Every pixel is background or one of ten digits. Only 4 % of the pixels are ink, the strokes are one
to three pixels wide, and no digit of the test scenes was seen in training: the regime where the
choice of the loss decides. Leaves a picture and an Orbax checkpoint in the output folder and prints
the intersection over union (IoU) of each digit. Takes a minute or two on two CPU cores.

With `--devices 8` each of eight devices takes an eighth of every batch, or with `--split height` an
eighth of the rows of every scene, as volumes and slides need that are too large for one. On a
machine without accelerators eight fake ones share the processor: no faster, but the same program.

With `--upsample-in-loss` the network stops at half the resolution, and the loss upsamples the
logits as it goes, a few rows at a time: they never exist in memory.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import commands
import jax
import losses
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax import numpy as jnp
from metrics import class_iou, confusion_matrix
from pictures import draw_segmentation
from scenes import Scenes, compose
from training import SPLITS, fit, make_key
from unet import UNet

import jaxloss

CLASSES = 11  # Background, then the digits 0 to 9.

# One score for each digit over the whole batch: an image holds three digits at most, and a score
# for each of the seven absent ones would teach the network to predict background everywhere.
REGION = {"per_image": False}

# How losses that upsample do it: the edges of the images stay in place, as in the network.
EDGES = {"align_corners": False}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, evaluates, draws and saves; returns what came out."""
    options = parse(argv)
    train_scenes = compose(options.scenes, "train", size=options.size, seed=options.seed)
    test_scenes = compose(max(options.scenes // 8, 8), "test", size=options.size, seed=options.seed)

    model, history = train(train_scenes, options)
    predictions = predict(model, test_scenes)
    iou = class_iou(confusion_matrix(test_scenes.masks, predictions, CLASSES))
    mean = float(np.nanmean(iou[1:]))
    print(table(iou))
    print(f"mean IoU {mean:.2f}")

    options.output.mkdir(parents=True, exist_ok=True)
    checkpoint = save(model, options.output)
    title = f"Test scenes after {options.steps} steps of {options.loss}: mean IoU {mean:.2f}"
    picture = options.output / "segment_digits.png"
    draw_segmentation(picture, test_scenes, predictions, title)
    print(f"checkpoint {checkpoint}")
    print(f"picture {picture}")
    return {"losses": history, "mean_iou": mean, "model": model, "picture": picture}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = commands.make_parser(__doc__, steps=1200, batch=16)
    commands.add_loss(
        parser, losses.FAMILIES, default="dice_cross_entropy", help="to minimise; listed below"
    )
    commands.add_options(parser)
    commands.add_scenes(parser)
    add = parser.add_argument
    add("--split", choices=list(SPLITS), default="batch", help="what the devices share")
    add("--upsample-in-loss", action="store_true", help="train on logits of half the resolution")
    options = parser.parse_args(argv)
    size = options.size
    commands.check_size(parser, size)
    shared = {"batch": options.batch, "height": size}[options.split]
    commands.check_devices(parser, options.devices, shared, options.split)
    upsampled = [name for name in losses.in_family("fused") if name.startswith("upsampled_")]
    if options.upsample_in_loss and f"upsampled_{options.loss}" not in upsampled:
        names = " or ".join(name.removeprefix("upsampled_") for name in upsampled)
        parser.error(f"argument --upsample-in-loss: not with {options.loss}, but with {names}")
    sides = (size // 2, size // 2) if options.upsample_in_loss else (size, size)
    loss = make_loss(options, np.arange(CLASSES))
    shapes = losses.shapes((1, *sides, CLASSES), (1, size, size))
    if complaint := losses.complaint(loss, *shapes):
        parser.error(f"argument --loss: {complaint}")
    return options


def make_loss(options: argparse.Namespace, labels: np.ndarray) -> losses.Loss:
    """Returns the loss that the options choose, for a network that learns these labels."""
    name = f"upsampled_{options.loss}" if options.upsample_in_loss else options.loss
    usual = {n: v for n, v in (REGION | EDGES).items() if n in losses.parameters(name)}
    return losses.bind(
        name,
        usual | dict(options.options),
        known=losses.facts(labels, CLASSES),
        steps=options.steps,
    )


def train(scenes: Scenes, options: argparse.Namespace) -> tuple[UNet, np.ndarray]:
    """Returns the trained network and the loss of every step."""
    key = make_key(options.seed)
    half = options.upsample_in_loss
    model = nnx.jit(lambda: UNet(CLASSES, half=half, rngs=nnx.Rngs(key)))()
    history = fit(
        model,
        make_loss(options, scenes.masks),
        (scenes.images, scenes.masks),
        key,
        name=options.loss,
        steps=options.steps,
        batch=options.batch,
        devices=options.devices,
        split=options.split,
    )
    return model, history


def predict(model: UNet, scenes: Scenes, batch: int = 64) -> np.ndarray:
    """Returns the most probable class of every pixel, int32 `[N, S, S]`."""

    @nnx.jit
    def classify(model: UNet, images: jax.Array) -> jax.Array:
        logits = model(images)
        if model.half:
            logits = jaxloss.resize_logits(logits, images.shape[1:3], **EDGES)
        return jnp.argmax(logits, axis=-1)

    cuts = range(batch, len(scenes.images), batch)
    batches = np.split(scenes.images, cuts)
    return np.concatenate([classify(model, images) for images in batches])


def table(iou: np.ndarray) -> str:
    """Lays out the IoU of each class, with a bar of 20 characters for 1."""
    names = ["background", *map(str, range(10))]
    bars = ["#" * round(20 * value) for value in np.nan_to_num(iou)]
    rows = [f"{n:>10}  {v:4.2f}  {b}" for n, v, b in zip(names, iou, bars, strict=True)]
    return "\n".join([f"{'class':>10}   IoU", *rows])


def save(model: UNet, folder: pathlib.Path) -> pathlib.Path:
    """Writes the parameters to the folder `checkpoint`, replacing an earlier one."""
    path = folder.resolve() / "checkpoint"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, nnx.state(model), force=True)
        checkpointer.wait_until_finished()
    return folder / "checkpoint"


def restore(folder: pathlib.Path, half: bool = False) -> UNet:
    """Rebuilds the network that `save` wrote, on this machine's first device."""
    graph, state = nnx.split(nnx.eval_shape(lambda: UNet(CLASSES, half=half, rngs=nnx.Rngs(0))))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)
    with ocp.StandardCheckpointer() as checkpointer:
        return nnx.merge(graph, checkpointer.restore(folder.resolve() / "checkpoint", wanted))


if __name__ == "__main__":
    main()
