"""Command lines of NN-Mass's four programs: ``train_mlp.py``, ``ldi.py``, ``train_cifar.py`` and ``imagenet.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from research.config.seed_commands.command import Reading, Syntax
from research.config.seed_commands.nn_mass import (
    CIFAR_FLAGS,
    HARMLESS,
    IMAGENET_FLAGS,
    INERT,
    REFUSED,
    SAME,
    SHORT,
    translate,
)
from research.errors import UsageError

MLP = Syntax(
    values="batch_size epochs lr depth width num_seg tc dataset train_log_file res_log_file iter_times".split(),
    switches=["make_dataset"],
)
LDI = Syntax(values="batch_size epochs depth width num_seg tc dataset sigma_log_file iter_times".split())
CIFAR = Syntax(
    values=[
        *(SAME.keys() | CIFAR_FLAGS | INERT) - {"make_dataset", "frozen_bn"},
        *"arch checkpoint iter_times train_log_file res_log_file".split(),
    ],
    switches="make_dataset frozen_bn save_all save_everyepoch resume".split(),
    short=SHORT,
)
IMAGENET = Syntax(
    values=[
        *SAME,
        *(IMAGENET_FLAGS - {"schedule", "warmup"}),
        *"arch checkpoint data_backend start_epoch resume weight world_size rank".split(),
        *"dist_url dist_backend post_fix".split(),
    ],
    switches="warmup evaluate pretrained".split(),
    lists=["schedule"],
    short=SHORT,
)
PLACES = "dist_url dist_backend post_fix train_log_file res_log_file save_all save_everyepoch data_backend".split()
"""Flags that change nothing of what is computed; what their refusal says is a note of the translation."""


def read_mlp(argv: Sequence[str], processes: int) -> list[Reading]:
    """``train_mlp.py``: networks of one shape, trained; here the notebook ``topology``, without LDI."""
    flags, notes = MLP.read(argv), []
    if _on_mnist(flags) and "batch_size" in flags:
        notes.append(f"batch_size={flags.pop('batch_size')}: has no effect there: MNIST is trained in batches of 64")
    return [_topology(flags | {"ldi": False}, notes)]


def read_ldi(argv: Sequence[str], processes: int) -> list[Reading]:
    """``ldi.py``: networks of one shape, whose LDI is measured untrained; here the notebook ``topology``."""
    flags, notes = LDI.read(argv), []
    if not _on_mnist(flags):
        notes.append(f"dataset={flags.pop('dataset')}: has no effect there: LDI is measured on MNIST")
    for name in ("batch_size", "epochs"):
        if name in flags:
            why = "nothing is trained" if name == "epochs" else "every image counts the same"
            notes.append(f"{name}={flags.pop(name)}: has no effect: {why}")
    notes.append("ldi_mode=exact: the paper's definition; that program's is ldi_mode=reference (wrong slopes of ELU)")
    return [_topology(flags | {"train": False}, notes)]


def read_cifar(argv: Sequence[str], processes: int) -> list[Reading]:
    """``train_cifar.py``: one run for each of ``iter_times`` networks."""
    flags, notes = CIFAR.read(argv), []
    if flags.pop("resume", False):
        notes.append("resume: the same command continues a run that was stopped")
    times = flags.pop("iter_times", 1)
    notes += _told(flags)
    command = translate(flags if "arch" in flags else {"arch": "dense_depth", **flags})
    seeds = [{}] if times == 1 else [{"seed": seed} for seed in range(times)]
    notes += [f"iter_times={times}: one run for each, with another seed"] if times != 1 else []
    first, *others = [Reading("train", _named(command.parameters, seed)) for seed in seeds]
    return [first._replace(notes=[*notes, *command.notes]), *others]


def read_imagenet(argv: Sequence[str], processes: int) -> list[Reading]:
    """``imagenet.py``: training, or with ``-e`` an evaluation.

    Raises:
        UsageError: a flag without a meaning here.
    """
    flags = IMAGENET.read(argv)
    weights, evaluated = flags.pop("weight", ""), flags.pop("evaluate", False)
    resumed, pretrained = flags.pop("resume", ""), flags.pop("pretrained", False)
    if not resumed or flags.get("start_epoch") == 0:
        flags = {name: value for name, value in flags.items() if name != "start_epoch" or value}
    for name in ("world_size", "rank"):
        if flags.get(name) in (-1, 0, 1):
            del flags[name]
    notes = _told(flags)
    flags.setdefault("arch", "mobilenet_v2")
    command = translate(flags)
    given, notes = dict(command.parameters), [*notes, *command.notes]
    if processes > 1:
        given["gpus"] = processes
        notes.append(f"batch_size={flags.get('batch_size', 256)}: over all processes, as that program divides it")
    start = {"init": f"torchvision:{given['model']}"} if pretrained else {}
    if evaluated:
        if not (weights or resumed or pretrained):
            raise UsageError("evaluate: of which weights? give --weight FILE")
        return [Reading("evaluate", given, notes, [str(weights or resumed or start["init"])])]
    if weights:
        notes.append(f"weight={weights}: has no effect without -e")
    return [Reading("train", given | ({"continue_from": resumed} if resumed else start), notes)]


def _on_mnist(flags: dict[str, Any]) -> bool:
    return str(flags.get("dataset", "MNIST")).lower() == "mnist"


def _topology(flags: dict[str, Any], notes: list[str]) -> Reading:
    if _on_mnist(flags):
        for name in ("num_seg", "make_dataset"):
            if name in flags:
                notes.append(f"{name}={flags.pop(name)}: has no effect on MNIST, which is not generated")
    return Reading("run topology", flags, notes)


def _told(flags: dict[str, Any]) -> list[str]:
    """Take the flags out of ``flags`` that only say where results go; what is told of each that asks for something."""
    told = {name: flags.pop(name) for name in PLACES if name in flags}
    return [f"{n}={v}: {REFUSED[n]}" for n, v in told.items() if v is not False and v != HARMLESS.get(n, False)]


def _named(parameters: Any, seed: dict[str, int]) -> dict[str, Any]:
    name = {"name": f"{parameters['name']}-seed-{seed['seed']}"} if seed and "name" in parameters else {}
    return {**parameters, **seed, **name}
