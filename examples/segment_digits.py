"""Trains a U-Net to find and name handwritten digits, with a loss of your choice.

    python examples/segment_digits.py --loss dice_cross_entropy

Every pixel is background or one of ten digits. Only 4 % of the pixels are ink, the strokes are one
to three pixels wide, and no digit of the test scenes was seen in training: the regime where the
choice of the loss decides. Leaves a picture and an Orbax checkpoint in the output folder and prints
the intersection over union (IoU) of each digit. Takes a minute or two on two CPU cores.

With `--devices 8` each of eight devices takes an eighth of every batch. On a machine without
accelerators eight fake ones share the processor: no faster, but the same program.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax import numpy as jnp
from metrics import class_iou, confusion_matrix
from pictures import draw_segmentation
from scenes import Scenes, compose
from training import fit, make_key
from unet import UNet

import jaxloss

CLASSES = 11  # Background, then the digits 0 to 9.

# One score for each digit over the whole batch: an image holds three digits at most, and a score
# for each of the seven absent ones would teach the network to predict background everywhere.
REGION = {"per_image": False}

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # Of logits, labels and the step.

LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": jaxloss.cross_entropy,
    "dice": functools.partial(jaxloss.dice, **REGION),
    "dice_cross_entropy": functools.partial(jaxloss.dice_cross_entropy, **REGION),
    "focal": functools.partial(jaxloss.focal, gamma=2.0),
    "jaccard": functools.partial(jaxloss.jaccard, **REGION),
    "tversky": functools.partial(jaxloss.tversky, alpha=0.3, beta=0.7, **REGION),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, evaluates, draws and saves; returns what came out."""
    options = parse(argv)
    train_scenes = compose(options.scenes, "train", size=options.size, seed=options.seed)
    test_scenes = compose(max(options.scenes // 8, 8), "test", size=options.size, seed=options.seed)

    model, losses = train(train_scenes, options)
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
    return {"losses": losses, "mean_iou": mean, "model": model, "picture": picture}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--loss", choices=[*LOSSES, "boundary"], default="dice_cross_entropy", help="to minimise")
    add("--steps", type=int, default=1200, help="updates of the network")
    add("--batch", type=int, default=16, help="scenes in an update")
    add("--scenes", type=int, default=4000, help="training scenes to compose")
    add("--size", type=int, default=64, help="side of a scene, a multiple of 16")
    add("--seed", type=int, default=0, help="of the scenes, the network and the batches")
    add("--devices", type=int, default=1, help="that share each batch, on a CPU fake ones")
    add("--output", type=pathlib.Path, default="output", help="folder of the results")
    options = parser.parse_args(argv)
    if options.size < 16 or options.size % 16:
        parser.error(f"argument --size: {options.size} is not a multiple of 16")
    if options.devices < 1 or options.batch % options.devices:
        parser.error(
            f"argument --devices: a batch of {options.batch} cannot be shared equally among "
            f"{options.devices} devices"
        )
    return options


def make_loss(name: str, steps: int) -> Loss:
    """Returns the loss as a function of logits, labels and the step.

    The boundary loss alone finds no digit from a random start: it joins Dice with a weight that an
    Optax schedule raises from zero.
    """
    if name != "boundary":
        return lambda logits, labels, step: LOSSES[name](logits, labels)
    weight = optax.linear_schedule(0.0, 0.02, transition_steps=steps)

    def dice_and_boundary(logits: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        dice = LOSSES["dice"](logits, labels)
        return dice + weight(step) * jaxloss.boundary(logits, labels)

    return dice_and_boundary


def train(scenes: Scenes, options: argparse.Namespace) -> tuple[UNet, np.ndarray]:
    """Returns the trained network and the loss of every step."""
    key = make_key(options.seed)
    model = nnx.jit(lambda: UNet(CLASSES, rngs=nnx.Rngs(key)))()
    losses = fit(
        model,
        make_loss(options.loss, options.steps),
        (scenes.images, scenes.masks),
        key,
        name=options.loss,
        steps=options.steps,
        batch=options.batch,
        devices=options.devices,
    )
    return model, losses


def predict(model: UNet, scenes: Scenes, batch: int = 64) -> np.ndarray:
    """Returns the most probable class of every pixel, int32 `[N, S, S]`."""
    classify = nnx.jit(lambda model, images: jnp.argmax(model(images), axis=-1))
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


def restore(folder: pathlib.Path) -> UNet:
    """Rebuilds the network that `save` wrote, on this machine's first device."""
    graph, state = nnx.split(nnx.eval_shape(lambda: UNet(CLASSES, rngs=nnx.Rngs(0))))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)
    with ocp.StandardCheckpointer() as checkpointer:
        return nnx.merge(graph, checkpointer.restore(folder.resolve() / "checkpoint", wanted))


if __name__ == "__main__":
    main()
