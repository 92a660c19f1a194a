"""The plugins of a run, found before its other parameters are read: these may be of what a plugin registers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from research.config.seed_commands import ALIASES
from research.errors import UsageError
from research.plugins.scope import plugged
from research.plugins.source import words_for


def find_plugins(
    sources: Sequence[Mapping[str, Any]], names: Collection[str]
) -> tuple[tuple[str, ...], list[Mapping[str, Any]]]:
    """The words of the plugins that the last of ``sources`` to name any names, and ``sources`` with these instead.

    ``names`` are the parameters of a run, which no method may have for a name.

    Raises:
        UsageError: a line for each plugin that cannot be read, executed or used.
    """
    given = next((source["plugin"] for source in reversed(sources) if "plugin" in source), ())
    listed = [given] if isinstance(given, str) and given else given or ()
    if not isinstance(listed, Iterable) or not all(isinstance(each, str) and each for each in listed):
        raise UsageError(f"plugin={given!r}: expected a file or module, or a list of them")
    if not (words := words_for(listed)):
        return (), [{**source, "plugin": ()} if "plugin" in source else source for source in sources]
    with plugged(words):
        _refuse_names(words, names)
    return words, [{**source, "plugin": words} if "plugin" in source else source for source in sources]


def idle_plugins(values: Mapping[str, Any]) -> list[str]:
    """A note for every plugin of a run with these ``values`` that registers names, none of which the run has."""
    from research.plugins.load import load  # torch takes seconds

    used = {*values["hooks"], values["model"], values["dataset"], values["substitute"].partition(":")[0]}
    used |= {each for given in values["hooks"].values() for each in given.values() if isinstance(each, str)}
    notes = []
    for plugin in load(values["plugin"]):
        names = [name for each in plugin.registered.values() for name in each]
        if names and not used & set(names):
            notes.append(f"plugin={plugin.source.name}: has no effect: this run has no {' or '.join(names)}")
    return notes


def _refuse_names(words: tuple[str, ...], names: Collection[str]) -> None:
    """Refuse methods with a name that already means something where parameters are typed."""
    from research.plugins.load import line_of, load  # torch takes seconds

    problems = [
        f"{plugin.source.path}:{line_of(plugin.source, 'HOOKS', name)}: HOOKS[{name!r}]: {name} is a parameter of a "
        f"run{'' if name in names else ' in the words of another program'}; choose another"
        for plugin in load(words)
        for name in plugin.registered["HOOKS"]
        if name in names or name in ALIASES
    ]
    if problems:
        raise UsageError("\n".join(problems))
