import importlib.machinery
import importlib.util
import pathlib
import sys

import pytest

PYTEST = ["-m", "pytest", "-n", "2", "--dist", "loadgroup"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The script as a module, on an empty checkout, recording what it would start."""
    path = str(pathlib.Path(__file__).parents[1] / "run")
    loader = importlib.machinery.SourceFileLoader("run_script", path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_script", loader))
    loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module.venv, "create", lambda path, **_: path.mkdir(exist_ok=True))
    module.calls, module.codes = [], {}

    def call(arguments, variables, quiet=False):
        module.calls.append(arguments)
        return next((code for word, code in module.codes.items() if word in arguments), 0)

    monkeypatch.setattr(module, "call", call)
    return module


def test_environment_is_made_once(run):
    assert run.prepare()
    assert [call[1] for call in run.calls] == ["pip", "uv"]
    assert run.prepare()
    assert len(run.calls) == 2


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_environment_is_made_again_when_its_sources_change(run, name):
    run.prepare()
    (run.ROOT / name).write_text("changed")
    run.calls.clear()
    assert run.prepare()
    assert run.calls


def test_environment_is_made_again_for_another_python(run, monkeypatch):
    before = run.fingerprint()
    monkeypatch.setattr(sys, "version", "4.0.0")
    assert run.fingerprint() != before


def test_interrupted_set_up_is_not_taken_for_a_good_one(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    run.prepare()
    (run.ROOT / "pyproject.toml").write_text("changed")
    install = run.install
    monkeypatch.setattr(run, "install", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.prepare()
    monkeypatch.setattr(run, "install", install)
    run.calls.clear()
    assert run.prepare()
    assert run.calls


def test_pip_stands_in_for_uv(run):
    run.codes["uv"] = 1
    assert run.prepare()
    assert run.calls[-1] == ["-m", "pip", "--disable-pip-version-check", *run.INSTALL]


def test_failed_install_is_said_and_tried_again(run, capsys):
    run.codes["install"] = 1
    assert run.main(["test"]) == 1
    assert "could not be installed" in capsys.readouterr().err
    run.codes.clear()
    assert run.prepare()
    assert run.calls[-1][1] == "uv"


@pytest.mark.parametrize(
    "words, programs",
    [
        (["demo", "--steps", "5"], [["examples/segment_digits.py", "--steps", "5"]]),
        (["detect", "--head", "fcos"], [["examples/detect_digits.py", "--head", "fcos"]]),
        (["test", "-x"], [[*PYTEST, "-m", "not slow", "-x"]]),
        (["test", "--all", "-x"], [[*PYTEST, "-x"]]),
    ],
)
def test_arguments_are_passed_on(run, words, programs):
    run.prepare()
    run.calls.clear()
    assert run.main(words) == 0
    assert run.calls == programs


def test_first_failure_is_the_exit_code_and_stops_no_other_check(run):
    run.prepare()
    run.calls.clear()
    run.codes.update({"check": 3, "mypy": 4})
    assert run.main(["lint"]) == 3
    assert [call[1] for call in run.calls] == ["ruff", "ruff", "mypy"]


def test_tests_run_on_the_cpu_unless_told_otherwise(run, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert run.environment("test")["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in run.environment("demo")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert run.environment("test")["JAX_PLATFORMS"] == "cuda"


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


def test_python_without_venv_is_named(run, monkeypatch, capsys):
    def create(*_, **__):
        raise run.subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr(run.venv, "create", create)
    assert run.main(["demo"]) == 1
    assert "python3-venv" in capsys.readouterr().err
    assert not run.calls
