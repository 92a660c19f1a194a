"""NN-Mass against accuracy: frames of runs, correlations against an independent experiment, figures."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic_runs import write_run

from research.config import Config
from research.errors import UsageError
from research.figures.topology import (
    accuracy_against_ldi,
    accuracy_against_mass,
    closed_forms,
    ldi_against_mass,
    singular_values,
)
from research.frames import load_runs
from research.frames.iso_mass import (
    cifar_families,
    deepest_against_shallowest,
    initial_values,
    iso_mass,
    iso_mass_curves,
    mobilenets,
)
from research.frames.tables import levels, markdown
from research.frames.topology import (
    correlation_table,
    correlations,
    over_seeds,
    populations,
    topology_points,
)
from research.measures.ldi import ldi
from research.measures.nn_mass import mlp_topology, nn_mass, tc_for_mass
from research.models import create_model
from research.runs.run import Run
from research.studies.study import expand, read_study
from research.training.loop import fit

ROOT = REPOSITORY
GOLDEN = json.loads((ROOT / "tests" / "golden" / "nn-mass" / "small_result_mnist.json").read_text())


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """The independent experiment of the goldens, 16 MLPs by 3 seeds after 2 epochs, as frames have it."""
    rows = []
    for row in GOLDEN:
        name = f"dense_mlp width={row['width']} depth={row['depth']} tc={row['tc']}"
        shape = {"population": "mnist", "network": name, "width": row["width"], "depth": row["depth"]}
        shape |= {"nn_mass": row["nn_mass"], "nn_density": row["density"], "params": row["params"]}
        shape |= {"mult_adds": row["flops"] / 2}
        for seed, top1 in enumerate(row["test_acc"][1]):
            measured = {f"ldi_{mode}": row["ldi"][mode][seed] for mode in ("exact", "reference")}
            rows.append(shape | {"seed": seed, "status": "finished", "top1": top1} | measured)
    return pd.DataFrame(rows)


def value(found: pd.DataFrame, **which) -> pd.Series:
    return found[np.logical_and.reduce([found[key] == wanted for key, wanted in which.items()])].iloc[0]


@pytest.mark.parametrize(
    ("x", "y", "among", "statistic", "known"),
    [
        ("nn_mass", "top1", "all", "Spearman", 0.89),
        ("nn_mass", "top1", "all", "Pearson", 0.66),
        ("nn_mass", "top1", "all", "R2 of log(1+m)", 0.71),
        ("params", "top1", "all", "Spearman", 0.70),
        ("params", "top1", "all", "R2", 0.13),
        ("nn_mass", "top1", "with links", "Spearman", 0.75),
        ("nn_mass", "top1", "with links", "R2 of log(1+m)", 0.72),
        ("params", "top1", "with links", "Spearman", 0.59),
        ("params", "top1", "with links", "R2", 0.30),
        ("nn_mass", "ldi_exact", "all", "Spearman", 0.95),
        ("ldi_exact", "top1", "all", "Spearman", 0.96),
        ("nn_mass", "ldi_reference", "all", "Spearman", 0.86),
    ],
)
def test_correlations_are_those_of_the_independent_experiment(points, x, y, among, statistic, known):
    row = value(correlations(points, [(x, y)]), among=among, statistic=statistic)
    assert row["value"] == pytest.approx(known, abs=0.006)
    assert row["low"] <= row["value"] <= row["high"] and row["seed_low"] <= row["seed_high"]
    assert (row["networks"], row["seeds"]) == (16 if among == "all" else 12, 3)


def test_correlations_equal_scipys_and_intervals_are_repeatable(points):
    found = correlations(points, [("params", "top1")])
    means = points.groupby("network")[["params", "top1"]].mean()
    assert value(found, among="all", statistic="Spearman")["value"] == pytest.approx(stats.spearmanr(means).statistic)
    assert value(found, among="all", statistic="Pearson")["value"] == pytest.approx(
        stats.pearsonr(*means.T.to_numpy())[0]
    )
    pd.testing.assert_frame_equal(found, correlations(points.sample(frac=1, random_state=0), [("params", "top1")]))


def test_one_seed_has_no_interval_of_seeds_and_two_networks_no_correlation(points):
    one = correlations(points[points["seed"] == 0], [("nn_mass", "top1")])
    assert one["value"].notna().all() and one["seed_low"].isna().all() and one["low"].notna().all()
    two = correlations(points[points["network"].isin(points["network"].unique()[:2])], [("nn_mass", "top1")])
    assert two[["value", "low", "seed_low"]].isna().all(axis=None)
    assert "nan" not in markdown(correlation_table(two))


def test_networks_of_equal_mass_stand_in_one_row(points):
    table = iso_mass(points)
    assert list(table["mass"]) == ["0", "14.6-16", "29.2-30.9", "49.2-50.3"]
    assert table["depth 24"][1].startswith("91.52 ± ") and (table["networks"] == 4).all()
    assert table["p of any"][0] < 0.01 < 0.05 < table["p of any"][1:].min() and table["p of a pair"][0] < 0.05
    means = points[points["nn_mass"] == 0].groupby("depth")["top1"]
    expected = np.sqrt(means.mean().var() - means.var().mean() / 3)
    assert table["s.d. of means"][0] == pytest.approx(expected) and table["s.d. of means"][1:].max() < 0.3


def test_the_contrast_of_a_level_is_that_of_its_depths_whatever_came_out(points):
    table = deepest_against_shallowest(points, margin=0.5)
    assert table["mass"].tolist() == ["0", "14.6-16", "29.2-30.9", "49.2-50.3"]
    assert table["arm"][1] == "depth 24, mass 14.6-16" and table["against"][1] == "depth 8, mass 14.6-16"
    expected = points[points["nn_mass"].between(14, 16)].pivot(index="seed", columns="depth", values="top1")
    found, known = table.iloc[1], stats.ttest_rel(expected[24], expected[8])
    assert (found.pairs, found.p) == (3, pytest.approx(known.pvalue))
    assert found.difference == pytest.approx((expected[24] - expected[8]).mean())
    assert deepest_against_shallowest(points[points["depth"] == 8]).empty


def test_what_mass_tells_beyond_parameters(points):
    found = correlations(points, [("nn_mass", "top1", "params"), ("params", "top1", "nn_mass")])
    means = points.groupby("network")[["nn_mass", "top1", "params"]].mean().rank()
    (xy, xz, yz) = (means.corr().loc[pair] for pair in (("nn_mass", "top1"), ("nn_mass", "params"), ("top1", "params")))
    row = value(found, x="nn_mass", among="all", statistic="Spearman")
    assert row["value"] == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert row["low"] < row["value"] < row["high"] and row["given"] == "params" and np.isnan(row["seed_low"])
    assert "nn_mass given params" in markdown(correlation_table(found))


@given(st.lists(st.just(0.0) | st.floats(0.01, 1e3), min_size=1, max_size=20), st.floats(0.02, 1))
def test_levels_keep_their_order_and_their_width(masses, tolerance):
    named = levels(masses, tolerance)
    assert set(named) == set(masses)
    by_level = {}
    for mass, name in sorted(named.items()):
        by_level.setdefault(name, []).append(mass)
    for members in by_level.values():
        assert members[-1] <= members[0] * (1 + tolerance)
    least = [members[0] for members in by_level.values()]
    assert least == sorted(least) and all(b > a * (1 + tolerance) for a, b in itertools.pairwise(least))


def write_mlp(runs: Path, depth: int, tc: int, seed: int, top1: float, **config) -> Path:
    args = {"width": 4, "depth": depth, "tc": tc}
    given = {"model": "dense_mlp", "model_args": args, "dataset": "digits", "seed": seed} | config
    folder = write_run(runs, f"mlp-{depth}-{tc}-{seed}", epochs=1, **given)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "val":
            row["top1"] = top1
    start = {"kind": "ldi", "step": 0, "epoch": 0, "mode": "exact"}
    rows += [start | {"layer": "layers.0", "mean": 9.0}, start | {"mean": 0.4 + tc / 100, "std": 0.2}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_runs_of_any_network_with_a_mass_become_points(tmp_path):
    for depth, tc, seed in [(4, 0, 0), (4, 0, 1), (4, 2, 0), (6, 2, 0)]:
        write_mlp(tmp_path, depth, tc, seed, top1=50 + tc + seed)
    write_run(tmp_path, "resnet", model="resnet8")
    write_run(tmp_path, "none", model="mnist_mlp")
    unfinished = write_mlp(tmp_path, 6, 3, 1, top1=99)
    (unfinished / "status.json").write_text(json.dumps({"status": "running", "epoch": 1}))
    table = topology_points(load_runs(tmp_path))
    assert set(table["run"]) == {"mlp-4-0-0", "mlp-4-0-1", "mlp-4-2-0", "mlp-6-2-0", "mlp-6-3-1", "resnet"}
    row = table.set_index("run").loc["mlp-6-2-0"]
    known = mlp_topology(4, 6, 2, 64, 10)
    assert (row["nn_mass"], row["nn_density"], row["params"]) == (known.nn_mass, known.nn_density, known.params)
    assert (row["width"], row["depth"], row["top1"]) == (4, 6, 52) and row["ldi_exact"] == pytest.approx(0.42)
    assert pd.isna(row["ldi_reference"]) and table.set_index("run")["top1"].isna()["mlp-6-3-1"]
    parts = populations(table)
    assert list(parts) == ["dense_mlp on digits"]
    networks = over_seeds(parts["dense_mlp on digits"])
    assert list(networks["seeds"]) == [2, 1, 1, 0] and networks["top1"][0] == 50.5
    assert table.set_index("run").loc["resnet", "nn_mass"] == nn_mass(create_model("resnet8"))


def test_what_differs_beside_shape_and_seed_makes_another_population(tmp_path):
    write_mlp(tmp_path / "a", 4, 0, 0, 50)
    for seed, tc in ((0, 1), (1, 2)):
        write_mlp(tmp_path / "a", 4, tc, seed, 50, lr=0.01, model_args={"depth": 4, "tc": tc, "link_seed": seed})
    table = topology_points(load_runs(tmp_path / "a"))
    assert sorted(set(table["population"])) == ["dense_mlp on digits", "dense_mlp on digits, lr=0.01"]
    assert not table["network"].str.contains("link_seed").any()


def test_runs_without_a_mass_are_refused_in_words(tmp_path):
    write_run(tmp_path, "none", model="mnist_mlp")
    with pytest.raises(UsageError, match="no run has a network with NN-Mass"):
        topology_points(load_runs(tmp_path))


# -- closed forms -------------------------------------------------------------------------------------------------


def test_families_and_mobilenets_are_the_published_numbers():
    families = cifar_families().set_index(["network", "mass", "cell_depth"])
    for (mass, depth), (exact, regular, separable) in {
        (300, 8): (294.9, 2.11e6, 0.456e6),
        (300, 16): (300.8, 4.65e6, 0.942e6),
        (526, 13): (526.1, 4653192, 867656),
        (526, 20): (525.3, 7.51e6, 1.365e6),
    }.items():
        for name, params in (("regular_dense", regular), ("dense_depth", separable)):
            row = families.loc[name, mass, depth]
            assert row["nn_mass"] == pytest.approx(exact, abs=0.051) and row["params"] == pytest.approx(
                params, rel=2e-3
            )
    mobile = mobilenets([1.4]).set_index("layout")
    assert list(mobile["nn_mass"]) == [1807, 1797] and list(mobile["params"]) == [6108776, 4304504]
    saved = mobile.loc["compressed", ["params", "mult_adds"]] / mobile.loc["published", ["params", "mult_adds"]]
    assert list(saved.round(2)) == [0.70, 0.72]


def test_curves_are_of_the_mass_they_say():
    curves = iso_mass_curves([15, 50], 8, range(3, 33))
    assert (abs(curves["nn_mass"] - curves["mass"]) < 0.06 * curves["mass"]).mean() > 0.9
    assert curves.groupby("mass")["depth"].min().to_dict() == {15: 3, 50: 7}


def test_values_of_new_networks_are_those_of_their_ldi():
    x = torch.rand(20, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    values = initial_values(x, masses=(0, 12), depths=(6,), width=4, inits=2)
    (plain, linked) = values[6]
    tc = tc_for_mass(12, 4, 6)
    assert plain == 0 and linked == mlp_topology(4, 6, tc).nn_mass
    means = []
    for seed in range(2):
        torch.manual_seed(seed)
        means.append(ldi(create_model("dense_mlp", 10, (1, 5, 5), width=4, depth=6, tc=tc), x).mean)
    assert values[6][linked].mean() == pytest.approx(np.mean(means), rel=1e-9)
    assert values[6][0].std() > values[6][linked].std()


# -- figures ------------------------------------------------------------------------------------------------------


def test_figures_show_every_network(points):
    networks, found = over_seeds(points), correlations(points, [("nn_mass", "top1"), ("nn_mass", "ldi_exact")])
    mass = accuracy_against_mass(points, found)
    assert [sum(len(each.get_offsets()) for each in axis.collections) for axis in mass.axes] == [48, 48, 36, 36]
    shown = [sum(len(bars[0].get_xdata()) for bars in axis.containers) for axis in mass.axes]
    assert shown == [16, 16, 12, 12]
    assert [axis.texts[0].get_text()[:13] for axis in mass.axes[::2]] == ["Spearman 0.89", "Spearman 0.75"]
    told = [text.get_text() for text in mass.legends[0].get_texts()]
    assert told == [*(f"depth {d}" for d in (8, 12, 16, 24)), "dot: a seed"]
    assert len(ldi_against_mass(networks, found).axes) == 2 and len(accuracy_against_ldi(networks).axes) == 2
    only = ldi_against_mass(networks.assign(ldi_reference=np.nan))
    assert len(only.axes) == 1 and len(accuracy_against_mass(points[points["nn_mass"] > 0]).axes) == 2


def test_a_panel_tells_one_correlation_beside_partial_ones(points):
    found = correlations(points, [("nn_mass", "top1"), ("nn_mass", "top1", "params"), ("params", "top1")])
    for axis in accuracy_against_mass(points, found).axes:
        assert len([text for text in axis.texts if "Spearman" in text.get_text()]) == 1


def test_widths_have_a_marker_each(points):
    wide = accuracy_against_mass(pd.concat([points, points.assign(width=16, network="w" + points["network"])]))
    labels = [text.get_text() for text in wide.legends[0].get_texts()]
    assert labels[:2] == ["8 wide, 8 deep", "16 wide, 8 deep"] and len(labels) == 8 + 1


def test_figures_without_anything_to_draw_say_what_is_missing(points):
    bare = points.assign(top1=np.nan, ldi_exact=np.nan, ldi_reference=np.nan)
    for draw, frame, said in (
        (accuracy_against_mass, bare, "no run with NN-Mass has finished"),
        (ldi_against_mass, over_seeds(bare), "no run has LDI"),
        (accuracy_against_ldi, over_seeds(bare), "no network has both"),
    ):
        with pytest.raises(UsageError, match=said):
            draw(frame)


def test_figures_of_what_needs_no_training():
    figure = closed_forms(iso_mass_curves([15], 8, range(3, 9)), cifar_families(), mobilenets([1.0, 1.4]))
    told = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert told[1] == "deeper, against 1.4:\nparams -30 %\nmult-adds -28 %"
    draw = np.random.default_rng(0)
    values = {depth: {mass: draw.random(100) for mass in (0.0, 20.4)} for depth in (8, 24)}
    assert [len(axis.get_legend().get_texts()) for axis in singular_values(values).axes] == [2, 2]


# -- studies ------------------------------------------------------------------------------------------------------


def test_studies_are_of_the_masses_they_say():
    cifar = [point.config for point in expand(read_study(ROOT / "notebooks" / "studies" / "nn-mass-cifar.yaml"))]
    assert len(cifar) == 2 * 8 * 3 and {config.recipe for config in cifar} == {"nn-mass-cifar10"}
    assert {config.epochs for config in cifar} == {10} and {config.schedule_by for config in cifar} == {"epoch"}
    tcs = {(config.model_args["cell_depth"], tuple(config.model_args["tc"])) for config in cifar}
    assert tcs == {(row.cell_depth, tuple(row.tc)) for row in cifar_families().itertuples()}
    path = ROOT / "notebooks" / "studies" / "nn-mass-imagenet.yaml"
    configs, text = [point.config for point in expand(read_study(path))], path.read_text()
    assert len(configs) == 21
    for config in configs:
        mobile = config.model == "mobilenet_v2"
        assert (config.epochs, config.schedule, config.lr) == ((150, "cosine", 0.05) if mobile else (90, "step", 0.1))
        assert config.data_args["eval_resize"] in (int(config.data_args["image_size"] / 0.875),)
        if mobile and config.data_args["image_size"] == 224:
            assert f"mass {create_model('mobilenet_v2', **config.model_args).nn_mass:.0f}" in text


@pytest.mark.parametrize("model", ["regular_dense", "dense_depth"])
def test_the_recipe_trains_small_networks_of_cells(tmp_path, model):
    runs = {}
    for tc in (0, 8):
        args = {"wm": 1, "num_cells": 2, "cell_depth": 4, "tc": tc}
        given = {"recipe": "nn-mass-cifar10", "dataset": "digits", "model": model, "epochs": 2, "batch_size": 64}
        runs[tc] = Run.create(Config.load(given | {"model_args": args, "runs": str(tmp_path), "device": "cpu"}))
        fit(runs[tc])
    (population, part), *others = populations(topology_points(load_runs(tmp_path))).items()
    assert population == f"{model} on digits" and not others
    assert list(part.sort_values("nn_mass")["depth"]) == [8, 8] and part["top1"].min() > 20
    built = {tc: create_model(model, 10, (1, 8, 8), **run.config.model_args) for tc, run in runs.items()}
    assert sorted(part["nn_mass"]) == [0, pytest.approx(nn_mass(built[8]))]
    assert sorted(part["params"]) == [sum(p.numel() for p in built[tc].parameters()) for tc in (0, 8)]
