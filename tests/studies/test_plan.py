"""A study says what it compares before it runs, what it could see, and confirms it once on fresh seeds."""

import json
from pathlib import Path

import pytest
import yaml

from research.cli import main
from research.errors import UsageError
from research.runs.plans import read_plan, read_plans
from research.runs.run import Run
from research.studies import sweep as sweeping
from research.studies.plan import confirming
from research.studies.study import expand, read_study
from research.studies.sweep import sweep
from research.training.sources import places

ARMS = {"plain": {}, "k8": {"gram.k": 8}, "k1": {"gram.k": 1}}
NAMED = {"contrasts": [["k8", "plain"]], "seeds": [0, 1], "confirm_seeds": [7, 8, 9]}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Write a study of three arms with these entries and return its path; what it runs is finished at once."""
    monkeypatch.chdir(tmp_path)

    def finish(points):
        for point in points:
            Run.create(point.config).set_status("finished", epoch=1, epochs=1, last_top1=90.0)
        return []

    monkeypatch.setattr(sweeping, "fit_each", finish)
    monkeypatch.setattr(sweeping, "preflight", lambda points: None)

    def write(**entries) -> Path:
        path = tmp_path / "study.yaml"
        given = {"name": "s", "together": True, "base": {"epochs": 1}, "runs": ARMS, **entries}
        path.write_text(yaml.safe_dump(given, sort_keys=False))
        return path

    return write


def there() -> set[str]:
    return {path.parent.name for path in Path("runs").glob("*/config.json")}


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"contrasts": [["k8", "plian"]]}, "'plian' is no arm of this study; did you mean 'plain'"),
        ({"contrasts": [["k8", "k8"]]}, "cannot differ from itself"),
        ({"contrasts": [["k8", "plain"], ["plain", "k8"]]}, "named twice"),
        ({"contrasts": [["k8"]]}, "contrasts"),
        ({"confirm_seeds": [7]}, "nothing to confirm; name contrasts"),
        (NAMED | {"confirm_seeds": [1, 7]}, r"\[1\] stand in seeds too"),
        ({"margin": 0}, "margin=0: must be > 0"),
    ],
)
def test_contrasts_and_seeds_that_cannot_be_meant_are_refused(study, entries, told):
    with pytest.raises(UsageError, match=told):
        expand(read_study(study(**entries)))


def test_an_arm_is_the_name_of_a_run_without_study_and_seed(study):
    points = expand(read_study(study(grid={"lr": [0.1, 0.05]}, seeds=[0, 1])))
    assert {point.dir.name: point.arm for point in points} == {
        f"s-{arm}-lr-{lr}-seed-{seed}": f"{arm}-lr-{lr}" for arm in ARMS for lr in (0.1, 0.05) for seed in (0, 1)
    }


def test_the_study_is_kept_with_its_runs_and_tells_what_was_chosen_before(study):
    path = study(**NAMED)
    assert sweep(path, dry_run=True) == 0
    assert not Path("runs").exists()
    sweep(path)
    sweep(path)
    (plan,) = read_plans(Path("runs"))
    assert [each["text"] for each in plan.said] == [path.read_text()]  # the same is said once
    assert plan.arms == {f"s-{arm}-seed-{seed}": arm for arm in ARMS for seed in (0, 1)}
    sweep(study(**NAMED | {"contrasts": [["k1", "plain"]]}))
    later = read_plan(Path("runs"), "s")
    assert later.contrasts == {("k8", "plain"): True, ("k1", "plain"): False}  # none is forgotten
    assert (plan.confirming, plan.confirmation) == ({}, None)


def test_a_contrast_of_arms_that_have_not_begun_is_chosen_before(study):
    sweep(study(seeds=[0], runs={"plain": {}}))
    sweep(study(seeds=[0], contrasts=[["k8", "k1"], ["k8", "plain"]]))
    assert read_plan(Path("runs"), "s").contrasts == {("k8", "k1"): True, ("k8", "plain"): False}


def test_only_the_arms_of_contrasts_run_on_fresh_seeds_under_another_first_word(study, capsys):
    path = study(**NAMED)
    with pytest.raises(UsageError, match="4 runs of the first result have not ended, such as s-plain-seed-0"):
        sweep(path, confirm=True)
    sweep(path)
    first = there()
    assert main(["sweep", str(path), "--confirm"]) == 0
    fresh = {f"confirm-s-{arm}-seed-{seed}": arm for arm in ("plain", "k8") for seed in (7, 8, 9)}
    assert there() - first == fresh.keys()
    assert json.loads(Path("runs/confirm-s-k8-seed-9/config.json").read_text())["hooks"]["gram"]["k"] == 8
    assert read_plan(Path("runs"), "s").confirming == fresh
    assert main(["sweep", str(path), "--confirm"]) == 0  # the same again continues
    assert "confirming 1 contrasts on fresh seeds, once: [7, 8, 9]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"confirm_seeds": [17, 18, 19]}, r"confirm_seeds=\[17, 18, 19\]: s was confirmed on .* on seeds \[7, 8, 9\]"),
        ({"contrasts": [["k8", "plain"], ["k1", "plain"]]}, r"contrasts \[\['k1', 'plain'\]\]: s was confirmed"),
        ({"confirm_seeds": []}, "names no fresh seeds"),
    ],
)
def test_a_result_is_confirmed_once(study, entries, told):
    sweep(study(**NAMED))
    sweep(study(**NAMED), confirm=True)
    sweep(study(**NAMED))  # says that it does not confirm now, and does not undo it
    with pytest.raises(UsageError, match=told):
        sweep(study(**NAMED | entries), confirm=True)


def finished(point, top1: float) -> None:
    Run.create(point.config).set_status("finished", epoch=1, epochs=1, last_top1=top1)


def test_a_dry_run_tells_what_would_be_seen_from_earlier_runs_of_any_name(study, capsys):
    for point in expand(read_study(study(name="pilot", seeds=[5, 6, 7]))):
        k8 = point.arm == "k8"
        finished(point, 90 + point.config.seed + k8 * {5: 1.0, 6: 2.0, 7: 3.0}[point.config.seed])
    path = study(margin=0.5, contrasts=[["k8", "plain"], ["k8", "k1"]], seeds=list(range(10)))
    sweep(path, dry_run=True)
    # differences 1, 2, 3: their deviation is 1. Two contrasts of ten pairs at 0.025: 1.13; 0.5 points: 41 pairs.
    line = (
        "1.1 points with 10 seeds (80 % power, 2 compared); 0.5 points need 41 seeds; sd of differences 1, of 3 pairs"
    )
    said = capsys.readouterr().out
    assert f"sees  k8 - plain: {line}" in said and f"sees  k8 - k1: {line}" in said


def test_a_dry_run_goes_by_what_the_study_says_where_nothing_was_run(study, capsys):
    sweep(study(**NAMED | {"sd": 2, "seeds": [0, 1, 2, 3, 4]}), dry_run=True)
    # by a table of power (t tests of pairs, two-sided 5 %): five pairs show 1.68 deviations with 80 %
    assert "sees  k8 - plain: 3.4 points with 5 seeds" in capsys.readouterr().out
    sweep(study(**NAMED), dry_run=True)
    assert "unknown, none was run on several seeds; give sd" in capsys.readouterr().out
    sweep(study(seeds=[0, 1, 2, 3, 4], sd=2), dry_run=True)
    assert "sees  any two arms, of no contrast: 3.4 points with 5 seeds" in capsys.readouterr().out


COPIES = {"moved": {"set.sparsity": 0.9}, "other": {}, "copy": {"static_sparse.copy_mask_from": "arm:moved"}}


def test_an_arm_starts_from_the_run_of_another_with_its_own_seed(study):
    path = study(runs=COPIES, seeds=[0, 3])
    points = {point.dir.name: point for point in expand(read_study(path))}
    copies = [points[f"s-copy-seed-{seed}"] for seed in (0, 3)]
    assert {repr(point.config.hooks) for point in copies} == {repr(copies[0].config.hooks)}  # one configuration
    assert [places(point.config) for point in copies] == [[points[f"s-moved-seed-{seed}"].dir] for seed in (0, 3)]


def test_what_compared_arms_start_from_is_run_on_the_fresh_seeds_too(study):
    path = study(runs=COPIES, seeds=[0], contrasts=[["copy", "other"]], confirm_seeds=[7])
    sweep(path)
    sweep(path, confirm=True)
    assert {f"confirm-s-{arm}-seed-7" for arm in COPIES} <= there()
    config = Run.open("runs/confirm-s-copy-seed-7").config
    assert places(config) == [Path("runs/confirm-s-moved-seed-7").resolve()]


def test_an_arm_may_begin_with_the_weights_or_the_training_of_another(study):
    runs = {"base": {}, "tuned": {"init": "arm:base"}, "longer": {"continue_from": "arm:base", "epochs": 9}}
    design = read_study(study(runs=runs, seeds=[3], contrasts=[["tuned", "longer"]], confirm_seeds=[7]))
    points = {point.arm: point for point in expand(design)}
    assert places(points["tuned"].config) == places(points["longer"].config) == [points["base"].dir]
    assert {point.arm for point in confirming(design)} == runs.keys()


def test_an_arm_that_is_none_is_refused_where_a_run_is_to_start_from_it(study):
    with pytest.raises(UsageError, match="copy_mask_from: 'mvoed' is no arm of this study; did you mean 'moved'"):
        expand(read_study(study(runs=COPIES | {"copy": {"static_sparse.copy_mask_from": "arm:mvoed"}})))
