"""Weights that are stored - in a run's folder, or in a file of any origin - and the Config that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from research.checkpoints import checkpoint, weights
from research.config import Config
from research.errors import UsageError
from research.models import MODELS
from research.runs.paths import RunPaths
from research.runs.run import Run


class Stored(NamedTuple):
    """What was read, the Config it belongs to, and the weights, on the CPU."""

    path: Path
    config: Config
    tensors: dict[str, Tensor]


def find_stored(
    path: Path,
    given: Mapping[str, Any] | None = None,
    assumed: Mapping[str, Any] | None = None,
    last: bool = False,
    ema: bool = False,
) -> Stored:
    """The weights in ``path``: the folder of a run, a file in one, or a file of any origin.

    Args:
        given: parameters that win over those of the run.
        assumed: parameters that a file of another origin has when it does not name its network.
        last: of a run, the newest checkpoint instead of the weights that evaluated best.
        ema: the moving average of the weights.

    Raises:
        UsageError: there is nothing there, or no weights of this kind.
    """
    given = given or {}
    home = next((f for f in ([path] if path.is_dir() else path.parents[:2]) if RunPaths(f).config.is_file()), None)
    config = Config.load(Run.open(home).config.to_dict(), given) if home else None
    if path.is_dir():
        if not home:
            raise UsageError(f"{path} is not a run: it has no config.json")
        if last and not ema:
            state = checkpoint.load_newest(RunPaths(home).checkpoints)
            if state is None:
                raise UsageError(f"{home} has no checkpoint yet")
            return Stored(RunPaths(home).checkpoints, config, state["model"])
        path = RunPaths(home).average if ema else RunPaths(home).best
        if not path.exists():
            reason = "the method ema writes it after an epoch" if ema else "it is written after the first epoch"
            raise UsageError(f"{home} has no {path.name}: {reason}")
    read = weights.read(path, ema and path.suffix != ".safetensors")
    known = {"model": read.network} if read.network in MODELS else assumed or {}
    return Stored(path, config or Config.load(known, given), read.tensors)
