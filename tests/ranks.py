"""Started by torchrun in tests: train the given runs and keep the parameters and hook state of every rank."""

import sys

import torch

from research.distributed import destroy_distributed, init_distributed
from research.runs.network import pick_device
from research.runs.run import Run
from research.training.loop import fit

place = None
for directory in sys.argv[1:]:
    run = Run.open(directory)
    run.device = pick_device(run.config)
    place = place or init_distributed(run.device)
    run.rank, run.world = place
    fit(run)
    kept = {name: p.detach() for name, p in run.model.named_parameters()}
    for name, hook in run.hooks.items():
        kept |= {f"{name}.{key}": value for key, value in hook.state_dict().items() if isinstance(value, torch.Tensor)}
    torch.save(kept, run.dir / f"rank{run.rank}.pt")
destroy_distributed()
