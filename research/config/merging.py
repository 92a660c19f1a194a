"""What a user gave, from several sources and in several notations, as one map of parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from research.config.seed_commands import ALIASES, meaning, translated
from research.errors import UsageError, nearest

NESTED = ("hooks", "model_args", "data_args")


def merge(sources: Iterable[Mapping[str, Any]], names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """``sources`` as one map, later ones over earlier ones over their recipe; and one line for each problem.

    Keys may be nested (``{"hooks": {"gram": {"k": 8}}}``), dotted (``gram.k``) or aliases (``c_type``); ``names`` are
    the parameters of a run.
    """
    merger = _Merger(names)
    given: dict[str, Any] = {}
    for source in sources:
        try:
            merger.put(given, translated(source))
        except UsageError as error:  # of a command that means nothing as a whole
            merger.problems += str(error).splitlines()
    return merger.over_recipe(given), merger.problems


class _Merger:
    def __init__(self, names: Collection[str]):
        self.names = names
        self.problems: list[str] = []

    def put(self, into: dict[str, Any], source: Mapping[str, Any]) -> None:
        """Put one source over ``into``, with hooks and argument maps merged key by key."""
        for key, value in source.items():
            head, _, rest = key.partition(".")
            if key in ALIASES:
                try:
                    self.put(into, meaning(key, value))
                except UsageError as error:
                    self.problems.append(str(error))
            elif head in NESTED:
                self.put_nested(into.setdefault(head, {}), head, {rest: value} if rest else value)
            elif not rest and key in self.names:
                into[key] = value
            elif head in _hooks():
                self.put_nested(into.setdefault("hooks", {}), "hooks", {head: {rest: value} if rest else value})
            else:
                self.problems.append(f"unknown parameter {key!r}{nearest(head, [*self.names, *_hooks(), *ALIASES])}")

    def put_nested(self, into: dict[str, Any], field_name: str, given: Any) -> None:
        if not isinstance(given, Mapping):
            self.problems.append(f"{field_name}={given!r}: expected a mapping of names to values")
            return
        for key, value in given.items():
            name, _, rest = str(key).partition(".")
            if field_name != "hooks":
                into[name] = value
            elif rest:
                into.setdefault(name, {})[rest] = value
            elif value is False:
                into.pop(name, None)
            elif value is True or value is None:
                into.setdefault(name, {})
            elif isinstance(value, Mapping):
                into.setdefault(name, {}).update(value)
            else:
                self.problems.append(f"{name}={value!r}: expected true, false or parameters such as {name}.{value}=…")

    def over_recipe(self, given: dict[str, Any]) -> dict[str, Any]:
        if not given.get("recipe"):
            return given
        from research.config.recipes import load_recipe  # only a run with a recipe needs it

        merged: dict[str, Any] = {}
        try:
            self.put(merged, load_recipe(given["recipe"]))
        except UsageError as error:
            self.problems.append(str(error))
        self.put(merged, given)
        return merged


def _hooks() -> Iterable[str]:
    from research.hooks import HOOKS  # imports torch: only when a run has hooks

    return HOOKS
