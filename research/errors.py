"""What a user is told when something they gave cannot work."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake in what the user gave. Each line of the message is complete; commands print it and exit with 2."""


class Failure(RuntimeError):
    """Work that began correctly and then failed. The message says all; commands print it and exit with 1."""


def closest(name: object, known: Iterable[object]) -> str:
    """End of an error line: the closest valid choice, or nothing when none is close."""
    found = get_close_matches(str(name), map(str, known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def nearest(name: object, known: Iterable[object]) -> str:
    """End of an error line: the closest valid choice; when none is close, the choices (the nearest dozen of many)."""
    known = list(map(str, known))
    listed = sorted(known) if len(known) <= 12 else get_close_matches(str(name), known, n=12, cutoff=0)
    return closest(name, known) or (f"; known: {', '.join(listed)}" if listed else "")
