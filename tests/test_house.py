"""The house: a room imports only what stands below it, the loop names no method, files keep to a size that is read."""

import ast

import pytest
from conftest import REPOSITORY
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOMS = sorted(path.parent for path in (REPOSITORY / "research").rglob("__init__.py"))


def test_imports_go_one_way(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_a_room_is_seen_at_a_glance(room):
    files = [path for path in room.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= 16, sorted(path.name for path in files)
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), "what the room is for"


def test_imports_inside_functions_say_why():
    """They keep start-up light or leave out what may be missing; none dodges a circle (cli/ says so once)."""
    unexplained = []
    for path in (REPOSITORY / "research").rglob("*.py"):
        text = path.read_text()
        lines = text.splitlines()
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        late = {
            n.lineno: n.module for f in functions for n in ast.walk(f) if isinstance(n, ast.ImportFrom) and n.module
        }
        own = sorted(number for number, module in late.items() if module.startswith("research"))
        for number in own:  # the first of a block speaks for all
            explained = "#" in lines[number - 1] or "#" in lines[number - 2] or number - 1 in own
            if not explained and path.parent.name != "cli":
                unexplained.append(f"{path.relative_to(REPOSITORY)}:{number}")
    assert unexplained == []
