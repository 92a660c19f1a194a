"""What a plugin may register: the four registries of this package, and what each asks of an entry."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from research.data.datasets import DATASETS, Dataset
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.layers.base import Substitute
from research.layers.families import LAYERS
from research.layers.spec import DENSE
from research.models import MODELS, is_model
from research.parameters.signatures import parameters_of


@dataclass(frozen=True)
class Registry:
    """``known`` has what there is by name; ``refuse(name, entry)`` says why an entry cannot be one, or nothing."""

    what: str
    known: dict[str, Any]
    refuse: Callable[[str, Any], str]


def refuse_hook(name: str, entry: Any) -> str:
    if not (inspect.isclass(entry) and issubclass(entry, Hook)):
        return f"expected a class that extends research.hooks.Hook, not {_told(entry)}"
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        return "letters, digits and _ make the name of a method, which stands before the dot of its parameters"
    if missing := _required(entry):
        return f"{name}=true must be enough, and {missing} has no default"
    try:
        entry()
    except UsageError as error:
        return f"its defaults are refused: {error}"
    except Exception as error:
        return f"cannot be made with its defaults: {type(error).__name__}: {error}"
    return ""


def refuse_model(name: str, entry: Any) -> str:
    if not callable(entry):
        return f"expected a function or class that makes a network, not {_told(entry)}"
    first = list(inspect.signature(entry).parameters.values())[:2]
    classes, shape = ([p.default for p in first] + [None, None])[:2]
    if not (isinstance(classes, int) and isinstance(shape, tuple)):
        return "begins with two parameters, num_classes=10 and input_shape=(3, 32, 32), or as its own data have it"
    own = [p.name for p in list(inspect.signature(entry).parameters.values())[2:] if p.default is p.empty]
    return f"its argument {own[0]} has no default" if own else ""


def refuse_layer(name: str, entry: Any) -> str:
    if not (inspect.isclass(entry) and issubclass(entry, Substitute)):
        return f"expected a class that extends research.layers.base.Substitute, not {_told(entry)}"
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        return "letters, digits and _ make the name of a layer, which stands before the colon of its arguments"
    lacking = [method for method in ("forward", "initialise") if getattr(entry, method) is getattr(Substitute, method)]
    if lacking:
        return f"lacks {lacking[0]}"
    return f"{missing} has no default" if (missing := _required(entry)) else ""


def refuse_dataset(name: str, entry: Any) -> str:
    if not isinstance(entry, Dataset):
        return f"expected a research.data.datasets.Dataset, not {_told(entry)}"
    if entry.name != name:
        return f"its own name is {entry.name!r}; both must be the same"
    if entry.kind not in ("images", "folder"):
        return f"kind={entry.kind!r}: expected 'images' or 'folder'"
    if entry.kind == "images" and not entry.read:
        return "kind='images' needs read=, a function of (folder of the data, split) that gives images and labels"
    return ""


REGISTRIES = {
    "HOOKS": Registry("method", HOOKS, refuse_hook),
    "MODELS": Registry("network", MODELS, refuse_model),
    "LAYERS": Registry("layer", LAYERS, refuse_layer),
    "DATASETS": Registry("data set", DATASETS, refuse_dataset),
}


def is_taken(kind: str, name: str) -> bool:
    """Whether the package itself has something of this name."""
    others = {"MODELS": is_model, "LAYERS": DENSE.__contains__}.get(kind)
    return name in REGISTRIES[kind].known or bool(others and others(name))


def _required(owner: type) -> str:
    """The first parameter of ``owner`` without a default, or nothing."""
    return next((name for name, parameter in parameters_of(owner).items() if parameter.required), "")


def _told(entry: Any) -> str:
    return f"the class {entry.__name__}" if inspect.isclass(entry) else f"{entry!r:.60}"
