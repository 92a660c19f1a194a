"""What killed processes left lying is found and removed; what a user or a living process has is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research import cli
from research.data.ffcv.beton import MACHINE
from research.runs.leftovers import PATIENCE, find_leftovers, remove
from research.runs.run import Run


def make(path: Path, content: str = "", age: float = 2 * PATIENCE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return aged(path, age)


def aged(path: Path, age: float = 2 * PATIENCE) -> Path:
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def finished(tiny):
    run = Run.create(tiny(name="finished"))
    run.set_status("finished", step=22, epoch=2, epochs=2)
    for path in run.dir.iterdir():
        aged(path)
    return run


def test_what_a_kill_leaves_is_found_and_nothing_else(finished, tiny, tmp_path, dead, capsys):
    runs = finished.dir.parent
    failed = Run.create(tiny(name="failed"))
    failed.set_status("failed", message="no")
    left = {
        make(finished.dir / ".status.json.0a1b2c3d.part", "{"),
        make(finished.dir / ".config.json.abcd_efg", "{"),
        make(finished.dir / "figures" / "curves.png"),
        make(runs / "log" / "2026-11-28-curves.pdf"),
        make(runs / "analysis" / "curves-20261128-101500.ipynb"),
        make(runs / f".train-{dead}.ipynb", "{}"),
        make(runs / f".digits-train.beton.{MACHINE}.{dead}.part", "half"),
        failed.dir,
    }
    session = make(finished.dir / ".session" / "rank-0", "1").parent
    left |= {aged(session)}
    for path in failed.dir.iterdir():
        aged(path)
    kept = {
        make(finished.dir / ".notes.template", "mine"),
        make(finished.dir / "figures" / "full.png", "png"),
        make(finished.dir / "figures" / "fresh.png", age=1),
        make(finished.dir / ".summary.csv.0a1b2c3d.part", "x", age=1),
        make(runs / f".train-{os.getpid()}.ipynb", "{}"),
        make(runs / f".digits-val.beton.{MACHINE}.{os.getpid()}.part", "half"),
        make(runs / "pictures" / "class" / "empty.png"),
        make(runs / "mine.ipynb"),
        make(runs / "todo.part", "x"),
        finished.paths.config,
        finished.paths.status,
    }
    assert {leftover.path for leftover in find_leftovers(runs)} == left
    assert cli.main(["clean", str(runs)]) == 0
    assert f"{len(left)} leftovers found; --yes removes them" in capsys.readouterr().out
    assert all(path.exists() for path in left | kept)
    assert cli.main(["clean", str(runs), "--yes"]) == 0
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    assert cli.main(["clean", str(runs)]) == 0
    assert "nothing left lying" in capsys.readouterr().out


def test_a_run_that_trains_or_waits_or_has_begun_is_no_leftover(tiny):
    created, begun, training = (Run.create(tiny(name=name)) for name in ("created", "begun", "training"))
    begun.set_status("failed", step=4, message="no")
    training.set_status("running")
    with training.alone():
        for run in (created, begun, training):
            for path in run.dir.iterdir():
                aged(path)
        assert find_leftovers(created.dir.parent) == []


def test_what_was_written_to_since_stays(finished):
    part = make(finished.dir / ".status.json.0a1b2c3d.part", "{")
    (leftover,) = find_leftovers(finished.dir)
    aged(part, 0)
    remove(leftover)
    assert part.exists()


def test_a_folder_that_is_not_there_is_a_line(here, capsys):
    assert cli.main(["clean"]) == 2 and cli.main(["clean", "absent"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: no folder absent"
