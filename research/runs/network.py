"""The network of a run: made by name, with substitutes, changed as the run's methods change it; on which device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from research.config import Config
from research.hooks import HOOKS
from research.layers.substitute import substitute
from research.models import create_model
from research.runs.run import Run


def build_network(run: Run, classes: int, shape: tuple[int, ...]) -> None:
    """The run's network for inputs of ``shape`` (C, H, W), with initial weights, changed as the run's hooks change it.

    Needs ``run.device`` and no data.
    """
    config = run.config
    run.seed_everything("initial weights")
    run.model = create_model(config.model, num_classes=classes, input_shape=shape, **config.model_args)
    run.substitution = substitute(run.model, config.substitute, shape)
    run.hooks = {name: HOOKS[name](**given) for name, given in config.hooks.items()}
    run.model.to(run.device)
    for hook in run.hooks.values():
        hook.build(run)
    run.model.to(run.device)  # with what the hooks put in


def pick_device(config: Config) -> torch.device:
    """The device of this process: its own GPU when there are GPUs and the run may use them."""
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


class ScratchRun(Run):
    """A run in memory, to build or evaluate a network: its rows go nowhere, and nothing reaches its directory."""

    def log(self, kind: str, **values: Any) -> None:
        pass


def network_of(config: Config, classes: int, shape: tuple[int, ...], device: torch.device) -> nn.Module:
    """The network of a run with ``config``, with the run's initial weights, for inputs of ``shape`` (C, H, W)."""
    run = ScratchRun(Path(config.runs) / config.run_name, config)
    run.device = device
    build_network(run, classes, shape)
    return run.model
