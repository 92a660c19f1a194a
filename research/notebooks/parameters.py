"""The parameters of a notebook: what its cell tagged ``parameters`` declares, and what is given, checked against that.

A declaration is an assignment, with its type or without: ``epochs: Optional[int] = None``. Papermill reads types by a
regular expression that knows no ``|``, and passes by what it does not match.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from research.config import Config
from research.errors import UsageError, nearest
from research.parameters import yaml_1_2
from research.parameters.signatures import Parameter, convert

SETTINGS = "settings"  # a notebook with this parameter trains: what its other parameters do not name goes in here
TYPES = {each.__name__: each for each in (bool, int, float, str, list, dict, tuple)}
TYPES |= {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)  # a line for IPython, not for Python
INJECTED = "# Parameters\n"  # how a cell begins in which papermill puts what it was given


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values in the notebook's cell tagged ``parameters``; None where a default is no literal.

    Raises:
        UsageError: as :func:`declared`, or there is no such cell.
    """
    if (known := declared(notebook)) is None:
        raise _untagged(notebook)
    return {name: parameter.default for name, parameter in known.items()}


def declared(notebook: Path) -> dict[str, Parameter] | None:
    """What the notebook's cell tagged ``parameters`` declares, by name; None when no cell is tagged.

    Raises:
        UsageError: it is no notebook, one of another language than Python, or the cell cannot be parsed.
    """
    try:
        content = _nbformat().read(notebook, as_version=4)
    except Exception as error:  # nbformat's own errors share no base class
        raise UsageError(f"{notebook} is not a notebook: {error}") from None
    kernel, told = content.metadata.get("kernelspec", {}), content.metadata.get("language_info", {})
    language = told.get("name") or kernel.get("language") or "python"
    if not re.match(r"i?python", language, re.IGNORECASE):
        raise UsageError(f"{notebook} is written in {language}; notebooks run with the Python that runs research")
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    if not tagged:
        return None
    try:
        return declarations(tagged[0])
    except SyntaxError as error:
        raise UsageError(f"{notebook}: the parameters cell cannot be read as Python: {error}") from None


def declarations(source: str) -> dict[str, Parameter]:
    """The names that a cell assigns, with their types and defaults; where these are not told, Any and None.

    Raises:
        SyntaxError: it is no Python, magics left out.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        statements = ast.parse(MAGIC.sub("", source)).body
    found = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets, annotation = statement.targets, None
        elif isinstance(statement, ast.AnnAssign):
            targets, annotation = [statement.target], statement.annotation
        else:
            continue
        default = _literal(statement.value)
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            found[name] = Parameter(name, _type(annotation, default), default, required=False)
    return found


def checked(notebook: Path, asked: Mapping[str, Any]) -> tuple[dict[str, Any], Config | None]:
    """What to inject into ``notebook`` when it is ``asked`` with these parameters, and the Config of one that trains.

    Raises:
        UsageError: as :func:`declared`; or every parameter that is unknown, of the wrong type or impossible to pass.
    """
    if (known := declared(notebook)) is None:
        if asked:
            raise _untagged(notebook)
        return {}, None
    fields = Config.parameters() if SETTINGS in known else {}
    problems, given, rest = [], {}, {}
    for key, value in asked.items():
        try:
            value = _plain(key, value)
        except UsageError as error:
            problems.append(str(error))
            continue
        if key not in known and not fields:
            problems.append(f"notebook {notebook.stem} has no parameter {key!r}{nearest(key, known)}")
        elif key not in known:
            rest[key] = value
        elif key in fields or value is None:  # a Config knows more of it than its type
            given[key] = value
        else:
            converted, problem = convert(value, known[key].annotation)
            given[key] = _lists(converted)
            problems += [f"{key}={value!r}: {problem}"] if problem else []
    if problems:
        raise UsageError("\n".join(problems))
    if not fields:
        return {key: _passed(key, value, None) for key, value in given.items()}, None
    return _of_training({key: parameter.default for key, parameter in known.items()}, given, rest)


def _of_training(
    defaults: Mapping[str, Any], given: dict[str, Any], rest: Mapping[str, Any]
) -> tuple[dict[str, Any], Config]:
    """What to inject into a notebook that trains, which does not name the parameters in ``rest``; and its Config."""
    settings = {**(defaults[SETTINGS] or {}), **given.pop(SETTINGS, {}), **rest}
    chosen = {k: v for k, v in {**defaults, **given}.items() if k in Config.parameters() and v is not None}
    if doubled := given.keys() & settings.keys():
        raise UsageError("\n".join(f"{key}: is given twice, once in {SETTINGS}" for key in sorted(doubled)))
    config = Config.load({**chosen, **settings})
    given = {key: _passed(key, value, config) for key, value in given.items()}
    return given | {SETTINGS: {key: _passed(key, value, config) for key, value in settings.items()}}, config


def refuse_undeclared() -> None:
    """In a kernel: refuse what papermill injected although the parameters cell before does not assign it.

    Papermill itself only warns. Looked at are the two cells that ran before this one.

    Raises:
        UsageError: a line for each such name, with the nearest of the notebook's own.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    ran = shell.user_ns.get("In", []) if shell else []
    before, injected, _ = ["", "", "", *ran][-3:]
    if injected.startswith(INJECTED):
        known = declarations(before)
        unknown = declarations(injected).keys() - known.keys()
        if unknown:
            lines = [f"this notebook has no parameter {name!r}{nearest(name, known)}" for name in sorted(unknown)]
            raise UsageError("\n".join(lines))


def _untagged(notebook: Path) -> UsageError:
    """Papermill would put values on top, where later cells overwrite them."""
    return UsageError(f"{notebook} has no cell tagged 'parameters'; tag the cell that assigns them")


def _literal(value: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):
        return None


def _type(annotation: ast.expr | None, default: Any) -> Any:
    """What values a parameter may have: by its annotation, else by its default."""
    if annotation is None:
        return Any if default is None else type(default)
    try:
        return eval(ast.unparse(annotation), {"__builtins__": TYPES})
    except Exception:  # it may say what only the notebook knows
        return Any


def _nbformat() -> ModuleType:
    """nbformat, without the grammar of web addresses that jsonschema would make for a second: no notebook has any."""
    grammar = "rfc3987_syntax"
    if grammar in sys.modules:
        return importlib.import_module("nbformat")
    sys.modules[grammar] = None  # as if that optional package were not installed
    try:
        return importlib.import_module("nbformat")
    finally:
        del sys.modules[grammar]


def _plain(name: str, value: Any) -> Any:
    """``value`` in the types that papermill can pass: none, bool, number, text, and lists and mappings of them."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if hasattr(value, "item") else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list):
        return [_plain(f"{name}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {key: _plain(f"{name}.{key}", item) for key, item in value.items()}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # NumPy scalars
        return value.item()
    remedy = "give a list" if isinstance(value, (tuple, set)) else "give none, bool, number, text, list or mapping"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    raise UsageError(f"{name}={value!r}: {article} {kind} cannot be passed to a notebook; {remedy}")


def _lists(value: Any) -> Any:
    """``value`` with lists for tuples, which papermill would write as text."""
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _passed(name: str, value: Any, config: Config | None) -> Any:
    """``value`` as papermill writes it into a notebook, which knows no text of numbers and takes every key for text.

    Raises:
        UsageError: a mapping has keys that are no text.
    """
    if config is not None:
        head, _, rest = name.partition(".")
        used = config.hooks.get(head, {}).get(rest) if rest else vars(config).get(name)
        if isinstance(used, str):
            return str(used)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"{name}={dict(value)!r}: a notebook takes text before the values, not {key!r}")
    return yaml_1_2.plain(value)
