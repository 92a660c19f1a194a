"""``key=value`` as a person types it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from research.errors import UsageError
from research.parameters import yaml_1_2


def parse_assignments(words: Iterable[str]) -> dict[str, Any]:
    """``["model=resnet18", "gram.k=8"]`` as a dict; values are read as YAML 1.2, or as text where they are not YAML.

    Raises:
        UsageError: a word is no assignment, a mapping in it has a key twice, or two words contradict each other.
    """
    found: dict[str, Any] = {}
    problems = []
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append(f"{word!r}: expected key=value, such as {key or 'epochs'}=…")
            continue
        try:
            value = yaml_1_2.parse(text) if text else text
        except UsageError as error:
            if "given twice" in str(error):
                problems.append(f"{word}: {str(error).partition(': ')[2]}")
                continue
            value = text
        if isinstance(value, (dict, list)) and text.strip()[0] not in "[{&":
            value = text  # "timm:" would be a mapping
        if key in found and str(found[key]) != str(value):
            problems.append(f"{key}={found[key]} and {key}={value}: they contradict each other; give one")
        found[key] = value
    if problems:
        raise UsageError("\n".join(problems))
    return found
