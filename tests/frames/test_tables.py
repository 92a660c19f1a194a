"""Tables to be read: what is written of a comparison, and what it cannot tell."""

import math

import numpy as np
import pandas as pd

from research.frames.comparison import compare, each_arm
from research.frames.tables import interval, markdown, mean_bounds, notes, p_value, plus_minus, readable

NAMES = {"arm": "configuration", "against": "compared with"}


def compared(margin=None):
    plain, seeds = pd.Series([1.0, 2, 3, 4, 5]), np.arange(5)
    results = {"plain": plain, "sure": plain + 3 + 0.1 * (seeds % 2), "unsure": plain[::-1].reset_index(drop=True)}
    results["lone"] = pd.Series([4.0], index=[9])
    return compare(results, [(name, "plain") for name in ("sure", "unsure", "lone")], margin=margin)


def test_a_row_says_how_far_how_sure_and_over_what():
    sure, unsure, lone = readable(compared(), NAMES).to_dict("records")
    assert sure["configuration"] == "sure" and sure["compared with"] == "plain" and sure["verdict"] == "higher"
    assert sure["difference [95 %]"] == "+3.04 [+2.97, +3.11]" and sure["over"] == "5 pairs, r = 1.00"
    assert unsure["verdict"] == "cannot tell" and unsure["over"] == "5 pairs, r = -1.00"
    assert (lone["difference [95 %]"], lone["over"], lone["p"]) == ("+1.00", "1 and 5, unpaired", "")
    assert "seeds for" not in " ".join(sure)


def test_a_margin_adds_what_it_takes_to_see_it_and_whether_equality_was_shown():
    sure, unsure, _ = readable(compared(4), NAMES, margin=4).to_dict("records")
    assert sure["seeds for 4"] == "2" and sure["verdict"] == "higher but equal within 4"
    assert (unsure["verdict"], unsure["p of ±4 or more (Holm)"]) == ("equal within 4", "0.024")
    assert "To see 1, the least certain of them needs 98 seeds" in notes(compared(1), 1)


def test_notes_say_what_cannot_be_told():
    said = notes(compared())
    assert "p adjusted for 2 tests (Holm)" in said and "1 of 3 cannot be told from no difference" in said
    assert "Equality was not tested" in said and said.endswith(
        "1 row without several seeds cannot be told from chance."
    )
    assert notes(compared().iloc[2:]).startswith("Nothing here can be told from chance")


def test_an_arm_by_itself_has_no_comparison():
    results = {"plain": pd.Series([1.0, 2]), "gram": pd.Series([2.0, 4])}
    plain, gram = readable(each_arm(results, {"gram": "plain"}), {"arm": "k"}).to_dict("records")
    assert plain == {"k": "plain"} | dict.fromkeys([*gram][1:], "") and gram["difference [95 %]"].startswith("+1.50 [")


def test_numbers_in_words():
    assert plus_minus([1.0, math.nan, 2.0]) == "1.50 ± 0.71" and plus_minus([3.0]) == "3.00" and plus_minus([]) == ""
    assert mean_bounds([1.0, 2.0, 3.0]) == "-0.48 to 4.48" and mean_bounds([1.0]) == mean_bounds([2.0, 2.0]) == ""
    assert [p_value(p) for p in (math.nan, 1e-7, 0.00123, 0.5)] == ["", "< 0.0001", "0.0012", "0.5"]
    assert interval(0.5, math.nan, math.nan) == "+0.50" and interval(math.nan, 0, 1) == ""
    assert markdown(pd.DataFrame({"a|b": [0.001, math.nan], "c": ["x|y", 1]})).splitlines()[2:] == [
        r"| 0.001 | x\|y |", "|  | 1 |"
    ]  # fmt: skip
