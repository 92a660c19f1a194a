"""How a seed's command is read: the syntax of its program, flags that do nothing here, and the result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from research.errors import UsageError, closest
from research.parameters.assignments import parse_assignments


class Inert(str):
    """Why a flag changes nothing here. It is told to whoever gives the flag, and nothing follows from it."""


def only(flag: str, *values: Any) -> Callable[[Any], dict[str, Any]]:
    """What ``flag`` means where it has one of ``values`` alone, with which it changes nothing."""

    def meant(given: Any) -> dict[str, Any]:
        if given not in values:
            raise UsageError(f"{flag}={given!r}: expected {values[0]!r}, which is all there is here")
        return {}

    return meant


class Command(NamedTuple):
    """A command of ``program``: its ``flags``, as typed, stand for ``parameters``; ``notes`` go to the user."""

    program: str
    parameters: Mapping[str, Any]
    flags: Collection[str]
    notes: list[str]


class Reading(NamedTuple):
    """What an original command line does: ``research`` ``verb`` with ``words``, and ``parameters`` of a Config.

    ``notes`` say what differs, or has no effect. ``parameters`` may be in the seed's own words.
    """

    verb: str
    parameters: Mapping[str, Any]
    notes: Sequence[str] = ()
    words: Sequence[str] = ()


class Syntax(NamedTuple):
    """The flags of a program, by their long names with underscores; ``short`` maps other names to these."""

    values: Collection[str]
    switches: Collection[str] = ()
    lists: Collection[str] = ()
    short: Mapping[str, str] = {}
    positional: Collection[str] = ()

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """The flags in ``argv`` by long name, values read as in an assignment.

        Raises:
            UsageError: a flag that the program does not have, or one without its value.
        """
        parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
        names = {name: [name, *(s for s, long in self.short.items() if long == name)] for name in self.flags}
        for name in self.positional:
            parser.add_argument(name)
        for name, spelled in names.items():
            options = ["--" * (len(s) > 1) + "-" * (len(s) == 1) + s for s in spelled]
            how = {"action": "store_true"} if name in self.switches else {"nargs": "+"} if name in self.lists else {}
            parser.add_argument(*options, dest=name, **how)
        found, unknown = parser.parse_known_args([_with_underscores(word) for word in argv])
        if unknown:
            spelled = [f"--{name}" for name in self.flags]
            raise UsageError("\n".join(f"{w}: no such flag{closest(w, spelled)}" for w in unknown))
        return {name: _value(name, given) for name, given in vars(found).items()}

    @property
    def flags(self) -> list[str]:
        return [*self.values, *self.switches, *self.lists]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def _with_underscores(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word


def _value(name: str, given: Any) -> Any:
    if isinstance(given, list):
        each = [_value(name, item) for item in given]
        return each[0] if len(each) == 1 else each
    return given if given is True else parse_assignments([f"{name}={given}"])[name]


def long_name(key: str, short: Mapping[str, str] = {}) -> str:  # noqa: B006 only read
    """The long name of a flag, with underscores."""
    plain = key.lstrip("-").replace("-", "_")
    return short.get(plain, plain)


def said_twice(typed: Mapping[str, str], given: Mapping[str, Any]) -> Iterator[str]:
    """A line for each flag that is given twice with two values; ``typed`` maps keys of ``given`` to long names."""
    first: dict[str, str] = {}
    for key, name in typed.items():
        if given[other := first.setdefault(name, key)] != given[key]:
            yield f"{other}={given[other]!r} and {key}={given[key]!r}: they contradict each other; give one"
