"""Log entries made from runs: what was run, what the networks cost, the results, and comparisons.

``append(load_runs("runs/wrn-budgets-*"), note="Does distillation help hashed layers?")``. Everything in it is read from
the runs' folders; costs are counted on the networks that their configurations define. Called again, it appends nothing
while the runs are unchanged, and an ``**update**:`` under the entry once they have changed or more have come.

An entry has, in this order: the note; the command; what was run, when, where and by which commit and versions;
departures from the recipe; counts of every network beside the one it substitutes; teachers with their own error;
results over seeds; what each configuration is compared with; what calls for a second look; which runs are still to
finish, and when; curves; hidden marks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from research import logbook
from research.config import Config
from research.config.identity import NOT_IDENTITY
from research.errors import UsageError
from research.files import read_json
from research.frames import Runs, load_runs
from research.frames.configurations import methods, word
from research.frames.groups import Group, difference, group_runs, relative
from research.layers.spec import parse_spec
from research.log.provenance import (
    began,
    circumstances,
    command_of,
    duration,
    recipes,
    sessions_of,
    teachers,
)
from research.runs.paths import RunPaths
from research.runs.status import status_of
from research.trained.network_cost import NetworkCost, network_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNFINISHED = ("created", "running")
OVERFIT = 1.05  # last over lowest validation loss, where the training error is 0
TABLE = {
    "top1_err": "error@1 last (%)",
    "best_top1_err": "error@1 best",
    "top5_err": "error@5 last",
    "best_top5_err": "error@5 at best",
    "val_loss": "val. loss",
    "train_top1_err": "train error@1",
    "train_loss": "train loss",
}


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
    marks = {name: _state(Path(directory)) for name, directory in zip(runs["name"], runs["dir"], strict=True)}
    if logbook.has(marks, path):
        return None
    groups = group_runs(runs)
    compared = comparisons(groups, runs)
    figures = [("curves", _curves(runs, compared))] if runs["epoch"].max() else []
    return logbook.append(title or _title(groups), entry(groups, compared, note), figures, (), path, folder, marks)


def entry(groups: Sequence[Group], compared: Mapping[Group, Group], note: str = "") -> str:
    """The text of the entry; ``compared`` is that of :func:`comparisons`."""
    networks, uncounted = _networks([*groups, *compared.values()])
    parts = [
        note,
        command_of(groups),
        circumstances(groups),
        recipes(groups),
        _counts(groups, networks),
        teachers(groups),
        _results(groups, networks),
        _compared(groups, compared, networks),
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
    options = parse_spec(config.substitute).options
    if options.budget:
        return f"budget {options.budget:,} parameters ({found.cost.params / options.budget - 1:+.2%}), "
    if options.mult_adds:
        return f"budget {options.mult_adds:.4g} mult-adds ({found.cost.mult_adds / options.mult_adds - 1:+.2%}), "
    return ""


# -- results ------------------------------------------------------------------------------------------------------


def _results(groups: Sequence[Group], networks: Mapping[Group, NetworkCost]) -> str:
    """A row per configuration, mean and standard deviation over seeds; a sentence explains the numbers."""
    shown = {key: name for key, name in TABLE.items() if any(group.results[key].notna().any() for group in groups)}
    if not shown:
        return "Nothing has been evaluated yet."
    heads = ["configuration", "n", *shown.values(), *(["params", "mult-adds"] if networks else [])]
    rows = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for group in groups:
        cells = [group.label, str(int(group.results["top1_err"].count()))]
        cells += [_spread(group.results[key], 3 if key.endswith("loss") else 2) for key in shown]
        if networks:
            mine = networks.get(group)
            cells += [f"{mine.cost.params:,}", f"{mine.cost.mult_adds:.4g}"] if mine else ["", ""]
        rows.append(f"| {' | '.join(cells)} |")
    means = [f"{group.results[key].mean():.3f}" for group in groups[:1] for key in ("top1_err", "top5_err")]
    line = f"\n\n```\nError@1 {means[0]} Error@5 {means[1]}\n```" if len(groups) == 1 else ""
    note = "Mean ± standard deviation over n seeds; the training loss has in it what methods add to the loss."
    return "\n".join(rows) + line + "\n\n" + note


def _spread(values: pd.Series, digits: int) -> str:
    values = values.dropna()
    if values.empty:
        return ""
    return f"{values.mean():.{digits}f}" + (f" ± {values.std():.{digits}f}" if len(values) > 1 else "")


def comparisons(groups: Sequence[Group], runs: Runs) -> dict[Group, Group]:
    """The group that each is compared with.

    It is the group in this list that sets the fewest parameters less (:func:`research.frames.groups.relative`). A group
    without one (another network, say) is compared with the group that most others are compared with. If no two of
    them are related, it is an earlier group of the same network and data in the same folder: the nearest, or else the
    newest.
    """
    found = {group: other for group in groups if (other := relative(group, groups))}
    if found:
        reference = Counter(found.values()).most_common(1)[0][0]
        return {group: found.get(group, reference) for group in groups if group is not reference or group in found}
    before = _earlier(runs)
    return {group: relative(group, before) or before[-1] for group in groups} if before else {}


def _earlier(runs: Runs) -> list[Group]:
    """Groups of other evaluated runs of the same data and network, begun before these, in order of time."""
    everything = load_runs(Path(runs["dir"].iloc[0]).parent)
    alike = everything["dataset"].isin(runs["dataset"]) & everything["model"].isin(runs["model"])
    others = everything[alike & ~everything["name"].isin(runs["name"]) & everything["last_top1"].notna()]
    first = min(map(began, runs["dir"]))
    starts = {group: min(map(began, group.runs["dir"])) for group in (group_runs(others) if len(others) else ())}
    return sorted((group for group, start in starts.items() if start < first), key=starts.__getitem__)


def _compared(groups: Sequence[Group], compared: Mapping[Group, Group], networks: Mapping[Group, NetworkCost]) -> str:
    rows = []
    for group in groups:
        other = compared.get(group)
        found = difference(group, other, "top1_err") if other else {"difference": float("nan")}
        if found["difference"] != found["difference"]:
            continue
        inside = any(other is each for each in groups)
        name = other.label if inside else "earlier " + ", ".join(f"`{name}`" for name in other.runs["name"])
        error = f" ± {found['error']:.2f}" if found["error"] == found["error"] else ""
        over = f"{found['pairs']} pairs" if found["pairs"] else "unpaired"
        cells = [group.label, name, _changed(group, other), f"{found['difference']:+.2f}{error}", over]
        if networks:
            both = [networks.get(each) for each in (group, other)]
            cells.append(f"{both[0].cost.params / both[1].cost.params:.3g}" if all(both) else "")
        rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return ""
    heads = ["configuration", "compared with", "changed", "error@1 last, difference (points) ± s.e.", "seeds"]
    heads += ["params, ratio"] if networks else []
    return "\n".join([f"| {' | '.join(heads)} |", "| --- | --- | --- |" + " ---: |" * (len(heads) - 3), *rows])


def _changed(group: Group, other: Group) -> str:
    """The differences between two groups, as a user would type them, with the earlier value where one was set."""
    plain, told = Config().to_dict(), []
    for key in dict.fromkeys([*group.changes, *other.changes]):
        now, before = (each.changes.get(key, plain.get(key)) for each in (group, other))
        if now != before:
            typed = f"no {key}" if now is None else word(key, now)
            told.append(typed if before in (None, "") else f"{typed} (was {before})")
    if not told:
        told.append(f"{' before '.join(methods(group.changes))} (was {' before '.join(methods(other.changes))})")
    return " ".join(told).replace("|", r"\|")


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
        elif last["train_top1_err"] > last["top1_err"]:
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
