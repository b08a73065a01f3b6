import errno
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

PYTEST = ["-m", "pytest", "-n", "2", "--dist", "loadgroup"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The script as a module, on an empty checkout, recording what it would start."""
    path = str(pathlib.Path(__file__).parents[1] / "run")
    loader = importlib.machinery.SourceFileLoader("run_script", path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_script", loader))
    monkeypatch.setitem(sys.modules, "run_script", module)
    loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "HOME", tmp_path / "home")
    module.calls, module.codes, module.said = [], {}, ""

    def watched(program, doing):
        module.calls.append(program[1:])
        return _code(module, program), module.said

    def call(program, command):
        module.calls.append(program[1:])
        return _code(module, program)

    monkeypatch.setattr(module, "watched", watched)
    monkeypatch.setattr(module, "call", call)
    return module


def _code(run, program):
    return next((code for word, code in run.codes.items() if word in program), 0)


def _tools(run):
    """The tools that were started, `python -m <tool>`."""
    return [call[1] for call in run.calls]


def _prepare(run, python=None, lowest=False):
    """Prepares an environment anew and returns what was started for it."""
    run.calls.clear()
    run.prepare(run.environment(python, lowest))
    return run.calls


def test_environment_is_made_once(run):
    _prepare(run)
    assert _tools(run) == ["venv", "pip", "uv"]
    assert run.calls[-1][-2:] == ["--constraint", "constraints.txt"]
    assert not _prepare(run)


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_environment_is_made_again_when_its_sources_change(run, name):
    _prepare(run)
    (run.ROOT / name).write_text("changed")
    assert _prepare(run)


def test_environment_is_made_again_for_another_python(run, monkeypatch):
    _prepare(run)
    monkeypatch.setattr(sys, "version", "4.0.0")
    assert _prepare(run)


def test_interrupted_set_up_is_not_taken_for_a_good_one(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    _prepare(run)
    (run.ROOT / "pyproject.toml").write_text("changed")
    with monkeypatch.context() as context:
        context.setattr(run, "install", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _prepare(run)
    assert _prepare(run)


def test_another_python_has_the_newest_packages_beside_the_usual_ones(run):
    """No constraints, so their change makes nothing again."""
    _prepare(run)
    _prepare(run, sys.executable)
    assert not {"--constraint", "--resolution"} & set(run.calls[-1])
    (run.ROOT / "constraints.txt").write_text("changed")
    assert not _prepare(run, sys.executable)
    version = ".".join(map(str, sys.version_info[:2]))
    made = sorted(path.parent.name for path in run.ROOT.glob("*/jaxloss-stamp"))
    assert made == [".venv", f".venv-{version}"]


def test_lowest_versions_have_an_environment_of_their_own(run):
    _prepare(run, lowest=True)
    assert run.calls[-1][-4:-2] == ["--resolution", "lowest-direct"]
    assert (run.ROOT / ".venv-lowest" / "jaxloss-stamp").is_file()
    assert run.environment(sys.executable, True).name.endswith("-lowest")


def test_documentation_has_an_environment_of_its_own(run):
    assert run.main(["docs", "-j", "2"]) == 0
    assert ".[docs]" in run.calls[2]
    strict = ["--fail-on-warning", "--keep-going", "--quiet"]
    assert run.calls[3:] == [["-m", "sphinx", *strict, "-j", "2", "docs", "docs/_build"]]
    assert [path.parent.name for path in run.ROOT.glob("*/jaxloss-stamp")] == [".venv-docs"]


@pytest.fixture
def benchmarks(run):
    """A script and a helper in a checkout."""
    folder = run.ROOT / "benchmarks"
    folder.mkdir()
    (folder / "speed.py").write_text(
        '"""How fast\nit is.\n\nMore."""\nif __name__ == "__main__":\n'
    )
    (folder / "helper.py").write_text('"""Nothing to run."""\n')
    (folder / "requirements.txt").write_text("torch")
    return folder


def test_benchmarks_have_an_environment_of_their_own(run, benchmarks):
    assert run.main(["bench", "speed", "--losses", "dice"]) == 0
    beside = ["install", "--no-deps", "-r", "benchmarks/requirements.txt"]
    assert run.calls[-2][-4:] == beside
    assert run.calls[-1] == ["benchmarks/speed.py", "--losses", "dice"]
    assert [path.parent.name for path in run.ROOT.glob("*/jaxloss-stamp")] == [".venv-bench"]
    run.calls.clear()
    assert run.main(["bench", "speed"]) == 0
    assert run.calls == [["benchmarks/speed.py"]]
    (benchmarks / "requirements.txt").write_text("torch and more")
    assert run.main(["bench", "speed"]) == 0
    assert beside == run.calls[-2][-4:]


@pytest.mark.parametrize("words, code", [([], 0), (["--help"], 0), (["helper"], 2)])
def test_benchmarks_are_listed(run, benchmarks, capsys, words, code):
    assert run.main(["bench", *words]) == code
    said = capsys.readouterr()
    assert re.search(r"  speed +How fast it is\.\n", said.err if code else said.out)
    assert "Nothing to run" not in said.out + said.err
    assert not run.calls


def test_pip_stands_in_for_uv(run):
    run.codes["uv"] = 1
    _prepare(run)
    assert _tools(run)[-1] == "pip"
    assert run.calls[-1][-2:] == ["--constraint", "constraints.txt"]


def test_pip_cannot_stand_in_where_the_lowest_versions_are_wanted(run):
    run.codes["uv"] = 1
    with pytest.raises(run.Failure, match="could not be installed"):
        _prepare(run, lowest=True)
    assert _tools(run)[-1] == "pip"
    assert run.calls[-1][-1] == "uv"


def test_failed_install_is_said_and_tried_again(run, capsys):
    run.codes["install"], run.said = 1, "no such version"
    assert run.main(["test"]) == 1
    error = capsys.readouterr().err
    assert "no such version\n" in error
    assert "could not be installed" in error
    run.codes.clear()
    assert _prepare(run)


@pytest.mark.parametrize(
    "said",
    [
        "NewConnectionError: Failed to establish a new connection: [Errno -2] Name or service not",
        "error: Failed to fetch\n  Caused by: dns error: failed to lookup address information",
        "Read timed out.",
    ],
)
def test_missing_network_is_said(run, capsys, said):
    run.codes["install"], run.said = 1, said
    assert run.main(["test"]) == 1
    assert capsys.readouterr().err.endswith("could not be fetched: is there a network?\n")


def test_full_disk_is_said(run, capsys, monkeypatch):
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=2**20))
    run.codes["install"], run.said = 1, "a long message"
    assert run.main(["test"]) == 1
    assert "There is no space left" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_folder_that_cannot_be_written_is_said(run, capsys, monkeypatch, number):
    def mkdir(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
    assert run.main(["test"]) == 1
    assert f".venv cannot be made: {os.strerror(number)}.\n" in capsys.readouterr().err


def test_nothing_is_silent_for_long(tmp_path, run, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setattr(run.time, "monotonic", iter(range(0, 100, 10)).__next__)
    waits = iter([True, True, False])

    class Program(subprocess.Popen):
        def wait(self, timeout=None):
            assert timeout is None or timeout <= 10
            if next(waits, False):
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait()

    monkeypatch.setattr(run.subprocess, "Popen", Program)
    code, said = run.watched([sys.executable, "-c", "print('done'); raise SystemExit(3)"], "making")
    assert (code, said) == (3, "done")
    assert capsys.readouterr().err == "  making, 10 s\n  making, 20 s\n"


# Interpreters


@pytest.fixture
def managed(run, monkeypatch, tmp_path):
    """Interpreters of a version manager, of which one is broken, and a stand-in on PATH."""
    for version in ("3.12.1", "3.12.10", "3.13.0"):
        folder = run.HOME / ".pyenv" / "versions" / version / "bin"
        folder.mkdir(parents=True)
        (folder / f"python{version[:4]}").write_text(version)
    (tmp_path / "shims").mkdir()
    shim = tmp_path / "shims" / "python3.12"
    shim.write_text("")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent))
    monkeypatch.setattr(run, "version_of", lambda path: pathlib.Path(path).read_text() or None)
    return run.HOME / ".pyenv" / "versions"


def test_interpreters_are_found_where_version_managers_put_them(run, managed):
    """The newest of that name; one on PATH that does not run is passed over."""
    assert run.find("python3.12") == (str(managed / "3.12.10/bin/python3.12"), "3.12.10")
    assert run.find("python3.14", "python3.13")[1] == "3.13.0"
    with pytest.raises(run.Failure, match=r"There is no python3\.14 or python3\.15"):
        run.find("python3.14", "python3.15")


def test_interpreter_on_path_comes_first(run, managed):
    shim = run.ROOT / "shims" / "python3.12"
    shim.write_text("3.12.2")
    assert run.find("python3.12") == (str(shim), "3.12.2")


def test_what_is_no_interpreter_has_no_version(run, tmp_path):
    assert run.version_of(sys.executable) == sys.version.split()[0]
    assert run.version_of(str(tmp_path / "python3")) is None
    assert run.version_of("false") is None


@pytest.mark.parametrize("words", [["test", "--python", "python3.99"], ["find", "python3.99"]])
def test_missing_interpreter_is_said_in_one_line(run, capsys, words):
    assert run.main(words) == 1
    error = capsys.readouterr().err
    assert error == "There is no python3.99, neither on PATH nor in a version manager.\n"
    assert not run.calls


def test_old_interpreter_is_refused_in_one_line(run, capsys, monkeypatch):
    monkeypatch.setattr(run, "version_of", lambda path: "3.9.18")
    assert run.main(["test", "--python", sys.executable]) == 1
    assert "needs Python 3.11 or newer" in capsys.readouterr().err
    assert not run.calls


# Commands


@pytest.mark.parametrize(
    "words, programs",
    [
        (["demo", "--steps", "5"], [["examples/segment_digits.py", "--steps", "5"]]),
        (["detect", "--head", "fcos"], [["examples/detect_digits.py", "--head", "fcos"]]),
        (["classify", "--seeds", "5"], [["examples/classify_digits.py", "--seeds", "5"]]),
        (["test", "-x"], [[*PYTEST, "-m", "not slow", "-x"]]),
        (["test", "--all", "-x"], [[*PYTEST, "-x"]]),
        (["test", "--lowest", "-k", "dice"], [[*PYTEST, "-m", "not slow", "-k", "dice"]]),
    ],
)
def test_arguments_are_passed_on(run, words, programs):
    assert run.main(words) == 0
    assert run.calls[3:] == programs


def test_first_failure_is_the_exit_code_and_stops_no_other_check(run):
    _prepare(run)
    run.calls.clear()
    run.codes.update({"check": 3, "mypy": 4})
    assert run.main(["lint"]) == 3
    assert _tools(run) == ["ruff", "ruff", "mypy"]


def test_tests_run_on_the_cpu_unless_told_otherwise(run, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert run.variables("test")["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in run.variables("demo")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert run.variables("test")["JAX_PLATFORMS"] == "cuda"


def test_old_python_is_refused_in_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    assert run.main(["demo"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not run.calls


def test_help_and_unknown_commands_start_nothing(run, capsys):
    assert run.main([]) == 0
    assert "./run demo" in capsys.readouterr().out
    assert run.main(["deploy"]) == 2
    assert "There is no command 'deploy'" in capsys.readouterr().err
    assert not run.calls


def test_python_without_venv_is_named(run, capsys):
    run.codes["venv"] = 1
    assert run.main(["demo"]) == 1
    assert "python3-venv" in capsys.readouterr().err
    assert _tools(run) == ["venv"]
