"""Where a person sees the output: in a notebook, a terminal, or a plain text stream."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm


def output_kind() -> str:
    """Where output goes: ``"notebook"`` (JupyterLab and the like), ``"terminal"``, or ``"text"`` (papermill, files)."""
    if "ipykernel" in sys.modules:
        # set by Jupyter servers for the kernels of their sessions; papermill starts kernels without it
        return "notebook" if "JPY_SESSION_NAME" in os.environ and "RESEARCH_HEADLESS" not in os.environ else "text"
    return "terminal" if sys.stderr.isatty() else "text"


def bar_interval() -> float:
    """Seconds between redraws of a bar; long where a redraw prints a new line."""
    return 20.0 if output_kind() == "text" else 0.2


def bar_class() -> type[tqdm]:
    """The bar that suits where output goes: a widget in a notebook that somebody watches, else text."""
    if output_kind() == "notebook":
        from tqdm.notebook import tqdm as widget  # imports IPython

        return widget
    return tqdm
