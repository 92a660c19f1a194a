"""Names that the seeds' own command lines used, and what they mean here; one seed a file.

An alias is another name of one parameter, or a function of its value that gives the parameters it stands for. Where
several flags together say what is meant, the whole command is translated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from research.config.seed_commands import gram, nn_mass, power_grad, sparse
from research.config.seed_commands.command import Command
from research.errors import UsageError


def gpus(count: Any) -> dict[str, Any]:
    """``gpus=N``: N processes, one a GPU."""
    if not isinstance(count, bool) and count in (0, "0"):
        raise UsageError("gpus=0: must be >= 1; give device=cpu for the CPU")
    return {"device": "cuda", "processes": count}


ALIASES: dict[str, str | Callable[[Any], dict[str, Any]]] = {"gpus": gpus, **gram.ALIASES, **power_grad.ALIASES}


def meaning(alias: str, value: Any) -> dict[str, Any]:
    """The parameters that ``alias=value`` stands for."""
    target = ALIASES[alias]
    return {target: value} if isinstance(target, str) else target(value)


def translated(given: Mapping[str, Any]) -> Command | None:
    """What ``given`` means as a whole command of a seed's program; ``None`` when it is none.

    Raises:
        UsageError: it is one, and contradicts itself or means nothing here.
    """
    seed = next((seed for seed in (sparse, nn_mass) if seed.speaks(given)), None)
    return seed.translate(given) if seed else None
