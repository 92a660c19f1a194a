"""Candidate networks: measured before training, ranked, and which measure tells more than their size."""

import numpy as np
import pandas as pd
import pytest

from research import Config
from research.errors import Note, UsageError
from research.frames.candidates import MEASURES, Candidate, measured, ranked, trust
from research.frames.comparison import correlation
from research.frames.statistics.bootstrap import rank_correlation

SMALL = {"model": "dct_cnn", "model_args": {"widths": [4, 8], "init": "normal"}, "dataset": "digits"}


def candidate(name, **given):
    return Candidate(name, name.rpartition("-")[0], Config.load(SMALL | given))


def test_a_candidate_has_every_measure_that_its_network_defines():
    table = measured(
        [
            candidate("cnn-0"),
            candidate("sparse-0", rigl={"sparsity": 0.9}),
            candidate("mlp-0", model="mnist_mlp", model_args={"hidden": [20]}),
            candidate("mass-0", model="dense_mlp", model_args={"width": 8, "depth": 4, "tc": 5}),
        ]
    ).set_index("arm")
    assert set(MEASURES) <= set(table)
    assert table.loc["cnn", "density"] == 1
    pruned = sum(round(0.9 * weights) for weights in (4 * 4 * 9, 4 * 8 * 9, 8 * 8 * 9, 8 * 10))
    assert abs(table.loc["cnn", "params"] - table.loc["sparse", "params"] - pruned) <= 4  # a layer's count is whole
    assert table.loc["sparse", "synflow"] < table.loc["cnn", "synflow"]
    assert table.loc["mass", ["nn_mass", "nn_density", "ldi"]].notna().all()
    assert table.loc["mlp", "ldi"] > 0 and np.isnan(table.loc["mlp", "nmi_anisotropy"])
    assert np.isnan(table.loc["cnn", "nn_mass"]) and table.loc["cnn", "nmi_anisotropy"] >= 0
    assert table[["gradient_norm", "naswot"]].notna().all(axis=None)


def test_a_candidate_measures_the_same_alone_and_among_others_and_by_its_seed():
    alone = measured([candidate("cnn-1", seed=1)])
    among = measured([candidate("cnn-0"), candidate("cnn-1", seed=1)])
    columns = [*MEASURES]
    pd.testing.assert_frame_equal(alone[columns], among[columns].iloc[1:].reset_index(drop=True))
    assert among["gradient_norm"].nunique() == 2


def test_a_candidate_whose_masks_are_another_runs_is_left_out_and_named():
    with pytest.warns(Note, match=r"copied-0 is left out: static_sparse.copy_mask_from takes the newest weights of"):
        table = measured([candidate("cnn-0"), candidate("copied-0", static_sparse={"copy_mask_from": "somewhere"})])
    assert table["run"].tolist() == ["cnn-0"]


def of_arms(n, seed=0):
    """``n`` networks whose accuracy follows their parameters and, given these, SynFlow; NASWOT copies parameters."""
    draw = np.random.default_rng(seed)
    params, own = draw.permutation(n), draw.permutation(n)
    table = pd.DataFrame({"arm": [f"a{i}" for i in range(n)], "seed": 0, "params": params, "mult_adds": params})
    table = table.assign(synflow=own, naswot=params + 0.0, top1=0.7 * params + 0.7 * own + draw.normal(size=n))
    return table.reindex(columns=["run", "arm", "seed", *MEASURES, "seconds", "top1"])


def test_a_score_that_only_grows_with_the_network_tells_no_more_than_its_size():
    found = trust(of_arms(40)).set_index("measure")
    assert found.loc["synflow", "says"] == "more than size"
    assert found.loc["naswot", "says"] == "no more than size"
    turned = trust(of_arms(40).assign(synflow=lambda table: -table["synflow"])).set_index("measure")
    assert turned.loc["synflow", "says"] == "more than size, the other way round"
    assert found.loc["synflow", "given_low"] > 0.5
    assert np.isnan(found.loc["naswot", "given_size"])


def test_too_few_trained_networks_are_refused():
    with pytest.raises(UsageError, match="3 trained networks: a rank correlation takes at least four"):
        trust(of_arms(3))


def test_ranking_is_by_the_mean_over_seeds_best_first():
    table = of_arms(3).assign(arm=["a", "b", "a"], synflow=[1.0, 2.0, 4.0])
    assert ranked(table, "synflow")["arm"].tolist() == ["a", "b"]
    assert ranked(table, "synflow")["seeds"].tolist() == [2, 1]


def test_bootstrap_has_the_value_of_the_plain_correlation_and_covers_it():
    draw = np.random.default_rng(3)
    x, size = draw.normal(size=(2, 30))
    y = x + size + draw.normal(size=30)
    for given in (None, size, np.column_stack([size, draw.normal(size=30)])):
        found = rank_correlation(x, y, given)
        assert found.value == correlation(x, y, given).value
        assert -1 <= found.low < found.value < found.high <= 1


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    truth, hits = 6 / np.pi * np.arcsin(0.6 / 2), 0  # Spearman's of a normal pair with Pearson's 0.6
    for _ in range(100):
        x, e = draw.normal(size=(2, 40))
        found = rank_correlation(x, 0.6 * x + 0.8 * e)
        hits += found.low < truth < found.high
    assert 87 <= hits <= 100


def test_bootstrap_of_too_few_points_has_no_interval():
    found = rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], [[1], [3], [2], [5]])
    assert np.isnan([found.low, found.high]).all()
