"""Is one number larger than another? Runs against published rows, and seeds against seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from research.frames import Runs
from research.frames.comparison import each_arm
from research.frames.configurations import configuration, differing, number, owner, word
from research.frames.statistics.t_tests import holm

ALPHA = "power_grad.alpha"
SETTING = ("dataset", "model", "schedule", "smoothing", ALPHA)  # what makes a run the run of a published row
NOT_NETWORK = ("seed", "model", ALPHA, "power_grad")  # of what a run changes, besides observers
FACTS = ("label", "top1", "correct", "images", "checkpoint", "recipe_is")  # of a published row; the rest is recipe
OBSERVERS = {"logit_stats", "ema"}  # hooks that leave the training of a published row what it is


def with_alpha(runs: Runs) -> Runs:
    """``runs`` with three more columns: ``alpha`` (1 without PowerGrad), ``network`` and ``baseline``.

    ``network`` is the model and what else differs among the runs, other than seed, alpha and observing hooks: an alpha
    that changes over the epochs counts as another network. ``baseline`` is the network without PowerGrad, whose runs
    with alpha = 1 it is compared with. Runs whose parameters are not known are left out.
    """
    runs = runs.understood()
    own = [
        {k: v for k, v in changes.items() if k not in NOT_NETWORK and owner(k) not in OBSERVERS}
        for changes in map(configuration, runs.changes())
    ]
    varied = differing(own)
    names: dict[str, list[str]] = {"network": [], "baseline": []}
    for changes, model in zip(own, runs["model"], strict=True):
        words = {key: word(key.removeprefix("model_args."), changes[key]) for key in varied if key in changes}
        names["network"].append(" ".join([model, *words.values()]))
        plain = [each for key, each in words.items() if owner(key) != "power_grad"]
        names["baseline"].append(" ".join([model, *plain]))
    given = runs[ALPHA] if ALPHA in runs else pd.Series(np.nan, index=runs.index)
    return runs.assign(alpha=given.astype(float).fillna(1.0), **names)


def several_alphas(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks trained with more than one alpha; all rows if there is no such network."""
    several = table.groupby("network")["alpha"].transform("nunique") > 1
    return table[several] if several.any() else table


def binomial_error(top1: float, images: float) -> float:
    """Standard error (percentage points) of an accuracy of ``top1`` percent measured on ``images`` images."""
    return np.sqrt(top1 * (100 - top1) / images)


def published_gains(published: pd.DataFrame) -> pd.DataFrame:
    """Every published row with alpha != 1 against the row with alpha = 1 of the same setting.

    Columns: label, schedule, alpha, baseline and top1 (percent), difference (points), error (its binomial standard
    error, the two accuracies taken as independent), ratio = difference / error, low and high (95 %), p, and p_holm,
    adjusted over all rows.
    """
    same = ["label", *(key for key in SETTING if key != ALPHA)]
    plain = published[published[ALPHA] == 1].set_index(same)
    found = published[published[ALPHA] != 1].join(plain[["top1", "images"]], on=same, rsuffix="_plain")
    errors = [binomial_error(found[f"top1{end}"], found[f"images{end}"]) for end in ("", "_plain")]
    found = found.assign(
        alpha=found[ALPHA], baseline=found["top1_plain"], difference=found["top1"] - found["top1_plain"]
    )
    found = found.assign(error=np.hypot(*errors), ratio=lambda frame: frame["difference"] / frame["error"])
    reach = stats.norm.isf(0.025) * found["error"]
    found = found.assign(low=found["difference"] - reach, high=found["difference"] + reach)
    p = 2 * stats.norm.sf(found["ratio"].abs())
    columns = [
        "label",
        "schedule",
        "alpha",
        "baseline",
        "top1",
        "difference",
        "error",
        "ratio",
        "low",
        "high",
        "p",
        "p_holm",
    ]
    return found.assign(p=p, p_holm=holm(p))[columns].reset_index(drop=True)


def against_published(runs: Runs, published: pd.DataFrame) -> pd.DataFrame:
    """Every published row with every own run of the same dataset, model, schedule, smoothing and alpha.

    Columns: label, schedule, alpha, published (percent); run, own (best top-1), difference = own - published, error
    (the binomial standard error of the difference), and ``but``: what the run does not share with the published recipe,
    or that it has not finished (then there is no difference). A row without a run of ours has none of these.
    """
    recipe = [key for key in published.columns if key not in (*FACTS, *SETTING)]
    own = with_alpha(runs).assign(**{ALPHA: lambda frame: frame["alpha"]}).reset_index(drop=True)
    rows = []
    for _, row in published.iterrows():
        shown = {"label": row["label"], "schedule": row["schedule"], "alpha": row[ALPHA], "published": row["top1"]}
        matching = own[np.logical_and.reduce([own[key] == row[key] for key in SETTING])]
        rows += [shown | _compared(run, row, recipe) for _, run in matching.iterrows()] or [shown]
    columns = [*rows[0], *("run", "own", "difference", "error", "but")]
    return pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))


def _compared(run: pd.Series, row: pd.Series, recipe: Sequence[str]) -> dict:
    extra = set(filter(None, run["hooks"].split("+"))) - OBSERVERS - {"power_grad"}
    unlike = [word(key, run[key]) for key in recipe if key in run and pd.notna(run[key]) and run[key] != row[key]]
    unlike += [word(key, run[key]) for key in run.index if key.startswith("model_args.") and pd.notna(run[key])]
    unlike += sorted(extra)
    shown = {"run": run["name"], "own": run["best_top1"], "but": ", ".join(unlike)}
    if run["status"] != "finished":
        return shown | {"but": ", ".join([f"{run['status']} at epoch {run['epoch']}", *unlike])}
    metrics = Runs([run]).metrics
    images = metrics.loc[(metrics["kind"] == "val") & (metrics["metric"] == "images"), "value"].iloc[-1]
    errors = binomial_error(run["best_top1"], images), binomial_error(row["top1"], row["images"])
    return shown | {"difference": run["best_top1"] - row["top1"], "error": np.hypot(*errors)}


def pooled_gain(gains: pd.DataFrame) -> dict[str, float]:
    """All of :func:`published_gains` together: ``pairs``, how many ``gain``, the mean ``difference`` with its 95 %
    interval ``low`` to ``high`` and ``p`` by their binomial errors, and ``p_sign`` of so many that gain.
    """
    error = np.sqrt((gains["error"] ** 2).sum()) / len(gains)
    mean, gaining = gains["difference"].mean(), int((gains["difference"] > 0).sum())
    reach = stats.norm.isf(0.025) * error
    found = {"pairs": len(gains), "gain": gaining, "difference": mean, "low": mean - reach, "high": mean + reach}
    p_sign = stats.binomtest(gaining, len(gains)).pvalue
    return found | {"p": 2 * stats.norm.sf(abs(mean) / error), "p_sign": p_sign}


def against_plain(frame: pd.DataFrame, values: Sequence[str], *, margin: float | None = None) -> pd.DataFrame:
    """Each of ``values`` by network and alpha, and its comparison with alpha = 1 of the network's ``baseline``.

    Columns: network, alpha, value, and those of :func:`research.frames.comparison.each_arm`; p is adjusted over all
    rows. Seeds that were run twice count once, by their mean.
    """
    named, arms, against = [], {}, {}
    for (network, alpha), group in frame.groupby(["network", "alpha"], sort=False):
        baseline = group["baseline"].iloc[0] if "baseline" in group else network
        for value in values:
            arm, plain = f"{value} {number(alpha)} {network}", f"{value} 1 {baseline}"
            named.append((network, alpha, value))
            arms[arm] = group.groupby("seed")[value].mean()
            against |= {arm: plain} if plain != arm else {}
    against = {arm: plain for arm, plain in against.items() if plain in arms}
    compared = each_arm(arms, against, margin=margin).drop(columns=["arm", "against"])
    return pd.DataFrame(named, columns=["network", "alpha", "value"]).join(compared)
