"""What the devices of a mesh tell each other: the collectives of a compiled program."""

import functools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

Size = tuple[int, int]  # in numbers and in bytes

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")
_LAYOUT = re.compile(r"\{[^{}=%]*\}")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|\w+_computations?)=\{?(%[^,}\s]+(?:, %[^,}\s]+)*)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Collective(NamedTuple):
    """One exchange between devices.

    Attributes:
      kind: `"all-reduce"`, `"all-gather"`, ...
      numbers: How many numbers go in or come out, whichever is more, on one device.
      bytes: The same in bytes.
      times: How often it happens, in loops of a length that the compiler knows; else once.
      source: The path of the operation in the program that was traced.
    """

    kind: str
    numbers: int
    bytes: int
    times: int
    source: str

    @property
    def total(self) -> int:
        """The numbers of all times."""
        return self.numbers * self.times


def read(hlo: str) -> list[Collective]:
    """Returns the collectives of an optimised program, `compiled.as_text()`, the largest first.

    Several arrays that the compiler sends at once are one exchange.
    """
    sizes: dict[str, Size] = {}
    callers: dict[str, list[tuple[str, int]]] = {}  # and how often each calls
    found: list[tuple[str, Size, str, str]] = []
    inside = entry = ""
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            inside = header[2]
            entry = inside if header[1] else entry
        match = _INSTRUCTION.match(_LAYOUT.sub("", line))
        if not match:
            continue
        name, result, operation, operands, rest = match.groups()
        sizes[name] = _size(result)
        trips = _TRIPS.search(line) if operation == "while" else None
        for called in re.findall(r"%([\w.\-]+)", " ".join(_CALLED.findall(line))):
            callers.setdefault(called, []).append((inside, int(trips[1]) if trips else 1))
        kind = operation.removesuffix("-start")
        if kind not in KINDS:
            continue
        read = _size(operands)
        if not any(read):
            read = _sum(sizes[o] for o in re.findall(r"%([\w.\-]+)", operands))
        written = sizes[name]
        if operation != kind and kind != "all-reduce":  # it hands its operands on
            written = (written[0] - read[0], written[1] - read[1])
        source = re.search(r'op_name="(.*?)"', rest)
        found.append((kind, max(read, written), inside, source[1] if source else ""))

    @functools.cache
    def times(computation: str) -> int:
        if computation == entry:
            return 1
        return sum(times(caller) * trips for caller, trips in callers.get(computation, ()))

    each = [Collective(kind, *size, times(at), path) for kind, size, at, path in found]
    return sorted(each, key=lambda collective: -collective.total)


def _size(types: str) -> Size:
    """The numbers and bytes of all arrays in a text of types."""
    arrays = ((dtype, shape.split(",")) for dtype, shape in _ARRAY.findall(types))
    counts = [(math.prod(int(n) for n in shape if n), dtype) for dtype, shape in arrays]
    return _sum((count, count * _width(dtype)) for count, dtype in counts)


def _width(dtype: str) -> int:
    """Bytes of a number: the bits of `s32`, `bf16`, `f8e4m3fn` or `c64`; a `pred` has one byte."""
    bits = re.search(r"\d+", dtype)
    return -(-int(bits[0]) // 8) if bits else 1


def _sum(sizes: Iterable[Size]) -> Size:
    sizes = tuple(sizes)
    return sum(numbers for numbers, _ in sizes), sum(size for _, size in sizes)
