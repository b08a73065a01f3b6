"""The training loop that the examples share: one compiled step on batches drawn at random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

Loss = Callable[..., jax.Array]  # Of what the network returns, the truth and the step.


def make_mesh(devices: int) -> Mesh:
    """Arranges so many devices in one axis, along which a batch is shared."""
    if devices > 1:
        with contextlib.suppress(RuntimeError):  # JAX has started and its devices stay.
            jax.config.update("jax_num_cpu_devices", devices)
    if jax.device_count() < devices:
        raise SystemExit(f"--devices {devices}: this machine has {jax.device_count()}")
    return jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,))


def make_key(seed: int) -> jax.Array:
    """Returns a random key, of the kind that compiles fast on CPUs."""
    return jax.random.key(seed, impl="rbg")


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
) -> np.ndarray:
    """Trains the network on images and their truth, and returns the loss of every step."""
    mesh = make_mesh(devices)
    everywhere = NamedSharding(mesh, PartitionSpec())
    shared = NamedSharding(mesh, PartitionSpec("batch"))
    rate = optax.cosine_onecycle_schedule(steps, peak_value=6e-3, pct_start=0.2)
    optimizer = nnx.Optimizer(model, optax.adamw(rate), wrt=nnx.Param)
    place(model, everywhere)
    place(optimizer, everywhere)
    placed = tuple(jax.device_put(array, everywhere) for array in data)

    losses: list[jax.Array] = []
    with tqdm(total=steps, desc="compiling", unit="step", mininterval=0.5) as progress:
        for step in range(steps):
            losses.append(
                train_step(model, optimizer, key, placed, loss=loss, batch=batch, sharding=shared)
            )
            if step == 0:
                losses[0].block_until_ready()
                progress.set_description(name)
            if step % 10 == 9:
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
    and the loss is that of the whole batch.
    """
    step = optimizer.step[...]
    choice, light = jax.random.split(jax.random.fold_in(key, step))
    index = jax.random.randint(choice, (batch,), 0, len(data[0]))
    images, *truth = (jax.lax.with_sharding_constraint(a[index], sharding) for a in data)
    images = images * jax.random.uniform(light, (batch, 1, 1, 1), minval=0.7, maxval=1.3)

    value, gradients = nnx.value_and_grad(lambda model: loss(model(images), *truth, step))(model)
    optimizer.update(model, gradients)
    return value
