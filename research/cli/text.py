"""What commands print: tables, parameters, durations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


def parameter_lines(prefix: str, parameters: Iterable[Any]) -> list[str]:
    """One line a parameter: how to type it, its default, type, limits and meaning."""
    return table_lines((), [
        (f"{prefix}{p.name}={default_text(p.default)}", f"{p.type_name} {p.limits}".strip(), p.help) for p in parameters
    ])  # fmt: skip


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print :func:`table_lines`."""
    for line in table_lines(header, rows):
        print(line)


def table_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Columns as wide as their longest cell."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(map(list, rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def blank_if_nan(number: float, show: Callable[[float], str]) -> str:
    """``show(number)``, or nothing for nan: not measured yet."""
    return "" if number != number else show(number)


def first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def default_text(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in ("", {}, ()) else str(list(default) if isinstance(default, tuple) else default)
