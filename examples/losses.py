"""Losses by their names, and their options as a command line gives them.

    focal = bind("focal", {"gamma": 3.0})
    focal(logits, labels, step)

`examples/commands.py` reads `--loss` and `--option` with it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxloss

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # Of logits, labels and the step.

FAMILIES = ("distribution", "region", "boundary", "compound")  # whose losses take logits and ids


class Schedule(NamedTuple):
    """The first and the last value of a number that changes evenly over the training."""

    first: float
    last: float


def in_family(family: str) -> list[str]:
    """Returns the names of a family's losses that take `logits` and `labels`."""
    return [
        name
        for name in jaxloss.__all__
        if getattr(jaxloss, name).__module__.startswith(f"jaxloss._{family}.")
        and list(parameters(name))[:2] == ["logits", "labels"]
    ]


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a loss by their names."""
    return inspect.signature(getattr(jaxloss, name)).parameters


def required(name: str) -> list[str]:
    """Returns what a loss has to be told beside logits and labels."""
    return [n for n, p in list(parameters(name).items())[2:] if p.default is p.empty]


def read_value(text: str) -> Any:
    """Reads a number, a list or another Python literal, a schedule `first..last`, or a word."""
    if ends := re.fullmatch(r"(\S+?)\.\.(\S+)", text):
        return Schedule(*map(float, ends.groups()))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def facts(labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Returns what some losses require to know of the data, by the names of their parameters."""
    counts = np.bincount(labels.ravel(), minlength=classes).astype(np.float32)
    return {
        "class_counts": counts,
        "priors": counts / counts.sum(),
        "distances": 1 - np.eye(classes, dtype=np.float32),
    }


def bind(
    name: str,
    given: Mapping[str, Any],
    *,
    known: Mapping[str, np.ndarray] | None = None,
    steps: int = 1,
) -> Loss:
    """Returns a loss of logits, labels and the step, with the options given.

    A parameter without a default that is not given is taken from what is `known` of the data.
    Schedules end after `steps`.
    """
    loss = getattr(jaxloss, name)
    fixed = {n: value for n, value in (known or {}).items() if n in required(name)} | dict(given)
    schedules = {
        n: optax.linear_schedule(*fixed.pop(n), transition_steps=steps)
        for n, value in given.items()
        if isinstance(value, Schedule)
    }

    def bound(logits: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        now = {n: schedule(step) for n, schedule in schedules.items()}
        value = loss(logits, labels, **fixed, **now)
        return value[0] if isinstance(value, tuple) else value  # ghm returns its state beside it.

    return bound


def complaint(loss: Callable[..., Any], *arguments: Any) -> str:
    """Returns why a loss does not take arguments of these shapes and dtypes; empty where it does.

    The arguments are of `jax.ShapeDtypeStruct`; nothing is computed.
    """
    try:
        jax.eval_shape(loss, *arguments)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def shapes(
    logits: tuple[int, ...], ids: tuple[int, ...]
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns what stands for logits, ids and the step in `complaint`."""
    return (
        jax.ShapeDtypeStruct(logits, np.float32),
        jax.ShapeDtypeStruct(ids, np.int32),
        jax.ShapeDtypeStruct((), np.int32),
    )
