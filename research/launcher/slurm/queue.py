"""Jobs in Slurm's queue: submitted, how they stand, cancelled. Which job holds a run is a file beside the runs."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.errors import UsageError, tell
from research.files import read_json, write_atomic
from research.launcher.slurm.cluster import ask, refusal
from research.launcher.slurm.options import Options

if TYPE_CHECKING:
    from research.launcher.slurm.job import Job

FOREVER = 10**6  # a run that makes progress may use up as many jobs as it takes
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
AT_WORK = ("RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING")
FIELDS = ("JobArrayID", "State", "Reason", "NodeList", "RestartCnt")


@dataclass(frozen=True)
class Standing:
    """How Slurm says that a job stands."""

    job: str
    state: str  # Slurm's word
    reason: str = ""
    nodes: str = ""
    restarts: int = 0

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def active(self) -> bool:
        return self.waits or self.state in AT_WORK

    @property
    def ended_in_order(self) -> bool:
        """Whether the job ended as it wished: what became of its runs, they say."""
        return self.state == "COMPLETED"

    def __str__(self) -> str:
        again = f", started {self.restarts + 1} times" if self.restarts else ""
        if self.state in AT_WORK:
            return f"running on {self.nodes} (job {self.job}{again})"
        if self.waits:
            queued = f"preempted, queued again (job {self.job}{again}" if self.restarts else f"queued (job {self.job}"
            return f"{queued}: {self.reason})"
        why = "" if self.reason in ("", "None", "NonZeroExitCode", self.state) else f", {self.reason}"
        end = "ended with an error" if self.state == "FAILED" else self.state.lower().replace("_", " ")
        return f"{end} (job {self.job}{why})"


def job_file(run: Path) -> Path:
    """The file that says which job holds ``run``, a folder that need not be there yet."""
    return run.parent / ".slurm" / f"{run.name}.json"


def _told(run: Path) -> dict[str, Any]:
    """What the file of the job of ``run`` says; nothing when there is none, or it is damaged."""
    told = read_json(job_file(run), None)
    return told if isinstance(told, dict) else {}


def held_with(run: Path) -> list[str]:
    """The names of all runs that the job of ``run`` holds."""
    return [str(name) for name in _told(run).get("runs", ())]


def log_of(run: Path) -> str:
    """The file that takes what the command of ``run`` prints in its job; empty when it has no job."""
    log = _told(run).get("log")
    return os.path.relpath(log) if isinstance(log, str) and log else ""


def queued_in(place: str | Path) -> list[Path]:
    """The folders, not there yet, of runs that were queued in ``place``: a folder of runs, or a pattern in one."""
    place = Path(place)
    folder, pattern = (place, "*") if place.is_dir() else (place.parent, place.name)
    names = [path.stem for path in sorted((folder / ".slurm").glob("*.json"))]
    unbegun = [folder.resolve() / name for name in names if fnmatch(name, pattern) and not (folder / name).exists()]
    return [run for run, standing in standings(unbegun).items() if standing.active]


def submit(jobs: Mapping[Job, Sequence[Path]], options: Options, asked: Mapping[str, Any], name: str) -> list[str]:
    """Queue ``jobs``, each with the folders of its runs, as one array; their ids.

    ``asked`` are the GPUs and cores of a node.

    Raises:
        UsageError: sbatch refuses; nothing is queued then.
    """
    import submitit  # may be missing where nothing is queued

    folder = next(iter(jobs.values()))[0].parent / ".slurm" / "jobs"
    named = {word: vars(options)[word] for word in ("partition", "account", "qos", "constraint")}
    asking = {word: value for word, value in named.items() if value}
    asking |= {"mem": options.memory} if options.memory else {}
    asking |= {"gpus_per_node": asked["gpus"]} if asked["gpus"] else {}
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=FOREVER, python=options.python or None)
        executor.update_parameters(
            job_name=name,
            time=options.minutes,
            nodes=options.nodes,
            ntasks_per_node=1,
            cpus_per_task=asked["cpus"],
            signal_delay_s=options.notice,
            array_parallelism=options.array_parallelism or len(jobs),
            setup=list(options.setup) or None,
            # a step of its own takes no number of cores from its job (Slurm 22.05 on); nobody waits for a lost node
            srun_args=[f"--cpus-per-task={asked['cpus']}", "--kill-on-bad-exit=1"],
            additional_parameters={"requeue": True, **options.sbatch},
            stderr_to_stdout=True,
            **asking,
        )
        with executor.batch():
            queued = [executor.submit(job) for job in jobs]
    except (RuntimeError, subprocess.CalledProcessError) as error:
        said = f"{error}\n{getattr(error, 'stderr', '') or ''}"
        raise UsageError(f"Slurm refuses: {refusal(said)}") from None
    for sent, (job, runs) in zip(queued, jobs.items(), strict=True):
        for index, run in enumerate(runs):
            log = job.commands[min(index, len(job.commands) - 1)].log
            told = {"job": sent.job_id, "runs": [each.name for each in runs], "log": log}
            write_atomic(job_file(run), json.dumps(told, indent=2) + "\n")
    return [job.job_id for job in queued]


def standings(runs: Iterable[Path]) -> dict[Path, Standing]:
    """How the jobs stand that hold ``runs``, as far as Slurm knows of them; nothing where there is no Slurm."""
    jobs = defaultdict(list)
    for run in runs:
        if isinstance(job := _told(run).get("job"), str):
            jobs[job].append(run)
    if not jobs or not shutil.which("squeue"):
        return {}
    try:
        found = of_queue()
    except UsageError as error:
        tell(f"Slurm does not say how its jobs stand: {error}")
        return {}
    found |= of_accounting(jobs.keys() - found.keys())
    return {run: found[job] for job, runs in jobs.items() if job in found for run in runs}


def of_queue() -> dict[str, Standing]:
    """Every job of this user that Slurm still has in mind."""
    form = ",".join(f"{field}:|" for field in FIELDS)
    words = ("--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", f"--Format={form}")
    rows = [row.split("|")[: len(FIELDS)] for row in ask("squeue", *words)]
    return {job: Standing(job, state, reason, nodes, int(restarts)) for job, state, reason, nodes, restarts in rows}


def of_accounting(jobs: Iterable[str]) -> dict[str, Standing]:
    """``jobs`` that ended some time ago, where the site keeps accounts."""
    found = {}
    if jobs := sorted(jobs):
        words = ("--allocations", "--noheader", "--parsable2", "--format=JobID,State,Reason,NodeList")
        with suppress(UsageError):
            for row in ask("sacct", *words, f"--jobs={','.join(jobs)}"):
                job, state, reason, nodes = row.split("|")
                found[job] = Standing(job, state.split()[0], reason, nodes)
    return found


def cancel(standing: Standing) -> None:
    """Take a job out of the queue, or let its runs write checkpoints and end it.

    Raises:
        UsageError: Slurm refuses.
    """
    ask("scancel", *(() if standing.waits else ("--signal=INT",)), standing.job)
