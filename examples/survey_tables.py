"""The tables of the survey: mean and spread over the seeds, one table for each data set."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]

MEASURES = ("dice", "iou", "hd95", "calibration", "precision", "recall")
BEST = 5
HEAD = """# Every loss alone

`python examples/survey.py`: each loss of the distribution, region, boundary and compound families
that takes scores and ids trains the same small U-Net (8 and 16 features) alone, with its default
options and without a schedule. {steps} updates of {batch} pictures of {size} x {size} pixels out of
1000, Adam with the same learning rate for all, judged on 100 pictures of other digits and
photographs, or of the other half of the micrograph. Means and standard deviations of {seeds} seeds
of the network and its batches; {trainings} trainings took {minutes:.0f} minutes of one CPU core,
compilation included (jaxloss {versions}, JAX {jax}).

All but the distance is in percent.

- Dice, IoU, precision and recall of the foreground, over all pixels of the test pictures.
- HD95: 95 % Hausdorff distance in pixels, the mean over the pictures; the diagonal of the picture
  where one of the two masks is empty.
- Calibration: the expected calibration error over all pixels; a confident network that finds
  nothing of a small foreground has a small one. Losses of one class against the rest are read by a
  sigmoid, hinges too, which promise no probabilities.

What such short trainings show is how fast a loss finds something from a random start. Losses made
to refine a trained network, such as most of the boundary family, are here without it, and one
learning rate does not suit all.

Not here: losses of cosines, of soft or continuous targets, and those without labels, which take no
scores and ids (`arcface`, `cosface`, `nll`, `distillation`, the divergences, dense detection,
`signed_distance_regression`, the combinators).
"""


def write_tables(path: pathlib.Path, rows: Sequence[Row], planned: int) -> None:
    """Writes the page of all rows that were made in the way of the last one.

    Where fewer are there than were `planned`, it says so.
    """
    if not rows:
        return
    way = lambda row: tuple(str(row[name]) for name in ("steps", "batch", "size"))
    rows = [row for row in rows if way(row) == way(rows[-1])]
    seconds = sum(float(row["seconds"]) for row in rows)
    seeds = len({str(row["seed"]) for row in rows})
    versions = " and ".join(sorted(_distinct(rows, "jaxloss")))
    count = {"seeds": seeds, "trainings": len(rows), "minutes": seconds / 60, "versions": versions}
    parts = [HEAD.format(**rows[-1] | count)]
    if len(rows) < planned:
        parts.append(
            f"So far {len(rows)} of {planned} trainings were run; of the families at the end, rows "
            "are missing. The command goes on where it stopped.\n"
        )
    of_data = {data: select(rows, "data", data) for data in _distinct(rows, "data")}
    parts.append(_best(of_data))
    for data, rows in of_data.items():
        parts.append(f"## {_capital(data)}\n")
        for family in _distinct(rows, "family"):
            parts.append(f"### {_capital(family)}\n\n{_table(select(rows, 'family', family))}")
    path.write_text("\n".join(parts))


def _best(of_data: dict[str, list[Row]]) -> str:
    """Lays out the losses of the highest Dice on each data set."""
    lines = ["## The best by Dice\n", "| data | loss |", "|---|---|"]
    for data, rows in of_data.items():
        of_loss = _ranked(rows)
        found = (f"{_link(name)} {cell(of_loss[name], 'dice')}" for name in list(of_loss)[:BEST])
        lines.append(f"| {data} | {', '.join(found)} |")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> str:
    """Lays out the measures of losses, the best Dice first."""
    lines = [
        "| loss | Dice | IoU | HD95 | calibration | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_loss in _ranked(rows).items():
        cells = [cell(of_loss, measure) for measure in MEASURES]
        lines.append(f"| {_link(name)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ranked(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each loss, the best Dice first."""
    found = {name: select(rows, "loss", name) for name in _distinct(rows, "loss")}
    return dict(sorted(found.items(), key=lambda item: -np.mean(_column(item[1], "dice"))))


def select(rows: Iterable[Row], name: str, value: str) -> list[Row]:
    """Returns the rows that have this value in a column."""
    return [row for row in rows if row[name] == value]


def _distinct(rows: Iterable[Row], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))


def _column(rows: Iterable[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def cell(rows: Sequence[Row], measure: str) -> str:
    """Returns mean and spread of a measure, in a text that does not break."""
    factor, digits = (1, 2) if measure == "hd95" else (100, 1)
    values = factor * _column(rows, measure)
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}".replace(" ", "\N{NO-BREAK SPACE}")


def _link(name: str) -> str:
    return f"[`{name}`](loss/{name}.md)"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
