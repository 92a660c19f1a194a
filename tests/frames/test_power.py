"""What a study can see: the referee's table, simulated tests, and that both questions have one answer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from research.frames.power import errors_seen, seeds_needed, smallest_difference

# deviation of paired differences, seeds, seen with 80 %, a difference, seeds for it, and for it in seven comparisons
REFEREE = [
    (0.60, 10, 0.61, 0.28, 39, 65),
    (0.63, 10, 0.64, 0.28, 42, 70),
    (0.20, 5, 0.34, 0.20, 10, 17),
    (0.90, 3, 3.0, 1.00, 9, 14),
    (2.10, 3, 6.9, 1.00, 37, 59),
    (3.10, 3, 10.2, 1.00, 80, 125),
]


@pytest.mark.parametrize("sd, n, seen, difference, seeds, of_seven", REFEREE)
def test_the_referee_s_table(sd, n, seen, difference, seeds, of_seven):
    assert smallest_difference(sd, n) == pytest.approx(seen, rel=0.025)  # deviations are rounded
    assert seeds_needed(sd, difference) == pytest.approx(seeds, rel=0.05)
    assert seeds_needed(sd, difference, comparisons=7) == pytest.approx(of_seven, rel=0.07)


def test_half_a_deviation_takes_34_pairs_as_in_cohen_s_tables():
    assert seeds_needed(2, 1) == 34 and seeds_needed(10, 2) == 199


@given(st.floats(0.01, 100), st.integers(2, 400), st.integers(1, 50))
@settings(max_examples=30)
def test_the_smallest_difference_of_n_seeds_needs_n_seeds(sd, n, comparisons):
    seen = smallest_difference(sd, n, comparisons=comparisons)
    assert seeds_needed(sd, seen * (1 + 1e-9), comparisons=comparisons) == n
    assert seen > smallest_difference(sd, n + 1, comparisons=comparisons)
    assert seen <= smallest_difference(sd, n, comparisons=comparisons + 1)


def test_simulated_studies_show_it_in_four_of_five():
    seen, draw = smallest_difference(1.5, 6), np.random.default_rng(0).normal(size=(40_000, 6))
    shown = stats.ttest_1samp(seen + 1.5 * draw, 0, axis=1).pvalue < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=0.01)


def test_what_cannot_be_told_is_nan_and_what_nobody_trains_infinite():
    assert math.isnan(smallest_difference(1, 1)) and math.isnan(errors_seen(math.nan))
    assert math.isnan(seeds_needed(math.nan, 1)) and math.isnan(seeds_needed(0, 1)) and math.isnan(seeds_needed(1, 0))
    assert seeds_needed(1, 1e-6) == math.inf and seeds_needed(1, -1) == seeds_needed(1, 1) == 10
