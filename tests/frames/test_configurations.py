"""What makes runs one configuration, in labels, groups and comparisons alike."""

import json

import pytest
from synthetic_runs import write_run

from research.config import Config
from research.figures.budgets import error_against_cost
from research.figures.curves import epoch_means
from research.frames import load_runs
from research.frames.budgets import budget_points
from research.frames.configurations import configuration, differing, key, methods, number
from research.frames.gram import results_against_k
from research.frames.groups import compare_groups, group_runs, relative
from research.frames.power_grad import OBSERVERS, with_alpha
from research.frames.sparse import sparse_groups
from research.frames.topology import topology_points
from research.hooks import HOOKS

EMA, GRAM = {"decay": 0.8}, {"k": 4.0}
CLOSE = (0.1000001, 0.1000002)  # equal in six digits


def grouped(folder) -> list[list[str]]:
    return [list(group.runs["name"]) for group in group_runs(load_runs(folder))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": CLOSE[0]}, {"lr": CLOSE[1]}),
        ({"hooks": {"gram": {"k": 4.0000001}}}, {"hooks": {"gram": {"k": 4.0000002}}}),
        ({"hooks": {"gram": GRAM, "ema": EMA}}, {"hooks": {"ema": EMA, "gram": GRAM}}),
        ({"data_args": {"jitter": CLOSE[0]}}, {"data_args": {"jitter": CLOSE[1]}}),
        ({"epochs": 2}, {"epochs": 3}),
    ],
    ids=["number", "method's number", "order of methods", "argument", "epochs"],
)
def test_configurations_that_differ_in_little_are_two_and_named_apart(one, other, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, f"one{seed}", seed=seed, **one)
        write_run(tmp_path, f"other{seed}", seed=seed, **other)
    assert grouped(tmp_path) == [["one0", "one1"], ["other0", "other1"]]
    runs = load_runs(tmp_path)
    assert len({group.label for group in group_runs(runs)}) == runs.labels().nunique() == 2
    assert len({name for *_, name in sparse_groups(runs)}) == 2
    groups = group_runs(runs)
    assert [relative(group, groups) for group in groups] == [None, None] or "epochs" in one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"data_args": {"jitter": 1}}, {"data_args": {"jitter": 1.0}}),
        ({"data_args": {"flip": False}}, {}),  # its default
        ({"model_args": {"shortcut": "A"}}, {}),
        ({"data_root": "elsewhere", "processes": 2}, {}),
    ],
    ids=["notation", "default of the data", "default of the network", "place"],
)
def test_what_changes_nothing_is_one_configuration(one, other, tmp_path):
    write_run(tmp_path, "one", seed=0, **one)
    write_run(tmp_path, "other", seed=1, **other)
    assert grouped(tmp_path) == [["one", "other"]]
    assert load_runs(tmp_path).labels().nunique() == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_a_method_at_its_defaults_is_a_group_of_its_own_in_every_table(hook, tmp_path):
    defaults = Config.load({hook: True}).to_dict()["hooks"]
    mlp = {"model": "dense_mlp", "model_args": {"width": 4, "depth": 4, "tc": 2}, "dataset": "digits"}
    for seed in (0, 1):
        write_run(tmp_path, f"plain{seed}", seed=seed, **mlp)
        write_run(tmp_path, f"method{seed}", seed=seed, hooks=defaults, **mlp)
    runs, two = load_runs(tmp_path), [["plain0", "plain1"], ["method0", "method1"]]
    assert grouped(tmp_path) == two
    assert [list(group.runs["name"]) for group, *_ in sparse_groups(runs)] == two
    for names in (runs.labels(), topology_points(runs)["population"], epoch_means(runs)["configuration"]):
        assert names.nunique() == 2
    finished = results_against_k(runs)
    assert finished["n"].tolist() == [2, 2]
    if hook not in OBSERVERS:  # which leave the training what it is
        told = with_alpha(runs)
        assert told.groupby(["network", "alpha"]).size().tolist() == [2, 2]
        assert set(told.loc[told["name"].str.startswith("plain"), "alpha"]) == {1.0}
    plain, method = group_runs(runs)
    assert compare_groups({method: plain})[["n", "n_against", "pairs"]].to_numpy().tolist() == [[2, 2, 2]]


def test_a_simpler_group_has_its_methods_in_the_same_order(tmp_path):
    write_run(tmp_path, "all", hooks={"gram": GRAM, "ema": EMA, "logit_stats": {}})
    write_run(tmp_path, "ordered", hooks={"gram": GRAM, "ema": EMA})
    write_run(tmp_path, "reversed", hooks={"ema": EMA, "gram": GRAM})
    groups = {group.runs["name"].iloc[0]: group for group in group_runs(load_runs(tmp_path))}
    assert relative(groups["all"], [groups["reversed"], groups["ordered"]]) is groups["ordered"]
    assert relative(groups["all"], [groups["reversed"]]) is None


def test_keys_and_words():
    assert key({"a": [1, 2.0]}) == key({"a": (1.0, 2)}) != key({"a": [1, 3]})
    assert configuration({"seed": 3, "lr": 0.2, "model_args.x": 1, "model": "of another version"}) == {
        "lr": 0.2, "model_args.x": 1, "model": "of another version"
    }  # fmt: skip
    assert differing([{"lr": 1, "gram": ""}, {"lr": 1.0}]) == ["gram"]
    assert methods({"lr": 1, "gram.k": 2, "data_args.flip": True, "ema": "", "gram.per": 1}) == ("gram", "ema")
    assert [number(value) for value in (0.1, 2.0, 1e-8, 0.12345678)] == ["0.1", "2", "1e-08", "0.12345678"]


def test_networks_of_unequal_training_are_points_of_their_own(tmp_path):
    small = {"dataset": "digits", "model": "resnet8"}
    for place, lr in enumerate(CLOSE):
        for seed in (0, 1):
            run = write_run(tmp_path, f"run{place}{seed}", lr=lr, seed=seed, **small)
            rows = [{"kind": "val", "step": 1, "epoch": 0, "top1": 60.0 + 10 * place + seed, "loss": 1.0}]
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = error_against_cost(budget_points(load_runs(tmp_path)))
    drawn = {y for line in figure.axes[0].lines if line.get_marker() == "*" for y in line.get_ydata()}
    assert drawn == {39.5, 29.5}  # not their mean, 34.5


def test_networks_that_power_grad_trains_are_named_in_full(tmp_path):
    for place, lr in enumerate(CLOSE):
        write_run(tmp_path, f"run{place}", lr=lr, hooks={"power_grad": {"alpha": 0.5}})
    assert with_alpha(load_runs(tmp_path))["network"].nunique() == 2
