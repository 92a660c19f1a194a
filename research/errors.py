"""What a user is told when something they gave cannot work."""

import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake in what the user gave. Each line of the message is complete; commands print it and exit with 2."""

    def told(self) -> list[str]:
        """The lines that a user sees; those that begin with a space belong to the one before."""
        return [line if line.startswith(" ") else f"error: {line}" for line in str(self).splitlines()]

    _render_traceback_ = told  # what IPython shows in the place of a traceback


class Failure(RuntimeError):
    """Work that began correctly and then failed. The message says all; commands print it and exit with 1."""

    def told(self) -> list[str]:
        """The lines that a user sees."""
        return f"error: {self}".splitlines()

    _render_traceback_ = told


class Note(UserWarning):
    """Something a user should know that stops nothing."""


def tell(text: str) -> None:
    """Tell a user ``text``; the same text once a process."""
    warnings.warn(text, Note, stacklevel=2)


def closest(name: object, known: Iterable[object], where: str = "") -> str:
    """End of an error line: the closest valid choice as it is typed, after ``where``; nothing when none is close."""
    found = get_close_matches(str(name), map(str, known), n=1, cutoff=0.6)
    return f"; did you mean {where + found[0]!r}?" if found else ""


def nearest(name: object, known: Iterable[object], where: str = "", listed_by: str = "") -> str:
    """End of an error line: as :func:`closest`; when none is close, the command that lists many, else a dozen."""
    known = list(map(str, known))
    if told := closest(name, known, where):
        return told
    if listed_by and len(known) > 12:
        return f"; `{listed_by}` lists them"
    listed = sorted(known) if len(known) <= 12 else get_close_matches(str(name), known, n=12, cutoff=0)
    return f"; known: {', '.join(where + each for each in listed)}" if listed else ""
