"""What is read from signatures, for which torch is imported, kept in the user's cache for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from research.files import read_json, write_atomic

PACKAGE = Path(__file__).parents[1]


def kept(make: Callable[[], dict]) -> dict:
    """What ``make()`` returns, in JSON types; not called where that was kept, and this package is as it was then.

    A cache that cannot be read or written costs time and nothing else.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path, sources = home / "research" / f"{make.__name__}.json", fingerprint()
    found = read_json(path, None)
    if isinstance(found, dict) and found.get("sources") == sources:
        return found["made"]
    made = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"sources": sources, "made": made}))
    return made


def fingerprint() -> str:
    """A digest of all code of this package, and of the Python that reads it."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
