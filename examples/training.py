"""The training loop that the examples share: one compiled step on batches drawn at random."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

Loss = Callable[..., jax.Array]  # Of what the network returns, the truth and the step.

SPLITS = {"batch": PartitionSpec("devices"), "height": PartitionSpec(None, "devices")}


def make_mesh(devices: int) -> Mesh:
    """Arranges so many devices in one axis, along which batches or scenes are shared."""
    if devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX has started and its devices stay.
            jax.config.update("jax_num_cpu_devices", devices)
    if jax.device_count() < devices:
        raise SystemExit(f"--devices {devices}: this machine has {jax.device_count()}")
    return jax.make_mesh((devices,), ("devices",), axis_types=(AxisType.Auto,))


def make_key(seed: int) -> jax.Array:
    """Returns a random key, of the kind that compiles fast on CPUs."""
    return jax.random.key(seed, impl="rbg")


@functools.cache
def make_optimizer(steps: int) -> optax.GradientTransformation:
    """Returns Adam on one cycle of the learning rate, the same object for the same length."""
    warm_up = max(0.2, 1 / steps)  # A step at least: of none Optax makes NaN before 0.2.7.
    rate = optax.cosine_onecycle_schedule(steps, peak_value=6e-3, pct_start=warm_up)
    return optax.adamw(rate)


def fit(
    model: nnx.Module,
    loss: Loss,
    data: Sequence[np.ndarray],
    key: jax.Array,
    *,
    name: str,
    steps: int,
    batch: int,
    devices: int = 1,
    split: str = "batch",
    quiet: bool = False,
) -> np.ndarray:
    """Trains the network on images and their truth, and returns the loss of every step.

    Another network of the same kind, with the same loss and data of the same shapes, compiles
    nothing: seeds in turn take less time on a CPU than seeds mapped in one program, whose
    convolutions have a kernel for each.
    """
    mesh = make_mesh(devices)
    everywhere = NamedSharding(mesh, PartitionSpec())
    optimizer = nnx.Optimizer(model, make_optimizer(steps), wrt=nnx.Param)
    place(model, everywhere)
    place(optimizer, everywhere)
    step = functools.partial(
        train_step,
        model,
        optimizer,
        key,
        tuple(jax.device_put(array, everywhere) for array in data),
        loss=loss,
        batch=batch,
        sharding=NamedSharding(mesh, SPLITS[split]),
    )

    with tqdm(
        desc=f"{name}: compiling for {jax.devices()[0].device_kind}",
        bar_format="{desc}, {elapsed}",
        disable=quiet,
    ) as progress:
        losses = [step().block_until_ready()]
        progress.set_description_str(f"{name}: compiled")
    with tqdm(
        total=steps, initial=1, desc=name, unit="step", mininterval=0.5, disable=quiet
    ) as progress:
        for done in range(2, steps + 1):
            losses.append(step())
            if done % 10 == 0:
                running = np.mean([float(value) for value in losses[-50:]])
                progress.set_postfix(loss=f"{running:.3f}", refresh=False)
            progress.update()
    place(model, jax.devices()[0])  # What follows is as after a training on one.
    return np.array([float(value) for value in losses])


def place(node: Any, where: NamedSharding | jax.Device) -> None:
    """Moves the arrays of a network or an optimiser."""
    nnx.update(node, jax.device_put(nnx.state(node), where))


@nnx.jit(static_argnames=("loss", "batch", "sharding"))
def train_step(
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    key: jax.Array,
    data: tuple[jax.Array, ...],
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
    images, *truth = (jax.lax.with_sharding_constraint(a[index], sharding) for a in data)
    images = images * jax.random.uniform(light, (batch, 1, 1, 1), minval=0.7, maxval=1.3)

    value, gradients = nnx.value_and_grad(lambda model: loss(model(images), *truth, step))(model)
    optimizer.update(model, gradients)
    return value


@nnx.jit
def apply(model: nnx.Module, images: jax.Array) -> jax.Array:
    """Returns what a network makes of images: one compiled program."""
    return model(images)
