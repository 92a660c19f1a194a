"""Parameters without effect beside the others: a user who gives one expects something that will not happen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CURVES = ("cosine", "linear", "poly", "tanh")
"""Schedules that fall to min_lr, over all of training or over what a warm-up leaves of it."""


def without_effect(values: Mapping[str, Any]) -> dict[str, str]:
    """Every parameter that has no effect together with the other ``values``, with the reason; each alone is valid."""
    found: dict[str, str] = {}
    for rule in (_optimizer, _schedule, _decay, _table, _warmup, _places, _draws):
        for name, reason in rule(values):
            found.setdefault(name, reason)
    return found


def too_late(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters that would act only in a longer run, with the reason: a note, because this may be a trial run."""
    name = "milestones" if values["milestones"] else "decay_epochs"
    first = min(values["milestones"], default=values["decay_epochs"])
    late = values["schedule"] == "step" and first >= values["epochs"]
    return {name: f"the run ends before, after epochs={values['epochs']}"} if late else {}


def idle(values: Mapping[str, Any]) -> set[str]:
    """The parameters, as one types them, that are refused beside the other ``values`` of a run: they cannot act."""
    from research.data.datasets import data_without_effect  # torch takes seconds
    from research.hooks import HOOKS

    found = set(without_effect(values)) - ELSEWHERE - too_late(values).keys()
    found |= {f"data_args.{name}" for name in data_without_effect(values["dataset"], values["data_args"])}
    for name, given in values["hooks"].items():
        found |= {f"{name}.{parameter}" for parameter in HOOKS[name](**given).idle()}
    return found


def _optimizer(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    other, names = ("adamw", ("betas", "eps")) if v["optimizer"] == "sgd" else ("sgd", ("momentum", "nesterov"))
    for name in names:
        yield name, f"it belongs to optimizer={other}; this is {v['optimizer']}"
    if v["weight_decay"] == 0:
        yield "decay_norm_and_bias", "nothing is decayed, with weight_decay=0"


def _schedule(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if v["schedule"] not in CURVES:
        yield "min_lr", f"it is the floor of schedule={', '.join(CURVES)}; {v['schedule']} has none"
        yield (
            "cooldown_epochs",
            f"schedule={', '.join(CURVES)} end at min_lr, where it goes on; {v['schedule']} does not",
        )
        if v["schedule_by"] == "epoch" and not v["warmup_epochs"] and _moves_at_epochs(v):
            yield "schedule_by", f"schedule={v['schedule']} moves between epochs only, without warm-up"
    if v["schedule"] != "poly":
        yield "power", f"it belongs to schedule=poly; this is {v['schedule']}"
    if v["schedule_by"] != "epoch_executed":
        yield "train_continuous", f"it belongs to schedule_by=epoch_executed; this is {v['schedule_by']}"


def _moves_at_epochs(v: Mapping[str, Any]) -> bool:
    return v["schedule"] != "table" or all(float(epoch).is_integer() for epoch, _ in v["lr_table"].pairs)


def _decay(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if v["schedule"] != "step":
        for name in ("decay_epochs", "decay_rate", "milestones"):
            yield name, f"it belongs to schedule=step; this is {v['schedule']}"
    elif v["milestones"]:
        yield "decay_epochs", "milestones say when the learning rate decays"


def _table(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if v["schedule"] == "table" and not v["warmup_epochs"]:
        yield "lr", "lr_table has the learning rates"


def _warmup(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not v["warmup_epochs"]:
        yield "warmup_lr", "there is no warm-up; give warmup_epochs"
        yield "warmup_first", "there is no warm-up; give warmup_epochs"
    elif v["schedule"] not in CURVES:
        yield "warmup_first", f"only schedule={', '.join(CURVES)} begin after the warm-up; this is {v['schedule']}"
    elif v["schedule_by"] == "step_executed":
        yield "warmup_first", "with schedule_by=step_executed the curve always begins after the warm-up"


def _places(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if v["nodes"] == 1:
        for name in ("rendezvous", "join_minutes"):
            yield name, "there is one node; give nodes"
    if v["processes"] * v["nodes"] == 1:
        yield "sync_bn", "there is one process, whose batch statistics are already those of the whole batch"
    if v["device"] == "cpu":
        yield "deterministic", "on the CPU every kernel repeats bit for bit"
        yield "tf32", "TF32 is of GPUs; this is device=cpu"


def _draws(v: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    drawing = list(v["hooks"])
    if drawing:
        from research.hooks import HOOKS  # torch takes seconds, and most runs have no method

        drawing = [name for name in drawing if HOOKS[name].draws]
    if not drawing:
        yield "mask_seed", "no method of this run draws masks or ties"


ELSEWHERE = frozenset({"sync_bn", "deterministic", "tf32"})
"""Told, not refused: a run may go on elsewhere, where another device or number of processes lets them act."""
