"""Frames of sparse training count what the masks hold, and figures draw what is in them."""

import json
import math
import shutil

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from research import load_runs
from research.errors import UsageError
from research.figures.sparsity import (
    coverage_and_survival,
    dense_looks,
    density_by_layer,
    error_against_density,
    look,
    reallocation,
)
from research.figures.style import number_log_axis, style
from research.frames.sparse import densities_over_time, events, network_history, published_sparse, sparse_points
from research.frames.sparse_results import against_static, beside_published, markdown, summary
from research.runs.run import Run
from research.training.loop import fit

WEIGHTS = 64 * 300 + 300 * 100 + 100 * 10  # of the digits' LeNet-300-100, which has 410 biases
DSR = {"sparsity": 0.9, "period": "3", "k": 300, "threshold": 0.02}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of DSR and one run each of other methods, two epochs of 11 steps."""
    from research.config import Config

    folder = tmp_path_factory.mktemp("sparse") / "runs"
    base = {"dataset": "digits", "model": "mnist_mlp", "epochs": 2, "lr": 0.05, "device": "cpu", "threads": 1}
    base |= {"runs": str(folder), "model_args": {"batch_norm": False}}
    for name, given in {
        "dense": {},
        "small": {"model_args": {"batch_norm": False, "hidden": [20, 10]}},
        "er": {"hooks": {"static_sparse": {"sparsity": 0.9, "distribution": "er"}}},
        "static": {"hooks": {"static_sparse": {"sparsity": 0.9}}},
        "prune": {"hooks": {"prune": {"sparsity": 0.9, "iterations": 4}}},
        "tied": {"hooks": {"tied": {"sparsity": 0.9}}},
        "dsr-0": {"hooks": {"dsr": DSR}},
        "dsr-1": {"hooks": {"dsr": DSR}, "seed": 1},
    }.items():
        fit(Run.create(Config.load(base | {"name": name} | given)))
    return load_runs(folder)


@pytest.fixture(scope="module")
def results(runs):
    return summary(sparse_points(runs)).set_index("configuration")


def test_configurations_are_named_by_method_sparsity_and_what_else_differs(results):
    assert list(results.index) == [
        "dense",
        "small dense hidden=[20, 10]",
        "static sparse 0.9 distribution=er",
        "static sparse 0.9",
        "DSR 0.9",
        "pruning 0.9",
        "tied 0.9",
    ]
    assert results.loc["DSR 0.9", "n"] == 2 and results["n"].sum() == 8


def test_learnable_parameters_are_active_weights_bank_values_and_all_that_is_dense(results):
    kept = 1920 + 3000 + 100 + 410
    small = 64 * 20 + 20 * 10 + 10 * 10 + 40
    expected = {"dense": WEIGHTS + 410, "small dense hidden=[20, 10]": small, "DSR 0.9": kept, "tied 0.9": kept}
    expected |= {"static sparse 0.9": kept, "pruning 0.9": kept}
    assert results["params"][list(expected)].to_dict() == expected
    assert results["density"].to_dict() == pytest.approx((100 * results["params"] / (WEIGHTS + 410)).to_dict())


def test_masks_leave_the_operations_of_the_dense_network_and_say_what_zeros_would_save(results):
    masked = ["static sparse 0.9", "DSR 0.9", "pruning 0.9", "tied 0.9"]
    assert (results["mult_adds"][masked] == results["mult_adds"]["dense"]).all()
    dense, static = results.loc["dense"], results.loc["static sparse 0.9"]
    assert dense["sparse_mult_adds"] == dense["mult_adds"] == WEIGHTS + 410 + 400  # a ReLU costs 1 an element
    assert static["sparse_mult_adds"] == pytest.approx(0.1 * (WEIGHTS + 410) + 400)
    assert results["sparse_mult_adds"]["tied 0.9"] == dense["mult_adds"]
    assert (results["step_ms"] > 0).all()


def test_layers_start_at_their_first_masks_and_keep_the_sum(runs):
    layers = densities_over_time(runs)
    dsr = layers[layers["run"] == "dsr-0"]
    assert set(dsr.loc[dsr["trained"] == 0, "density"]) == {0.1}
    assert set(dsr["trained"]) == {0, 1, 2} and set(dsr.groupby("trained")["active"].sum()[1:]) == {5020}
    assert (layers.loc[(layers["run"] == "prune") & (layers["trained"] == 0), "density"] == 1).all()


def test_coverage_and_survival_count_from_the_first_masks_on(runs):
    history = network_history(runs).set_index(["run", "trained"])
    assert (history.loc["prune", "coverage"] == 1).all()  # everything was active once
    assert history.loc[("prune", 2), "survived"] == pytest.approx(5020 / WEIGHTS)
    assert (history.loc["static", ["kept", "survived"]] == 1).all().all()
    assert history.loc["static", "coverage"].tolist() == pytest.approx([5020 / WEIGHTS] * 2)
    killed = events(runs).query("run == 'dsr-0' and epoch == 0")["pruned"]
    first = history.loc[("dsr-0", 1)]
    assert 1 - killed.sum() / 5020 <= first["survived"] == first["kept"] < 1
    # what grows in the first event was never active, what grows later may have been
    assert 5020 + killed.iloc[0] <= round(first["coverage"] * WEIGHTS) <= 5020 + killed.sum()


def test_events_carry_thresholds_and_what_was_asked_for(runs):
    found = events(runs)
    dsr = found[found["run"] == "dsr-0"].sort_values("step")
    assert dsr["step"].tolist() == [4, 7, 10, 13, 16, 19, 22] and set(dsr["k"]) == {300.0}
    assert dsr["next_threshold"].tolist()[:-1] == dsr["threshold"].tolist()[1:]
    assert (dsr["pruned"] == dsr["grown"]).all()
    assert found.loc[found["run"] == "prune", "k"].isna().all()


def test_published_sizes_are_those_of_the_paper():
    known = published_sparse()
    sizes = known.set_index(["method", "model", "sparsity"]).sort_index()["params"]
    assert set(sizes["dsr", "mnist_mlp", 0.98]) == {6_144} and set(sizes["dsr", "mnist_mlp", 0.99]) == {3_482}
    assert abs(sizes["dsr", "wrn-28-2", 0.9].min() - 161_229) < 100  # every layer's count is rounded down there
    assert abs(sizes["dsr", "resnet50", 0.8].min() - 7_377_320) < 1_000
    assert len(published_sparse(verified=False)) - len(known) == 22
    assert set(published_sparse(["wrn-28-2"])["model"]) == {"wrn-28-2"}


def test_results_stand_beside_published_ones_of_equal_method_and_sparsity():
    rows = {"configuration": ["a", "b", "c", "d"], "method": ["dsr", "small", "static_sparse", "dense"]}
    rows |= {
        "dataset": ["mnist"] * 4,
        "model": ["mnist_mlp"] * 4,
        "sparsity": [0.98, math.nan, 0.98, math.nan],
        "density": [2, 1.98, 2, 100],
    }
    rows |= {"distribution": ["uniform", "uniform", "er", "uniform"], "epochs": [3] * 4, "n": [1] * 4}
    table = pd.DataFrame(rows | {"top1": [95.0] * 4, "std": [math.nan] * 4})
    beside = beside_published(table, published_sparse())
    found = beside.groupby("configuration")["top1 published"].apply(list).to_dict()
    assert found == {"a": [95.073, 94.317, 98.14], "b": [92.067], "d": [98.237, 98.69]}
    assert beside_published(table.assign(dataset="digits"), published_sparse()).empty
    more = dict.fromkeys(["params", "mult_adds", "sparse_mult_adds", "step_ms"], 1.0)
    lines = markdown(table.assign(**more), published_sparse()).splitlines()
    assert lines[3].startswith("| b | 1 | 95.00 | 92.07 ± 0.48 (3) | 1 | 1.98 |") and len(lines) == 6


def test_every_figure_draws_its_frame(runs):
    points = sparse_points(runs)
    figure = error_against_density(points, published_sparse(["mnist_mlp"]).assign(dataset="digits"))
    (axis,) = figure.axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", "log")
    assert len([line for line in axis.lines if line.get_zorder() == 4]) == 7  # a mean each
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"DSR", "tied", "own, Erdos-Renyi", "published, other epochs"} <= labels
    by_layer = density_by_layer(densities_over_time(runs))
    assert {a.get_title() for a in by_layer.axes} == {"DSR 0.9", "pruning 0.9"}
    assert len(reallocation(events(runs)).axes[0].lines) == 2  # a line a run
    shares = coverage_and_survival(network_history(runs))
    assert [len(a.lines) for a in shares.axes] == [5 - 1] * 3
    assert all(isinstance(each, Figure) for each in (figure, by_layer, shares))


def test_arms_of_one_budget_stand_in_its_strip_each_in_a_place_of_its_own():
    arms = {"dense": ("dense", 100.0, [98, 98.2]), "static": ("static_sparse", 2.3, [85, 85.4])}
    arms |= {"RigL": ("rigl", 2.31, [96.5, 84]), "tied": ("tied", 2.4, [96, 96.2]), "DSR": ("dsr", 1.3, [93, 93.2])}
    rows = [
        {"configuration": name, "method": method, "density": density, "seed": seed, "top1": top1, "epochs": 3}
        for name, (method, density, results) in arms.items()
        for seed, top1 in enumerate(results)
    ]
    points = pd.DataFrame(rows).assign(dataset="mnist", distribution="uniform")
    known = published_sparse(["mnist_mlp"])
    (axis,) = error_against_density(points, known).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1.3", "2.3-2.4", "100"]
    means = {round(line.get_ydata()[0], 3): line.get_xdata()[0] for line in axis.lines if line.get_zorder() == 4}
    static, rigl, tied = (means[error] for error in (14.8, 9.75, 3.9))
    assert static < rigl < tied and means[6.9] < static and tied < means[1.9]
    low, high = sorted(line.get_xdata()[0] for line in axis.lines if line.get_color() == "0.8")[:2]  # ends of strips
    assert low < static and tied < high
    dots = {(float(x), round(float(y), 3)) for each in axis.collections for x, y in each.get_offsets()}
    assert {(rigl, 3.5), (rigl, 16.0)} <= dots  # a mean of 9.75 says neither


def test_every_arm_is_compared_with_the_static_one_of_its_sparsity():
    arms = {"uniform": ("static_sparse", "uniform", 0.9, 80), "er": ("static_sparse", "er", 0.9, 90)}
    arms |= {
        "DSR": ("dsr", "uniform", 0.9, 92),
        "DSR 0.99": ("dsr", "uniform", 0.99, 50),
        "dense": ("dense", "uniform", None, 98),
    }
    rows = [
        {
            "configuration": name,
            "method": method,
            "distribution": spread,
            "sparsity": sparsity,
            "seed": seed,
            "top1": top1 + jitter,
        }
        for name, (method, spread, sparsity, top1) in arms.items()
        for seed, jitter in enumerate(([0, 1, 2], [0, 1.5, 2])[method == "dsr"])
    ]
    points = pd.DataFrame(rows).assign(dataset="mnist", model="mnist_mlp").astype({"sparsity": float})
    table = against_static(points)
    assert table[["arm", "against"]].to_numpy().tolist() == [["uniform", "er"], ["DSR", "er"]]
    assert table["difference"].tolist() == pytest.approx([-10, 2 + 0.5 / 3]) and math.isnan(table["p"][0])
    chosen = against_static(points, [["DSR", "dense"]], margin=1)
    assert chosen[["arm", "against"]].to_numpy().tolist() == [["DSR", "dense"]] and chosen["needed"].notna().all()


def test_what_cannot_be_drawn_is_said(runs):
    static = runs[runs["name"] == "static"]
    with pytest.raises(UsageError, match="no run has had a rewiring event"):
        events(static)
    with pytest.raises(UsageError, match="no layer changes its density"):
        density_by_layer(densities_over_time(static))
    with pytest.raises(UsageError, match="no event has a threshold"):
        reallocation(events(runs[runs["name"] == "prune"]))
    with pytest.raises(UsageError, match="no run has finished an epoch with masks"):
        densities_over_time(runs[runs["name"] == "dense"])


@pytest.mark.parametrize(("low", "high"), [(12.0, 18.0), (0.21, 0.49), (3.0, 3.0001), (1.0, 1000.0)])
def test_a_log_axis_always_has_numbers(low, high):
    with style():
        figure, axis = plt.subplots()
        axis.plot([1, 2], [low, high])
        axis.set_yscale("log")
        number_log_axis(axis.yaxis)
        figure.canvas.draw()
        bottom, top = axis.get_ylim()
        shown = [tick.get_text() for tick in axis.yaxis.get_ticklabels() if bottom <= tick.get_position()[1] <= top]
        plt.close(figure)
    assert len([text for text in shown if text]) >= 2 and bottom <= low <= high <= top


def test_dense_networks_that_methods_train_differently_do_not_look_alike():
    names = ["dense", "dense gram.k=8", "dense power_grad.alpha=0.3"]
    points = pd.DataFrame({"configuration": names, "method": "dense"})
    looks = dense_looks(points)
    assert list(looks) == names and len(set(looks.values())) == 3 and looks["dense"] == look("dense")


def test_a_run_whose_network_cannot_be_counted_spoils_no_other(runs, tmp_path):
    for name in ("dense", "static"):
        shutil.copytree(runs.set_index("name").loc[name, "dir"], tmp_path / name)
    shutil.copytree(tmp_path / "static", tmp_path / "odd")
    stored = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(
        json.dumps(stored | {"dataset": "imagefolder", "data_args": {"image_size": 8}})
    )
    with pytest.warns(UserWarning, match="odd is left out: imagefolder: its classes are not known"):
        points = sparse_points(load_runs(tmp_path))
    assert set(points["run"]) == {"dense", "static"}
    with pytest.warns(UserWarning, match="odd is left out"):
        assert set(densities_over_time(load_runs(tmp_path))["run"]) == {"static"}
