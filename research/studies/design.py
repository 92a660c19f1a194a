"""What a study decides before it runs: the comparisons it is made for, fresh seeds that confirm them, what is tuned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from research.errors import nearest
from research.parameters.signatures import check_arguments

if TYPE_CHECKING:
    from research.studies.study import Study

ARM = "arm:"  # begins the value of a parameter that is to be a run of the study
CONFIRM = "confirm"  # first word of the runs that confirm, so that `runs/STUDY-*` holds the first result alone
SELECT = "select"  # and of those that choose


@dataclass(frozen=True)
class Select:
    """How each arm gets its own value of a parameter, such as its learning rate."""

    over: Annotated[str, "the parameter"]
    values: Annotated[tuple[Any, ...], "what is tried"]
    on: Annotated[Mapping, "{holdout: N}, the training images that decide and that these runs do not train on"]
    seeds: Annotated[tuple[int, ...], "of the runs that choose; none of `seeds`"] = (1000,)

    @property
    def holdout(self) -> int:
        return self.on["holdout"]


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

    if study.select:
        yield from _problems_of_select(study)


def _problems_of_select(study: Study) -> Iterator[str]:
    values, problems = check_arguments("select.", Select, study.select)
    yield from problems
    if problems:
        return
    select = Select(**values)
    images = select.on.get("holdout")
    if set(select.on) != {"holdout"} or type(images) is not int or images < 1:
        yield f"select.on={dict(select.on)!r}: expected {{holdout: N}}, a number of training images"
    if len(select.values) < 2 or len(set(map(repr, select.values))) < len(select.values):
        yield f"select.values={list(select.values)}: expected several values, each once"
    if select.over in study.grid:
        yield f"select.over={select.over!r}: the grid decides it"
    if select.over == "seed":
        yield "select.over='seed': a seed is not chosen"
    if not select.seeds:
        yield "select.seeds=[]: expected a seed or more"
    if used := sorted(set(select.seeds) & {*study.seeds, *study.confirm_seeds}):
        yield f"select.seeds={list(select.seeds)}: {used} stand in another list too; the choice has seeds of its own"


def unknown_arms(study: Study, arms: Iterable[str]) -> Iterator[str]:
    """A line for each name, in ``contrasts`` or as what a run starts from, that is none of the ``arms``."""
    known = list(dict.fromkeys(arms))
    named = [("contrasts", name) for pair in study.contrasts for name in pair]
    for alternative in study.runs.values() if isinstance(study.runs, Mapping) else study.runs:
        named += [(key, arm_of(value)) for key, value in alternative.items() if arm_of(value)]
    for where, name in dict.fromkeys(named):
        if name not in known:
            yield f"{where}: {name!r} is no arm of this study{nearest(name, known)}"


def arm_of(value: Any) -> str:
    """The arm NAME of a parameter's value ``"arm:NAME"``, the run of that arm with the same seed; else empty."""
    return value.removeprefix(ARM) if isinstance(value, str) and value.startswith(ARM) else ""
