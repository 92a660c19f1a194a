"""Run a notebook through papermill, with its parameters checked before a kernel starts and nothing left behind after.

Papermill only warns of unknown parameters, turns tuples into text and cannot be interrupted; see :func:`execute`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.config import Config
from research.config.config import restated
from research.errors import Failure, UsageError, nearest
from research.files import write_new
from research.notebooks.page import page_of
from research.notebooks.parameters import SETTINGS, checked, declared, read_parameters, refuse_undeclared
from research.notebooks.workbench import SHIPPED
from research.runs.paths import RunPaths, home_of

__all__ = ["NotebookError", "enter_project", "execute", "find", "read_parameters", "trained_by", "trains"]

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
        UsageError: before anything starts: no such notebook, one of another language than Python, a parameter that is
            unknown, of the wrong type or impossible to pass, or no parameters cell for it. Or a cell raised one: then
            no copy is kept.
        NotebookError: a cell failed otherwise.
        KeyboardInterrupt: this process got SIGINT or SIGTERM; the kernel and everything below it has ended.
    """
    source = find(notebook)
    name = source.stem
    given, config = checked(source, parameters or {})
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


def trains(notebook: str | Path) -> bool:
    """Whether ``notebook`` trains a run.

    Raises:
        UsageError: there is no such notebook, or it cannot be read.
    """
    return SETTINGS in (declared(find(notebook)) or ())


def trained_by(notebook: str | Path, parameters: Mapping[str, Any]) -> Config | None:
    """The run that ``notebook`` would train with ``parameters``; none when it trains none.

    Raises:
        UsageError: as :func:`execute` does before anything starts.
    """
    return checked(find(notebook), parameters)[1]


def enter_project() -> None:
    """Begin a notebook: in the project's folder, and with the parameters that it declares.

    JupyterLab starts a kernel in the notebook's folder, and papermill only warns of parameters that it does not know.

    Raises:
        UsageError: papermill put parameters into the notebook that its parameters cell does not assign.
    """
    refuse_undeclared()
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)
    if "RESEARCH_HEADLESS" not in os.environ:
        os.chdir(project)


def _default_output(name: str, given: Mapping[str, Any], config: Config | None) -> Path:
    if config is not None:
        return RunPaths(home_of(config)).notebook
    runs = Path(given.get("runs") or "runs")
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
