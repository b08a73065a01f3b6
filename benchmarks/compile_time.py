"""How long a user waits for the first step: value and gradient of every loss, traced and compiled.

    ./run bench compile_time                  # every loss, the slowest first
    ./run bench compile_time ssim dice

Each on the first sample of its tests, a few numbers, for this machine's CPU, with JAX's caches
cleared. Seconds are processor time, which other work on the machine changes little, and those of a
clock. Operations are those that JAX hands to the compiler, fusions those that it makes of them.
"""

import argparse
import statistics
import time
from typing import NamedTuple

import jax
import programs


class Row(NamedTuple):
    """What a first call takes: seconds of a processor and of a clock, and the program's size."""

    trace: float
    lower: float
    compile: float
    total: float
    clock: float
    operations: int
    fusions: int


def measured(loss: str) -> Row:
    """Traces, lowers and compiles one loss, as if it were the first."""
    function, prediction, target = programs.first(loss)
    jax.clear_caches()
    clock, times = time.perf_counter(), [time.process_time()]
    traced = jax.jit(jax.value_and_grad(function)).trace(prediction, target)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    compiled = lowered.compile()
    times.append(time.process_time())
    clock = time.perf_counter() - clock
    stages = [after - before for before, after in zip(times, times[1:], strict=False)]
    counts = lowered.as_text().count(" = "), compiled.as_text().count(" fusion(")
    return Row(*stages, sum(stages), clock, *counts)


def main() -> None:
    """Prints a line for each loss and the median."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("losses", nargs="*", metavar="NAME", help="these only")
    names = parser.parse_args().losses or list(programs.cases())
    measured(names[0])  # what JAX itself does only once
    rows = {name: measured(name) for name in names}
    print(f"{'':40}" + "".join(f"{name:>11}" for name in Row._fields))
    for name, row in sorted(rows.items(), key=lambda item: -item[1].total):
        print(
            f"{name:40}"
            + "".join(f"{x:11.2f}" for x in row[:5])
            + "".join(f"{x:11}" for x in row[5:])
        )
    middle = [statistics.median(column) for column in zip(*rows.values(), strict=True)]
    print(f"{f'median of {len(rows)}':40}" + "".join(f"{x:11.2f}" for x in middle[:5]))


if __name__ == "__main__":
    main()
