"""Methods, substitutes and settings in each other's company: all that each promises alone holds there too."""

import functools
import tempfile
from itertools import combinations
from pathlib import Path

import composition_matrix as documents
import pytest
from composition import (
    COLUMNS,
    METHODS,
    PAIRS,
    companies,
    ended,
    on_two_processes,
    refusal,
    registered,
    trained,
    trained_stacked,
)

SHOWN = documents.read_matrix(documents.README.read_text())
QUICK = 24  # companies of the default suite: those that cover most pairs
pytestmark = pytest.mark.filterwarnings("ignore::research.errors.Note")  # of orders with less effect


@pytest.fixture(autouse=True, scope="module")
def watching():
    with registered():
        yield


@functools.cache
def kinds_alone(name: str) -> set[str]:
    """The kinds of rows of a run with one method."""
    with tempfile.TemporaryDirectory() as folder:
        return ended([name], Path(folder)).kinds


def hold(members: list[str], folder: Path) -> None:
    assert not refusal(members)
    found = trained(members, folder).kinds
    for name in set(members) & METHODS.keys():
        assert kinds_alone(name) <= found, f"rows of {name}"


def parts(companies: list[list[str]], quick: int) -> list:
    marks = [() if number < quick else pytest.mark.slow for number in range(len(companies))]
    return [
        pytest.param(members, marks=mark, id="-".join(members) or "plain")
        for members, mark in zip(companies, marks, strict=True)
    ]


@pytest.mark.parametrize("members", parts(companies(2), QUICK))
def test_every_two_hold_in_company(members, tmp_path):
    hold(members, tmp_path)


@pytest.mark.parametrize("members", parts(companies(3), 0))
def test_sampled_triples_hold_in_company(members, tmp_path):
    hold(members, tmp_path)


def test_every_pair_that_may_meet_is_in_a_company():
    met = {frozenset(pair) for members in companies(2) for pair in combinations(members, 2)}
    pairs = {frozenset(pair) for pair in PAIRS if SHOWN.get(pair) != "-" and not COLUMNS & set(pair)}
    assert pairs <= met, pairs - met


def beside(column: str) -> list[str]:
    """The members that may meet this one, as the documents have it."""
    refused = {frozenset(pair) for pair, symbol in SHOWN.items() if symbol == "-"}
    return [
        name for pair in PAIRS if column in pair and frozenset(pair) not in refused for name in pair if name != column
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", beside("compile"))
def test_members_hold_where_the_network_is_compiled(name, tmp_path):
    hold([name, "compile"], tmp_path)


@pytest.mark.slow
def test_members_hold_on_two_processes(tmp_path):
    on_two_processes([[name, "processes=2"] for name in beside("processes=2")], tmp_path)


@pytest.mark.parametrize("name", beside("population"))
def test_a_population_holds_with_what_it_may_have(name, tmp_path):
    trained_stacked([name, "population"], tmp_path)


def test_the_documents_show_what_is_refused_and_why():
    """The matrix as it is written, but for what training shows: which methods do not commute.

    What else is shown to hold is held in the companies, which are not refused.
    """
    asked = [pair for pair in PAIRS if SHOWN.get(pair) == "-" or set(pair) <= METHODS.keys()]
    shown = documents.section(documents.refusals(asked), documents.differing(SHOWN))
    assert shown in documents.README.read_text(), documents.REWRITE


@pytest.mark.slow
def test_the_documents_show_which_methods_do_not_commute(tmp_path):
    assert documents.differing_orders(tmp_path) == documents.differing(SHOWN), documents.REWRITE
