"""The provenance of runs: the command that repeats them, time, place and code, their recipe and teachers.

Everything is read from the runs' folders: ``config.json``, ``env.json``, the metrics.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from research.config import Config
from research.config.effects import idle
from research.config.identity import NOT_IDENTITY
from research.errors import UsageError
from research.files import read_json
from research.frames.configurations import owner, word
from research.frames.groups import Group
from research.parameters import yaml_1_2
from research.plugins.scope import plugged
from research.runs.paths import RunPaths
from research.runs.status import recorded

TEACHER_OFF = 0.1  # points of top-1 between a teacher's run and what its students measure that are worth a word


def command(changes: Mapping[str, Any]) -> str:
    """The shell command that trains with these parameters, as :meth:`Runs.changes` has them; what is idle left out."""
    return _command(acting(changes))


def acting(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` without what cannot act beside the rest: versions that took it made runs, and none takes it now."""
    try:
        config = Config.stored({name: True if value == "" else value for name, value in changes.items()})
    except UsageError:  # of another version altogether
        return dict(changes)
    with plugged(config.plugin):
        left_out = idle(vars(config))
    kept = {name: value for name, value in changes.items() if name not in left_out}
    kept |= {hook: "" for hook in config.hooks if hook not in map(owner, kept)}
    return {name: kept[name] for name in sorted(kept, key=_places(changes).__getitem__)}


def _places(changes: Mapping[str, Any]) -> dict[str, int]:
    """Where each parameter of ``changes`` stands, and the owner of each with the first of its own."""
    places = {name: place for place, name in enumerate(changes)}
    return {owner(name): places[name] for name in reversed(list(changes))} | places


def _command(changes: Mapping[str, Any]) -> str:
    return shlex.join(["research", "train", *(f"{key}={_typed(value)}" for key, value in changes.items())])


def _typed(value: Any) -> str:
    """``value`` written so that a command line gives it back unchanged."""
    if value == "":
        return "true"  # a hook with its defaults
    return yaml_1_2.typed(value)


def command_of(groups: Sequence[Group]) -> str:
    """What was trained: the command that the groups share, and what each of them adds to it."""
    changes = [acting(_as_given(group)) for group in groups]
    shared = _shared(changes)
    named = [
        " and ".join(dict.fromkeys(str(v) for group in groups for v in group.runs[key])) for key in ("model", "dataset")
    ]
    seeds = sorted({int(seed) for group in groups for seed in group.runs["seed"]})
    first = f"{' on '.join(named)}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}:"
    parts = [first, "    " + _command(shared | ({"seed": seeds[0]} if len(seeds) == 1 and seeds[0] else {}))]
    added = [" ".join(f"{k}={_typed(v)}" for k, v in each.items() if k not in shared) for each in changes]
    if len(groups) > 1:
        parts.append(f"and, in turn, with {'; '.join(f'`{words}`' if words else 'nothing more' for words in added)}.")
    given = {f"`{k}={_typed(v)}`": None for group in groups for k, v in group.changes.items()}
    typed = {f"`{k}={_typed(v)}`" for each in changes for k, v in each.items()}
    if left_out := [each for each in given if each not in typed]:
        parts.append(f"Set in these runs and without effect, so that it cannot be typed now: {', '.join(left_out)}.")
    return "\n\n".join(parts)


def _shared(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = changes
    return {key: value for key, value in first.items() if all(found.get(key) == value for found in others)}


def _as_given(group: Group) -> dict[str, Any]:
    """The parameters of the first run of a group, with arguments that have their default, but without its seed."""
    return {key: value for key, value in group.runs.changes()[0].items() if key != "seed"}


def circumstances(groups: Sequence[Group]) -> str:
    """How many runs, when, how long, where, by which code."""
    sessions, count = sessions_of(groups), sum(len(group.runs) for group in groups)
    seconds, memory = (pd.concat([group.results[key] for group in groups]) for key in ("seconds", "peak_memory"))
    said = [f"{count} run{'s' * (count > 1)}"]
    if seconds.sum() > 0:
        each = f", {duration(seconds.median())} each (median)" if count > 1 else ""
        said.append(f"{duration(seconds.sum())} of training and evaluating{each}")
    if memory.notna().any():
        said.append(f"{'at most ' * (memory.nunique() > 1)}{memory.max():.2g} GB of memory")
    if sessions:
        days = sorted({session["started"][:10] for session in sessions})
        said.append(" to ".join(dict.fromkeys([days[0], days[-1]])))
        said += [" and ".join(dict.fromkeys(_machine(session) for session in sessions))]
        said += [_commits(sessions), " and ".join(dict.fromkeys(_versions(session) for session in sessions))]
    return "; ".join(said) + "."


def sessions_of(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The entries of ``env.json`` for every session of every run."""
    return [each for group in groups for home in group.runs["dir"] for each in _sessions(home)]


def _sessions(directory: Path | str) -> list[dict[str, Any]]:
    """The sessions of a run as :func:`research.runs.environment.environment` describes them; not what is no session."""
    said = read_json(RunPaths(directory).environment, [])
    kinds = {"started": str, "python": str, "device": str, "packages": dict, "processes": int, "threads": int}
    return [
        each
        for each in (said if isinstance(said, list) else [])
        if isinstance(each, dict)
        and all(isinstance(each.get(name), kind) for name, kind in kinds.items())
        and isinstance(each.get("commit"), (str, type(None)))
    ]


def _machine(session: Mapping[str, Any]) -> str:
    processes, threads = session["processes"], session["threads"]
    return f"{session['device']}, {processes} process{'es' * (processes > 1)} of {threads} thread{'s' * (threads > 1)}"


def _commits(sessions: Sequence[Mapping[str, Any]]) -> str:
    found = dict.fromkeys(session["commit"][:7] if session["commit"] else "unknown" for session in sessions)
    changed = " with uncommitted changes" if any(session.get("uncommitted") for session in sessions) else ""
    return f"commit{'s' * (len(found) > 1)} {', '.join(found)}{changed}"


def _versions(session: Mapping[str, Any]) -> str:
    return ", ".join(
        [f"Python {session['python']}", *(f"{p} {session['packages'].get(p)}" for p in ("torch", "numpy"))]
    )


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def recipes(groups: Sequence[Group]) -> str:
    """The differences of the runs from their recipe."""
    lines = []
    for recipe in sorted({name for group in groups for name in group.runs["recipe"] if name}):
        using = [group for group in groups if recipe in set(group.runs["recipe"])]
        plain, told = Config.load({"recipe": recipe}).to_dict(), {}
        for config in (group.config for group in using):
            for key, value in config.to_dict().items():
                if key not in (*NOT_IDENTITY, "hooks", "seed", "model", "substitute") and value != plain[key]:
                    told[word(key, value)] = plain[key]
        departures = "; ".join(f"{now} (there {before})" for now, before in told.items())
        lines.append(f"Recipe `{recipe}`{', except ' + departures if told else ', as it is'}.")
    return "\n".join(lines)


def teachers(groups: Sequence[Group]) -> str:
    """Every teacher: its error as measured before its students began, and how it and they were trained."""
    lines = []
    for group in groups:
        if "distill" not in group.runs["hooks"].iloc[0].split("+"):
            continue
        name = group.changes.get("distill.teacher", "")
        rows = group.runs.metrics
        top1 = rows.loc[(rows["kind"] == "val_teacher") & (rows["metric"] == "top1"), "value"]
        said = [
            f"top-1 error {100 - top1.mean():.2f} % as measured by its students" if len(top1) else "not measured yet"
        ]
        place = Path(name) if Path(name).exists() else Path(group.runs["dir"].iloc[0]).parent / name
        if name and (config := read_json(RunPaths(place).config, {})):
            best = recorded(place).get("best_top1")
            if best and len(top1) and abs(top1.mean() - best) > TEACHER_OFF:
                said.append(f"**{100 - best:.2f} % in its own run**")
            cut = config["data_args"].get("cutout", 0), group.config.data_args.get("cutout", 0)
            said.append(f"cutout {cut[0]} (students {cut[1]})")
            said.append("itself distilled" if "distill" in config["hooks"] else "itself without a teacher")
        lines.append(f"Teacher `{Path(name).name or 'own initial weights'}`: {', '.join(said)}.")
    return "\n".join(dict.fromkeys(lines))


def began(directory: Path | str) -> str:
    """When the run's first session started; a run without one sorts before all others."""
    sessions = _sessions(directory)
    return sessions[0]["started"] if sessions else ""
