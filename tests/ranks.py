"""Started by torchrun in tests: train the given runs and keep the parameters and hook state of every rank.

A run whose name ends in ``-cut`` loses power on all ranks after step ``CUT``, and is then trained again.
"""

import sys

import torch
from conftest import Killed, PowerCut

from research.distributed import destroy_distributed, init_distributed
from research.hooks import HOOKS
from research.runs.network import pick_device
from research.runs.run import Run
from research.training.loop import fit

CUT = 7  # in the second epoch
HOOKS["power_cut"] = PowerCut
place = None


def train(directory: str) -> Run:
    global place
    run = Run.open(directory)
    run.device = pick_device(run.config)
    place = place or init_distributed(run.device)
    run.rank, run.world = place
    return fit(run)


for directory in sys.argv[1:]:
    if directory.endswith("-cut"):
        PowerCut.at = CUT
        try:
            train(directory)
        except Killed:
            pass
    run = train(directory)
    kept = {name: p.detach() for name, p in run.model.named_parameters()}
    for name, hook in run.hooks.items():
        kept |= {f"{name}.{key}": value for key, value in hook.state_dict().items() if isinstance(value, torch.Tensor)}
    torch.save(kept, run.dir / f"rank{run.rank}.pt")
destroy_distributed()
