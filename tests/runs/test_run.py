"""Run directories: identity, status, metrics, random streams."""

import hashlib
import json
import math
import multiprocessing
import subprocess
import sys
import threading
import time

import pytest
import torch

from research import cli
from research.config import Config
from research.config.identity import NOT_IDENTITY
from research.errors import UsageError
from research.frames import load_runs
from research.runs import status
from research.runs.run import Run
from research.runs.status import recorded, status_of
from research.studies.study import Point, table
from research.training.checkpointing import is_of


def test_same_config_is_the_same_run(tiny):
    assert Run.create(tiny()).dir == Run.create(tiny(log_interval=7)).dir != Run.create(tiny(lr=0.2)).dir


@pytest.mark.parametrize("typed", [1, 1.0])
def test_a_run_of_a_version_that_hashed_numbers_as_typed_is_found(typed, tiny, tmp_path):
    """Whole numbers in argument maps: `jitter=1` and `jitter=1.0` were two runs."""
    config = tiny(data_args={"jitter": typed, "crop": "pad", "padding": 1})
    written = config.to_dict() | {"data_args": {"jitter": typed, "crop": "pad", "padding": 1}}
    told = {name: value for name, value in config.changes().items() if name not in NOT_IDENTITY}
    told["data_args"] = written["data_args"]
    identity = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()
    old = tmp_path / "runs" / f"digits-mnist_mlp-{identity[:8]}"
    old.mkdir(parents=True)
    (old / "config.json").write_text(json.dumps(written))
    assert Run.create(config).dir == old.resolve()
    assert is_of({"identity": identity, "config": written}, config)
    assert not is_of({"identity": "0" * 16, "config": written | {"seed": 3}}, config)


def test_directory_of_another_config_is_refused(tiny):
    first = Run.create(tiny(name="mine"))
    before = (first.dir / "config.json").read_text()
    with pytest.raises(UsageError, match=r"belongs to another configuration \(lr: 0.05 there, 0.2 asked\)"):
        Run.create(tiny(name="mine", lr=0.2))
    assert (first.dir / "config.json").read_text() == before


def test_directory_that_is_not_a_run_is_left_alone(tiny, tmp_path):
    (tmp_path / "runs" / "thesis").mkdir(parents=True)
    (tmp_path / "runs" / "thesis" / "chapter.tex").write_text("dear")
    with pytest.raises(UsageError, match="exists but is not a run"):
        Run.create(tiny(name="thesis"))
    assert [p.name for p in (tmp_path / "runs" / "thesis").iterdir()] == ["chapter.tex"]


def test_unwritable_runs_folder_is_one_line(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write run directory"):
        Run.create(tiny(runs=str(tmp_path / "file")))


def test_opening_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a run"):
        Run.open(tmp_path)


def test_run_opens_with_its_config(tiny):
    run = Run.create(tiny(seed=5))
    assert Run.open(run.dir).config == run.config


def test_rows_are_json_even_when_numbers_are_not(tiny):
    run = Run.create(tiny())
    run.log("train", loss=math.nan, top1=1.5)
    assert json.loads(run.paths.metrics.read_text()) == {
        "kind": "train", "step": 0, "epoch": 0, "loss": None, "top1": 1.5,
    }  # fmt: skip


def test_only_rank_0_writes(tiny):
    run = Run.create(tiny())
    run.rank = 1
    run.log("train", loss=1.0)
    run.note("hello")
    assert not run.paths.metrics.exists()


def test_streams_depend_on_seed_step_and_name_only(tiny):
    run, again = Run(".", tiny()), Run(".", tiny(lr=1.0))
    again.rank = 3
    draw = torch.rand(4, generator=run.generator("grow", "conv1"))
    assert torch.equal(draw, torch.rand(4, generator=again.generator("grow", "conv1")))
    assert not torch.equal(draw, torch.rand(4, generator=run.generator("grow", "conv2")))
    run.step = 1
    assert not torch.equal(draw, torch.rand(4, generator=run.generator("grow", "conv1")))


def test_stream_seeds_are_the_same_everywhere():
    """Python's own hash() is salted per process; a stream must not be."""
    assert Run(".", Config()).seed_for("order", 3) == 6785497997347460347


def _hold(directory, held, release):
    with Run.open(directory).alone():
        held.set()
        release.wait(20)


def test_run_is_trained_by_one_process_at_a_time(tiny):
    run = Run.create(tiny())
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(run.dir, held, release))
    other.start()
    held.wait(20)
    assert status.held(run.dir)
    other.kill()
    other.join()
    assert not status.held(run.dir)


def everywhere(run: Run, capsys) -> set[str]:
    """The status of ``run`` as every way to look at it tells it."""
    point = Point({}, {}, run.config)
    assert cli.main(["runs", str(run.dir.parent)]) == 0
    printed, listed = capsys.readouterr().out.splitlines()[1].split()[1], table([point]).split()[1]
    return {run.status["status"], point.status["status"], load_runs(run.dir)["status"].item(), printed, listed}


def test_killed_trainer_is_interrupted_wherever_it_is_looked_at(tiny, capsys):
    run = Run.create(tiny(name="r", epochs=9999))
    assert everywhere(run, capsys) == {"created"}
    trainer = subprocess.Popen([sys.executable, "-m", "research.training", run.dir], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not recorded(run.dir).get("epoch"):
            assert trainer.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        for _ in range(5):
            assert everywhere(run, capsys) == {"running"}
        assert trainer.poll() is None
    finally:
        trainer.kill()
        trainer.wait()
    assert recorded(run.dir)["status"] == "running"
    assert everywhere(run, capsys) == {"interrupted"}
    assert run.status | {"status": "running"} == recorded(run.dir) and run.status["epoch"] >= 1


def test_a_look_at_the_status_keeps_no_trainer_from_starting(tiny):
    run = Run.create(tiny())
    run.set_status("running")
    done, looks = threading.Event(), []

    def look():
        while not done.is_set():
            looks.append(status_of(run.dir)["status"])
            time.sleep(1e-4)

    def two_looks_later():  # the second began now or after
        seen = len(looks)
        while len(looks) < seen + 2:
            time.sleep(1e-4)
        return looks[-1]

    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    for _ in range(20):
        assert two_looks_later() == "interrupted"
        with run.alone(patience=3.0):
            assert two_looks_later() == "running"
    done.set()
    reader.join()


def test_a_look_at_the_status_makes_no_file(tiny):
    run = Run.create(tiny())
    run.set_status("running")
    before = sorted(path.name for path in run.dir.iterdir())
    assert run.status["status"] == "interrupted"
    assert sorted(path.name for path in run.dir.iterdir()) == before
    assert Run("nowhere", run.config).status == {"status": "new"}


def test_run_that_ends_while_it_is_looked_at_is_what_it_says(tiny, monkeypatch):
    run = Run.create(tiny())
    run.set_status("running")
    monkeypatch.setattr(status, "held", lambda directory: run.set_status("finished"))
    assert run.status["status"] == "finished"


def test_run_whose_lock_cannot_be_opened_is_what_it_says(tiny):
    run = Run.create(tiny())
    run.set_status("running")
    (run.dir / ".lock").mkdir()
    assert run.status["status"] == "running"
