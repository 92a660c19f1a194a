"""Do methods add up? What several do together beside the sum of what each does alone, from the arms of one study.

An arm is called after its methods, joined by "+"; one arm, the base, has none. Effects are differences between arms,
seed by seed, so every row here is one of :func:`research.frames.comparison.compare`. Where every combination has an arm
(a full factorial design) the effect of a method and the interaction of two are means over all combinations of the
others, and every run counts for every one of them: Fisher, "The Design of Experiments" (1935), chapter VI.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

import pandas as pd

from research.errors import UsageError, nearest
from research.frames.comparison import compare

Methods = frozenset[str]
Arms = Mapping[Methods, pd.Series]  # the methods of an arm -> its values by seed; the base has none
Sides = Mapping[tuple[str, str], tuple[pd.Series, pd.Series]]  # names of both sides of a row -> their values by seed


def arms_by_methods(results: Mapping[str, pd.Series], base: str = "plain") -> Arms:
    """The arms of ``results`` (name -> values by seed) by their methods.

    Raises:
        UsageError: no arm is called ``base``, or two have the same methods.
    """
    if base not in results:
        raise UsageError(f"base={base!r}: no arm is called so{nearest(base, results)}")
    arms: dict[Methods, pd.Series] = {}
    for name, values in results.items():
        methods = frozenset() if name == base else frozenset(name.split("+"))
        if methods in arms:
            raise UsageError(f"{name!r}: another arm has the same methods")
        arms[methods] = values
    return arms


def added_up(arms: Arms, margin: float | None = None) -> pd.DataFrame:
    """A row for every arm of several methods that have arms of their own: its effect against the sum of theirs.

    ``mean`` is the effect of the arm beside the base, ``mean_against`` the sum, ``difference`` their interaction.
    """
    effects = {methods: values - arms[frozenset()] for methods, values in arms.items()}
    sides = {}
    for methods in effects:
        alone = {method: frozenset({method}) for method in _listed(arms) if method in methods}
        if len(alone) > 1 and effects.keys() >= set(alone.values()):
            sides["+".join(alone), " and ".join(alone)] = effects[methods], sum(effects[one] for one in alone.values())
    return _compared(sides, margin)


def main_effects(arms: Arms, margin: float | None = None) -> pd.DataFrame:
    """A row for every method: the arms with it against those without, on average over :func:`backgrounds`."""
    sides = {}
    for method in _listed(arms):
        if found := backgrounds(arms, {method}):
            sides[method, f"no {method}"] = _mean(arms[c | {method}] for c in found), _mean(arms[c] for c in found)
    return _compared(sides, margin)


def interactions(arms: Arms, margin: float | None = None) -> pd.DataFrame:
    """A row for every two methods: the effect of one with the other against its effect without, averaged likewise.

    ``difference`` is the interaction, which is the same whichever of the two is asked first.
    """
    sides = {}
    for one, other in combinations(_listed(arms), 2):
        if found := backgrounds(arms, {one, other}):
            effects = [[arms[c | {one} | also] - arms[c | also] for c in found] for also in ({other}, set())]
            sides[f"{one} with {other}", f"{one} without {other}"] = _mean(effects[0]), _mean(effects[1])
    return _compared(sides, margin)


def backgrounds(arms: Arms, methods: Collection[str]) -> list[Methods]:
    """The sets of other methods beside which every combination of ``methods`` has an arm."""
    subsets = [frozenset(chosen) for size in range(len(methods) + 1) for chosen in combinations(methods, size)]
    return [arm for arm in arms if not arm & set(methods) and all(arm | subset in arms for subset in subsets)]


def _listed(arms: Arms) -> list[str]:
    """The methods that have an arm of their own, in its order."""
    return [method for methods in arms if len(methods) == 1 for method in methods]


def _mean(values: Iterable[pd.Series]) -> pd.Series:
    """By seed; a seed that any of ``values`` lacks has none."""
    listed = list(values)
    return sum(listed) / len(listed)


def _compared(sides: Sides, margin: float | None) -> pd.DataFrame:
    results = {name: values for names, both in sides.items() for name, values in zip(names, both, strict=True)}
    return compare(results, sides, margin=margin)
