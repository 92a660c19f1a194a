"""Names that the seeds' own command lines used, and what they mean here; one seed a file.

An alias is another name of one parameter, or a function of its value that gives the parameters it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from research.aliases import gram, power_grad


def gpus(count: Any) -> dict[str, Any]:
    """``gpus=N``: N processes, one a GPU; ``gpus=0`` is one process on the CPU."""
    return {"device": "cpu", "processes": 1} if count == 0 else {"device": "cuda", "processes": count}


ALIASES: dict[str, str | Callable[[Any], dict[str, Any]]] = {"gpus": gpus, **gram.ALIASES, **power_grad.ALIASES}


def meaning(alias: str, value: Any) -> dict[str, Any]:
    """The parameters that ``alias=value`` stands for."""
    target = ALIASES[alias]
    return {target: value} if isinstance(target, str) else target(value)
