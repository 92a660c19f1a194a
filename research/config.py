"""Config: everything that defines a run. Parse, validate, hash, JSON round trip."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import yaml

from research.aliases import ALIASES, meaning, translated
from research.arguments import Parameter, Range, check_arguments, parameters_of
from research.errors import UsageError, nearest
from research.tables import Table

__all__ = ["Config", "Range", "check_arguments", "parse_assignments"]

# Where and how visibly a run is computed, not what it computes: the same experiment elsewhere keeps its identity.
WHERE = frozenset(
    "name recipe runs data_root download device processes nodes rendezvous workers threads restarts "
    "log_interval checkpoint_minutes".split()
)
NESTED = ("hooks", "model_args", "data_args")
Schedule = Literal["cosine", "step", "linear", "constant", "table"]
Positive = Range(above=0)
NotNegative = Range(least=0)


@dataclass(frozen=True)
class Config:
    """The definition of one run. Build it with :meth:`load`, which checks everything and reports every problem."""

    # what
    dataset: Annotated[str, "data set: see `research data list`"] = "digits"
    model: Annotated[str, "network by name; torchvision:NAME and timm:NAME are accepted"] = "resnet8"
    recipe: Annotated[str, "published hyperparameters to start from: see `research recipes`"] = ""
    hooks: Annotated[Mapping, "methods plugged into training, in order: see `research hooks`"] = field(
        default_factory=dict
    )
    model_args: Annotated[Mapping, "arguments of the network's constructor"] = field(default_factory=dict)
    substitute: Annotated[str, "layers in the place of convolutions: see `research substitutes`"] = ""
    data_args: Annotated[Mapping, "augmentation and arguments of the data set"] = field(default_factory=dict)
    seed: Annotated[int, NotNegative, "decides initial weights, order, augmentation and every method's draws"] = 0
    order_seed: Annotated[int | None, NotNegative, "of order and augmentation of the training data; none = seed"] = None
    # how long, how large
    epochs: Annotated[int, Range(least=1), "passes over the training set"] = 10
    batch_size: Annotated[int, Range(least=1), "images per optimizer step, over all processes"] = 128
    accumulation: Annotated[int, Range(least=1), "micro-batches that a process splits its share of a step into"] = 1
    # optimizer
    optimizer: Annotated[Literal["sgd", "adamw"], "update rule"] = "sgd"
    lr: Annotated[float, Positive, "peak learning rate"] = 0.1
    momentum: Annotated[float, Range(least=0, below=1), "SGD momentum"] = 0.9
    nesterov: Annotated[bool, "Nesterov momentum"] = False
    betas: Annotated[tuple[float, float], "AdamW moment decay"] = (0.9, 0.999)
    eps: Annotated[float, Positive, "AdamW denominator term"] = 1e-8
    weight_decay: Annotated[float, NotNegative, "decay of the weights"] = 5e-4
    decay_norm_and_bias: Annotated[bool, "decay biases and normalisation parameters too"] = True
    clip_norm: Annotated[float, NotNegative, "largest norm of all gradients together; 0 = no clipping"] = 0.0
    # schedule
    schedule: Annotated[Literal["cosine", "step", "linear", "constant", "table"], "shape of the learning rate"] = (
        "cosine"
    )
    schedule_by: Annotated[Literal["step", "epoch", "epoch_executed"], "how often the learning rate moves"] = "step"
    min_lr: Annotated[float, NotNegative, "floor of the cosine and linear schedules"] = 0.0
    warmup_epochs: Annotated[float, NotNegative, "linear rise from warmup_lr; replaces the first epochs"] = 0.0
    warmup_lr: Annotated[float, NotNegative, "learning rate of the first step under warm-up"] = 1e-4
    warmup_first: Annotated[bool, "the curve begins after the warm-up instead of running below it"] = False
    cooldown_epochs: Annotated[int, NotNegative, "further epochs at min_lr"] = 0
    decay_epochs: Annotated[int, Range(least=1), "step schedule: epochs between two decays"] = 30
    milestones: Annotated[tuple[int, ...], "step schedule: epochs of the decays, instead of decay_epochs"] = ()
    decay_rate: Annotated[float, Range(above=0, most=1), "step schedule: factor of one decay"] = 0.1
    lr_table: Annotated[Table, "table schedule: learning rate from each epoch on, such as '0:0.1 60:0.02'"] = Table()
    # loss and arithmetic
    smoothing: Annotated[float, Range(least=0, below=1), "label smoothing"] = 0.0
    amp: Annotated[Literal["off", "bf16", "fp16"], "mixed precision"] = "off"
    channels_last: Annotated[bool, "NHWC memory format"] = True
    compile: Annotated[bool, "torch.compile the network"] = False
    deterministic: Annotated[bool, "only kernels that repeat bit for bit; the CPU's always do"] = False
    sync_bn: Annotated[bool, "batch statistics over all processes"] = False
    # data path
    loader: Annotated[Literal["auto", "memory", "ffcv"], "where batches come from; auto = memory when it fits"] = "auto"
    data_root: Annotated[str, "folder of the data; empty = $RESEARCH_DATA, else ./data"] = ""
    download: Annotated[bool, "fetch a missing data set"] = False
    workers: Annotated[int, Range(least=1), "loader threads of one process"] = 1
    # where it runs
    name: Annotated[str, "folder under runs/; empty = from data set, model, hooks and identity"] = ""
    runs: Annotated[str, "folder of all runs"] = "runs"
    device: Annotated[Literal["auto", "cpu", "cuda"], "auto = GPUs when there are any"] = "auto"
    processes: Annotated[int, Range(least=1), "processes on this node, one a GPU; `gpus=N` sets this and device"] = 1
    nodes: Annotated[int, Range(least=1), "machines; start the same command on each"] = 1
    rendezvous: Annotated[str, "host:port of one node, needed for several nodes"] = ""
    threads: Annotated[int, NotNegative, "CPU threads of one process; 0 = cores / processes"] = 0
    restarts: Annotated[int, NotNegative, "times a run continues by itself after a worker was killed"] = 3
    log_interval: Annotated[int, Range(least=1), "steps between two rows of metrics"] = 50
    checkpoint_minutes: Annotated[float, NotNegative, "time between checkpoints inside an epoch, taken at a row"] = 5.0

    @classmethod
    def load(cls, *sources: Mapping[str, Any]) -> Config:
        """Merge ``sources`` (later ones win) over the recipe over the defaults, and check the result.

        Keys may be nested (``{"hooks": {"gram": {"k": 8}}}``), dotted (``gram.k``) or aliases (``c_type``).

        Raises:
            UsageError: with one line for every problem found, not only the first.
        """
        problems: list[str] = []
        given: dict[str, Any] = {}
        for source in sources:
            try:
                _merge(given, translated(source), problems)
            except UsageError as error:  # of a command that means nothing as a whole
                problems += str(error).splitlines()
        if given.get("recipe"):
            given = _over_recipe(given, problems)
        values, found = check_arguments("", cls, given)
        problems += found
        values["hooks"] = _check_hooks(values["hooks"], problems)
        _check_model_and_data(values, problems)
        problems += [] if found else _contradictions(values)
        if problems:
            raise UsageError("\n".join(dict.fromkeys(problems)))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types; ``Config.load(config.to_dict()) == config``."""
        return json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}))

    @property
    def identity(self) -> str:
        """Hash of what the run computes: its non-default fields, so that a new field orphans no old run."""
        told = {name: value for name, value in self.changes().items() if name not in WHERE}
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their default, hooks without their default parameters."""
        mine, plain = self.to_dict(), Config().to_dict()
        changed = {name: value for name, value in mine.items() if value != plain[name]}
        if self.hooks:
            # a list, because the order of hooks is part of what is computed
            changed["hooks"] = [[name, without_defaults(name, given)] for name, given in self.hooks.items()]
        return changed

    @property
    def run_name(self) -> str:
        """Folder of the run under ``runs``."""
        words = [self.dataset, self.model, self.substitute, *self.hooks, self.identity[:8]]
        return self.name or re.sub(r"[^\w.=-]+", "-", "-".join(filter(None, words)))

    @staticmethod
    def parameters() -> dict[str, Parameter]:
        """Every field with its type, limits, default and meaning."""
        return parameters_of(Config)


def parse_assignments(words: Iterable[str]) -> dict[str, Any]:
    """``["model=resnet18", "gram.k=8"]`` as a dict; values are read as YAML, the last of equal keys wins."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r}: expected key=value, such as {key or 'epochs'}=…")
        try:
            sexagesimal = re.fullmatch(r"[\d.]+:[\d.:e+-]+", value)  # YAML 1.1 reads 5:1 as 301
            found[key.strip()] = yaml.safe_load(value) if value and not sexagesimal else value
        except yaml.YAMLError:
            found[key.strip()] = value
    return found


def _merge(into: dict[str, Any], source: Mapping[str, Any], problems: list[str]) -> None:
    """Put one source over ``into``, with hooks and argument maps merged key by key."""
    for key, value in source.items():
        head, _, rest = key.partition(".")
        if key in ALIASES:
            try:
                _merge(into, meaning(key, value), problems)
            except UsageError as error:
                problems.append(str(error))
        elif head in NESTED:
            _merge_nested(into.setdefault(head, {}), head, {rest: value} if rest else value, problems)
        elif not rest and key in _field_names():
            into[key] = value
        elif head in _hook_names():
            _merge_nested(into.setdefault("hooks", {}), "hooks", {head: {rest: value} if rest else value}, problems)
        else:
            problems.append(f"unknown parameter {key!r}{nearest(head, [*_field_names(), *_hook_names(), *ALIASES])}")


def _merge_nested(into: dict[str, Any], field_name: str, given: Any, problems: list[str]) -> None:
    if not isinstance(given, Mapping):
        problems.append(f"{field_name}={given!r}: expected a mapping of names to values")
        return
    for key, value in given.items():
        name, _, rest = str(key).partition(".")
        if field_name != "hooks":
            into[name] = value
        elif rest:
            into.setdefault(name, {})[rest] = value
        elif value is False:
            into.pop(name, None)
        elif value is True or value is None:
            into.setdefault(name, {})
        elif isinstance(value, Mapping):
            into.setdefault(name, {}).update(value)
        else:
            problems.append(f"{name}={value!r}: expected true, false or parameters such as {name}.{value}=…")


def _over_recipe(given: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    from research.recipes import load_recipe

    merged: dict[str, Any] = {}
    try:
        _merge(merged, load_recipe(given["recipe"]), problems)
    except UsageError as error:
        problems.append(str(error))
    _merge(merged, given, problems)
    return merged


def _check_hooks(hooks: Mapping[str, Mapping], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Every hook with all of its parameters, defaults filled in."""
    if not hooks:
        return {}
    from research.hooks import HOOKS

    complete = {}
    for name, given in hooks.items():
        if name not in HOOKS:
            problems.append(f"unknown hook {name!r}{nearest(name, HOOKS)}")
            continue
        complete[name], found = check_arguments(f"{name}.", HOOKS[name], given)
        if not found:
            try:
                HOOKS[name](**complete[name])
            except UsageError as error:  # what no single parameter's range can say
                found = [f"{name}: {error}"]
        problems += found
        kind = HOOKS[name].exclusive
        rivals = [other for other in complete if kind and other != name and HOOKS[other].exclusive == kind]
        problems += [f"{name}: cannot run together with {other}: both decide the {kind}" for other in rivals]
    return complete


def _check_model_and_data(values: dict[str, Any], problems: list[str]) -> None:
    from research.data.datasets import check_dataset
    from research.models import check_model

    problems += check_dataset(values["dataset"], values["data_args"])
    problems += check_model(values["model"], values["model_args"])
    values["substitute"] = _check_substitute(values["substitute"], problems)


def _check_substitute(text: Any, problems: list[str]) -> Any:
    """The spec as :class:`research.layers.spec.Spec` writes it, so that one substitute has one name."""
    if not text or not isinstance(text, str):
        return text
    from research.layers.spec import parse_spec

    try:
        return str(parse_spec(text) or "")
    except UsageError as error:
        problems.append(str(error))
        return text


def _contradictions(values: dict[str, Any]) -> list[str]:
    """What is wrong between fields that are right one by one."""
    v = values
    found = []
    shares = v["processes"] * v["nodes"] * v["accumulation"]
    if v["batch_size"] % shares:
        least = max(1, v["batch_size"] // shares) * shares
        found.append(
            f"batch_size={v['batch_size']}: must divide into processes x nodes x accumulation = {shares} equal parts; "
            f"nearest is {least}"
        )
    if v["nesterov"] and v["optimizer"] == "sgd" and v["momentum"] == 0:
        found.append("nesterov=True: needs momentum > 0")
    if v["warmup_epochs"] >= v["epochs"] and v["warmup_epochs"]:
        found.append(f"warmup_epochs={v['warmup_epochs']:g}: must be below epochs={v['epochs']}")
    if v["min_lr"] > v["lr"]:
        found.append(f"min_lr={v['min_lr']:g}: must not exceed lr={v['lr']:g}")
    if (v["schedule"] == "table") != bool(v["lr_table"]):
        found.append(f"lr_table={v['lr_table']!r}: schedule=table needs it, and only that schedule has it")
    if list(v["milestones"]) != sorted(set(v["milestones"])):
        found.append(f"milestones={list(v['milestones'])}: must rise")
    if v["nodes"] > 1 and ":" not in v["rendezvous"]:
        found.append(f"nodes={v['nodes']}: needs rendezvous=host:port, the same on every node")
    if "/" in v["name"] or v["name"].startswith("."):
        found.append(f"name={v['name']!r}: must be a plain folder name")
    return found


def without_defaults(hook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``hook`` that differ from their default; all of them for a hook that is not known."""
    from research.hooks import HOOKS  # imports torch: only when a run has hooks

    known = parameters_of(HOOKS[hook]) if hook in HOOKS else {}
    return {name: value for name, value in given.items() if name not in known or value != known[name].default}


def _field_names() -> list[str]:
    return [f.name for f in fields(Config)]


def _hook_names() -> Iterable[str]:
    from research.hooks import HOOKS

    return HOOKS
