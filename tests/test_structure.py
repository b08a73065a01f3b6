"""The form of the code: signatures, sections of docstrings, and which module may import which."""

import ast
import inspect
import pathlib
import re

import pytest

import jaxloss
from jaxloss.__main__ import families
from tests.registry import collect

FLOORS = (
    {"options"},
    {"_core"},
    {"distance", "geometry"},
    {"_boundary", "_boxes", "_distribution", "_region", "_regression"},
    {"_compound", "_fused", "detection"},
    {"_validation", "optax_compat"},
)
CORE_FLOORS = (
    {"other_names"},
    {"checks", "numerics", "platforms", "sharding"},
    {"chunks", "classes", "declare", "pairs", "recompute"},
    {"families", "lines"},
    {"cost", "sums"},
    {"labels", "polygons"},
    {"log_softmax", "reading", "reduction", "sigmoid"},
    {"blocks", "gpu", "margin", "masks", "shares"},
    {"soft", "transform", "turned"},
    {"soft_planes"},
    {"softmax"},
    {"images", "maps"},
    {"confusion"},
    {"scores"},
)


@pytest.mark.parametrize("name", collect())
def test_signature(name):
    """Data is positional and without default, options are keyword-only and have one."""
    for parameter in inspect.signature(getattr(jaxloss, name)).parameters.values():
        data = parameter.default is parameter.empty
        assert data == (parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
        assert data or parameter.kind is parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", families()["Compound"])
def test_sums_of_losses_offer_no_value_of_each(name):
    assert '"none"' not in inspect.getdoc(getattr(jaxloss, name))


@pytest.mark.parametrize(
    "function",
    [getattr(jaxloss, name) for name in jaxloss.__all__]
    + [getattr(m, n) for m in (jaxloss.distance, jaxloss.geometry) for n in m.__all__],
    ids=lambda function: function.__name__,
)
def test_docstring_has_every_section_in_order(function):
    text = inspect.getdoc(function)
    places = [text.find(s) for s in ("Args:", "Returns:", "Raises:", "Example:", "Reference:")]
    assert -1 not in places
    assert places == sorted(places)
    assert ">>>" in text
    documented = text[places[0] : places[1]]
    for parameter in inspect.signature(function).parameters:
        assert f"\n  {parameter}: " in documented, parameter


def _imports(path):
    """The modules of jaxloss that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxloss":
            if node.module in ("jaxloss", "jaxloss._core"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_modules_import_only_lower_floors():
    root = pathlib.Path(jaxloss.__file__).parent
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        for module in _imports(path):
            target = module.split(".")[1:]
            if path.name == "__init__.py" or not target:
                continue
            if parts[0] == "_core" == target[0]:
                assert _floor(CORE_FLOORS, target[1]) < _floor(CORE_FLOORS, parts[1]), (
                    path,
                    module,
                )
            elif parts[0] != target[0]:
                assert _floor(FLOORS, target[0]) < _floor(FLOORS, parts[0]), (path, module)


def _floor(floors, module):
    return next(i for i, modules in enumerate(floors) if module in modules)


def test_only_checks_imports_chex():
    root = pathlib.Path(jaxloss.__file__).parent
    users = {
        p.name for p in root.rglob("*.py") if re.search(r"\b(import|from) chex", p.read_text())
    }
    assert users == {"checks.py"}
