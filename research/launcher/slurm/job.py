"""What a job does on its node: start its runs, let them write checkpoints when it has to go, and queue again.

submitit starts :class:`Job` on every node of the job, and queues the job again when Slurm says that it must go.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission

from research.config.config import CHECKED
from research.errors import Failure, UsageError
from research.launcher.slurm.cluster import ask
from research.processes import DIE_WITH_PARENT, STOP_SIGNALS, terminate_all
from research.resources import GPU_SHARERS, SHARERS

POLL_SECONDS = 0.2
GRACE_SECONDS = 60.0  # more than a kernel, and the launcher in it, take for a last checkpoint
PORTS = range(20000, 30000)  # of the rendezvous: one a job, below those that systems hand out
OWN_ANSWER = tuple(n for n in STOP_SIGNALS if n not in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


@dataclass(frozen=True)
class Command:
    """One run as ``research`` starts it."""

    words: tuple[str, ...]  # behind `research`
    log: str  # file that takes what it prints
    processes: int = 1
    gpus: int = 0

    def on(self, node: int, rendezvous: str) -> Command:
        """The command of one node of several: the notebook is executed on the first, the others train with it."""
        words = self.words if node == 0 or self.words[0] != "run" else ("train", *self.words[2:])
        log = Path(self.log)
        return replace(
            self,
            words=(*words, f"rendezvous={rendezvous}"),
            log=str(log if node == 0 else log.with_suffix(f".node{node}.log")),
        )


@dataclass(frozen=True)
class Job:
    """The runs of one job; pickled by submitit, so plain values only."""

    commands: tuple[Command, ...]

    def __call__(self) -> str:
        """Run all commands at once to their end; what submitit keeps as the result.

        Raises:
            Failure: a run failed.
            SystemExit: the job had to go: its runs have written checkpoints, and it is queued again unless cancelled.
        """
        place = submitit.JobEnvironment()
        queue_again = signal.getsignal(getattr(signal, f"SIG{place.USR_SIG}"))  # submitit's answer
        asked: list[int] = []
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, _: asked.append(number))
        commands = self.commands
        if place.num_nodes > 1:
            port = PORTS[int(place.raw_job_id) % len(PORTS)]
            commands = [command.on(place.node, f"{place.hostnames[0]}:{port}") for command in commands]
        running = {command: start(command, index, len(commands)) for index, command in enumerate(commands)}
        while any(process.poll() is None for process in running.values()) and not asked:
            time.sleep(POLL_SECONDS)
        if asked:
            terminate_all(running.values(), GRACE_SECONDS)
        bad = [command for command, process in running.items() if process.returncode]
        if not bad:
            return "finished"
        if not asked:
            raise Failure("\n".join(f"research {' '.join(command.words)}: see {command.log}" for command in bad))
        if signal.SIGINT in asked:  # by `research stop`
            return "stopped"
        if to_be_queued_again(place.job_id):
            queue_again(asked[0], None)
        raise SystemExit(128 + asked[0])

    def checkpoint(self) -> DelayedSubmission:
        """What submitit is to queue again: the same, which goes on where its runs have stopped."""
        return DelayedSubmission(self)


def to_be_queued_again(job: str) -> bool:
    """Whether nobody but the job itself will do it: Slurm has not yet cancelled it or queued it again."""
    try:
        return ask("squeue", "--noheader", "--format=%T", f"--jobs={job}") == ["RUNNING"]
    except UsageError:  # it is gone
        return False


def start(command: Command, index: int, among: int) -> subprocess.Popen:
    """Start the run that is the ``index``-th ``among`` those of this job, with its share of cores and GPUs."""
    environment = {DIE_WITH_PARENT: "SIGTERM", CHECKED: "1"}
    if among > 1:
        environment[SHARERS] = str(among)
        gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        if gpus and command.gpus:
            own = [gpus[(index * command.gpus + one) % len(gpus)] for one in range(command.gpus)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
            environment[GPU_SHARERS] = str(-(-among * command.gpus // len(gpus)))
    Path(command.log).parent.mkdir(parents=True, exist_ok=True)
    with open(command.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "research", *command.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
            preexec_fn=ignore_what_the_job_answers,
        )


def ignore_what_the_job_answers() -> None:
    """Slurm signals every process of a job, also those that have no handler yet; who has one still answers."""
    for number in OWN_ANSWER:
        signal.signal(number, signal.SIG_IGN)
