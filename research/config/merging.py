"""Parameters from several sources, in several notations, as one map.

A parameter has one path: ``lr``, ``model_args.width``, ``gram`` (the method as a whole) or ``gram.k``. A user writes it
dotted, nested, or as an alias or command of a system that this one grew from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from research.config.seed_commands import ALIASES, Inert, meaning, sparse, translated
from research.errors import UsageError, nearest
from research.parameters.signatures import parameters_of

NESTED = ("hooks", "model_args", "data_args")
STORED = frozenset((*NESTED, "nodes", "restarts", "log_interval"))  # a Config has them all, of whatever version


class Word(NamedTuple):
    """One parameter as it was written: GraM's ``k`` as ``gram.k=8``, ``c_type=nmi8`` or ``hooks={gram: {k: 8}}``."""

    key: str
    value: Any
    path: str
    means: Any

    def __str__(self) -> str:
        return f"{self.key}={self.value!r}"


@dataclass
class Merged:
    """All sources as one map, with notes and problems for the user.

    ``typed`` has the words of the last source by path, ``below`` the origins of all other values: what a user types now
    is checked more strictly than what a recipe, a study or a stored run says for many.
    """

    given: dict[str, Any] = field(default_factory=dict)
    typed: dict[str, Word] = field(default_factory=dict)
    below: dict[str, tuple[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    command: str = ""  # the seed's program whose whole command it is

    @property
    def stored_hooks(self) -> dict[str, dict[str, Any]]:
        """The parameters of methods in a stored run, which stays readable whatever has been refused since."""
        stored: dict[str, dict[str, Any]] = {}
        for path, (origin, value) in self.below.items():
            name, _, parameter = path.partition(".")
            if origin == "stored" and parameter:
                stored.setdefault(name, {})[parameter] = value
        return stored

    def in_typed_words(self, problem: str) -> str:
        """``problem`` with its leading parameter and value replaced by the word that was typed for it."""
        path = re.match(r"([\w.]+)=", problem)
        word = self.typed.get(path[1]) if path else None
        told, colon, rest = problem.partition(": ")
        alone = colon and " and " not in told
        return f"{word}{colon}{rest}" if word and word.key != word.path and alone else problem


def merge(sources: Iterable[Mapping[str, Any]], names: Collection[str]) -> Merged:
    """Merge ``sources``: later ones win over earlier ones, these over a seed's command, and that over the recipe.

    ``names`` are the parameters of a run. A source with parameters that nobody types together was a Config: none of its
    words counts as typed.
    """
    merger, merged = _Merger(names), Merged()
    sources = list(sources)
    stored = [STORED <= source.keys() for source in sources]
    command, sources = _command(merged, sources, stored)
    origins = ["stored" if was else "" for was in stored]
    recipe = _recipe(merged, [command, *sources])
    for origin, layer in zip(["recipe", "command", *origins], [recipe, command, *sources], strict=True):
        words = merger.words(layer)
        for word in words:
            merger.put(merged.given, word)
        if sources and layer is sources[-1] and not stored[-1]:
            merged.typed = {word.path: word for word in words}
        else:
            merged.below |= {word.path: (origin, word.means) for word in words}
    merged.problems += merger.problems
    merged.notes += merger.notes
    return merged


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """``above`` over ``below`` as one source, without the words that a later one contradicts.

    A replaced word keeps its place, because the order of methods matters.
    """
    merger, result = _Merger(names), {}
    over = {key: merger.words({key: value}) for key, value in above.items()}
    later = {word.path: word for words in over.values() for word in words}
    switched_off = tuple(f"{path}." for path, word in later.items() if word.means is False)
    for key, value in below.items():
        words = merger.words({key: value})
        if key in above or not any(w.path in later or w.path.startswith(switched_off) for w in words):
            result[key] = above.get(key, value)
            continue
        for word in words:
            if word.path in later:
                result[later[word.path].key] = later[word.path].value
            elif not word.path.startswith(switched_off):
                result[word.path] = word.means
    return result | {key: value for key, value in above.items() if key not in result and not _placed(over[key], result)}


def doubled(parts: Iterable[Mapping[str, Any]], names: Collection[str]) -> list[str]:
    """A line for each parameter that two of ``parts`` decide: parts that are combined must not overrule each other."""
    merger, said, problems = _Merger(names), {}, []
    for part in parts:
        words = merger.words(part)
        for word in words:
            if word.path in said and word.means is not True:
                problems.append(f"{said[word.path]} and {word}: both decide {word.path}; give one")
        said |= {word.path: word for word in words}
    return problems


def _placed(words: list[Word], result: Mapping[str, Any]) -> bool:
    return bool(words) and all(word.key in result for word in words)


def _command(
    merged: Merged, sources: list[Mapping[str, Any]], stored: list[bool]
) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    """The parameters that a seed's whole command in ``sources`` stands for, and ``sources`` without its flags."""
    typed = [source for source, was in zip(sources, stored, strict=True) if not was]
    together = {key: value for source in typed for key, value in source.items() if isinstance(key, str)}
    try:
        found = translated(together)
    except UsageError as error:  # of a command that means nothing as a whole; its flags mean nothing one by one
        merged.problems += str(error).splitlines()
        return {}, [source if was else {} for source, was in zip(sources, stored, strict=True)]
    if found is None:
        merged.notes += filter(None, [sparse.unspoken(together)])
        return {}, sources
    told = " ".join(f"{name}={found.parameters[name]}" for name in ("model", "recipe"))
    merged.command = found.program
    merged.notes += [f"read as a command of {found.program}: {told}", *found.notes]
    return found.parameters, [
        source if was else {key: value for key, value in source.items() if key not in found.flags}
        for source, was in zip(sources, stored, strict=True)
    ]


def _recipe(merged: Merged, layers: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of the recipe that the last of ``layers`` to name one names."""
    name = next((layer["recipe"] for layer in reversed(layers) if "recipe" in layer), "")
    if not name or not isinstance(name, str):
        return {}
    from research.config.recipes import load_recipe  # only a run with a recipe needs it

    try:
        return load_recipe(name)
    except UsageError as error:
        merged.problems.append(str(error))
        return {}


class _Merger:
    """Reads sources word by word; ``problems`` and ``notes`` are those of all that it has read."""

    def __init__(self, names: Collection[str]):
        self.names = names
        self.problems: list[str] = []
        self.notes: list[str] = []

    def words(self, source: Mapping[str, Any]) -> list[Word]:
        """Every parameter that ``source`` names, one by one; a contradiction within it is a problem."""
        found: dict[str, Word] = {}
        for key, value in source.items():
            for word in self.meant(key, value):
                for other in _contradicted(word, found):
                    self.problems.append(f"{other} and {word}: they contradict each other; give one")
                found[word.path] = word
        return list(found.values())

    def meant(self, key: Any, value: Any) -> Iterator[Word]:
        """The parameters that one entry of a source sets; its name may be written with dashes."""
        if not isinstance(key, str) or not all(key.split(".")):
            self.problems.append(f"{key!r}: expected the name of a parameter")
            return
        name = key.replace("-", "_")
        if name in ALIASES:
            try:
                means = meaning(name, value)
            except UsageError as error:
                self.problems.append(str(error))
                return
            if isinstance(ALIASES[name], Inert):
                self.notes.append(f"{key}={value}: has no effect: {ALIASES[name]}")
            words = (word for path, meant in means.items() for word in self.own(path, path, meant))
        else:
            words = self.own(key, name, value)
        yield from (word._replace(key=key, value=value) if name in ALIASES else word for word in words)

    def own(self, key: str, name: str, value: Any) -> Iterator[Word]:
        """The parameters that one entry sets in this program's own words; ``key`` is ``name`` as it was typed."""
        head, _, rest = name.partition(".")
        if head in NESTED:
            yield from self.nested(head, {rest: value} if rest else value)
        elif not rest and name in self.names:
            yield Word(key, value, name, value)
        elif head in _hooks():
            yield from self.nested("hooks", {name: value})
        else:
            self.problems.append(f"unknown parameter {key!r}{self.suggestion(key)}")

    def nested(self, name: str, given: Any) -> Iterator[Word]:
        """The parameters that a mapping of hooks or of arguments sets."""
        if not isinstance(given, Mapping):
            self.problems.append(f"{name}={given!r}: expected a mapping of names to values")
            return
        for key, value in given.items():
            path = key if name == "hooks" else f"{name}.{key}"  # of arguments, or of a hook's parameters
            if not isinstance(key, str):
                self.problems.append(f"{name}={dict(given)!r}: expected names before the values, not {key!r}")
            elif name != "hooks" or "." in key:
                yield Word(path, value, path, value)
            elif key in self.names:
                self.problems.append(f"unknown hook {key!r}; it is a parameter of the run")
            elif isinstance(value, Mapping):
                yield Word(key, True, key, True)
                yield from self.nested(key, value)
            elif value is True or value is False or value is None:
                yield Word(key, value, key, value is not False)
            else:
                self.problems.append(f"{key}={value!r}: expected true, false or parameters such as {key}.{value}=…")

    def put(self, given: dict[str, Any], word: Word) -> None:
        """Put one parameter over what is ``given`` so far."""
        head, _, rest = word.path.partition(".")
        if head in ("model_args", "data_args"):
            given.setdefault(head, {})[rest] = word.means
        elif head in self.names:
            given[head] = word.means
        elif rest:
            given.setdefault("hooks", {}).setdefault(head, {})[rest] = word.means
        elif word.means is False:
            given.get("hooks", {}).pop(head, None)
        else:
            given.setdefault("hooks", {}).setdefault(head, {})

    def suggestion(self, key: str) -> str:
        """The arguments of network, data or methods with this name; else the closest of all names."""
        from research.data.augment import Augment  # torch takes seconds
        from research.data.synthetic import Segments
        from research.hooks import HOOKS
        from research.models import MODELS

        owners = {"model_args": MODELS.values(), "data_args": (Augment, Segments)} | {k: [v] for k, v in HOOKS.items()}
        longer = [f"{name}.{key}" for name, own in owners.items() if any(key in parameters_of(each) for each in own)]
        if longer:
            return f"; did you mean {' or '.join(map(repr, longer[:3]))}?"
        return nearest(key.partition(".")[0], [*self.names, *HOOKS, *ALIASES], listed_by="research parameters")


def _contradicted(word: Word, said: Mapping[str, Word]) -> list[Word]:
    """The words in ``said`` that ``word`` contradicts."""
    same = said.get(word.path)
    if same and (same.means != word.means or isinstance(same.means, bool) != isinstance(word.means, bool)):
        return [same]
    if word.means is False:
        return [other for path, other in said.items() if path.startswith(f"{word.path}.")][:1]
    switch = said.get(word.path.partition(".")[0])
    return [switch] if switch and switch.means is False and switch.path != word.path else []


def _hooks() -> Iterable[str]:
    from research.hooks import HOOKS  # imports torch: only when a run has hooks

    return HOOKS
