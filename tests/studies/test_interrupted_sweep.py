"""64 runs, and a sweep that is interrupted again and again: what is finished is never touched, the rest goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from launched import wait_until

from research.runs.paths import RunPaths
from research.runs.run import Run
from research.runs.status import recorded
from research.studies.study import expand, read_study

STUDY = """
name: many
base: {model: mnist_mlp, epochs: 20, device: cpu, threads: 1, log_interval: 4}
grid: {lr: [0.1, 0.05, 0.02, 0.01]}
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
"""
ENDS = (signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)


def finished(points) -> dict:
    """What the finished runs have on disk of their training: every file with its time and place."""
    found = {}
    for point in points:
        if point.status["status"] == "finished":
            paths = RunPaths(point.dir)
            files = [paths.metrics, paths.environment, paths.best, paths.status, *paths.checkpoints.iterdir()]
            found[point.dir] = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}
    return found


def trains(point) -> bool:
    """Whether a run is in the middle of its training."""
    said = recorded(point.dir)
    return said["status"] == "running" and 0 < said.get("epoch", 0) < 15


@pytest.mark.slow
def test_a_sweep_of_64_interrupted_five_times_executes_no_run_twice(here, monkeypatch):
    """Ctrl-C, SIGTERM and kill -9 of the sweep at random moments, and the same command at once after each."""
    draw = random.Random(int(os.environ.get("SEED", 13)))
    (here / "study.yaml").write_text(STUDY)
    points = expand(read_study("study.yaml"))
    done: dict = {}
    for number, end in enumerate((*ENDS, None)):
        log = open(here / f"sweep-{number}.txt", "wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "research", "sweep", "study.yaml", "--jobs", "2"], stdout=log, stderr=log
        )
        before = len(done)
        if end is None:
            assert process.wait(900) == 0
        else:
            wait_until(lambda: len(finished(points)) > before + 3, 300)  # noqa: B023
            wait_until(lambda: any(trains(point) for point in points), 300)
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(end)
            assert process.wait(60) == (-signal.SIGKILL if end == signal.SIGKILL else 130)
        now = finished(points)
        print(f"sweep {number + 1}: {end.name if end else 'to its end'}, {before} -> {len(now)} finished", flush=True)
        assert {folder: now[folder] for folder in done} == done  # not a byte of a finished run was written again
        done = now
    assert len(done) == 64
    sessions = [len(json.loads(Run.open(folder).paths.environment.read_text())) for folder in done]
    rows = [[row for row in metrics(folder) if row["kind"] == "train_epoch"] for folder in done]
    assert all([row["epoch"] for row in each] == list(range(20)) for each in rows)
    assert 64 < sum(sessions) <= 64 + 2 * len(ENDS)  # two at a time went on from where they stood
    print(f"64 runs in {sum(sessions)} sessions, {sum(map(len, rows))} epochs")


def metrics(folder):
    return [json.loads(line) for line in RunPaths(folder).metrics.read_text().splitlines()]
