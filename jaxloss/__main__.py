"""What there is, in a terminal.

`python -m jaxloss` lists the losses by family and the functions of the submodules, each with its
sentence and paper; `python -m jaxloss dice` prints the signature, the summary, the formulas with
what is said of each, and the reference of one, `python -m jaxloss detection.fcos` those of a head.
"""

from __future__ import annotations

import difflib
import inspect
import operator
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
MODULES = ("detection", "distance", "geometry", "optax_compat")
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
    return [textwrap.dedent(block).strip("\n") for block in _parted(body)[1::2]]


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


def modules() -> dict[str, list[str]]:
    """Returns the names of each submodule, such as `detection.fcos`, by its own."""
    names = {module: sorted(getattr(jaxloss, module).__all__) for module in MODULES}
    return {module: [f"{module}.{name}" for name in found] for module, found in names.items()}


def main(arguments: list[str]) -> int:
    """Prints the list or one entry and returns the exit code, 2 where there is no such name."""
    if not arguments:
        print(_listed())
        return 0
    if arguments[0] in ("-h", "--help"):
        print(__doc__.partition("\n\n")[2].strip())
        return 0
    name = arguments[0].removeprefix("jaxloss.")
    everything = [*jaxloss.__all__, *sum(modules().values(), [])]
    # A loss comes before a function of the same name in a submodule.
    found = [full for full in everything if name in (full, full.rpartition(".")[2])]
    if len(arguments) == 1 and found:
        print(_entry(found[0]))
        return 0
    print(_unknown(" ".join(arguments)), file=sys.stderr)
    return 2


def _function(name: str) -> Callable[..., Any]:
    """A public function, at top level or of a submodule."""
    function: Callable[..., Any] = operator.attrgetter(name)(jaxloss)
    return function


def _listed() -> str:
    lines = []
    for title, names in (families() | modules()).items():
        lines += ["", title, ""]
        for name in names:
            text = read(_function(name))
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
    function = _function(name)
    text = read(function)
    parts = [_call(name, function), text.summary, *_with_formulas(text.body)]
    parts += [textwrap.fill(paper, _WIDTH, break_on_hyphens=False) for paper in papers(text)]
    return "\n\n".join(parts)


def _parted(body: str) -> list[str]:
    """Text and literal blocks in turn."""
    return re.split(r"::\n\n((?:  +\S.*\n|\n)+)", body + "\n")


def _with_formulas(body: str) -> list[str]:
    """The formulas, each behind the paragraph that leads to it."""
    leads = [text.strip().rpartition("\n\n")[2] + ":" for text in _parted(body)[::2]]
    blocks = [textwrap.indent(formula, "    ") for formula in formulas(body)]
    return [part for pair in zip(leads, blocks, strict=False) for part in pair]


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
