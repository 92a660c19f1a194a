import json

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_runs import write_run

from research.config import Config
from research.errors import UsageError
from research.frames import load_runs
from research.frames.power_grad import (
    against_plain,
    against_published,
    binomial_error,
    pooled_gain,
    published_gains,
    with_alpha,
)
from research.frames.published import load_published, published_names
from research.studies.study import expand, read_study

PUBLISHED = Config.load({"recipe": "power-grad-imagenet"}).to_dict()
RECIPE = {key: value for key, value in PUBLISHED.items() if key not in ("name", "runs")}


@pytest.fixture
def published():
    return load_published("power-grad-imagenet")


@pytest.fixture
def write(tmp_path):
    """``write(name, alpha, top1, **config)``: a finished run with the published recipe."""

    def make(name, alpha=None, top1=70.0, images=50_000, status="finished", hooks=None, **config):
        hooks = {**({"power_grad": {"alpha": alpha, "final_alpha": 0.0}} if alpha else {}), **(hooks or {})}
        run = write_run(tmp_path, name, **{**RECIPE, "hooks": hooks, **config})
        row = {"kind": "val", "step": 30, "epoch": 2, "images": images}
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        done = {"status": status, "epoch": 100, "epochs": 100, "step": 1, "best_top1": top1, "last_top1": top1}
        (run / "status.json").write_text(json.dumps(done))

    return lambda *runs: ([make(*args, **given) for args, given in runs], load_runs(tmp_path))[1]


def test_table_is_the_published_one(published):
    assert "power-grad-imagenet" in published_names() and len(published) == 18
    np.testing.assert_array_equal(published["correct"], (published["top1"] * 500).round())  # of 50,000
    assert published["top1"].sum() == pytest.approx(1328.072) and published["checkpoint"].is_unique
    with pytest.raises(UsageError, match="did you mean 'power-grad-imagenet'"):
        load_published("power-grad-imagnet")


def test_study_is_the_published_recipes_with_their_results_beside_them(published, request):
    path = request.config.rootpath / "notebooks" / "studies" / "power-grad-imagenet.yaml"
    points = expand(read_study(path))
    assert len(points) == 18
    for point, (_, row) in zip(points, published.iterrows(), strict=True):
        config = point.config
        told = config.to_dict() | {f"data_args.{name}": value for name, value in config.data_args.items()}
        assert {name: told[name] for name in row.index if name in told} == {k: v for k, v in row.items() if k in told}
        assert {"epochs", "batch_size", "lr", "weight_decay", "warmup_epochs", "data_args.image_size"} < told.keys()
        assert config.hooks["power_grad"]["alpha"] == row["power_grad.alpha"] and "logit_stats" in config.hooks
        assert config.total_epochs == (90 if row["schedule"] == "step" else 100)
    beside = [float(line.split("#")[1]) for line in path.read_text().splitlines() if line.startswith("  - {")]
    np.testing.assert_array_equal(beside, published["top1"])


def test_small_study_trains_every_alpha_on_the_same_seeds(request):
    path = request.config.rootpath / "notebooks" / "studies" / "power-grad-small.yaml"
    points, seeds = expand(read_study(path)), yaml.safe_load(path.read_text())["seeds"]
    alphas = {(p.config.model, p.config.hooks["power_grad"]["alpha"]) for p in points if p.config.lr == 0.05}
    assert alphas == {(model, alpha) for model in ("resnet8", "mnist_mlp") for alpha in (1, 0.3, 0.25)}
    assert len(seeds) >= 5 and len(points) % len(seeds) == 0


def test_gains_and_their_errors_are_those_of_the_specification(published):
    gains = published_gains(published)
    expected = [0.140, 0.090, 1.000, 0.524, 0.326, 0.270, 0.362, 0.346, 0.734]
    np.testing.assert_allclose(gains["difference"], expected, atol=1e-9)
    assert gains["error"].between(0.26, 0.30).all()  # of two accuracies of .19 to .21 each
    np.testing.assert_allclose(gains["ratio"][[2, 8, 3]], [3.4, 2.8, 1.95], atol=0.05)
    assert (gains["ratio"].drop([2, 8, 3]) < 1.4).all()
    assert gains.index[gains["p_holm"] <= 0.05].tolist() == [2, 8]
    np.testing.assert_allclose(gains["high"] - gains["low"], 2 * 1.959964 * gains["error"])
    assert binomial_error(50, 10_000) == pytest.approx(0.5)


def test_finished_run_stands_beside_its_published_row(published, write):
    runs = write(
        (("plain",), {"model": "resnet18", "top1": 70.0}),  # no hook is alpha = 1
        (("flat", 0.25), {"model": "resnet18", "top1": 70.598, "hooks": {"logit_stats": {}}, "seed": 7}),
    )
    beside = against_published(runs, published)
    assert len(beside) == 18 and beside["own"].count() == 2
    rows = beside.dropna(subset="own").set_index("run")
    assert rows.loc["plain", "published"] == 70.208 and rows.loc["flat", "published"] == 70.298
    assert rows.loc["flat", "difference"] == pytest.approx(0.3)
    assert rows.loc["flat", "error"] == pytest.approx(np.hypot(0.2043, 0.2037), abs=1e-4)
    assert (rows["but"] == "").all()


def test_what_a_run_does_not_share_with_the_recipe_is_told(published, write):
    runs = write(
        (("short", 0.25), {"model": "resnet18", "epochs": 10, "data_args": {"image_size": 160}}),
        (("other", 0.25), {"model": "resnet18", "hooks": {"gram": {"k": 8.0}}, "model_args": {"zero_init": True}}),
        (("half", 0.25), {"model": "resnet18", "status": "running"}),
        (("digits", 0.25), {"model": "resnet18", "dataset": "digits"}),
    )
    rows = against_published(runs, published).dropna(subset="run").set_index("run")
    assert sorted(rows.index) == ["half", "other", "short"]
    assert rows.loc["short", "but"] == "epochs=10, data_args.image_size=160"
    assert rows.loc["other", "but"] == "model_args.zero_init=True, gram"
    assert rows.loc["half", "but"] == "interrupted at epoch 100" and np.isnan(rows.loc["half", "difference"])


def test_networks_are_named_by_what_differs_but_seed_and_alpha(write):
    runs = write(
        (("a",), {"model": "resnet8"}),
        (("b", 0.3), {"model": "resnet8", "seed": 1}),
        (("c", 0.3), {"model": "mnist_mlp", "model_args": {"batch_norm": False}, "lr": 0.2}),
    )
    named = with_alpha(runs).set_index("name")
    assert named["alpha"].to_dict() == {"a": 1, "b": 0.3, "c": 0.3}
    assert named["network"].to_dict() == {"a": "resnet8", "b": "resnet8", "c": "mnist_mlp lr=0.2 batch_norm=False"}


def test_an_alpha_that_moves_is_not_pooled_with_a_constant_one(write):
    moving = {"power_grad": {"alpha": 0.3, "final_alpha": 1.0}}
    runs = write(
        (("plain",), {"model": "resnet8"}),
        (("flat", 0.3), {"model": "resnet8"}),
        (("moving",), {"model": "resnet8", "hooks": moving}),
    )
    named = with_alpha(runs).set_index("name")
    assert named["network"].to_dict() == {
        "plain": "resnet8",
        "flat": "resnet8",
        "moving": "resnet8 power_grad.final_alpha=1",
    }
    assert set(named["baseline"]) == {"resnet8"}
    assert named["alpha"].to_dict() == {"plain": 1, "flat": 0.3, "moving": 0.3}
    results = with_alpha(runs).assign(top1=runs["name"].map({"plain": 70.0, "flat": 71.0, "moving": 73.0}))
    rows = against_plain(results, ["top1"]).set_index(["network", "alpha"])
    assert rows["n"].tolist() == [1, 1, 1]
    assert rows["difference"].dropna().to_dict() == {
        ("resnet8", 0.3): 1.0,
        ("resnet8 power_grad.final_alpha=1", 0.3): 3.0,
    }


def test_differences_are_paired_by_seed():
    plain = {"seed": [0, 1, 2, 3], "alpha": 1.0, "top1": [90.0, 92.0, 94.0, 50.0]}
    flat = {"seed": [2, 1, 0], "alpha": 0.3, "top1": [97.0, 94.0, 91.0]}  # +3, +2, +1 by seed
    frame = pd.concat([pd.DataFrame(plain), pd.DataFrame(flat)]).assign(network="n")
    one, two = against_plain(frame, ["top1"]).itertuples()
    assert one.n == 4 and one.mean == 81.5 and one.pairs == 0 and np.isnan(one.difference)
    assert two.pairs == 3 and two.difference == pytest.approx(2)
    assert two.high - two.difference == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)  # Student's t, 2 degrees, 95 %


def test_p_is_adjusted_over_all_measures_that_are_shown_together():
    plain = {"seed": [0, 1, 2], "alpha": 1.0, "loss": [1.0, 2.0, 3.0], "ece": [1.0, 2.0, 3.0]}
    flat = {"seed": [0, 1, 2], "alpha": 0.3, "loss": [1.5, 2.6, 3.4], "ece": [2.0, 2.0, 3.5]}
    frame = pd.concat([pd.DataFrame(plain), pd.DataFrame(flat)]).assign(network="n")
    rows = against_plain(frame, ["loss", "ece"]).dropna(subset="p")
    assert rows["value"].tolist() == ["loss", "ece"]
    assert rows["p_holm"].tolist() == [2 * rows["p"].min(), max(2 * rows["p"].min(), rows["p"].max())]


def test_the_nine_published_pairs_together_gain_beyond_chance():
    found = pooled_gain(published_gains(load_published("power-grad-imagenet")))
    assert (found["pairs"], found["gain"]) == (9, 9) and round(found["difference"], 2) == 0.42
    assert found["p_sign"] == 2 / 2**9 and found["p"] < 1e-5 and 0 < found["low"] < found["high"]
