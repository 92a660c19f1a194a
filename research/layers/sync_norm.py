"""Batch norm whose statistics are those of the batches of all processes together."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from research.errors import UsageError


def synchronise(model: nn.Module) -> None:
    """Let every batch norm of ``model`` take its statistics over all processes, whatever else it does as before.

    Modules stay the same objects, with what has been registered on them, and become of the synchronised class.

    Raises:
        UsageError: a batch norm that does more than PyTorch's in a way that is not known; nothing was changed.
    """
    norms = {module: _synchronised_class(name, module) for name, module in model.named_modules() if _separate(module)}
    for norm, synchronised in norms.items():
        norm.__class__, norm.process_group = synchronised, None


def _separate(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)


def _synchronised_class(name: str, norm: _BatchNorm) -> type[nn.SyncBatchNorm]:
    if type(norm).forward is _BatchNorm.forward:
        return nn.SyncBatchNorm
    from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct  # a second, and few networks have such layers

    if type(norm).forward is BatchNormAct2d.forward:  # an activation and dropout follow in the same module
        return SyncBatchNormAct
    raise UsageError(
        f"sync_bn=True: {name} is a {type(norm).__name__}, more than a batch norm, and would lose what it adds; "
        "give sync_bn=false or another network"
    )
