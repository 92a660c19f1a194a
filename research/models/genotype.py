"""Genotypes: what a cell of DARTS is made of, as the search writes it down (Liu et al., ICLR 2019).

A cell has two inputs, states 0 and 1, and nodes that are states 2, 3, …: a node is the sum of two operations, each on
an earlier state. The output is the concatenation of some states. There is one genotype for normal and one for
reduction cells, whose operations on the inputs have stride 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from research.errors import UsageError, nearest
from research.parameters.yaml_1_2 import parse

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


@dataclass(frozen=True)
class CellPlan:
    """One kind of cell: (operation, index of the state it is applied to), two a node; and the states put out."""

    operations: tuple[tuple[str, int], ...]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    normal: CellPlan
    reduce: CellPlan


GENOTYPES = {
    "DARTS_V2": {
        "normal": [
            ["sep_conv_3x3", 0],
            ["sep_conv_3x3", 1],
            ["sep_conv_3x3", 0],
            ["sep_conv_3x3", 1],
            ["sep_conv_3x3", 1],
            ["skip_connect", 0],
            ["skip_connect", 0],
            ["dil_conv_3x3", 2],
        ],
        "normal_concat": [2, 3, 4, 5],
        "reduce": [
            ["max_pool_3x3", 0],
            ["max_pool_3x3", 1],
            ["skip_connect", 2],
            ["max_pool_3x3", 1],
            ["max_pool_3x3", 0],
            ["skip_connect", 2],
            ["skip_connect", 2],
            ["max_pool_3x3", 1],
        ],
        "reduce_concat": [2, 3, 4, 5],
    },
}


def genotype_of(given: str | Mapping[str, Any]) -> Genotype:
    """The genotype of a name in ``GENOTYPES``, or of a mapping as there, itself or as text (YAML or JSON).

    Raises:
        UsageError: says which entry is wrong.
    """
    plan = GENOTYPES.get(given, given) if isinstance(given, str) else given
    if isinstance(plan, str):
        try:
            plan = parse(plan)
        except UsageError:
            plan = None
    if not isinstance(plan, Mapping):
        raise UsageError(f"genotype={given!r}: not a mapping or a known name{nearest(given, GENOTYPES)}")
    for key in plan:
        if key not in GENOTYPES["DARTS_V2"]:
            raise UsageError(f"genotype: unknown key {key!r}{nearest(key, GENOTYPES['DARTS_V2'])}")
    return Genotype(*(_cell(kind, plan.get(kind), plan.get(f"{kind}_concat")) for kind in ("normal", "reduce")))


def _cell(kind: str, operations: Any, concat: Any) -> CellPlan:
    pairs = operations if isinstance(operations, (list, tuple)) else []
    if not pairs or len(pairs) % 2 or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise UsageError(f"genotype: {kind}={operations!r}: expected pairs [operation, state], two for every node")
    for position, (operation, state) in enumerate(pairs):
        if operation not in OPERATIONS:
            raise UsageError(f"genotype: {kind}: unknown operation {operation!r}{nearest(operation, OPERATIONS)}")
        _check_state(f"{kind}: {operation} in node {position // 2 + 2}", state, least=0, most=position // 2 + 1)
    if not isinstance(concat, (list, tuple)) or not concat:
        raise UsageError(f"genotype: {kind}_concat={concat!r}: expected a list of nodes")
    for node in concat:
        _check_state(f"{kind}_concat", node, least=2, most=len(pairs) // 2 + 1)
    return CellPlan(tuple((operation, state) for operation, state in pairs), tuple(concat))


def _check_state(where: str, state: Any, least: int, most: int) -> None:
    if type(state) is not int or not least <= state <= most:
        raise UsageError(f"genotype: {where}: state {state!r} must be a whole number from {least} to {most}")
