"""Event files: every number of a run, each once, and nothing of anybody else's is touched."""

import importlib.util
import json
import threading
import time

import pytest
from filelock import FileLock
from synthetic_runs import write_run

from research.cli import main
from research.errors import UsageError
from research.log import tensorboard
from research.log.tensorboard import scalars, write_events
from research.runs.metrics import read_rows
from research.runs.paths import RunPaths

needs_tensorboard = pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="needs tensorboard")


def read(folder):
    """What TensorBoard reads in a folder: scalars (tag -> [(step, value)]), and the names of hyperparameters."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    values = {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    content = found.PluginTagToContent("hparams") if "hparams" in found.summary_metadata.__str__() else {}
    told = HParamsPluginData.FromString(content["_hparams_/session_start_info"]) if content else None
    return values, dict(told.session_start_info.hparams) if told else {}


def logged(run):
    """The same, as the rows of the run have it."""
    values = {}
    for row in read_rows(RunPaths(run).metrics):
        for tag, value in scalars(row):
            values.setdefault(tag, []).append((row["step"], pytest.approx(value)))
    return values


def add(run, **row):
    with open(RunPaths(run).metrics, "a") as file:
        file.write(json.dumps({"kind": "val", **row}) + "\n")


@needs_tensorboard
def test_every_number_arrives_with_hyperparameters(tmp_path, capsys):
    runs = [write_run(tmp_path / "runs", f"demo-{k}", gram=True, lr=0.1 * k) for k in (1, 2)]
    assert main(["tensorboard", str(tmp_path / "runs" / "demo-*")]) == 0
    folder = tmp_path / "runs" / "tensorboard"
    assert f"of 2 runs added; to see them: tensorboard --logdir {folder}" in capsys.readouterr().out
    for k, run in enumerate(runs, 1):
        values, parameters = read(folder / run.name)
        expected = logged(run)
        assert "gram/centre/layer1.0.conv1" in expected and "val/top1" in expected
        assert {tag: values.get(tag) for tag in expected} == expected
        assert parameters["lr"].number_value == pytest.approx(0.1 * k) and parameters["gram.k"].number_value == 8
        assert parameters["model"].string_value and "runs" not in parameters


@needs_tensorboard
def test_a_second_call_adds_what_is_new_and_no_more(tmp_path):
    run = write_run(tmp_path / "runs", "demo")
    others = tmp_path / "runs" / "tensorboard" / "demo" / "events.out.tfevents.1.mine"
    others.parent.mkdir(parents=True)
    others.write_bytes(b"mine")
    write_events(run)
    first = {path: path.read_bytes() for path in others.parent.glob("events*")}
    assert write_events(run).rows == 0
    assert {path: path.read_bytes() for path in others.parent.glob("events*")} == first and len(first) == 2
    add(run, step=40, epoch=3, loss=0.1, top1=88.0)
    with open(RunPaths(run).metrics, "a") as file:
        file.write('{"kind": "val", "step": 50, "ep')  # being written
    assert write_events(run)[1:] == (1, 1)
    now = {path: path.read_bytes() for path in others.parent.glob("events*")}
    assert len(now) == 3 and now.items() >= first.items()
    others.unlink()
    assert read(others.parent)[0]["val/top1"] == logged(run)["val/top1"]


@needs_tensorboard
def test_rows_that_a_run_dropped_are_gone(tmp_path):
    run = write_run(tmp_path / "runs", "demo")
    write_events(run)
    rows = RunPaths(run).metrics.read_text().splitlines(keepends=True)
    RunPaths(run).metrics.write_text("".join(rows[: len(rows) // 2]))
    add(run, step=21, epoch=2, loss=0.7, top1=71.5)
    write_events(run)
    assert read(tmp_path / "runs" / "tensorboard" / "demo")[0] == logged(run)


@needs_tensorboard
def test_events_that_were_removed_or_torn_are_written_again(tmp_path):
    run = write_run(tmp_path / "runs", "demo")
    for harm in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:100])):
        folder = write_events(run).folder / "demo"
        harm(next(folder.glob("events*")))
        write_events(run)
        assert read(folder)[0] == logged(run)


@needs_tensorboard
def test_a_running_run_is_followed_to_its_last_row(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "POLL_SECONDS", 0.02)
    run = write_run(tmp_path / "runs", "demo", epochs=1)
    status = json.loads(RunPaths(run).status.read_text())
    RunPaths(run).status.write_text(json.dumps(status | {"status": "running"}))
    lock = FileLock(RunPaths(run).lock, thread_local=False)
    lock.acquire()

    def train():
        for step in range(20, 30):
            add(run, step=step, epoch=2, loss=0.5, top1=80.0 + step)
            time.sleep(0.03)
        RunPaths(run).status.write_text(json.dumps(status))
        lock.release()

    training = threading.Thread(target=train)
    training.start()
    done = write_events(run, follow=True)
    training.join()
    assert done.rows == len(read_rows(RunPaths(run).metrics))
    assert read(done.folder / "demo")[0] == logged(run)
    assert len(list((done.folder / "demo").glob("events*"))) == 1


@needs_tensorboard
def test_two_writers_at_once_are_one_too_many(tmp_path):
    run = write_run(tmp_path / "runs", "demo")
    folder = write_events(run).folder / "demo"
    with FileLock(folder / ".lock"), pytest.raises(UsageError, match="is being written by another process"):
        write_events(run)


def test_without_tensorboard_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    run, find = write_run(tmp_path / "runs", "demo"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert main(["tensorboard", str(run)]) == 2
    assert capsys.readouterr().err == "error: event files need tensorboard; pip install 'research[tensorboard]'\n"
    assert not (tmp_path / "runs" / "tensorboard").exists()
