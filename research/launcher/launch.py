"""Start a run on 1..N processes, from a notebook cell or a shell, and follow it live.

``launch`` never forks the calling process: it starts ``python -m research.training RUN_DIR`` (for several processes
through torchelastic's agent, ``python -m research.launcher.agent RUN_DIR``) and then only reads what the run writes.
Whatever it started ends when the calling process dies.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from research.config import Config
from research.errors import Failure, UsageError
from research.launcher import warm
from research.launcher.nodes import NotGathered, gathered
from research.launcher.progress import Progress
from research.launcher.warm import Command, Started
from research.launcher.watch import Hung, Watch
from research.processes import PARENT, STOP_SIGNALS, STOPPED, Interruption, inherited_block, kill, terminate
from research.resources import Resources, decide
from research.runs.metrics import read_row
from research.runs.run import Run
from research.runs.status import recorded
from research.training.outcome import ASKED, of_the_place

POLL_SECONDS = 0.2
GRACE_SECONDS = 25.0  # for a checkpoint, when training is interrupted
USAGE = 2  # exit code of a process that refused something
# What torchrun tells its processes, and takes from its own environment: of a group around the launcher it is wrong here
OF_ANOTHER_GROUP = re.compile(
    "((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(TORCHELASTIC|PET)_.*)"
)


class TrainingFailed(Failure):
    """A worker raised; the message is the worker's own traceback."""


class Ended(NamedTuple):
    """How the processes of a run ended: the agent's exit code, what it printed, and which rank hung, if one did."""

    code: int
    printed: list[str]
    hung: str = ""


def launch(config: Config) -> Run:
    """Train what ``config`` defines and return its run; a finished run is returned as it is.

    An interrupted or killed run continues from its last checkpoint. Ctrl-C, the notebook's stop button, SIGTERM, SIGHUP
    and SIGUSR1 let the workers write one more checkpoint and end them.

    Raises:
        UsageError: something is wrong with the data, the devices or the run directory; nothing was started.
        NotGathered: of several nodes some did not come.
        TrainingFailed: training raised; carries the worker's traceback.
        KeyboardInterrupt: training was asked to stop; its checkpoint is written.
    """
    from research.training.preflight import preflight  # imports torch, which a launcher needs only now

    info = preflight(config)
    resources = decide(config, info.loader)
    run = Run.create(config)
    if (status := run.status)["status"] == "finished":
        best = status.get("best_top1")
        print(f"{run.name}: already finished, {'' if best is None else f'best top-1 {best:.2f} %; '}see {run.dir}")
        return run
    try:
        with Interruption() as interruption, alone(run):
            try:
                follow_to_the_end(run, info.train, resources, interruption)
            finally:
                shutil.rmtree(run.paths.session, ignore_errors=True)
    except KeyboardInterrupt:
        finished = recorded(run.dir)["status"] == "finished"
        with suppress(OSError):
            mark_interrupted(run)
        done = "finished before it could be stopped" if finished else "stopped; the same command continues it"
        raise KeyboardInterrupt(f"run {run.name} {done}") from None
    except (UsageError, NotGathered):
        run.remove_unbegun()
        raise
    except OSError as error:
        if (told := of_the_place(run, error)) is error:
            raise
        run.remove_unbegun()
        raise told from error
    return run


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Be the only launcher of ``run`` on this machine; UsageError when it is being trained. Other nodes may begin."""
    if run.config.nodes > 1:
        yield
        return
    with run.launched_alone():
        with run.alone(patience=3.0):  # of processes without a launcher, or of one that was just killed
            shutil.rmtree(run.paths.session, ignore_errors=True)  # of a launcher that was killed
        yield


def follow_to_the_end(run: Run, images: int, resources: Resources, interruption: Interruption) -> None:
    """Train ``run`` on ``images``, again where a worker was lost, until it ends; raise what ended it."""
    with Progress(run, images) as progress:
        for _ in range(1 + run.config.restarts):
            run.set_status("running")
            with gathered(run, resources, interruption, progress.say) as node:
                ended = train(run, resources.environment() | node, progress, interruption)
            if ended.hung:
                progress.say(ended.hung)
            if not lost(run, ended):
                break
    raise_failure(run, ended)


def lost(run: Run, ended: Ended) -> bool:
    """Whether a worker was lost, so that the run is worth another start from its last checkpoint."""
    told = recorded(run.dir)["status"] != "running" or ended.code in (USAGE, STOPPED) or -ended.code in STOP_SIGNALS
    return not told and not (ended.code == 0 and run.config.nodes > 1)


def train(run: Run, decided: dict[str, str], progress: Progress, interruption: Interruption) -> Ended:
    """Start the processes of ``run`` with what was ``decided``, show its rows until they end; how they did."""
    output = run.paths.output
    before = output.stat().st_size if output.exists() else 0
    watch = Watch(run)
    agent = start(run, decided)
    hung = ""
    try:
        interruption.release()
        for row in follow(run.paths.metrics, agent):
            progress.show(row)
            watch.look()
    except Hung as error:
        hung = str(error)
        kill(agent)  # a rank that hangs cannot write a checkpoint
    finally:
        terminate(agent, grace=GRACE_SECONDS)
    with open(output, "rb") as file:
        file.seek(before)
        printed = file.read().decode(errors="replace").splitlines()
    return Ended(agent.returncode, printed, hung)


def start(run: Run, decided: dict[str, str]) -> Started:
    """The processes of ``run``, in a process group of their own, with what was ``decided`` in their environment.

    What they print goes to ``log.txt``.
    """
    alone = run.config.processes == run.config.nodes == 1
    inherited = {name: value for name, value in os.environ.items() if not OF_ANOTHER_GROUP.fullmatch(name)}
    own = {"PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())} | decided
    module = "research.training" if alone else "research.launcher.agent"
    with inherited_block():
        return warm.start(Command(module, [str(run.dir)], inherited | own, run.paths.output))


def follow(path: Path, agent: Started) -> Iterator[dict]:
    """Rows of ``path`` as they are written, from now until ``agent`` ends; ``{}`` at every look that finds none.

    The file may shrink meanwhile: a run that continues drops the rows after its checkpoint. Rows that it wrote instead
    before the next look, up to where the old ones ended, are passed over.
    """
    position = path.stat().st_size if path.exists() else 0
    ended = False
    while not ended:
        ended = agent.poll() is not None  # looked at before reading, so that the last rows are read too
        if path.exists():
            position = min(position, path.stat().st_size)
            with open(path, "rb") as file:
                file.seek(max(0, position - 1))
                if position:  # on to the next whole row, where the file has shrunk and grown beyond since the last look
                    position += len(file.readline()) - 1
                for line in file:
                    if line.endswith(b"\n"):
                        position += len(line)
                        yield read_row(line) or {}
        if not ended:
            yield {}
            time.sleep(POLL_SECONDS)


def raise_failure(run: Run, ended: Ended) -> None:
    """Raise in this process what ended the workers; nothing when the run finished."""
    status = recorded(run.dir)
    if status["status"] == "finished" or (ended.code == 0 and run.config.nodes > 1):
        return
    if status["status"] == "failed":
        if status.get("usage"):
            raise UsageError(status.get("message", ""))
        raise TrainingFailed(f"{status.get('message')}\n\n{status.get('traceback')}")
    if status["status"] == "interrupted" or ended.code == STOPPED or -ended.code in STOP_SIGNALS:
        raise KeyboardInterrupt
    if ended.code == USAGE:
        refused = [line.removeprefix("error: ") for line in ended.printed if line.startswith("error: ")]
        raise UsageError("\n".join(dict.fromkeys(refused)) or f"cannot write {run.paths.output}: is the disk full?")
    what = ended.hung or f"a worker was lost (agent exit code {ended.code})"
    raise TrainingFailed(
        f"run {run.name}: {what}, more than restarts={run.config.restarts} times; the same command continues it. "
        "The end of its log:\n" + "\n".join(ended.printed[-15:])
    )


def mark_interrupted(run: Run) -> None:
    """Say in the status that ``run`` was stopped, where its processes had no time to."""
    if recorded(run.dir)["status"] == "running":
        run.set_status("interrupted", message=ASKED)
