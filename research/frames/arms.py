"""The arms of studies run by run: what each seed reached, and how many of its units live."""

from __future__ import annotations

import pandas as pd

from research.errors import UsageError
from research.frames import Runs
from research.frames.plans import finished, plans_of
from research.frames.tables import markdown, mean_bounds, plus_minus


def runs_by_arm(runs: Runs) -> pd.DataFrame:
    """A row for every finished run of the studies of ``runs`` and of what confirms them.

    Columns: study, arm, seed, fresh (whether it confirms), run, top1 (percent, last epoch), and of masked MLPs
    ``living_1``, ``living_2`` …, the units behind each layer that live after the last epoch
    (:mod:`research.measures.paths`).

    Raises:
        UsageError: there is none.
    """
    parts = []
    for folder, plan in plans_of(runs):
        arms = plan.arms | plan.confirming
        found = finished(folder, arms)
        found = found[found["last_top1"].notna()] if len(found) else found
        if len(found):
            table = pd.DataFrame({"study": plan.study, "arm": found["name"].map(arms), "seed": found["seed"]})
            table = table.assign(fresh=found["name"].isin(plan.confirming), run=found["name"], top1=found["last_top1"])
            order = {name: place for place, name in enumerate(dict.fromkeys(arms.values()))}
            table = table.merge(_living(found), on="run", how="left")
            parts.append(
                table.sort_values(["fresh", "arm", "seed"], key=lambda c: c.map(order) if c.name == "arm" else c)
            )
    if not parts:
        raise UsageError("no run of a study has finished")
    return pd.concat(parts, ignore_index=True)


def _living(runs: Runs) -> pd.DataFrame:
    """The units behind each masked layer that live after the last epoch: run, living_1, living_2 …"""
    rows = runs.metrics
    rows = rows[(rows["kind"] == "sparse") & (rows["metric"] == "living") & rows["value"].notna()]
    last = rows[rows["epoch"] == rows.groupby("run")["epoch"].transform("max")]
    last = last.assign(place=last.groupby("run").cumcount() + 1)  # rows stand in the order of the layers
    found = last.pivot(index="run", columns="place", values="value")
    return found.add_prefix("living_").rename_axis(columns=None).reset_index()


def arms_markdown(table: pd.DataFrame) -> str:
    """Every arm of :func:`runs_by_arm` as a Markdown table: seeds, mean, interval, living units with their range."""
    rows = []
    for (study, fresh, arm), own in table.groupby(["study", "fresh", "arm"], sort=False):
        row = {"study": study, "seeds": "fresh" if fresh else "first", "arm": arm, "n": len(own)}
        row |= {"top-1 (%)": plus_minus(own["top1"]), "95 %": mean_bounds(own["top1"])}
        if "living_1" in own and own["living_1"].notna().any():
            living = own["living_1"]
            row |= {"living, first hidden layer": f"{living.mean():.0f} ({living.min():.0f} to {living.max():.0f})"}
        rows.append(row)
    return markdown(pd.DataFrame(rows).fillna(""))
