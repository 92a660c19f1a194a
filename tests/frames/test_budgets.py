"""Error against cost: the published points, the frames made of own runs, the figures, the notebook and its studies."""

import json
import re
from collections import Counter

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import cells
from synthetic_runs import write_run

from research.config import Config
from research.errors import UsageError
from research.figures.budgets import cost_by_layer, error_against_cost, look, teacher_curves
from research.frames import load_runs
from research.frames.budgets import budget_points, network_costs, published_points, training_losses
from research.frames.published import load_published
from research.layers.selection import layout
from research.layers.spec import parse_spec
from research.log import entries
from research.models import create_model
from research.studies.study import expand, read_study
from research.trained.network_cost import network_cost

SMALL = {"dataset": "cifar10", "model": "wrn-10-1", "data_args": {"crop": "none", "image_size": 16}}
TEACHER = {"distill": {"teacher": "dense0"}}
ERRORS = {"dense": (40.0, 41.0), "tt": (50.0, 53.0), "taught": (47.0, 49.0)}
ABOUT = {"wrn-budgets": [6e5, 1.2e6, 2.4e6], "darts-budgets": [4.8e5, 8e5, 1.4e6], "imagenet-budgets": [4.35e6, 1.76e7]}
POOLING = {
    "wide_resnet50_2": 49 * 2048
}  # the published code's last pooling is a module that counts; ours adapts to sizes
INPUTS = {"wrn-28-10": (3, 32, 32), "darts": (3, 32, 32), "wide_resnet50_2": (3, 224, 224)}


@pytest.fixture
def runs(here):
    """Two seeds of a dense network, of one with substitutes, and of that with a dense one as its teacher."""
    given = {"dense": {}, "tt": {"substitute": "tt:0.8"}, "taught": {"substitute": "tt:0.8", "hooks": TEACHER}}
    for name, config in given.items():
        for seed, error in enumerate(ERRORS[name]):
            stored = Config.load(SMALL, config, {"seed": seed}).to_dict()
            run = write_run(
                here / "runs", f"{name}{seed}", **{k: stored[k] for k in stored if k not in ("name", "runs")}
            )
            rows = [{"kind": "val_teacher", "step": 0, "epoch": 0, "top1": 58.5}] if name == "taught" else []
            for epoch in range(2):
                at = {"step": epoch, "epoch": epoch}
                rows.append({"kind": "train_epoch", **at, "loss": 3.0 - epoch, "top1": 50.0})
                rows.append({"kind": "val", **at, "loss": 1.0, "top1": 100 - error, "top5": 90.0})
                if name == "taught":
                    rows.append({"kind": "distill", **at, "at": 0.75, "kd": 0.0, "at.group1": 2e-4, "at.group2": 1e-4})
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            told = {"status": "finished", "epoch": 2, "best_top1": 100 - error, "last_top1": 100 - error}
            (run / "status.json").write_text(json.dumps(told))
    return load_runs(here / "runs")


# -- published ------------------------------------------------------------------------------------------------------


def test_table_keeps_every_row_with_where_it_comes_from():
    table = load_published("cheap-convs")
    assert len(table) == 142 and table["row_id"].is_unique
    assert set(table["source"]) == {"log", "acdc-log", "figure"} and not table["date_as_written"].isna().any()


@pytest.mark.parametrize(
    ("model", "family", "setting", "error", "params"),
    [
        ("wrn-28-10", "tt", "0.7", 3.60, 2_413_390),
        ("wrn-28-10", "generic", "0.24", 3.73, 2_344_906),
        ("wrn-28-10", "sephashed", "0.05", 4.85, 568_426),
        ("darts", "tt", "0.59", 3.15, 1_403_184),
        ("darts", "sephashed", "0.38", 3.19, 1_415_905),
        ("wide_resnet50_2", "sephashed", "0.58", 24.52, 17_608_779),
        ("wide_resnet50_2", "tt", "0.75", 24.89, 17_578_648),
    ],
)
def test_points_are_the_published_ones(model, family, setting, error, params):
    points = published_points([model]).set_index(["family", "setting"]).loc[[(family, setting)]]
    points = points[points["source"] == "figure"]
    assert len(points) == 1 and points["distilled"].all()
    assert (points["top1_err"].item(), points["params"].item()) == (error, params)


def test_rows_without_a_size_a_number_or_a_known_teacher_are_no_points():
    points = published_points()
    assert points[["params", "top1_err"]].notna().all().all()
    dropped = load_published("cheap-convs").query("kind == 'accuracy'")
    assert (
        len(points)
        == (
            (dropped["distilled"] != "unknown")
            & pd.to_numeric(dropped["top1_err"], errors="coerce").notna()
            & dropped["params"].notna()
        ).sum()
    )


@pytest.mark.parametrize("model", INPUTS)
def test_published_sizes_are_those_that_are_counted_here(model):
    points = published_points([model])
    points = points[(points["source"] == "figure") & (points["setting"] != "")]
    with torch.device("meta"):
        dense = create_model(model)
    found = layout(dense, parse_spec("sep"), INPUTS[model])
    for point in points.itertuples():
        spec = parse_spec(f"{point.family}:{point.setting}")
        assert found.params(spec) == point.params, spec
        if point.mult_adds == point.mult_adds:
            counted = found.mult_adds(spec, frozenset({"acdc"})) + POOLING.get(model, 0)
            assert counted == pytest.approx(point.mult_adds, rel=5e-6), spec
    assert len(points) >= 8


# -- studies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ABOUT, "budgets-small"])
def test_study_trains_each_network_with_and_without_its_own_dense_teacher(request, name):
    folder = request.config.rootpath / "notebooks" / "studies"
    students = [p.config for p in expand(read_study(folder / f"{name}.yaml"))]
    teachers = {p.config.run_name: p.config for p in expand(read_study(folder / f"{name}-teacher.yaml"))}
    taught = [config for config in students if "distill" in config.hooks]
    network = lambda config: (config.model, config.substitute, config.seed)  # noqa: E731
    taught_as = Counter(json.dumps(config.hooks["distill"], sort_keys=True) for config in taught)
    plain = sorted(network(config) for config in students if "distill" not in config.hooks)
    assert sorted(map(network, taught)) == sorted(plain * len(taught_as))
    assert set(taught_as.values()) == {len(plain)}
    allowed = {"name", "seed", "substitute", "hooks", "model"}
    for config in taught:
        teacher = teachers[config.hooks["distill"]["teacher"]].to_dict()
        mine = config.to_dict()
        assert {key for key in mine if mine[key] != teacher[key]} <= allowed
        assert {h: v for h, v in mine["hooks"].items() if h != "distill"} == teacher["hooks"]
    assert all(config.substitute or config.model != teacher["model"] for config in students)


@pytest.mark.parametrize("name", ABOUT)
def test_grid_has_the_published_settings_at_matched_sizes(request, name):
    path = request.config.rootpath / "notebooks" / "studies" / f"{name}.yaml"
    points = expand(read_study(path))
    specs = {p.config.substitute for p in points}
    assert 2 * len(specs) == len(points) and all(parse_spec(spec).init == "reference" for spec in specs)
    model = points[0].config.model
    with torch.device("meta"):
        dense = create_model(model)
    sizes = {}
    for spec in map(parse_spec, specs):
        sizes.setdefault(spec.family, []).append(layout(dense, spec).params(spec))
    assert set(sizes) == {"generic", "tucker", "tt", "shuffle", "sephashed", "acdc"}
    for family in set(sizes) - {"acdc", "shuffle"}:  # these two have integer settings
        np.testing.assert_allclose(sorted(sizes[family]), ABOUT[name], rtol=0.07)
    published = published_points([model])
    grid = {(f, s) for f, s in zip(published["family"], published["setting"], strict=True) if s}
    assert sum((s.family, f"{s.arguments[s.main]:g}") in grid for s in map(parse_spec, specs)) >= len(specs) // 2


def test_small_study_meets_one_budget_in_every_way(request):
    points = expand(read_study(request.config.rootpath / "notebooks" / "studies" / "budgets-small.yaml"))
    sizes = {(p.config.model, p.config.substitute): network_cost(p.config).cost.params for p in points}
    assert len(sizes) == 4 and len(points) == 4 * 3 * 3  # alone, and taught at two weights; seeds
    np.testing.assert_allclose(list(sizes.values()), 12_000, rtol=0.025)


# -- frames ---------------------------------------------------------------------------------------------------------


def test_network_is_counted_as_configured_whatever_the_seed_and_the_teacher():
    dense, tt = (network_cost(Config.load(SMALL, {"substitute": spec})) for spec in ("", "tt:0.8"))
    assert dense.cost.params == dense.cost.numel == 77_850 and dense.decays == (5e-4,)
    assert tt.cost.params == tt.cost.numel == 11_966
    assert tt.decays == (5e-4, pytest.approx(5e-4 * 11_966 / 77_850))
    assert network_cost(Config.load(SMALL, {"substitute": "tt:0.8", "seed": 7, "hooks": TEACHER})) is tt
    with pytest.raises(UsageError, match="imagefolder: its classes are not known"):
        network_cost(Config.load({"dataset": "imagefolder", "model": "resnet18", "data_args": {"image_size": 64}}))


def test_points_of_runs_have_error_cost_family_and_teacher(runs):
    points = budget_points(runs).set_index("run")
    assert points.loc["taught1", ["network", "family", "setting", "seed"]].tolist() == ["wrn-10-1", "tt", "0.8", 1]
    assert points["distilled"].to_dict() == {run: run.startswith("taught") for run in runs["name"]}
    assert points.loc["tt0", "top1_err"] == 50 and points.loc["dense0", "top1_err"] == 40
    assert points["params"].groupby(points["family"]).unique().map(list).to_dict() == {
        "dense": [77_850],
        "tt": [11_966],
    }
    assert list(network_costs(runs)) == ["wrn-10-1", "wrn-10-1 tt:0.8"]


def test_runs_that_cannot_be_counted_are_left_out(here):
    write_run(here / "runs", "a", dataset="imagefolder", model="resnet18", data_args={"image_size": 64})
    with pytest.raises(UsageError, match="no run whose network can be counted"):
        budget_points(load_runs(here / "runs"))


def test_cross_entropy_is_the_training_loss_without_attention_transfer(runs, here):
    losses = training_losses(runs).set_index(["configuration", "quantity", "trained"])["mean"]
    assert losses["tt:0.8 distill", "loss", 2] == 2.0 and losses["tt:0.8 distill", "ce", 2] == 1.25
    assert losses["tt:0.8", "ce", 2] == losses["tt:0.8", "loss", 2] == 2.0
    assert losses["wrn-10-1", "top1_err", 1] == 40.5
    row = {"kind": "distill", "step": 2, "epoch": 1, "at": 0.75, "kd": 0.5}
    for seed in (0, 1):
        with open(here / "runs" / f"taught{seed}" / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
    mixed = training_losses(runs).set_index(["configuration", "quantity", "trained"])["mean"]
    assert ("tt:0.8 distill", "ce", 2) not in mixed and ("tt:0.8 distill", "ce", 1) in mixed


# -- the log --------------------------------------------------------------------------------------------------------


def test_entry_counts_reference_and_substituted_network_and_names_the_teacher(runs):
    text = entries.append(runs, "Budgets").read_text()
    assert "wrn-10-1\nMult-Adds: 3.14433E+06\nParams: 7.78500E+04\nSanity check, parameters: 7.78500E+04\n" in text
    assert (
        "wrn-10-1 tt:0.8\ncompression 6.51, rho 0.154, weight decay 0.0005 and 7.69e-05\nMult-Adds: 6.38090E+05" in text
    )
    assert text.count("Params: ") == 2
    assert "Teacher `dense0`: top-1 error 41.50 % as measured by its students, **40.00 % in its own run**" in text
    assert "cutout 0 (students 0), itself without a teacher." in text
    assert "| tt:0.8 | wrn-10-1 | substitute=tt:0.8 | 0.154 | +11.00 [-1.71, +23.71] | 2 pairs |" in text
    assert "| tt:0.8 distill | tt:0.8 | distill.teacher=dense0 | 1 | -3.50 [-9.85, +2.85] | 2 pairs |" in text
    assert "tt:0.8 distill: group1 2.00e-04, group2 1.00e-04." in text


def test_entry_says_by_how_much_a_budget_is_missed(here):
    for name, budget in (("small", "budget=12000"), ("fast", "mult_adds=6.4e5")):
        write_run(here / "runs", name, **SMALL, substitute=f"tt:{budget}")
    text = entries.append(load_runs("runs")).read_text()
    assert "wrn-10-1 tt:budget=12000\nbudget 12,000 parameters (-0.28%), compression 6.51, rho 0.154" in text
    assert re.search(r"\nbudget 6.4e\+05 mult-adds \([+-]0\.\d\d%\), compression ", text)


# -- figures --------------------------------------------------------------------------------------------------------


def test_points_are_drawn_with_their_seeds_in_the_family_s_colour_and_marker(runs):
    points = budget_points(runs)
    for axis, cost in zip(error_against_cost(points).axes, ("params", "mult_adds"), strict=True):
        assert axis.get_xscale() == "log" and axis.get_xlabel()
        drawn = {
            (line.get_marker(), line.get_markerfacecolor() != "white", x, y)
            for line in axis.lines
            if line.get_marker() in "*s"
            for x, y in zip(*line.get_data(), strict=True)
        }
        of = points.groupby("family")[cost].first()
        assert drawn == {
            ("*", False, of["dense"], 40.5), ("s", False, of["tt"], 51.5), ("s", True, of["tt"], 48.0)
        }  # fmt: skip
        dots = {(x, y) for each in axis.collections for x, y in each.get_offsets().tolist()}
        assert dots == set(zip(points[cost], points["top1_err"], strict=True))  # every seed


def test_published_points_are_grey_and_named(runs):
    figure = error_against_cost(budget_points(runs), published_points(["wrn-28-10"]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["dense", "tensor train", "with a teacher", "without", "published"]
    assert any(line.get_markeredgecolor() == "0.7" for line in figure.axes[0].lines)
    with pytest.raises(UsageError, match="no error with a known cost"):
        error_against_cost(budget_points(runs)[:0])


def test_no_two_families_look_alike():
    families = ["dense", "generic", "tt", "tucker", "shuffle", "sephashed", "acdc", "sep", "hashed", "cp", "lr", "x"]
    looks = [look(family) for family in families]
    assert len({each.marker for each in looks}) == len(looks)
    assert len({matplotlib.colors.to_rgb(each.colour) for each in looks[:7]}) == 7  # those of the published grids


def test_curves_have_a_colour_a_student_and_a_dash_without_teacher(runs):
    loss, ce, error = teacher_curves(training_losses(runs)).axes
    dashes = [(line.get_color(), line.get_linestyle()) for line in loss.lines]
    assert len(dashes) == 3 and len({colour for colour, _ in dashes}) == 2
    assert sorted(dash for _, dash in dashes) == ["-", "--", "--"]
    assert len(ce.lines) == len(error.lines) == 3 and all(axis.get_ylabel() for axis in (loss, ce, error))


def test_bars_are_shares_of_every_network_s_cost(runs):
    costs = network_costs(runs)
    for axis, quantity in zip(cost_by_layer(costs).axes, ("params", "mult_adds"), strict=True):
        for place, cost in enumerate(costs.values()):
            bars = [bar for bar in axis.patches if abs(bar.get_y() + bar.get_height() / 2 - place) < 0.1]
            of_stem = next(getattr(row, quantity) for row in cost.rows if row.layer == "conv1")
            assert sum(bar.get_width() for bar in bars) == pytest.approx(100)
            assert bars[0].get_width() == pytest.approx(100 * of_stem / getattr(cost, quantity))
    names = [text.get_text() for text in cost_by_layer(costs).legends[0].get_texts()]
    assert names == ["conv1", "group1", "group2", "group3", "bn", "relu", "fc"]


# -- the notebook -----------------------------------------------------------------------------------------------------


def test_notebook_without_runs_shows_what_was_published(here, monkeypatch, capsys):
    names = cells("analysis/budgets", monkeypatch, runs="runs")
    text = capsys.readouterr().out
    assert names["drawn"] == [] and "What needs runs is left out below." in text
    gains = names["change"].droplevel(["setting", "params"])
    assert gains["wrn-28-10", "hashed"].item() == pytest.approx(7.47 - 6.48)
    assert gains["wrn-28-10", "sephashed"].item() == pytest.approx((3.84 + 3.99) / 2 - 5.95)
    assert f"lower in {(gains < 0).sum()} of {len(gains)}." in text
    assert list(here.iterdir()) == []


def test_notebook_draws_and_logs_runs(runs, here, monkeypatch):
    names = cells("analysis/budgets", monkeypatch, log="log.md", title="Budgets")
    assert [name for name, _ in names["drawn"]] == [
        "error against cost",
        "pareto fronts",
        "with and without a teacher",
        "cost by layer",
    ]
    text = (here / "log.md").read_text()
    assert "| tt:0.8 distill | tt:0.8 | -3.50 [-9.85, +2.85] | 2 pairs | 0.09 | 0.12 |" in text
    assert text.count("![") == 4
