"""Which plugins are known now: those of the run that is dealt with, and no others.

Two runs may have two versions of one method, in one process. So the names that a plugin registers stand in the
package's own registries only while something is done with a Config that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

R = TypeVar("R")
_now: tuple[str, ...] = ()  # the words of the plugins whose names the registries have


@contextmanager
def plugged(words: tuple[str, ...]) -> Iterator[None]:
    """In this context the registries have what the plugins of these ``words`` register, and of no others.

    Raises:
        UsageError: a plugin cannot be read or executed, or what it registers is not what it has to be.
    """
    before = _now
    if words == before:
        yield
        return
    _put(words)
    try:
        yield
    finally:
        _put(before)


def with_its_plugins(function: Callable[..., R]) -> Callable[..., R]:
    """``function`` in the context of the plugins of its first argument, a Config or what has one as ``config``."""

    @wraps(function)
    def inner(first: Any, *args: Any, **kwargs: Any) -> R:
        with plugged(getattr(first, "config", first).plugin):
            return function(first, *args, **kwargs)

    return inner


def _put(words: tuple[str, ...]) -> None:
    """Let the registries have what these plugins register in the place of what they have of plugins now."""
    global _now
    from research.plugins.load import REGISTRIES, load  # torch takes seconds, and most runs have no plugin

    before, plugins = _now, load(_now)
    for plugin in plugins:
        for kind, names in plugin.registered.items():
            for name in names:
                del REGISTRIES[kind].known[name]
    _now = ()  # while a plugin is executed, the package is alone
    try:
        before, plugins = words, load(words)
    finally:
        for plugin in plugins:
            for kind, names in plugin.registered.items():
                REGISTRIES[kind].known.update(names)
        _now = before
