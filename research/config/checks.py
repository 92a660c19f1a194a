"""What is wrong with parameters beyond the type and range of each: methods, network, data, and contradictions.

``check_*`` return the value as it is used and a list of problems, ``problems_of_*`` the list alone; nothing is raised,
so that every problem can be reported at once. Methods, networks and data are imported only when they are asked about,
because that imports torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from research.errors import UsageError, nearest
from research.parameters.signatures import check_arguments, parameters_of
from research.parameters.when import in_epochs
from research.parameters.yaml_1_2 import plain

MOST_BYTES = 240  # of a file's name, 255, less what is put before and behind: ".NAME.log", "NAME-failed"


def check_hooks(hooks: Mapping[str, Mapping]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every hook with all of its parameters, defaults filled in, and a line for each problem."""
    if not hooks:
        return {}, []
    from research.hooks import HOOKS  # torch takes seconds

    complete, problems = {}, []
    for name, given in hooks.items():
        if name not in HOOKS:
            problems.append(f"unknown hook {name!r}{nearest(name, HOOKS, listed_by='research hooks')}")
            continue
        complete[name], own_problems = check_arguments(f"{name}.", HOOKS[name], given)
        if not own_problems:
            try:
                HOOKS[name](**complete[name])
            except UsageError as error:  # what no single parameter's range can say
                own_problems = [f"{name}: {error}"]
        problems += own_problems
        kind = HOOKS[name].exclusive
        rivals = [other for other in complete if kind and other != name and HOOKS[other].exclusive == kind]
        problems += [f"{name}: cannot run together with {other}: both decide the {kind}" for other in rivals]
    return complete, problems


def problems_without_effect(hooks: Mapping[str, Mapping], stored: Mapping[str, Mapping]) -> list[str]:
    """A line for each parameter of a method that was given and has no effect; those in ``stored`` are not reported."""
    if not hooks:
        return []
    from research.hooks import HOOKS  # torch takes seconds
    from research.hooks.base import refusals

    problems = []
    for name, given in hooks.items():
        known = stored.get(name, {})
        hook = HOOKS[name](**given)
        reasons = {p: why for p, why in hook.idle().items() if p not in known or known[p] != given[p]}
        problems += refusals(name, hook, reasons)
    return problems


def check_model_and_data(values: dict[str, Any], wrong: Collection[str]) -> list[str]:
    """Check names and arguments of the network and the data set, except for fields already known to be ``wrong``.

    Arguments get the type in which they are used, so that ``false`` and ``0`` for a switch, or 4 and 4.0, are one run.
    """
    from research.data.datasets import arguments, check_dataset  # torch takes seconds
    from research.models import check_model, model_arguments

    problems = []
    if not {"dataset", "data_args"} & set(wrong):
        problems += check_dataset(values["dataset"], values["data_args"])
    if not {"model", "model_args"} & set(wrong):
        problems += check_model(values["model"], values["model_args"])
    if not problems and not wrong:
        values["model_args"] = as_used(values["model_args"], model_arguments(values["model"], values["model_args"]))
        values["data_args"] = as_used(values["data_args"], arguments(values["dataset"], values["data_args"])[0])
    return problems


def problems_of_init(name: str) -> list[str]:
    """What is wrong with ``init`` where it names a network of a library."""
    from research.models import check_model  # torch takes seconds
    from research.models.libraries import PUBLISHED

    return [f"init: {problem}" for problem in check_model(name, {})] if name.partition(":")[0] in PUBLISHED else []


def inputs_of_init(values: Mapping[str, Any]) -> dict[str, list[float]]:
    """``mean`` and ``std`` that the published weights ``init`` know, where those of the data would differ."""
    from research.data.datasets import describe  # torch takes seconds
    from research.models.libraries import preparation

    dataset, given = describe(values["dataset"]), values["data_args"]
    record = preparation(values["init"])
    if not record or dataset.kind == "vectors" or {"mean", "std", "normalize"} & given.keys():
        return {}
    if len(record.mean) != dataset.shape[0] or (record.mean, record.std) == (dataset.mean, dataset.std):
        return {}
    return {"mean": list(record.mean), "std": list(record.std)}


def as_used(given: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with numbers, lists of numbers and booleans as in ``used``, in JSON types; without defaults."""
    told = plain(dict(given))
    numbers = {k: list(v) if isinstance(v := used[k], tuple) else v for k in told}
    return told | {k: v for k, v in numbers.items() if isinstance(v, (bool, int, float, list))}


def check_substitute(text: Any) -> tuple[Any, list[str]]:
    """The spec as :class:`research.layers.spec.Spec` writes it, so that one substitute has one name; and problems."""
    if not text or not isinstance(text, str):
        return text, []
    from research.layers.spec import parse_spec  # torch takes seconds

    try:
        return str(parse_spec(text) or ""), []
    except UsageError as error:
        return text, [str(error)]


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """Contradictions between fields that are valid one by one, a line each."""
    v = values
    problems = []
    shares = v["processes"] * v["nodes"] * v["accumulation"]
    if v["batch_size"] % shares:
        least = max(1, v["batch_size"] // shares) * shares
        problems.append(
            f"batch_size={v['batch_size']}: must divide into processes x nodes x accumulation = {shares} equal parts; "
            f"nearest is {least}"
        )
    if not all(0 <= beta < 1 for beta in v["betas"]):
        problems.append(f"betas={list(v['betas'])}: each must be >= 0 and < 1")
    if v["nesterov"] and v["optimizer"] == "sgd" and v["momentum"] == 0:
        problems.append("nesterov=True: needs momentum > 0")
    warmup = v["warmup_epochs"]
    if warmup and not str(warmup).endswith("it") and in_epochs(warmup, "ep", v["epochs"], 1) >= v["epochs"]:
        told = warmup if isinstance(warmup, str) else f"{warmup:g}"
        problems.append(f"warmup_epochs={told}: must be below epochs={v['epochs']}")
    if str(v["cooldown_epochs"]).endswith("it"):
        problems.append(f"cooldown_epochs={v['cooldown_epochs']}: is made of whole epochs; give 2ep")
    if v["min_lr"] > v["lr"]:
        problems.append(f"min_lr={v['min_lr']:g}: must not exceed lr={v['lr']:g}")
    if (v["schedule"] == "table") != bool(v["lr_table"]):
        problems.append(f"lr_table={v['lr_table']!r}: schedule=table needs it, and only that schedule has it")
    if v["init"] and v["continue_from"]:
        problems.append("init and continue_from: both say what weights begin with; give one")
    if v["schedule_by"] == "step_executed" and v["schedule"] != "cosine":
        problems.append(f"schedule_by=step_executed: is how GraM's trainer moves schedule=cosine, not {v['schedule']}")
    if list(v["milestones"]) != sorted(set(v["milestones"])):
        problems.append(f"milestones={list(v['milestones'])}: must increase")
    if v["nodes"] > 1 and not re.fullmatch(r".+:\d{1,5}", v["rendezvous"]):
        problems.append(f"nodes={v['nodes']}: needs rendezvous=host:port, the same on every node")
    return problems + problems_of_name(v["name"])


def problems_of_name(name: str) -> list[str]:
    """Why ``name`` cannot be a folder whose name other files extend; a line each."""
    if "/" in name or name.startswith(".") or not name.isprintable():
        return [f"name={name!r}: must be a plain folder name"]
    if (size := len(os.fsencode(name))) > MOST_BYTES:
        return [f"name={name[:40] + '…'!r}: {size} bytes; a folder's name may have {MOST_BYTES}"]
    return []


def without_defaults(hook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``hook`` that differ from their defaults; all of them for an unknown hook."""
    from research.hooks import HOOKS  # torch takes seconds

    known = parameters_of(HOOKS[hook]) if hook in HOOKS else {}
    return {name: value for name, value in given.items() if name not in known or value != known[name].default}
