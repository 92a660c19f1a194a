"""Published training recipes as named defaults: one YAML file each, whose keys are fields of Config.

The first line of a file is a comment that says what it is. Its ``story`` says what to expect: the source, the published
result, the hardware and time of the original, and what was run with this program. Comments explain single numbers.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from research.errors import UsageError, nearest
from research.parameters.yaml_1_2 import parse

STORY = ("source", "expected", "hardware", "here")


def recipe_names() -> list[str]:
    """Every recipe, in alphabetical order."""
    return sorted(file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """The fields that recipe ``name`` sets.

    Raises:
        UsageError: there is no such recipe.
    """
    return {key: value for key, value in parse(_text(name)).items() if key != "story"}


def load_story(name: str) -> dict[str, str]:
    """What is known about recipe ``name``, by the words of ``STORY``.

    Raises:
        UsageError: there is no such recipe.
    """
    return parse(_text(name))["story"]


def describe() -> dict[str, str]:
    """Every recipe with its first line."""
    return {name: _text(name).partition("\n")[0].lstrip("# ") for name in recipe_names()}


def _text(name: str) -> str:
    if name not in (names := recipe_names()):
        raise UsageError(f"unknown recipe {name!r}{nearest(name, names, listed_by='research recipes')}")
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
