"""The command lines of NN-Mass's seed, ``imagenet.py`` and ``train_cifar.py``: their flags, together, as parameters.

``research train arch=mobilenetv2 lr-decay=cos lr=0.05 wd=4e-5 width-mult=1.4`` is a whole command: what its flags leave
open has the value that the program gives it. Flags may be written with dashes or underscores. What has no meaning for a
run here is refused, with what to give instead. ``train_mlp.py`` and ``ldi.py`` are the notebook ``topology``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from research.config.seed_commands.command import Command, long_name, said_twice
from research.errors import UsageError, nearest

CIFAR = ("dense_depth", "regular_dense")
IMAGENET = (
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
SAME = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "lr": "lr",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "workers": "workers",
    "print_freq": "log_interval",
    "seed": "seed",
    "data": "data_root",
}
SHORT = {
    "a": "arch",
    "b": "batch_size",
    "c": "checkpoint",
    "d": "data",
    "e": "evaluate",
    "j": "workers",
    "p": "print_freq",
    "wd": "weight_decay",
    "learning_rate": "lr",
    "save_dir": "checkpoint",
}
IMAGENET_FLAGS = frozenset("lr_decay step schedule gamma warmup width_mult input_size".split())
CIFAR_FLAGS = frozenset(
    "dataset wm width num_cells cell_depth depth tc tc1 tc2 tc3 tc4 augment compat frozen_bn".split()
)
REFUSED = {
    "data_backend": "there is no DALI here; leave it out, or give loader=ffcv",
    "start_epoch": "a run continues by itself when its command is given again; leave it out",
    "resume": "a run continues by itself when its command is given again; continue_from=FILE continues another one",
    "evaluate": "`research evaluate FILE model=NAME` evaluates weights",
    "weight": "`research evaluate FILE model=NAME` evaluates weights",
    "pretrained": "networks start from their seed; give init=torchvision:NAME for published weights",
    "world_size": "give gpus= or processes=, and nodes= with rendezvous=HOST:PORT for several machines",
    "rank": "machines number themselves; give nodes= and rendezvous=HOST:PORT on each",
    "dist_url": "give nodes= and rendezvous=HOST:PORT on each machine",
    "dist_backend": "it follows from the device; leave it out",
    "post_fix": "files in a run's folder have fixed names; leave it out",
    "iter_times": "a run trains one network; give seeds in a study",
    "train_log_file": "results are rows of the run's metrics.jsonl; `research run topology` writes log lines of MLPs",
    "res_log_file": "results are rows of the run's metrics.jsonl; `research run topology` writes log lines of MLPs",
    "sigma_log_file": "`research run topology` measures LDI and writes its log lines",
    "save_all": "a run keeps its best and its newest weights; leave it out",
    "save_everyepoch": "a run keeps its best and its newest weights; leave it out",
}
INERT = frozenset("num_seg make_dataset width_factor decreasing_lr result_file".split())
"""Flags without an effect in these programs: the first two are for generated data, the others are never read."""
HARMLESS = {"data_backend": "pytorch", "start_epoch": 0, "resume": "", "weight": "", "iter_times": 1}
OWN = frozenset("arch lr_decay wm num_cells cell_depth tc tc1 tc2 tc3 tc4".split())
"""Flags that say by themselves that a command is one of these programs: nothing else has words like them."""
TELLING = REFUSED.keys() - {"start_epoch", "resume", "evaluate", "weight", "rank"}
"""Flags that are refused, but so does their refusal, with what to give instead."""
WARMUP = {"warmup_epochs": 5, "warmup_lr": 0.0, "warmup_first": True}  # from 0, and then the curve
AUGMENT = {
    "none": {"crop": "none", "flip": False},
    "standard": {"crop": "pad", "padding": 4, "flip": True, "cutout": 0},
    "ref": {},  # of the recipe
}


def speaks(given: Mapping[str, Any]) -> bool:
    """Whether ``given`` is a command of one of the seed's programs, which call a network ``arch``."""
    if {"model", "recipe"} & given.keys():
        return False
    return any(_name(key) in OWN or (_name(key) in TELLING and _refused(key, given[key])) for key in given)


def translate(given: Mapping[str, Any]) -> Command:
    """What the flags among ``given`` stand for; keys that are no flags of these programs are left alone.

    Raises:
        UsageError: one line for every flag without a meaning here, and every contradiction.
    """
    known = SAME.keys() | IMAGENET_FLAGS | CIFAR_FLAGS | REFUSED.keys() | INERT | {"arch", "checkpoint"}
    typed = {key: _name(key) for key in given if _name(key) in known and not _is_ours(_name(key), given[key])}
    flags = {name: given[key] for key, name in typed.items()}
    problems = [f"{name}={value}: {REFUSED[name]}" for name, value in flags.items() if _refused(name, value)]
    problems += said_twice(typed, given)
    notes = [
        f"{name}={flags[name]}: has no effect on CIFAR and ImageNet networks" for name in sorted(INERT & flags.keys())
    ]
    arch = flags.get("arch")
    if isinstance(arch, str) and arch == "mobilenetv2":
        arch = "mobilenet_v2"
    shaped = bool(CIFAR_FLAGS & flags.keys() - {"dataset"}) or str(flags.get("dataset")).startswith("cifar")
    cifar = arch in CIFAR or (arch is None and shaped)
    if arch not in (*CIFAR, *IMAGENET, None):
        problems.append(
            f"arch={arch!r}: expected {' or '.join((*CIFAR, *IMAGENET))}{nearest(arch, (*CIFAR, *IMAGENET))}"
        )
    elif cifar:
        told = _cifar(arch or "dense_depth", flags, problems)
    else:
        told = _imagenet(arch or "mobilenet_v2", flags, problems, notes)
    if problems:
        raise UsageError("\n".join(problems))
    told |= {name: flags[flag] for flag, name in SAME.items() if flag in flags}
    if flags.get("checkpoint"):
        folder = PurePath(str(flags["checkpoint"]))
        told |= {"runs": str(folder.parent), "name": folder.name}
    return Command("train_cifar.py" if cifar else "imagenet.py", told, typed.keys(), notes)


def _is_ours(name: str, value: Any) -> bool:
    """Whether a word that is also a flag there has a meaning of this program."""
    return name == "schedule" and value in ("cosine", "linear", "step", "constant", "table")


def _refused(key: str, value: Any) -> bool:
    name = _name(key)
    return name in REFUSED and value is not False and value != HARMLESS.get(name, False)


def _name(key: str) -> str:
    """The long name of a flag."""
    return long_name(key, SHORT)


def _imagenet(arch: str, flags: Mapping[str, Any], problems: list[str], notes: list[str]) -> dict[str, Any]:
    """``imagenet.py``: 90 epochs, step decay every 30, unless told otherwise."""
    problems += [f"{name}: is a flag of train_cifar.py" for name in sorted(CIFAR_FLAGS & flags.keys() - {"dataset"})]
    told: dict[str, Any] = {"recipe": "resnet-imagenet-90", "model": arch}
    if "dataset" in flags:
        told["dataset"] = flags["dataset"]
    told |= _schedule(flags, problems)
    kind = flags.get("lr_decay", "step")
    needs = {"step": ("step",), "schedule": ("schedule",), "gamma": ("step", "schedule")}
    notes += [
        f"{name}={flags[name]}: has no effect with lr_decay={kind}"
        for name, kinds in needs.items()
        if name in flags and kind not in kinds
    ]
    told |= WARMUP if flags.get("warmup") else {}
    if (width := flags.get("width_mult", 1)) != 1:
        if arch != "mobilenet_v2":
            remedy = f"model_args.width={width} is thinner"
            notes.append(f"width_mult={width}: {arch} ignores it, as in that program; {remedy}")
        else:
            told["model_args"] = {"width_mult": width}
    if isinstance(size := flags.get("input_size", 224), int):
        told["data_args"] = {"image_size": size, "eval_resize": int(size / 0.875)}
    else:
        problems.append(f"input_size={size!r}: expected a whole number of pixels")
    return told


def _schedule(flags: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """``lr-decay``: cos, linear, step (every ``step`` epochs), schedule (at epochs), and step-ref.

    ``step-ref`` is what that program's step does: its exponent is 0 at every iteration, so the rate never falls.
    """
    kind, gamma = flags.get("lr_decay", "step"), flags.get("gamma", 0.1)
    if kind == "step":
        return {"schedule": "step", "decay_epochs": flags.get("step", 30), "decay_rate": gamma}
    if kind == "schedule":
        epochs = flags.get("schedule", (150, 225))
        epochs = (
            epochs.split() if isinstance(epochs, str) else epochs if isinstance(epochs, (list, tuple)) else [epochs]
        )
        epochs = [int(epoch) if str(epoch).isdigit() else epoch for epoch in epochs]
        return {"schedule": "step", "milestones": epochs, "decay_rate": gamma}
    shapes = {"cos": "cosine", "linear": "linear", "step-ref": "constant"}
    if kind not in shapes:
        known = ("step", "schedule", *shapes)
        problems.append(f"lr_decay={kind!r}: expected {' or '.join(known)}{nearest(kind, known)}")
    return {"schedule": shapes.get(kind, "constant")}


def _cifar(arch: str, flags: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """``train_cifar.py``: the recipe of the data set, and the shape of the network."""
    problems += [f"{name}: is a flag of imagenet.py" for name in sorted(IMAGENET_FLAGS & flags.keys())]
    dataset, augment = flags.get("dataset", "cifar10"), flags.get("augment", "ref")
    for name, value, known in (("dataset", dataset, ("cifar10", "cifar100")), ("augment", augment, AUGMENT)):
        if value not in known:
            problems.append(f"{name}={value!r}: expected {' or '.join(known)}")
    if dataset not in ("cifar10", "cifar100"):
        problems[-1] += "; MLPs are `research run topology dataset=MNIST depth=8 width=8 tc=10`"
    return {
        "recipe": f"nn-mass-{dataset}",
        "model": arch,
        "model_args": _shape(flags, problems),
        "data_args": AUGMENT.get(augment, {}),
    }


def _shape(flags: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    for one, other in (("depth", "cell_depth"), ("width", "wm"), *(("tc", f"tc{k}") for k in range(1, 5))):
        if one in flags and other in flags:
            problems.append(f"{one} and {other}: say the same; give one")
    told = {name: flags[name] for name in ("wm", "num_cells", "cell_depth", "compat", "frozen_bn") if name in flags}
    if "depth" in flags:
        told["cell_depth"] = flags["depth"]
    if "width" in flags:
        told["wm"], rest = divmod(flags["width"], 16) if isinstance(flags["width"], int) else (0, 1)
        if rest or not told["wm"]:
            problems.append(f"width={flags['width']}: expected a multiple of 16, the channels of the first cell")
    cells = flags.get("num_cells", 3)
    caps = [flags.get(f"tc{k}", default) for k, default in enumerate((40, 80, 125, 200), start=1)]
    if "tc" in flags:
        told["tc"] = flags["tc"]
    elif isinstance(cells, int) and 1 <= cells <= 4:
        told["tc"] = caps[:cells]
        problems += [f"tc{k}: there are {cells} cells" for k in range(cells + 1, 5) if f"tc{k}" in flags]
    else:
        problems.append(f"num_cells={cells}: expected 1 to 4; for more give tc, or model_args.tc=[...]")
    return told
