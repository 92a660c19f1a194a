"""A process of a run: its device, its place among the others, its signs of life, and the training between them."""

from __future__ import annotations

import torch

from research.distributed import destroy_distributed, init_distributed
from research.processes import keep_freed_memory
from research.resources import Resources
from research.runs.network import pick_device
from research.runs.pulse import STARTING, Pulse
from research.runs.run import Run
from research.training.loop import fit


def train(directory: str) -> None:
    """Train the run in ``directory`` as the rank that the environment names."""
    keep_freed_memory()
    run = Run.open(directory)
    run.resources = Resources.handed()
    if threads := run.resources.threads if run.resources else run.config.threads:
        torch.set_num_threads(threads)
    run.device = pick_device(run.config, run.resources.devices if run.resources else ())
    run.rank, run.world = init_distributed(run.device)
    run.pulse = Pulse(run.paths.session / f"rank{run.rank}")
    run.pulse.beat(0, STARTING)
    try:
        fit(run)
    finally:
        destroy_distributed()
