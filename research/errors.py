"""What a user is told when something they gave cannot work."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake in what the user gave. Each line of the message is complete; commands print it and exit with 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """End of an error line: the closest valid choice, or the choices themselves when none is close."""
    known = sorted(map(str, known))
    close = get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
