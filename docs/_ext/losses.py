"""Writes a page for every public loss into `loss/`, and one for every family.

A page has what the docstring says, the formulas and the advice of `losses.toml`, a plot, how far
the loss is from the implementations of others, from `agreement.json`, the libraries whose calls
stand beside it in `coming_from/`, and what its program costs.
"""

import collections
import json
import pathlib
import re
import tomllib

import costs
import markup
import plots

import jaxloss
from jaxloss.__main__ import families, read

DOCS = pathlib.Path(__file__).parents[1]
FOLDER = DOCS / "loss"
MIGRATION = DOCS.parent / "tests" / "migration"
FAMILIES = {
    "Regression": "Numbers against numbers, one by one.",
    "Distribution": "Probabilities of classes, pixel by pixel or sample by sample.",
    "Region": "The overlap of whole masks.",
    "Boundary": "How far the predicted outline is from the true one.",
    "Compound": "A region loss and another, in one call.",
    "Fused": "Losses whose logits never exist in memory.",
    "Boxes": "Pairs of boxes, upright or rotated.",
}


def write(app=None):
    """Writes all pages; what has not changed is left alone, so that Sphinx does not read it."""
    notes = tomllib.loads((DOCS / "losses.toml").read_text())
    peers = json.loads((DOCS / "agreement.json").read_text())
    others = _others()
    pages = {"index.md": _index()}
    for family, names in families().items():
        if family not in FAMILIES:
            continue
        pages[f"{_page(family)}.md"] = _family(family, names)
        for name in names:
            plots.draw(name, family, notes[name].get("vary", {}))
            pages[f"{name}.md"] = _loss(
                name, family, notes[name], peers.get(name, []), others[name]
            )
    markup.save(FOLDER, pages)


def _page(family):
    return f"{family.lower()}_losses"


def _index():
    rows = (f"| [{family}]({_page(family)}.md) | {text} |" for family, text in FAMILIES.items())
    lists, tree = "\n".join(rows), "\n".join(map(_page, FAMILIES))
    return (
        "# Losses\n\nEvery loss is a function, `loss(prediction, target, *, options)`, lower is"
        " better. Each has a page with its formula, a plot of value and gradient, its options and"
        " its paper. [Choose a loss](../choose.md) starts from what is wrong with a training.\n\n"
        f"| family | what is compared |\n|---|---|\n{lists}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n"
    )


def _family(family, names):
    rows = "\n".join(f"| [`{n}`]({n}.md) | {_sentence(n)} |" for n in names)
    thumbs = "\n".join(f"[![{n}](../_plots/{n}.svg)]({n}.md)" for n in names)
    tree = "\n".join(names)
    return (
        f"# {family}\n\n{FAMILIES[family]}\n\n| loss | |\n|---|---|\n{rows}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n"
        f"\n:::{{container}} thumbnails\n{thumbs}\n:::\n"
    )


def _sentence(name):
    text = read(getattr(jaxloss, name)).summary
    for verb in ("Computes ", "Makes "):
        text = text.removeprefix(verb)
    return markup.linked(text[0].upper() + text[1:], "jaxloss")


def _loss(name, family, notes, peers, others):
    parts = markup.page(getattr(jaxloss, name), f"jaxloss.{name}", notes["formula"])
    shown = plots.caption(family, name)
    plot = f"![Value and derivative](../_plots/{name}.svg)\n\n{shown and f'*{shown}*'}"
    cost = costs.table(name)
    sections = [
        f"# {name}",
        parts["signature"],
        parts["summary"],
        f"When to use it\n: {notes['use']}\n\nWhen to avoid it\n: {notes['avoid']}",
        parts["body"],
        plot,
        "## Parameters",
        parts["parameters"],
        f"**Returns** {parts['returns']}",
        f"**Raises**\n\n{parts['raises']}",
        "## Example",
        parts["example"],
        "## Agreement" if peers or others else "",
        _agreement(peers),
        f"Call by call, with numbers: {', '.join(others)}." if others else "",
        "## Cost" if cost else "",
        cost,
        "## Reference",
        parts["papers"],
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _agreement(peers):
    """The table of what others compute: a row for each of their functions."""
    if not peers:
        return ""
    rows = "\n".join(
        f"| {peer['source']} | {peer['version']} | {peer['rows']} |"
        f" {_exponential(peer['value'])} | {_exponential(peer['gradient'])} |"
        for peer in peers
    )
    return (
        "The largest difference to what others gave for the same arrays, in float64, over the"
        " largest number of the array (`docs/_ext/agreement.py`):\n\n"
        f"| source | version | calls | value | gradient |\n|---|---|---|---|---|\n{rows}"
    )


def _others():
    """Links to the pages of the libraries whose calls stand beside those of each loss."""
    found = collections.defaultdict(list)
    for path in sorted(MIGRATION.glob("*.toml")):
        page = tomllib.loads(path.read_text())
        calls = " ".join(row["ours"] for section in page["section"] for row in section["row"])
        for name in dict.fromkeys(re.findall(r"jaxloss\.(\w+)\(", calls)):
            found[name].append(f"[{page['short']}](../coming_from/{path.stem}.md)")
    return found


def _exponential(number):
    """A number that does not break at its sign; nothing for None."""
    return "" if number is None else f"{number:.1e}".replace("-", "\N{NON-BREAKING HYPHEN}")


def setup(app):
    """Writes the pages before Sphinx looks for them."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
