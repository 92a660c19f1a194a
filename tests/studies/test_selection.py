"""Each arm at its own best value: chosen on training images that are held out, tested once."""

import json
import math
from pathlib import Path

import pytest
import yaml

from research.cli import main
from research.errors import Failure, UsageError
from research.runs.plans import read_plan
from research.runs.run import Run
from research.runs.status import DIVERGED
from research.studies import cluster, stages
from research.studies import sweep as sweeping
from research.studies.stages import everything
from research.studies.study import read_study
from research.studies.sweep import sweep

SELECT = {"over": "lr", "values": [0.03, 0.1, 0.3], "on": {"holdout": 100}}
ARMS = {"plain": {}, "k8": {"gram.k": 8}}
HELD_OUT = {
    ("plain", 0.03): 80,
    ("plain", 0.1): 90,
    ("plain", 0.3): 85,
    ("k8", 0.03): 70,
    ("k8", 0.1): 70,
    ("k8", 0.3): 95,
}


@pytest.fixture
def held_out():
    """Top-1 on the images held out, by arm and rate, which a test may change; None: the run crashes, -inf: diverges."""
    return dict(HELD_OUT)


@pytest.fixture
def study(tmp_path, monkeypatch, held_out):
    """Write a study of two arms with these entries and return its path; its runs end at once."""
    monkeypatch.chdir(tmp_path)

    def end(points):
        for point in points:
            run, arm = Run.create(point.config), "k8" if point.config.hooks else "plain"
            top1 = held_out[arm, point.config.lr] if point.config.data_args.get("holdout") else 50.0
            if top1 is None:
                run.set_status("failed", message="lightning")
            elif top1 == -math.inf:
                run.set_status("failed", message=str(run.diverged("loss is nan", 3)))
            else:
                run.set_status("finished", epoch=1, epochs=1, last_top1=top1)
        return [point.dir.name for point in points if point.status["status"] == "failed"]

    monkeypatch.setattr(sweeping, "fit_each", end)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)

    def write(select=None, **entries) -> Path:
        path = tmp_path / "study.yaml"
        given = {"name": "s", "together": True, "base": {"epochs": 1}, "runs": ARMS, "seeds": [0, 1], **entries}
        path.write_text(yaml.safe_dump(given | {"select": SELECT | (select or {})}, sort_keys=False))
        return path

    return write


def there() -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in Path("runs").glob("*/config.json")}


def rates() -> dict[str, float]:
    """The rate of every run that is tested."""
    return {name: config["lr"] for name, config in there().items() if not config["data_args"].get("holdout")}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"select": {"on": "holdout"}}, "select.on='holdout': expected a mapping"),
        ({"select": {"on": {"test": 5}}}, "expected {holdout: N}, a number of training images"),
        ({"select": {"values": [0.1]}}, "expected several values, each once"),
        ({"select": {"vales": [0.1]}}, "did you mean 'select.values'"),
        ({"select": {"over": "rl"}}, "unknown parameter 'rl'"),
        ({"select": {"over": "seed"}}, "a seed is not chosen"),
        ({"select": {"seeds": [1, 5]}}, r"\[1\] stand in another list too"),
        ({"select": {"seeds": []}}, "expected a seed or more"),
        ({"grid": {"lr": [0.1, 0.2]}}, "the grid decides it"),
        ({"runs": {"plain": {"lr": 0.1}, "k8": {}}}, "both decide lr; give one"),
        ({"base": {"data_args": {"holdout": 50}}}, "data_args.holdout=50: select.on holds images out"),
        ({"base": {"dataset": "linear", "model": "dense_mlp"}}, "holdout"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(study, given, told):
    with pytest.raises(UsageError, match=told):
        list(stages.stages(study(**given), ahead=True))


def test_each_arm_is_tested_at_the_rate_that_was_best_on_images_held_out(study, capsys):
    assert sweep(study()) == 0
    assert rates() == {f"s-{arm}-seed-{s}": lr for arm, lr in (("plain", 0.1), ("k8", 0.3)) for s in (0, 1)}
    trying = {name: config for name, config in there().items() if name.startswith("select-")}
    assert trying.keys() == {f"select-s-{arm}-lr-{lr}-seed-1000" for arm, lr in HELD_OUT}
    assert {config["data_args"]["holdout"] for config in trying.values()} == {100}
    said = capsys.readouterr().out
    assert "plain: lr=0.1 of [0.03, 0.1, 0.3], 90.00 % of the images held out\n" in said
    assert "k8: lr=0.3 of [0.03, 0.1, 0.3], 95.00 % of the images held out, the largest of all: a better one" in said
    plan = read_plan(Path("runs"), "s")
    assert plan.trying["select-s-k8-lr-0.03-seed-1000"] == ("k8", 0.03)
    assert plan.arms == {f"s-{arm}-seed-{s}": arm for arm in ARMS for s in (0, 1)}


def test_the_first_of_equals_is_taken_and_told(study, held_out, capsys):
    held_out["k8", 0.3] = 70
    sweep(study())
    assert rates()["s-k8-seed-0"] == 0.03
    assert "as good as [0.1, 0.3], which stand behind it" in capsys.readouterr().out


def test_the_mean_over_seeds_chooses(study, held_out):
    sweep(study(select={"seeds": [1000, 1001]}))
    assert sum(name.startswith("select-") for name in there()) == 12


def test_a_rate_that_diverges_loses_and_one_that_crashes_stops_the_study_there(study, held_out, capsys):
    held_out["plain", 0.1] = -math.inf
    assert sweep(study()) == 0
    assert rates()["s-plain-seed-0"] == 0.3
    held_out["plain", 0.1] = None
    path = study(name="t")
    with pytest.raises(Failure, match=r"plain: no choice yet: lr of \[0.1\] has not ended well"):
        sweep(path)
    assert not any(name.startswith("t-") for name in there())
    held_out["plain", 0.1] = 90  # the same command tries that one alone again
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("select-t-*/status.json")}
    assert sweep(path) == 0
    changed = [path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["select-t-plain-lr-0.1-seed-1000"]


def test_an_arm_without_any_choice_is_named(study, held_out):
    held_out |= {key: -math.inf for key in HELD_OUT if key[0] == "k8"}
    with pytest.raises(Failure, match=r"k8: diverged with every lr of \[0.03, 0.1, 0.3\]; add others"):
        sweep(study())


def test_a_grid_that_grows_changes_no_run_that_was_tested(study, held_out):
    sweep(study())
    held_out |= {("plain", 1.0): 20, ("k8", 1.0): 96}
    grown = study(select={"values": [0.03, 0.1, 0.3, 1.0]})
    with pytest.raises(UsageError, match=r"s-k8-seed-0 belongs to .*lr: 0.3 there, 1.0 asked.*before the test set is"):
        sweep(grown)
    assert rates() == {"s-plain-seed-0": 0.1, "s-plain-seed-1": 0.1, "s-k8-seed-0": 0.3, "s-k8-seed-1": 0.3}


def test_some_arms_alone_choose_and_run(study):
    sweep(study(), only="*-k8-seed-0")
    assert rates() == {"s-k8-seed-0": 0.3}
    assert sum(name.startswith("select-") for name in there()) == 3


def test_what_is_confirmed_runs_at_what_was_chosen(study):
    path = study(contrasts=[["k8", "plain"]], confirm_seeds=[7])
    sweep(path)
    sweep(path, confirm=True)
    assert rates()["confirm-s-k8-seed-7"] == 0.3
    assert len(everything(path)) == 6 + 4 + 2 == len(there())


def test_a_dry_run_tells_of_both_stages_and_makes_nothing(study, capsys):
    assert main(["sweep", str(study()), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 runs, 0 finished, 6 to run" in said and "4 runs, 0 finished, 4 to run" in said
    assert said.index("first lr is chosen for each of 2 arms") < said.index("shown with the first lr that is tried")
    assert not Path("runs").exists()


def test_status_and_stop_know_the_runs_that_choose(study, capsys):
    path = study()
    sweep(path)
    capsys.readouterr()
    assert cluster.show_status(path) == 0
    assert "select-s-plain-lr-0.03-seed-1000" in capsys.readouterr().out
    assert main(["stop", str(path)]) == 0
    assert "select-s-plain-lr-0.03-seed-1000" in capsys.readouterr().out


def test_diverged_is_in_the_message_that_a_run_leaves(study):
    run = Run.create(everything(study())[0].config)
    assert DIVERGED in str(run.diverged("loss is nan", 3))
    assert read_study(study()).select["over"] == "lr"
