"""Names that the seeds' own command lines used, and what they mean here; one seed a file.

An alias is another name of one parameter, or a function that turns its value into parameters. Where only several flags
together have a meaning, the whole command is translated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from research.config.seed_commands import cheap_convs, gram, nn_mass, power_grad, sparse
from research.config.seed_commands.command import Command, Inert
from research.errors import UsageError


def gpus(count: Any) -> dict[str, Any]:
    """``gpus=N``: N processes, one a GPU."""
    if not isinstance(count, bool) and count in (0, "0"):
        raise UsageError("gpus=0: must be >= 1; give device=cpu for the CPU")
    return {"device": "cuda", "processes": count}


ALIASES: dict[str, str | Inert | Callable[[Any], dict[str, Any]]] = {
    "gpus": gpus,
    **gram.ALIASES,
    **power_grad.ALIASES,
}


def meaning(alias: str, value: Any) -> dict[str, Any]:
    """The parameters that ``alias=value`` stands for; none for an :class:`Inert` flag."""
    target = ALIASES[alias]
    if isinstance(target, Inert):
        return {}
    return {target: value} if isinstance(target, str) else target(value)


def translated(given: Mapping[str, Any]) -> Command | None:
    """``given`` translated as a whole command of a seed's program; ``None`` if it is not one.

    Raises:
        UsageError: it is one, and contradicts itself or means nothing here.
    """
    seed = next((seed for seed in (sparse, nn_mass, cheap_convs) if seed.speaks(given)), None)
    return seed.translate(given) if seed else None
