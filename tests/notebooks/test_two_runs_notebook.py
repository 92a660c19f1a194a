"""Two runs, image by image."""

import pytest
from conftest import cells

from research.errors import UsageError
from research.runs.run import Run
from research.trained.predictions import validation_logits
from research.training.loop import fit


def test_two_networks_are_compared_on_the_images_they_share(here, tiny, monkeypatch):
    for name, lr in (("fast", 0.05), ("slow", 0.001)):
        fit(Run.create(tiny(name=name, lr=lr, epochs=1)))
    left = cells("analysis/two_runs", monkeypatch, ours="fast", theirs="slow", log="log.md")
    right = [z.argmax(1) == y for z, y in (validation_logits(here / "runs" / name) for name in ("fast", "slow"))]
    found = left["found"]
    assert found[:3] == (359, (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    assert found.difference == pytest.approx(100 * (right[0].mean() - right[1].mean())) and found.p < 0.05
    assert left["by_class"].drop(columns="class").sum().tolist() == [found.only_ours, found.only_theirs]
    log = (here / "log.md").read_text()
    assert f"| fast | slow | 359 | {100 * right[0].mean():.2f} |" in log and "of other seeds it says nothing" in log


def test_what_cannot_be_compared_is_refused(here, tiny, monkeypatch):
    fit(Run.create(tiny(name="a", epochs=1)))
    fit(Run.create(tiny(name="b", epochs=1, data_args={"holdout": 100})))
    with pytest.raises(UsageError, match="name two runs of the same data"):
        cells("analysis/two_runs", monkeypatch, ours="a")
    with pytest.raises(UsageError, match="a and b were not evaluated on the same images"):
        cells("analysis/two_runs", monkeypatch, ours="a", theirs="b")
