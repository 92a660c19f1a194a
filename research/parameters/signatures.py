"""Parameters read from signatures: a constructor's annotations say what a user may give, of which type and range."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from research.errors import UsageError, closest, nearest
from research.parameters.piecewise import Piecewise
from research.parameters.when import When, is_when
from research.parameters.yaml_1_2 import plain


@dataclass(frozen=True)
class Range:
    """Limits of a number, used as ``Annotated[float, Range(above=0)]``; ``least`` and ``most`` include their value."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return not (
            (self.least is not None and number < self.least)
            or (self.most is not None and number > self.most)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
        )

    def __str__(self) -> str:
        limits = {">=": self.least, "<=": self.most, ">": self.above, "<": self.below}
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a constructor: its name, annotation (``Annotated`` kept), default, and whether it has one."""

    name: str
    annotation: Any
    default: Any
    required: bool

    @property
    def type_name(self) -> str:
        return _type_name(self.annotation)

    @property
    def limits(self) -> str:
        return " and ".join(str(note) for note in _notes(self.annotation) if isinstance(note, Range))

    @property
    def help(self) -> str:
        return " ".join(note for note in _notes(self.annotation) if isinstance(note, str))


@cache  # hundreds of runs are checked against the same few signatures
def _hints(owner: Callable) -> dict[str, Any]:
    callee = owner.__init__ if inspect.isclass(owner) else owner
    # a dataclass's fields are annotated in the modules of its bases, which only the class itself leads to
    return get_type_hints(owner if is_dataclass(owner) else callee, include_extras=True)


def parameters_of(owner: Callable) -> dict[str, Parameter]:
    """The named parameters of ``owner`` (a class or function) in order; ``self`` and ``*args/**kwargs`` left out."""
    hints = _hints(owner)
    made = (
        {f.name: f.default_factory() for f in fields(owner) if f.default_factory is not MISSING}
        if is_dataclass(owner)
        else {}
    )
    return {
        p.name: Parameter(p.name, hints.get(p.name, Any), made.get(p.name, p.default), p.default is p.empty)
        for p in inspect.signature(owner).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def check_arguments(where: str, owner: Callable, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Check ``given`` against the signature of ``owner``.

    Returns every parameter with its value (converted, or the default) and one line for each problem; ``where`` is the
    prefix that a user types, such as ``"gram."``.
    """
    known, problems = parameters_of(owner), []
    values = {name: p.default for name, p in known.items() if not p.required}
    for name, value in given.items():
        if name not in known:
            problems.append(f"unknown parameter {where + str(name)!r}{nearest(name, known, where)}")
            continue
        values[name], problem = convert(value, known[name].annotation)
        if problem:
            problems.append(f"{where}{name}={value!r}: {problem}")
    problems += [f"{where}{n} is required" for n, p in known.items() if p.required and n not in given]
    return values, problems


def convert(value: Any, annotation: Any) -> tuple[Any, str | None]:
    """``value`` as ``annotation`` says, and what is wrong with it (``None`` if nothing).

    Text is read as a number where a number is expected, and a number as the text it was written as where text is.
    """
    for kind in _alternatives(annotation):
        try:
            converted, fits = _as(value, kind)
        except UsageError as error:
            return value, str(error)
        if fits:
            outside = [n for n in _notes(annotation) if isinstance(n, Range) and _is_number(converted)]
            wrong = [limits for limits in outside if converted not in limits]
            return converted, f"must be {wrong[0]}" if wrong else None
    expected = f"expected {_type_name(annotation)}"
    if get_origin(_bare(annotation)) is Literal:
        expected += closest(value, get_args(_bare(annotation)))
    return value, expected


def _as(value: Any, kind: Any) -> tuple[Any, bool]:
    origin = get_origin(kind)
    if origin is Literal:
        value = "off" if value is False and "off" in get_args(kind) else value
        return plain(value), isinstance(value, Hashable) and value in get_args(kind)
    if origin in (tuple, list):
        return _as_sequence(value, kind)
    if kind is Any:
        return plain(value), True
    if Mapping in (kind, origin) or dict in (kind, origin):
        return value, isinstance(value, Mapping)
    if kind is type(None):
        return None, value is None
    if kind is bool:
        text = {"true": True, "false": False}.get(str(value).lower())
        return (text, True) if text is not None else (bool(value), _is_number(value) and value in (0, 1))
    if kind in (int, float):
        return _as_number(value, kind)
    if kind is Piecewise:
        return (Piecewise(value), True) if isinstance(value, (str, Mapping)) or _is_number(value) else (value, False)
    if kind is When:
        return (When(value), True) if is_when(value) else (value, False)
    if kind is str:
        return str(value), isinstance(value, str) or _is_number(value)
    return value, isinstance(value, kind)


def _as_number(value: Any, kind: type) -> tuple[Any, bool]:
    if isinstance(value, bool):
        return value, False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value, False
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        return value, False
    return (number if kind is float else int(value) if isinstance(value, int) else int(number)), True


def _as_sequence(value: Any, kind: Any) -> tuple[Any, bool]:
    if not isinstance(value, (list, tuple)):
        return value, False
    inner = [a for a in get_args(kind) if a is not Ellipsis]
    fixed = get_origin(kind) is tuple and Ellipsis not in get_args(kind)
    if fixed and len(inner) != len(value):
        return value, False
    each = inner if fixed else inner[:1] * len(value)
    done = [convert(item, annotation) for item, annotation in zip(value, each, strict=True)]
    limits = [problem for _, problem in done if problem and problem.startswith("must")]
    if limits:
        raise UsageError(f"each {limits[0]}")
    return tuple(item for item, _ in done), all(problem is None for _, problem in done)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _notes(annotation: Any) -> tuple:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _alternatives(annotation: Any) -> tuple:
    bare = _bare(annotation)
    return get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)


def _type_name(annotation: Any) -> str:
    names = []
    for kind in _alternatives(annotation):
        if get_origin(kind) is Literal:
            names.append(" | ".join(map(str, get_args(kind))))
        elif get_origin(kind) in (tuple, list):
            names.append(f"a list of {_type_name(get_args(kind)[0])}")
        else:
            names.append(
                {type(None): "none", Mapping: "a mapping", Piecewise: "epoch:value …", When: "12ep, 4000it, 75%"}.get(
                    kind, getattr(kind, "__name__", str(kind))
                )
            )
    return " | ".join(names)
