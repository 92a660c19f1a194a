"""``research predict``: a study's networks ranked before training, and measured against what was trained."""

import json

import pytest
import yaml

from research.cli import main
from research.errors import UsageError
from research.studies.prediction import predicted, score_named
from research.studies.study import expand, read_study


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of five widths and two seeds on the digits, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    given = {"name": "widths", "base": {"dataset": "digits", "model": "mnist_mlp", "epochs": 1}, "seeds": [0, 1]}
    given["runs"] = {f"w{width}": {"model_args": {"hidden": [width]}} for width in (2, 4, 8, 16, 32)}
    path = tmp_path / "widths.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def finish(study, top1):
    """Pretend that runs of ``study`` have finished with these accuracies, by name of the run."""
    for point in expand(read_study(study)):
        if point.dir.name in top1:
            point.dir.mkdir(parents=True)
            said = {"status": "finished", "epoch": 1, "epochs": 1, "last_top1": top1[point.dir.name]}
            (point.dir / "status.json").write_text(json.dumps(said))


def test_a_study_is_ranked_without_a_run_and_leaves_none(study, capsys, tmp_path):
    assert main(["predict", str(study), "--by", "synflow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:6]] == ["w32", "w16", "w8", "w4", "w2"]
    assert "params" in lines[0] and "top1" not in lines[0] and "10 networks in" in lines[7]
    assert list(tmp_path.iterdir()) == [study]


def test_trained_runs_stand_beside_and_say_what_each_measure_told(study, capsys):
    finish(study, {f"widths-w{w}-seed-{s}": 50.0 + w for w in (2, 4, 8, 16, 32) for s in (0, 1)})
    assert main(["predict", str(study), "--seeds", "1"]) == 0
    text = capsys.readouterr().out
    assert "over 5 trained networks" in text and "+1.00 [" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("parameters ")]
    assert row[1:3] == ["5", "+1.00"]


def test_one_odd_run_spoils_no_other(study):
    finish(study, {"widths-w2-seed-0": 60.0, "widths-w4-seed-0": 70.0})
    (study.parent / "runs" / "widths-w2-seed-0" / "status.json").write_text("{")
    with pytest.warns(UserWarning, match="cannot be read"):
        table = predicted(study).set_index("run")["top1"]
    assert table["widths-w4-seed-0"] == 70.0 and table.drop("widths-w4-seed-0").isna().all()


def test_an_unknown_measure_is_refused_before_anything_is_measured(study, capsys):
    assert main(["predict", str(study), "--by", "nn_masss"]) == 2
    assert capsys.readouterr().err == "error: by='nn_masss': unknown measure; did you mean 'nn_mass'?\n"
    with pytest.raises(UsageError):
        score_named("x")


def test_results_are_read_where_the_runs_were_put(study, tmp_path):
    finish(study, {"widths-w2-seed-0": 60.0})
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert predicted(study, runs=tmp_path / "elsewhere")["top1"].notna().sum() == 1
    assert predicted(study)["top1"].isna().all()
