"""Writes a page for the helpers and for every public module into `api/`."""

import inspect
import pathlib

import markup

import jaxloss
from jaxloss.__main__ import families

FOLDER = pathlib.Path(__file__).parents[1] / "api"
MODULES = ("distance", "geometry", "detection", "options", "optax_compat")


def write(app=None):
    """Writes all pages."""
    pages = {"index.md": _index(), "helpers.md": _helpers()}
    for name in MODULES:
        pages[f"{name}.md"] = _module(name)
    markup.save(FOLDER, pages)


def _index():
    rows = [f"| [`jaxloss.{name}`]({name}.md) | {_first(name)} |" for name in MODULES]
    rows.insert(0, "| [helpers](helpers.md) | Class weights, combinations of losses, `validate`. |")
    tree = "\n".join(("helpers", *MODULES))
    return (
        "# Reference\n\nThe losses have [pages of their own](../loss/index.md). Beside them:\n\n"
        "| | |\n|---|---|\n" + "\n".join(rows) + f"\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n"
    )


def _first(name):
    return inspect.getdoc(getattr(jaxloss, name)).split("\n\n")[0].replace("\n", " ")


def _helpers():
    names = families()["Helpers"]
    entries = [_entry(f"jaxloss.{name}", getattr(jaxloss, name)) for name in names]
    report = _entry("jaxloss.Report", jaxloss.Report)
    return "\n\n".join(["# Helpers", "Top-level functions that are no losses.", *entries, report])


def _module(name):
    module = getattr(jaxloss, name)
    home = f"jaxloss.{name}"
    head = f"# {home}\n\n{markup.prose(inspect.getdoc(module), home)}"
    if name == "options":
        return "\n\n".join([head, *_options(module)])
    if name == "optax_compat":
        return f"{head}\n\n{_compat(module)}"
    names = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
    names = sorted(getattr(module, "__all__", names))
    entries = [_entry(f"{home}.{n}", getattr(module, n)) for n in names]
    return "\n\n".join([head, *entries])


def _entry(name, function):
    """A function under a heading of its own."""
    parts = markup.page(function, name)
    returns, raises = parts["returns"], parts["raises"]
    sections = [
        f"## {name.rpartition('.')[2]}",
        parts["signature"],
        parts["summary"],
        parts["body"],
        parts["attributes"],
        parts["parameters"],
        returns and f"**Returns** {returns}",
        raises and f"**Raises**\n\n{raises}",
        parts["example"],
        parts["papers"] and f"**Reference**\n\n{parts['papers']}",
    ]
    return "\n\n".join(section for section in sections if section)


def _options(module):
    """The options of each family, each with its default and meaning."""
    from jaxloss._core.declare import _options as options_of

    for name in module.__all__:
        found = getattr(module, name)
        if not isinstance(found, type) or not hasattr(found, "__total__"):
            continue
        rows = [
            f"| `{key}` | `{option.default!r}` | {option.meaning} |"
            for key, (_, _, option) in options_of(found).items()
        ]
        yield "\n".join(
            [
                f"## {name}\n",
                f"```{{py:class}} jaxloss.options.{name}\n```\n",
                inspect.getdoc(found) + "\n",
                "| option | default | meaning |",
                "|---|---|---|",
                *rows,
            ]
        )


def _compat(module):
    """Names and sentences only: arguments are those of Optax."""
    rows = []
    for name in sorted(module.__all__):
        function = getattr(module, name)
        ours = function.__module__.startswith("jaxloss")
        sentence = (
            inspect.getdoc(function).split("\n\n")[0].replace("\n", " ") if ours else "Optax's own."
        )
        rows.append(f"| `{name}` | {markup.linked(sentence, 'jaxloss.optax_compat')} |")
    return "| name | |\n|---|---|\n" + "\n".join(rows)


def setup(app):
    """Writes the pages before Sphinx looks for them."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
