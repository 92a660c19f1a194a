"""The command line of sparse training's seed (``main.py``): its flags, together, as parameters of a run.

One flag alone says little there (which method it is follows from several), so a whole command is translated at once:
``research train model=mnist_mlp rewire=true threshold-prune=true rewire-scaling=true initial-sparsity-fc=0.98``. Flags
may be written with dashes or underscores. What a flag leaves open has the value that program gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from research.config.seed_commands.command import Command, Reading, Syntax, long_name, said_twice
from research.config.seed_commands.sparse_schedules import Schedule, find_schedule
from research.errors import UsageError, nearest


class Model(NamedTuple):
    recipe: str
    schedule: str
    widen: float


MODELS = {
    "mnist_mlp": Model("sparse-mnist", "mnist_schedule", 1),
    "cifar10_WideResNet": Model("sparse-cifar10", "wrnet_schedule", 10),
    "imagenet_resnet50": Model("sparse-imagenet", "resnet_schedule", 1),
}

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
SWITCHES = (
    "threshold_prune prune validate_set rewire_scaling tied rescale_tied_gradient rewire no_validate_train DeepR "
    "no_batch_norm cubic_prune_schedule sparse_resnet_downsample no_augment conv_group_lasso big_new_weights"
).split()

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
    problems = [*said_twice(typed, given), *_contradictions(flags), *_dead(flags, own_schedule).values()]
    if problems:
        raise UsageError("\n".join(problems))
    f = DEFAULTS | dict.fromkeys(SWITCHES, False) | flags
    model = MODELS[f["model"]]
    schedule = find_schedule(f["schedule_file"] or model.schedule)
    told = {"recipe": model.recipe, **_network(f, model)}
    if not own_schedule:
        told |= {"schedule": "table", "lr_table": schedule.lr}
    elif f["lr"] is not None:
        told["lr"] = f["lr"]
    told |= {name: f[flag] for flag, name in SAME.items() if f[flag] is not None}
    told |= _data(f) | {"hooks": _method(f, schedule)}
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
    notes = [f"{name}={flags[name]}: has no effect: {reason}" for name, reason in _without_effect(flags, f)]
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
    for name, reason in _dead(flags, own_rates=False).items():
        notes.append(f"{reason} (left out)")
        del flags[name]
    start = {}
    if flags.get("resume") and not (flags.get("prune") or flags.get("copy_mask_from")):
        start = {"init": flags.pop("resume")}
        notes.append(f"resume={start['init']}: its weights; that program counts epochs anew too, but keeps momentum")
    elif flags.get("prune"):
        notes.append(
            "resume: that program takes the weight decay and momentum of the resumed run too; here, its flags'"
        )
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
    method = next((name for name in ("tied", "prune") if given.get(name) is True), "")
    if given.get("model") != "mnist_mlp" or not method or {"dataset", "recipe"} & given.keys():
        return ""
    return (
        f"{method}=true: read as this program's method, with its own defaults and data set; those of the published "
        "main.py come with a word that only it has, such as initial-sparsity-fc=0.98"
    )


def _flags(given: Mapping[str, Any]) -> dict[str, str]:
    """The keys of ``given`` that are flags of that program, with their long names."""
    long_names = {key: long_name(key, SHORT) for key in given}
    return {key: name for key, name in long_names.items() if name in DEFAULTS or name in SWITCHES}


def _without_effect(flags: Mapping[str, Any], f: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Flags that were given, are not off, and mean nothing beside the others, with the reason; ``f`` has all flags."""
    kernels, wide = f["model"] != "mnist_mlp", f["model"] == "cifar10_WideResNet"
    masks = not (f["prune"] or f["tied"])
    method = next((name for name in ("prune", "tied", "DeepR", "rewire") if f[name]), "")
    needs = {
        "layers": (wide, "it is of cifar10_WideResNet"),
        "widen_factor": (kernels, "mnist_mlp has one width"),
        "no_batch_norm": (not kernels, f"{f['model']} keeps its batch norm"),
        "no_augment": (kernels, "MNIST is not augmented"),
        "sparse_resnet_downsample": (kernels, "mnist_mlp has no shortcuts"),
        "sub_kernel_granularity": (kernels, "mnist_mlp has no kernels"),
        "initial_sparsity_fc": (not wide and not f["prune"], "what is sparse there is said by another flag"),
        "initial_sparsity_conv": (kernels and not f["prune"], "what is sparse there is said by another flag"),
        "rewire_fraction": (f["rewire"], "it is of rewire=true"),
        "big_new_weights": (f["rewire"], "it is of rewire=true"),
        "stop_rewire_epoch": (method in ("rewire", "DeepR"), "nothing is rewired"),
        "L1_loss_coeff": (masks, f"{method} has no such term"),
        "conv_group_lasso": (masks and f["L1_loss_coeff"], "it needs L1_loss_coeff"),
        "epochs": (not f["prune"], "prune trains as long as its plan is"),
        "prune_target_sparsity_fc": (f["prune"] and not wide, "it is of prune=true, for fully connected layers"),
        "prune_target_sparsity_conv": (f["prune"] and kernels, "it is of prune=true, for convolutions"),
    } | dict.fromkeys(
        ("start_pruning_after_epoch", "prune_epoch_frequency", "prune_iterations", "post_prune_epochs"),
        (f["prune"], "it is of prune=true"),
    )
    for name, (acts, reason) in needs.items():
        if flags.get(name) and not acts:
            yield name, reason


NEEDS = {
    "threshold_prune": "rewire",
    "rewire_scaling": "rewire",
    "rescale_tied_gradient": "tied",
    "cubic_prune_schedule": "prune",
    "DeepR_eta": "DeepR",
    "n_prune_params": "threshold_prune",
}


def _dead(flags: Mapping[str, Any], own_rates: bool) -> dict[str, str]:
    """Flags that would be without effect in that program, with a line for each.

    ``own_rates`` says that learning rates are given as this program has them.
    """
    on = {name for name in SWITCHES if flags.get(name)}
    found = {
        flag: f"{flag}: has no effect without {needs}=true"
        for flag, needs in NEEDS.items()
        if (flag in on or (flag in flags and flag not in SWITCHES)) and needs not in on
    }
    if flags.get("lr") is not None and not own_rates:
        told = "the schedule has the learning rates; give schedule_file, or schedule=cosine"
        found["lr"] = f"lr={flags['lr']}: {told}"
    return found


def _contradictions(flags: Mapping[str, Any]) -> list[str]:
    """What that program leaves unsaid: which flag would win, or what has no meaning for a run."""
    on = {name for name in SWITCHES if flags.get(name)}
    found = []
    if flags.get("model", "mnist_mlp") not in MODELS:
        found.append(f"model={flags['model']!r}: expected {' or '.join(MODELS)}{nearest(flags['model'], MODELS)}")
    methods = sorted(on & {"DeepR", "rewire", "tied", "prune"})
    if len(methods) > 1:
        found.append(f"{' and '.join(methods)}: each is a method of its own; give one")
    if "threshold_prune" in on and "rewire_fraction" in flags:
        found.append("threshold_prune and rewire_fraction: a threshold decides, or a fraction; give one")
    if "prune" in on and not flags.get("resume"):
        found.append("prune: starts from a dense network; give resume=RUN")
    if flags.get("resume") and not ("prune" in on or flags.get("copy_mask_from")):
        found.append("resume: a run continues by itself when its command is given again; leave it out")
    if flags.get("start_epoch"):
        found.append("start_epoch: a run continues by itself when its command is given again; leave it out")
    if "DeepR" in on and flags.get("model", "mnist_mlp") != "mnist_mlp" and flags.get("sub_kernel_granularity") != 4:
        found.append("DeepR: its signs are of single weights; give sub_kernel_granularity=4 (of convolutions it is 2)")
    if "copy_mask_from" in flags and methods:
        found.append(f"copy_mask_from: is for masks that stay as they are; leave out {methods[0]}")
    return found


def _network(f: Mapping[str, Any], model: Model) -> dict[str, Any]:
    widen = model.widen if f["widen_factor"] is None else f["widen_factor"]
    if f["model"] == "cifar10_WideResNet":
        return {"model": f"wrn-{f['layers']}-{widen:g}"}
    if f["model"] == "imagenet_resnet50":
        return {"model": "resnet50"} | ({"model_args": {"width": widen}} if widen != 1 else {})
    return {"model": "mnist_mlp"} | ({"model_args": {"batch_norm": False}} if f["no_batch_norm"] else {})


def _data(f: Mapping[str, Any]) -> dict[str, Any]:
    wide = f["model"] == "cifar10_WideResNet"
    told: dict[str, Any] = {"crop": "none", "flip": False} if f["no_augment"] else {}
    if f["no_augment"] and wide:
        told["pad_mode"] = "zero"  # its recipe pads by reflection
    if f["validate_set"]:
        told["holdout"] = 5_000 if wide else 10_000
    return {"data_args": told} if told else {}


def _method(f: Mapping[str, Any], schedule: Schedule) -> dict[str, dict[str, Any]]:
    """The hook that several flags together mean."""
    matrices = f["model"] == "mnist_mlp"
    sparsity = {
        "mnist_mlp": {"sparsity": f["initial_sparsity_fc"]},
        "cifar10_WideResNet": {"sparsity": f["initial_sparsity_conv"]},
        "imagenet_resnet50": {"sparsity_fc": f["initial_sparsity_fc"], "sparsity_conv": f["initial_sparsity_conv"]},
    }[f["model"]]
    where = {"sparse_downsample": True} if f["sparse_resnet_downsample"] else {}
    masks = sparsity | where | {"granularity": 4 if matrices else f["sub_kernel_granularity"]}
    if f["L1_loss_coeff"]:
        masks |= {"l1": f["L1_loss_coeff"], "group_lasso": bool(f["conv_group_lasso"])}
    events = {"period": schedule.period, "stop_epoch": f["stop_rewire_epoch"]}
    new = {"big_new_weights": True} if f["big_new_weights"] else {}

    if f["prune"]:
        targets = {
            "mnist_mlp": {"sparsity": f["prune_target_sparsity_fc"], "last": 0.9},
            "cifar10_WideResNet": {"sparsity": f["prune_target_sparsity_conv"]},
            "imagenet_resnet50": {
                "sparsity_fc": f["prune_target_sparsity_fc"],
                "sparsity_conv": f["prune_target_sparsity_conv"],
            },
        }[f["model"]]
        plan = {
            "kind": "cubic" if f["cubic_prune_schedule"] else "exponential",
            "iterations": f["prune_iterations"],
            "start_epoch": f["start_pruning_after_epoch"],
            "every": f["prune_epoch_frequency"],
        }
        return {"prune": targets | where | plan | {"start_from": f["resume"], "granularity": masks["granularity"]}}
    if f["tied"]:
        unit = {"unit": "slice"} if f["sub_kernel_granularity"] == 0 else {}
        rescale = {"rescale_gradient": True} if f["rescale_tied_gradient"] else {}
        return {"tied": sparsity | where | unit | rescale} if any(sparsity.values()) else {}
    if f["DeepR"]:
        stop = {"stop_epoch": f["stop_rewire_epoch"]}
        return {"deepr": masks | stop | {"eta": f["DeepR_eta"], "temperature": schedule.temperature}}
    if f["rewire"] and f["threshold_prune"]:
        reallocate = {} if f["rewire_scaling"] else {"reallocate": False}
        return {"dsr": masks | events | new | reallocate | {"k": f["n_prune_params"]}}
    if f["rewire"] and (f["rewire_scaling"] or new):
        fraction = {"prune": "fraction", "fraction": f["rewire_fraction"], "reallocate": bool(f["rewire_scaling"])}
        return {"dsr": masks | events | new | fraction}
    if f["rewire"]:
        return {"set": masks | events | {"fraction": f["rewire_fraction"]}}
    if f["copy_mask_from"]:
        copied = {"copy_mask_from": f["copy_mask_from"], "copy_init": bool(f["resume"])}
        return {"static_sparse": masks | copied}
    return {"static_sparse": masks} if any(sparsity.values()) else {}
