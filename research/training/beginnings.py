"""What a run begins with in the place of drawn weights: other weights, or all that a training had when it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from research.checkpoints import checkpoint, weights
from research.config import Config
from research.distributed import of_rank_0
from research.errors import UsageError
from research.hooks import Source
from research.layers.masked import masked_weights, masks_among
from research.runs.network import Outline
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.training.sources import has_begun, own_source, own_tensors, place_of


def check_beginning(config: Config, outline: Outline, classes: int) -> None:
    """Refuse weights that do not fit the network of ``config``, and a training that is over already.

    Raises:
        UsageError: says what does not fit.
    """
    if has_begun(config) or not own_source(config):
        return
    [(key, source)] = own_source(config).items()
    if key == "continue_from" and (epoch := _training_of(config).epoch) >= config.total_epochs:
        raise UsageError(f"continue_from={source.place!r}: has trained {epoch} epochs; give more than epochs={epoch}")
    tensors, _ = own_tensors(key, source, config)
    weights.fitted(outline.model, *_as_begun(outline.model, key, source, tensors, classes))


def begin_weights(run: Run) -> None:
    """Give the network of ``run`` what ``init`` or ``continue_from`` name, unless a checkpoint of its own has it all.

    Raises:
        UsageError: there is nothing there, or weights of another network.
    """
    run.began_with = []
    if not own_source(run.config) or of_rank_0(has_begun(run.config)):
        return
    [(key, source)] = own_source(run.config).items()
    classes = run.train_loader.info.classes
    tensors, origin = own_tensors(key, source, run.config)
    tensors, where, head = _as_begun(run.model, key, source, tensors, classes)
    weights.load_into(run.model, tensors, where, head)
    for sparse in masked_weights(run.model):
        sparse.apply()
    told = f"; {', '.join(head)} drawn anew, for {classes} classes" if head else ""
    run.began_with = [f"{key}: begins with the weights of {origin}{told}"]


def continue_training(run: Run) -> list[str]:
    """Take over epoch, optimizer, loss scale and methods of the training that ``run`` continues; notes of it.

    A method that the other training did not have begins now; weight decay, momentum and all else are those of ``run``.

    Raises:
        UsageError: its optimizer is of another kind, or it stands inside an epoch.
    """
    if own_source(run.config) and not run.began_with:
        raise UsageError(f"run {run.name} cannot begin: its checkpoints were damaged; the same command begins anew")
    if not run.config.continue_from:
        return run.began_with
    training = _training_of(run.config, run.device)
    _take_over(run, training.optimizer, f"continue_from={run.config.continue_from!r}")
    if training.scaler and run.scaler.is_enabled():
        run.scaler.load_state_dict(training.scaler)
    hooks = training.hooks
    for name in (name for name in run.hooks if name in hooks):
        run.hooks[name].load_state_dict(hooks[name])
    run.epoch = run.first_epoch = training.epoch
    run.step = run.epoch * run.steps_per_epoch
    new = "".join(f"; {name} begins here" for name in run.hooks if name not in hooks)
    old = "".join(f"; {name} ends here" for name in hooks if name not in run.hooks)
    return [
        *run.began_with,
        f"continues {run.config.continue_from} after epoch {run.epoch}, with its optimizer{new}{old}",
    ]


def _training_of(config: Config, device: torch.device | str = "cpu") -> weights.Training:
    """Optimizer, epoch, loss scale and methods of what ``config`` continues.

    Raises:
        UsageError: there is no training, or it stands inside an epoch.
    """
    place = place_of(own_source(config)["continue_from"], config)
    if not place.is_dir():
        return weights.read_training(place)
    state = checkpoint.load_newest(RunPaths(place).checkpoints, device)
    if state["batch"]:
        raise UsageError(f"continue_from={config.continue_from!r}: stands inside epoch {state['epoch']}; let that end")
    return weights.Training(state["optimizer"], state["epoch"], state["scaler"], state["hooks"])


def _as_begun(
    model: nn.Module, key: str, source: Source, tensors: dict[str, Tensor], classes: int
) -> tuple[dict[str, Tensor], str, list[str]]:
    """``tensors`` with the masks of ``model`` where they have none, their place as it was typed, and names left out.

    Left out is a head for another number of classes than ``classes``; a training that goes on has none.
    """
    tensors = weights.without_prefix(tensors, model.state_dict())
    head = weights.other_head(model, tensors, classes) if key == "init" else []
    masks = {} if masks_among(tensors) else masks_among(model.state_dict())
    return tensors | masks, f"{key}={source.place!r} for {classes} classes", head


KEPT = {"sgd": {"momentum_buffer"}, "adamw": {"exp_avg", "exp_avg_sq", "step"}}
"""What each optimizer keeps of a parameter."""


def _take_over(run: Run, saved: Mapping[str, Any], where: str) -> None:
    """Put the ``saved`` state of an optimizer into that of ``run``, parameter by parameter.

    Its parameters are in the order of their groups. Trainers make one group of all, or one of vectors, which are not
    decayed, before or after one of the others; shapes tell which.

    Raises:
        UsageError: it is the state of another optimizer, or of other parameters.
    """
    ours = [p for group in run.optimizer.param_groups for p in group["params"]]
    as_defined = [p for p in run.model.parameters() if p.requires_grad]
    by_kind = sorted(as_defined, key=lambda p: p.ndim > 1)
    vectors = sum(p.ndim <= 1 for p in as_defined)
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    states = [saved["state"].get(number, {}) for number in numbers]
    order = next(
        (o for o in (ours, as_defined, by_kind, by_kind[vectors:] + by_kind[:vectors]) if _are_states_of(states, o)),
        None,
    )
    if order is None:
        raise UsageError(f"{where}: the state of its optimizer is of other parameters ({len(numbers)} of them)")
    kept = KEPT[run.config.optimizer]
    for parameter, state in zip(order, states, strict=True):
        found = {name: value for name, value in state.items() if value is not None}
        if found and not found.keys() >= kept:
            raise UsageError(f"{where}: its optimizer keeps {', '.join(found)}; this is {run.config.optimizer}")
        run.optimizer.state[parameter] |= {name: _like(found[name], parameter) for name in kept & found.keys()}


def _are_states_of(states: list[dict], parameters: list[nn.Parameter]) -> bool:
    return len(states) == len(parameters) and all(
        value.shape == parameter.shape
        for state, parameter in zip(states, parameters, strict=True)
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim
    )


def _like(value: Any, parameter: nn.Parameter) -> Tensor:
    """``value`` laid out in memory as ``parameter`` is; a number of steps stays one."""
    value = torch.as_tensor(value)
    return torch.empty_like(parameter, requires_grad=False).copy_(value) if value.ndim else value.clone()
