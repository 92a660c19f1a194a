"""What a user types to replace convolutions: ``"hashed:0.1"``, ``"tucker:rank=0.25,decay=plain"``, ``"ACDC_12"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from research.errors import UsageError, closest, nearest
from research.layers.base import Substitute
from research.layers.families import LAYERS
from research.parameters.signatures import Parameter, Range, check_arguments, parameters_of

DENSE = ("", "conv", "Conv")
"""Specs that replace nothing."""


@dataclass(frozen=True)
class Options:
    """What every family takes beside its own arguments. Patterns are names with * and ?, several joined by |."""

    decay: Annotated[
        Literal["scaled", "plain"], "weight decay of compressed parameters: times the compression ratio, or as others"
    ] = "scaled"
    only: Annotated[str, "replace just the layers of these names"] = ""
    keep: Annotated[str, "leave the layers of these names alone, beside those that the network keeps"] = ""
    from_dense: Annotated[bool, "start as close as possible to the weights of the layers that are replaced"] = False
    budget: Annotated[int | None, Range(least=1), "parameters of the whole network; sets the first argument"] = None
    mult_adds: Annotated[float | None, Range(above=0), "multiply-adds of the whole network, instead"] = None
    allow_miss: Annotated[bool, "take the nearest size where a budget cannot be met"] = False


@dataclass(frozen=True)
class Spec:
    """A checked spec: a family, its own arguments with defaults, its initial values, and the options."""

    family: str
    layer: type[Substitute] = field(repr=False)
    arguments: Mapping[str, Any]
    init: str = "variance"
    options: Options = Options()

    @property
    def main(self) -> str | None:
        """The argument that ``family:value`` and budgets set."""
        return main_argument(self.layer)

    def at(self, value: float) -> Self:
        """The same with another value of the main argument, and no budget."""
        options = replace(self.options, budget=None, mult_adds=None)
        return replace(self, arguments={**self.arguments, self.main: value}, options=options)

    def __str__(self) -> str:
        """The spec as a user types it, without defaults."""
        defaults = {p.name: p.default for p in own_parameters(self.layer)}
        sought = self.options.budget or self.options.mult_adds
        told = [str(value) for name, value in self.arguments.items() if name == self.main and not sought]
        told += [f"{n}={v}" for n, v in self.arguments.items() if n != self.main and v != defaults[n]]
        told += [] if self.init == "variance" else [f"init={self.init}"]
        plain = vars(Options())
        told += [f"{n}={_shown(v)}" for n, v in vars(self.options).items() if v != plain[n]]
        return f"{self.family}:{','.join(told)}" if told else self.family


def parse_spec(text: str) -> Spec | None:
    """``family:value,argument=value,…`` or a name of the research log; ``None`` where nothing is to be replaced.

    Raises:
        UsageError: one line for each mistake, with the value and what was expected.
    """
    if text in DENSE:
        return None
    family, _, rest = from_log_name(text).partition(":")
    if family not in LAYERS:
        raise UsageError(f"substitute={text!r}: unknown family{_nearest_family(text)}")
    layer = LAYERS[family]
    given, problems = _read(text, rest, main_argument(layer))
    common = parameters_of(Options)
    own = {name: value for name, value in given.items() if name not in common}
    options, option_problems = check_arguments(f"{family}:", Options, {n: v for n, v in given.items() if n in common})
    known = parameters_of(layer)
    for name in [name for name in own if name not in known]:
        option_problems.append(f"{family}: unknown argument {name!r}{nearest(name, [*known, *common])}")
        del own[name]
    arguments, wrong = check_arguments(f"{family}:", layer, own)
    problems += option_problems + wrong
    if main_argument(layer) in given and (options["budget"] or options["mult_adds"]):
        problems.append(f"{family}: a budget sets {main_argument(layer)}; leave one of them out")
    if options["budget"] and options["mult_adds"]:
        problems.append(f"{family}: give budget or mult_adds, not both")
    if problems:
        raise UsageError("\n".join(f"substitute={text!r}: {problem}" for problem in problems))
    init = arguments.pop("init", "variance")
    return Spec(family, layer, arguments, init, Options(**options))


def own_parameters(layer: type[Substitute]) -> list[Parameter]:
    """The arguments of a family, ``init`` left out."""
    return [p for name, p in parameters_of(layer).items() if name != "init"]


def main_argument(layer: type[Substitute]) -> str | None:
    return next((p.name for p in own_parameters(layer)), None)


def log_names() -> dict[str, str]:
    """Names in the research log, with x and y for their numbers -> the spec that each stands for."""
    shown = {}
    for layer in LAYERS.values():
        for pattern, spec in layer.log_names.items():
            for letter in "xy":
                pattern = re.sub(r"\(.*?\)", letter, pattern, count=1)
            shown[pattern] = spec.format("x", "y")
    return shown


def from_log_name(text: str) -> str:
    """The spec that a name of the research log stands for; any other text as it is."""
    for layer in LAYERS.values():
        for pattern, spec in layer.log_names.items():
            if match := re.fullmatch(pattern, text):
                return spec.format(*match.groups())
    return text


def _nearest_family(text: str) -> str:
    head = re.split(r"[:_]", text)[0]
    return closest(head, log_names()) if head[:1].isupper() and closest(head, log_names()) else nearest(head, LAYERS)


def _read(text: str, rest: str, main: str | None) -> tuple[dict[str, Any], list[str]]:
    """The words after the colon as arguments; a first word without a name is the main argument."""
    given, problems = {}, []
    for position, word in enumerate(rest.split(",") if rest else []):
        name, equals, value = word.strip().partition("=")
        if not equals:
            if position or main is None:
                problems.append(f"{word!r}: expected argument=value")
                continue
            name, value = main, name
        given[name] = value
    return given, problems


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
