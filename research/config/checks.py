"""What is wrong with parameters beyond the type and range of each: methods, network, data, and contradictions.

``check_*`` return the value as it is used and a list of problems, ``problems_of_*`` the list alone; nothing is raised,
so that every problem is told at once. Methods, networks and data are imported when they are asked about: that takes
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from research.errors import UsageError, nearest
from research.parameters.signatures import check_arguments, parameters_of


def check_hooks(hooks: Mapping[str, Mapping]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every hook with all of its parameters, defaults filled in; and what is wrong."""
    if not hooks:
        return {}, []
    from research.hooks import HOOKS  # torch takes seconds

    complete, problems = {}, []
    for name, given in hooks.items():
        if name not in HOOKS:
            problems.append(f"unknown hook {name!r}{nearest(name, HOOKS)}")
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
    """What was given to methods and changes nothing beside the rest; not what ``stored`` says of a run that exists."""
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


def problems_of_model_and_data(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names and arguments of the network and the data set."""
    from research.data.datasets import check_dataset  # torch takes seconds
    from research.models import check_model

    dataset = check_dataset(values["dataset"], values["data_args"])
    return dataset + check_model(values["model"], values["model_args"])


def check_substitute(text: Any) -> tuple[Any, list[str]]:
    """The spec as :class:`research.layers.spec.Spec` writes it, so that one substitute has one name; what is wrong."""
    if not text or not isinstance(text, str):
        return text, []
    from research.layers.spec import parse_spec  # torch takes seconds

    try:
        return str(parse_spec(text) or ""), []
    except UsageError as error:
        return text, [str(error)]


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between fields that are right one by one."""
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
    if v["warmup_epochs"] >= v["epochs"] and v["warmup_epochs"]:
        problems.append(f"warmup_epochs={v['warmup_epochs']:g}: must be below epochs={v['epochs']}")
    if v["min_lr"] > v["lr"]:
        problems.append(f"min_lr={v['min_lr']:g}: must not exceed lr={v['lr']:g}")
    if (v["schedule"] == "table") != bool(v["lr_table"]):
        problems.append(f"lr_table={v['lr_table']!r}: schedule=table needs it, and only that schedule has it")
    if list(v["milestones"]) != sorted(set(v["milestones"])):
        problems.append(f"milestones={list(v['milestones'])}: must increase")
    if v["nodes"] > 1 and ":" not in v["rendezvous"]:
        problems.append(f"nodes={v['nodes']}: needs rendezvous=host:port, the same on every node")
    if "/" in v["name"] or v["name"].startswith("."):
        problems.append(f"name={v['name']!r}: must be a plain folder name")
    return problems


def without_defaults(hook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``hook`` that differ from their default; all of them for a hook that is not known."""
    from research.hooks import HOOKS  # torch takes seconds

    known = parameters_of(HOOKS[hook]) if hook in HOOKS else {}
    return {name: value for name, value in given.items() if name not in known or value != known[name].default}
