"""The suite of ``make bench`` runs, and its results say what was compared; no time is tested."""

import json

import pytest
import suite
from pairs import Row, Ways, measure, told


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert suite.main(["--small", "--seconds", "0", "--only", "ldi", "--out", str(folder)]) == 0
    return json.loads((folder / "bench.json").read_text())


def test_every_row_of_the_smallest_form_has_rival_ratio_spread_and_aim(results):
    assert results["rows"]
    for row in results["rows"]:
        assert row["rival"] and row["ratio"] > 0 and row["aim"].split()[0] in ("<=", ">=")
        assert all(low <= high for low, high in (row["spread"], row["noise"]))


def test_results_say_when_where_and_of_what(results):
    assert results["started"] and results["commit"] and results["machine"]["cores"] >= 1
    assert {"torch", "lightning"} <= set(results["packages"])


def test_ratios_follow_the_aim():
    """Twice as much is half as fast, and twice the cost."""
    ways = Ways(lambda: 2.0, lambda: 6.0, cost=told)
    slow, dear, more = (
        measure(Row("", "", aim, lambda small, ways=ways: ways), 0, True)
        for aim, ways in ((">= 4", ways), ("<= 0.4", ways), (">= 5", ways._replace(more=2)))
    )
    assert (slow["ratio"], slow["met"]) == (3, False)
    assert (dear["ratio"], dear["met"]) == (1 / 3, True)
    assert (more["ratio"], more["met"]) == (6, True)


def test_a_limit_is_a_rival_that_costs_that_much():
    row = measure(Row("", "", "<= 1", lambda small: Ways(lambda: 3.0, 2.0, cost=told)), 0, True)
    assert (row["ratio"], row["spread"], row["met"]) == (1.5, [1.5, 1.5], False)


def test_a_missing_rival_and_a_failure_are_rows_that_say_so():
    missing = measure(Row("subject", "rival", ">= 1", lambda small: 1 / 0, needs="no_such_module"), 0, True)
    assert (missing["missing"], missing["ratio"]) == ("no_such_module is not installed", None)
    failed = measure(Row("subject", "rival", ">= 1", lambda small: 1 / 0), 0, True)
    assert failed["missing"] == "failed: ZeroDivisionError: division by zero"
