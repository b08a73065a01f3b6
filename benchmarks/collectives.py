"""What the devices of a mesh tell each other: the collectives of a compiled program."""

import re
from typing import NamedTuple

import hlo

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


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


def read(text: str) -> list[Collective]:
    """Returns the collectives of an optimised program, `compiled.as_text()`, the largest first.

    Several arrays that the compiler sends at once are one exchange.
    """
    found = []
    for step in hlo.read(text):
        kind = step.operation.removesuffix("-start")
        if kind not in KINDS:
            continue
        read, written = _size(step.operands), _size(step.result)
        if step.operation != kind and kind != "all-reduce":  # it hands its operands on
            written = (written[0] - read[0], written[1] - read[1])
        source = re.search(r'op_name="(.*?)"', step.line)
        path = source[1] if source else ""
        found.append(Collective(kind, *max(read, written), step.times, path))
    return sorted(found, key=lambda collective: -collective.total)


def _size(arrays: list[hlo.Array]) -> tuple[int, int]:
    """Numbers and bytes."""
    return sum(array.numbers for array in arrays), sum(array.bytes for array in arrays)
