"""Lines of a shell as people keep them: comments, line ends with a backslash, variables, marks of a list."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from research.errors import UsageError

MARK = re.compile(r"\s*(?:[*>$-] +|\d+\. +)?(?P<line>.*)", re.S)  # of an entry of a list, or a prompt
ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.S)
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
OPERATOR = re.compile(r"\d?[<>]{1,2}[^<>]*&?\d?|[|&;]{1,2}")
PLACEHOLDER = re.compile(r"<[^<>]*>")


class Line(NamedTuple):
    """A line, or several joined by backslashes, from the ``number``-th on; a comment has no ``words``.

    ``environment`` are the assignments before the command, as they were written.
    """

    number: int
    text: str
    environment: list[str]
    words: list[str]
    problem: str = ""


def read_lines(lines: Iterable[str], environment: Mapping[str, str]) -> Iterator[Line]:
    """The commands in ``lines``, comments and blank lines between them; ``export NAME=…`` holds from there on."""
    known = dict(environment)
    for number, text in _joined(lines):
        words = shlex_split(text := MARK.fullmatch(text)["line"].strip()) if _is_command(text) else []
        if isinstance(words, str):
            yield Line(number, text, [], [text], words)
            continue
        if len(words) == 1 and " " in words[0]:  # an entry of a list in YAML may be quoted
            words = shlex.split(words[0])
        exported = words[1:] if words[:1] == ["export"] else words
        set_here = [ASSIGNMENT.fullmatch(word) for word in exported]
        if words and all(set_here):
            known |= {found["name"]: found["value"] for found in set_here}
            yield Line(number, text, [], [])
            continue
        first = next((i for i, word in enumerate(words) if not ASSIGNMENT.fullmatch(word)), 0)
        own = known | {found["name"]: found["value"] for found in map(ASSIGNMENT.fullmatch, words[:first])}
        try:
            yield Line(number, text, words[:first], [expanded(word, own) for word in words[first:]])
        except UsageError as error:
            yield Line(number, text, [], words, str(error))


def expanded(word: str, variables: Mapping[str, str]) -> str:
    """``word`` with the values of ``$NAME`` and ``${NAME}``.

    Raises:
        UsageError: a variable that is not known, or an operator of the shell.
    """
    if OPERATOR.fullmatch(word) and not PLACEHOLDER.fullmatch(word):
        raise UsageError(f"{word}: give one command a line, without what the shell does around it")

    def value(found: re.Match) -> str:
        name = found[1] or found[2]
        if name not in variables:
            raise UsageError(f"${name}: not known; give `export {name}=…` before the line")
        return variables[name]

    return VARIABLE.sub(value, word)


def shlex_split(text: str) -> list[str] | str:
    """The words of ``text``, or what is wrong with it."""
    try:
        return shlex.split(text, comments=True)
    except ValueError as error:
        return str(error)


def _is_command(text: str) -> bool:
    return not text.lstrip().startswith(("#", "```")) and bool(text.strip())


def _joined(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    begun, parts = 0, []
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        begun = begun or number
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            yield begun, "\n".join(parts) if len(parts) == 1 else " ".join(parts)
            begun, parts = 0, []
    if parts:
        yield begun, " ".join(parts)
