"""Weights from anywhere: checkpoints of runs, safetensors, and files that other trainers published.

Pickled files are read with ``weights_only=True``: tensors, numbers, strings and containers of them, and
``argparse.Namespace``, in which trainers keep their arguments. No code in a file can run.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from research.checkpoints.bits import unpacked
from research.checkpoints.functional_wrn import is_functional_wrn, to_torchvision
from research.errors import UsageError, nearest

PLAIN = ("state_dict", "model", "model_state_dict", "net")  # keys under which trainers keep the weights
AVERAGED = ("state_dict_ema", "model_ema", "ema")  # and their moving average
PREFIXES = ("module.", "_orig_mod.", "model.")  # that DDP, torch.compile and wrappers put before every name


@dataclass(frozen=True)
class Weights:
    """The contents of a file."""

    tensors: dict[str, Tensor]
    network: str = ""  # the name under which the file says its network is known


def read(path: Path, ema: bool = False) -> Weights:
    """The weights in ``path``, on the CPU; with ``ema`` their moving average.

    Raises:
        UsageError: the file is damaged, holds other Python objects, or has no weights of this kind.
    """
    content = _content(path)
    holders = AVERAGED if ema else PLAIN
    found = next((content[key] for key in holders if _is_state(content.get(key))), None)
    if found is None and not ema and _is_state(content):
        found = content
    if found is None:
        kind = "averaged weights" if ema else "weights"
        raise UsageError(
            f"{path}: no {kind} under any of {', '.join(holders)}; it holds {', '.join(map(str, list(content)[:8]))}"
        )
    if is_functional_wrn(found):
        return Weights(to_torchvision(found), "wide_resnet50_2")
    network = content.get("arch")
    tensors = {name: value for name, value in found.items() if name != "n_averaged"}  # a count of torch's averages
    return Weights(tensors, network if isinstance(network, str) else "")


@dataclass(frozen=True)
class Training:
    """How far a training had come: the states of its optimizer, loss scale and methods, and its epochs done."""

    optimizer: dict[str, Any]
    epoch: int
    scaler: dict[str, Any]
    hooks: dict[str, Any] = field(default_factory=dict)


def read_training(path: Path) -> Training:
    """How far the training in ``path`` had come; the weights in it are :func:`read`.

    Raises:
        UsageError: the file has no optimizer, or does not say its epoch.
    """
    content = _content(path)
    optimizer, epoch = content.get("optimizer"), content.get("epoch")
    if not isinstance(optimizer, dict) or "state" not in optimizer or not isinstance(epoch, int):
        raise UsageError(
            f"{path}: no training to continue: expected weights, optimizer and epoch, found "
            f"{', '.join(map(str, list(content)[:8]))}; init={path} starts from its weights alone"
        )
    return Training(optimizer, epoch, content.get("amp_scaler") or {})


def load_into(model: nn.Module, tensors: dict[str, Tensor], where: object, except_for: Collection[str] = ()) -> None:
    """Put ``tensors`` into ``model``: every name and shape must fit, once prefixes of wrappers are taken off.

    Those in ``except_for`` stay as they are in ``model``.

    Raises:
        UsageError: something is missing, left over or of another shape; says how much, and the first few names.
    """
    tensors = fitted(model, tensors, where, except_for)
    try:
        model.load_state_dict(tensors, strict=False)
    except (RuntimeError, TypeError, NotImplementedError) as error:  # of types that cannot be copied into weights
        raise UsageError(f"{where}: cannot be loaded: {str(error).partition(chr(10))[0]}") from None


def other_head(model: nn.Module, tensors: dict[str, Tensor], classes: int) -> list[str]:
    """The names among ``tensors`` of a classifier for another number of classes than that of ``model``, ``classes``."""
    own = model.state_dict()
    return [
        name
        for name, value in without_prefix(tensors, own).items()
        if name in own and value.ndim and value.shape != own[name].shape
        if own[name].shape[:1] == (classes,) and value.shape[1:] == own[name].shape[1:]
    ]


def fitted(model: nn.Module, tensors: dict[str, Tensor], where: object, except_for: Collection[str] = ()) -> dict:
    """``tensors`` by the names that they have in ``model``; those in ``except_for`` are left out and may be missing.

    Raises:
        UsageError: something is missing, left over or of another shape; says how much, and the first few names.
    """
    own = model.state_dict(keep_vars=True)
    odd = [name for name, value in tensors.items() if value.layout != torch.strided or value.is_nested]
    if odd:
        raise UsageError(f"{where}: {_few(odd)}: expected dense tensors")
    tensors = {name: value for name, value in without_prefix(tensors, own).items() if name not in except_for}
    shared = {id(own[name]) for name in tensors if name in own}  # safetensors keep a shared weight under one name
    missing = [
        name
        for name, value in own.items()
        if name not in tensors and name not in except_for and id(value) not in shared
        if not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in tensors if name not in own]
    reshaped = [
        f"{name} {tuple(value.shape)} for {tuple(own[name].shape)}"
        for name, value in tensors.items()
        if name in own and value.shape != own[name].shape
    ]
    told = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    problems = [f"{len(names)} {what} ({_few(names)})" for what, names in told.items() if names]
    if problems:
        raise UsageError(f"{where}: not weights of this network: {'; '.join(problems)}; give its model=… and dataset=…")
    return tensors


def _content(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = unpacked(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"{path}: no such run or file{nearest(path.name, beside)}") from None
    except pickle.UnpicklingError as error:
        refused = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "not a torch file")
        raise UsageError(
            f"{path}: only tensors, plain containers and argparse.Namespace are read, nothing that could run code "
            f"({refused}); if you trust it, save its state_dict alone"
        ) from None
    except Exception as error:  # what a damaged pickle ends in is anybody's guess
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{path}: damaged, or not a file of weights ({reason})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a mapping of names to weights, found {type(content).__name__}")
    return content


def _is_state(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())


def without_prefix(tensors: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """``tensors`` without the prefixes of wrappers, removed as long as no name is one of the network's own."""
    while not tensors.keys() & set(own):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _few(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
