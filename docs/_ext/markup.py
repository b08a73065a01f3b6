"""Writes docstrings as Markdown: the parts that the pages of losses and of modules share."""

import inspect
import re

import jaxloss
from jaxloss.__main__ import papers, read


def page(function, name, formulas=()):
    """Returns the sections of a function's page below its title, by their names."""
    text = read(function)
    home = name.rpartition(".")[0]
    return {
        "signature": signature(function, name),
        "summary": linked(text.summary, home),
        "body": prose(text.body, home, formulas),
        "parameters": parameters(function, text.sections.get("Args", ""), home),
        "attributes": _listed(text.sections.get("Attributes", ""), home),
        "returns": prose(text.sections.get("Returns", ""), home),
        "raises": _listed(text.sections.get("Raises", ""), home),
        "example": _fenced("pycon", text.sections.get("Example", "")),
        "papers": "\n".join(f"- {_with_links(paper)}" for paper in papers(text)),
    }


def signature(function, name):
    """Returns the directive that shows a signature and that links find."""
    if inspect.isclass(function):
        return f"```{{py:class}} {name}\n```"
    shown = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in shown.parameters.values()]
    return f"```{{py:function}} {name}{inspect.Signature(bare)}\n```"


def prose(text, home, formulas=()):
    """Turns paragraphs into Markdown; literal blocks become the given formulas, or stay."""
    left = list(formulas)

    def block(match):
        literal = inspect.cleandoc(match[2])
        shown = f"$$\n{left.pop(0)}\n$$" if left else _fenced("text", literal)
        return f"{match[1]}\n\n{shown}\n\n"

    text = re.sub(r"(?m)^(=+ +=+)\n(?:.*\n)+?(?=\n|\Z)", lambda m: _fenced("text", m[0]), text)
    text = re.sub(r"(?m)(:):\n\n((?:  +\S.*(?:\n|\Z)|\n)+)", block, text + "\n")
    return linked(re.sub(r"(?m)^:$\n|, :$", "", text), home).strip()


def linked(text, home):
    """Turns the roles of a docstring into links."""

    def link(match):
        target = match[1]
        if not target.startswith("jaxloss"):
            target = f"jaxloss.{target}" if target in jaxloss.__all__ else f"{home}.{target}"
        return f"{{py:func}}`~{target}`"

    return re.sub(r":(?:func|class):`([\w.]+)`", link, text)


def parameters(function, section, home):
    """Returns the table of a function's parameters."""
    if not section:
        return ""
    meanings = dict(_entries(section))
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for name, p in inspect.signature(function).parameters.items():
        default = "" if p.default is p.empty else f"`{p.default!r}`"
        meaning = linked(meanings.get(name, ""), home).replace("|", "\\|")
        rows.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(rows)


def _listed(section, home):
    return "\n".join(f"- `{name}`: {linked(text, home)}" for name, text in _entries(section))


def _entries(section):
    """Yields name and text of each entry, the text in one line."""
    for entry in re.split(r"\n(?=\S)", section) if section else ():
        name, _, text = entry.partition(":")
        yield name.strip(), re.sub(r"\s*\n\s*", " ", text.strip())


def _fenced(language, text):
    return f"```{language}\n{text.strip(chr(10))}\n```" if text else ""


def _with_links(paper):
    return re.sub(r"(https?://\S+)", r"<\1>", paper)


def save(folder, pages):
    """Writes the pages that have changed and removes what is no page."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
