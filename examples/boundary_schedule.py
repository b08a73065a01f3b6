"""Trains a U-Net on thin strokes with Dice, and with Dice and the boundary loss on a schedule.

    python examples/boundary_schedule.py

The strokes of the digits are one to three pixels wide. One network learns to find them by Dice
alone, another of the same start and the same batches by `dice_boundary`: alpha, the share of Dice,
falls from 1 to 0.01 over the training, as published, and the boundary loss takes over. That is an
Optax schedule inside the compiled train step. Leaves the curves of the intersection over union
(IoU) and of the 95 % Hausdorff distance, and the distance maps, in the output folder.
Takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp
from metrics import hausdorff_95
from pictures import draw_curves_and_maps
from scenes import Scenes, compose
from tqdm import tqdm
from training import make_optimizer
from unet import UNet

import jaxloss

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # Of logits, masks and the step.


class Run(NamedTuple):
    """What one training leaves.

    Attributes:
      steps: The steps after which the network was judged.
      iou: Its intersection over union on the test scenes.
      distance: Its 95 % Hausdorff distance in pixels, the mean of the test scenes.
      predictions: The masks that it predicts at the end, bool `[N, S, S]`.
    """

    steps: list[int]
    iou: list[float]
    distance: list[float]
    predictions: np.ndarray


def main(argv: Sequence[str] | None = None) -> dict[str, Run]:
    """Trains both, draws and prints; returns what came out."""
    options = parse(argv)
    scenes = compose(options.scenes, "train", size=options.size, seed=options.seed)
    judge = compose(max(options.scenes // 16, 8), "test", size=options.size, seed=options.seed)
    runs = {
        name: train(name, loss, scenes, judge, options)
        for name, loss in make_losses(options.steps).items()
    }
    print(f"{'half-way, and at the end':26}{'IoU':>6}{'':7}{'HD95':>6}")
    for name, run in runs.items():
        row = [
            values[n] for values in (run.iou, run.distance) for n in ((len(values) - 1) // 2, -1)
        ]
        print("{:26}{:6.3f}{:7.3f}{:6.2f}{:7.2f}".format(name, *row))

    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / "boundary_schedule.png"
    strokes = judge.masks > 0
    phi = np.asarray(jaxloss.distance.signed_distance(strokes))
    rim = (strokes & (phi == 0)).sum() / max(strokes.sum(), 1)  # a small scene may have none
    print(f"strokes fill {strokes.mean():.1%} of a scene; {rim:.0%} of them is rim, where phi is 0")
    draw_curves_and_maps(picture, runs, judge.images[..., 0], strokes, phi)
    print(f"picture {picture}")
    return runs


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=600, help="updates of each network")
    add("--batch", type=int, default=16, help="scenes in an update")
    add("--scenes", type=int, default=1600, help="training scenes to compose")
    add("--size", type=int, default=64, help="side of a scene, a multiple of 16")
    add("--seed", type=int, default=0, help="of the scenes, the networks and the batches")
    add("--output", type=pathlib.Path, default="output", help="folder of the results")
    options = parser.parse_args(argv)
    if options.size < 16 or options.size % 16:
        parser.error(f"argument --size: {options.size} is not a multiple of 16")
    return options


def make_losses(steps: int) -> dict[str, Loss]:
    """Returns Dice alone, and Dice that hands over to the boundary loss.

    Both are of all scenes of a batch together, so that none is too empty to count.
    """
    options = {"axis": None, "per_image": False}
    alpha = optax.linear_schedule(1.0, 0.01, transition_steps=steps)

    def dice(logits: jax.Array, masks: jax.Array, step: jax.Array) -> jax.Array:
        return jaxloss.generalized_dice(logits, masks, **options)

    def dice_boundary(logits: jax.Array, masks: jax.Array, step: jax.Array) -> jax.Array:
        return jaxloss.dice_boundary(logits, masks, alpha=alpha(step), **options)

    return {"Dice": dice, "Dice + boundary": dice_boundary}


def train(name: str, loss: Loss, scenes: Scenes, judge: Scenes, options: argparse.Namespace) -> Run:
    """Trains a network and judges it on the way."""
    key = jax.random.key(options.seed, impl="rbg")  # On CPUs the default takes long to compile.
    model = nnx.jit(lambda: UNet(1, widths=(16, 32, 64), rngs=nnx.Rngs(key)))()
    optimizer = nnx.Optimizer(model, make_optimizer(options.steps), wrt=nnx.Param)
    data = jnp.asarray(scenes.images), jnp.asarray(scenes.masks > 0)
    strokes, every = judge.masks > 0, max(options.steps // 10, 1)

    run = Run([], [], [], np.zeros_like(strokes))
    for step in tqdm(range(1, options.steps + 1), desc=name, unit="step", mininterval=0.5):
        train_step(model, optimizer, key, data, loss=loss, batch=options.batch)
        if step % every == 0 or step == options.steps:
            found = predict(model, judge.images)
            run.steps.append(step)
            run.iou.append(intersection_over_union(found, strokes))
            run.distance.append(
                float(np.mean([hausdorff_95(*pair) for pair in zip(found, strokes, strict=True)]))
            )
            run = run._replace(predictions=found)
    return run


@nnx.jit(static_argnames=("loss", "batch"))
def train_step(
    model: UNet,
    optimizer: nnx.Optimizer,
    key: jax.Array,
    data: tuple[jax.Array, jax.Array],
    *,
    loss: Loss,
    batch: int,
) -> jax.Array:
    """Draws a batch and updates the network: one compiled program."""
    step = optimizer.step[...]
    index = jax.random.randint(jax.random.fold_in(key, step), (batch,), 0, len(data[0]))
    images, masks = (array[index] for array in data)
    value, gradients = nnx.value_and_grad(lambda model: loss(model(images)[..., 0], masks, step))(
        model
    )
    optimizer.update(model, gradients)
    return value


def predict(model: UNet, images: np.ndarray) -> np.ndarray:
    """Returns the pixels that are more probably stroke than not, bool `[N, S, S]`."""
    return np.asarray(_logits(model, jnp.asarray(images)) > 0)


@nnx.jit
def _logits(model: UNet, images: jax.Array) -> jax.Array:
    return model(images)[..., 0]


def intersection_over_union(predictions: np.ndarray, masks: np.ndarray) -> float:
    """Returns the pixels in both over those in either, over all scenes; 1 where neither has any."""
    either = np.sum(predictions | masks)
    return float(np.sum(predictions & masks) / either) if either else 1.0


if __name__ == "__main__":
    main()
