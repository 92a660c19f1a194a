"""GraM's seed, and its published release (SGS): the method's flags, and those of the trainer that it came in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from research.config.seed_commands import timm_augment
from research.config.seed_commands.command import Inert, Reading, Syntax, only
from research.errors import UsageError, nearest


def nmi_k(text: Any) -> dict[str, Any]:
    """``c_type``: ``nmi`` followed by a decimal k (``nmi8``, ``nmi2.5``, ``nmi1e2``)."""
    number = str(text).removeprefix("nmi")
    try:
        if number == str(text):
            raise ValueError
        return {"gram.k": float(number)}
    except ValueError:
        raise UsageError(f"c_type={text!r}: expected 'nmi' followed by a number k > 0, such as nmi8") from None


METHOD: dict[str, str | Callable[[Any], dict[str, Any]]] = {
    "c_type": nmi_k,
    "c_epochs": "gram.epochs",
    "c_train_batches": "gram.batches",
    "c_warmup": "gram.warmup",
    "c_variant": "gram.variant",
    "sgs": "gram",
    "sgs_k": "gram.k",
    "sgs_epochs": "gram.epochs",
    "sgs_train_batches": "gram.batches",
    "sgs_warmup": "gram.warmup",
    "sgs_diagonal_removal": lambda removed: {"gram.variant": "sparse" if removed else "allpairs"},
}
TRAINER: dict[str, str | Inert | Callable[[Any], dict[str, Any]]] = {
    "data_path": "data_root",
    "experiment": "name",
    "color_jitter": "data_args.jitter",
    "cutout_length": "data_args.cutout",
    "clip_grad_norm": lambda on: {"clip_norm": 5.0 if on else 0.0},
    "clip_grad_max_norm": "clip_norm",
    "opt_no_filter": "decay_norm_and_bias",
    "sgd_no_nesterov": lambda without: {"nesterov": not without},
    "model_ema": "ema",
    "model_ema_decay": "ema.decay",
    "dist_port": Inert("processes find a free port by themselves"),
    "opt_eps": Inert("it is of RMSprop; this is SGD"),
    "decay_by_epoch": Inert("that trainer moves its cosine at every step all the same"),
    "interpolation": "data_args.interpolation",
    "drop": only("drop", 0),
    "drop_path_rate": only("drop_path_rate", 0),
    "drop_path_strategy": Inert("no path is dropped"),
    "slurm": Inert("give `--on slurm` to queue the run"),
    "val_batch_size_multiplier": Inert("the size of a batch does not change what an evaluation gives"),
}
ALIASES = {**METHOD, **TRAINER, **timm_augment.ALIASES}

SWITCHES = frozenset(
    "sgs sgs_diagonal_removal clip_grad_norm opt_no_filter sgd_no_nesterov model_ema decay_by_epoch slurm".split()
)
SYNTAX = Syntax(
    values=[
        *(METHOD.keys() - SWITCHES),
        *(TRAINER.keys() - SWITCHES),
        *("aa", "reprob", "remode"),
        *"""
        config dataset model resume batch_size smoothing opt momentum weight_decay sched decay_epochs lr warmup_lr
        min_lr epochs warmup_epochs decay_rate seed log_interval workers local_rank
        """.split(),
    ],
    switches=SWITCHES | {"gram", "amp"},
    short={"c": "config", "b": "batch_size", "dr": "decay_rate", "j": "workers"},
)
STRATEGIES = {
    "resnet": "gram-imagenet-resnet",
    "mbv1": "gram-imagenet-mobilenet_v1",
    "cifar": "cifar-600",
    "wei_cifar": "cifar-200",
}
"""The trainer's YAML files, by the names that they have without a folder -> recipe."""


def read(argv: Sequence[str], processes: int) -> list[Reading]:
    """``tools/train.py -c YAML --model MODEL …`` on ``processes`` GPUs.

    Raises:
        UsageError: a flag without a meaning here, or a strategy that is not known.
    """
    flags = SYNTAX.read(argv)
    notes: list[str] = []
    given = {"recipe": _recipe(flags.pop("config", None))}
    if "model" not in flags:
        raise UsageError("model: the strategy trains many; give --model NAME")
    if not (flags.get("gram") or flags.get("sgs")):
        for name in METHOD.keys() & flags.keys():
            notes.append(f"{name}={flags.pop(name)}: has no effect without --gram")
    if flags.get("clip_grad_norm") and "clip_grad_max_norm" in flags:
        del flags["clip_grad_norm"]
    elif "clip_grad_max_norm" in flags:
        notes.append(f"clip_grad_max_norm={flags.pop('clip_grad_max_norm')}: has no effect without --clip-grad-norm")
    if flags.pop("opt", "sgd") != "sgd":
        raise UsageError("opt: expected sgd; the trainer's RMSprop is not here")
    if flags.get("warmup_epochs"):
        given["schedule_by"] = "step_executed"
        notes.append("schedule_by=step_executed: the warm-up climbs between epochs, and the curve begins after it")
    timm_augment.settled(flags, notes)
    if "batch_size" in flags:
        notes.append(f"batch_size={flags['batch_size']}: over all processes, as the trainer divides it")
    given |= flags
    return [Reading("train", given | ({"gpus": processes} if processes > 1 else {}), notes)]


def read_dist_train(words: Sequence[str]) -> list[Reading]:
    """``dist_train.sh GPUS YAML MODEL …``.

    Raises:
        UsageError: as :func:`read`, or there are not three words.
    """
    if len(words) < 3 or not words[0].isdigit():
        raise UsageError("dist_train.sh: expected the number of GPUs, a YAML file and a network before the flags")
    return read(["--config", words[1], "--model", words[2], *words[3:]], int(words[0]))


def _recipe(strategy: Any) -> str:
    if not strategy:
        raise UsageError("config: expected a strategy, -c configs/strategies/GraM/resnet.yaml")
    known = PurePath(str(strategy)).stem
    if known not in STRATEGIES:
        raise UsageError(f"{strategy}: not a strategy that is known here{nearest(known, STRATEGIES)}")
    return STRATEGIES[known]


def speaks(argv: Sequence[str]) -> bool:
    """Whether the flags of a ``train.py`` are those of this trainer, and not of another."""
    names = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("-")}
    return bool(names & {"c", "config", "gram", "sgs", "data_path", "dist_port", *METHOD})
