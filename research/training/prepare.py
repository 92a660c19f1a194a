"""Before the first step: data, model, hooks, criterion, optimizer, each after what it depends on."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from research.config import Config
from research.data.choice import check, make_loaders, make_mixing
from research.devices import use_tf32
from research.distributed import of_rank_0
from research.layers.sync_norm import synchronise
from research.layers.tied import free_parameter
from research.network_protocols import ScalesDecay
from research.plugins.scope import with_its_plugins
from research.resources import decide
from research.runs.network import build_network, pick_device
from research.runs.run import Run
from research.training.beginnings import begin_weights
from research.training.sources import load_sources

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@with_its_plugins
def prepare(run: Run) -> None:
    """Everything that training needs, in the order it may depend on."""
    config = run.config
    prepare_evaluation(run, splits=("train", "val"))
    run.steps_per_epoch, run.epochs = len(run.train_loader), config.total_epochs
    run.mixing = make_mixing(config, run.train_loader)
    run.criterion = nn.CrossEntropyLoss(label_smoothing=config.smoothing)
    run.sources = load_sources(run)
    begin_weights(run)
    for hook in run.hooks.values():
        hook.setup(run)
    run.model.to(run.device)  # with what the hooks put in

    if run.world > 1 and config.sync_bn:
        synchronise(run.model)
    if config.channels_last:
        run.model.to(memory_format=torch.channels_last)
    run.optimizer = make_optimizer(run)
    run.scaler = torch.amp.GradScaler(run.device.type, enabled=config.amp == "fp16")
    run.network = wrap(run)


@with_its_plugins
def prepare_evaluation(run: Run, splits: Sequence[str] = ("val",)) -> None:
    """Device, data and the network, changed as the run's hooks change it: what it takes to evaluate weights."""
    config = run.config
    run.device = getattr(run, "device", None) or pick_device(config)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it PyTorch refuses products on a GPU
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.deterministic
    use_tf32(config.tf32)

    if not run.resources:  # no launcher decided: rank 0 does
        run.resources = of_rank_0(decide(config, check(config, splits).loader) if run.rank == 0 else None)
    loaders = make_loaders(config, run.resources, splits, run.rank, run.world, run.device)
    run.train_loader, run.val_loader = loaders.get("train"), loaders["val"]
    info = run.val_loader.info
    build_network(run, info.classes, info.shape)
    run.autocast = torch.autocast(run.device.type, AMP_TYPES[config.amp], enabled=config.amp != "off")


def make_optimizer(run: Run) -> torch.optim.Optimizer:
    """SGD or AdamW, fused; parameters of equal weight decay are one group.

    Fused ones work on memory: a gradient and what is kept of it are laid out as their weight is, as autograd leaves it.
    A checkpoint of an earlier version, whose optimizer was not fused on a CPU, brings that along and goes on with it.
    """
    config = run.config
    by_decay: dict[float, list[nn.Parameter]] = {}
    for parameter, decay in weight_decays(run.model, config).items():
        by_decay.setdefault(decay, []).append(parameter)
    groups = [{"params": parameters, "weight_decay": decay} for decay, parameters in by_decay.items()]
    common = {"lr": config.lr, "fused": True}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, **common)
    sgd = torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, **common)
    if config.momentum:
        begin_momentum(sgd)
    return sgd


def begin_momentum(sgd: torch.optim.SGD) -> None:
    """Give every parameter a momentum of 0, from which the first step makes its gradient, as without one.

    A fused step that is skipped because a gradient overflowed would otherwise leave the momentum that it has just made
    as it found it in memory: any numbers.
    """
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def weight_decays(model: nn.Module, config: Config) -> dict[nn.Parameter, float]:
    """The weight decay of every trained parameter.

    A module's ``decay_scale`` (parameter name -> factor) scales the decay of its own parameters. With
    ``decay_norm_and_bias=False`` vectors (biases, normalisation) are not decayed, but those in a ``decay_scale`` that
    are no bias are: weights that happen to be stored as a vector.
    """
    scaled = {
        free_parameter(module, name): (scale, not name.endswith("bias"))
        for module in model.modules()
        if isinstance(module, ScalesDecay)
        for name, scale in module.decay_scale.items()
    }
    decays = {}
    for p in filter(lambda p: p.requires_grad, model.parameters()):
        scale, is_weight = scaled.get(p, (1.0, False))
        decays[p] = config.weight_decay * scale if config.decay_norm_and_bias or p.ndim > 1 or is_weight else 0.0
    return decays


def wrap(run: Run) -> nn.Module:
    """What the loop calls: the model, distributed and compiled as configured."""
    network = run.model
    if run.world > 1:
        network = DistributedDataParallel(network, device_ids=[run.device] if run.device.type == "cuda" else None)
    return torch.compile(network) if run.config.compile else network
