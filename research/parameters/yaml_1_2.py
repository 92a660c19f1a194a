"""YAML read by the rules of version 1.2, wherever people write parameters: in assignments, studies and recipes.

Version 1.1, which PyYAML reads, changes what one writes: ``010`` is 8, ``1:30`` is 90, ``no`` is false, ``2026-01-02``
is a date. Here numbers are decimal, true and false are the only booleans, and everything else is text. A key that is
given twice is refused. A number remembers how it was written, for where a text is expected: ``name=3.10``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from research.errors import UsageError


class WrittenInt(int):
    """A whole number whose ``str`` is what was written, such as ``007``."""

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenFloat(float):
    """A number whose ``str`` is what was written, such as ``3.10``."""

    written: str

    def __str__(self) -> str:
        return self.written


def parse(text: str) -> Any:
    """The value of ``text``: none, bool, number, text, or lists and mappings of these.

    Raises:
        UsageError: it is not YAML, or a mapping has a key twice.
    """
    try:
        value = yaml.load(text, _Loader)
        _refuse_circles(value)
        return value
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UsageError(f"not valid YAML: {' '.join(str(error.problem or error.context).split())}{where}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"not valid YAML: {' '.join(str(error).split()) or 'nested too deeply'}") from None


def read(path: str | Path) -> Any:
    """The value in the file ``path``, in UTF-8.

    Raises:
        UsageError: it cannot be read, or is not YAML.
    """
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"not text in UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from None


def plain(value: Any) -> Any:
    """``value`` without the memory of how its numbers were written."""
    if isinstance(value, WrittenInt):
        return int(value)
    if isinstance(value, WrittenFloat):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value


def typed(value: Any) -> str:
    """``value`` as text that :func:`parse` reads back unchanged."""
    if isinstance(value, (WrittenInt, WrittenFloat)):
        return str(value)
    if isinstance(value, str):
        try:
            if parse(value) == value:
                return value
        except UsageError:  # it must be quoted
            pass
    # JSON, but for characters beyond 16 bits, which JSON writes as two
    return re.sub(r"\\ud[89ab]..\\ud[c-f]..", _one_escape, json.dumps(value))


def _one_escape(pair: re.Match) -> str:
    character = json.loads(f'"{pair[0]}"')
    return f"\\U{ord(character):08x}"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser under the rules of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        said = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:  # what is taken over from elsewhere may be given again
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or isinstance(key, tuple):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in said:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {str(key)!r} is given twice", key_node.start_mark
                )
            said.add(key)
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        return _written(int, WrittenInt, node.value)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        named = {"inf": "inf", "nan": "nan"}.get(node.value[-3:].lower())
        if named:
            return float(named) * (-1 if node.value.startswith("-") else 1)
        return _written(float, WrittenFloat, node.value)

    def construct_other(self, node: yaml.Node) -> Any:
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not known", node.start_mark)


def _refuse_circles(value: Any, above: tuple[int, ...] = ()) -> None:
    """Refuse an alias that contains itself: reading it would never end."""
    if isinstance(value, (dict, list)):
        if id(value) in above:
            raise yaml.YAMLError("an alias leads to what it stands in")
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_circles(item, (*above, id(value)))


def _written(kind: type, remembering: type, text: str) -> Any:
    """``text`` as a number of ``kind``, which remembers the text if Python would write it differently."""
    try:
        number = kind(text)
    except ValueError:  # tagged by hand, or thousands of digits
        raise yaml.YAMLError(f"{text[:40]!r} is not a number") from None
    if str(number) == text:
        return number
    kept = remembering(number)
    kept.written = text
    return kept


_MERGE = "tag:yaml.org,2002:merge"
_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    "merge": (r"<<", ["<"]),
}
for _name, (_pattern, _first) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)
for _name in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", getattr(_Loader, f"construct_{_name}"))
for _name in ("timestamp", "binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _Loader.construct_other)
