"""A study on a real Slurm of this machine: jobs that are preempted, queued again, and stopped."""

import json
import subprocess
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import assert_same_run
from launched import slow_steps, wait_until
from slurm_cluster import cluster

from research import cli
from research.launcher.slurm.queue import standings
from research.runs.run import Run
from research.runs.status import recorded
from research.training.loop import fit

pytestmark = pytest.mark.slow
EPOCHS = 30  # of 11 steps of 20 ms


@pytest.fixture
def study(here, tiny, in_workers):
    """The file of a study of runs that take seconds, and the runs."""
    slow_steps(in_workers)
    base = {name: value for name, value in tiny(epochs=EPOCHS).changes().items() if name not in ("name", "seed")}
    base |= {"runs": str(here / "on-slurm"), "device": "cpu", "threads": 1}
    Path("study.yaml").write_text(yaml.safe_dump({"name": "s", "base": base, "seeds": [0, 1, 2]}))
    return "study.yaml", [here / "on-slurm" / f"s-seed-{seed}" for seed in range(3)]


def job_of(run: Path) -> str:
    return json.loads((run.parent / ".slurm" / f"{run.name}.json").read_text())["job"]


def further(run: Path, epochs: int) -> bool:
    """Whether ``run`` is trained in a job right now, and has come further than ``epochs``."""
    said = recorded(run)
    return said["status"] == "running" and said.get("epoch", 0) > epochs and standings([run])[run].state == "RUNNING"


def test_a_run_that_is_preempted_ends_with_the_same_bits(study, tmp_path, tiny, capsys):
    path, runs = study
    victim = runs[0]
    with cluster(tmp_path / "slurm"):
        assert cli.main(["sweep", path, "--on", "slurm", "--partition", "low", "--time", "60"]) == 0
        by_hand = ["scontrol", "requeue", job_of(victim)]
        by_another_job = ["sbatch", "--partition=high", "--exclusive", "--wrap=sleep 2"]
        for away in (by_hand, by_another_job):
            wait_until(partial(further, victim, recorded(victim).get("epoch", 0)), 400)
            subprocess.run(away, check=True, capture_output=True)
            wait_until(lambda: recorded(victim)["status"] == "interrupted", 120)
        wait_until(lambda: standings([victim])[victim].waits, 60)
        capsys.readouterr()
        cli.main(["sweep", path, "--status"])
        assert "s-seed-0  seed=0  preempted, queued again (job" in capsys.readouterr().out
        assert cli.main(["sweep", path, "--on", "slurm", "--wait"]) == 0, "follows what is in the queue"
        assert standings([victim])[victim].restarts == 2
    for run in runs:
        there = Run.open(run)
        assert_same_run(there, fit(Run.create(tiny(epochs=EPOCHS, seed=there.config.seed, name=run.name))))


def test_runs_that_are_stopped_leave_the_queue_with_a_checkpoint_and_are_queued_again(study, tmp_path, capsys):
    path, runs = study
    with cluster(tmp_path / "slurm"):
        cli.main(["sweep", path, "--on", "slurm", "--time", "60", "--pack", "2", "--array-parallelism", "1"])
        wait_until(lambda: further(runs[0], 0) and further(runs[1], 0), 240)
        capsys.readouterr()
        assert cli.main(["stop", path]) == 0
        said = capsys.readouterr().out
        assert "asked to stop: was running on" in said and "cancelled: was queued" in said
        wait_until(lambda: not any(standing.active for standing in standings(runs).values()), 120)
        assert [recorded(run)["status"] for run in runs] == ["interrupted", "interrupted", "new"]
        assert cli.main(["sweep", path, "--on", "slurm", "--time", "60", "--wait", "--only", "s-seed-0"]) == 0
    assert recorded(runs[0])["status"] == "finished"
