"""Run a notebook through papermill, with its parameters checked before a kernel starts and nothing left behind after.

Papermill only warns of unknown parameters, turns tuples into text and cannot be interrupted; see :func:`execute`.
"""

from __future__ import annotations

import ast
import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from research.config import Config
from research.config.config import restated
from research.errors import Failure, UsageError, nearest
from research.files import write_new
from research.notebooks.page import page_of
from research.notebooks.workbench import SHIPPED
from research.parameters import yaml_1_2
from research.parameters.signatures import convert
from research.runs.paths import RunPaths, home_of

__all__ = ["NotebookError", "enter_project", "execute", "find", "read_parameters", "trained_by", "trains"]

SETTINGS = "settings"  # a notebook with this parameter trains: what its other parameters do not name goes in here
TRACEBACK_LINES = 20


class NotebookError(Failure):
    """A cell failed, or the kernel died. The message ends with where the notebook, error visible, is kept."""


def execute(
    notebook: str | Path,
    parameters: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    progress: bool = True,
    html: bool = False,
) -> Path:
    """Run ``notebook`` (``train``, ``analysis/curves`` or a path) with this interpreter and return the finished copy.

    Parameters that the notebook does not name but Config knows go into its ``settings``. The copy appears only when
    finished, at ``output`` or ``runs/<run>/notebook.ipynb`` (training) or ``runs/analysis/<notebook>-<time>.ipynb``,
    and replaces nothing; a failed one is kept as ``…-failed.ipynb``. With ``progress``, what cells print is shown live;
    with ``html`` there is a page of the same name beside the finished copy.

    Raises:
        UsageError: no such notebook, no parameters cell, a parameter that is unknown, of the wrong type or impossible
            to pass: before anything starts. Or a cell raised one: then no copy is kept.
        NotebookError: a cell failed otherwise.
        KeyboardInterrupt: this process got SIGINT or SIGTERM; the kernel and everything below it has ended.
    """
    source = find(notebook)
    name = source.stem
    given, config = _check(name, read_parameters(source), parameters or {})
    if output is None:
        output = _default_output(name, given, config)
    elif Path(output).exists():
        raise UsageError(f"{output} exists and is not overwritten; choose another output")
    output = Path(output).resolve()
    # beside the run, not in it: a run that could not start must leave no folder
    place = next(folder for folder in output.parents if folder.is_dir())
    temporary = place / f".{name}-{os.getpid()}.ipynb"
    try:
        _execute(source, temporary, given, progress)
        kept = _keep(temporary, output.with_suffix(""))
        if html:
            page = page_of(kept, output.parent.name if config else output.stem, source.parent)
            write_new(kept.with_suffix(""), {".html": page.encode()})
        return kept
    except NotebookError as error:
        home = output.parent if config is None or output.parent.is_dir() else place
        raise NotebookError(f"{error}\nnotebook kept as {_keep(temporary, home / f'{output.stem}-failed')}") from None
    except KeyboardInterrupt:
        if output.parent.is_dir() and temporary.exists():
            _keep(temporary, output.with_name(f"{output.stem}-interrupted"))
        raise
    finally:
        temporary.unlink(missing_ok=True)


def find(notebook: str | Path) -> Path:
    """The file of a notebook: a path, or a name under ``notebooks`` of this folder or of the package."""
    folders = [Path("notebooks"), SHIPPED]
    for path in (Path(notebook), *(folder / notebook for folder in folders)):
        for candidate in (path, path.with_name(f"{path.name}.ipynb")) if path.name else ():
            if candidate.suffix == ".ipynb" and os.path.isfile(candidate):
                return candidate.resolve()
    known = {
        p.relative_to(folder).with_suffix("").as_posix() for folder in folders for p in folder.rglob("[!.]*.ipynb")
    }
    raise UsageError(f"no notebook {str(notebook)!r}{nearest(str(notebook), known)}")


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values in the notebook's cell tagged ``parameters``.

    Raises:
        UsageError: no such cell (papermill would put values on top, where later cells overwrite them).
    """
    nbformat = _nbformat()
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except Exception as error:  # nbformat's own errors share no base class
        raise UsageError(f"{notebook} is not a notebook: {error}") from None
    tagged = [c.source for c in cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", ())]
    if not tagged:
        raise UsageError(f"{notebook} has no cell tagged 'parameters'; tag the cell that assigns them")
    found = {}
    try:
        for statement in ast.parse(tagged[0]).body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            found |= dict.fromkeys(names, ast.literal_eval(statement.value) if names else None)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{notebook}: the parameters cell may hold only name = literal value ({error})") from None
    return found


def trains(notebook: str | Path) -> bool:
    """Whether ``notebook`` trains a run.

    Raises:
        UsageError: as :func:`read_parameters`, or there is no such notebook.
    """
    return SETTINGS in read_parameters(find(notebook))


def trained_by(notebook: str | Path, parameters: Mapping[str, Any]) -> Config | None:
    """The run that ``notebook`` would train with ``parameters``; none when it trains none.

    Raises:
        UsageError: as :func:`execute` does before anything starts.
    """
    source = find(notebook)
    return _check(source.stem, read_parameters(source), parameters)[1]


def enter_project() -> None:
    """Change to the project's folder, because JupyterLab starts a kernel in the notebook's folder."""
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)
    if "RESEARCH_HEADLESS" not in os.environ:
        os.chdir(project)


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


def _check(name: str, declared: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[dict[str, Any], Config | None]:
    """The parameters to inject, and the Config of a training notebook."""
    problems, given, rest = [], {}, {}
    for key, value in asked.items():
        try:
            value = _plain(key, value)
        except UsageError as error:
            problems.append(str(error))
            continue
        if key not in declared and SETTINGS not in declared:
            problems.append(f"notebook {name} has no parameter {key!r}{nearest(key, declared)}")
        elif key not in declared:
            rest[key] = value
        elif declared[key] is None or value is None:
            given[key] = value
        else:
            given[key], problem = convert(value, type(declared[key]))
            problems += [f"{key}={value!r}: {problem}"] if problem else []
    if problems:
        raise UsageError("\n".join(problems))
    if SETTINGS not in declared:
        return {key: _passed(key, value, None) for key, value in given.items()}, None
    fields = Config.parameters()
    settings = {**declared[SETTINGS], **given.pop(SETTINGS, {}), **rest}
    chosen = {k: v for k, v in {**declared, **given}.items() if k in fields and v is not None}
    if doubled := given.keys() & settings.keys():
        raise UsageError("\n".join(f"{key}: is given twice, once in {SETTINGS}" for key in sorted(doubled)))
    config = Config.load({**chosen, **settings})
    given = {key: _passed(key, value, config) for key, value in given.items()}
    return given | {SETTINGS: {key: _passed(key, value, config) for key, value in settings.items()}}, config


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


def _default_output(name: str, given: Mapping[str, Any], config: Config | None) -> Path:
    if config is not None:
        return RunPaths(home_of(config)).notebook
    runs = Path(given.get("runs", "runs"))
    one_or_some = RunPaths(runs).config.exists() or set("*?[") & set(runs.name)  # a run, or a pattern of runs
    folder = runs.parent if one_or_some else runs
    return folder / "analysis" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.ipynb"


def _keep(temporary: Path, stem: Path) -> Path:
    free = write_new(stem, {".ipynb": temporary.read_bytes()})
    return free.with_name(f"{free.name}.ipynb")


def _execute(source: Path, output: Path, parameters: Mapping[str, Any], progress: bool) -> None:
    """Papermill, with errors as this package words them."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    from research.notebooks.kernel import Kernel  # jupyter takes a second

    # it reads a parameters cell by regular expressions and warns of names it missed; ours were checked
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with Kernel() as kernel:
        try:
            papermill.execute_notebook(
                source,
                output,
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=sys.stdout if progress else None,
                stderr_file=sys.stderr if progress else None,
                km=kernel.manager,
                on_cell_start=kernel.stop_if_interrupted,
            )
        except papermill.PapermillExecutionError as error:
            kernel.stop_if_interrupted()
            if error.ename == "UsageError":
                raise UsageError(restated(error.evalue, parameters)) from None
            if error.ename == "KeyboardInterrupt":  # training was told to stop from elsewhere
                raise KeyboardInterrupt(error.evalue) from None
            lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
            told = "\n".join(lines[-TRACEBACK_LINES:])
            raise NotebookError(f"cell [{error.exec_count}] of {source.name} failed\n{told}") from None
        except DeadKernelError:
            kernel.stop_if_interrupted()
            raise NotebookError(f"the kernel of {source.name} was killed; out of memory?") from None
