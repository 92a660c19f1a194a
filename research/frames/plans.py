"""What studies planned, beside what came of it: contrasts, arms seed by seed, and the values tried for each arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from research.errors import UsageError
from research.files import read_json
from research.frames import Runs, load_runs
from research.frames.comparison import compare
from research.frames.groups import run_results
from research.frames.tables import markdown, mean_bounds, notes, plus_minus, readable
from research.runs.paths import RunPaths
from research.runs.plans import Plan, read_plans
from research.runs.status import DIVERGED, recorded

HEADS = {"arm": "arm", "against": "against", "chosen": "chosen"}
TRIALS = ["study", "arm", "over", "value", "seed", "top1", "chosen"]


def plans_of(runs: Runs) -> Iterator[tuple[Path, Plan]]:
    """The plans of the studies that any of ``runs`` belong to, each with the folder of its runs."""
    for folder in dict.fromkeys(Path(directory).parent for directory in runs["dir"]):
        names = {Path(directory).name for directory in runs["dir"] if Path(directory).parent == folder}
        for plan in read_plans(folder):
            if names & {*plan.arms, *plan.confirming}:
                yield folder, plan


def confirming(runs: Runs) -> list[Path]:
    """The folders of the runs that confirm what the studies of ``runs`` found, as far as there are any."""
    found = [folder / name for folder, plan in plans_of(runs) for name in plan.confirming]
    return [directory for directory in found if RunPaths(directory).config.is_file()]


def results_of(folder: Path, arms: Mapping[str, str], result: str = "top1_err") -> dict[str, pd.Series]:
    """``result`` by seed of the finished runs of every arm; ``arms`` are names of runs -> their arm."""
    runs = finished(folder, arms)
    found = run_results(runs).dropna(subset=result) if len(runs) else pd.DataFrame(columns=["seed", result])
    own = [arms[name] for name in found.index]
    return {arm: part.set_index("seed")[result] for arm, part in found.groupby(own, sort=False)}


def finished(folder: Path, names: Iterable[str]) -> Runs:
    """The finished ones of the runs called ``names`` in ``folder``."""
    there = [name for name in names if RunPaths(folder / name).config.is_file()]
    runs = load_runs(folder, there) if there else Runs(columns=["name", "status"])
    return runs[runs["status"] == "finished"]


def contrasts(folder: Path, plan: Plan, result: str = "top1_err") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The contrasts of a study, compared on its own seeds and, a second table, on the fresh seeds that confirm them.

    Rows of :func:`research.frames.comparison.compare` with ``chosen``: "planned" if the contrast was named before a run
    of either arm began, else "after". All that were ever named count, where both arms have a result.
    """
    tables = []
    for arms in (plan.arms, plan.confirming):
        found = results_of(folder, arms, result)
        named = [pair for pair in plan.contrasts if {*pair} <= found.keys()]
        table = compare(found, named, margin=plan.margin)
        tables.append(table.assign(chosen=["planned" if plan.contrasts[pair] else "after" for pair in named]))
    return tables[0], tables[1]


def planned_text(runs: Runs | str) -> str:
    """What the studies of ``runs`` were made to compare and what came of it, as Markdown; "" for runs of no study.

    ``runs`` may be a folder or a pattern, where there need not be any. The first result stands beside the one on fresh
    seeds; the two are never one.
    """
    if isinstance(runs, str):
        try:
            runs = load_runs(runs)
        except UsageError:
            return ""
    paragraphs = []
    for folder, plan in plans_of(runs):
        paragraphs += [*_compared(plan, *contrasts(folder, plan)), *_confirmed(plan, runs), *_values(folder, plan)]
    return "\n\n".join(paragraphs)


def _compared(plan: Plan, first: pd.DataFrame, fresh: pd.DataFrame) -> Iterator[str]:
    if not plan.contrasts:
        yield f"The study {plan.study} named no contrast: all that is compared was chosen after."
    if len(first):
        pairs = ["arm", "against"]
        table = readable(first, HEADS, margin=plan.margin)
        if len(fresh):
            there = readable(fresh, {name: name for name in pairs})
            there = there[[*pairs, "difference [95 %]", "p (Holm)", "verdict"]]
            there = there.rename(columns=lambda name: name if name in pairs else f"{name}, fresh seeds")
            table = table.merge(there, "left", on=pairs).fillna("")
        yield (
            f"What the study {plan.study} was made to compare, by top-1 error after the last epoch, in points. "
            "Planned: named before a run of either arm began; after: named later."
        )
        yield markdown(table)
        yield notes(first, plan.margin)
    known = set(zip(first["arm"], first["against"], strict=True))
    if waiting := [" - ".join(pair) for pair in plan.contrasts if pair not in known]:
        yield f"Named, and without a result yet: {', '.join(waiting)}."


def _confirmed(plan: Plan, runs: Runs) -> Iterator[str]:
    if plan.confirmation:
        seeds = ", ".join(map(str, plan.confirmation["confirm_seeds"]))
        yield f"Fresh seeds: {seeds}. Theirs is the size to cite, because the first result could be picked from."
        if set(runs["name"]) & plan.confirming.keys():
            yield "Runs that confirm are among those of this entry: other tables in it pool them with the first."
    elif plan.contrasts:
        yield "Not confirmed on fresh seeds."


def _values(folder: Path, plan: Plan) -> Iterator[str]:
    """A sentence on the values that arms were given, where they were chosen."""
    tried = _trials(folder, plan)
    told = []
    for arm, part in tried.groupby("arm", sort=False):
        value = part.loc[part["chosen"], "value"].iloc[0]
        edge = pd.api.types.is_numeric_dtype(part["value"]) and value in (part["value"].min(), part["value"].max())
        told.append(f"{arm} {value}{', at the edge of what was tried' if edge else ''}")
    if told:
        over, images = plan.select["over"], plan.select["on"]["holdout"]
        yield f"Each arm has its own {over}, chosen on {images:,} training images held out: {'; '.join(told)}."


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


def trials(runs: Runs) -> pd.DataFrame:
    """Every run that tried a value for an arm of the studies of ``runs``: TRIALS, top-1 (%) on the images held out.

    ``top1`` is that of the last epoch, NaN where the run diverged; ``chosen`` tells the best value of each arm.
    """
    frames = [_trials(folder, plan) for folder, plan in plans_of(runs)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=TRIALS)


def _trials(folder: Path, plan: Plan) -> pd.DataFrame:
    rows = []
    for name, (arm, value) in plan.trying.items():
        said = recorded(folder / name)
        diverged = said["status"] == "failed" and DIVERGED in said.get("message", "")
        if said["status"] == "finished" or diverged:
            seed = read_json(RunPaths(folder / name).config, {}).get("seed", 0)
            top1 = math.nan if diverged else said["last_top1"]
            rows.append((plan.study, arm, plan.select["over"], value, seed, top1))
    table = pd.DataFrame(rows, columns=TRIALS[:-1])
    means = table.fillna({"top1": -math.inf}).groupby(["arm", "value"], sort=False)["top1"].mean()
    best = {arm: part.idxmax() for arm, part in means.groupby("arm", sort=False)}
    return table.assign(chosen=[best[pair[0]] == pair for pair in zip(table["arm"], table["value"], strict=True)])
