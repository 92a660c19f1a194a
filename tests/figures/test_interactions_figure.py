"""Effects of methods together and apart, drawn: a row an arm, an interaction filled where it is told from none."""

import numpy as np
import pandas as pd
import pytest

from research.errors import UsageError
from research.figures.arms.interactions import effects_together
from research.frames.statistics.interactions import added_up, arms_by_methods, interactions

RESULTS = {"plain": 60.0, "a": 62.0, "b": 61.0, "a+b": 66.0}


def drawn(results):
    draw = np.random.default_rng(0)
    arms = arms_by_methods({arm: pd.Series(value + 0.1 * draw.normal(size=5)) for arm, value in results.items()})
    return effects_together(added_up(arms), interactions(arms), margin=1)


def test_a_pair_has_its_effect_the_sum_of_its_own_and_an_interaction():
    left, right = drawn(RESULTS).axes
    sums, effects = (next(line for line in left.lines if line.get_marker() == marker) for marker in "Do")
    assert sums.get_xdata()[0] == pytest.approx(3, abs=0.5) and effects.get_xdata()[0] == pytest.approx(6, abs=0.5)
    dots = [line for line in right.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([3, 3], abs=0.5)
    assert all(line.get_markerfacecolor() == line.get_color() for line in dots)  # both told from none
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a+b"]


def test_an_interaction_that_cannot_be_told_from_none_is_hollow():
    right = drawn(RESULTS | {"a+b": 63.0}).axes[1]
    assert {line.get_markerfacecolor() for line in right.lines if line.get_marker() == "o"} == {"white"}


def test_arms_of_one_method_each_are_refused():
    with pytest.raises(UsageError, match="nothing can add up"):
        drawn({"plain": 60.0, "a": 62.0})
