"""``python -m research.training RUN_DIR``: one process of a run, as torchrun or a launcher starts it."""

from __future__ import annotations

import signal
import sys

import torch

from research.distributed import destroy_distributed, init_distributed
from research.processes import die_with_parent
from research.runs.run import Run
from research.training.loop import fit
from research.training.outcome import stop_on_signals
from research.training.prepare import pick_device


def main(directory: str) -> int:
    """Train the run in ``directory`` as one of the processes that torchrun started; the exit code."""
    die_with_parent(signal.SIGKILL)
    stop_on_signals()
    run = Run.open(directory)
    if run.config.threads:
        torch.set_num_threads(run.config.threads)
    run.device = pick_device(run.config)
    run.rank, run.world = init_distributed(run.device)
    try:
        fit(run)
    finally:
        destroy_distributed()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
