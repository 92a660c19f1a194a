"""What a study decides before it runs: the comparisons it is made for, and fresh seeds that confirm them once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from research.errors import nearest

if TYPE_CHECKING:
    from research.studies.study import Study

CONFIRM = "confirm"  # first word of the runs that confirm, so that `runs/STUDY-*` holds the first result alone


def problems_of_design(study: Study) -> Iterator[str]:
    """A line for each of ``contrasts`` and ``confirm_seeds`` that cannot be meant, whatever the arms are called."""
    for pair in study.contrasts:
        if pair[0] == pair[1]:
            yield f"contrasts: {list(pair)}: an arm cannot differ from itself"
        if study.contrasts.count(pair) + study.contrasts.count(pair[::-1]) > 1:
            yield f"contrasts: {sorted(pair)}: this comparison is named twice"
    if study.confirm_seeds and not study.contrasts:
        yield f"confirm_seeds={list(study.confirm_seeds)}: there is nothing to confirm; name contrasts"
    if used := sorted(set(study.confirm_seeds) & set(study.seeds)):
        yield f"confirm_seeds={list(study.confirm_seeds)}: {used} stand in seeds too; only fresh seeds confirm"


def unknown_arms(study: Study, arms: Iterable[str]) -> Iterator[str]:
    """A line for each name in ``contrasts`` that is none of the ``arms``."""
    known = list(dict.fromkeys(arms))
    for name in dict.fromkeys(name for pair in study.contrasts for name in pair):
        if name not in known:
            yield f"contrasts: {name!r} is no arm of this study{nearest(name, known)}"
