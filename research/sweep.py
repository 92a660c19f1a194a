"""Studies: a YAML file becomes runs, each a notebook of its own, several at a time; what is finished is skipped.

name: digits-gram-k           # first word of every run's name
notebook: train               # the default
base: {dataset: digits}       # parameters of every run
runs: [{gram: false}, {}]     # alternatives; each goes through the whole grid
grid: {gram.k: [1, 8]}        # every combination
seeds: [0, 1, 2]              # the grid's last dimension
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from tqdm import tqdm

from research.arguments import check_arguments
from research.config import Config
from research.errors import UsageError

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0  # for the checkpoints, when a sweep is interrupted


@dataclass(frozen=True)
class Study:
    """What the YAML file may hold."""

    name: Annotated[str, "first word of every run's name"]
    notebook: Annotated[str, "what each run executes"] = "train"
    base: Annotated[Mapping, "parameters of every run"] = field(default_factory=dict)
    runs: Annotated[tuple[Mapping, ...], "alternatives, each through the whole grid"] = ({},)
    grid: Annotated[Mapping, "parameter -> list of values, every combination"] = field(default_factory=dict)
    seeds: Annotated[tuple[int, ...], "the grid's last dimension"] = ()


@dataclass(frozen=True)
class Point:
    """One run of a study: what varies, everything given, and the Config that makes."""

    varied: Mapping[str, Any]
    parameters: Mapping[str, Any]
    config: Config

    @property
    def dir(self) -> Path:
        return Path(self.config.runs).resolve() / self.config.run_name

    @property
    def status(self) -> dict[str, Any]:
        """What the run's ``status.json`` says; ``{"status": "new"}`` before there is one."""
        try:
            return json.loads((self.dir / "status.json").read_text())
        except FileNotFoundError:
            return {"status": "new"}

    @property
    def log(self) -> Path:
        """What executing this point printed."""
        return self.dir.parent / ".sweep" / f"{self.dir.name}.log"


def sweep(path: str | Path, jobs: int = 1, dry_run: bool = False) -> int:
    """Run the study in ``path``, ``jobs`` runs at a time, and return an exit code: 1 when some run failed.

    Everything is checked before anything starts. Finished runs are skipped and interrupted ones resumed; one failure
    does not stop the others. Ctrl-C ends every child; the same command continues.

    Raises:
        UsageError: every problem of the file and of any of its runs.
    """
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: must be >= 1")
    study = read_study(path)
    points = expand(study)
    print(table(points))
    waiting = [point for point in points if point.status["status"] != "finished"]
    print(f"{len(points)} runs, {len(points) - len(waiting)} finished, {len(waiting)} to run")
    if dry_run or not waiting:
        return 0
    preflight(waiting)
    with sigterm_interrupts():
        failed = execute_all(study.notebook, waiting, jobs)
    for point in failed:
        print(f"failed: {point.dir.name}: {reason(point)}; see {point.log}", file=sys.stderr)
    return 1 if failed else 0


def read_study(path: str | Path) -> Study:
    try:
        given = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"cannot read study {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"study {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, Mapping):
        raise UsageError(f"study {path}: expected a mapping with name, base, grid …")
    values, problems = check_arguments("", Study, given)
    if not problems:
        study = Study(**values)
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", study.name):
            problems.append(f"name={study.name!r}: letters, digits and .+-_ make the runs' folders")
        for key, choices in study.grid.items():
            if not isinstance(choices, list) or not choices:
                problems.append(f"grid.{key}={choices!r}: expected a list of values")
    if problems:
        raise UsageError("\n".join(f"study {path}: {problem}" for problem in problems))
    return study


def expand(study: Study) -> list[Point]:
    """Every point of the study, checked.

    Raises:
        UsageError: every problem of every point; two points that are the same run.
    """
    problems, points = [], {}
    seeds = [{"seed": seed} for seed in study.seeds] or [{}]
    combinations = [dict(zip(study.grid, values, strict=True)) for values in itertools.product(*study.grid.values())]
    for alternative, combination, seed in itertools.product(study.runs or ({},), combinations, seeds):
        varied = {**alternative, **combination, **seed}
        given = {**study.base, **varied}
        if "name" in given:
            problems.append(f"name={given['name']!r}: the study names its runs; leave it out")
        given["name"] = "-".join([study.name, *(word(key, value) for key, value in varied.items())])
        try:
            point = Point(varied, given, Config.load(given))
        except UsageError as error:
            problems += str(error).splitlines()
            continue
        if point.dir in points:
            problems.append(f"{point.dir.name}: this run is in the study twice")
        points[point.dir] = point
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return list(points.values())


def word(key: str, value: Any) -> str:
    """A parameter as part of a folder's name: it depends on nothing else, so that a study may grow."""
    name = key.replace(".", "-").replace("_", "-")
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    plain = re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-")[:24]
    if plain != text:  # something was lost: keep different values apart
        plain += "-" + hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return f"{name}-{plain}"


def table(points: list[Point]) -> str:
    """One line a point: the run's name, what varies, and how far it is."""
    lines = []
    for point in points:
        state = point.status
        done = f" {state['epoch']}/{state['epochs']}" if "epochs" in state else ""
        varied = " ".join(f"{key}={json.dumps(value)}" for key, value in point.varied.items())
        lines.append((point.dir.name, varied, state["status"] + done))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def preflight(points: list[Point]) -> None:
    """Look at data, devices and existing run directories, as each run would; nothing has been started yet."""
    from research.launch import check
    from research.run import Run

    problems, looked = [], set()
    for point in points:
        config = point.config
        data = (
            config.dataset,
            repr(config.data_args),
            config.data_root,
            config.loader,
            config.batch_size,
            config.device,
        )
        try:
            if (point.dir / "config.json").exists() and Run.open(point.dir).config.identity != config.identity:
                raise UsageError(f"{point.dir} belongs to another configuration; rename the study or that run")
            if data not in looked:
                looked.add(data)
                check(config)
        except UsageError as error:
            problems += str(error).splitlines()
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))


def execute_all(notebook: str, points: list[Point], jobs: int) -> list[Point]:
    """Run every point, ``jobs`` at a time, under one bar; the points that failed."""
    from research.processes import end
    from research.schedule import total_epochs

    failed, queue, running = [], list(points), {}
    already = {point.dir: point.status.get("epoch", 0) for point in points}
    left = {point.dir: total_epochs(point.config) - already[point.dir] for point in points}
    settled = 0
    with tqdm(total=sum(left.values()), unit="epoch", desc="sweep", mininterval=1.0) as bar:
        try:
            while queue or running:
                for slot in [slot for slot in range(jobs) if slot not in running][: len(queue)]:
                    point = queue.pop(0)
                    running[slot] = (point, start(notebook, point, slot, jobs))
                for slot in [slot for slot, (_, process) in running.items() if process.poll() is not None]:
                    point, process = running.pop(slot)
                    settled += left[point.dir]
                    failed += [point] if process.returncode else []
                    bar.write(f"{'FAILED  ' if process.returncode else 'finished'} {point.dir.name}{outcome(point)}")
                now = settled + sum(point.status.get("epoch", 0) - already[point.dir] for point, _ in running.values())
                bar.update(max(0, now - bar.n))
                done = len(points) - len(queue) - len(running)
                bar.set_postfix_str(f"{done}/{len(points)} runs, {len(failed)} failed")
                time.sleep(POLL_SECONDS)
        finally:
            for _, process in running.values():
                process.terminate()  # all of them first: they write their checkpoints at the same time
            for _, process in running.values():
                end(process, GRACE_SECONDS)
    return failed


def start(notebook: str, point: Point, slot: int, jobs: int) -> subprocess.Popen:
    """``research run`` for one point, in a process group of its own; what it prints goes to the point's log."""
    words = [f"{key}={json.dumps(value)}" for key, value in point.parameters.items()]
    if "threads" not in point.parameters:
        words.append(f"threads={max(1, len(os.sched_getaffinity(0)) // (jobs * point.config.processes))}")
    point.log.parent.mkdir(parents=True, exist_ok=True)
    with open(point.log, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "research.sweep", "run", notebook, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | share_of_gpus(slot, jobs),
            start_new_session=True,
        )


def share_of_gpus(slot: int, jobs: int) -> dict[str, str]:
    """The GPUs that one of several jobs may use; nothing to say with one job or without GPUs."""
    import torch

    count = torch.cuda.device_count()
    if jobs == 1 or count < 2:
        return {}
    known = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = known if known != [""] else [str(index) for index in range(count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[slot % count :: jobs])}


def outcome(point: Point) -> str:
    best = point.status.get("best_top1")
    return "" if best is None else f"  best top-1 {best:.2f} %"


def reason(point: Point) -> str:
    """Why a point failed, in one line: what its run says, else the last line it printed."""
    said = point.status.get("message") or point.log.read_text(errors="replace").strip()
    return said.splitlines()[-1] if said else "no output"


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":  # one run of a sweep: ``research …``, ending with the sweep however that ends
    from research.cli import console
    from research.processes import die_with_parent

    die_with_parent(signal.SIGTERM)
    console()
