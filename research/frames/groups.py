"""Groups of runs that differ only in their seed: their results, and the group each is compared with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from research.config import Config
from research.frames import Runs
from research.frames.comparison import compare, mean_interval
from research.frames.configurations import configuration, differing, key, owner, told_apart, word
from research.runs.run import Run

RESULTS = {
    "top1_err": "top-1 error (%), last epoch",
    "best_top1_err": "top-1 error (%), best epoch",
    "top5_err": "top-5 error (%), last epoch",
    "best_top5_err": "top-5 error (%), epoch of the best top-1",
    "val_loss": "validation loss (nats), last epoch",
    "least_val_loss": "validation loss (nats), lowest",
    "train_top1_err": "training top-1 error (%), last epoch",
    "train_loss": "training loss (nats), last epoch; with everything that hooks add to it",
    "seconds": "training and evaluating, all epochs",
    "peak_memory": "most memory (GB) of its first process so far: tensors on a GPU, or all that is resident",
}


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration, see :mod:`research.frames.configurations`."""

    label: str  # what tells it from the other groups
    changes: Mapping[str, Any]  # its parameters that differ from their default
    runs: Runs
    results: pd.DataFrame  # of these runs, see run_results

    @property
    def config(self) -> Config:
        """The Config of its first run."""
        return Run.open(self.runs["dir"].iloc[0]).config

    def by_seed(self, result: str) -> pd.Series:
        """``result`` by seed; a seed that was run twice counts once, with its mean."""
        return self.results.groupby("seed")[result].mean().dropna()


def run_results(runs: Runs) -> pd.DataFrame:
    """A row for every run, by its name: ``seed`` and the columns of ``RESULTS``, nan where nothing was measured."""
    rows = runs.metrics
    found = {name: {"seed": seed} for name, seed in zip(runs["name"], runs["seed"], strict=True)}
    for (run, kind), part in rows[rows["kind"].isin(["train_epoch", "val"])].groupby(["run", "kind"]):
        table = part.pivot_table(index="epoch", columns="metric", values="value", aggfunc="last", dropna=False)
        table = table.reindex(columns=["loss", "top1", "top5", "seconds", "peak_memory"]).sort_index()
        last, mine = table.iloc[-1], found[run]
        mine["seconds"] = mine.get("seconds", 0.0) + table["seconds"].sum()
        if kind == "train_epoch":
            mine |= {"train_loss": last["loss"], "train_top1_err": 100 - last["top1"]}
            mine["peak_memory"] = table["peak_memory"].max()
        else:
            best = table.loc[table["top1"].idxmax()] if table["top1"].notna().any() else last
            mine |= {"top1_err": 100 - last["top1"], "top5_err": 100 - last["top5"], "val_loss": last["loss"]}
            mine |= {"best_top1_err": 100 - best["top1"], "best_top5_err": 100 - best["top5"]}
            mine |= {"least_val_loss": table["loss"].min()}
    return pd.DataFrame.from_dict(found, orient="index").reindex(columns=["seed", *RESULTS])


def group_runs(runs: Runs) -> list[Group]:
    """The groups of ``runs``, simplest first: in order of how many parameters differ from their default.

    Runs whose parameters this version does not know are left out, see :meth:`research.frames.Runs.understood`.
    """
    runs = runs.understood()
    changed = list(map(configuration, runs.changes()))
    distinct = {key(found): found for found in changed}
    places = pd.Series([list(distinct).index(key(found)) for found in changed], index=runs.index)
    results = run_results(runs)
    groups = []
    for place, (found, label) in enumerate(zip(distinct.values(), label_changes([*distinct.values()]), strict=True)):
        mine = runs[places == place].sort_values("seed")
        groups.append(Group(label, found, mine, results.loc[mine["name"]]))
    return sorted(groups, key=lambda group: len(group.changes))


def label_changes(changed: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for every configuration: what differs among them; a hook only by name where its parameters are equal."""
    names = differing(changed)
    owners = {name: owner(name) for name in names if "." in name and "_args." not in name}
    names.sort(key=lambda name: name in owners)  # hooks last
    same = {hook for hook in owners.values() if len({key(own) for found in changed if (own := _of(hook, found))}) == 1}
    labels = []
    for found in changed:
        own = [name for name in names if name in found]
        words = [owners[name] if owners.get(name) in same else word(name, found[name]) for name in own]
        words = [re.sub(r"^(model=|substitute=|model_args\.)", "", each) for each in dict.fromkeys(words)]
        labels.append(" ".join(words) or str(found.get("model", "plain")))
    return told_apart(labels, changed)


def _of(hook: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if owner(name) == hook}


def relative(group: Group, others: Sequence[Group]) -> Group | None:
    """The group to compare ``group`` with: the one that sets the fewest parameters less.

    Among equally near ones, it is the one that keeps the first parameters (hooks come last, so one without the hook).
    """
    simpler = {}
    for place, other in enumerate(others):
        kept = [name not in differing([group.changes, other.changes]) for name in group.changes]
        part = {name: value for (name, value), same in zip(group.changes.items(), kept, strict=True) if same}
        if not all(kept) and key(part) == key(other.changes):
            simpler[sum(kept), tuple(kept), -place] = other
    return simpler[max(simpler)] if simpler else None


def compare_groups(
    others: Mapping[Group, Group], result: str = "top1_err", *, margin: float | None = None
) -> pd.DataFrame:
    """Each group against its other in ``result``, as :func:`research.frames.comparison.compare`; arms are labels."""
    names = {group: str(place) for place, group in enumerate(dict.fromkeys([*others, *others.values()]))}
    results = {name: group.by_seed(result) for group, name in names.items()}
    table = compare(results, [(names[group], names[other]) for group, other in others.items()], margin=margin)
    return table.assign(arm=[group.label for group in others], against=[other.label for other in others.values()])


def underfits(group: Group) -> bool:
    """Whether the error while training ended above that in validation by more than noise.

    Each run tells by how much its training error exceeds the highest validation error of its last three epochs, and by
    how much more than these differ among themselves: weights improve during an epoch, so that shorter runs tell
    nothing. Of several runs the 95 % interval of that excess has to lie above 0.
    """
    rows = group.runs.metrics
    rows = rows[(rows["metric"] == "top1") & rows["kind"].isin(["train_epoch", "val"])].sort_values("epoch")
    rows = rows.drop_duplicates(["run", "kind", "epoch"], keep="last")
    excess = []
    for _, part in rows.groupby("run"):
        train, val = (100 - part.loc[part["kind"] == kind, "value"] for kind in ("train_epoch", "val"))
        if len(train) and len(val) >= 3:
            low, high = val.tail(3).agg(["min", "max"])
            excess.append(train.iloc[-1] - high - (high - low))
    _, low, _ = mean_interval(pd.Series(excess, dtype=float))
    return bool(excess) and (min(excess) if math.isnan(low) else low) > 0
