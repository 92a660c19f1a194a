"""Log entries made from runs: what was run, what the networks cost, the results, and comparisons.

``append(load_runs("runs/wrn-budgets-*"), note="Does distillation help hashed layers?")``. Everything in it is read from
the runs' folders; costs are counted on the networks that their configurations define. Called again, it appends nothing
while the runs are unchanged, and an ``**update**:`` under the entry once they have changed or more have come.

An entry has, in this order: the note; the command; what was run, when, where and by which commit and versions;
departures from the recipe; counts of every network beside the one it substitutes; teachers with their own error;
results over seeds; what the study was made to compare, and what each configuration is compared with; what calls for a
second look; which runs are still to finish, and when; curves; hidden marks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from research import logbook
from research.config import Config
from research.config.identity import NOT_IDENTITY
from research.errors import UsageError
from research.files import read_json
from research.frames import Runs, load_runs
from research.frames.groups import Group, group_runs, underfits
from research.frames.plans import confirming, planned_text
from research.layers.spec import parse_spec
from research.log.provenance import (
    circumstances,
    command_of,
    duration,
    recipes,
    sessions_of,
    teachers,
)
from research.log.results import compared_text, comparisons, results_text
from research.plugins.scope import plugged
from research.runs.paths import RunPaths
from research.runs.status import status_of
from research.trained.network_cost import NetworkCost, network_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNFINISHED = ("created", "running")
OVERFIT = 1.05  # last over lowest validation loss, where the training error is 0


def append(
    runs: Runs,
    title: str = "",
    note: str = "",
    path: Path | str = "research-log.md",
    folder: Path | str = "runs/log",
) -> Path | None:
    """Log ``runs`` and return the log's path; ``None`` if the log has them in this state.

    Without a ``title``, it names network, changes and data set. ``note`` is the purpose, in a sentence.

    Raises:
        UsageError: what :func:`research.log.logbook.append` raises; or no run has parameters that are known.
    """
    names, runs = ", ".join(runs["name"]), runs.understood()
    if not len(runs):
        raise UsageError(f"no entry: this version knows the parameters of none of {names}")
    marks = {directory.name: _state(directory) for directory in [*map(Path, runs["dir"]), *confirming(runs)]}
    if logbook.has(marks, path):
        return None
    groups = group_runs(runs)
    compared = comparisons(groups, runs)
    figures = [("curves", _curves(runs, compared))] if runs["epoch"].max() else []
    text = entry(groups, compared, note, planned_text(runs))
    return logbook.append(title or _title(groups), text, figures, (), path, folder, marks)


def entry(groups: Sequence[Group], compared: Mapping[Group, Group], note: str = "", planned: str = "") -> str:
    """The text of the entry; ``compared`` is that of :func:`comparisons`, ``planned`` that of :func:`planned_text`."""
    networks, uncounted = _networks([*groups, *compared.values()])
    parts = [
        note,
        command_of(groups),
        circumstances(groups),
        recipes(groups),
        _counts(groups, networks),
        teachers(groups),
        results_text(groups, networks),
        planned,
        compared_text(compared, groups, networks),
        _attention(groups),
        _checks(groups, uncounted),
        _next(groups),
    ]
    return "\n\n".join(part for part in parts if part)


# -- networks -----------------------------------------------------------------------------------------------------


def _networks(groups: Sequence[Group]) -> tuple[dict[Group, NetworkCost], dict[Group, str]]:
    """If any group has a substitute: the network of every group, and why that of some cannot be counted."""
    found, uncounted = {}, {}
    for group in groups if any(group.changes.get("substitute") for group in groups) else ():
        try:
            found[group] = network_cost(group.config)
        except UsageError as error:  # data of unknown size, a layer without a rule, counted and real size differ
            uncounted[group] = str(error)
    return found, uncounted


def _counts(groups: Sequence[Group], networks: Mapping[Group, NetworkCost]) -> str:
    """The log's three lines for every network, after those of the same network without substitutes."""
    blocks = {}
    for group in groups:
        if group not in networks:
            continue
        config, mine = group.config, networks[group]
        reference = network_cost(replace(config, substitute="")).cost
        blocks.setdefault(config.model, f"{config.model}\n{reference}")
        if config.substitute:
            name, rho = f"{config.model} {config.substitute}", mine.cost.params / reference.params
            decays = " and ".join(f"{decay:.3g}" for decay in mine.decays)
            facts = f"{_budget(config, mine)}compression {1 / rho:.3g}, rho {rho:.3g}, weight decay {decays}"
            blocks.setdefault(name, f"{name}\n{facts}\n{mine.cost}")
    return "```\n" + "\n\n".join(blocks.values()) + "\n```" if blocks else ""


def _budget(config: Config, found: NetworkCost) -> str:
    """The budget that a substitute was fitted to, and by how much the network misses it."""
    with plugged(config.plugin):
        options = parse_spec(config.substitute).options
    if options.budget:
        return f"budget {options.budget:,} parameters ({found.cost.params / options.budget - 1:+.2%}), "
    if options.mult_adds:
        return f"budget {options.mult_adds:.4g} mult-adds ({found.cost.mult_adds / options.mult_adds - 1:+.2%}), "
    return ""


# -- teachers ----------------------------------------------------------------------------------------------------------


def _attention(groups: Sequence[Group]) -> str:
    """The attention transfer loss at each tap in the last epoch, mean over seeds."""
    lines = []
    for group in groups:
        rows = group.runs.metrics
        rows = rows[(rows["kind"] == "distill") & rows["metric"].str.startswith("at.")]
        last = rows[rows["epoch"] == rows["epoch"].max()].groupby("metric", sort=False)["value"].mean()
        taps = ", ".join(f"{tap.removeprefix('at.')} {value:.2e}" for tap, value in last.items() if value > 0)
        lines += [f"{group.label}: {taps}"] if taps else []
    return "Attention maps, mean squared difference in the last epoch. " + "; ".join(lines) + "." if lines else ""


# -- a second look ------------------------------------------------------------------------------------------------


def _checks(groups: Sequence[Group], uncounted: Mapping[Group, str]) -> str:
    """Findings that deserve a second look, a line each."""
    found, underfit = [], []
    for group in groups:
        for run in group.runs[~group.runs["status"].isin(["finished", *UNFINISHED])].itertuples():
            why = f": {' '.join(run.message.split())}" if run.message else ""
            found.append(f"`{run.name}` {run.status} after {run.epoch} epochs{why}")
        found += _not_finite(group.runs)
        last = group.results.mean(numeric_only=True)
        if last["train_top1_err"] < 0.05 and last["val_loss"] > OVERFIT * last["least_val_loss"]:
            found.append(
                f"{group.label} overfits: training error {last['train_top1_err']:.2f} %, validation loss "
                f"{last['val_loss']:.3f} after {last['least_val_loss']:.3f}"
            )
        elif underfits(group):
            underfit.append(f"{group.label} ({last['train_top1_err']:.2f} above {last['top1_err']:.2f} %)")
        found += [f"{group.label} is not counted: {uncounted[group]}"] if group in uncounted else []
    if underfit:
        found.append(f"underfit, the error while training (augmented) above that in validation: {', '.join(underfit)}")
    if len({session["commit"] for session in sessions_of(groups)}) > 1:
        found.append("not all of these runs are of one commit")
    if len({tuple(sorted(set(group.runs["seed"]))) for group in groups}) > 1:
        found.append("not all configurations have the same seeds")
    return "\n".join(["To look at again:", "", *(f"- {line}" for line in found)]) if found else ""


def _not_finite(runs: Runs) -> list[str]:
    """A line for every run and kind of loss that was not a number somewhere; means in tables leave such rows out."""
    losses = runs.metrics
    losses = losses[(losses["metric"] == "loss") & losses["value"].isna()]
    return [
        f"`{run}`: the loss is not finite in {len(rows)} rows `{kind}`, first in epoch {rows['epoch'].min() + 1}"
        for (run, kind), rows in losses.groupby(["run", "kind"], sort=False)
    ]


def _next(groups: Sequence[Group]) -> str:
    """Runs that are waiting or running, each with its remaining time at its pace so far."""
    lines = []
    for group in groups:
        for run in group.runs[group.runs["status"].isin(UNFINISHED)].itertuples():
            epochs, seconds = group.config.total_epochs, group.results.loc[run.name, "seconds"]
            left = f", about {duration(seconds / run.epoch * (epochs - run.epoch))} left" if run.epoch else ""
            lines.append(f"- `{run.name}`: {run.status}, {run.epoch} of {epochs} epochs{left}")
    return "\n".join(["Next:", "", *lines]) if lines else ""


# -- reading ------------------------------------------------------------------------------------------------------


def _title(groups: Sequence[Group]) -> str:
    models = " ".join(dict.fromkeys(str(model) for group in groups for model in group.runs["model"]))
    datasets = " ".join(dict.fromkeys(str(dataset) for group in groups for dataset in group.runs["dataset"]))
    names = [name for group in groups for name in group.runs["name"]]
    study = os.path.commonprefix(names).rpartition("-")[0]
    changed = groups[0].changes.get("substitute", "") if len(groups) == 1 else ""
    return study if len(groups) > 1 and len(study) > 2 else " ".join(filter(None, [models, changed, "on", datasets]))


def _curves(runs: Runs, compared: Mapping[Group, Group]) -> Figure:
    """Learning curves of the runs and of those they are compared with; for students, the network without a teacher."""
    from research.figures import loss_curves  # matplotlib takes a second
    from research.figures.budgets import teacher_curves
    from research.frames.budgets import training_losses

    names = {name for group in compared.values() for name in group.runs["name"]} | set(runs["name"])
    shown = load_runs(Path(runs["dir"].iloc[0]).parent, sorted(names)) if names > set(runs["name"]) else runs
    taught = any("distill" in hooks.split("+") for hooks in shown["hooks"])
    return teacher_curves(training_losses(shown)) if taught else loss_curves(shown)


def _state(directory: Path) -> str:
    """A hash of what an entry says about the run: its configuration, progress and results."""
    config, status = read_json(RunPaths(directory).config, {}), status_of(directory)
    told = {key: value for key, value in config.items() if key not in NOT_IDENTITY}
    told |= {key: status.get(key) for key in ("status", "epoch", "step", "best_top1", "last_top1")}
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=4).hexdigest()
