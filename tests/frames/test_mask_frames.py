"""Masks of MLPs as frames: living units by arm, numbers at initialisation, predictions in families left out."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from research import load_runs
from research.checkpoints import weights
from research.config import Config
from research.errors import UsageError
from research.figures.masks import numbers_at_start, seeds_by_arm
from research.frames.masks import asked_of, left_out, left_out_table, mask_numbers, predict, predictions
from research.frames.plans import arms_markdown, runs_by_arm
from research.hooks.sparse import StaticSparse
from research.layers.masked import sparse_layers
from research.measures.paths import living
from research.models import create_model
from research.runs.plans import record
from research.runs.run import Run
from research.training.loop import fit


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Static masks of two distributions and two seeds, and the places of one of them shuffled; an epoch each."""
    folder = tmp_path_factory.mktemp("masks") / "runs"
    base = {"dataset": "digits", "model": "mnist_mlp", "epochs": 1, "lr": 0.05, "device": "cpu", "threads": 1}
    base |= {"runs": str(folder)}
    for seed in (0, 1):
        for name, given in {
            "uniform": {},
            "er": {"distribution": "er", "er_power": 1.5},
            "copy": {"copy_mask_from": "s-er-seed-{seed}", "shuffle": "layer"},
        }.items():
            hooks = {"static_sparse": {"sparsity": 0.99, **given}}
            fit(Run.create(Config.load(base | {"name": f"s-{name}-seed-{seed}", "seed": seed, "hooks": hooks})))
    return load_runs(folder)


@pytest.fixture
def study(runs):
    """What the runs belong to: a study of three arms whose seed 1 confirms."""
    names = {f"s-{arm}-seed-{seed}": arm for arm in ("uniform", "er", "copy") for seed in (0, 1)}
    fresh = {name: arm for name, arm in names.items() if name.endswith("1")}
    said = {"arms": {name: arm for name, arm in names.items() if name not in fresh}, "contrasts": []}
    folder = Path(runs["dir"].iloc[0]).parent
    record(folder, "s", said | {"confirming": fresh, "margin": None}, [])
    yield runs
    shutil.rmtree(folder / ".studies")


def test_runs_of_a_study_have_their_arm_their_accuracy_and_their_living_units(study):
    table = runs_by_arm(study).set_index("run")
    assert table["fresh"].to_dict() == {name: name.endswith("1") for name in table.index}
    for name in table.index:
        counts = [int(alive.sum()) for alive in living(masks_of(study, name))]
        assert table.loc[name, ["living_1", "living_2", "living_3"]].tolist() == counts
    assert table["arm"].tolist() == ["uniform", "er", "copy"] * 2
    assert table["top1"].to_dict() == study.set_index("name")["last_top1"].to_dict()
    row = arms_markdown(table.reset_index()).splitlines()[3]
    alive = int(table.loc["s-er-seed-0", "living_1"])
    assert row.startswith("| s | first | er | 1 | ") and row.endswith(f"| {alive} ({alive} to {alive}) |")


def masks_of(runs, name: str) -> list[torch.Tensor]:
    tensors = weights.read(Path(runs.set_index("name").loc[name, "dir"]) / "best.safetensors").tensors
    return [tensors[f"{layer}.weight_mask"].bool() for layer in (1, 4, 7)]


def test_runs_of_no_study_are_told(runs):
    with pytest.raises(UsageError, match="no run of a study has finished"):
        runs_by_arm(runs)


def test_numbers_at_the_start_are_those_of_the_first_weights_and_masks(runs):
    table = mask_numbers(runs).set_index("run")
    counts = StaticSparse(sparsity=0.99).initial_counts(sparse_layers(create_model("mnist_mlp", input_shape=(1, 8, 8))))
    assert table.loc["s-uniform-seed-0", "active"] == sum(counts.values())
    assert table.loc["s-er-seed-0", "power"] == 1.5 and table.loc["s-uniform-seed-0", "power"] == 0
    assert np.isnan(table.loc["s-copy-seed-0", "power"])
    same = ["active", "mass"]  # the numbers of each layer
    assert table.loc["s-copy-seed-1", same].tolist() == pytest.approx(table.loc["s-er-seed-1", same].tolist())
    assert table.loc["s-copy-seed-1", "ldi"] != table.loc["s-er-seed-1", "ldi"]
    assert (table["living_1"] > 0).all() and (table["living_1"] <= 100).all() and (table["ldi"] > 0).all()
    shares = table["top1"] / 100
    assert table["log_odds"].tolist() == pytest.approx(np.log((1 - shares) / shares).tolist())


def test_a_family_that_was_left_out_is_predicted_from_the_others():
    x = np.linspace(0, 1, 12)
    table = pd.DataFrame({"x": x, "z": x**2, "log_odds": 2 * x - 1, "power": np.repeat([0, 1, 2], 4)})
    assert left_out(table, ["x"]) == pytest.approx(1)
    assert left_out(table, ["z"]) < 0.95
    assert left_out(table.assign(log_odds=[1.0, -1.0] * 6), ["x"]) < 0  # noise predicts worse than the mean
    assert predict(table, pd.DataFrame({"x": [2.0, 3.0]}), ["x"]).tolist() == pytest.approx([3, 5])


def test_what_is_asked_of_numbers_at_the_start_and_what_they_foretell():
    rng = np.random.default_rng(0)
    names = ["log_active", "living_1", "living_2", "log_paths", "ldi"]
    table = pd.DataFrame(rng.normal(size=(40, 5)), columns=names).assign(power=np.repeat([0, 0.5, 1, 2], 10))
    table = table.assign(log_odds=-table["living_1"] - 0.5 * table["ldi"])
    asked = asked_of(table).set_index("number")
    assert asked.loc["ldi", "given living units"] < -0.9 < asked.loc["ldi", "alone"] < 0
    assert asked.loc["ldi", "p_holm"] < 1e-6 < 0.05 < asked.loc["log_paths", "p_holm"]
    models = left_out_table(table).set_index("model")
    assert models.loc["weights, living units, LDI"].tolist() == pytest.approx([1, 1])
    assert models.loc["weights, living units", "R2 left out"] < models.loc["weights, living units", "R2 fitted"] < 1
    others = table.iloc[:6].assign(arm=["a", "b"] * 3, top1=100 / (1 + np.exp(table["log_odds"].iloc[:6])))
    told = predictions(table, others).set_index(["model", "arm"])
    assert told.loc[("weights, living units, LDI", "a"), "mean abs. error"] == pytest.approx(0, abs=1e-9)
    assert told.loc[("weights", "b"), "n"] == 3


def test_every_seed_is_a_dot_and_fresh_ones_are_diamonds(study):
    figure = seeds_by_arm(runs_by_arm(study), ["uniform", "er"])
    axis = figure.axes[0]
    drawn = [line for line in axis.lines if line.get_marker() in ("o", "D")]
    assert sorted(line.get_marker() for line in drawn) == ["D", "D", "o", "o"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["uniform", "er"]


def test_numbers_at_the_start_are_drawn_with_masks_of_other_origin(runs):
    table = mask_numbers(runs)
    copied = table["power"].isna()
    figure = numbers_at_start(table[~copied], table[copied])
    assert len(figure.axes) == 6
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len(crosses[0].get_xdata()) == 2
