"""Functions as JAX should get them: found again by identity, and one for each platform."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

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


def by_platform(
    *arrays: Any,
    default: Callable[..., Any],
    cpu: Callable[..., Any] | None = None,
    gpu: Callable[..., Any] | None = None,
    tpu: Callable[..., Any] | None = None,
) -> Any:
    """Computes what a platform has of its own, or the default."""
    ways = {"cpu": cpu, "cuda": gpu, "rocm": gpu, "tpu": tpu}
    own = {name: way for name, way in ways.items() if way is not None}
    return jax.lax.platform_dependent(*arrays, default=default, **own)


class Ways(NamedTuple):
    """How platforms compute the same; None: as all others do."""

    cpu: Any = None
    gpu: Any = None
    tpu: Any = None

    def each(self, change: Callable[[Any], Any]) -> Ways:
        """Returns what `change` makes of each."""
        return Ways(*(None if way is None else change(way) for way in self))

    def otherwise(self, default: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function that goes a platform's way, or the default's."""
        return bind(by_platform, default=default, **self._asdict()) if any(self) else default


ALIKE = Ways()
