"""The site, as far as it shows without being built: notes, links, code, measured numbers."""

import collections
import functools
import importlib.util
import inspect
import json
import pathlib
import re
import tomllib

import jax
import pytest

import jaxloss
from jaxloss.__main__ import families, formulas, read

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("coming_from/*.md")])
NOTES = tomllib.loads((DOCS / "losses.toml").read_text())
LOSSES = [name for title, names in families().items() if title != "Helpers" for name in names]
MODULES = ("detection", "distance", "geometry", "optax_compat", "options")
TESTED_ELSEWHERE = {"detecting.md", "scale.md", "training.md", "validation.md"}


def _extension(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


costs, markup = _extension("costs"), _extension("markup")


# Notes


def test_every_loss_has_notes_and_every_note_a_loss():
    assert set(NOTES) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_notes_say_when_to_use_and_to_avoid_a_loss_and_typeset_it(name):
    note = NOTES[name]
    assert set(note) - {"vary"} == {"use", "avoid", "formula"}
    for text in (note["use"], note["avoid"]):
        assert text.endswith((".", ")."))
        assert len(text) < 160
        for other in re.findall(r"`(\w+)`", text):  # a loss, an option, or an option's value
            options = inspect.signature(getattr(jaxloss, name)).parameters
            assert other in jaxloss.__all__ or other in options or "IoU" in other, other
    blocks = formulas(read(getattr(jaxloss, name)).body)
    assert 1 <= len(note["formula"]) <= len(blocks)
    for formula in note["formula"]:
        assert formula.strip()
        assert formula.count("{") == formula.count("}")
        assert formula.count(r"\left") == formula.count(r"\right")
        assert "\t" not in formula
    options = inspect.signature(getattr(jaxloss, name)).parameters
    assert set(note.get("vary", ())) <= set(options)


# Pages that are written from docstrings


def _documented():
    for name in jaxloss.__all__:
        yield f"jaxloss.{name}", getattr(jaxloss, name)
    for module in MODULES:
        found = vars(getattr(jaxloss, module))
        for name in found.get("__all__", [n for n in found if n[0] != "_"]):
            if module != "options" and callable(found[name]) and inspect.getdoc(found[name]):
                yield f"jaxloss.{module}.{name}", found[name]


def test_docstrings_become_markdown_without_a_rest():
    for name, function in _documented():
        if not function.__module__.startswith("jaxloss"):
            continue
        parts = markup.page(function, name)
        text = re.sub(r"```.*?```", "", "\n\n".join(parts.values()), flags=re.DOTALL)
        assert not re.search(r":(func|class|math|mod):|::|^ {4}\S", text, re.MULTILINE), name
        assert parts["summary"].endswith("."), name
        for target in re.findall(r"\{py:func\}`~jaxloss\.([\w.]+)`", text):
            found = jaxloss
            for word in target.split("."):
                found = getattr(found, word)
        rows = parts["parameters"].count("\n| `")
        if rows:
            assert rows == len(inspect.signature(function).parameters), name


def test_formulas_take_the_place_of_literal_blocks_in_order():
    text = "One::\n\n    a = 1\n\n    b = 2\n\nand two::\n\n    c = 3\n\nThe end.\n"
    assert markup.prose(text, "jaxloss", ["A"]) == (
        "One:\n\n$$\nA\n$$\n\nand two:\n\n```text\nc = 3\n```\n\nThe end."
    )


def test_costs_are_those_of_the_usual_program(tmp_path):
    columns = "device,loss,form,classes,layout,kernels,bytes,floor,ratio,temporary,seconds\n"
    rows = "h100,dice,ids,2,last,9,9,9,9,9,9\nh100,dice,ids,21,last,6,4.5,3.1,1.5,2.2,0.9\n"
    (tmp_path / "compiled.csv").write_text(columns + rows + "cpu,l2,dense,0,,,,,,1,0.1\n")
    table = functools.partial(costs.table, path=tmp_path / "compiled.csv")
    assert table("dice").endswith("| ids | NVIDIA H100 | 6 | 4.5 | 3.1 | 2.2 | 0.9 |")
    assert "of 21 classes" in table("dice")
    assert table("l2").endswith("| targets in the prediction's shape | CPU |  |  |  | 1 | 0.1 |")
    assert table("iou") == ""
    assert costs.table("dice", tmp_path / "missing.csv") == ""


# Links


def _generated():
    """The pages and pictures that are made when the site is built."""
    yield from (f"loss/{name}.md" for name in ["index", *LOSSES])
    yield from (f"loss/{title.lower()}_losses.md" for title in families() if title != "Helpers")
    yield from (f"api/{name}.md" for name in ("index", "helpers", *MODULES))
    for script in DOCS.glob("gallery/*.py"):
        if "def draw()" in script.read_text():
            yield f"_plots/{script.stem}.png"


def _anchors(text):
    """The anchors of a page's headings."""
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    generated = set(_generated())
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        name = place.relative_to(DOCS).as_posix()
        assert place.is_file() or name in generated, target
        if anchor and name == "api/helpers.md":
            assert anchor in families()["Helpers"], target
        elif anchor and name not in generated:
            assert anchor in set(_anchors(place.read_text())), target


def test_every_page_is_in_the_table_of_contents():
    trees = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    listed = {line for tree in trees for line in tree.splitlines()}
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or page.stem in listed, page


# Code


def _blocks():
    for page in DOCS.glob("*.md"):
        if page.name not in TESTED_ELSEWHERE:
            found = re.findall(
                r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
            )
            yield from (pytest.param(block, id=f"{page.stem}-{i}") for i, block in enumerate(found))


@pytest.mark.parametrize("block", list(_blocks()))
def test_code_of_the_pages_runs(block):
    with jax.numpy_dtype_promotion("standard"):
        exec(compile(block, "docs", "exec"), {})


def test_included_part_of_the_readme_is_there():
    page = (DOCS / "benchmarks.md").read_text()
    readme = (DOCS.parent / "README.md").read_text()
    start, end = re.findall(r':(?:start-after|end-before): "(.*)"', page)
    assert -1 < readme.find(start) < readme.find(end)


# Agreement with others


def test_agreement_was_measured_on_the_golden_numbers_that_there_are():
    """Otherwise run `python docs/_ext/agreement.py`."""
    goldens = collections.Counter()
    for path in (DOCS.parent / "tests" / "goldens").glob("*.json"):
        found = json.loads(path.read_text())
        for row in found.get("rows", []) if "versions" in found else []:
            if row.get("loss") in jaxloss.__all__:
                goldens[row["loss"], row["source"]] += 1
    measured = collections.Counter()
    for loss, rows in json.loads((DOCS / "agreement.json").read_text()).items():
        for row in rows:
            measured[loss, row["source"]] += row["rows"]
            assert row["value"] < 1e-5
    assert measured == goldens
