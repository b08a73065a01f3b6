"""Trains a U-Net to find and name handwritten digits, with a loss of your choice.

    python examples/segment_digits.py --loss dice_cross_entropy

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
import contextlib
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
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from pictures import draw_segmentation
from scenes import Scenes, compose
from tqdm import tqdm
from unet import UNet

import jaxloss

CLASSES = 11  # Background, then the digits 0 to 9.

# One score for each digit over the whole batch: an image holds three digits at most, and a score
# for each of the seven absent ones would teach the network to predict background everywhere.
REGION = {"per_image": False}

SPLITS = {"batch": PartitionSpec("devices"), "height": PartitionSpec(None, "devices")}

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # Of logits, labels and the step.

LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": jaxloss.cross_entropy,
    "dice": functools.partial(jaxloss.dice, **REGION),
    "dice_cross_entropy": functools.partial(jaxloss.dice_cross_entropy, **REGION),
    "focal": functools.partial(jaxloss.focal, gamma=2.0),
    "jaccard": functools.partial(jaxloss.jaccard, **REGION),
    "tversky": functools.partial(jaxloss.tversky, alpha=0.3, beta=0.7, **REGION),
}

# These upsample small logits themselves. The edges of the images stay in place, as in the network.
EDGES = {"align_corners": False}
UPSAMPLED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": functools.partial(jaxloss.upsampled_cross_entropy, **EDGES),
    "dice_cross_entropy": functools.partial(
        jaxloss.upsampled_dice_cross_entropy, **EDGES, **REGION
    ),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains, evaluates, draws and saves; returns what came out."""
    options = parse(argv)
    train_scenes = compose(options.scenes, "train", size=options.size, seed=options.seed)
    test_scenes = compose(max(options.scenes // 8, 8), "test", size=options.size, seed=options.seed)

    model, losses = train(train_scenes, options)
    predictions = predict(model, test_scenes)
    iou = class_iou(predictions, test_scenes.masks)
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
    add("--split", choices=list(SPLITS), default="batch", help="what the devices share")
    add("--upsample-in-loss", action="store_true", help="train on logits of half the resolution")
    add("--output", type=pathlib.Path, default="output", help="folder of the results")
    options = parser.parse_args(argv)
    if options.size < 16 or options.size % 16:
        parser.error(f"argument --size: {options.size} is not a multiple of 16")
    shared = {"batch": options.batch, "height": options.size}[options.split]
    if options.devices < 1 or shared % options.devices:
        parser.error(
            f"argument --devices: a {options.split} of {shared} cannot be shared equally among "
            f"{options.devices} devices"
        )
    if options.upsample_in_loss and options.loss not in UPSAMPLED:
        parser.error(
            f"argument --upsample-in-loss: not with {options.loss}, but with "
            + " or ".join(UPSAMPLED)
        )
    return options


def make_loss(name: str, steps: int, upsample: bool = False) -> Loss:
    """Returns the loss as a function of logits, labels and the step.

    The boundary loss alone finds no digit from a random start: it joins Dice with a weight that an
    Optax schedule raises from zero.
    """
    if name != "boundary":
        losses = UPSAMPLED if upsample else LOSSES
        return lambda logits, labels, step: losses[name](logits, labels)
    weight = optax.linear_schedule(0.0, 0.02, transition_steps=steps)

    def dice_and_boundary(logits: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        dice = LOSSES["dice"](logits, labels)
        return dice + weight(step) * jaxloss.boundary(logits, labels)

    return dice_and_boundary


def make_mesh(devices: int) -> Mesh:
    """Arranges so many devices in one axis, along which batches or scenes are shared."""
    if devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX has started and its devices stay.
            jax.config.update("jax_num_cpu_devices", devices)
    if jax.device_count() < devices:
        raise SystemExit(f"--devices {devices}: this machine has {jax.device_count()}")
    return jax.make_mesh((devices,), ("devices",), axis_types=(AxisType.Auto,))


def train(scenes: Scenes, options: argparse.Namespace) -> tuple[UNet, np.ndarray]:
    """Returns the trained network and the loss of every step."""
    mesh = make_mesh(options.devices)
    everywhere = NamedSharding(mesh, PartitionSpec())
    shared = NamedSharding(mesh, SPLITS[options.split])
    key = jax.random.key(options.seed, impl="rbg")  # On CPUs the default takes long to compile.
    half = options.upsample_in_loss
    model = nnx.jit(lambda: UNet(CLASSES, half=half, rngs=nnx.Rngs(key)))()
    rate = optax.cosine_onecycle_schedule(options.steps, peak_value=6e-3, pct_start=0.2)
    optimizer = nnx.Optimizer(model, optax.adamw(rate), wrt=nnx.Param)
    place(model, everywhere)
    place(optimizer, everywhere)
    loss = make_loss(options.loss, options.steps, options.upsample_in_loss)
    data = jax.device_put((scenes.images, scenes.masks), everywhere)

    losses: list[jax.Array] = []
    progress = tqdm(range(options.steps), desc=options.loss, unit="step", mininterval=0.5)
    for step in progress:
        losses.append(
            train_step(model, optimizer, key, data, loss=loss, batch=options.batch, sharding=shared)
        )
        if step % 10 == 9:
            running = np.mean([float(value) for value in losses[-50:]])
            progress.set_postfix(loss=f"{running:.3f}", refresh=False)
    place(model, jax.devices()[0])  # What follows is as after a training on one.
    return model, np.array([float(value) for value in losses])


def place(node: nnx.Module, where: NamedSharding | jax.Device) -> None:
    """Moves the arrays of a network or an optimiser."""
    nnx.update(node, jax.device_put(nnx.state(node), where))


@nnx.jit(static_argnames=("loss", "batch", "sharding"))
def train_step(
    model: UNet,
    optimizer: nnx.Optimizer,
    key: jax.Array,
    data: tuple[jax.Array, jax.Array],
    *,
    loss: Loss,
    batch: int,
    sharding: NamedSharding,
) -> jax.Array:
    """Draws a batch, varies its light, and updates the network: one compiled program.

    Only the batch is told where it goes; the compiler shares all that follows among the devices,
    which send each other the rows that convolutions need. The loss is that of the whole batch.
    """
    step = optimizer.step[...]
    choice, light = jax.random.split(jax.random.fold_in(key, step))
    index = jax.random.randint(choice, (batch,), 0, len(data[0]))
    images, labels = (jax.lax.with_sharding_constraint(a[index], sharding) for a in data)
    images = images * jax.random.uniform(light, (batch, 1, 1, 1), minval=0.7, maxval=1.3)

    value, gradients = nnx.value_and_grad(lambda model: loss(model(images), labels, step))(model)
    optimizer.update(model, gradients)
    return value


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


def class_iou(predictions: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns each class's intersection over union over all pixels, NaN for an absent class."""
    pairs = np.bincount((masks * CLASSES + predictions).ravel(), minlength=CLASSES**2)
    confusion = pairs.reshape(CLASSES, CLASSES)
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


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
