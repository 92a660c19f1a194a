"""What is looked at before a run is made: devices, data, methods, and whether the network fits them."""

from __future__ import annotations

import warnings

import torch

from research.config import Config
from research.data.choice import check as check_data
from research.data.loader import DataInfo
from research.errors import UsageError
from research.hooks import HOOKS
from research.hooks.base import refusals
from research.layers.substitute import parse_spec, planned
from research.layers.sync_norm import synchronise
from research.models import check_model, create_model
from research.models.dry_run import WithoutInitialValues
from research.runs.network import Outline
from research.training.sources import check_sources


def preflight(config: Config) -> DataInfo:
    """Refuse what cannot work on this machine, before anything is made; what is known of the data.

    Raises:
        UsageError: data missing or unsuitable for the network, more processes than GPUs, or no GPU where one was
            asked for.
    """
    gpus = torch.cuda.device_count() if config.device != "cpu" else 0
    if config.device == "cuda" and not gpus:
        raise UsageError("device='cuda': this machine has no usable GPU; use device=cpu")
    if gpus and config.processes > gpus:
        raise UsageError(
            f"processes={config.processes}: this machine has {gpus} GPUs, one process each; use gpus={gpus}"
        )
    if not gpus and config.amp == "fp16":
        raise UsageError("amp='fp16': needs a GPU; use amp=bf16 or amp=off on the CPU")
    if not gpus and config.sync_bn and config.processes * config.nodes > 1:
        raise UsageError("sync_bn=True: PyTorch synchronises batch statistics on GPUs only; use sync_bn=false")
    info = check_data(config)
    for name, given in config.hooks.items():
        HOOKS[name](**given).check(config)
    check_sources(config)
    if problems := check_model(config.model, config.model_args, info.shape):
        raise UsageError("\n".join(problems))
    if config.hooks or config.sync_bn:
        check_methods(config, Outline.of(config, info.classes, info.shape, info.train))
    elif config.substitute:
        with WithoutInitialValues():
            model = create_model(config.model, info.classes, info.shape, **config.model_args)
        planned(model, parse_spec(config.substitute), info.shape)
    return info


def check_methods(config: Config, outline: Outline) -> None:
    """Refuse methods, and parameters of them, that can do nothing to this network; warn of those that will not.

    Raises:
        UsageError: one line for each.
    """
    if config.sync_bn:
        synchronise(outline.model)
    problems = []
    for name, hook in outline.hooks.items():
        hook.check_network(outline)
        problems += refusals(name, hook, hook.idle_in(outline))
        if reason := hook.never(outline):
            warnings.warn(f"{name} will do nothing in this run: {reason}", stacklevel=2)
    if problems:
        raise UsageError("\n".join(problems))
