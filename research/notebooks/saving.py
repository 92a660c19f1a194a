"""What a Jupyter server leaves out of the notebooks that it saves; ``make lab`` names this to its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def without_version(model: Mapping[str, Any], **_: object) -> None:
    """Take the version of Python out of a notebook that is about to be saved.

    JupyterLab puts it into every notebook that it opens, which would be a change to git without anybody's doing.
    """
    if model["type"] == "notebook":
        model["content"]["metadata"].get("language_info", {}).pop("version", None)
