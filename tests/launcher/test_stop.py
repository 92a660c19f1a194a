"""``research stop`` on this machine: whoever trains a run is found, and writes a checkpoint."""

import signal
import subprocess
import sys

from conftest import REPOSITORY
from launched import begun, command, slow_steps

from research import cli
from research.checkpoints import checkpoint
from research.launcher.stop import sweeping, training
from research.runs.run import Run
from research.runs.status import recorded


def test_a_run_that_is_trained_here_is_stopped_with_a_checkpoint(tiny, in_workers, capsys):
    slow_steps(in_workers)
    config = tiny(name="cut", epochs=4000, log_interval=7, checkpoint_minutes=60)
    run = Run(Run.create(config).dir, config)
    other = Run.create(tiny(name="other"))
    starter = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (worker,) = begun(run)
    assert [process.pid for process in training(run.dir)] == [worker.pid] and training(other.dir) == []
    assert cli.main(["stop", "cut", "other", "--runs", config.runs]) == 0
    said = capsys.readouterr().out
    assert f"cut    asked to stop: was running here (process {worker.pid})" in said
    assert "other  not running: created" in said
    assert starter.wait(40) == -signal.SIGINT, "as a Python that was interrupted ends"
    assert recorded(run.dir)["status"] == "interrupted" and checkpoint.load_newest(run.paths.checkpoints)["step"] > 0


def test_a_sweep_is_found_by_its_study(tmp_path):
    study = tmp_path / "study.yaml"
    study.touch()
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    found = subprocess.Popen([*program, "sweep", "study.yaml", "--jobs", "2"], cwd=tmp_path)
    another = subprocess.Popen([*program, "sweep", "study.yaml"], cwd=REPOSITORY)
    try:
        assert [process.pid for process in sweeping(study)] == [found.pid]
    finally:
        for process in (found, another):
            process.kill()
            process.wait()


def test_what_is_called_nothing_is_refused_with_the_closest_name(tiny, capsys):
    config = tiny(name="digits-gram")
    Run.create(config)
    assert cli.main(["stop", "digits-grma", "--runs", config.runs]) == 2
    assert "did you mean 'digits-gram'?" in capsys.readouterr().err
