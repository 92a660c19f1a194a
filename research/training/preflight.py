"""What is looked at before a run is made: devices, data, methods, and whether the network fits them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch

from research.config import Config
from research.data.choice import check as check_data
from research.data.loader import DataInfo
from research.errors import UsageError, tell
from research.hooks import HOOKS
from research.hooks.base import refusals
from research.layers.substitute import parse_spec, planned
from research.layers.sync_norm import synchronise
from research.models import check_model, create_model
from research.models.dry_run import WithoutInitialValues
from research.plugins.scope import with_its_plugins
from research.runs.network import Outline
from research.training.beginnings import check_beginning
from research.training.sources import check_sources, own_source


@with_its_plugins
def preflight(config: Config, coming: Collection[Path] = (), devices: bool = True) -> DataInfo:
    """Refuse what cannot work on this machine, before anything is made; what is known of the data.

    ``coming`` are folders of runs that ``config`` may start from, because they are trained before it. Without
    ``devices``, nothing is said of those here: it will be trained on another machine.

    Raises:
        UsageError: data missing or unsuitable for the network, more processes than GPUs, no GPU where one was asked
            for, a method that can do nothing, nothing where one starts from; a line for each.
    """
    found, problems = [], problems_of_device(config) if devices else []
    problems += refused(lambda: found.append(check_data(config)))
    for name, given in config.hooks.items():
        problems += refused(partial(HOOKS[name](**given).check, config))
    problems += refused(partial(check_sources, config, coming))
    if found:
        problems += check_model(config.model, config.model_args, found[0].shape)
    if found and not problems:
        problems += refused(partial(check_network, config, found[0]))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return found[0]


def refused(look: Callable[[], object]) -> list[str]:
    """The lines of the UsageError that ``look`` raises; none when it does not."""
    try:
        look()
    except UsageError as error:
        return str(error).splitlines()
    return []


def problems_of_device(config: Config) -> list[str]:
    """What this machine's GPUs, or their lack, keep from working."""
    gpus, problems = torch.cuda.device_count() if config.device != "cpu" else 0, []
    if config.device == "cuda" and not gpus:
        problems.append("device='cuda': this machine has no usable GPU; use device=cpu")
    if gpus and config.processes > gpus:
        problems.append(
            f"processes={config.processes}: this machine has {gpus} GPUs, one process each; use gpus={gpus}"
        )
    if not gpus and config.amp == "fp16":
        problems.append("amp='fp16': needs a GPU; use amp=bf16 or amp=off on the CPU")
    if not gpus and config.sync_bn and config.processes * config.nodes > 1:
        problems.append("sync_bn=True: PyTorch synchronises batch statistics on GPUs only; use sync_bn=false")
    return problems


def check_network(config: Config, info: DataInfo) -> None:
    """Refuse methods, substitutes and batches that do not fit the network, once that fits the data.

    Raises:
        UsageError: one line for each.
    """
    alone = config.processes * config.nodes == 1 or not config.sync_bn  # a batch norm with its process's images
    if alone and config.batch_size == config.processes * config.nodes * config.accumulation:
        check_single_images(config, info)
    if config.hooks or config.sync_bn or own_source(config):
        outline = Outline.of(config, info.classes, info.shape, info.train)
        check_beginning(config, outline, info.classes)
        check_methods(config, outline)
    elif config.substitute:
        with WithoutInitialValues():
            model = create_model(config.model, info.classes, info.shape, **config.model_args)
        planned(model, parse_spec(config.substitute), info.shape)


def check_single_images(config: Config, info: DataInfo) -> None:
    """Refuse a network whose batch norm cannot train on one image at a time, because it sees one value a channel.

    Raises:
        UsageError: it is one.
    """
    with WithoutInitialValues(), torch.no_grad():
        model = Outline.of(config, info.classes, info.shape, info.train).model.train()
        try:
            model(torch.zeros(1, *info.shape))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            parts = config.processes * config.nodes * config.accumulation
            raise UsageError(
                f"batch_size={config.batch_size}: leaves one image to each of {parts} parts (processes x nodes x "
                f"accumulation), and a batch norm of {config.model} then sees one value a channel; give batch_size="
                f"{2 * parts}"
            ) from None


def check_methods(config: Config, outline: Outline) -> None:
    """Refuse methods, and parameters of them, that can do nothing to this network; tell of those that will not,
    and of an order that changes what they do.

    Raises:
        UsageError: one line for each.
    """
    if config.sync_bn:
        synchronise(outline.model)
    problems, later = [], dict(outline.hooks)
    for name, hook in outline.hooks.items():
        del later[name]
        hook.check_network(outline)
        problems += refusals(name, hook, hook.idle_in(outline))
        if reason := hook.never(outline):
            tell(f"{name} will do nothing in this run: {reason}")
        if consequence := hook.out_of_order(later):
            tell(f"{name} is listed early: {consequence}")
    if problems:
        raise UsageError("\n".join(problems))
