"""The command line of sparse training's seed (``main.py``): its flags, together, as parameters of a run.

One flag alone says little there (which method it is follows from several), so a whole command is translated at once:
``research train model=mnist_mlp rewire=true threshold-prune=true rewire-scaling=true initial-sparsity-fc=0.98``. Flags
may be written with dashes or underscores. What a flag leaves open has the value that program gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research.config.seed_commands.command import Command, Reading, Syntax, long_name, said_twice
from research.config.seed_commands.sparse_checks import SWITCHES, contradictions, dead, without_effect
from research.config.seed_commands.sparse_meaning import MODELS, data, method, network
from research.config.seed_commands.sparse_schedules import find_schedule
from research.errors import UsageError

SAME = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "momentum": "momentum",
    "nesterov": "nesterov",
    "weight_decay": "weight_decay",
    "print_freq": "log_interval",
    "data": "data_root",
    "workers": "workers",
}
SHORT = {"b": "batch_size", "learning_rate": "lr", "wd": "weight_decay", "p": "print_freq", "j": "workers"}
DEFAULTS = {
    "model": "mnist_mlp",
    "epochs": 100,
    "batch_size": 100,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "layers": 28,
    "widen_factor": None,  # 10 for every model there, which makes ResNet-50 ten times as wide
    "initial_sparsity_fc": 0.98,
    "initial_sparsity_conv": 0.5,
    "sub_kernel_granularity": 2,
    "n_prune_params": 600,
    "rewire_fraction": 0.1,
    "stop_rewire_epoch": 1000,
    "DeepR_eta": 0.1,
    "L1_loss_coeff": 0.0,
    "start_pruning_after_epoch": 20,
    "prune_epoch_frequency": 2,
    "prune_target_sparsity_fc": 0.98,
    "prune_target_sparsity_conv": 0.5,
    "prune_iterations": 1,
    "post_prune_epochs": 10,
    "copy_mask_from": "",
    "resume": "",
    "schedule_file": "",
    "job_idx": None,
    "start_epoch": 0,
    "lr": None,  # overwritten by the schedule there
    "print_freq": None,
    "data": None,
    "workers": None,
    "name": None,  # a title there; here it names the folder
}
SYNTAX = Syntax(values=list(DEFAULTS), switches=SWITCHES, short=SHORT)
COMMON = frozenset(
    "model epochs batch_size lr momentum nesterov weight_decay name workers data print_freq start_epoch resume "
    "prune tied".split()
)
OWN = (DEFAULTS.keys() | set(SWITCHES)) - COMMON - {"layers", "copy_mask_from", "big_new_weights"}
"""Flags that nothing else has a word like: any of them says that a command is one of that program."""


def speaks(given: Mapping[str, Any]) -> bool:
    """Whether ``given`` is a command of the seed's program."""
    return any(long_name(key) in OWN for key in given) or given.get("model") in (
        "cifar10_WideResNet",
        "imagenet_resnet50",
    )


def translate(given: Mapping[str, Any]) -> Command:
    """What the flags among ``given`` stand for; keys that are no flags of that program are left alone.

    Raises:
        UsageError: one line for every contradiction, unknown model, or schedule file that cannot be read.
    """
    typed = _flags(given)
    flags = {name: given[key] for key, name in typed.items()}
    own_schedule = given.get("schedule", "table") != "table"
    problems = [*said_twice(typed, given), *contradictions(flags), *dead(flags, own_schedule).values()]
    if problems:
        raise UsageError("\n".join(problems))
    f = DEFAULTS | dict.fromkeys(SWITCHES, False) | flags
    model = MODELS[f["model"]]
    schedule = find_schedule(f["schedule_file"] or model.schedule)
    told = {"recipe": model.recipe, **network(f, model)}
    if not own_schedule:
        told |= {"schedule": "table", "lr_table": schedule.lr}
    elif f["lr"] is not None:
        told["lr"] = f["lr"]
    told |= {name: f[flag] for flag, name in SAME.items() if f[flag] is not None}
    told |= data(f) | {"hooks": method(f, schedule)}
    if f["prune"]:
        told["epochs"] = (
            f["start_pruning_after_epoch"]
            + f["prune_epoch_frequency"] * (f["prune_iterations"] - 1)
            + f["post_prune_epochs"]
        )
    if f["job_idx"] is not None:
        target = f"_target_{f['prune_target_sparsity_fc']:g},{f['prune_target_sparsity_conv']:g}" if f["prune"] else ""
        told["name"] = f"{f['model']}_{f['job_idx']}{target}"
    if f["name"] is not None:
        told["name"] = f["name"]
    notes = [f"{name}={flags[name]}: has no effect: {reason}" for name, reason in without_effect(flags, f)]
    if f["DeepR"] and "DeepR_eta" not in flags:
        notes.append(f"DeepR_eta={f['DeepR_eta']}: as its help says; its code has 0.001, the published runs 0.01")
    return Command("main.py (sparse training)", told, typed.keys(), notes)


def read(argv: Sequence[str], processes: int) -> list[Reading]:
    """``main.py --model mnist_mlp --rewire …``; flags that are without effect there are told, not refused.

    Raises:
        UsageError: as :func:`translate` does otherwise.
    """
    flags = SYNTAX.read(_joined(argv))
    notes = [f"nesterov={flags['nesterov']}: is on there, whatever is given"] if "nesterov" in flags else []
    flags |= {"nesterov": True} if "nesterov" in flags else {}
    for name, reason in dead(flags, own_rates=False).items():
        notes.append(f"{reason} (left out)")
        del flags[name]
    start = {}
    if flags.get("resume") and not (flags.get("prune") or flags.get("copy_mask_from")):
        start = {"init": flags.pop("resume")}
        notes.append(f"resume={start['init']}: its weights; that program counts epochs anew too, but keeps momentum")
    elif flags.get("prune"):
        notes.append("resume: that program also takes over its weight decay and momentum; here they are of the flags")
    if not flags.get("start_epoch"):
        flags.pop("start_epoch", None)
    command = translate({"model": "mnist_mlp", **flags})
    return [Reading("train", {**command.parameters, **start}, [*notes, *command.notes])]


def _joined(argv: Sequence[str]) -> list[str]:
    """``argv`` without the blank that one published command has within the path of its schedule."""
    folders = [i for i, word in enumerate(argv[:-1]) if word.endswith("/") and argv[i + 1].endswith(".yaml")]
    joined = {i: argv[i] + argv[i + 1] for i in folders}
    return [joined.get(i, word) for i, word in enumerate(argv) if i - 1 not in joined]


def unspoken(given: Mapping[str, Any]) -> str:
    """What to tell where words are this program's and also the seed's, whose defaults they do not bring along."""
    switch = next((name for name in ("tied", "prune") if given.get(name) is True), "")
    if given.get("model") != "mnist_mlp" or not switch or {"dataset", "recipe"} & given.keys():
        return ""
    return (
        f"{switch}=true: read as this program's method, with its own defaults and data set; those of the published "
        "main.py come with a word that only it has, such as initial-sparsity-fc=0.98"
    )


def _flags(given: Mapping[str, Any]) -> dict[str, str]:
    """The keys of ``given`` that are flags of that program, with their long names."""
    long_names = {key: long_name(key, SHORT) for key in given}
    return {key: name for key, name in long_names.items() if name in DEFAULTS or name in SWITCHES}
