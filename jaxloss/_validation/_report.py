"""What a check of values finds: counts and the first bad value, as a pytree.

A CPU first asks whether anything is bad, a reduction at the speed of its memory, and only then
counts and looks for the first. Elsewhere both are one pass, and a branch would make the host wait.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from jaxloss._core import checks
from jaxloss._core.platforms import by_platform
from jaxloss._core.reduction import AxisName

Array = jax.Array

_LIMIT = 2**31 - 1  # how many elements an int32 can index


class Check(NamedTuple):
    """A test of the elements of an array.

    Attributes:
      argument: What the array is, in the caller's words.
      expected: What its elements should be.
      operands: The array and what else the tests need.
      bad: Of the operands, where the bad elements are, in the shape of the array.
      sound: Of the operands, a scalar that is quicker to get: True only if no element is bad.
    """

    argument: str
    expected: str
    operands: tuple[Array, ...]
    bad: Callable[..., Array]
    sound: Callable[..., Array] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found. Under `vmap` and `scan` every array has the mapped axes in front.

    Attributes:
      count: The number of bad values, int32.
      index: Where the first is in its argument, int32, one number per axis; -1 where none is.
      value: The first bad value; 0 where none is.
      shard: The place along `axis_name` of the shard that `index` belongs to; -1 where none does.
      argument: The argument.
      expected: What its values should be.
    """

    count: Array
    index: Array
    value: Array
    shard: Array
    argument: str = dataclasses.field(metadata={"static": True})
    expected: str = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hint:
    """What may not be meant, though every value is sound.

    Attributes:
      applies: Whether the values are such, bool; one for each mapped call.
      text: What is so, and what else could be meant.
    """

    applies: Array
    text: str = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
    """What :func:`jaxloss.validate` found: a pytree of a few numbers.

    It may leave `jit`, `vmap`, `scan` and `shard_map`; on the host, `throw` raises if anything was
    found, and `str` says what, and any hint.

    Attributes:
      findings: One for each check that applied, whether it found something or not.
      hints: What may not be meant; neither `ok` nor `throw` knows of it.
      function: The name of the loss.
    """

    findings: tuple[Finding, ...]
    hints: tuple[Hint, ...]
    function: str = dataclasses.field(metadata={"static": True})

    @property
    def ok(self) -> Array:
        """True where nothing was found; one boolean for each mapped call."""
        return self.count == 0

    @property
    def count(self) -> Array:
        """The number of bad values; one for each mapped call."""
        counts = [finding.count for finding in self.findings]
        return sum(counts[1:], start=counts[0])

    def throw(self) -> None:
        """Raises a ValueError that names each argument, its first bad value, where it is and why.

        This waits for the numbers, on the host. Inside a transform it raises a TypeError.
        """
        if not self._known:
            expected = "called on the host, with the report that the transformed function returns"
            raise checks.Refusal(TypeError, "throw", "called while tracing", expected).by(
                "validate"
            )
        found = self._messages()
        if found:
            raise ValueError("\n".join(found))

    def __str__(self) -> str:
        if not self._known:
            return f"jaxloss.{self.function}: not known while tracing"
        lines = self._messages() or [f"jaxloss.{self.function}: all values are sound"]
        hints = [hint.text for hint in self.hints if np.any(jax.device_get(hint.applies))]
        return "\n".join(lines + [f"jaxloss.{self.function}: {text}" for text in hints])

    @property
    def _known(self) -> bool:
        return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(self))

    def _messages(self) -> list[str]:
        findings: Sequence[Finding] = jax.device_get(self.findings)
        return [_message(self.function, finding) for finding in findings if np.any(finding.count)]


def _message(function: str, finding: Finding) -> str:
    """Describes a finding in the form that all of jaxloss uses."""
    counts = np.asarray(finding.count)
    call = tuple(int(i) for i in np.argwhere(counts)[0])
    index = tuple(int(i) for i in np.asarray(finding.index)[call])
    got = str(np.asarray(finding.value)[call])
    got += f" at index {index}" if index else ""
    shard = int(np.asarray(finding.shard)[call])
    got += f" of shard {shard}" if shard >= 0 else ""
    got += f" of call {call}" if call else ""
    total = int(counts.sum(dtype=np.int64))
    got += f" (the first of {total} bad values)" if total > 1 else " (1 bad value)"
    return f"jaxloss.{function}: `{finding.argument}` is {got}, expected {finding.expected}"


def look(check: Check, axis_name: AxisName | None, shared: bool) -> Finding:
    """Counts the bad elements and finds the first.

    Args:
      check: The test.
      axis_name: A mesh axis over which the count is summed and the first shard taken.
      shared: Whether all shards hold the same array, which then counts once.
    """
    count, index, value = _in_mesh(functools.partial(_find, check), check.operands)
    shard = jnp.full_like(count, -1)
    if axis_name is not None:
        place = lax.axis_index(axis_name)
        last = lax.psum(1, axis_name)
        shard = lax.pmin(jnp.where(count > 0, place, last), axis_name)
        here = shard == place
        count = lax.pmax(count, axis_name) if shared else lax.psum(count, axis_name)
        index, value = (lax.psum(jnp.where(here, x, 0), axis_name) for x in (index, value))
        none = shard == last
        index, shard = jnp.where(none, -1, index), jnp.where(none, -1, shard)
    return Finding(count, index, value, shard, check.argument, check.expected)


def holds(
    test: Callable[..., Array], operands: tuple[Array, ...], axis_name: AxisName | None
) -> Array:
    """Whether a test of arrays holds, which gives a boolean; on every shard of a mesh axis."""
    here = _in_mesh(test, operands)
    return here if axis_name is None else lax.pmin(here.astype(jnp.int32), axis_name) > 0


def _in_mesh(function: Callable[..., Any], operands: tuple[Array, ...]) -> Any:
    """Calls a function; on a mesh with Explicit axes the compiler places what is between."""
    if all(axis is None for x in operands for axis in jax.typeof(x).sharding.spec):
        return function(*operands)
    return jax.sharding.auto_axes(function, out_sharding=PartitionSpec())(*operands)


def _find(check: Check, *operands: Array) -> tuple[Array, Array, Array]:
    if operands[0].size == 0:
        return _nothing(check, *operands)
    exact = functools.partial(_exact, check)
    screened = functools.partial(_screened, check)
    return by_platform(*operands, cpu=screened, default=exact)


def _screened(check: Check, *operands: Array) -> tuple[Array, Array, Array]:
    nothing, exact = functools.partial(_nothing, check), functools.partial(_exact, check)
    sound = check.sound(*operands) if check.sound else ~check.bad(*operands).any()
    return lax.cond(sound, nothing, exact, *operands)


def _nothing(check: Check, *operands: Array) -> tuple[Array, Array, Array]:
    # Made from the operands, so that it varies over the same mesh axes as what `_exact` returns.
    zero = jnp.zeros_like(check.bad(*operands), jnp.int32, shape=())
    value = jnp.zeros_like(operands[0], shape=()) + zero.astype(operands[0].dtype)
    return zero, jnp.full(operands[0].ndim, -1, jnp.int32) + zero, value


def _exact(check: Check, *operands: Array) -> tuple[Array, Array, Array]:
    array = operands[0]
    split = 0  # rows are indexed apart where one number could not hold the index
    while math.prod(array.shape[split:]) > _LIMIT:
        split += 1
    rows, row_shape = array.shape[:split], array.shape[split:]
    bad = check.bad(*operands).reshape(math.prod(rows), math.prod(row_shape))
    counts, firsts = _count_and_first(bad)
    row = lax.argmax(counts > 0, 0, jnp.int32)
    found, first = counts[row] > 0, firsts[row]
    count = counts.sum(dtype=jnp.int32)
    if split:  # more than an int32 can count is that many
        count = jnp.where(counts.astype(jnp.float32).sum() > _LIMIT, _LIMIT, count)
    place = [*_unravel(row, rows), *_unravel(first, row_shape)]
    index = jnp.stack(place) if place else jnp.zeros(0, jnp.int32)
    value = array.reshape(bad.shape)[row, first]
    return count, jnp.where(found, index, -1), jnp.where(found, value, jnp.zeros_like(value))


def _count_and_first(bad: Array) -> tuple[Array, Array]:
    """The number of True in each row and the first place, in one pass that stores nothing."""
    size = bad.shape[1]
    places = lax.broadcasted_iota(jnp.int32, bad.shape, 1)
    each = bad.astype(jnp.int32), jnp.where(bad, places, size)

    def join(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] + b[0], jnp.minimum(a[1], b[1])

    counts, firsts = lax.reduce(each, (jnp.int32(0), jnp.int32(size)), join, (1,))
    return counts, jnp.where(counts > 0, firsts, 0)


def _unravel(flat: Array, shape: tuple[int, ...]) -> list[Array]:
    places: list[Any] = []
    for size in reversed(shape):
        places.append(flat % size)
        flat = flat // size
    return places[::-1]
