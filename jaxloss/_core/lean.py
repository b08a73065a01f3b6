"""Costs whose derivatives keep nothing alive but their arguments."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

Array = jax.Array


def lean(cost: Callable[..., Array]) -> Callable[..., Array]:
    """Makes a cost whose derivative, of any order and in both modes, is recomputed.

    The compiler would share the forward pass's intermediates with the backward pass and write them
    to memory. The barrier around the first argument hides that they are the same, after which value
    and gradient of an elementwise cost fuse into one kernel: 3 passes over the logits on a GPU
    instead of 8. Every array that needs a derivative must be an argument, none a closure.
    """

    @jax.custom_jvp
    def wrapped(*arguments: Array) -> Array:
        return cost(*arguments)

    def jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        # Only what moves: a zero tangent would meet infinite derivatives in the other arguments.
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def linear(primals: tuple[Array, ...], directions: tuple[Array, ...]) -> Array:
            hidden = [jax.lax.optimization_barrier(primals[0]), *primals[1:]]

            def moved(*values: Array) -> Array:
                arguments = list(hidden)
                for i, value in zip(moving, values, strict=True):
                    arguments[i] = value
                return cost(*arguments)

            return jax.jvp(moved, tuple(hidden[i] for i in moving), directions)[1]

        return wrapped(*primals), linear(primals, tuple(tangents[i] for i in moving))

    wrapped.defjvp(jvp, symbolic_zeros=True)
    return wrapped
