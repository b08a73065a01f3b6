"""Writes docs/coming_from from the TOML files: `python -m tests.migration.write`."""

import json
import pathlib
import textwrap

from tests.migration.pages import ORDER, names, read
from tests.migration.scenes import SCENES

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs" / "coming_from"
GOLDENS = ROOT / "tests" / "goldens" / "migration.json"
COLUMNS = 100

EXECUTED = (
    "Both calls of every row were executed on the same arrays: value and gradient agree in "
    "float64, to 1e-9 unless the row says otherwise (`tests/test_migration.py`; theirs with "
    "{versions})."
)
INDEX = """\
# Coming from another library

Each page puts calls of one library beside calls of jaxloss, row by row, with what differs. Every
row is executed: its value and gradient are compared with what the other library gave.

"""


def paragraph(text):
    """Text of a TOML file with its lines filled; paragraphs and lists keep apart."""
    blocks = []
    for block in text.strip().split("\n\n"):
        for item in block.split("\n- "):
            start = "- " if block.startswith("- ") else ""
            words = item.removeprefix("- ")
            blocks.append(
                textwrap.fill(
                    " ".join(words.split()),
                    COLUMNS,
                    initial_indent=start,
                    subsequent_indent=" " * len(start),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
            blocks.append("\n")
        blocks.append("\n")
    return "".join(blocks).rstrip("\n") + "\n"


def code(call):
    """A call in a cell of a table."""
    return f"`{' '.join(call.split())}`".replace("|", r"\|")


def arrays(section):
    """The arrays that a section's calls name, with their shapes."""
    scene = SCENES[section["scene"]]
    used = set().union(*(names(row["peer"]) | names(row["ours"]) for row in section["row"]))
    shapes = section.get("shapes", {})
    words = []
    for name, array in scene.items():
        if name in used:
            shape = (
                shapes.get(name) or SHAPES[section["scene"]].get(name) or default(section, array)
            )
            words.append(f"`{name}` {'ids ' if array.dtype.kind == 'i' else ''}`{shape}`")
    return "Arrays: " + ", ".join(words) + ".\n"


def default(section, array):
    """The shape in letters."""
    letters = {
        "classes": {2: "[N, C]", 1: "[N]"},
        "values": {2: "[N, D]"},
        "pixels": {4: "[B, C, H, W]", 3: "[B, H, W]", 1: "[C]"},
        "pixels_last": {4: "[B, H, W, C]", 3: "[B, H, W]", 1: "[C]"},
        "boxes": {2: "[N, 4]", 1: "[N]"},
        "rotated": {2: "[N, 5]"},
        "detections": {2: "[N, C]", 1: "[N]"},
        "keypoints": {3: "[N, K, 2]", 2: "[N, K]", 1: "[N]"},
        "depths": {3: "[B, H, W]"},
        "pictures": {4: "[B, 1, H, W]"},
        "sets": {4: "[B, Q, h, w]", 3: "[B, Q, C + 1]", 2: "[B, M]"},
        "sigmoid_sets": {3: "[B, Q, C]", 2: "[B, M]"},
        "places": {3: "[B, N, 4]", 2: "[B, M]", 1: "[N]"},
    }
    return letters[section["scene"]][array.ndim]


QUERIES = {"predicted_boxes": "[B, Q, 4]", "boxes": "[B, M, 4]", "masks": "[B, M, H, W]"}
ONE_CHANNEL = ("binary_logits", "mask", "mask_ignoring")
SHAPES = {
    "classes": {
        "class_weights": "[C]",
        "class_counts": "[C]",
        "features": "[N, D]",
        "kernel": "[C, D]",
    },
    "values": {},
    "pixels": dict.fromkeys(ONE_CHANNEL, "[B, 1, H, W]")
    | {"fine_labels": "[B, 2H, 2W]", "distances": "[C, C]"},
    "pixels_last": dict.fromkeys(ONE_CHANNEL, "[B, H, W, 1]"),
    "boxes": {},
    "rotated": {},
    "detections": {"class_counts": "[C]"},
    "keypoints": {"sigmas": "[K]"},
    "depths": {},
    "pictures": {},
    "sets": QUERIES,
    "sigmoid_sets": QUERIES,
    "places": {
        "logits": "[B, N, C]",
        "centerness": "[B, N]",
        "points": "[N, 2]",
        "boxes": "[B, M, 4]",
    }
    | dict.fromkeys(("anchors", "squares"), "[N, 4]"),
}


def table(section, peer):
    lines = [f"| {peer} | jaxloss | what differs |", "|---|---|---|"]
    for row in section["row"]:
        notes = [" ".join(row["note"].split())] if "note" in row else []
        if "rtol" in row:
            notes.append(f"To {row['rtol']:.0e}.".replace("e-0", "e-"))
        lines.append(f"| {code(row['peer'])} | {code(row['ours'])} | {' '.join(notes)} |")
    return "\n".join(lines) + "\n"


def page(name):
    """The text of a page."""
    content = read(name)
    versions = json.loads(GOLDENS.read_text())[name]["versions"]
    executed = EXECUTED.format(versions=", ".join(f"{k} {v}" for k, v in versions.items()))
    parts = [f"# Coming from {content['title']}\n", paragraph(content["text"]), paragraph(executed)]
    parts.append(
        f"```python\n{content['imports'].strip()}\nimport jax, jax.numpy as jnp, jaxloss\n```\n"
    )
    for section in content["section"]:
        parts.append(f"## {section['title']}\n")
        if "text" in section:
            parts.append(paragraph(section["text"]))
        parts += [arrays(section), table(section, content["short"])]
        if "after" in section:
            parts.append(paragraph(section["after"]))
    if "without" in content:
        parts.append("## Without a counterpart\n")
        parts.append(
            "".join(
                paragraph(f"- {', '.join(f'`{n}`' for n in entry['names'])}: {entry['why']}")
                for entry in content["without"]
            )
        )
    return "\n".join(parts)


def index():
    lines = []
    for name in ORDER:
        content = read(name)
        lines.append(paragraph(f"- [{content['title']}]({name}.md): {content['summary']}"))
    return INDEX + "".join(lines)


def pages():
    """File names and texts of all pages."""
    return {f"{name}.md": page(name) for name in ORDER} | {"index.md": index()}


if __name__ == "__main__":
    for file, text in pages().items():
        (DOCS / file).write_text(text)
