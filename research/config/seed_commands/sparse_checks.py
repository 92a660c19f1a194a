"""Flags of sparse training's seed that contradict each other, or mean nothing beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from research.config.seed_commands.sparse_meaning import MODELS
from research.errors import nearest

SWITCHES = (
    "threshold_prune prune validate_set rewire_scaling tied rescale_tied_gradient rewire no_validate_train DeepR "
    "no_batch_norm cubic_prune_schedule sparse_resnet_downsample no_augment conv_group_lasso big_new_weights"
).split()

NEEDS = {
    "threshold_prune": "rewire",
    "rewire_scaling": "rewire",
    "rescale_tied_gradient": "tied",
    "cubic_prune_schedule": "prune",
    "DeepR_eta": "DeepR",
    "n_prune_params": "threshold_prune",
}


def dead(flags: Mapping[str, Any], own_rates: bool) -> dict[str, str]:
    """Flags that would be without effect in that program, with a line for each.

    ``own_rates`` says that learning rates are given as this program has them.
    """
    on = {name for name in SWITCHES if flags.get(name)}
    found = {
        flag: f"{flag}: has no effect without {needs}=true"
        for flag, needs in NEEDS.items()
        if (flag in on or (flag in flags and flag not in SWITCHES)) and needs not in on
    }
    if "threshold_prune" in on and "rewire_fraction" in flags:
        found["rewire_fraction"] = "threshold_prune and rewire_fraction: a threshold decides, or a fraction; give one"
    if flags.get("lr") is not None and not own_rates:
        told = "the schedule has the learning rates; give schedule_file, or schedule=cosine"
        found["lr"] = f"lr={flags['lr']}: {told}"
    return found


def contradictions(flags: Mapping[str, Any]) -> list[str]:
    """What that program leaves unsaid: which flag would win, or what has no meaning for a run."""
    on = {name for name in SWITCHES if flags.get(name)}
    found = []
    if flags.get("model", "mnist_mlp") not in MODELS:
        found.append(f"model={flags['model']!r}: expected {' or '.join(MODELS)}{nearest(flags['model'], MODELS)}")
    methods = sorted(on & {"DeepR", "rewire", "tied", "prune"})
    if len(methods) > 1:
        found.append(f"{' and '.join(methods)}: each is a method of its own; give one")
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


def without_effect(flags: Mapping[str, Any], f: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
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
