"""The tables of the survey: mean and spread over the seeds, one table for each data set."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]

MEASURES = {"dice": 3, "iou": 3, "hd95": 2, "calibration": 3, "precision": 3, "recall": 3}  # digits
HEAD = """# Every loss alone

`python examples/survey.py`: each loss of the distribution, region, boundary and compound families
that takes scores and ids trains the same small U-Net (8 and 16 features) alone, with its default
options and without a schedule. {steps} updates of {batch} pictures of {size} x {size} pixels out of
1000, Adam with the same learning rate for all, judged on 100 pictures of other digits and
photographs, or of the other half of the micrograph. Means and standard deviations of {seeds} seeds
of the network and its batches; {trainings} trainings took {minutes:.0f} minutes of one CPU core,
compilation included (jaxloss {jaxloss}, JAX {jax}).

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
    count = {"seeds": seeds, "trainings": len(rows), "minutes": seconds / 60}
    parts = [HEAD.format(**rows[-1] | count)]
    if len(rows) < planned:
        parts.append(
            f"So far {len(rows)} of {planned} trainings were run; of the families at the end, rows "
            "are missing. The command goes on where it stopped.\n"
        )
    for data in dict.fromkeys(row["data"] for row in rows):
        parts.append(f"## {data[0].upper()}{data[1:]}\n")
        parts.append(_table([row for row in rows if row["data"] == data]))
    path.write_text("\n".join(parts))


def _table(rows: Sequence[Row]) -> str:
    """Lays out the losses by family, the best Dice first."""
    lines = [
        "| family | loss | Dice | IoU | HD95 | calibration | precision | recall |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(row["family"] for row in rows):
        names = dict.fromkeys(row["loss"] for row in rows if row["family"] == family)
        of_loss = {name: [row for row in rows if row["loss"] == name] for name in names}
        for name in sorted(names, key=lambda name: -np.mean(_column(of_loss[name], "dice"))):
            cells = [_cell(_column(of_loss[name], m), digits) for m, digits in MEASURES.items()]
            lines.append(f"| {family} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _column(rows: Iterable[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _cell(values: np.ndarray, digits: int) -> str:
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}"
