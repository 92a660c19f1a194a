"""What makes runs one configuration: all that defines what they compute, but the seed. Words for it.

One definition for labels, groups and comparisons: numbers count in full and whatever their notation, methods in their
order, and an argument that was given at its default is as if it had not been given.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from research.config import Config
from research.data.datasets import DATASETS, arguments


def configuration(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes``, as :meth:`research.frames.Runs.changes` has them of a run, without the seed and arguments that have
    their default anyway.
    """
    usual = _usual_arguments(changes)
    return {
        name: value
        for name, value in changes.items()
        if name != "seed" and (name not in usual or _frozen(value) != _frozen(usual[name]))
    }


def key(mine: Mapping[str, Any]) -> Hashable:
    """What is equal for equal configurations, and for no others."""
    return methods(mine), _frozen(mine)


def differing(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters whose value is not the same in all ``configurations``."""
    names = dict.fromkeys(name for mine in configurations for name in mine)
    return [name for name in names if len({_frozen(mine.get(name)) for mine in configurations}) > 1]


def methods(mine: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods of a configuration, in order."""
    others = {"model_args", "data_args", *Config.parameters()}
    return tuple(dict.fromkeys(owner(name) for name in mine if owner(name) not in others))


def told_apart(names: Sequence[str], configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """``names`` of configurations; where the order of methods alone tells two of a name apart, with that order."""
    orders: dict[str, set] = {}
    for name, mine in zip(names, configurations, strict=True):
        orders.setdefault(name, set()).add(methods(mine))
    return [
        f"{name} ({' before '.join(methods(mine))})" if len(orders[name]) > 1 else name
        for name, mine in zip(names, configurations, strict=True)
    ]


def owner(parameter: str) -> str:
    """The method (or the argument map) that a changed parameter belongs to: ``gram`` of ``gram.k``, and of ``gram``."""
    return parameter.partition(".")[0]


def word(parameter: str, value: Any) -> str:
    """A parameter as a person would type it."""
    return parameter if value == "" else f"{parameter}={number(value) if isinstance(value, float) else value}"


def number(value: float) -> str:
    """The shortest text that is this number: 0.1, 2, 1e-08."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _usual_arguments(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of those arguments of network and data that ``changes`` has; none of a network that is not known."""
    dataset, model = (changes.get(name, getattr(Config, name)) for name in ("dataset", "model"))
    usual = {}
    if dataset in DATASETS and any(owner(name) == "data_args" for name in changes):
        usual |= {f"data_args.{name}": value for name, value in arguments(dataset, {})[0].items()}
    if any(owner(name) == "model_args" for name in changes):
        from research.models import model_arguments  # torch takes seconds

        usual |= {f"model_args.{name}": value for name, value in model_arguments(model, {}).items()}
    return usual


def _frozen(value: Any) -> Hashable:
    """``value`` such that it is equal, and hashed alike, wherever it means the same: 1 and 1.0, lists and tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    return frozenset((name, _frozen(each)) for name, each in value.items()) if isinstance(value, Mapping) else value
