import json
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import LAYERS, write_run

from research.errors import UsageError
from research.frames import load_runs
from research.runs import metrics, status
from research.runs.columns import LONG
from research.runs.summaries import number


def test_one_row_a_run_with_config_and_progress(tmp_path):
    write_run(tmp_path, "plain", epochs=3, seed=1)
    write_run(tmp_path, "gram", epochs=2, gram=True, model_args={"width": 8})
    (tmp_path / "log").mkdir()  # no config.json: not a run
    runs = load_runs(tmp_path).set_index("name", drop=False)
    assert list(runs["name"]) == ["gram", "plain"]
    assert runs.loc["plain", ["seed", "epoch", "step", "best_top1", "status", "hooks"]].to_list() == [
        *(1, 3, 30, 72.0, "finished", "")
    ]
    assert runs.loc["plain", "last_loss"] == 1 / 4
    assert runs.loc["gram", ["hooks", "gram.k", "model_args.width"]].to_list() == ["gram", 8.0, 8]
    assert np.isnan(runs.loc["plain", "gram.k"])


def test_metrics_hold_every_number_once(tmp_path):
    write_run(tmp_path, "a", epochs=2, gram=True)
    metrics = load_runs(tmp_path).metrics
    assert set(metrics["kind"]) == {"train", "train_epoch", "val", "gram"}  # notes carry no number
    val = metrics[(metrics["kind"] == "val") & (metrics["metric"] == "loss")]
    assert val["value"].to_list() == [1.0, 0.5] and val["epoch"].to_list() == [0, 1]
    assert metrics[metrics["kind"] == "gram"].groupby("layer").size().to_dict() == dict.fromkeys(LAYERS, 2)
    assert len(metrics) == 2 * (4 + 4 + 4 + len(LAYERS))


def test_metrics_read_in_parts_are_the_same(tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_run(tmp_path, name, gram=True)
    runs = load_runs(tmp_path)
    whole = runs.metrics
    monkeypatch.setattr(metrics, "PART", 100)
    pd.testing.assert_frame_equal(runs.metrics, whole)


def test_without_numbers_columns_keep_their_types(tmp_path):
    run = write_run(tmp_path, "one")
    types = load_runs(tmp_path).metrics.dtypes
    (run / "metrics.jsonl").write_text("")
    assert load_runs(tmp_path).metrics.dtypes.equals(types)


def test_metrics_of_odd_rows_are_those_that_are_read_one_by_one(tmp_path):
    random = Random(1)
    choices = [1.5, 2, None, True, "text", "1.0", [1], {"x": 1}, float("nan"), 10**400, 2**70]
    lines = ["{broken", "[]", "3", "", "[1,2", "1],[2", '{"kind":"train","step":1,"epoch":0,"a":NaN}']
    for step in range(600):
        row = {
            random.choice(["kind", "kind", "split"]): random.choice(["epoch", "val", "odd"]),
            "step": step,
            "epoch": 0,
        }
        row |= {name: random.choice(choices) for name in random.sample(["a", "b", "c", "value"], random.randint(0, 4))}
        lines.append(json.dumps(row | ({"step": 2**70} if step % 50 == 0 else {})))
    random.shuffle(lines)
    (write_run(tmp_path, "odd") / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "tr']))
    expected = []
    for row in filter(None, (metrics.read_row(line.encode()) for line in lines)):
        texts = {name: row[name] for name in "abc" if isinstance(row.get(name), str)}
        for name in set(row) - set(LONG):
            if row[name] is None or isinstance(row[name], (int, float)):
                place = (row["kind"], row["step"], name)
                expected.append((*place, repr(number(row[name])), sorted(texts.items())))
    found = [
        (row["kind"], row["step"], row["metric"], repr(row["value"]), [(n, row[n]) for n in "abc" if row[n] == row[n]])
        for row in load_runs(tmp_path).metrics.to_dict("records")
    ]
    assert sorted(found) == sorted(expected) and [row[1] for row in found] == [row[1] for row in expected]


def test_metrics_follow_any_selection_of_runs(tmp_path):
    for seed in range(3):
        write_run(tmp_path, f"s{seed}", seed=seed)
    runs = load_runs(tmp_path)
    assert set(runs[runs["seed"] > 0].metrics["run"]) == {"s1", "s2"}
    assert set(pd.concat([runs.head(1), runs.tail(1)]).metrics["run"]) == {"s0", "s2"}


def test_run_being_written_is_read_to_its_last_whole_row(tmp_path):
    run = write_run(tmp_path, "a", epochs=2)
    whole = load_runs(tmp_path).metrics
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "val", "step": 30, "epoch": 2, "lo')
    pd.testing.assert_frame_equal(load_runs(tmp_path).metrics, whole)
    with open(run / "metrics.jsonl", "a") as file:  # a torn row in the middle, as a crash leaves it
        file.write('\n{"kind": "val", "step": 30, "epoch": 2, "loss": 0.25}\n')
    assert load_runs(tmp_path)["last_loss"].item() == 0.25
    (run / "metrics.jsonl").unlink()
    (run / "status.json").unlink()
    row = load_runs(tmp_path).iloc[0]
    assert (row["status"], row["epoch"], len(load_runs(tmp_path).metrics)) == ("created", 0, 0)
    assert np.isnan([row["best_top1"], row["last_loss"], row["seconds"]]).all()


def test_only_runs_that_say_they_are_running_are_asked_for_their_lock(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(status, "held", asked.append)
    for name in ("finished", "failed", "running"):
        run = write_run(tmp_path, name)
        (run / "status.json").write_text(json.dumps({"status": name}))
    assert dict(load_runs(tmp_path)[["name", "status"]].to_numpy()) == {
        "failed": "failed", "finished": "finished", "running": "interrupted",
    }  # fmt: skip
    assert [directory.name for directory in asked] == ["running"]


def test_unreadable_status_is_told_and_hides_no_other_run(tmp_path):
    write_run(tmp_path, "good")
    (write_run(tmp_path, "torn") / "status.json").write_text("{")
    with pytest.warns(UserWarning, match=r"torn/status\.json cannot be read"):
        assert list(load_runs(tmp_path)["status"]) == ["finished", "unreadable"]


def test_number_that_was_not_finite_is_nan_and_kept(tmp_path):
    run = write_run(tmp_path, "a", epochs=1)
    (run / "metrics.jsonl").write_text(json.dumps({"kind": "val", "step": 1, "epoch": 0, "loss": None}) + "\n")
    assert load_runs(tmp_path).metrics["value"].isna().to_list() == [True]


def test_config_written_before_a_field_existed_reads_as_its_default(tmp_path):
    run = write_run(tmp_path, "old")
    config = json.loads((run / "config.json").read_text())
    del config["smoothing"]
    (run / "config.json").write_text(json.dumps(config))
    assert load_runs(tmp_path)["smoothing"].item() == 0.0


def test_unreadable_config_is_left_out_with_a_warning(tmp_path):
    write_run(tmp_path, "good")
    (write_run(tmp_path, "bad") / "config.json").write_text("{")
    with pytest.warns(UserWarning, match="bad"):
        assert list(load_runs(tmp_path)["name"]) == ["good"]


def test_names_select_by_pattern_and_a_single_run_is_a_path(tmp_path):
    for name in ("digits-a", "digits-b", "mnist-a"):
        write_run(tmp_path, name)
    assert list(load_runs(tmp_path, "digits-*")["name"]) == ["digits-a", "digits-b"]
    assert list(load_runs(tmp_path, ["mnist-?", "digits-a"])["name"]) == ["digits-a", "mnist-a"]
    assert list(load_runs(tmp_path / "mnist-a")["name"]) == ["mnist-a"]
    assert list(load_runs(tmp_path / "digits-*")["name"]) == ["digits-a", "digits-b"]


def test_what_is_missing_is_named_with_what_exists(tmp_path):
    with pytest.raises(UsageError, match="research train"):
        load_runs(tmp_path)
    write_run(tmp_path, "digits-a")
    with pytest.raises(UsageError, match="'digit-a'.*did you mean 'digits-a'"):
        load_runs(tmp_path, "digit-a")
    with pytest.raises(UsageError, match="no folder of runs"):
        load_runs(tmp_path / "nowhere")


def test_labels_say_what_differs_other_than_the_seed(tmp_path):
    write_run(tmp_path, "a", seed=0)
    write_run(tmp_path, "b", seed=1)
    write_run(tmp_path, "c", model="resnet20", device="cpu")
    assert load_runs(tmp_path).labels().to_list() == ["model=resnet8", "model=resnet8", "model=resnet20"]
    assert load_runs(tmp_path, ["a", "b"]).labels().to_list() == ["digits resnet8"] * 2
    assert load_runs(tmp_path).changes() == [
        {"epochs": 3},
        {"seed": 1, "epochs": 3},
        {"model": "resnet20", "epochs": 3},
    ]


def test_rows_of_version_0_1_are_read_under_todays_names(tmp_path):
    run = write_run(tmp_path, "old")
    before = load_runs(tmp_path).metrics
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"kind"', '"split"').replace('"train_epoch"', '"epoch"'))
    assert '"split": "epoch"' in (run / "metrics.jsonl").read_text()
    pd.testing.assert_frame_equal(load_runs(tmp_path).metrics, before)


def test_a_run_that_is_named_is_found_without_listing_the_others(tmp_path, monkeypatch):
    for name in ("b", "a", "other"):
        write_run(tmp_path, name)
    whole = load_runs(tmp_path, ["a*", "b*"])
    (tmp_path / "alias").symlink_to("a")
    assert load_runs(tmp_path, "other")["name"].tolist() == ["other"]
    with pytest.raises(UsageError, match="no run in .* is called 'alias'"):
        load_runs(tmp_path, "alias")  # a run is called as its folder is
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("every folder was listed"))
    found = load_runs(tmp_path, ["b", "a"])
    assert found["name"].tolist() == ["a", "b"] and found.equals(whole)
