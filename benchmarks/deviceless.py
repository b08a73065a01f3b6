"""Compiles for an NVIDIA H100 and for a TPU v5e on a machine that has neither.

Import it before JAX. It needs the compiler's parts for the device, which `./run bench` installs:
jax-cuda12-plugin, jax-cuda12-pjrt and nvidia-cuda-nvcc-cu12, or libtpu.
"""

import os
import sysconfig
from collections.abc import Callable
from typing import Any

CUDA = f"{sysconfig.get_paths()['purelib']}/nvidia/cuda_nvcc"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(
    JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1",
    XLA_FLAGS=os.environ.get("XLA_FLAGS", "")
    + f" --xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={CUDA}",
    TPU_SKIP_MDS_QUERY="1",  # of a machine that is no part of a pod, but compiles for one
    TPU_ACCELERATOR_TYPE="v5litepod-256",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_WORKER_ID="0",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # no chip is there that only one program could have
)

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

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


def h100() -> list[Any] | None:
    """One compile-only H100, or None where the compiler's parts are not installed."""
    return _devices("h100", "cuda", target_config=H100, topology="1x1x1")


def v5e(shape: str = "2x2") -> list[Any] | None:
    """The compile-only chips of a TPU v5e, or None where the compiler is not installed."""
    return _devices(f"v5e:{shape}", "tpu")


def _devices(name: str, platform: str, **description: str) -> list[Any] | None:
    try:
        return topologies.get_topology_desc(name, platform, **description).devices
    except jax.errors.JaxRuntimeError:
        raise  # it is there, and something is wrong
    except (RuntimeError, NotImplementedError, ValueError):
        return None


def compiled(
    function: Callable[..., Any], arguments: tuple[Any, ...], device: Any = None
) -> jax.stages.Compiled:
    """Compiles for one device, this machine's CPU by default."""
    sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)
    return jax.jit(function, in_shardings=sharding).lower(*arguments).compile()
