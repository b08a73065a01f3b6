"""Functions as JAX should get them: found again by identity, and one for each platform."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax


def bind(function: Callable[..., Any], /, **fixed: Hashable) -> Callable[..., Any]:
    """Fixes arguments that are no arrays; gives the same function for the same arguments.

    What JAX builds of a function it finds again by identity: a lambda or a `functools.partial` made
    anew at each call would be compiled anew.
    """
    return _bound(function, tuple(fixed.items()))


@functools.cache
def _bound(
    function: Callable[..., Any], fixed: tuple[tuple[str, Hashable], ...]
) -> Callable[..., Any]:
    return functools.partial(function, **dict(fixed))


def if_gpu(*arrays: Any, gpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Computes one function on a GPU, another elsewhere."""
    return jax.lax.platform_dependent(*arrays, cuda=gpu, rocm=gpu, default=default)


def if_cpu(*arrays: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Computes one function on a CPU, another elsewhere."""
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)
