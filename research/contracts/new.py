"""A method, network or layer of one's own, begun: a file that works, and its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from research.errors import UsageError, nearest
from research.files import write_atomic
from research.plugins.registries import REGISTRIES, is_taken

KINDS = {"hook": "HOOKS", "model": "MODELS", "layer": "LAYERS"}
SKELETONS = Path(__file__).with_name("skeletons")


def begin(kind: str, name: str, folder: Path) -> list[Path]:
    """Write ``NAME.py`` and ``test_NAME.py`` of a ``kind`` of ``KINDS`` into ``folder``; the paths of both.

    Raises:
        UsageError: a name that Python or this package has already, or a file of that name.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r}: expected {', '.join(KINDS)}{nearest(kind, KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r}: small letters, digits and _ make the name of a file that Python can import")
    if is_taken(KINDS[kind], name):
        raise UsageError(f"{name!r}: the package has a {REGISTRIES[KINDS[kind]].what} of this name; choose another")
    made = {folder / f"{name}.py": f"{kind}.py", folder / f"test_{name}.py": f"test_{kind}.py"}
    if there := [path for path in made if path.exists() or path.is_symlink()]:
        raise UsageError(f"{there[0]}: is there already, and is not overwritten; choose another name")
    title = "".join(word.capitalize() for word in name.split("_"))
    for path, skeleton in made.items():
        text = (SKELETONS / skeleton).read_text()
        write_atomic(path, text.replace("my_method", name).replace("MyMethod", title))
    return list(made)
