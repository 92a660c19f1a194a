"""summary.csv has one line an epoch, whatever happened on the way."""

import csv

import pytest
from conftest import Killed, rows

from research.runs import epoch_table
from research.runs.paths import RunPaths
from research.runs.run import Run
from research.training.loop import fit
from research.training.schedule import learning_rate


def lines(run: Run) -> list[dict]:
    with open(run.paths.summary, newline="") as file:
        return list(csv.DictReader(file))


def expected(run: Run) -> list[list[float]]:
    """What the rows of metrics say of every epoch."""
    found = {}
    for row in rows(run):
        if row["kind"] in ("train_epoch", "val"):
            found.setdefault(row["epoch"], {})[row["kind"]] = row
    steps = run.steps_per_epoch
    return [
        [epoch + 1, train["loss"], train["top1"], val["loss"], val["top1"], val["top5"]]
        + [learning_rate(run.config, (epoch + 1) * steps - 1, steps)]
        for epoch, (train, val) in ((epoch, (both["train_epoch"], both["val"])) for epoch, both in found.items())
    ]


def values(run: Run) -> list[list[float]]:
    return [[float(value) for value in line.values()] for line in lines(run)]


def test_every_epoch_has_its_line(tiny):
    run = fit(Run.create(tiny(name="r", epochs=3)))
    header = ["epoch", "train_loss", "train_acc", "eval_loss", "eval_top1", "eval_top5", "lr"]
    assert list(lines(run)[0]) == header and values(run) == expected(run) and len(values(run)) == 3


@pytest.mark.parametrize("step", [5, 11, 16, 22])
def test_it_is_right_after_a_power_cut(step, tiny, power_cut):
    config = tiny(name="r", epochs=3, hooks={"power_cut": {}}, checkpoint_minutes=0)
    power_cut.at = step
    with pytest.raises(Killed):
        fit(Run.create(config))
    run = fit(Run.create(config))
    assert values(run) == expected(run) and [line[0] for line in values(run)] == [1, 2, 3]


def test_lines_of_epochs_that_are_trained_again_are_replaced(tiny):
    run = fit(Run.create(tiny(name="r", epochs=3)))
    before = run.paths.summary.read_text()
    kept = [line for line in run.paths.metrics.read_text().splitlines() if '"epoch": 2' not in line]
    run.paths.metrics.write_text("\n".join(kept) + "\n")
    epoch_table.update(run.paths)
    assert run.paths.summary.read_text() == "".join(before.splitlines(keepends=True)[:3])


def test_a_run_of_an_earlier_version_gets_all_its_lines(tiny):
    run = fit(Run.create(tiny(name="r", epochs=3)))
    before = run.paths.summary.read_text()
    for content in (None, "", "epoch,other\n1,2\n", before[: len(before) // 2]):
        run.paths.summary.unlink() if content is None else run.paths.summary.write_text(content)
        epoch_table.update(run.paths)
        assert run.paths.summary.read_text() == before


def test_a_run_without_an_epoch_has_none(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "epoch": 0, "lr": 0.1}\n')
    epoch_table.update(RunPaths(tmp_path))
    assert not RunPaths(tmp_path).summary.exists()


def test_only_the_newest_rows_are_read(tmp_path, monkeypatch):
    paths = RunPaths(tmp_path)
    row = '{{"kind": "{kind}", "step": {step}, "epoch": {epoch}, "loss": 1.0, "top1": 2.0, "top5": 3.0, "lr": 0.1}}\n'
    text = ""
    for epoch in range(50):
        text += "".join(row.format(kind=k, step=epoch, epoch=epoch) for k in ("train", "train_epoch", "val"))
        paths.metrics.write_text(text)
        epoch_table.update(paths)
    seen = []
    newest = epoch_table.newest_rows
    monkeypatch.setattr(epoch_table, "newest_rows", lambda path: (seen.append(r) or r for r in newest(path)))
    epoch_table.update(paths)
    assert len(seen) == 4 and len(paths.summary.read_text().splitlines()) == 51
