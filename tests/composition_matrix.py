"""What may meet in a run, as a matrix in the documents.

``python tests/composition_matrix.py`` looks at every pair, trains the methods in both orders (minutes), and writes the
matrix into research/hooks/README.md.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from pathlib import Path

from composition import MASKS, MEMBERS, METHODS, PAIRS, SUBSTITUTES, ended, refusal, registered, same

README = Path(__file__).parent.parent / "research" / "hooks" / "README.md"
REWRITE = "the matrix is another now: `python tests/composition_matrix.py` writes it"
BEGIN, END = "<!-- composition: what follows is written by tests/composition_matrix.py -->", "<!-- composition: end -->"
LABEL = 19  # characters before the first column

Pair = tuple[str, str]


def refusals(pairs: Iterable[Pair] = PAIRS) -> dict[Pair, str]:
    """Those of ``pairs`` that are refused before a run is made -> why."""
    return {pair: why for pair in pairs if (why := refusal(pair))}


def differing_orders(folder: Path) -> set[Pair]:
    """The methods that end in another state when they are listed the other way round."""
    pairs = [pair for pair in combinations(METHODS, 2) if not set(pair) <= set(MASKS)]
    return {pair for pair in pairs if not commute(pair, folder)}


def commute(pair: Pair, folder: Path) -> bool:
    """Whether two methods in both orders end in the same bits."""
    with contextlib.redirect_stdout(io.StringIO()):
        one, other = (ended(members, folder).state for members in (pair, pair[::-1]))
    return same(one, other)


def differing(shown: Mapping[Pair, str]) -> set[Pair]:
    """The pairs that are shown not to commute."""
    return {pair for pair, symbol in shown.items() if symbol == "<"}


def section(refused: Mapping[Pair, str], differing: Collection[Pair]) -> str:
    """The matrix and the reasons, as they stand in the documents."""
    counted = f"{len(PAIRS)} pairs: {len(PAIRS) - len(refused)} hold, {len(refused)} are refused"
    return f"{BEGIN}\n{counted}.\n\n```text\n{matrix(refused, differing)}```\n\n{reasons(refused)}{END}"


def matrix(refused: Mapping[Pair, str], differing: Collection[Pair]) -> str:
    """A row and a column for each member; above the diagonal it would say the same once more."""
    names = list(MEMBERS)
    symbols = dict.fromkeys(PAIRS, "+") | dict.fromkeys(refused, "-") | dict.fromkeys(differing, "<")
    tens, units = (" ".join(digit) for digit in zip(*(f"{i:2}" for i in range(1, len(names) + 1)), strict=True))
    lines = [f"{'':{LABEL}}{digits}".rstrip() for digits in (tens, units)]
    for i, name in enumerate(names):
        cells = " ".join([*(symbols.get((other, name), ".") for other in names[:i]), "+"])
        lines.append(f"{i + 1:2} {name:{LABEL - 3}}{cells}")
    return "\n".join(lines) + "\n"


def read_matrix(document: str) -> dict[Pair, str]:
    """The symbol of every pair in the matrix of a document."""
    block = document.partition(BEGIN)[2].partition("```text\n")[2].partition("```")[0]
    rows = [(line[3:LABEL].strip(), line[LABEL::2]) for line in block.splitlines()[2:]]
    names = [name for name, _ in rows]
    return {(other, name): symbol for name, cells in rows for other, symbol in zip(names, cells[:-1], strict=False)}


def reasons(refused: Mapping[Pair, str]) -> str:
    """A table of what is refused and why, a row for each reason."""
    groups: dict[str, list[Pair]] = {}
    for pair, why in refused.items():
        groups.setdefault(in_general(why), []).append(pair)
    rows = [f"| {who(pairs)} | {why} |\n" for why, pairs in groups.items()]
    return "| refused | because |\n| --- | --- |\n" + "".join(rows)


def in_general(why: str) -> str:
    """A reason without what is particular to one pair: ``both decide the masks``."""
    return re.sub(r"\(.*\)", "", why).split(": ")[-1].strip()


def who(pairs: Collection[Pair]) -> str:
    """The pairs in words."""
    members = [name for name in MEMBERS if any(name in pair for pair in pairs)]
    common = set.intersection(*map(set, pairs))
    if len(pairs) == 1 or not common:
        assert len(pairs) == len(list(combinations(members, 2)))
        return "any two of " + listed(members)
    (one,) = common
    return f"`{one}` with {listed([name for name in members if name != one])}"


def listed(names: Collection[str]) -> str:
    """``names`` in backticks, all methods or substitutes together as such."""
    for kind, own in (("any method", METHODS), ("any substitute", SUBSTITUTES)):
        if names and set(own) == set(names):
            return kind
    return " ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    with registered(), tempfile.TemporaryDirectory() as folder:
        written = section(refusals(), differing_orders(Path(folder)))
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + written + rest.partition(END)[2])
