"""``python -m research.contracts.ranks RUN_DIR...``, under torchrun: one process of each of these runs.

A run called ``cut-…`` loses its power and is trained again, one called ``double-…`` is computed in float64. What a
process has in the end is left in ``rankN.pt``: parameters, and tensors in the states of methods.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from research.contracts.bench import FailingPower, PowerCut
from research.distributed import destroy_distributed, init_distributed
from research.runs.network import pick_device
from research.runs.run import Run
from research.training.loop import fit


def main(directories: list[str]) -> None:
    torch.set_num_threads(1)
    place = init_distributed(torch.device("cpu"))
    for directory in directories:
        name = Path(directory).name
        torch.set_default_dtype(torch.float64 if name.startswith("double") else torch.float32)
        for cut in (True, False) if name.startswith("cut") else (False,):
            run = Run.open(directory)
            run.device, (run.rank, run.world) = pick_device(run.config), place
            if cut:
                run.pulse = FailingPower()
            try:
                fit(run)
            except PowerCut:
                continue
        kept = {name: parameter.detach() for name, parameter in run.model.named_parameters()}
        for name, hook in run.hooks.items():
            kept |= {f"{name}.{key}": v for key, v in hook.state_dict().items() if isinstance(v, torch.Tensor)}
        torch.save(kept, run.dir / f"rank{run.rank}.pt")
    destroy_distributed()


if __name__ == "__main__":
    main(sys.argv[1:])
