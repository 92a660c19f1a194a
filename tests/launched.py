"""Runs started as a shell starts them, and the processes that work on them."""

import json
import subprocess
import sys
import time
from contextlib import suppress

import psutil

from research.runs.run import Run


def command(config) -> list[str]:
    """A shell's way to start the run of ``config``."""
    program = "import json, sys; from research import Config, launch; launch(Config.load(json.loads(sys.argv[1])))"
    return [sys.executable, "-c", program, json.dumps(config.to_dict())]


def workers(run: Run) -> list[psutil.Process]:
    """Every live process that works on ``run``."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if str(run.dir) in words and "-m" in words and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until(true, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return value


def training(run: Run) -> list[psutil.Process]:
    return [process for process in workers(run) if "research.training" in process.info["cmdline"]]


def kill_all(run: Run, starter: subprocess.Popen) -> None:
    """kill -9 of everything that works on ``run``."""
    starter.kill()
    for process in workers(run):
        process.kill()
    starter.wait()


def begun(run: Run, ranks: int = 1) -> list[psutil.Process]:
    """The training processes of ``run`` once all of them take steps."""

    def going():
        return len(training(run)) == ranks and run.paths.metrics.exists() and run.paths.metrics.stat().st_size > 0

    wait_until(going)
    return training(run)


def slow_steps(in_workers) -> None:
    """Steps of 20 ms, so that a checkpoint within a step can be told from one at the end of an epoch."""
    in_workers("""
        import time
        from research.training import loop
        set_learning_rate = loop.set_learning_rate
        loop.set_learning_rate = lambda run: time.sleep(0.02) or set_learning_rate(run)
    """)
