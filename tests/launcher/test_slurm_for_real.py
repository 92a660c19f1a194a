"""A study on a real Slurm of this machine: jobs that are preempted, requeued and stopped end with the same bits."""

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
EPOCHS = 20  # of 11 steps of 20 ms


@pytest.fixture
def study(here, tiny, in_workers):
    """The file of a study of four runs that take seconds, and the runs."""
    slow_steps(in_workers)
    base = {name: value for name, value in tiny(epochs=EPOCHS).changes().items() if name not in ("name", "seed")}
    base |= {"runs": str(here / "on-slurm"), "device": "cpu", "threads": 1}
    Path("study.yaml").write_text(yaml.safe_dump({"name": "s", "base": base, "seeds": [0, 1, 2, 3]}))
    return "study.yaml", [here / "on-slurm" / f"s-seed-{seed}" for seed in range(4)]


def job_of(run: Path) -> str:
    return json.loads((run.parent / ".slurm" / f"{run.name}.json").read_text())["job"]


def further(run: Path, epochs: int) -> bool:
    """Whether ``run`` is trained in a job right now, and has come further than ``epochs``."""
    standing = standings([run]).get(run)
    return bool(standing) and standing.state == "RUNNING" and recorded(run).get("epoch", 0) > epochs


def test_runs_that_are_preempted_end_with_the_same_bits(study, tmp_path, tiny, capsys):
    path, runs = study
    with cluster(tmp_path / "slurm"):
        assert cli.main(["sweep", path, "--on", "slurm", "--partition", "low", "--time", "60"]) == 0
        for victim, away in (
            (runs[0], ["scontrol", "requeue", job_of(runs[0])]),
            (runs[1], ["sbatch", "--partition=high", "--exclusive", "--wrap=sleep 2"]),
        ):
            for _ in range(2):
                before = recorded(victim).get("epoch", 0)
                wait_until(partial(further, victim, before), 240)
                subprocess.run(away, check=True, capture_output=True)
                wait_until(lambda run=victim: not further(run, -1), 120)
                assert recorded(victim)["status"] == "interrupted"
        capsys.readouterr()
        cli.main(["sweep", path, "--status"])
        assert "s-seed-1  seed=1  preempted, queued again (job" in capsys.readouterr().out
        assert cli.main(["sweep", path, "--on", "slurm", "--wait"]) == 0, "follows what is in the queue"
        restarts = [standings([run])[run].restarts for run in runs[:2]]
    assert min(restarts) >= 2
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
        cli.main(["sweep", path, "--status"])
        assert [recorded(run)["status"] for run in runs] == ["interrupted", "interrupted", "new", "new"]
        assert cli.main(["sweep", path, "--on", "slurm", "--time", "60", "--wait", "--only", "s-seed-0"]) == 0
    assert recorded(runs[0])["status"] == "finished"
