"""What the compiled programs move: bytes and temporary memory of value and gradient.

These figures come from the compiler, so they repeat exactly and need no accelerator. Printed over
`L`, the bytes of the logits, float32 (8, 512, 512, 21):

- for an H100, the bytes that the kernels of the optimised program read and write, and its
  temporary memory. The floor for ids is 3.1: read the logits twice, write the gradient once.
- for this machine's CPU, the temporary memory.

A second table has the temporary memory of distance maps, over the size of one map: an algorithm
that wrote the N^3 terms of its minima would take hundreds.

The H100 half needs the compiler's CUDA parts, best in an environment of their own::

    pip install jaxlib==0.10.2 jax==0.10.2 jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 \
        nvidia-cuda-nvcc-cu12
    pip install -e .
    python benchmarks/compiled_bytes.py

Without them only the CPU half is printed.
"""

import math
import os
import re
import sysconfig
from collections.abc import Callable
from typing import Any

SITE = sysconfig.get_paths()["purelib"]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    f" --xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={SITE}/nvidia/cuda_nvcc"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

import jaxloss  # noqa: E402
from jaxloss import distance  # noqa: E402

SHAPE = (8, 512, 512, 21)
LOGITS = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
IDS = jax.ShapeDtypeStruct(SHAPE[:-1], jnp.int32)
MASK = jax.ShapeDtypeStruct(SHAPE[:-1], jnp.bool_)

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

WIDTH = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant"}

PROGRAMS: dict[str, tuple[Callable[..., jax.Array], tuple[Any, ...]]] = {
    "cross_entropy, ids": (jaxloss.cross_entropy, (LOGITS, IDS)),
    "cross_entropy, ids, masked": (
        lambda x, y, m: jaxloss.cross_entropy(x, y, where=m),
        (LOGITS, IDS, MASK),
    ),
    "cross_entropy, soft labels": (jaxloss.cross_entropy, (LOGITS, LOGITS)),
    "focal, ids": (jaxloss.focal, (LOGITS, IDS)),
    "focal, same shape": (jaxloss.focal, (LOGITS, LOGITS)),
    "binary_cross_entropy": (jaxloss.binary_cross_entropy, (LOGITS, LOGITS)),
    "dice, ids": (jaxloss.dice, (LOGITS, IDS)),
    "dice, ids, masked": (lambda x, y, m: jaxloss.dice(x, y, where=m), (LOGITS, IDS, MASK)),
    "jaccard, ids": (jaxloss.jaccard, (LOGITS, IDS)),
    "tversky, ids": (jaxloss.tversky, (LOGITS, IDS)),
    "dice_cross_entropy, ids": (jaxloss.dice_cross_entropy, (LOGITS, IDS)),
    "Optax softmax CE, ids": (
        lambda x, y: optax.losses.softmax_cross_entropy_with_integer_labels(x, y).mean(),
        (LOGITS, IDS),
    ),
    "Optax sigmoid focal": (
        lambda x, y: optax.losses.sigmoid_focal_loss(x, y).mean(),
        (LOGITS, LOGITS),
    ),
    "Optax sigmoid BCE": (
        lambda x, y: optax.losses.sigmoid_binary_cross_entropy(x, y).mean(),
        (LOGITS, LOGITS),
    ),
}


IMAGES = jax.ShapeDtypeStruct((8, 512, 512), jnp.bool_)
VOLUMES = jax.ShapeDtypeStruct((4, 96, 96, 96), jnp.bool_)
SPACE = (-3, -2, -1)

MAPS: dict[str, tuple[Callable[..., jax.Array], Any]] = {
    "edt": (distance.edt, IMAGES),
    "edt, sampling": (lambda mask: distance.edt(mask, sampling=(1.0, 0.7)), IMAGES),
    "signed_distance": (distance.signed_distance, IMAGES),
    "compute_sdf": (lambda mask: distance.compute_sdf(mask, normalize=True), IMAGES),
    "compute_edts_for_penalized_loss": (jaxloss.compute_edts_for_penalized_loss, IMAGES),
    "compute_edts_for_hausdorff_loss": (jaxloss.compute_edts_for_hausdorff_loss, IMAGES),
    "edt, 3-D": (lambda mask: distance.edt(mask, axes=SPACE), VOLUMES),
    "signed_distance, 3-D": (lambda mask: distance.signed_distance(mask, axes=SPACE), VOLUMES),
}


def moved(hlo: str) -> int:
    """Bytes that the instructions of the entry computation read and write."""
    types, total = {}, 0
    for line in hlo[hlo.index("\nENTRY") :].split("\n}")[0].splitlines()[2:]:
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$", line)
        if not match:
            continue
        name, kind, operation, rest = match.groups()
        types[name] = _bytes(kind)
        if operation not in FREE:
            read = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            total += types[name] + sum(types.get(operand, 0) for operand in read)
    return total


def _bytes(kind: str) -> int:
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", kind)
    return sum(
        WIDTH[width] * math.prod(int(n) for n in sizes.split(",") if n)
        for width, sizes in arrays
        if width in WIDTH
    )


def compiled(
    function: Callable[..., Any], arguments: tuple[Any, ...], device: Any = None
) -> jax.stages.Compiled:
    """Compiles for a device, this machine's CPU by default."""
    sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)
    return jax.jit(function, in_shardings=sharding).lower(*arguments).compile()


def maps(function: Callable[..., jax.Array], mask: Any, device: Any = None) -> float:
    """The temporary memory of a distance transform, over a float32 map."""
    temporary = compiled(function, (mask,), device).memory_analysis().temp_size_in_bytes
    return temporary / (4 * math.prod(mask.shape))


def h100() -> Any:
    """A compile-only device, or None where the compiler's CUDA parts are not installed."""
    try:
        topology = topologies.get_topology_desc(
            "h100", "cuda", target_config=H100, topology="1x1x1"
        )
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    return topology.devices[0]


def main() -> None:
    """Prints the table."""
    device, size = h100(), 4 * np.prod(SHAPE)
    print("| value and gradient | H100 bytes/L | H100 temporary/L | CPU temporary/L |")
    print("|---|---|---|---|")
    for name, (loss, arguments) in PROGRAMS.items():
        row = ["-", "-"]
        if device is not None:
            program = compiled(jax.value_and_grad(loss), arguments, device)
            temporary = program.memory_analysis().temp_size_in_bytes
            row = [f"{moved(program.as_text()) / size:.2f}", f"{temporary / size:.2f}"]
        on_cpu = compiled(jax.value_and_grad(loss), arguments).memory_analysis()
        print(
            f"| {name} | {row[0]} | {row[1]} | {on_cpu.temp_size_in_bytes / size:.2f} |", flush=True
        )
    print("\n| distance map | H100 temporary, in maps | CPU temporary, in maps |\n|---|---|---|")
    for name, (function, mask) in MAPS.items():
        row = [maps(function, mask, place) for place in ([device] if device else []) + [None]]
        cells = " | ".join(["-"] * (2 - len(row)) + [f"{number:.2f}" for number in row])
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
