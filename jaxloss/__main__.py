"""What there is, in a terminal.

`python -m jaxloss` lists the losses by family, each with its sentence and paper; `python -m jaxloss
dice` prints the signature, the summary, the formula and the reference of one.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import jaxloss

FAMILIES = {
    "_regression": "Regression",
    "_distribution": "Distribution",
    "_region": "Region",
    "_boundary": "Boundary",
    "_compound": "Compound",
    "_fused": "Fused",
    "_boxes": "Boxes",
    "": "Helpers",
}
_SECTIONS = "Args|Attributes|Returns|Raises|Example|Reference"
_WIDTH = 100


class Text(NamedTuple):
    """A docstring: its first sentence, what follows up to the sections, and the sections."""

    summary: str
    body: str
    sections: dict[str, str]


def read(function: Callable[..., Any]) -> Text:
    """Returns the parts of a docstring; all are empty under `python -OO`."""
    head, *rest = re.split(rf"^({_SECTIONS}):\n", inspect.getdoc(function) or "", flags=re.M)
    summary, _, body = head.strip().partition("\n\n")
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return Text(summary, body, {name: textwrap.dedent(text).strip() for name, text in pairs})


def formulas(body: str) -> list[str]:
    """Returns the literal blocks of a docstring."""
    found = re.findall(r"::\n\n((?:  +\S.*\n|\n)+)", body + "\n")
    return [textwrap.dedent(block).strip("\n") for block in found]


def papers(text: Text) -> list[str]:
    """Returns the references, each in one line; a link ends one."""
    lines = re.split(r"(?<=\S)\n(?=\S)", text.sections.get("Reference", ""))
    found = [""]
    for line in lines:
        if re.search(r"https?://\S+$", found[-1]):
            found.append("")
        found[-1] = f"{found[-1]} {line}".strip()
    return [paper for paper in found if paper]


def families() -> dict[str, list[str]]:
    """Returns the public names by the title of their family; what has no reduction is a helper."""
    found: dict[str, list[str]] = {title: [] for title in FAMILIES.values()}
    for name in jaxloss.__all__:
        function = getattr(jaxloss, name)
        is_loss = "reduction" in inspect.signature(function).parameters
        module = function.__module__.split(".")[1] if is_loss else ""
        found[FAMILIES[module]].append(name)
    return found


def main(arguments: list[str]) -> int:
    """Prints the list or one entry and returns the exit code, 2 where there is no such name."""
    if not arguments:
        print(_listed())
        return 0
    name = arguments[0].removeprefix("jaxloss.")
    if len(arguments) == 1 and name in jaxloss.__all__:
        print(_entry(name))
        return 0
    print(_unknown(" ".join(arguments)), file=sys.stderr)
    return 2


def _listed() -> str:
    lines = []
    for title, names in families().items():
        lines += ["", title, ""]
        for name in names:
            text = read(getattr(jaxloss, name))
            line = f"{name:<29} {text.summary} {_cited(text)}".rstrip()
            lines += textwrap.wrap(line, _WIDTH, initial_indent="  ", subsequent_indent=" " * 32)
    return "\n".join(lines[1:])


def _cited(text: Text) -> str:
    """The first paper as `(authors year)`."""
    first = next(iter(papers(text)), "")
    year = re.search(r"\b(1[789]|20)\d\d\b", re.sub(r"https?://\S+", "", first))
    if year is None:
        return ""
    authors = first.split(". ")[0]
    if len(authors) > 40:
        authors = authors.split(",")[0] + " et al"
    return f"({authors} {year[0]})"


def _entry(name: str) -> str:
    function = getattr(jaxloss, name)
    text = read(function)
    parts = [_call(name, function), text.summary]
    parts += [textwrap.indent(formula, "    ") for formula in formulas(text.body)]
    parts += [textwrap.fill(paper, _WIDTH, break_on_hyphens=False) for paper in papers(text)]
    return "\n\n".join(parts)


def _call(name: str, function: Callable[..., Any]) -> str:
    """The signature without its types, wrapped."""
    parameters = inspect.signature(function).parameters.values()
    words = [str(p.replace(annotation=p.empty)) for p in parameters]
    keyword = [i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY]
    if keyword:
        words.insert(keyword[0], "*")
    line = f"jaxloss.{name}({', '.join(words)})"
    return textwrap.fill(line, _WIDTH, subsequent_indent="    ", break_long_words=False)


def _unknown(name: str) -> str:
    try:  # which knows other libraries' names too
        getattr(jaxloss, name)
    except AttributeError as error:
        said = str(error)
    else:
        said = f"{name!r} is no loss"
    near = difflib.get_close_matches(name.lower(), jaxloss.__all__, 5, cutoff=0.5)
    return f"{said}\nNear: {', '.join(near)}" if near else said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
