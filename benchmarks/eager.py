"""What an eager user pays: every loss called twice, outside of `jit`, on small and larger input.

For each loss and its gradient, at about 12 and 2^19 numbers: seconds of the first call, which
compiles, milliseconds of the following ones, and how many programs the second call compiles, which
should be none. And whether the loss runs under `jax.checking_leaks` and `jax.debug_nans`::

    python benchmarks/eager.py            # all losses
    python benchmarks/eager.py dice focal

Run it from a checkout: the samples are those of the tests.
"""

import logging
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import numpy as np

import jaxloss
from tests.registry import Sample, collect

SIZES = (12, 2**19)
CALLS = 5


class Row(NamedTuple):
    """What one loss took: compile seconds, milliseconds, and programs of a second call."""

    first: float
    value: float
    slope: float
    compiled: int


class _Programs(logging.Handler):
    """Counts the programs that JAX says it compiles."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Compiling")


def main(names: list[str]) -> None:
    """Prints a line for each loss and the medians."""
    cases = collect()
    rows: dict[int, list[Row]] = {size: [] for size in SIZES}
    failed = []
    head = "".join(f"{f'{size} numbers':>33}" for size in SIZES)
    print(f"{'':40}{head}\n{'':40}" + "  first s  value ms  grad ms  new" * len(SIZES))
    for name in names or sorted(cases):
        sample = cases[name].samples[0]
        line = f"{name:40}"
        for size in SIZES:
            row = _measured(name, _grown(sample, size), sample.options)
            rows[size].append(row)
            line += f"{row.first:9.2f}{row.value:10.2f}{row.slope:9.2f}{row.compiled:5d}"
        trouble = _trouble(name, sample)
        failed += [f"{name}: {text}" for text in trouble]
        print(line, *trouble, flush=True)
    for size, of_size in rows.items():
        values, slopes = ([getattr(r, key) for r in of_size] for key in ("value", "slope"))
        first = [row.first for row in of_size]
        print(
            f"{size} numbers: first value and gradient {statistics.median(first):.2f} s (at most "
            f"{max(first):.2f}), then {statistics.median(values):.2f} ms (at most "
            f"{max(values):.1f}), gradient {statistics.median(slopes):.2f} ms (at most "
            f"{max(slopes):.1f}); {sum(row.compiled for row in of_size)} programs compiled by a "
            "second call"
        )
    print(f"{len(failed)} losses fail under checking_leaks or debug_nans", *failed, sep="\n")


def _grown(sample: Sample, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A sample's arrays of about `size` numbers: more of its first axis, or less."""
    count = max(1, round(size * len(sample.prediction) / sample.prediction.size))
    prediction = np.resize(sample.prediction, (count, *sample.prediction.shape[1:]))
    target = np.resize(sample.target, (count, *sample.target.shape[1:]))
    return prediction.astype(np.float32), target.astype(np.int32 if sample.has_ids else np.float32)


def _measured(name: str, arrays: tuple[np.ndarray, ...], options: dict[str, Any]) -> Row:
    prediction, target = map(jax.numpy.asarray, arrays)
    loss = getattr(jaxloss, name)
    jax.clear_caches()

    def value() -> jax.Array:
        return jax.block_until_ready(loss(prediction, target, **options))

    def slope() -> jax.Array:
        total = lambda x: loss(x, target, **options).sum()
        return jax.block_until_ready(jax.grad(total)(prediction))

    first = _seconds(lambda: (value(), slope()))
    programs = _Programs()
    logger = logging.getLogger("jax")
    logger.addHandler(programs)
    logger.propagate = False
    with jax.log_compiles():
        value(), slope()
    logger.removeHandler(programs)
    each = [statistics.median(_seconds(f) for _ in range(CALLS)) * 1000 for f in (value, slope)]
    return Row(first, *each, programs.count)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _trouble(name: str, sample: Sample) -> list[str]:
    """Which of JAX's own checks the loss fails."""
    prediction, target = map(jax.numpy.asarray, _grown(sample, sample.prediction.size))
    total = lambda x: getattr(jaxloss, name)(x, target, **sample.options).sum()
    found = []
    for label, check in (
        ("checking_leaks", jax.checking_leaks()),
        ("debug_nans", jax.debug_nans(True)),
    ):
        try:
            with check:
                jax.value_and_grad(total)(prediction)
                jax.jit(jax.value_and_grad(total))(prediction)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is printed
            found.append(f"{label}: {type(error).__name__}: {str(error)[:80]}")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
