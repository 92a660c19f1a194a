"""What a run gets wrong, class by class and picture by picture, and whether another one errs alike."""

import nbformat
import numpy as np
import pytest
from conftest import cells

from research.errors import UsageError
from research.frames import load_runs
from research.frames.reports.by_class import class_summary
from research.notebooks.execute import execute
from research.runs.run import Run
from research.trained.predictions import validation_logits, validation_pictures
from research.training.loop import fit


@pytest.fixture
def trained(here, tiny):
    for name, given in {"a": {}, "b": {"seed": 1}, "slow": {"lr": 0.001}}.items():
        fit(Run.create(tiny(name=name, epochs=1, **{"lr": 0.05} | given)))
    return here / "runs"


def test_errors_are_those_of_the_run_and_agreement_that_with_the_other(trained, monkeypatch):
    left = cells("analysis/errors", monkeypatch, runs="runs", run="a", other="slow", shown=7, log="log.md")
    z, y = validation_logits(trained / "a")
    other, _ = validation_logits(trained / "slow")
    assert left["matrix"].sum() == len(y) == 359 and left["matrix"].trace() == (z.argmax(1) == y).sum()
    assert [name for name, _ in left["drawn"]] == [
        "accuracy by class",
        "confusion matrix",
        "confident mistakes",
        "calibration",
    ]
    assert left["agreed"].same_class == pytest.approx((z.argmax(1) == other.argmax(1)).mean())
    pictures = [axis for axis in left["drawn"][2][1].axes if axis.images]
    assert len(pictures) == 7
    log = (trained.parent / "log.md").read_text()
    assert f"{100 * (z.argmax(1) == y).mean():.2f} % of 359 validation images" in log and "Kappa of the classes" in log


def test_tables_by_class_are_means_over_seeds_of_what_each_run_got_right(trained):
    table = class_summary(load_runs(trained))
    assert table.groupby("configuration")["class"].apply(list).map(len).tolist() == [11, 11]
    seeds = [validation_logits(trained / name) for name in "ab"]
    sevens = [100 * (z.argmax(1) == y)[y == 7].mean() for z, y in seeds]
    row = table[(table["configuration"] == "lr=0.05") & (table["class"] == "7")].iloc[0]
    assert (row["n"], row["images"]) == (2, (seeds[0][1] == 7).sum())
    assert (row["accuracy"], row["sd"]) == pytest.approx((np.mean(sevens), np.std(sevens, ddof=1)))


def test_pictures_are_those_of_the_images_that_were_classified(trained):
    from sklearn.datasets import load_digits

    digits = load_digits().images / 16
    shown = validation_pictures(trained / "a", [5, 358, 0])
    assert shown.shape == (3, 8, 8) and 0 <= shown.min() < shown.max() <= 1
    assert all(np.isclose(digits, picture, atol=1 / 255).all(axis=(1, 2)).any() for picture in shown)


def test_runs_of_other_images_and_unknown_names_are_refused(trained, tiny, monkeypatch):
    fit(Run.create(tiny(name="held", epochs=1, data_args={"holdout": 100})))
    with pytest.raises(UsageError, match="a and held were not evaluated on the same images"):
        cells("analysis/errors", monkeypatch, runs="runs", run="a", other="held")
    with pytest.raises(UsageError, match="no run in runs is called 'slo'; did you mean 'slow'"):
        cells("analysis/errors", monkeypatch, runs="runs", run="slo")


def test_it_runs_through_papermill_and_chooses_two_runs_of_the_same_data(trained):
    done = execute("analysis/errors", {"runs": "runs"}, progress=False)
    outputs = [each for cell in nbformat.read(done, 4).cells for each in cell.get("outputs", ())]
    assert sum("image/png" in each.get("data", {}) for each in outputs) == 4
    assert any("error consistency" not in each.get("text", "") and "Kappa" in each.get("text", "") for each in outputs)
