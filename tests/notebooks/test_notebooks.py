import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import papermill
import psutil
import pytest
from conftest import REPOSITORY

from research.config import Config
from research.errors import UsageError
from research.notebooks import execute as notebooks

ROOT = REPOSITORY


def write(path, *sources, parameters="number = 1\ntext = 'x'"):
    """A notebook with a parameters cell (unless empty) followed by cells of ``sources``."""
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_finished_copy_ran_with_this_interpreter_and_parameters(here, capfd):
    source = write(
        here / "a.ipynb", "import os, sys\nprint(number, text, sys.executable, os.environ['RESEARCH_HEADLESS'])"
    )
    before = source.read_bytes()
    done = notebooks.execute(source, {"number": np.int64(3), "text": Path("some/file")}, progress=True)
    said = f"3 some/file {sys.executable} 1"
    assert done.parent == here / "runs" / "analysis"
    assert nbformat.read(done, 4).cells[-1].outputs[0].text.strip() == said
    assert said in capfd.readouterr().out  # shown live
    assert source.read_bytes() == before
    assert [p for p in here.rglob("*") if p.is_file()] == [source, done]  # no temporary file is left


def test_failed_notebook_is_kept_with_its_error_and_replaces_nothing(here):
    source = write(here / "a.ipynb", "1 / 0", "print('never')")
    kept = []
    for _ in range(2):
        with pytest.raises(notebooks.NotebookError, match="ZeroDivisionError: division by zero") as error:
            notebooks.execute(source, output=here / "out.ipynb", progress=False)
        kept.append(Path(str(error.value).rpartition(" ")[2]))
    assert [path.name for path in kept] == ["out-failed.ipynb", "out-failed-2.ipynb"]
    outputs = [o for cell in nbformat.read(kept[0], 4).cells for o in cell.get("outputs", [])]
    assert [o.ename for o in outputs] == ["ZeroDivisionError"]


def test_usage_error_in_a_cell_surfaces_as_one_line_and_leaves_nothing(here):
    source = write(here / "a.ipynb", "from research.errors import UsageError\nraise UsageError('lr=-1: must be > 0')")
    with pytest.raises(UsageError, match="^lr=-1: must be > 0$"):
        notebooks.execute(source, progress=False)
    assert list(here.iterdir()) == [source]


def test_what_cannot_run_is_refused_before_a_kernel_starts(here, monkeypatch):
    monkeypatch.setattr(notebooks, "_execute", lambda *_: pytest.fail("started"))
    source = write(here / "notebooks" / "analysis" / "curves.ipynb")
    plain = write(here / "plain.ipynb", "x = 1", parameters="")
    write(here / "taken.ipynb")

    def refused(match, notebook, parameters=None, output=None):
        with pytest.raises(UsageError, match=match):
            notebooks.execute(notebook, parameters, output)

    refused("did you mean 'analysis/curves'", "analysis/curve")
    refused("no cell tagged 'parameters'", plain, {"number": 1})
    refused("no parameter 'nummber'; did you mean 'number'", source, {"nummber": 1})
    refused("number='many': expected int", "analysis/curves", {"number": "many"})
    refused(r"number=\(1, 2\): a tuple .* give a list", source, {"number": (1, 2)})
    refused("text.when=.*: an object cannot be passed", source, {"text": {"when": object()}})
    refused("exists and is not overwritten", source, output=here / "taken.ipynb")
    write(here / "odd.ipynb", parameters="a = = 1")
    refused("the parameters cell cannot be read as Python", "odd.ipynb")
    foreign = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}})
    nbformat.write(foreign, here / "r.ipynb")
    refused("is written in R; notebooks run with the Python", "r.ipynb")
    (here / "torn.ipynb").write_text("{")
    refused("is not a notebook", "torn.ipynb")


def test_every_problem_is_reported_at_once(here):
    source = write(here / "a.ipynb")
    with pytest.raises(UsageError) as error:
        notebooks.execute(source, {"number": (1,), "txt": 1})
    assert len(str(error.value).splitlines()) == 2


def test_types_are_those_of_the_annotations_or_of_the_defaults(here, monkeypatch):
    passed = {}
    monkeypatch.setattr(notebooks, "_execute", lambda source, output, given, _: passed.update(given) or output.touch())
    declared = """
from typing import Optional, Union
%matplotlib inline
steps: Union[int, list[int], None] = None
rate: Optional[float] = None
pairs: list[list[str]] = []
computed = 2 * 3
odd: what.only.the.notebook.knows = None
"""
    source = write(here / "a.ipynb", parameters=declared)
    given = {"steps": [1, 2], "rate": 1, "pairs": [["a", "b"]], "computed": "any", "odd": 1}
    notebooks.execute(source, given, here / "done.ipynb")
    assert passed == given and isinstance(passed["rate"], float)
    with pytest.raises(UsageError) as refused:
        notebooks.execute(source, {"steps": "many", "rate": [1], "pairs": ["ab"]})
    told = ["steps='many': expected int | a list of int | none", "rate=[1]: expected float | none"]
    assert str(refused.value).splitlines() == [*told, "pairs=['ab']: expected a list of a list of str"]


SAMPLE = ["%time 1 + 1", "print(6 * 7)", "raise SystemExit", "print('never')"]


def test_a_notebook_of_elsewhere_does_what_it_does_under_papermill(here):
    """No parameters cell, the format of 2014, a kernel that is not here, a magic, and an exit in the middle."""
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": line} for line in SAMPLE
    ]
    kernel = {"name": "conda-env-theirs-py", "display_name": "theirs", "language": "python"}
    sample = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 0}
    (here / "a.ipynb").write_text(json.dumps(sample))
    papermill.execute_notebook("a.ipynb", "theirs.ipynb", kernel_name="python3", progress_bar=False)
    ours = nbformat.read(notebooks.execute("a.ipynb", progress=False), 4)
    theirs = nbformat.read("theirs.ipynb", 4)
    for one, other in zip(ours.cells[1:], theirs.cells[1:], strict=True):  # the first tells its time
        assert one.outputs == other.outputs and one.execution_count == other.execution_count
    assert ours.cells[0].outputs and ours.cells[1].outputs[0].text == "42\n" and not ours.cells[3].outputs


def test_plain_papermill_is_refused_what_the_notebook_does_not_declare(here):
    """And a UsageError shows as its lines, without a traceback."""
    write(here / "a.ipynb", "from research.notebooks.execute import enter_project\nenter_project()\nprint(number)")

    def execute(**given):
        named = {"kernel_name": "python3", "language": "python"}
        return papermill.execute_notebook("a.ipynb", "b.ipynb", given, **named, progress_bar=False)

    with pytest.raises(papermill.PapermillExecutionError) as refused:
        execute(nmber=2, text="t")
    assert refused.value.ename == "UsageError"
    assert refused.value.traceback == ["error: this notebook has no parameter 'nmber'; did you mean 'number'?"]
    assert execute(number=2).cells[-1].outputs[0].text == "2\n"


TRAINING = "dataset = 'digits'\nepochs = None\nlog = ''\nsettings = {}"


def test_parameters_that_the_notebook_does_not_name_go_into_settings(here, monkeypatch):
    source = write(here / "t.ipynb", parameters=TRAINING)
    passed = {}

    def execute(source, output, parameters, progress):
        passed.update(parameters)
        output.write_text("done")

    monkeypatch.setattr(notebooks, "_execute", execute)
    done = notebooks.execute(source, {"epochs": 3, "lr": 0.05, "data_args.flip": False, "log": "l.md"}, progress=False)
    assert passed == {"epochs": 3, "log": "l.md", "settings": {"lr": 0.05, "data_args.flip": False}}
    config = Config.load({"epochs": 3, "lr": 0.05, "data_args": {"flip": False}})
    assert done == here / "runs" / config.run_name / "notebook.ipynb"  # the run's own folder


def test_training_parameters_are_checked_by_config_before_a_kernel_starts(here, monkeypatch):
    monkeypatch.setattr(notebooks, "_execute", lambda *_: pytest.fail("started"))
    source = write(here / "t.ipynb", parameters=TRAINING)
    with pytest.raises(UsageError) as error:
        notebooks.execute(source, {"epochs": 0, "smothing": 0.1})
    assert "epochs" in str(error.value) and "did you mean 'smoothing'" in str(error.value)


SLEEPER = """
import subprocess, time
children = [subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (False, True)]
print("pids", *(child.pid for child in children), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_kernel_and_everything_below_it(here, sent):
    write(here / "a.ipynb", SLEEPER)
    code = "from research.notebooks.execute import execute; execute('a.ipynb')"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in process.stdout.readline().split()[1:]]
    below = psutil.Process(process.pid).children(recursive=True)
    assert set(pids) < {p.pid for p in below}
    process.send_signal(sent)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    deadline = time.time() + 5
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below) and time.time() < deadline:
        time.sleep(0.05)
    assert not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
