"""Config: everything that defines a run. Parse, validate, hash, JSON round trip."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from research.config.checks import (
    MOST_BYTES,
    check_hooks,
    check_model_and_data,
    check_substitute,
    contradictions,
    inputs_of_init,
    problems_of_init,
    problems_without_effect,
    without_defaults,
)
from research.config.effects import CURVES, ELSEWHERE, too_late, without_effect
from research.config.identity import earlier_identities, identity_of
from research.config.merging import Merged, merge
from research.config.plugins import find_plugins, idle_plugins
from research.errors import UsageError, tell
from research.parameters.piecewise import Piecewise
from research.parameters.signatures import Parameter, Range, check_arguments, parameters_of
from research.parameters.when import When, in_epochs
from research.plugins.scope import plugged, with_its_plugins

CHECKED = "RESEARCH_CHECKED"
"""Set for processes that were started by one that has already checked their parameters and reported on them."""
Positive = Range(above=0)
NotNegative = Range(least=0)
Share = Annotated[float, Range(least=0, below=1)]


@dataclass(frozen=True)
class Config:
    """The definition of one run. Build it with :meth:`load`, which checks everything and reports every problem."""

    # what
    dataset: Annotated[str, "data set: see `research data list`"] = "digits"
    model: Annotated[str, "network by name; torchvision:NAME and timm:NAME are accepted"] = "resnet8"
    recipe: Annotated[str, "published hyperparameters to start from: see `research recipes`"] = ""
    plugin: Annotated[tuple[str, ...], "Python files or modules with methods, networks, layers, data of your own"] = ()
    hooks: Annotated[Mapping, "methods plugged into training, in order: see `research hooks`"] = field(
        default_factory=dict
    )
    model_args: Annotated[Mapping, "arguments of the network's constructor"] = field(default_factory=dict)
    substitute: Annotated[str, "layers in the place of convolutions: see `research substitutes`"] = ""
    data_args: Annotated[Mapping, "augmentation and arguments of the data set"] = field(default_factory=dict)
    init: Annotated[str, "weights to start from: a run, a file, torchvision:NAME or timm:NAME; empty = drawn"] = ""
    continue_from: Annotated[
        str, "training to continue: a run, or a checkpoint with weights, optimizer and epoch; epochs count on"
    ] = ""
    seed: Annotated[int, NotNegative, "decides initial weights, order, augmentation and every method's draws"] = 0
    order_seed: Annotated[int | None, NotNegative, "of order and augmentation of the training data; none = seed"] = None
    mask_seed: Annotated[int | None, NotNegative, "of what methods draw: masks, growth, ties; none = seed"] = None
    # how long, how large
    epochs: Annotated[int, Range(least=1), "passes over the training set"] = 10
    batch_size: Annotated[int, Range(least=1), "images per optimizer step, over all processes"] = 128
    accumulation: Annotated[int, Range(least=1), "micro-batches that a process splits its share of a step into"] = 1
    # optimizer
    optimizer: Annotated[Literal["sgd", "adamw"], "update rule"] = "sgd"
    lr: Annotated[float, Positive, "peak learning rate"] = 0.1
    momentum: Annotated[float, Range(least=0, below=1), "SGD momentum"] = 0.9
    nesterov: Annotated[bool, "Nesterov momentum"] = False
    betas: Annotated[tuple[Share, Share], "AdamW moment decay"] = (0.9, 0.999)
    eps: Annotated[float, Positive, "AdamW denominator term"] = 1e-8
    weight_decay: Annotated[float, NotNegative, "decay of the weights"] = 5e-4
    decay_norm_and_bias: Annotated[bool, "decay biases and normalisation parameters too"] = True
    clip_norm: Annotated[float, NotNegative, "largest norm of all gradients together; 0 = no clipping"] = 0.0
    # schedule
    schedule: Annotated[
        Literal["cosine", "step", "linear", "poly", "tanh", "constant", "table"], "shape of the learning rate"
    ] = "cosine"
    schedule_by: Annotated[
        Literal["step", "epoch", "step_executed", "epoch_executed"],
        "how often the learning rate moves; executed: as the published trainers of GraM and PowerGrad did",
    ] = "step"
    train_continuous: Annotated[int, Range(least=1), "epoch_executed: epochs between evaluations of that trainer"] = 1
    min_lr: Annotated[float, NotNegative, "floor of the cosine, linear, poly and tanh schedules"] = 0.0
    power: Annotated[float, Positive, "poly schedule: exponent of the share that is left of training"] = 0.9
    warmup_epochs: Annotated[float | When, NotNegative, "linear rise from warmup_lr; replaces the first epochs"] = 0.0
    warmup_lr: Annotated[float, NotNegative, "learning rate of the first step under warm-up"] = 1e-4
    warmup_first: Annotated[bool, "the curve begins after the warm-up instead of running below it"] = False
    cooldown_epochs: Annotated[int | When, NotNegative, "further epochs at min_lr"] = 0
    decay_epochs: Annotated[int, Range(least=1), "step schedule: epochs between two decays"] = 30
    milestones: Annotated[tuple[int, ...], "step schedule: epochs of the decays, instead of decay_epochs"] = ()
    decay_rate: Annotated[float, Range(above=0, most=1), "step schedule: factor of one decay"] = 0.1
    lr_table: Annotated[Piecewise, "table schedule: learning rate from each epoch on, such as '0:0.1 60:0.02'"] = (
        Piecewise()
    )
    # loss and arithmetic
    smoothing: Annotated[float, Range(least=0, below=1), "label smoothing"] = 0.0
    amp: Annotated[Literal["off", "bf16", "fp16"], "mixed precision"] = "off"
    tf32: Annotated[
        Literal["nothing", "convolutions", "everything"], "what may round float32 to TF32 on GPUs that have it"
    ] = "convolutions"
    channels_last: Annotated[bool, "NHWC memory format"] = True
    compile: Annotated[bool, "torch.compile the network"] = False
    deterministic: Annotated[bool, "only kernels that repeat bit for bit; the CPU's always do"] = False
    sync_bn: Annotated[bool, "batch statistics over all processes"] = False
    # data path
    loader: Annotated[Literal["auto", "memory", "ffcv"], "where batches come from; auto = memory when it fits"] = "auto"
    data_root: Annotated[str, "folder of the data; empty = $RESEARCH_DATA, else ./data"] = ""
    download: Annotated[bool, "fetch a missing data set"] = False
    workers: Annotated[int, NotNegative, "most loader threads of one process; 0 = cores / processes"] = 0
    # where it runs
    name: Annotated[str, "folder under runs/; empty = from data set, model, hooks and identity"] = ""
    runs: Annotated[str, "folder of all runs"] = "runs"
    device: Annotated[Literal["auto", "cpu", "cuda"], "auto = GPUs when there are any"] = "auto"
    processes: Annotated[int, Range(least=1), "processes on this node, one a GPU; `gpus=N` sets this and device"] = 1
    nodes: Annotated[int, Range(least=1), "machines; start the same command on each"] = 1
    rendezvous: Annotated[str, "host:port of one node, needed for several nodes"] = ""
    join_minutes: Annotated[float, NotNegative, "longest wait for all nodes to join; 0 = none"] = 10.0
    threads: Annotated[int, NotNegative, "CPU threads of one process; 0 = $OMP_NUM_THREADS, else cores / processes"] = 0
    restarts: Annotated[int, NotNegative, "times a run continues by itself after a worker was killed"] = 3
    log_interval: Annotated[int, Range(least=1), "steps between two rows of metrics"] = 50
    checkpoint_minutes: Annotated[float, NotNegative, "time between checkpoints inside an epoch, taken at a row"] = 5.0
    hang_minutes: Annotated[float, NotNegative, "longest wait for a step, ten-fold where it compiles; 0 = none"] = 10.0
    start_over: Annotated[bool, "begin anew where no checkpoint is whole; what the run has is set aside"] = False

    @classmethod
    def load(cls, *sources: Mapping[str, Any]) -> Config:
        """Merge ``sources`` (later ones win) over the recipe over the defaults, and check the result.

        Keys may be nested (``{"hooks": {"gram": {"k": 8}}}``), dotted (``gram.k``) or aliases (``c_type``). The last
        source is what a user types now: contradictions in it, and parameters without effect, are refused. Earlier
        sources and the recipe serve many runs: their parameters without effect become a
        :class:`research.errors.Note`.

        Raises:
            UsageError: with one line for every problem found, not only the first; those of a plugin before all others.
        """
        names = [f.name for f in fields(cls)]
        words, sources = find_plugins(sources, names)
        with plugged(words):
            merged = merge(sources, names)
            values, problems = _checked(cls, merged)
            if not problems and CHECKED not in os.environ:
                problems, notes = _of_no_effect(values, merged)
                problems += problems_without_effect(values["hooks"], merged.stored_hooks)
                for note in () if problems else notes:
                    tell(note)
        if problems:
            raise UsageError("\n".join(dict.fromkeys(map(merged.in_typed_words, problems))))
        return cls(**values)

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Config:
        """The Config of an existing run from ``values``, as :meth:`to_dict` gave them; nothing counts as typed.

        Raises:
            UsageError: with one line for every problem found.
        """
        names = [f.name for f in fields(cls)]
        words, sources = find_plugins([values], names)
        with plugged(words):
            checked, problems = _checked(cls, merge(sources, names))
        if problems:
            raise UsageError("\n".join(dict.fromkeys(problems)))
        return cls(**checked)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types; ``Config.load(config.to_dict()) == config``."""
        return json.loads(json.dumps({f.name: getattr(self, f.name) for f in fields(self)}))

    @property
    def identity(self) -> str:
        """Hash of what the run computes: its non-default fields, so that a new field does not change old identities."""
        return identity_of(self.changes())

    @with_its_plugins
    def changes(self) -> dict[str, Any]:
        """The fields that differ from their default, hooks without their default parameters."""
        mine, plain = self.to_dict(), Config().to_dict()
        changed = {name: value for name, value in mine.items() if value != plain[name]}
        if self.hooks:
            # a list, because the order of hooks is part of what is computed
            changed["hooks"] = [[name, without_defaults(name, given)] for name, given in self.hooks.items()]
        return changed

    @property
    def total_epochs(self) -> int:
        """Epochs trained: ``epochs``, and the cool-down of schedules that end at ``min_lr``."""
        if self.schedule not in CURVES:
            return self.epochs
        return self.epochs + math.ceil(in_epochs(self.cooldown_epochs, "ep", self.epochs, 1))

    @property
    def run_name(self) -> str:
        """Folder of the run under ``runs``."""
        return self.name or self._name_with(self.identity)

    def earlier_run_names(self) -> Iterator[str]:
        """Folder names that earlier versions gave to the same run, see :func:`earlier_identities`."""
        if not self.name and (self.model_args or self.data_args):
            yield from map(self._name_with, earlier_identities(self.changes()))

    def _name_with(self, identity: str) -> str:
        words = [self.dataset, self.model, self.substitute, *self.hooks, identity[:8]]
        plain = re.sub(r"[^\w.=-]+", "-", "-".join(filter(None, words)))
        if len(os.fsencode(plain)) > MOST_BYTES:  # the identity at its end tells it apart
            plain = f"{self.dataset}-{self.model}"[: MOST_BYTES // 4] + plain[-9:]
        return plain

    @staticmethod
    def parameters() -> dict[str, Parameter]:
        """Every field with its type, limits, default and meaning."""
        return parameters_of(Config)


def restated(message: str, given: Mapping[str, Any]) -> str:
    """``message`` in the words that a user typed for the parameters in it: ``gpus=8``, not the device."""
    names = Config.parameters()
    words, sources = find_plugins([given], names)
    with plugged(words):
        merged = merge(sources, names)
    return "\n".join(map(merged.in_typed_words, message.splitlines()))


def _checked(owner: type[Config], merged: Merged) -> tuple[dict[str, Any], list[str]]:
    """The value of every field, and a line for each problem."""
    values, problems = check_arguments("", owner, merged.given)
    wrong = {problem.partition("=")[0] for problem in problems}
    if "hooks" not in wrong:
        values["hooks"], found = check_hooks(values["hooks"])
        problems += found
    if "substitute" not in wrong:
        values["substitute"], found = check_substitute(values["substitute"])
        problems += found
    found = check_model_and_data(values, wrong)
    if ":" in values["init"] and "init" not in wrong:
        found += problems_of_init(values["init"])
        if not found and not wrong and not problems and (inputs := inputs_of_init(values)):
            values["data_args"] |= inputs
            merged.notes.append(f"init={values['init']}: inputs are normalised as its weights know them, {inputs}")
    problems = merged.problems + problems + found
    return values, problems if wrong else problems + contradictions(values)


def _of_no_effect(values: Mapping[str, Any], merged: Merged) -> tuple[list[str], list[str]]:
    """A line for each typed parameter without effect, and notes about those that come from elsewhere."""
    from research.data.datasets import data_without_effect  # torch takes seconds

    plain, problems, notes = Config().to_dict(), [], list(merged.notes)
    if values["plugin"] and "plugin" in merged.typed:
        notes += idle_plugins(values)
    for name, reason in data_without_effect(values["dataset"], values["data_args"]).items():
        path = f"data_args.{name}"
        line = f"{path}={_said(values['data_args'][name])}: has no effect: {reason}"
        if path in merged.typed:
            problems.append(line)
        elif (origin := merged.below.get(path, ("", None))[0]) != "stored":
            notes.append(f"{line} (from the recipe)" if origin == "recipe" else line)
    for name, reason in (too_late(values) | without_effect(values)).items():
        line = f"{name}={_said(values[name])}: has no effect: {reason}"
        changed = json.loads(json.dumps(values[name])) != plain[name]
        origin, before = merged.below.get(name, ("", plain[name]))
        if name in merged.typed and name not in ELSEWHERE | too_late(values).keys():
            if changed or json.loads(json.dumps(before)) == plain[name]:  # else it takes back what lies below
                problems.append(line)
        elif changed and origin != "stored" and not (origin == "recipe" and merged.command):
            notes.append(f"{line} (from the recipe)" if origin == "recipe" else line)
    return problems, notes


def _said(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (bool, tuple)) else f"{value!r}"
