"""The network of a run: made by name, with substitutes, changed as the run's methods change it; on which device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS
from research.layers.substitute import parse_spec, substitute
from research.models import create_model
from research.models.dry_run import WithoutInitialValues
from research.plugins.scope import plugged, with_its_plugins
from research.runs.run import Run


@with_its_plugins
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


def pick_device(config: Config, decided: Sequence[str] = ()) -> torch.device:
    """The device of this process: of those that its launcher ``decided``, else its own GPU when the run may use GPUs.

    Raises:
        UsageError: it was to be a GPU, and this process cannot use that: it never computes on a CPU instead.
    """
    place, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count() if config.device != "cpu" else 0
    wants_gpu = config.device == "cuda" or gpus > 0
    device = torch.device(decided[place] if decided else f"cuda:{place}" if wants_gpu else "cpu")
    if device.type == "cpu":
        return device
    remedy = "look at CUDA_VISIBLE_DEVICES and `research doctor`, or use device=cpu"
    if device.index >= gpus:
        raise UsageError(f"device={config.device!r}: {device} is not there for process {place} ({gpus} GPUs); {remedy}")
    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:
        raise UsageError(f"device={config.device!r}: {device}: {str(error).splitlines()[0]}; {remedy}") from None
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
        with plugged(config.plugin):
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
