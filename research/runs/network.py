"""The network of a run: made by name, with substitutes, changed as the run's methods change it; on which device."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from research.config import Config
from research.hooks import HOOKS
from research.layers.substitute import parse_spec, substitute
from research.models import create_model
from research.models.dry_run import WithoutInitialValues
from research.runs.run import Run


def build_network(run: Run, classes: int, shape: tuple[int, ...], without: str = "") -> None:
    """The run's network for inputs of ``shape`` (C, H, W), with initial weights, changed as the run's hooks change it.

    Needs ``run.device`` and no data. Hooks that decide what ``without`` names, such as "masks", are left out.
    """
    config = run.config
    run.hooks = {name: HOOKS[name](**given) for name, given in config.hooks.items()}
    run.seed_everything(next(filter(None, (hook.initial_stream() for hook in run.hooks.values())), "initial weights"))
    run.model = create_model(config.model, num_classes=classes, input_shape=shape, **config.model_args)
    run.substitution = substitute(run.model, config.substitute, shape)
    run.model.to(run.device)
    for hook in run.hooks.values():
        if not without or hook.exclusive != without:
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
    """A run in memory, to build or evaluate a network: rows are dropped, and its directory is never written."""

    def log(self, kind: str, **values: Any) -> None:
        pass


def network_of(
    config: Config, classes: int, shape: tuple[int, ...], device: torch.device, without: str = ""
) -> nn.Module:
    """The network of a run with ``config``, with the run's initial weights, as :func:`build_network` makes it.

    It lacks what a hook copies from another run when training begins.
    """
    run = ScratchRun(Path(config.runs) / config.run_name, config)
    run.device = device
    build_network(run, classes, shape, without)
    return run.model


class Outline(ScratchRun):
    """A run's network before the run is made: its layers, masks and methods, with weights that have no values."""

    device = torch.device("cpu")
    rank = 1  # so that it says nothing

    @classmethod
    def of(cls, config: Config, classes: int, shape: tuple[int, ...], samples: int) -> Outline:
        """The outline of the run that ``config`` defines, for data of this kind with ``samples`` to train on.

        Raises:
            UsageError: a method or a substitute does not fit the network.
        """
        args = {name: value for name, value in config.model_args.items() if name not in ("weights", "pretrained")}
        spec = parse_spec(config.substitute)
        if spec:  # without values there is nothing to start from
            spec = replace(spec, options=replace(spec.options, from_dense=False))
        outline = cls(Path(config.runs) / config.run_name, replace(config, model_args=args, substitute=str(spec or "")))
        with WithoutInitialValues(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            build_network(outline, classes, shape)
        outline.epochs, outline.steps_per_epoch = config.total_epochs, samples // config.batch_size
        return outline

    def seed_everything(self, *names: object) -> None:
        """Leave the generators of this process alone."""
