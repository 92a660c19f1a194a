"""Signals, and starts that fail: a checkpoint within a step, nothing left behind, nothing removed that was there."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from conftest import assert_same_run, rows
from launched import begun, command, slow_steps, training, wait_until, workers

from research import launch
from research.checkpoints import checkpoint
from research.errors import UsageError
from research.launcher.launch import TrainingFailed
from research.processes import listens
from research.runs.paths import NAMES
from research.runs.run import Run
from research.runs.status import recorded
from research.training.loop import fit

LONG = {"epochs": 4000, "log_interval": 7, "checkpoint_minutes": 60}


def assert_stopped(run: Run, starter: subprocess.Popen) -> None:
    """The run wrote a checkpoint where it stopped, said so, and nothing of it is alive or left."""
    starter.wait(40)
    wait_until(lambda: not workers(run), seconds=40)
    assert recorded(run.dir)["status"] == "interrupted"
    step = checkpoint.load_newest(run.paths.checkpoints)["step"]
    newest = [row for row in rows(run) if row["kind"] == "train"][-1]["step"]
    assert 0 <= step - newest < 7
    left = {path.name for path in run.dir.iterdir()} - NAMES
    assert left == set() and not run.paths.session.exists()


@pytest.mark.parametrize(
    ("sent", "to"), [(signal.SIGTERM, "both"), (signal.SIGHUP, "launcher"), (signal.SIGUSR1, "worker")]
)
def test_a_signal_leads_to_a_checkpoint_within_a_step(tiny, in_workers, sent, to):
    if not listens(sent):
        pytest.skip(f"{sent.name} is ignored here, as under nohup, and stays so in what is started")
    slow_steps(in_workers)
    config = tiny(name="cut", **LONG)
    run = Run(Run.create(config).dir, config)
    starter = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (worker,) = begun(run)
    step = [row for row in rows(run) if row["kind"] == "train"][-1]["step"]
    targets = {"launcher": [starter], "worker": [worker], "both": [starter, worker]}[to]
    for process in targets:
        process.send_signal(sent)
    assert_stopped(run, starter)
    assert checkpoint.load_newest(run.paths.checkpoints)["step"] - step < 30


@pytest.mark.parametrize(
    "to", ["all", pytest.param("one worker", marks=pytest.mark.slow), pytest.param("agent", marks=pytest.mark.slow)]
)
def test_a_signal_to_some_of_several_processes_stops_all_within_a_step(tiny, in_workers, to):
    slow_steps(in_workers)
    before = set(Path(tempfile.gettempdir()).glob("torchelastic*"))
    given = {"hooks": {"logit_stats": {}}, "processes": 2}
    config = tiny(name="cut", **given, **LONG | {"epochs": 3})
    run = Run(Run.create(config).dir, config)
    starter = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    ranks = begun(run, ranks=2)
    (agent,) = [process for process in workers(run) if process not in ranks]
    targets = {"one worker": [ranks[1]], "agent": [agent], "all": [starter, agent, *ranks]}[to]
    for process in targets:
        process.send_signal(signal.SIGUSR1 if to == "agent" else signal.SIGTERM)
    assert_stopped(run, starter)
    assert set(Path(tempfile.gettempdir()).glob("torchelastic*")) <= before
    if to == "one worker":
        assert_same_run(launch(tiny(name="whole", **given, **LONG | {"epochs": 3})), launch(config))


@pytest.mark.slow
def test_notebook_and_all_below_it_stop_in_order(tiny, in_workers, here):
    slow_steps(in_workers)
    config = tiny(name="cut", **LONG)
    words = [f"{key}={json.dumps(value)}" for key, value in config.changes().items()]
    starter = subprocess.Popen([sys.executable, "-m", "research", "run", "train", *words], start_new_session=True)
    run = Run(Path(config.runs) / "cut", config)
    begun(run)
    tree = [psutil.Process(starter.pid), *psutil.Process(starter.pid).children(recursive=True)]
    for process in tree:
        process.send_signal(signal.SIGTERM)
    starter.wait(60)
    assert recorded(run.dir)["status"] == "interrupted"
    assert checkpoint.load_newest(run.paths.checkpoints)["step"] > 0
    assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_signal_before_the_first_step_is_no_lost_worker(tiny):
    config = tiny(name="early", **LONG)
    run = Run(Run.create(config).dir, config)
    starter = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(lambda: training(run))[0].terminate()
    starter.wait(40)
    assert recorded(run.dir)["status"] == "interrupted"


REFUSE = """
    from research.errors import UsageError
    from research.training import loop
    def prepare(run):
        raise UsageError("no")
    loop.prepare = prepare
"""


def test_a_start_that_fails_removes_only_what_it_made(tiny, in_workers):
    """A run whose status is lost, a folder with a user's hidden file, and a new one."""
    in_workers(REFUSE)
    trained = fit(Run.create(tiny(name="trained", epochs=1)))
    checkpoints = sorted(trained.paths.checkpoints.iterdir())
    trained.paths.status.unlink()
    hidden = Path(trained.config.runs) / "mine" / ".notes"
    hidden.parent.mkdir()
    hidden.write_text("dear")
    for name, epochs in (("trained", 1), ("mine", 2), ("new", 2)):
        with pytest.raises(UsageError, match="^no$"):
            launch(tiny(name=name, epochs=epochs))
    assert sorted(trained.paths.checkpoints.iterdir()) == checkpoints
    assert hidden.read_text() == "dear"
    assert not (Path(trained.config.runs) / "new").exists()


def test_second_launcher_of_a_run_is_refused_at_once(tiny):
    config = tiny(name="once", **LONG)
    run = Run(Run.create(config).dir, config)
    starter = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: recorded(run.dir)["status"] == "running")
        started = time.monotonic()
        with pytest.raises(UsageError, match="^run once is being trained by another process$"):
            launch(config)
        assert time.monotonic() - started < 3
        assert run.status["status"] == "running"
    finally:
        starter.terminate()
        starter.wait(40)


def test_what_a_worker_refuses_is_not_tried_again(tiny, in_workers):
    in_workers("""
        from research.errors import UsageError
        from research.training import worker
        def refuse(run):
            raise UsageError("this node has no such thing")
        worker.fit = refuse
    """)
    config = tiny(name="refused")
    with pytest.raises(UsageError, match="^this node has no such thing$"):
        launch(config)
    with pytest.raises(UsageError, match="^this node has no such thing$"):
        launch(tiny(name="refused-by-two", processes=2))


HANG = """
    import time
    from research.training import loop
    set_learning_rate = loop.set_learning_rate
    def stuck(run):
        once = run.dir / "hung-once"
        if run.name == "hung" and run.step == 15 and run.rank == run.world - 1 and not once.exists():
            once.touch()
            time.sleep(60)
        return set_learning_rate(run)
    loop.set_learning_rate = stuck
"""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_hung_rank_is_named_and_the_run_continues(tiny, in_workers, capsys, processes):
    in_workers(HANG)
    given = {"epochs": 3, "processes": processes}
    run = launch(tiny(name="hung", hang_minutes=0.02, **given))
    rank = processes - 1
    assert f"rank {rank} made no step for 0.02" in capsys.readouterr().out
    (run.dir / "hung-once").unlink()
    assert run.status["status"] == "finished"
    assert_same_run(launch(tiny(name="whole", **given)), run)


def test_rank_that_hangs_again_and_again_ends_the_run(tiny, in_workers):
    in_workers(HANG.replace("and not once.exists()", ""))
    with pytest.raises(TrainingFailed, match=r"rank 0 made no step .*last step 15, in the next step.*restarts=0"):
        launch(tiny(name="hung", hang_minutes=0.01, restarts=0, epochs=3))


def test_nohup_keeps_a_closed_terminal_from_stopping_a_run(tiny):
    config = tiny(name="nohup", epochs=60)
    run = Run(Run.create(config).dir, config)
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    starter = subprocess.Popen(command(config), preexec_fn=ignore, stdout=subprocess.DEVNULL)
    (worker,) = begun(run)
    os.kill(starter.pid, signal.SIGHUP)
    worker.send_signal(signal.SIGHUP)
    assert starter.wait(60) == 0
    assert recorded(run.dir)["status"] == "finished"
