"""Stored weights, of a run or in a file of any origin, and the Config they belong to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from research.checkpoints import checkpoint, weights
from research.config import Config
from research.data.datasets import describe
from research.errors import UsageError, tell
from research.models import MODELS
from research.models.libraries import preparation
from research.plugins.scope import plugged
from research.runs.paths import RunPaths
from research.runs.run import Run


class Stored(NamedTuple):
    """What was read, the Config it belongs to, and the weights, on the CPU."""

    path: Path
    config: Config
    tensors: dict[str, Tensor]


def refuse_choice(path: Path, is_folder: bool, last: bool, ema: bool) -> None:
    """Raise UsageError where ``last`` or ``ema`` ask for weights that ``path`` does not have."""
    if is_folder and last and ema:
        raise UsageError("--last --ema: a run keeps one average, of its newest epoch; leave --last out")
    if not is_folder and last:
        raise UsageError(f"--last: {path} is not the folder of a run, which alone has best and newest weights")
    if not is_folder and ema and path.suffix == ".safetensors" and path.name != RunPaths("").average.name:
        raise UsageError(f"--ema: {path.name} holds one set of weights; give the folder of its run")


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
    is_folder = os.path.isdir(path)  # not Path.is_dir, which raises for names that cannot be
    refuse_choice(path, is_folder, last, ema)
    home = next((f for f in ([path] if is_folder else path.parents[:2]) if os.path.isfile(RunPaths(f).config)), None)
    config = Config.load(Run.open(home).config.to_dict(), given) if home else None
    if is_folder:
        if not home:
            raise UsageError(f"{path} is not a run: it has no config.json")
        if last:
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
    return Stored(path, config or as_published(Config.load(known, given), known, given), read.tensors)


def as_published(config: Config, *sources: Mapping[str, Any]) -> Config:
    """``config``, of ``sources``, with images prepared as the library of its network records it; adds a note.

    What the sources say of ``data_args`` wins over the record, and over what of the record it leaves no room for: a
    given ``eval_resize`` over its crop, ``normalize=false`` over its mean and deviation. Data sets whose images are
    all of one size, such as CIFAR-10, are never resized or cropped, and stay as they are.
    """
    with plugged(config.plugin):
        data = describe(config.dataset)
    record = preparation(config.model) if data.kind == "folder" else None
    said = config.data_args
    ruled = set(said) | ({"crop_pct"} if "eval_resize" in said else set())
    ruled |= set() if said.get("normalize", True) else {"mean", "std"}
    own = {name: value for name, value in record._asdict().items() if name not in ruled} if record else {}
    if not own:
        return config
    tell(f"{config.model}: images are prepared as on record, {', '.join(f'{k}={v}' for k, v in own.items())}")
    instead = {"eval_resize": 0} if "crop_pct" in own else {}  # of the data set's own
    return Config.load({"data_args": {**own, **instead}}, *sources)
