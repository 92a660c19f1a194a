"""Start a run on 1..N processes, from a notebook cell or a shell, and follow it live.

``launch`` never forks the calling process: it starts ``python -m research.training RUN_DIR`` (for several processes
through torchelastic's agent, ``python -m research.launcher.launch RUN_DIR``) and then only reads what the run writes.
Whatever it started ends when the calling process dies.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from research.config import Config
from research.data import LOADER_DECIDED
from research.errors import Failure, UsageError
from research.launcher.progress import Progress
from research.processes import die_with_parent, terminate
from research.runs.run import Run
from research.runs.status import recorded

POLL_SECONDS = 0.2
GRACE_SECONDS = 25.0  # for a checkpoint, when training is interrupted


class TrainingFailed(Failure):
    """A worker raised; the message is the worker's own traceback."""


def launch(config: Config) -> Run:
    """Train what ``config`` defines and return its run; a finished run is returned as it is.

    An interrupted or killed run continues from its last checkpoint. Ctrl-C (or the notebook's stop button) lets the
    workers write one more checkpoint and ends them.

    Raises:
        UsageError: something is wrong with the data, the devices or the run directory; nothing was started.
        TrainingFailed: training raised; carries the worker's traceback.
    """
    from research.training.preflight import preflight  # imports torch, which a launcher needs only now

    info = preflight(config)
    run = Run.create(config)
    if run.status["status"] == "finished":
        print(f"{run.name}: already finished, best top-1 {run.status['best_top1']:.2f} %; see {run.dir}")
        return run
    if config.nodes == 1:  # of several nodes, another may have begun
        with run.alone(patience=3.0):
            pass
    with Progress(run, images=info.train) as progress:
        for _ in range(1 + config.restarts):
            run.set_status("running")
            code = train(run, progress, info.loader)
            if recorded(run.dir)["status"] != "running":  # else a worker was lost: continue from the last checkpoint
                break
    raise_failure(run, code)
    return run


def train(run: Run, progress: Progress, loader: str) -> int:
    """Start the processes of ``run``, show its rows until they end, and return the exit code."""
    agent = start(run, loader)
    try:
        for row in follow(run.paths.metrics, agent):
            progress.show(row)
    finally:
        terminate(agent, grace=GRACE_SECONDS)
    return agent.returncode


def start(run: Run, loader: str) -> subprocess.Popen:
    """The processes of ``run``, in a process group of their own, with the ``loader`` that was decided on.

    What they print goes to ``log.txt``.
    """
    alone = run.config.processes == run.config.nodes == 1
    threads = run.config.threads or max(1, len(os.sched_getaffinity(0)) // run.config.processes)
    with open(run.paths.output, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "research.training" if alone else "research.launcher.launch", str(run.dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", LOADER_DECIDED: loader},
            start_new_session=True,
        )


def follow(path: Path, agent: subprocess.Popen) -> Iterator[dict]:
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
                        yield json.loads(line)
        if not ended:
            yield {}
            time.sleep(POLL_SECONDS)


def raise_failure(run: Run, code: int) -> None:
    """Raise in this process what ended the workers; nothing when the run finished."""
    status = recorded(run.dir)
    if status["status"] == "finished" or (code == 0 and run.config.nodes > 1):
        return
    if status["status"] == "failed":
        if status["usage"]:
            if "step" not in status:
                shutil.rmtree(run.dir)  # it never began, so nothing of it is worth a folder
            raise UsageError(status["message"])
        raise TrainingFailed(f"{status['message']}\n\n{status['traceback']}")
    if status["status"] == "interrupted":
        raise KeyboardInterrupt(f"run {run.name} stopped; the same command continues it")
    tail = run.paths.output.read_text(errors="replace").splitlines()[-15:]
    raise TrainingFailed(
        f"run {run.name}: a worker was lost more than restarts={run.config.restarts} times (agent exit code {code}); "
        "the same command continues it. The end of its log:\n" + "\n".join(tail)
    )


def agent_main(directory: str) -> None:
    """torchrun for the run in ``directory``, dying with the process that launched it."""
    die_with_parent(signal.SIGTERM)
    from torch.distributed.run import main as torchrun

    config = Run.open(directory).config
    if config.nodes == 1:
        where = ["--standalone"]
    else:
        where = ["--nnodes", str(config.nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", config.rendezvous]
        where += ["--rdzv-id", config.run_name]
    torchrun([*where, "--nproc-per-node", str(config.processes), "-m", "research.training", directory])


if __name__ == "__main__":
    agent_main(sys.argv[1])
