"""The result of reading a whole command of a seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command of ``program``: its ``flags``, as typed, stand for ``parameters``; ``notes`` go to the user."""

    program: str
    parameters: Mapping[str, Any]
    flags: Collection[str]
    notes: list[str]


def said_twice(typed: Mapping[str, str], given: Mapping[str, Any]) -> Iterator[str]:
    """A line for each flag that is given twice with two values; ``typed`` maps keys of ``given`` to long names."""
    first: dict[str, str] = {}
    for key, name in typed.items():
        if given[other := first.setdefault(name, key)] != given[key]:
            yield f"{other}={given[other]!r} and {key}={given[key]!r}: they contradict each other; give one"
