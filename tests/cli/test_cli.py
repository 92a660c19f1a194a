"""The command line: light, exact about mistakes, and everything the README types is accepted."""

import os
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
from research.cli.kept import kept
from research.config import Config
from research.data.augment import Augment
from research.data.synthetic import Segments
from research.errors import UsageError
from research.hooks import HOOKS
from research.parameters.signatures import parameters_of
from research.runs.run import Run

PROJECT_VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
HEAVY = {"torch", "numpy", "pandas", "matplotlib", "numba", "ffcv", "timm", "torchvision", "papermill"}
COMMANDS = ["", "run", "train", "sweep", "runs", "log", "data", "data write", "data verify", "data list", "doctor"]
COMMANDS += [
    "parameters",
    "hooks",
    "recipes",
    "models",
    "evaluate",
    "export",
    "table",
    "compare",
    "init",
    "tensorboard",
]


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


TABLES = [["runs"], ["parameters"], ["recipes"], ["hooks"], ["hooks", "gram"], ["models"], ["substitutes", "tt"]]


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """An environment in which what there is to choose from was listed once before."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    subprocess.run([sys.executable, "-m", "research", "hooks"], check=True, capture_output=True, env=environment)
    return environment


def test_tables_are_printed_without_importing_anything_heavy(listed, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # here they are made
    write_run(tmp_path / "runs", "short")
    program = f"""
import sys
from research.cli import main
for words in {TABLES}:
    print("COMMAND", *words)
    assert main(words) == 0
print("COMMAND\\nLOADED", *sorted({HEAVY} & set(sys.modules)))
"""
    here = {"cwd": tmp_path, "env": listed}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, **here)
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
    for words in TABLES[1:]:
        cli.main(words)
        assert f"COMMAND {' '.join(words)}\n{capsys.readouterr().out}COMMAND" in done.stdout
    assert "short" in done.stdout


def test_what_is_listed_is_made_again_when_the_code_changed_or_the_cache_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def words() -> dict:
        made.append("again")
        return {"said": len(made)}

    assert [kept(words), kept(words)] == [{"said": 1}, {"said": 1}]
    (tmp_path / "research" / "words.json").write_text('{"sources": ')
    assert [kept(words), kept(words)] == [{"said": 2}, {"said": 2}]
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.setattr("research.cli.kept.PACKAGE", code)
    (code / "one.py").write_text("1")
    assert [kept(words), kept(words)] == [{"said": 3}, {"said": 3}]
    (code / "one.py").write_text("2")
    assert kept(words) == {"said": 4}
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)  # where nothing can be kept
    assert [kept(words), kept(words)] == [{"said": 5}, {"said": 6}]


def test_one_run_imports_torch_once(here):
    """For who checks it, for its kernel, and for who trains it."""
    words = ["run", "train", "model=mnist_mlp", "epochs=1", "name=one", "device=cpu"]
    told = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([sys.executable, "-m", "research", *words], capture_output=True, text=True, env=told)
    assert done.returncode == 0, done.stderr
    imported = done.stderr + (here / "runs" / "one" / "log.txt").read_text()
    assert [len(re.findall(rf"\| +{name}$", imported, re.M)) for name in ("torch", "torch._dynamo")] == [1, 1]


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
    for name in (*parameters_of(Augment), *parameters_of(Segments)):
        assert re.search(rf"^  data_args\.{name}=", told, re.M)


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
