r"""What a CPU spends on memory that it gets anew, and how to spend less of it.

XLA asks for the temporaries and results of each call, and from 32 MiB on Linux hands them over page
by page, of 4 KiB, when they are first touched. Environment variables of glibc change that: pages of
2 MiB, from 2.35 on and where the system lets programs (`madvise` or `always` is chosen in
/sys/kernel/mm/transparent_hugepage/enabled), or memory that the process keeps for its next call,
and does not give back before it ends::

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python train.py
    GLIBC_TUNABLES=glibc.malloc.mmap_threshold=17179869184:\
    glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1 python train.py

    python benchmarks/pages.py

Prints milliseconds of value and gradient as it comes and with each, the best of several calls of
several processes in turn, and how often a call makes the system hand over a page.
"""

import json
import os
import resource
import subprocess
import sys

import memory
import speed

import jaxloss

WAYS = {"as it comes": {}, "large pages": memory.LARGE_PAGES, "kept": memory.KEPT}
ROUNDS, CALLS = 3, 7
FEW, MANY, BINARY = (4, 256, 256, 21), (1, 96, 96, 96, 14), (64, 512, 512, 1)
LOSSES = {
    "cross_entropy": (jaxloss.cross_entropy, "ids", (FEW, MANY, (1024, 32000))),
    "dice": (jaxloss.dice, "ids", (FEW, MANY)),
    "dice_cross_entropy": (jaxloss.dice_cross_entropy, "ids", (FEW, MANY)),
    "binary_cross_entropy": (jaxloss.binary_cross_entropy, "masks", (BINARY,)),
}

Spent = tuple[float, int]  # milliseconds, and pages


def measured() -> dict[str, Spent]:
    """What each program of this process spends on its best call."""
    found = {}
    for name, (loss, target, shapes) in LOSSES.items():
        for shape in shapes:
            run = speed.in_jax(loss, speed.data(shape, target), -1)
            run()
            found[f"{name} {shape}"] = min(spent(run) for _ in range(CALLS))
    return found


def spent(run: speed.Run) -> Spent:
    """What one call spends."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    milliseconds = speed.timed(run)
    return milliseconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def asked(way: dict[str, str]) -> dict[str, Spent]:
    """What a process of its own spends, with some variables."""
    command, environment = [sys.executable, __file__, "--measure"], os.environ | way
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {name: tuple(pair) for name, pair in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Prints the table."""
    rounds = [[asked(way) for way in WAYS.values()] for _ in range(ROUNDS)]
    print("| value and gradient |", " | ".join(f"{way}: ms | pages" for way in WAYS), "|")
    print("|---" * (1 + 2 * len(WAYS)) + "|")
    for name in rounds[0][0]:
        best = (min(each[i][name] for each in rounds) for i in range(len(WAYS)))
        print(f"| {name} |", " | ".join(f"{ms:.1f} | {pages}" for ms, pages in best), "|")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measured()))
    else:
        main()
