"""Studies expand to checked, stably named runs; executing them skips, resumes and survives failures."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, assert_same_run
from hypothesis import given
from hypothesis import strategies as st

from research.cli import main
from research.config import Config
from research.errors import UsageError
from research.runs.run import Run
from research.studies import execution
from research.studies import sweep as sweeping
from research.studies.study import expand, find_study, read_study, word
from research.studies.sweep import sweep
from research.training.loop import fit

PROJECT = REPOSITORY


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Write a study with these entries and return its path; runs go to an empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(**entries) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"name": "s", "base": {"epochs": 2}, **entries}, sort_keys=False))
        return path

    return write


def names(path: Path) -> list[str]:
    return [point.dir.name for point in expand(read_study(path))]


def test_every_combination_once_in_the_order_written(study):
    path = study(runs=[{"optimizer": "sgd"}, {"optimizer": "adamw"}], grid={"lr": [0.1, 0.01]}, seeds=[0, 1])
    assert names(path) == [
        f"s-optimizer-{o}-lr-{lr}-seed-{seed}" for o in ("sgd", "adamw") for lr in (0.1, 0.01) for seed in (0, 1)
    ]


def test_a_run_keeps_its_name_when_the_study_grows(study):
    small = names(study(grid={"lr": [0.1]}, seeds=[0]))
    assert set(small) < set(names(study(grid={"lr": [0.3, 0.1, 0.2]}, seeds=[2, 1, 0])))


VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.lists(st.integers(), max_size=4)
)


@given(st.lists(VALUES, min_size=2, max_size=2, unique_by=lambda value: str(value).lower()))
def test_different_values_never_share_a_folder(values):
    first, second = (word("gram.k", value) for value in values)
    assert first != second
    assert "/" not in first and first == first.strip()


def test_every_problem_of_every_run_is_told_and_nothing_is_made(study, tmp_path):
    with pytest.raises(UsageError) as caught:
        sweep(study(grid={"lr": [0.1, -1], "batch_size": [64, 0]}, base={"modle": "resnet8"}))
    lines = str(caught.value).splitlines()
    for part in ("lr=-1", "batch_size=0", "did you mean 'model'"):
        assert sum(part in line for line in lines) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"gird": {}}, "did you mean 'grid'"),
        ({"grid": {"lr": 0.1}}, "expected a list"),
        ({"grid": {"lr": []}}, "expected a list"),
        ({"name": "a/b"}, "name='a/b'"),
        ({"base": {"name": "mine"}}, "leave it out"),
        ({"seeds": [0, 0]}, "twice"),
        ({"seeds": ["one"]}, "seeds"),
    ],
)
def test_mistakes_in_a_study_are_named(study, entries, told):
    with pytest.raises(UsageError, match=told):
        expand(read_study(study(**entries)))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_a_file_that_is_no_study_is_refused(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"study\.yaml"):
        read_study(path)


@pytest.mark.parametrize("path", sorted((PROJECT / "notebooks" / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_published_studies_expand(path):
    assert expand(read_study(path))


class NoServer:
    """In the place of a server: what is started here is only pretended."""

    def __init__(self, modules):
        pass

    def close(self):
        pass


@pytest.fixture
def pretend(monkeypatch):
    """Replace training by a process that succeeds unless its learning rate is 13, and list what was started."""
    started = []

    def start(server, notebook, point, share):
        started.append(point.dir.name)
        point.log.parent.mkdir(parents=True, exist_ok=True)
        point.log.write_text("first line\nValueError: unlucky\n")
        failing = point.config.lr == 13
        run = Run.create(point.config)
        if not failing:
            run.set_status("finished", epoch=2, epochs=2, best_top1=50.0)
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({int(failing)})"], start_new_session=True)

    monkeypatch.setattr(execution, "start", start)
    monkeypatch.setattr(sweeping, "Server", NoServer)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)
    return started


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_failure_does_not_stop_the_others(study, pretend, jobs, capsys):
    path = study(grid={"lr": [13, 0.1, 0.2]})
    assert sweep(path, jobs=jobs) == 1
    assert sorted(pretend) == sorted(names(path))
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("failed: ")] == [
        line for line in told if "s-lr-13:" in line and "unlucky" in line
    ]


def test_a_lost_run_is_tried_again_and_a_mistake_is_not(study, monkeypatch, capsys):
    """Exit codes of a kill, of a defect, of a mistake, and of somebody who stopped it; each try is counted."""
    codes = {0.1: [-9, 1, 0], 0.2: [1, 1, 1], 0.3: [2], 0.4: [130], 0.5: [0]}
    left = {rate: list(each) for rate, each in codes.items()}

    def start(server, notebook, point, share):
        point.log.parent.mkdir(parents=True, exist_ok=True)
        point.log.write_text("ValueError: unlucky\n")
        code = left[point.config.lr].pop(0)
        what = "kill -9 $$" if code == -9 else f"exit {code}"
        return subprocess.Popen(["sh", "-c", what], start_new_session=True)

    monkeypatch.setattr(execution, "start", start)
    monkeypatch.setattr(sweeping, "Server", NoServer)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)
    assert sweep(study(grid={"lr": list(codes)}), retry=2) == 1
    assert not any(left.values())
    failed = [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines() if line.startswith("failed")]
    assert sorted(failed) == ["s-lr-0.2", "s-lr-0.3", "s-lr-0.4"]


def test_a_run_waits_for_the_one_that_it_starts_from(study, monkeypatch):
    """With a job for each: the student starts after its teacher has ended, and not at all when that failed."""
    running, order = {}, []
    grid = {"good": {}, "bad": {"lr": 13}, "a": {"distill.teacher": "s-good"}, "b": {"distill.teacher": "s-bad"}}

    def start(server, notebook, point, share):
        order.append((point.dir.name, [name for name, process in running.items() if process.poll() is None]))
        code = int(point.config.lr == 13)
        running[point.dir.name] = subprocess.Popen(["sh", "-c", f"sleep 0.5; exit {code}"], start_new_session=True)
        return running[point.dir.name]

    monkeypatch.setattr(execution, "start", start)
    monkeypatch.setattr(sweeping, "Server", NoServer)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)
    assert sweep(study(runs=grid), jobs=4) == 1
    assert order == [("s-good", []), ("s-bad", ["s-good"]), ("s-a", [])]


def test_only_what_is_asked_for_runs(study, pretend, capsys):
    path = study(grid={"lr": [0.1, 0.2]}, seeds=[0, 1])
    assert sweep(path, only="*-seed-1") == 0
    assert pretend == ["s-lr-0.1-seed-1", "s-lr-0.2-seed-1"]
    with pytest.raises(UsageError, match=r"--only 's-lr-0.3-seed-1': no run is called so; did you mean 's-lr-0\."):
        sweep(path, only="s-lr-0.3-seed-1")


def test_finished_runs_are_skipped_and_the_rest_resumed(study, pretend, capsys):
    path = study(grid={"lr": [0.1, 0.2, 0.3]})
    for point, status in zip(expand(read_study(path)), ("finished", "interrupted"), strict=False):
        Run.create(point.config).set_status(status, epoch=1, epochs=2)
    assert sweep(path, dry_run=True) == 0 and pretend == []
    assert "interrupted 1/2" in capsys.readouterr().out
    assert sweep(path) == 0
    assert pretend == ["s-lr-0.3", "s-lr-0.2"]  # the one with more epochs left first
    assert sweep(path) == 0 and len(pretend) == 2


def test_table_tells_a_killed_run_from_one_that_goes_on(study, capsys):
    path = study(grid={"lr": [0.1, 0.2]})
    going, killed = (Run.create(point.config) for point in expand(read_study(path)))
    for run in (going, killed):
        run.set_status("running", epoch=1, epochs=2)
    with going.alone():
        assert sweep(path, dry_run=True) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("  running 1/2    ") and second.endswith("  interrupted 1/2")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_no_child(study, monkeypatch, number):
    children = []

    def start(server, notebook, point, share):
        children.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
        if len(children) == 2:
            threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        return children[-1]

    monkeypatch.setattr(execution, "start", start)
    monkeypatch.setattr(sweeping, "Server", NoServer)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)
    with pytest.raises(KeyboardInterrupt):
        sweep(study(grid={"lr": [0.1, 0.2, 0.3]}), jobs=2)
    assert len(children) == 2 and all(child.poll() is not None for child in children)


def test_a_run_folder_of_another_configuration_stops_the_study_first(study):
    path = study(grid={"lr": [0.1, 0.2]})
    Run.create(Config.load({"name": "s-lr-0.2", "epochs": 7}))
    with pytest.raises(UsageError, match=r"s-lr-0\.2 belongs to another configuration"):
        sweep(path)
    assert not Path("runs/s-lr-0.1").exists()


def test_a_study_trains_through_notebooks_to_the_bits_of_single_runs(study, monkeypatch):
    """Two real runs at a time, forked from a server that never computed, beside the same ones in this process."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    base = {"epochs": 1, "batch_size": 256, "model": "mnist_mlp", "device": "cpu", "threads": 1}
    methods = {"plain": {}, "gram": {"gram.epochs": 1, "model": "resnet8"}, "rigl": {"rigl.period": 2}}
    path = study(base=base, runs=methods)
    assert sweep(path, jobs=2) == 0
    for point in expand(read_study(path)):
        run = Run.open(point.dir)
        assert run.status["status"] == "finished"
        assert run.paths.notebook.is_file() and list((run.dir / "figures").glob("curves.*"))
        (session,) = json.loads(run.paths.environment.read_text())
        assert session["threads"] == 1
        assert_same_run(run, fit(Run.create(replace(point.config, runs="alone"))))


def test_named_alternatives_name_their_runs(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        f"name: s\nbase: {{runs: {tmp_path}}}\nruns: {{plain: {{}}, fast-0.5: {{lr: 0.5}}}}\nseeds: [0, 1]"
    )
    names = [point.dir.name for point in expand(read_study(study))]
    assert names == ["s-plain-seed-0", "s-plain-seed-1", "s-fast-0.5-seed-0", "s-fast-0.5-seed-1"]


@pytest.mark.parametrize("runs", ["{'a/b': {}}", "{a: 3}", "{'': {}}"])
def test_alternatives_that_cannot_name_folders_are_refused(runs, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(f"name: s\nruns: {runs}")
    with pytest.raises(UsageError, match="expected a name for folders, and a mapping"):
        read_study(study)


def test_together_trains_networks_that_cannot_be_stacked_one_after_another(study, capsys):
    base = {"model": "mnist_mlp", "model_args": {"hidden": [8]}, "epochs": 1, "device": "cpu", "threads": 1}
    path = study(together=True, base=base, runs={"plain": {}, "sparse": {"set.sparsity": 0.5}, "far": {"lr": 1e30}})
    assert sweep(path, dry_run=True) == 0 and not Path("runs").exists()
    assert sweep(path) == 1
    said = capsys.readouterr()
    assert "failed: s-far: " in said.err and "lr=1e+30" in said.err
    status = {name: Run.open(f"runs/s-{name}").status["status"] for name in ("plain", "sparse", "far")}
    assert status == {"plain": "finished", "sparse": "finished", "far": "failed"}
    assert sweep(path) == 1
    assert "3 runs, 2 finished, 1 to run" in capsys.readouterr().out


def test_together_refuses_several_processes_and_ldi_of_other_networks(study):
    path = study(together=True, ldi=["exact"], base={"processes": 2, "device": "cpu", "model": "mnist_mlp"})
    with pytest.raises(UsageError, match=r"dense_mlp networks only\nprocesses=2: .* need processes=1"):
        sweep(path)


def test_recorded_sparse_study_is_one_process_of_checked_runs():
    points = expand(read_study(PROJECT / "notebooks" / "studies" / "sparse-small.yaml"))
    methods = {name for point in points for name in point.config.hooks}
    assert {"static_sparse", "set", "dsr", "rigl", "deepr", "prune", "tied"} == methods
    assert {point.config.seed for point in points} == set(range(5)) and len(points) == 20 * 5


@pytest.mark.parametrize("typed", ["sparse-small", "sparse-small.yaml", "notebooks/studies/sparse-small.yaml"])
def test_a_study_of_the_project_is_found_from_anywhere_and_one_s_own_first(typed, here):
    assert find_study(typed).resolve() == REPOSITORY / "notebooks" / "studies" / "sparse-small.yaml"
    mine = here / "notebooks" / "studies" / "sparse-small.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("name: mine")
    assert find_study(typed).resolve() == mine
    assert read_study(typed).name == "mine"


def test_a_study_that_is_nowhere_is_refused_with_where_was_looked(here, capsys):
    assert main(["sweep", "sparse-smal"]) == 2
    told = capsys.readouterr().err
    assert f"no study 'sparse-smal' in {here} nor in {REPOSITORY}" in told and "did you mean 'sparse-small'?" in told
