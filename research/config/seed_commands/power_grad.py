"""PowerGrad's seed: its flag, ``modify_softmax=ALPHA`` where 0 is off, and those of its trainer, a timm of 2021."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from research.config.seed_commands import timm_augment
from research.config.seed_commands.command import Inert, Reading, Syntax, only
from research.errors import UsageError, closest

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "nesterov": True},
    "nesterov": {"optimizer": "sgd", "nesterov": True},
    "momentum": {"optimizer": "sgd", "nesterov": False},
    "adamw": {"optimizer": "adamw", "nesterov": False},
}


def optimizer(kind: Any) -> dict[str, Any]:
    """``opt``: a plain ``sgd`` has Nesterov's momentum there."""
    if kind not in OPTIMIZERS:
        raise UsageError(f"opt={kind!r}: expected {', '.join(OPTIMIZERS)}{closest(kind, OPTIMIZERS)}")
    return OPTIMIZERS[kind]


def amp(on: Any) -> dict[str, Any]:
    """``amp``, a switch there."""
    return {"amp": {True: "fp16", False: "off"}[on] if isinstance(on, bool) else on}


def validate(on: Any) -> dict[str, Any]:
    """``validate``: nothing would be trained."""
    if on:
        raise UsageError(f"validate={on}: `research evaluate FILE model=NAME` evaluates weights")
    return {}


ALIASES: dict[str, str | Inert | Callable[[Any], dict[str, Any]]] = {
    "modify_softmax": lambda alpha: {"power_grad": False} if alpha in (0, "0") else {"power_grad.alpha": alpha},
    "amp": amp,
    "native_amp": amp,
    "apex_amp": amp,
    "validate": validate,
    "opt": optimizer,
    "data_dir": "data_root",
    "output": "runs",
    "resume": "continue_from",
    "initial_checkpoint": "init",
    "sched": "schedule",
    "dr": "decay_rate",
    "clip_grad": "clip_norm",
    "clip_mode": only("clip_mode", "norm"),
    "lr_cycle_limit": only("lr_cycle_limit", 1),
    "lr_cycle_mul": Inert("there are no restarts"),
    "dali": Inert("images are read by the loader of this program; give loader=ffcv for FFCV files"),
    "dali_gpu": Inert("images are read by the loader of this program; give loader=ffcv for FFCV files"),
    "grad_stats": Inert("it only printed the range of the gradient at the logits"),
    "final_validate": Inert("every epoch is evaluated; with logit_stats=true its logits too"),
    "validation_batch_size_multiplier": Inert("the size of a batch does not change what an evaluation gives"),
    "pin_mem": Inert("the loader decides"),
    "eval_metric": Inert("the best weights are those with the best top-1"),
    "checkpoint_hist": Inert("a run keeps its best weights and its newest checkpoints"),
    "num_classes": Inert("it follows from the data"),
    "local_rank": Inert("the launcher numbers its processes"),
    **timm_augment.ALIASES,
}

SYNTAX = Syntax(
    values="""
        data_dir dataset model initial_checkpoint resume num_classes batch_size validation_batch_size_multiplier
        opt momentum weight_decay clip_grad clip_mode sched lr lr_cycle_mul lr_cycle_limit warmup_lr min_lr epochs
        start_epoch decay_epochs warmup_epochs cooldown_epochs decay_rate color_jitter smoothing model_ema_decay seed
        log_interval checkpoint_hist workers output experiment eval_metric local_rank train_continuous modify_softmax
        mixup cutmix mixup_prob mixup_switch_prob mixup_mode mixup_off_epoch reprob remode recount aa
    """.split(),
    switches="""
        pretrained no_resume_opt sync_bn model_ema amp native_amp apex_amp channels_last pin_mem validate
        final_validate dali dali_gpu logit_stats grad_stats
    """.split(),
    short={
        "b": "batch_size",
        "vb": "validation_batch_size_multiplier",
        "d": "dataset",
        "dr": "decay_rate",
        "j": "workers",
        "v": "validate",
    },
)
DEFAULTS = {"batch_size": 256, "weight_decay": 1e-4, "warmup_epochs": 0, "cooldown_epochs": 0, "amp": "off"}
"""Of the trainer, where they are not those of the recipe, which is the seed's command."""


def read(argv: Sequence[str], processes: int) -> list[Reading]:
    """``train.py …`` on ``processes`` GPUs.

    Raises:
        UsageError: a flag without a meaning here.
    """
    flags = SYNTAX.read(argv)
    if "model" not in flags:
        raise UsageError("model: the trainer's default, nf_resnet50, cannot be trained by it; give --model")
    notes: list[str] = []
    images = flags.pop("batch_size", DEFAULTS["batch_size"])
    given: dict[str, Any] = {"recipe": "power-grad-imagenet"} | DEFAULTS
    given["batch_size"] = images * processes
    if processes > 1:
        given["gpus"] = processes
        notes.append(f"batch_size={given['batch_size']}: {images} on each of {processes} GPUs")
    given |= _colours(flags, notes) | _start(flags)
    timm_augment.settled(flags, notes)
    given |= {"amp": "fp16"} if any([flags.pop(n, False) for n in ("amp", "native_amp", "apex_amp")]) else {}
    if flags.get("sched", "cosine") != "constant":
        given["schedule_by"] = "epoch_executed"
        notes.append("schedule_by=epoch_executed: epoch e > 0 trains at the rate of e + 1, as in that trainer")
    if flags.pop("dataset", "") not in ("", "imagenet", "ImageFolder"):
        raise UsageError("dataset: the recipe is of ImageNet; give research train's own words for other data")
    evaluated = flags.pop("validate", False)
    given |= flags
    return [_evaluation(given) if evaluated else Reading("train", given, notes)]


def _colours(flags: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    dali = [flags.pop(name) for name in ("dali", "dali_gpu") if name in flags]
    jitter = flags.pop("color_jitter", None)
    if dali:
        notes.append("dali: other crops and another order than DALI's; images are read by the loader of this program")
        if jitter is not None:
            notes.append(f"color_jitter={jitter}: has no effect with --dali")
        if "reprob" in flags:
            notes.append(f"reprob={flags.pop('reprob')}: has no effect with --dali")
        if flags.get("mixup") or flags.get("cutmix"):
            notes.append("images are mixed; there nothing is with --dali, and the loss fails")
        return {}
    notes.append("without --dali images are resized bilinearly or bicubically at random there, bilinearly here")
    return {"data_args.jitter": 0.4 if jitter is None else jitter}


def _start(flags: dict[str, Any]) -> dict[str, Any]:
    if flags.pop("start_epoch", None):
        raise UsageError("start_epoch: the epoch is that of the checkpoint; leave it out")
    if flags.pop("no_resume_opt", False) and flags.get("resume"):
        raise UsageError("no_resume_opt: a run goes on with its optimizer; give --initial-checkpoint for weights alone")
    pretrained = flags.pop("pretrained", False) and not flags.keys() & {"resume", "initial_checkpoint"}
    return {"init": f"timm:{flags['model']}"} if pretrained else {}


def _evaluation(given: dict[str, Any]) -> Reading:
    """``--validate``: of the checkpoint that ``--resume`` names, else of the run that the same command trains."""
    kept = {name: given[name] for name in ("recipe", "model", "data_dir") if name in given}
    weights = next((given[name] for name in ("resume", "initial_checkpoint", "init") if given.get(name)), "")
    if weights:
        return Reading("evaluate", kept, [], [str(weights)])
    notes = ["without --resume that trainer evaluates an untrained network; here, the run of the same command"]
    return Reading("evaluate", given, notes)
