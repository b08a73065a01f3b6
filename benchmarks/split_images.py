"""What devices exchange, and the memory each needs, where one axis of the images is split.

Compiles value and gradient of one image, its height over eight devices: a slide or a volume that is
too large for one. Printed for each loss, over the logits of one device: the numbers and the bytes
that come to or leave it, and its temporary memory. The gradient lies where the logits lie. Two more
tables have the maps alone, over the bytes of a map in float32.

The devices are those of a TPU v5e 2x4, if the package `libtpu` is there (`./run bench` has it; no
TPU is needed), else eight fake ones on a CPU, whose programs are others; `--cpu` asks for these.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import collectives
import deviceless
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxloss
from jaxloss import distance

IMAGE, VOLUME = (1, 2048, 256, 4), (1, 256, 128, 128, 2)
LOSSES: dict[str, Callable[..., jax.Array]] = {
    name: getattr(jaxloss, name)
    for name in (
        "cross_entropy",
        "dice",
        "boundary",
        "boundary_dou",
        "distance_penalized_cross_entropy",
        "distance_penalized_dice",
        "hausdorff_dt",
        "signed_distance_regression",
        "shape_aware",
        "cldice",
        "ssim",
        "ms_ssim",
    )
}
MAPS = {name: getattr(distance, name) for name in distance.__all__ if name != "border_weights"}


class Row(NamedTuple):
    """What one device exchanges and holds, over its share of an array."""

    numbers: float
    bytes: float
    temporary: float


def measured(function: Callable[..., Any], arguments: Sequence[Any], out: Any) -> Row:
    """Compiles a function; the share is that of its first argument, in float32."""
    compiled = jax.jit(function, out_shardings=out).lower(*arguments).compile()
    found = collectives.read(compiled.as_text())
    share = arguments[0].size / arguments[0].sharding.mesh.size
    return Row(
        sum(one.total for one in found) / share,
        sum(one.bytes * one.times for one in found) / (4 * share),
        compiled.memory_analysis().temp_size_in_bytes / (4 * share),
    )


def of_loss(loss: Callable[..., jax.Array], shape: tuple[int, ...], mesh: Mesh) -> Row:
    """Value and gradient."""
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    logits = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows)
    ids = jax.ShapeDtypeStruct(shape[:-1], jnp.int32, sharding=rows)
    data = (logits, ids)
    if loss is jaxloss.signed_distance_regression:
        loss = functools.partial(loss, axis=-1)
        data = (logits, jax.ShapeDtypeStruct(shape, jnp.bool_, sharding=rows))
    return measured(jax.value_and_grad(loss), data, (None, rows))


def of_map(function: Callable[..., jax.Array], shape: tuple[int, ...], mesh: Mesh) -> Row:
    """A map of a mask."""
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    mask = jax.ShapeDtypeStruct(shape, jnp.bool_, sharding=rows)
    axes = tuple(range(1, len(shape)))
    return measured(functools.partial(function, axes=axes), (mask,), rows)


def devices(cpu: bool) -> tuple[str, list[Any]]:
    """Eight devices and their name."""
    if not cpu and (chips := deviceless.v5e("2x4")):
        return "TPU v5e 2x4", chips
    jax.config.update("jax_num_cpu_devices", 8)
    return "8 fake CPU devices", jax.devices()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="compile for eight fake CPU devices")
    name, eight = devices(parser.parse_args().cpu)
    mesh = Mesh(np.array(eight), ("rows",), axis_types=(AxisType.Auto,))
    print(f"{name}, JAX {jax.__version__}. Exchanged and held by one of them, over its share:\n")
    print(f"| value and gradient, {IMAGE} | numbers | bytes | temporary |")
    print("|---|---|---|---|")
    for name, loss in LOSSES.items():
        print_row(name, of_loss(loss, IMAGE, mesh))
    for shape in (IMAGE[:-1], VOLUME[:-1]):
        print(f"\n| distance.*, {shape} | numbers | bytes | temporary |")
        print("|---|---|---|---|")
        for name, function in MAPS.items():
            print_row(name, of_map(function, shape, mesh))


def print_row(name: str, row: Row) -> None:
    """Prints a line of a table."""
    print(f"| {name} | {' | '.join(f'{x:.3f}' for x in row)} |", flush=True)


if __name__ == "__main__":
    main()
