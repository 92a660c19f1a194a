"""One odd folder among the runs ends nothing for the others."""

import json

import pytest

from research import cli, load_runs
from research.runs.run import Run
from research.runs.summaries import read_summaries


@pytest.fixture
def odd(tiny):
    """A folder of one sound run and of one of every odd kind."""
    good = Run.create(tiny(name="good"))
    good.log("val", loss=1.5, top1=50.0)
    good.set_status("finished", epoch=1, best_top1=50.0)
    config = json.loads(good.paths.config.read_text())
    kinds = {
        "no-json": "{",
        "list": "[1]",
        "null-hooks": json.dumps(config | {"hooks": None}),
        "null-hook": json.dumps(config | {"hooks": {"gram": None}}),
        "text-lr": json.dumps(config | {"lr": "fast"}),
        "no-text": "\udcff\udcfe",
        "deep": "[" * 100_000,
    }
    for name, text in kinds.items():
        (good.dir.parent / name).mkdir()
        (good.dir.parent / name / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    (good.dir.parent / "folder" / "config.json").mkdir(parents=True)
    return good, {*kinds, "folder"}


def test_odd_folders_are_listed_as_unreadable(odd, capsys):
    good, odd_names = odd
    runs, unreadable = read_summaries(good.dir.parent)
    assert [run["name"] for run in runs] == ["good"] and {path.name for path in unreadable} == odd_names
    assert cli.main(["runs", str(good.dir.parent)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[0] for line in lines if len(line) > 1 and line[1] == "unreadable"} == odd_names


@pytest.mark.parametrize("text", ["{}", "[]", "", '{"status": "odd"}', '{"status": "finished", "epoch": "many"}'])
def test_odd_status_is_unreadable_and_ends_nothing(odd, text, capsys):
    good, _ = odd
    other = Run.create(type(good.config).load(good.config.to_dict(), {"name": "other"}))
    other.paths.status.write_text(text)
    with pytest.warns(UserWarning):
        runs = load_runs(good.dir.parent, ["good", "other"])
        assert cli.main(["runs", str(good.dir.parent)]) == 0
    assert list(runs["status"]) == ["finished", "unreadable"]


def test_odd_rows_are_passed_over(odd):
    good, _ = odd
    with open(good.paths.metrics, "a") as file:
        file.write(
            '5\nnull\n{"kind": "val", "step": "x", "epoch": 0}\n{"kind": 3, "step": 1, "epoch": 0}\n'
            '{"kind": "far", "step": 9223372036854775808, "epoch": 0, "loss": 1}\n[['
        )
    runs = load_runs(good.dir.parent, "good")
    assert runs["last_loss"].item() == 1.5 and set(runs.metrics["kind"]) == {"val"}


def test_neighbours_are_not_listed_elsewhere(tmp_path, monkeypatch, capsys):
    (tmp_path / "private").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["runs"]) == 2
    assert "private" not in capsys.readouterr().err
