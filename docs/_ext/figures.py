"""The style of all pictures, and a cache: one is drawn again when what it shows may differ."""

import hashlib
import pathlib

import matplotlib
import matplotlib.pyplot as plt

import jaxloss

DOCS = pathlib.Path(__file__).parents[1]
FOLDER = DOCS / "_plots"
COLOURS = ["#0b5fa5", "#d9541e", "#2b8a3e", "#8a3ab9", "#555555"]
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 8.5,
    "grid.alpha": 0.25,
    "image.cmap": "RdBu_r",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "jaxloss",
}


def figure(rows=1, columns=1, size=(6.4, 2.3), **options):
    """Returns figure and axes in the site's style."""
    matplotlib.use("Agg")
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, **options)


def cached(name, draw, *sources):
    """Draws `name` in `_plots` by `draw()` unless its sources are those of the picture there."""
    path, stamp = FOLDER / name, FOLDER / f"{name}.sources"
    parts = [*_package(), *(str(source).encode() for source in sources)]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()
    if path.is_file() and stamp.is_file() and stamp.read_text() == key:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw()
    options = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    drawn.savefig(path, **options)
    plt.close(drawn)
    stamp.write_text(key)


def _package():
    """The sources of jaxloss and of this module."""
    files = sorted(pathlib.Path(jaxloss.__file__).parent.rglob("*.py"))
    return [path.read_bytes() for path in [*files, pathlib.Path(__file__)]]
