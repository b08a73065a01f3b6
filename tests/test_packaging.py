"""What users install: the archive of sources has its tests, the wheel types that checkers see."""

import json
import pathlib
import re
import site
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.xdist_group("packaging")  # one installation for all


def _python(*arguments, python=sys.executable, cwd=ROOT):
    """Runs Python and returns what it printed, whatever its exit code."""
    return subprocess.run(
        [python, *arguments], cwd=cwd, capture_output=True, text=True, encoding="utf-8"
    )


def _built(kind, folder):
    done = _python("-m", "hatchling", "build", "--target", kind, "--directory", folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path


# The archive of sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The unpacked archive of sources."""
    folder = tmp_path_factory.mktemp("sources")
    archive = _built("sdist", folder)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _collected(folder):
    """The ids of all tests there, collected without pytest-xdist."""
    done = _python("-m", "pytest", "-p", "no:xdist", "--collect-only", "-qq", cwd=folder)
    assert done.returncode == 0, done.stdout
    return set(done.stdout.splitlines())


@pytest.mark.slow
def test_archive_has_every_test(sources):
    assert _collected(sources) == _collected(ROOT)


def test_tests_of_the_archive_run(sources):
    """Without pytest-xdist, on the archive's own package, with what they read beside it."""
    chosen = ["README.md", "tests/test_run.py", "tests/test_distance.py", "jaxloss/geometry"]
    quick = ["-m", "not slow", "-k", "README or run or geometry or plain or example"]
    done = _python("-m", "pytest", "-p", "no:xdist", "-q", *quick, *chosen, cwd=sources)
    assert done.returncode == 0, done.stdout
    for name in ("docs/training.md", "examples/unet.py", "benchmarks/collectives.py"):
        assert (sources / name).is_file()


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return _built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def user(wheel, tmp_path_factory):
    """The Python of an environment with the wheel; the packages it needs are those of this one."""
    folder = tmp_path_factory.mktemp("user")
    assert _python("-m", "venv", folder).returncode == 0
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    offline = ["--no-index", "--no-deps", "--disable-pip-version-check"]
    done = _python("-m", "pip", "install", "--quiet", *offline, wheel, python=python)
    assert done.returncode == 0, done.stderr
    installed = _python("-c", "import site; print(site.getsitepackages()[0])", python=python)
    pathlib.Path(installed.stdout.strip(), "needs.pth").write_text(site.getsitepackages()[0])
    return python


def test_wheel_holds_the_package_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "jaxloss/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) == 2
    assert all(top == "jaxloss" or top.endswith(".dist-info") for top in tops)


def test_wheel_is_what_the_user_imports(user, tmp_path):
    program = "import jaxloss; print(jaxloss.__file__, jaxloss.__version__)"
    done = _python("-c", program, python=user, cwd=tmp_path)
    path, version = done.stdout.split()
    assert pathlib.Path(path).is_relative_to(pathlib.Path(user).parents[1])
    assert version == re.search('version = "(.*)"', (ROOT / "pyproject.toml").read_text())[1]


# Types

START = """
import functools
from typing import Unpack

import jax
import jax.numpy as jnp

import jaxloss
from jaxloss.options import Segmentation

logits, labels = jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 4, 4), jnp.int32)
boxes = jnp.array([[0.0, 0.0, 1.0, 2.0]])


def mine(logits: jax.Array, labels: jax.Array, **options: Unpack[Segmentation]) -> jax.Array:
    return jaxloss.dice(logits, labels, **options) + jaxloss.tversky(logits, labels, **options)


"""
RIGHT = """
value: jax.Array = jaxloss.dice(logits, labels, smooth=0.5, reduction="none", per_image=False)
value = jaxloss.focal(logits, labels, gamma=2, activation="softmax", where=labels > 0)
value = jaxloss.binary_cross_entropy([[0.6, 0.1], [0.3, 0.8]], [[0, 1], [1, 0]], axis_name="i")
value = jaxloss.boundary(logits, labels, include_background=None)
value = jaxloss.dice_cross_entropy(logits, labels, class_weights=[1, 2, 3], ignore_index=255)
value = jaxloss.ciou(boxes, boxes, format="cxcywh", weights=jnp.ones(1))
value = jaxloss.l1(logits, logits)
value = mine(logits, labels, axis=1, absent="skip")
value, slope = jax.value_and_grad(jaxloss.tversky)(logits, labels, alpha=0.3, beta=0.7)
value = jax.jit(jaxloss.dice, static_argnames="reduction")(logits, labels, reduction="sum")
value = functools.partial(jaxloss.dice, reduction="mean")(logits, labels)
distances: jax.Array = jaxloss.distance.edt(labels > 0)
jaxloss.validate("dice", logits, labels).throw()
jaxloss.validate(jaxloss.dice, logits, labels, axis=-1).throw()
"""
WRONG = """
jaxloss.dice(logits, labels, reduction="men")
jaxloss.dice(logits, labels, per_imag=False)
jaxloss.dice(logits, labels, smooth="1")
jaxloss.dice(logits, labels, -1)
jaxloss.dice(logits)
jaxloss.dise(logits, labels)
jaxloss.focal(logits, labels, activation="softmx")
jaxloss.ciou(boxes, boxes, format="xxyy")
jaxloss.l1(logits, logits, per_image=True)
mine(logits, labels, absent="skipped")
mine(logits, labels, smooth=1.0)
text: str = jaxloss.dice(logits, labels)
"""


def _mypy(python, program):
    """The lines with errors and what mypy says of them."""
    settings = ["--strict", "--output", "json", "--config-file", "", "--python-executable", python]
    done = _python("-m", "mypy", *settings, program.name, cwd=program.parent)
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["line"]: row["message"] for row in found if row["severity"] == "error"}


def _pyright(python, program):
    """The lines with errors and what pyright says of them."""
    settings = ["--outputjson", "--pythonpath", python]
    done = _python("-m", "pyright", *settings, program.name, cwd=program.parent)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    rows = [row for row in found if row["severity"] == "error"]
    return {row["range"]["start"]["line"] + 1: row["message"] for row in rows}


CHECKERS = {"mypy": _mypy, "pyright": _pyright}


@pytest.mark.skipif(not (ROOT / "jaxloss" / "options.py").exists(), reason="options have no types")
@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers_pass_right_calls_and_refuse_wrong_ones(checker, user, tmp_path):
    """Each wrong line is refused, and no other one."""
    program = tmp_path / "program.py"
    program.write_text(START + RIGHT + WRONG)
    errors = CHECKERS[checker](user, program)
    first = (START + RIGHT).count("\n") + 1
    lines = program.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if number > first and line}
    assert {lines[i - 1]: errors[i] for i in sorted(errors.keys() - wrong)} == {}
    assert [lines[i - 1] for i in sorted(wrong - errors.keys())] == []
