"""Results of the configurations of a log entry, what each is compared with, and what that shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from research.config import Config
from research.frames import Runs, load_runs
from research.frames.configurations import methods, word
from research.frames.groups import Group, compare_groups, group_runs, relative
from research.frames.tables import markdown, mean_bounds, notes, plus_minus, readable
from research.log.provenance import began
from research.trained.network_cost import NetworkCost

TABLE = {
    "top1_err": "error@1 last (%)",
    "best_top1_err": "error@1 best",
    "top5_err": "error@5 last",
    "best_top5_err": "error@5 at best",
    "val_loss": "val. loss",
    "train_top1_err": "train error@1",
    "train_loss": "train loss",
}
EXPLAINED = (
    "Mean ± standard deviation over n seeds, and the 95 % interval of the mean error of the last epoch; the best epoch "
    "was picked on the same images. The training loss has in it what methods add to the loss."
)


def results_text(groups: Sequence[Group], networks: Mapping[Group, NetworkCost]) -> str:
    """A row per configuration: mean and standard deviation over seeds, and the interval of the last error."""
    shown = {key: name for key, name in TABLE.items() if any(group.results[key].notna().any() for group in groups)}
    if not shown:
        return "Nothing has been evaluated yet."
    rows = []
    for group in groups:
        row = {"configuration": group.label, "n": str(group.results["top1_err"].count())}
        for key, name in shown.items():
            row[name] = plus_minus(group.results[key], 3 if key.endswith("loss") else 2)
            row |= {"95 %": mean_bounds(group.results[key])} if key == "top1_err" else {}
        if networks:
            mine = networks.get(group)
            row |= {"params": f"{mine.cost.params:,}" if mine else ""}
            row |= {"mult-adds": f"{mine.cost.mult_adds:.4g}" if mine else ""}
        rows.append(row)
    means = [f"{group.results[key].mean():.3f}" for group in groups[:1] for key in ("top1_err", "top5_err")]
    line = f"\n\n```\nError@1 {means[0]} Error@5 {means[1]}\n```" if len(groups) == 1 else ""
    return f"{markdown(pd.DataFrame(rows))}{line}\n\n{EXPLAINED}"


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


def compared_text(others: Mapping[Group, Group], groups: Sequence[Group], networks: Mapping[Group, NetworkCost]) -> str:
    """Each group beside its other, by the top-1 error after the last epoch, and what that cannot tell."""
    table = compare_groups(others)
    table["changed"] = [_changed(group, other) for group, other in others.items()]
    table["against"] = [_name(other, groups) for other in others.values()]
    if networks:
        both = [(networks.get(group), networks.get(other)) for group, other in others.items()]
        table["params"] = [f"{a.cost.params / b.cost.params:.3g}" if a and b else "" for a, b in both]
    table = table[table["difference"].notna()]
    if table.empty:
        return ""
    heads = {"arm": "configuration", "against": "compared with", "changed": "changed"}
    heads |= {"params": "params, ratio"} if networks else {}
    return f"Top-1 error after the last epoch, in points:\n\n{markdown(readable(table, heads))}\n\n{notes(table)}"


def _name(other: Group, groups: Sequence[Group]) -> str:
    if any(other is each for each in groups):
        return other.label
    return "earlier " + ", ".join(f"`{name}`" for name in other.runs["name"])


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
    return " ".join(told)
