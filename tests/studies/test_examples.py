"""What a notebook reads that is given no runs: the project's, else an example's."""

import pytest
from conftest import REPOSITORY
from synthetic_runs import write_run

from research.frames import load_runs
from research.frames.gram import with_gram
from research.studies import examples
from research.studies.examples import runs_or_example, two_alike
from research.studies.study import expand, read_study

EXAMPLES = sorted(path.stem for path in (REPOSITORY / "notebooks/studies/examples").glob("*.yaml"))


@pytest.fixture
def trained(monkeypatch):
    """The runs that were to be trained, none of which is."""
    points = []
    monkeypatch.setattr(examples, "fit_together", lambda study, made, begin: points.extend(made))
    return points


def test_an_example_is_made_where_nothing_of_the_kind_is(here, trained, capsys):
    write_run(here / "runs", "plain")
    assert runs_or_example(None, "gram", with_gram) == "runs/examples/gram"
    assert {point.dir.parent for point in trained} == {here / "runs/examples/gram"}
    assert "tell nothing of methods" in capsys.readouterr().out


def test_runs_that_are_given_or_there_are_taken_and_a_log_gets_no_example(here, trained):
    assert runs_or_example("some/where", "gram", with_gram) == "some/where"
    assert runs_or_example(None, "gram", with_gram, log="log.md") == "runs"
    write_run(here / "runs", "gram", gram=True)
    assert runs_or_example(None, "gram", with_gram) == "runs"
    assert not trained


def test_two_runs_of_the_same_data_are_found(here):
    write_run(here / "runs", "a")
    write_run(here / "runs", "b", data_args={"holdout": 100})
    assert two_alike(load_runs()) == []
    write_run(here / "runs", "c", data_args={"holdout": 100})
    assert two_alike(load_runs()) == ["b", "c"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_needs_no_data_and_stays_by_itself(name):
    points = expand(read_study(f"examples/{name}"))
    assert {point.config.dataset for point in points} == {"digits"} and len(points) <= 12
    assert {point.config.runs for point in points} == {f"runs/examples/{name}"}
