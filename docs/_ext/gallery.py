"""Draws the pictures of the gallery: each script in `gallery/` with a function `draw`."""

import importlib
import pathlib
import sys

import figures

FOLDER = pathlib.Path(__file__).parents[1] / "gallery"


def write(app=None):
    """Draws the pictures whose scripts have changed, or what these share."""
    sys.path.insert(0, str(FOLDER))
    shared = (FOLDER / "trials.py").read_text()
    for path in sorted(FOLDER.glob("*.py")):
        source = path.read_text()
        if "def draw()" in source:
            draw = importlib.import_module(path.stem).draw
            figures.cached(f"{path.stem}.png", draw, source, shared)


def setup(app):
    """Draws before Sphinx looks for the pictures."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
