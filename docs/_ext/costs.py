"""What a loss's compiled program moves and holds, from the table of `benchmarks/compiled.py`."""

import csv
import functools
import pathlib

TABLE = pathlib.Path(__file__).parents[2] / "benchmarks" / "results" / "compiled.csv"
DEVICES = {"h100": "NVIDIA H100", "v5e": "TPU v5e", "cpu": "CPU"}
FORMS = {
    "ids": "ids",
    "masked": "ids and a mask",
    "smoothed": "ids, smoothed",
    "dense": "targets in the prediction's shape",
    "half": "logits in bfloat16",
}
USUAL = {("21", "last"), ("0", "")}  # classes and their axis, or none


@functools.cache
def _rows(path):
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(loss, path=TABLE):
    """Returns a loss's section; empty where the table or the loss in it is missing."""
    found = {
        (row["form"], row["device"]): row
        for row in _rows(path)
        if row["loss"] == loss and (row["classes"], row["layout"]) in USUAL
    }
    lines = [
        f"| {FORMS[form]} | {DEVICES[device]} | {row['kernels']} | {row['bytes']} |"
        f" {row['floor']} | {row['temporary']} | {row['seconds']} |"
        for form in FORMS
        for device in DEVICES
        if (row := found.get((form, device)))
    ]
    if not lines:
        return ""
    classes = " of 21 classes" if any(row["classes"] == "21" for row in found.values()) else ""
    return (
        f"Value and gradient of 44 million float32 numbers{classes}, counted by the compiler"
        " (`benchmarks/compiled.py`). L is the bytes of the prediction, the floor what a program"
        " must read and write at least.\n\n"
        "| target | device | kernels | bytes / L | floor / L | temporary / L | compiling, s |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(lines)
    )
