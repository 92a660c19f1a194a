"""``key=value`` as a person types it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from research.errors import UsageError


def parse_assignments(words: Iterable[str]) -> dict[str, Any]:
    """``["model=resnet18", "gram.k=8"]`` as a dict; values are read as YAML, the last of equal keys wins."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r}: expected key=value, such as {key or 'epochs'}=…")
        try:
            sexagesimal = re.fullmatch(r"[\d.]+:[\d.:e+-]+", value)  # YAML 1.1 reads 5:1 as 301
            found[key.strip()] = yaml.safe_load(value) if value and not sexagesimal else value
        except yaml.YAMLError:
            found[key.strip()] = value
    return found
