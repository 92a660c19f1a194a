"""The command line: light, exact about mistakes, and everything the README types is accepted."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY
from synthetic_runs import write_run

import research
from research import cli
from research.cli import runs
from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS
from research.parameters.signatures import parameters_of
from research.runs.run import Run

PROJECT_VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
HEAVY = {"torch", "numpy", "pandas", "matplotlib", "numba", "ffcv", "timm", "torchvision", "papermill"}
COMMANDS = ["", "run", "train", "sweep", "runs", "log", "data", "data write", "data verify", "data list", "doctor"]
COMMANDS += ["parameters", "hooks", "recipes", "models", "evaluate"]


def test_help_of_every_command_imports_nothing_heavy():
    program = f"""
import sys
from research.cli import main
for words in {[c.split() for c in COMMANDS]}:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0, words
print("LOADED", *sorted({HEAVY} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
    assert done.stdout.count("usage: research") == len(COMMANDS)


def test_runs_are_listed_without_importing_anything_heavy(tmp_path):
    write_run(tmp_path, "short")
    program = f"""
import sys
from research.cli import main
assert main(["runs", {str(tmp_path)!r}]) == 0
print("LOADED", *sorted({HEAVY} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "short" in done.stdout and done.stdout.splitlines()[-1].split() == ["LOADED"]


def test_mistakes_are_one_line_each_with_exit_code_2_and_create_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "epochs=0", "modle=resnet8", "dataset=digit"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in told)
    for part in ("epochs=0", "did you mean 'model'", "did you mean 'digits'"):
        assert sum(part in line for line in told) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["train", "epochs"], ["run", "no-such-notebook"], ["hooks", "no-such-hook"]])
def test_each_mistake_names_the_value(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert words[1] in capsys.readouterr().err


@pytest.mark.parametrize(("raised", "code"), [(UsageError("no\nneither"), 2), (KeyboardInterrupt(), 130)])
def test_exit_code_says_what_happened(raised, code, monkeypatch, capsys):
    def fail(options):
        raise raised

    monkeypatch.setattr(runs, "show_runs", fail)
    assert cli.main(["runs"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch):
    def fail(options):
        raise RuntimeError("a defect")

    monkeypatch.setattr(runs, "show_runs", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["runs"])


def test_closed_pipe_is_not_an_error_message():
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m research parameters | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_parameters_lists_every_field_as_it_is_typed(capsys):
    assert cli.main(["parameters"]) == 0
    told = capsys.readouterr().out
    for name in Config.parameters():
        assert re.search(rf"^{name}=", told, re.M)


def test_hooks_lists_every_parameter_of_every_hook(capsys):
    assert cli.main(["hooks"]) == 0
    told = capsys.readouterr().out
    for hook, owner in HOOKS.items():
        assert f"{hook}: {owner.__doc__.strip().splitlines()[0]}" in told
        for name in parameters_of(owner):
            assert f"  {hook}.{name}=" in told


def test_runs_shows_how_far_each_run_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finished, _, killed = (Run.create(Config.load({"name": name})) for name in ("first", "second", "third"))
    finished.set_status("finished", epoch=3, epochs=3, step=30, best_top1=97.25, last_top1=96.0, seconds=3661.2)
    killed.set_status("running", epoch=1, epochs=3)
    assert cli.main(["runs"]) == 0
    header, first, second, third = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["run", "status", "epoch"]
    assert first.split() == ["first", "finished", "3", "97.25", "1:01:01"]
    assert second.split() == ["second", "created", "0"]
    assert third.split() == ["third", "interrupted", "1"]


def test_log_appends_below_what_was_written_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("research-log.md").write_text("# Mine\n\nby hand\n")
    assert cli.main(["log", "it works"]) == 0
    kept = Path("research-log.md").read_text()
    assert kept.startswith("# Mine\n\nby hand\n") and kept.rstrip().endswith("it works")
    assert "research-log.md" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"research {research.__version__}\n"
    assert research.__version__ == PROJECT_VERSION
