"""What the flags of sparse training's seed mean together: network, data and method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from research.config.seed_commands.sparse_schedules import Schedule


class Model(NamedTuple):
    recipe: str
    schedule: str
    widen: float


MODELS = {
    "mnist_mlp": Model("sparse-mnist", "mnist_schedule", 1),
    "cifar10_WideResNet": Model("sparse-cifar10", "wrnet_schedule", 10),
    "imagenet_resnet50": Model("sparse-imagenet", "resnet_schedule", 1),
}


def network(f: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """The network of a command whose flags, defaults filled in, are ``f``."""
    widen = model.widen if f["widen_factor"] is None else f["widen_factor"]
    if f["model"] == "cifar10_WideResNet":
        return {"model": f"wrn-{f['layers']}-{widen:g}"}
    if f["model"] == "imagenet_resnet50":
        return {"model": "resnet50"} | ({"model_args": {"width": widen}} if widen != 1 else {})
    return {"model": "mnist_mlp"} | ({"model_args": {"batch_norm": False}} if f["no_batch_norm"] else {})


def data(f: Mapping[str, Any]) -> dict[str, Any]:
    """Augmentation and held-out images."""
    wide = f["model"] == "cifar10_WideResNet"
    told: dict[str, Any] = {"crop": "none", "flip": False} if f["no_augment"] else {}
    if f["no_augment"] and wide:
        told["pad_mode"] = "zero"  # its recipe pads by reflection
    if f["validate_set"]:
        told["holdout"] = 5_000 if wide else 10_000
    return {"data_args": told} if told else {}


def method(f: Mapping[str, Any], schedule: Schedule) -> dict[str, dict[str, Any]]:
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
