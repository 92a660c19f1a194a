"""What was planned beside what came of it: contrasts on their own and on fresh seeds, and what values were tried."""

import json

import pytest
from synthetic_runs import write_run

from research.frames import load_runs
from research.frames.plans import contrasts, planned_text, plans_of, trials
from research.runs.plans import record
from research.runs.status import DIVERGED

TOP1 = {  # of each run, on seeds 0 to 3, and on the fresh ones
    ("plain", ""): [90.0, 91.0, 92.0, 93.0],
    ("k8", ""): [91.0, 92.5, 93.0, 94.5],  # 1 or 1.5 above plain
    ("k1", ""): [90.0, 91.5, 91.5, 93.0],
    ("plain", "confirm-"): [80.0, 82.0, 84.0],
    ("k8", "confirm-"): [80.5, 82.5, 84.8],
}


def with_top1(directory, top1: float) -> None:
    """Let the last epoch of a written run have this accuracy."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "val"][-1]
    last["top1"] = top1
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = json.loads((directory / "status.json").read_text()) | {"last_top1": top1}
    (directory / "status.json").write_text(json.dumps(status))


@pytest.fixture
def folder(tmp_path):
    """Runs of a study ``s`` of three arms, and of two on fresh seeds."""
    for (arm, first), found in TOP1.items():
        for seed, top1 in enumerate(found, start=100 if first else 0):
            with_top1(write_run(tmp_path, f"{first}s-{arm}-seed-{seed}", seed=seed, gram=arm != "plain"), top1)
    return tmp_path


def say(folder, begun=(), confirm=False, **more):
    arms = {f"s-{arm}-seed-{seed}": arm for arm in ("plain", "k8", "k1") for seed in range(4)}
    fresh = {f"confirm-s-{arm}-seed-{seed}": arm for arm in ("plain", "k8") for seed in (100, 101, 102)}
    said = {"text": "", "contrasts": [["k8", "plain"]], "margin": None, "seeds": [0, 1, 2, 3], "select": {}}
    said |= {"confirm_seeds": [100, 101, 102], "arms": arms, "confirming": fresh if confirm else {}} | more
    record(folder, "s", said, begun)


def first_runs(folder):
    return load_runs(folder, "s-*")


def test_fresh_seeds_stand_beside_the_first_result_and_are_not_in_it(folder):
    say(folder)
    say(folder, begun=["k8", "plain"], confirm=True)
    ((_, plan),) = plans_of(first_runs(folder))
    first, fresh = contrasts(folder, plan)
    assert first[["arm", "against", "n", "chosen"]].values.tolist() == [["k8", "plain", 4, "planned"]]
    assert first["difference"].item() == pytest.approx(-1.25)  # of the error
    assert (fresh["n"].item(), fresh["difference"].item()) == (3, pytest.approx(-0.6))
    text = planned_text(first_runs(folder))
    (row,) = [line for line in text.splitlines() if line.startswith("| k8")]
    assert "| planned | -1.25 [-1.71, -0.79] |" in row and "| -0.60 [-1.03, -0.17] |" in row
    assert "Fresh seeds: 100, 101, 102." in text and "pool" not in text
    assert "other tables in it pool them" in planned_text(load_runs(folder))


def test_a_contrast_that_was_named_later_says_so_for_ever(folder):
    say(folder)
    say(folder, begun=["k8", "plain", "k1"], contrasts=[["k1", "plain"]])
    ((_, plan),) = plans_of(first_runs(folder))
    first, fresh = contrasts(folder, plan)
    assert first[["arm", "chosen"]].values.tolist() == [["k8", "planned"], ["k1", "after"]]
    assert fresh.empty
    assert "Not confirmed on fresh seeds." in planned_text(first_runs(folder))


def test_a_study_without_contrasts_or_without_results_says_so(folder):
    assert planned_text(first_runs(folder)) == ""
    say(folder, contrasts=[])
    assert "The study s named no contrast: all that is compared was chosen after." in planned_text(first_runs(folder))
    say(folder, contrasts=[["k8", "k2"]])
    assert "Named, and without a result yet: k8 - k2." in planned_text(first_runs(folder))


def test_runs_that_have_not_finished_are_no_result(folder):
    say(folder)
    path = folder / "s-k8-seed-3" / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    ((_, plan),) = plans_of(first_runs(folder))
    assert contrasts(folder, plan)[0]["pairs"].item() == 3


def test_what_was_tried_is_a_table_with_what_was_chosen(folder):
    select = {"over": "lr", "values": [0.1, 0.2, 0.4], "on": {"holdout": 500}}
    tried = {("k8", 0.1): 50.0, ("k8", 0.2): 70.0, ("k8", 0.4): None, ("plain", 0.1): 60.0, ("plain", 0.2): 55.0}
    names = {}
    for (arm, value), top1 in tried.items():
        names[name := f"select-s-{arm}-lr-{value}-seed-1000"] = [arm, value]
        directory = write_run(folder, name, seed=1000, lr=value)
        with_top1(directory, top1 or 10.0)
        if top1 is None:
            (directory / "status.json").write_text(json.dumps({"status": "failed", "message": f"nan; {DIVERGED}"}))
    say(folder, select=select, trying=names | {"select-s-plain-lr-0.4-seed-1000": ["plain", 0.4]})
    table = trials(first_runs(folder))
    assert table[["arm", "value", "chosen"]].values.tolist() == [
        ["k8", 0.1, False],
        ["k8", 0.2, True],
        ["k8", 0.4, False],
        ["plain", 0.1, True],
        ["plain", 0.2, False],
    ]
    assert table["top1"].isna().tolist() == [False, False, True, False, False]
    assert (
        "Each arm has its own lr, chosen on 500 training images held out: k8 0.2; plain 0.1, at the edge of "
        "what was tried." in planned_text(first_runs(folder))
    )
