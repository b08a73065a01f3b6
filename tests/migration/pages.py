"""Reads the pages: `tests/migration/<page>.toml`.

A page has a title, the distributions whose versions count, an introduction, the imports of the
other library, sections, and what has no counterpart. A section names a scene, whose arrays its rows
may name. A row holds

    peer      the call in the other library, as its users write it
    ours      the call of jaxloss, as a porter writes it
    note      what differs, if anything
    rtol      how closely the two agree, where an epsilon of theirs shows (1e-9 without)
    single    true where the other library runs in float32 alone
    gradient  false where only the values are equal
    right     where the other library's value is wrong: a call in it that gives the right one
"""

import ast
import pathlib
import tomllib
from typing import Any, NamedTuple

from tests.migration.scenes import PREDICTIONS, SCENES

FOLDER = pathlib.Path(__file__).parent
# The order of the index.
ORDER = (
    "pytorch",
    "optax",
    "torchvision",
    "transformers",
    "monai",
    "nnunet",
    "segmentation_models_pytorch",
    "openmmlab",
    "ultralytics",
    "timm",
    "kornia",
    "keras",
    "big_vision",
    "recipes",
)


class Row(NamedTuple):
    page: str
    scene: str
    peer: str
    ours: str
    note: str
    rtol: float
    single: bool
    gradient: bool
    right: str | None


def read(page: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{page}.toml").read_text())


def rows(page: str) -> list[Row]:
    return [
        Row(
            page,
            section["scene"],
            row["peer"],
            row["ours"],
            row.get("note", ""),
            row.get("rtol", 1e-9),
            row.get("single", False),
            row.get("gradient", True),
            row.get("right"),
        )
        for section in read(page)["section"]
        for row in section["row"]
    ]


def names(call: str) -> set[str]:
    """The names in a call."""
    return {node.id for node in ast.walk(ast.parse(call)) if isinstance(node, ast.Name)}


def prediction(row: Row) -> str:
    """The array by which a row is differentiated."""
    used = names(row.peer) & names(row.ours) & set(SCENES[row.scene])
    return next(name for name in PREDICTIONS if name in used)
