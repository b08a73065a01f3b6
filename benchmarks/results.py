"""The stored tables, results/*.csv: rows that are measured anew replace those of the same key."""

import csv
import importlib.metadata
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"

Row = dict[str, Any]


def load(name: str) -> list[Row]:
    """The rows of a table, as text, the worst first."""
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def store(
    name: str, key: Sequence[str], rows: Iterable[Row], goodness: Callable[[Row], float]
) -> None:
    """Merges rows into a table, which is read again, as another run may have written it."""
    merged = {tuple(str(row[k]) for k in key): row for row in [*load(name), *rows]}
    lines = sorted(merged.items(), key=lambda item: (goodness(item[1]), item[0]))
    FOLDER.mkdir(exist_ok=True)
    new = FOLDER / f"{name}.new"
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0][1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for _, row in lines)
    os.replace(new, FOLDER / f"{name}.csv")


def versions(*packages: str) -> str:
    """Packages with their versions, as far as they are installed."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def commit() -> str:
    """The commit that last changed the library, with a + where files have changed since."""
    last = _git("log", "-1", "--format=%h", "--", "jaxloss")
    return last + "+" * bool(_git("status", "--porcelain", "--", "jaxloss"))


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()
