"""What is there of a network over its training: the weights it began with, its best ones and its newest checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from research.checkpoints import checkpoint, weights
from research.config import Config
from research.data.choice import check
from research.data.datasets import classes_and_shape
from research.errors import UsageError, nearest
from research.layers.masked import MASK
from research.measures.cost import Cost, Row, count
from research.measures.ldi import scaled_svdvals
from research.plugins.scope import with_its_plugins
from research.runs.metrics import read_rows
from research.runs.network import network_of
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.training.sources import sources_of


@dataclass(frozen=True)
class Kept:
    """Weights after ``epoch`` epochs and ``steps`` steps of the next one; ``path`` is none where they are drawn."""

    epoch: int
    steps: int = 0
    path: Path | None = None


@dataclass(frozen=True)
class LayerState:
    """A layer at one moment: its weight tensor, the mask on it, and what it costs."""

    weight: np.ndarray  # (out, ...) float32
    mask: np.ndarray | None  # bool, shaped as the weight
    singular_values: np.ndarray  # (min(out, rest),) float64 of the weight as a matrix (out, rest), the largest first
    row: Row  # of the layer, or of the substitute that it is part of
    cost: Cost  # of the network


class KeptNetwork:
    """The network of a run, or one that nobody trained yet, at each epoch of which there are weights. Only reads.

    Raises:
        UsageError: ``directory`` is no run, or its parameters are those of a newer version.
    """

    def __init__(self, config: Config, directory: Path | str | None = None):
        self.config = config
        self.name = Path(directory).name if directory else f"new {config.model}"
        drawn = all(source.wants == "network" for source in sources_of(config).values())
        ends = _ends_of_epochs(Path(directory)) if directory else {}
        found = [Kept(0)] * drawn + (list(_on_disk(Path(directory), ends)) if directory else [])
        # where there are two of an epoch, those of its end win over those of a stop within the next one
        self.kept = {kept.epoch: kept for kept in sorted(found, key=lambda kept: -kept.steps)}
        self.epochs = max([0, *self.kept, *ends.values()])

    @classmethod
    def of_run(cls, directory: Path | str) -> KeptNetwork:
        """That of the run in ``directory``."""
        return cls(Run.open(directory).config, directory)

    def at(self, epoch: int) -> nn.Module:
        """The network after ``epoch`` epochs, on the CPU.

        Raises:
            UsageError: there are no weights of that moment, with the epochs of which there are; or they cannot be read.
        """
        if epoch not in self.kept:
            raise UsageError(
                f"no weights are kept after epoch {epoch}; there are those after {spans(self.kept) or 'none'}"
            )
        model = self._new()
        if path := self.kept[epoch].path:
            weights.load_into(model, _read(path), path)
        return model

    def layers(self) -> list[str]:
        """The names of all weight tensors with two or more axes, in order of depth, each without ``.weight``."""
        return [name for name, *_ in matrices(self._new())]

    def layer(self, name: str, epoch: int) -> LayerState:
        """The layer ``name`` after ``epoch`` epochs.

        Raises:
            UsageError: the network has no such layer; or as :meth:`at`.
        """
        model = self.at(epoch)
        found = {each: (weight, mask) for each, weight, mask in matrices(model)}
        if name not in found:
            raise UsageError(f"{self.config.model} has no layer {name!r}{nearest(name, found)}")
        weight, mask = found[name]
        cost = count(model, self._classes_and_shape()[1], allow_ignored=True)
        row = max((row for row in cost.rows if f"{name}.".startswith(f"{row.layer}.")), key=lambda row: len(row.layer))
        values = scaled_svdvals(weight.flatten(1).double()[None]).flatten().flip(0)
        return LayerState(weight.numpy(), None if mask is None else mask.numpy(), values.numpy(), row, cost)

    def _new(self) -> nn.Module:
        return network_of(self.config, *self._classes_and_shape(), torch.device("cpu"))

    @with_its_plugins
    def _classes_and_shape(self) -> tuple[int, tuple[int, ...]]:
        try:
            return classes_and_shape(self.config.dataset, self.config.data_args)
        except UsageError:  # classes that are counted on disk
            info = check(self.config, ("val",))
            return info.classes, info.shape


def matrices(model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Every weight of two or more axes with the mask on it, if any, shaped as it: (name without ``.weight``, ...).

    Of tied weights those that the layer computes with, not the values that they share.
    """
    for name, module in model.named_modules():
        if isinstance(module, ParametrizationList):
            continue
        own = [each for each, _ in module.named_parameters(recurse=False)]
        own += list(module.parametrizations) if is_parametrized(module) else []
        for parameter in own:
            weight = getattr(module, parameter).detach()
            if weight.ndim < 2:
                continue
            mask = getattr(module, parameter + MASK, None)
            if mask is not None:
                mask = mask.reshape(*mask.shape, *[1] * (weight.ndim - mask.ndim)).expand_as(weight)
            yield f"{name}.{parameter}".removesuffix(".weight").strip("."), weight.contiguous(), mask


def _ends_of_epochs(directory: Path) -> dict[int, int]:
    """Optimizer steps at which an epoch ended -> epochs trained by then."""
    return {row["step"]: row["epoch"] + 1 for row in read_rows(RunPaths(directory).metrics) if row["kind"] == "val"}


def _on_disk(directory: Path, ends: dict[int, int]) -> Iterator[Kept]:
    """The weights in the folder of a run."""
    paths = RunPaths(directory)
    results = [row for row in read_rows(paths.metrics) if row["kind"] == "val" and row.get("top1") is not None]
    if results and paths.best.exists():
        best = max(results, key=lambda row: (row["top1"], -row["step"]))  # the first of equal ones was kept
        yield Kept(best["epoch"] + 1, path=paths.best)
    for path in sorted(paths.checkpoints.glob("[0-9]*-*.pt")):
        step = checkpoint.step_of(path.name)
        end = max((end for end in ends if end <= step), default=0)
        yield Kept(ends.get(end, 0), step - end, path)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return weights.read(path).tensors
    try:
        return checkpoint.read(path)["model"]
    except FileNotFoundError:
        raise UsageError(f"{path} is gone: the run went on and has newer ones; look again") from None
    except checkpoint.Damaged as error:
        raise UsageError(f"{path}: {error}") from None


def spans(numbers: Iterable[int]) -> str:
    """``[0, 1, 2, 9]`` as ``0-2, 9``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
