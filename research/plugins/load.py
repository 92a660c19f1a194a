"""A plugin executed and looked at: what it registers, with the line of each."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from research.errors import UsageError
from research.plugins.registries import REGISTRIES, is_taken
from research.plugins.source import Source, find


@dataclass(frozen=True)
class Plugin:
    """An executed plugin; ``registered`` has what it adds to each registry, by the registry's name."""

    source: Source
    module: ModuleType
    registered: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@cache  # a word stands for one content
def load(words: tuple[str, ...]) -> tuple[Plugin, ...]:
    """The plugins of these ``words``, executed in their order; a later one may import an earlier one by its name.

    Raises:
        UsageError: one cannot be executed, or registers what it must not; a line for each problem, with file and line.
    """
    done: list[Plugin] = []
    for word in words:
        plugin = _executed(find(word), done)
        problems = list(problems_of(plugin, done))
        if problems:
            raise UsageError("\n".join(problems))
        done.append(plugin)
    if done and not any(names for plugin in done for names in plugin.registered.values()):
        raise UsageError(
            f"{done[-1].source.path}: registers nothing; give it HOOKS = {{'name': Method}}, or {_kinds()}"
        )
    return tuple(done)


def problems_of(plugin: Plugin, before: Sequence[Plugin]) -> Iterator[str]:
    """Why what ``plugin`` registers cannot stand beside the package and the plugins ``before`` it."""
    for kind, names in plugin.registered.items():
        for name, entry in names.items():
            at = f"{plugin.source.path}:{line_of(plugin.source, kind, name)}: {kind}[{name!r}]"
            others = [other for other in before if name in other.registered[kind]]
            if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name):
                yield f"{at}: letters, digits and ._+- make a name"
            elif is_taken(kind, name):
                yield f"{at}: the package has a {REGISTRIES[kind].what} of this name; choose another"
            elif others:
                yield f"{at}: {others[0].source.name} has a {REGISTRIES[kind].what} of this name; choose another"
            elif reason := REGISTRIES[kind].refuse(name, entry):
                yield f"{at}: {reason}"


def line_of(source: Source, kind: str, name: str) -> int:
    """The line of ``source`` where ``kind`` gets its entry ``name``; where ``kind`` is assigned, or 1."""
    found = 1
    for node in ast.walk(ast.parse(source.content)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == kind for target in targets):
            keys = node.value.keys if isinstance(node.value, ast.Dict) else ()
            found = next((k.lineno for k in keys if isinstance(k, ast.Constant) and k.value == name), node.lineno)
    return found


def _kinds() -> str:
    *most, last = [kind for kind in REGISTRIES if kind != "HOOKS"]
    return f"{', '.join(most)} or {last}"


def _executed(source: Source, before: Sequence[Plugin]) -> Plugin:
    """``source`` as a module of a name that only this content has, beside the plugins ``before`` it."""
    try:
        tree = ast.parse(source.content, str(source.path))
    except (SyntaxError, ValueError) as error:  # a null byte is a ValueError
        raise UsageError(f"{source.path}:{getattr(error, 'lineno', None) or 1}: {error.args[0]}") from None
    beside = {Path(other.source.name).stem: other.module for other in before}
    if loose := list(_loose_imports(tree, source, beside)):
        raise UsageError("\n".join(loose))
    company = hashlib.blake2b("".join(o.source.word for o in before).encode() + source.content, digest_size=8)
    module = ModuleType(f"{re.sub(r'[^A-Za-z0-9_]', '_', Path(source.name).stem)}_{company.hexdigest()}")
    module.__file__ = str(source.path)
    own = {kind: dict(registry.known) for kind, registry in REGISTRIES.items()}
    sys.modules[module.__name__] = module  # annotations are looked up there
    try:
        with _importable(beside):
            exec(compile(tree, str(source.path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[module.__name__]
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__
        ]
        told = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"{source.path}:{lines[-1] if lines else 1}: {told.splitlines()[0]}") from error
    finally:
        changed = [kind for kind, registry in REGISTRIES.items() if registry.known != own[kind]]
        for kind in changed:
            REGISTRIES[kind].known.clear(), REGISTRIES[kind].known.update(own[kind])
    if changed:
        raise UsageError(
            f"{source.path}: changes the {changed[0]} of the package, which every run shares; give it {changed[0]} = "
            "{…} of its own"
        )
    return Plugin(source, module, {kind: _declared(module, kind, source) for kind in REGISTRIES})


def _declared(module: ModuleType, kind: str, source: Source) -> Mapping[str, Any]:
    """What ``module`` registers as ``kind``; the package's own registry, imported to be looked at, does not count."""
    declared = vars(module).get(kind, {})
    if declared is REGISTRIES[kind].known:
        return {}
    if not isinstance(declared, Mapping):
        raise UsageError(f"{source.path}:{line_of(source, kind, '')}: {kind}: expected a dict of names")
    return declared


def _loose_imports(tree: ast.Module, source: Source, beside: Mapping[str, ModuleType]) -> Iterator[str]:
    """A line for every import of a file that is neither installed nor a plugin, so that no run would keep it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{source.path}:{node.lineno}: a relative import; a plugin stands alone, and imports others by name"
            continue
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for full in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
            name = full.partition(".")[0]
            if name not in beside and (path := _loose(name)):
                remedy = f"give plugin=[{path.name}, {source.name}]" if path.suffix == ".py" else "install it"
                yield f"{source.path}:{node.lineno}: imports {name} ({path}), which no run would keep; {remedy}"


def _loose(name: str) -> Path | None:
    """The file or folder that ``import name`` would take, where it is neither Python's nor installed."""
    if name in sys.stdlib_module_names or name == "research":
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if not spec or not (spec.origin or spec.submodule_search_locations):
        return None
    path = Path(next(iter(spec.submodule_search_locations or [spec.origin])))
    places = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")]
    if any(path.is_relative_to(place) for place in places) or name in packages_distributions():
        return None
    return path


@contextmanager
def _importable(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """In this context ``import name`` finds these ``modules``."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
