"""The command line of the cheap-convolutions seed (``main.py DATASET teacher|student …``), flags together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from research.config.seed_commands.command import Command, Reading, Syntax, long_name, said_twice
from research.errors import UsageError, closest


class Network(NamedTuple):
    recipe: str
    own: Mapping[str, Any]  # parameters
    fixed: str  # flags that the program overwrites with the recipe's values


NETWORKS = {
    "WideResNet": Network("wrn-cifar10", {}, ""),
    "DARTS": Network(
        "darts-cifar10",
        {"drop_path.p": 0.2, "auxiliary.mode": "concat"},
        "epochs batch_size lr momentum weight_decay epoch_step lr_decay_ratio",
    ),
    "WRN_50_2": Network(
        "resnet-imagenet-90",
        {"model": "wide_resnet50_2"},
        "epochs batch_size lr weight_decay epoch_step lr_decay_ratio",
    ),
    "MobileNetV2": Network(
        "mobilenet_v2-imagenet-150", {}, "epochs batch_size lr weight_decay epoch_step lr_decay_ratio"
    ),
}
SAME = {
    "lr": "lr",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "lr_decay_ratio": "decay_rate",
    "epoch_step": "milestones",
    "print_freq": "log_interval",
    "workers": "workers",
    "imagenet_loc": "data_root",
}
STUDENT = {"alpha": "distill.alpha", "beta": "distill.beta", "temperature": "distill.temperature"}
DEFAULTS = {"wrn_depth": 40, "wrn_width": 2, "network": "WideResNet", "mode": "teacher", "dataset": "cifar10"}
SYNTAX = Syntax(
    values=[
        *SAME, *STUDENT, "GPU", "student_checkpoint", "teacher_checkpoint", "network", "wrn_depth", "wrn_width",
        "module", "blocktype", "conv", "AT_split", "budget", "aux_loss", "clip_grad",
    ],
    switches=["resume", "nocrswd"],
    short={"r": "resume", "s": "student_checkpoint", "t": "teacher_checkpoint"},
    positional=["dataset", "mode"],
)  # fmt: skip
OWN = frozenset(
    "wrn_depth wrn_width conv AT_split nocrswd student_checkpoint teacher_checkpoint imagenet_loc blocktype "
    "aux_loss".split()
)
"""Flags that nothing else has a word like: any of them says that a command is one of that program."""


def speaks(given: Mapping[str, Any]) -> bool:
    """Whether ``given`` is a command of the seed's program."""
    return not {"recipe", "model"} & given.keys() and any(long_name(key) in OWN for key in given)


def translate(given: Mapping[str, Any]) -> Command:
    """What the flags among ``given`` stand for, the data set and the mode as ``dataset`` and ``mode``.

    Raises:
        UsageError: one line for every flag without a meaning here, and every contradiction.
    """
    known = {*SYNTAX.flags, *SYNTAX.positional}
    typed = {key: long_name(key) for key in given if long_name(key) in known}
    flags = {name: given[key] for key, name in typed.items()}
    problems = [*said_twice(typed, given), *_problems(flags)]
    if problems:
        raise UsageError("\n".join(problems))
    f, notes = DEFAULTS | flags, []
    network = NETWORKS[f["network"]]
    for name in flags.keys() & set(network.fixed.split()):
        notes.append(f"{name}={flags[name]}: has no effect there: {f['network']} trains with values of its own")
    told = {"recipe": network.recipe, "dataset": f["dataset"]} | dict(network.own)
    if f["network"] == "WideResNet":
        told["model"] = f"wrn-{f['wrn_depth']}-{f['wrn_width']:g}"
        if f["dataset"] == "cifar100":
            told["data_args.cutout"] = 0
    told |= {ours: _list(f[flag]) for flag, ours in SAME.items() if flag in f and flag not in network.fixed.split()}
    told["substitute"] = _substitute(f)
    told |= _mode(f, flags, notes)
    if "GPU" in f:
        told["gpus"] = len(str(f["GPU"]).strip("[]").split(","))
        if told["gpus"] > 1:
            notes.append("GPU: batch statistics are of each GPU's share, as there; running ones those of the first")
    if f.get("resume"):
        notes.append("resume: the same command continues a run that was stopped")
    if "blocktype" in flags:
        notes.append(f"blocktype={flags['blocktype']}: has no effect: there is one kind of block")
    return Command("main.py (cheap convolutions)", told, typed.keys(), notes)


def read(argv: Sequence[str], processes: int) -> list[Reading]:
    """``main.py cifar10 student --conv ACDC_12 …``; it starts no processes of its own.

    Raises:
        UsageError: as :func:`translate`.
    """
    command = translate(SYNTAX.read(argv))
    return [Reading("train", command.parameters, command.notes)]


def _problems(flags: Mapping[str, Any]) -> list[str]:
    choices = {
        "dataset": ("cifar10", "cifar100", "imagenet"),
        "mode": ("teacher", "student"),
        "network": tuple(NETWORKS),
        "aux_loss": ("AT",),
        "blocktype": ("Basic",),
    }
    found = [
        f"{name}={flags[name]!r}: expected {' or '.join(known)}{closest(flags[name], known)}"
        for name, known in choices.items()
        if name in flags and flags[name] not in known
    ]
    if "conv" not in flags:
        why = "its layers are in a Python file; give --conv NAME" if "module" in flags else "give --conv NAME"
        found.append(f"module={flags['module']}: {why}" if "module" in flags else f"conv: {why}")
    if flags.get("mode") == "student" and flags.get("teacher_checkpoint") == flags.get("student_checkpoint", ""):
        found.append("student_checkpoint: is the teacher's; a run cannot start from itself")
    return found


def _substitute(f: Mapping[str, Any]) -> str:
    name = str(f["conv"])
    if name == "Conv":
        return ""
    from research.layers.spec import from_log_name  # torch takes seconds

    family, _, rest = from_log_name(name).partition(":")
    budget = [f"budget={round(float(f['budget']))}"] if "budget" in f else []
    words = [*(rest.split(",") if rest and not budget else []), *budget, "init=reference"]
    words += ["decay=plain"] if f.get("nocrswd") else []
    return f"{family}:{','.join(words)}"


def _mode(f: Mapping[str, Any], flags: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    teacher, student = (f.get(f"{who}_checkpoint") for who in ("teacher", "student"))
    if f["mode"] == "teacher":
        idle = {*STUDENT, "AT_split", "clip_grad", "student_checkpoint", "aux_loss"} & flags.keys()
        notes += [f"{name}={flags[name]}: has no effect on a teacher" for name in sorted(idle)]
        return {"name": teacher} if teacher else {}
    told = {"distill.teacher": teacher or "wrn_40_2_T"} | {ours: f[flag] for flag, ours in STUDENT.items() if flag in f}
    told |= {"distill.split": f["AT_split"]} if "AT_split" in f else {}
    told |= {"clip_norm": f["clip_grad"]} if "clip_grad" in f else {}
    return told | {"name": student or "wrn_40_2_student_KT"}


def _list(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
