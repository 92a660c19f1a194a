"""What was tried to tune each arm, drawn: a line an arm, a ring at what it was given, a cross where a run diverged."""

import math

import pandas as pd
import pytest

from research.errors import UsageError
from research.figures.study import accuracy_against_value
from research.frames.plans import TRIALS

ROWS = [
    ("s", "a", "lr", 0.03, 1000, 70.0, False),
    ("s", "a", "lr", 0.1, 1000, 80.0, True),
    ("s", "a", "lr", 0.1, 1001, 82.0, True),
    ("s", "b", "lr", 0.03, 1000, 75.0, True),
    ("s", "b", "lr", 0.1, 1000, math.nan, False),
]


def test_each_arm_has_its_line_and_what_it_was_given_its_ring():
    axis = accuracy_against_value(pd.DataFrame(ROWS, columns=TRIALS)).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axis.lines if not line.get_label().startswith("_")}
    assert lines["a"] == [70.0, 81.0] and lines["b"][0] == 75.0 and math.isnan(lines["b"][1])
    rings = [line.get_ydata()[0] for line in axis.lines if line.get_markerfacecolor() == "none"]
    crosses = [line for line in axis.lines if line.get_marker() == "x"]
    assert sorted(rings) == [75.0, 81.0] and len(crosses) == 1
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0.03", "0.1"]
    assert axis.get_xlabel() == "lr, in order"


def test_no_trials_are_refused():
    with pytest.raises(UsageError, match="no study of these runs chose a value"):
        accuracy_against_value(pd.DataFrame(columns=TRIALS))
