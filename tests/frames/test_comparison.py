"""The one comparison: exact values by hand, scipy's own tests, and what must hold whatever the numbers."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from research.errors import UsageError
from research.frames.comparison import CANNOT_TELL, compare, correlation, each_arm, games_howell, images
from research.frames.statistics.t_tests import holm

FLIPPED = {"mean": "mean_against", "sd": "sd_against", "n": "n_against"}
values = st.lists(st.integers(0, 1000), min_size=2, max_size=9)  # images that are right: quantised, as results are


def arms(**given):
    """Arms by name, with the seeds 0, 1, … of their values."""
    return {name: pd.Series(each, dtype=float) for name, each in given.items()}


def test_a_paired_comparison_is_that_of_the_differences():
    # differences 1, 2, 3: mean 2, sd 1, error 1 / sqrt 3, t(2) = 3.4641, reach 4.3027 / 1.7321
    row = compare(arms(a=[2, 4, 6], b=[1, 2, 3]), [("a", "b")]).iloc[0]
    assert (row.arm, row.against, row.n, row.n_against, row.pairs, row.test) == ("a", "b", 3, 3, 3, "paired t")
    assert (row["mean"], row.sd, row.mean_against, row.sd_against, row.difference, row.r) == (4, 2, 2, 1, 2, 1)
    assert row.low == pytest.approx(2 - 4.302653 / math.sqrt(3)) and row.high == pytest.approx(
        2 + 4.302653 / math.sqrt(3)
    )
    assert row.p == row.p_holm == pytest.approx(0.0741799)
    assert row.effect == 2 and math.isnan(row.needed) and math.isnan(row.p_equal) and row.verdict == CANNOT_TELL


def test_seeds_are_paired_by_their_number_and_those_of_one_arm_alone_take_no_part():
    results = {"a": pd.Series({7: 5.0, 3: 1.0, 1: 2.0, 9: 99.0}), "b": pd.Series({1: 1.0, 3: 1.5, 7: 3.0, 8: None})}
    row = compare(results, [("a", "b")]).iloc[0]
    assert (row.n, row.n_against, row.pairs, row.difference) == (4, 3, 3, (1 - 0.5 + 2) / 3)


def test_arms_that_share_no_two_seeds_are_compared_by_welch():
    a, b = [3.0, 4.0, 8.0], [1.0, 1.5, 1.0, 2.0]
    results = {"a": pd.Series(a), "b": pd.Series(b, index=[2, 3, 4, 5])}  # seed 2 is common
    row, expected = compare(results, [("a", "b")]).iloc[0], stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval()
    assert (row.test, row.pairs, row.difference) == ("Welch t", 0, 5 - 1.375) and math.isnan(row.r)
    assert [row.p, row.low, row.high] == pytest.approx([expected.pvalue, interval.low, interval.high])
    pooled = math.sqrt((2 * np.var(a, ddof=1) + 3 * np.var(b, ddof=1)) / 5)
    assert row.effect == pytest.approx((1 - 3 / 19) * 3.625 / pooled)


def test_the_log_s_k_of_1_is_worse_with_p_0_0006_and_0_004_of_seven():
    # the differences of best top-1 are -0.58 with a standard error of 0.11 over ten seeds
    plain = pd.Series(np.full(10, 98.47))
    unit = stats.zscore(np.arange(10), ddof=1)
    k1 = plain - 0.58 + unit * 0.11 * math.sqrt(10)
    others = {f"other {at}": plain + 0.01 + unit * 0.6 for at in range(6)}
    table = compare({"plain": plain, "k1": k1, **others}, [("k1", "plain"), *((name, "plain") for name in others)])
    assert table.p.round(4).iloc[0] == 0.0005 and table.p_holm.round(3).iloc[0] == 0.004
    assert table.verdict.tolist() == ["lower", *[CANNOT_TELL] * 6]
    assert table.seen.iloc[1] == pytest.approx(0.84, abs=0.005)  # at a seventh of 5 %; 0.61 alone


def test_equal_may_be_said_only_within_a_margin_that_was_given():
    # PowerGrad, n = 20: +0.11 ± 0.14 beside a margin of 0.42, the mean published gain: p about 0.02 (referee)
    theirs = pd.Series(np.zeros(20))
    ours = theirs + 0.11 + stats.zscore(np.arange(20), ddof=1) * 0.14 * math.sqrt(20)
    row = compare({"a": ours, "b": theirs}, [("a", "b")], margin=0.42).iloc[0]
    assert row.p_equal == pytest.approx(stats.t.sf((0.42 - 0.11) / 0.14, 19)) and 0.01 < row.p_equal < 0.025
    assert (row.verdict, row.needed) == ("equal within 0.42", 20)
    ten = compare({"a": ours[::2], "b": theirs[::2]}, [("a", "b")], margin=0.42).iloc[0]
    assert ten.p_equal > 0.05 and ten.verdict == CANNOT_TELL
    assert compare({"a": ours, "b": theirs}, [("a", "b")]).verdict.item() == CANNOT_TELL


def test_a_sure_but_small_difference_is_both():
    ours = pd.Series([0.1, 0.11, 0.09, 0.1])
    row = compare({"a": ours, "b": ours * 0}, [("a", "b")], margin=1).iloc[0]
    assert row.verdict == "higher but equal within 1"


@pytest.mark.parametrize("a, b", [([1.5, 2.5, 3.5], [1, 2, 3]), ([4, 5], [4, 5]), ([1], [3]), ([1, 2], [])])
def test_without_a_deviation_nothing_is_tested(a, b):
    table = compare(arms(a=a, b=b, c=[1, 2, 4], d=[0, 3, 5]), [("a", "b"), ("c", "d")], margin=1)
    untested = ["low", "high", "p", "p_holm", "effect", "seen", "needed", "p_equal", "p_equal_holm"]
    assert table.loc[0, untested].isna().all() and (table.test[0], table.verdict[0]) == ("", CANNOT_TELL)
    assert table.p_holm[1] == table.p[1]  # what cannot be tested counts as no test


def test_an_arm_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="no arm is called 'plian'; did you mean 'plain'"):
        compare(arms(plain=[1, 2], gram=[1, 3]), [("gram", "plian")])
    assert compare({}, []).empty


def test_every_arm_has_a_row_and_those_with_a_partner_their_comparison():
    results = arms(plain=[1, 2, 3], gram=[2, 4, 6], alone=[5])
    table = each_arm(results, {"gram": "plain"}).set_index("arm")
    assert table["n"].to_dict() == {"plain": 3, "gram": 3, "alone": 1} and table["pairs"].tolist() == [0, 3, 0]
    expected = compare(results, [("gram", "plain")]).iloc[0]
    for name in ("difference", "low", "high", "p_holm", "seen", "verdict", "mean", "sd", "r"):
        assert table.loc["gram", name] == expected[name]
    assert table.loc["plain", ["against", "test", "verdict"]].tolist() == ["", "", ""]
    low, high = stats.t.interval(0.95, 2, 2, 1 / math.sqrt(3))
    assert table.loc["plain", ["mean_low", "mean_high"]].tolist() == pytest.approx([low, high])
    assert math.isnan(table.loc["alone", "mean_low"]) and table.loc["alone", "mean"] == 5


@pytest.mark.filterwarnings("ignore:Precision loss")
@settings(max_examples=40)
@given(values, values)
def test_paired_and_welch_are_scipy_s(a, b):
    length = min(len(a), len(b))
    a, b = np.array(a[:length], float), np.array(b[:length], float)
    assume(np.ptp(a - b) > 0)
    paired = compare({"a": pd.Series(a), "b": pd.Series(b)}, [("a", "b")]).iloc[0]
    apart = compare({"a": pd.Series(a), "b": pd.Series(b, index=range(50, 50 + length))}, [("a", "b")]).iloc[0]
    for row, expected in ((paired, stats.ttest_rel(a, b)), (apart, stats.ttest_ind(a, b, equal_var=False))):
        interval = expected.confidence_interval()
        assert [row.p, row.low, row.high] == pytest.approx([expected.pvalue, interval.low, interval.high], abs=1e-9)
        assert row.low <= row.difference <= row.high
    if np.ptp(a) and np.ptp(b) and length > 2:
        variances = a.var(ddof=1) + b.var(ddof=1) - 2 * paired.r * a.std(ddof=1) * b.std(ddof=1)
        assert (a - b).var(ddof=1) == pytest.approx(variances, abs=1e-6)


@settings(max_examples=40)
@given(values, values, st.floats(0.5, 500))
def test_exchanging_two_arms_turns_the_sign_and_nothing_else(a, b, margin):
    there, back = (compare(arms(a=a, b=b), [pair], margin=margin).iloc[0] for pair in (("a", "b"), ("b", "a")))
    for name in ("p", "p_holm", "p_equal", "seen", "needed", "pairs", "r", "test"):
        assert there[name] == back[name] or there[name] == pytest.approx(back[name], nan_ok=True)
    for name, other in (("difference", "difference"), ("low", "high"), ("effect", "effect")):
        assert there[name] == pytest.approx(-back[other], nan_ok=True)
    for name, other in FLIPPED.items():
        assert there[name] == back[other]


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12))
def test_adjusted_p_keeps_the_order_and_is_never_smaller(p):
    adjusted, p = holm(p), np.array(p, dtype=float)
    tested = ~np.isnan(p)
    assert (np.isnan(adjusted) == ~tested).all()
    assert (adjusted[tested] >= p[tested]).all() and (adjusted[tested] <= 1).all()
    assert (np.diff(adjusted[tested][np.argsort(p[tested])]) >= 0).all()
    assert (adjusted[tested] <= np.minimum(1, p[tested] * tested.sum()) + 1e-15).all()  # Bonferroni


def test_holm_by_hand():
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)


# -- every two arms -------------------------------------------------------------------------------------------------

# two levels of equal NN-Mass of the log: mean and deviation over seeds; p by Tukey's test with equal deviations, which
# they are not, was 0.02, 0.01, 0.002 and 0.0004
RINGS = {
    "mass 100": ([(92.02, 4.53), (90.80, 2.60), (93.28, 0.56), (83.17, 8.28)], 5, 0.16),
    "mass 150": ([(94.15, 0.90), (94.02, 1.49), (94.98, 0.49), (90.52, 3.30)], 5, 0.12),
    "MNIST, mass 30": ([(91.85, 0.26), (92.23, 0.29), (92.47, 0.40), (92.36, 0.28)], 8, 0.01),
    "MNIST, mass 50": ([(92.11, 0.12), (92.38, 0.31), (92.63, 0.22), (92.61, 0.19)], 8, 0.0002),
}


@pytest.mark.parametrize("level", RINGS)
def test_the_log_s_networks_of_equal_mass_by_games_and_howell(level):
    members, n, p = RINGS[level]
    unit = stats.zscore(np.arange(n), ddof=1)
    found = games_howell({str(mean): pd.Series(mean + sd * unit) for mean, sd in members})
    assert found["p"].min() == pytest.approx(p, rel=0.15)


RATS = {"A": [24.5, 23.5, 26.4, 27.1, 29.9], "B": [28.4, 34.2, 29.5, 32.2, 30.1], "C": [26.1, 28.3, 24.3, 26.2, 27.8]}


def test_games_howell_by_hand_and_in_a_reference():
    table = games_howell(arms(**RATS)).set_index(["arm", "against"])
    a, b = (np.array(RATS[name]) for name in "AB")
    parts = np.array([each.var(ddof=1) / 5 for each in (a, b)])
    df = parts.sum() ** 2 / (parts**2 / 4).sum()
    q = abs(a.mean() - b.mean()) / math.sqrt(parts.sum() / 2)
    found = table.loc[("A", "B")]
    assert found.p == pytest.approx(stats.studentized_range.sf(q, 3, df), abs=1e-8)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.p > stats.tukey_hsd(*RATS.values()).pvalue[0, 1]


def test_arms_without_a_deviation_take_no_part_in_games_howell():
    table = games_howell(arms(**RATS, still=[1, 1, 1], alone=[3]))
    pd.testing.assert_frame_equal(table, games_howell(arms(**RATS)))
    assert games_howell(arms(a=[1, 2], alone=[3])).empty


# -- correlations ---------------------------------------------------------------------------------------------------


def test_a_correlation_has_scipy_s_p_and_fisher_s_interval():
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    y = y + x
    expected = stats.pearsonr(x, y)
    found, interval = correlation(x, y, method="pearson"), expected.confidence_interval()
    assert [*found] == pytest.approx([expected.statistic, interval.low, interval.high, expected.pvalue, 20])
    ranks, expected = correlation(x, y), stats.spearmanr(x, y)
    assert [ranks.value, ranks.p] == pytest.approx([expected.statistic, expected.pvalue])
    reach = 1.959964 * math.sqrt((1 + ranks.value**2 / 2) / 17)
    assert np.arctanh([ranks.low, ranks.high]) == pytest.approx(np.arctanh(ranks.value) + np.array([-reach, reach]))


def test_a_partial_correlation_is_that_of_what_the_others_do_not_explain():
    x, y, z, w = np.random.default_rng(1).normal(size=(4, 30))
    x, y = x + 3 * z, y + 3 * z
    (xy, xz, yz) = (np.corrcoef(*pair)[0, 1] for pair in ((x, y), (x, z), (y, z)))
    found = correlation(x, y, z, method="pearson")
    assert found.value == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))
    assert found.low < found.value < found.high and found.p > 0.01 > correlation(x, y, method="pearson").p
    assert correlation(x, y, np.column_stack([z, w]), method="pearson").value != found.value
    assert math.isnan(correlation(x, y, x).value) and math.isnan(correlation(x[:3], y[:3], z[:3]).value)
    four = correlation(x[:4], y[:4], z[:4], "pearson")
    assert abs(four.value) <= 1 and math.isnan(four.low) and four.p > 0.05
    assert correlation([*x, math.nan], [*y, 1.0], [*z, 1.0], "pearson") == pytest.approx(found)
    assert correlation(x, x) == pytest.approx((1, 1, 1, 0, 30))


# -- two networks on the same images --------------------------------------------------------------------------------


def test_two_networks_on_one_test_set():
    ours, theirs = np.ones(1000, bool), np.ones(1000, bool)
    theirs[:30], ours[20:45] = False, False  # 20 only ours, 15 only theirs
    found = images(ours, theirs)
    assert found[:4] == (1000, 20, 15, 0.5) and found.p == pytest.approx(stats.binomtest(20, 35).pvalue)
    each = ours.astype(float) - theirs
    drawn = stats.bootstrap((each,), np.mean, n_resamples=4000, method="percentile", random_state=0, batch=500)
    assert [found.low, found.high] == pytest.approx(100 * np.array(drawn.confidence_interval), abs=0.08)
    assert images(ours, ours)[3:] == pytest.approx((0, -0.1955, 0.1955, 1), abs=1e-3)
    assert images(theirs, ours)[3:6] == pytest.approx((-found.difference, -found.high, -found.low))
