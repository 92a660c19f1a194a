"""Whether methods add up: against sums by hand, in a full factorial design and beside arms that stand outside of it."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from research.errors import UsageError
from research.frames.statistics.interactions import added_up, arms_by_methods, backgrounds, interactions, main_effects

EFFECTS = {"a": 2.0, "b": -1.0, "c": 0.5}


def factorial(extra=0.0, noise=0.0, seeds=6):
    """Every combination of three methods, which add up but for ``extra`` where a and b are both there."""
    draw = np.random.default_rng(0)
    arms = {}
    for size in range(4):
        for chosen in combinations(EFFECTS, size):
            value = 60 + sum(EFFECTS[method] for method in chosen) + (extra if {"a", "b"} <= {*chosen} else 0)
            arms["+".join(chosen) or "plain"] = pd.Series(value + noise * draw.normal(size=seeds))
    return arms


def rows(table, column="difference"):
    return dict(zip(table["arm"], table[column], strict=True))


def test_methods_that_add_up_have_no_interaction_and_their_own_effects():
    arms = arms_by_methods(factorial())
    assert rows(main_effects(arms)) == pytest.approx(EFFECTS)
    assert list(rows(interactions(arms)).values()) == pytest.approx([0, 0, 0])
    together = added_up(arms)
    assert rows(together, "mean") == pytest.approx({"a+b": 1.0, "a+c": 2.5, "b+c": -0.5, "a+b+c": 1.5})
    assert list(together["difference"]) == pytest.approx([0] * 4)


def test_an_interaction_is_found_in_its_pair_and_in_what_holds_the_pair():
    arms = arms_by_methods(factorial(extra=-1.5))
    assert rows(interactions(arms)) == pytest.approx({"a with b": -1.5, "a with c": 0, "b with c": 0})
    assert rows(added_up(arms)) == pytest.approx({"a+b": -1.5, "a+c": 0, "b+c": 0, "a+b+c": -1.5})
    assert rows(main_effects(arms))["a"] == pytest.approx(2.0 - 1.5 / 2)  # b is there in half of the arms


def test_tests_are_those_of_the_effects_seed_by_seed():
    results = factorial(extra=1.0, noise=0.5)
    arms = arms_by_methods(results)
    alone = results["a+b"] - results["a"] - results["b"] + results["plain"]
    beside = results["a+b+c"] - results["a+c"] - results["b+c"] + results["c"]
    for table, by_hand in ((added_up(arms), alone), (interactions(arms), (alone + beside) / 2)):
        row, expected = table.iloc[0], stats.ttest_1samp(by_hand, 0)
        assert row["difference"] == pytest.approx(by_hand.mean()) and row["p"] == pytest.approx(expected.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))


def test_arms_outside_the_factorial_count_where_their_four_combinations_are():
    results = factorial() | {"d": pd.Series([61.0] * 6), "a+d": pd.Series([65.0] * 6)}
    arms = arms_by_methods(results)
    assert len(backgrounds(arms, {"a", "b"})) == 2 and backgrounds(arms, {"a", "d"}) == [frozenset()]
    assert rows(interactions(arms))["a with d"] == pytest.approx(65 - 62 - 61 + 60)
    assert "b with d" not in rows(interactions(arms))


def test_seeds_that_an_arm_lacks_are_left_out():
    results = factorial(noise=1.0)
    results["a+b"] = results["a+b"].iloc[:4]
    table = interactions(arms_by_methods(results))
    assert rows(table, "pairs") == {"a with b": 4, "a with c": 4, "b with c": 4}
    assert added_up(arms_by_methods(results)).set_index("arm").loc["a+c", "pairs"] == 6


def test_an_unknown_base_and_arms_of_the_same_methods_are_refused():
    with pytest.raises(UsageError, match="base='plian': no arm is called so.*plain"):
        arms_by_methods(factorial(), "plian")
    with pytest.raises(UsageError, match=r"'b\+a': another arm has the same methods"):
        arms_by_methods(factorial() | {"b+a": pd.Series([1.0])})
