"""An optimised program as text, `compiled.as_text()`: its instructions, and the bytes they move."""

import functools
import math
import re
from typing import NamedTuple

INSIDE = {"call", "conditional", "while"}  # they move nothing, the instructions inside them do
FREE = {"bitcast", "constant", "get-tuple-element", "parameter", "tuple"}

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")
_LAYOUT = re.compile(r"\{(?:[\d,]*:[^{}]*|[\d,]+)\}|/\*.*?\*/")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|\w+_computations?)=\{?(%[^,}\s]+(?:, %[^,}\s]+)*)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Array(NamedTuple):
    """A type in the text.

    Attributes:
      numbers: How many there are.
      bytes: What they take.
      stored: The same with the padding of a TPU's tiles.
      on_chip: Whether they lie in a TPU's own memory, beside the processor.
    """

    numbers: int
    bytes: int
    stored: int
    on_chip: bool


class Instruction(NamedTuple):
    """A line of the program.

    Attributes:
      name: Its own.
      result: The arrays that it gives; one that starts a copy gives more than it writes.
      operation: Such as `"fusion"`.
      operands: The arrays that it takes.
      at: The computation that it stands in.
      times: How often it runs; a loop of a length that the compiler does not know counts once.
      fused: Whether it is a part of another instruction.
      line: The text.
    """

    name: str
    result: list[Array]
    operation: str
    operands: list[Array]
    at: str
    times: int
    fused: bool
    line: str


def read(text: str) -> list[Instruction]:
    """Returns all instructions of a program."""
    results: dict[str, list[Array]] = {}
    callers: dict[str, list[tuple[str, str, int]]] = {}  # where, by what, and how often each time
    found = []
    at = entry = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            at = header[2]
            entry = at if header[1] else entry
        # Layouts hold brackets: what an instruction is stands between those of its types.
        match = _INSTRUCTION.match(_LAYOUT.sub("", line))
        if not match:
            continue
        name, _, operation, taken, _ = match.groups()
        typed = line[line.index(" = ") + 3 : line.index(f" {operation}(")]
        results[name] = arrays(typed)
        names = re.findall(r"%([\w.\-]+)", taken)
        operands = [array for operand in names for array in results.get(operand, [])]
        trips = _TRIPS.search(line) if operation == "while" else None
        for called in re.findall(r"%([\w.\-]+)", " ".join(_CALLED.findall(line))):
            callers.setdefault(called, []).append((at, operation, int(trips[1]) if trips else 1))
        found.append((name, results[name], operation, operands or arrays(taken), at, line))

    @functools.cache
    def times(computation: str) -> int:
        if computation == entry:
            return 1
        return sum(times(caller) * trips for caller, _, trips in callers.get(computation, ()))

    @functools.cache
    def fused(computation: str) -> bool:
        called = callers.get(computation, ())
        return any(how not in INSIDE or fused(caller) for caller, how, _ in called)

    return [
        Instruction(name, result, operation, operands, at, times(at), fused(at), line)
        for name, result, operation, operands, at, line in found
    ]


def moved(text: str) -> tuple[int, int]:
    """Returns how many kernels run, and the bytes that they read and write.

    An operand counts whole, once, whatever its kernel does with it; what lies in a TPU's own memory
    moves nothing. So does a sort, which in truth passes over its keys many times.
    """
    kernels = total = 0
    for step in read(text):
        done = step.operation.endswith("-done")
        if step.fused or done or step.operation in FREE | INSIDE:
            continue
        if step.operation.endswith("-start"):  # of a copy, whose result names both of its ends
            ends = {array.on_chip: array.stored for array in step.result if array.numbers > 1}
            outside = 0 if False not in ends else 1 if True in ends else 2
            sizes = [min(ends.values(), default=0)] * outside
        else:
            sizes = [a.stored for a in step.result + step.operands if not a.on_chip]
            kernels += step.times
        total += step.times * sum(sizes)
    return kernels, total


def arrays(text: str) -> list[Array]:
    """Returns the arrays that a text of types names."""
    return [_array(*parts) for parts in _ARRAY.findall(text)]


def _array(dtype: str, shape: str, order: str, memory: str) -> Array:
    sizes = [int(size) for size in shape.split(",") if size]
    numbers, width = math.prod(sizes), _width(dtype)
    tile = re.search(r"T\(([\d,]+)\)", memory)
    if tile and order:
        tiles = [int(size) for size in tile[1].split(",")]
        minor = [int(axis) for axis in order.split(",")][: len(tiles)]
        for axis, size in zip(minor, reversed(tiles), strict=False):
            sizes[axis] = -(-sizes[axis] // size) * size
    return Array(numbers, numbers * width, math.prod(sizes) * width, "S(1)" in memory)


def _width(dtype: str) -> int:
    """Bytes of a number: the bits of `s32`, `bf16`, `f8e4m3fn` or `c64`; a `pred` has one byte."""
    bits = re.search(r"\d+", dtype)
    return -(-int(bits[0]) // 8) if bits else 1
