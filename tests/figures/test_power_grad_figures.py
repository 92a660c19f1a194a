import json

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from research.errors import UsageError
from research.figures.calibration import calibration_by_alpha, reliability_diagram
from research.figures.power_grad import gradient_profile, intervals, logit_growth, logit_norms, norm_ratios
from research.frames import load_runs
from research.measures.calibration import reliability

ALPHAS = (1.0, 0.5, 0.25)


@pytest.fixture
def runs(tmp_path):
    """Two seeds an alpha; the norm of the logits after epoch e is (e + 1)(seed + 1) / alpha."""
    for alpha in ALPHAS:
        for seed in (0, 1):
            hooks = {"power_grad": {"alpha": alpha, "final_alpha": 0.0}, "logit_stats": {}}
            run = write_run(tmp_path, f"a{alpha}s{seed}", hooks=hooks, seed=seed)
            rows = [
                {"kind": split, "step": 10 * e + 10, "epoch": e, "norm": factor * (e + 1) * (seed + 1) / alpha}
                for e in range(3)
                for split, factor in (("train_logits", 7.0), ("val_logits", 1.0))
            ]
            with open(run / "metrics.jsonl", "a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    return load_runs(tmp_path)


@pytest.fixture
def logits():
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 3, 400)
    return draw.normal(size=(400, 3)) + 2 * np.eye(3)[targets], targets


def test_profile_is_the_closed_form_and_the_published_code_agrees_at_k_one():
    left, right = gradient_profile([1, 0.25], [0.5, 1, 2], legacy_alpha=0.25, classes=10).axes
    plain, flat = left.lines
    p = plain.get_xdata()
    np.testing.assert_allclose(plain.get_ydata(), 1 - p, atol=1e-12)
    powers = p**0.25, 9 * ((1 - p) / 9) ** 0.25
    np.testing.assert_allclose(flat.get_ydata(), 1 - powers[0] / sum(powers), atol=1e-12)
    half, one, two = (line.get_ydata() for line in right.lines)
    np.testing.assert_allclose(one, flat.get_ydata(), atol=1e-9)
    np.testing.assert_array_equal(np.isnan(two), p < 0.5)  # 1 - 1 / k
    assert (half > one).all()


def test_growth_is_the_mean_over_seeds_and_its_ratio_is_seed_by_seed(runs):
    left, right = logit_growth(runs).axes
    drawn = {line.get_ydata()[-1] for line in left.lines}
    assert drawn == {3 * 1.5 / alpha for alpha in ALPHAS}  # mean over seeds in epoch 3
    ratios = norm_ratios(logit_norms(runs))
    np.testing.assert_allclose(ratios["ratio"], 1 / ratios["alpha"])
    assert len(ratios) == 4 and right.get_xlabel() and right.get_ylabel()


def test_growth_without_a_plain_run_draws_no_ratio(runs):
    _, right = logit_growth(runs[runs["power_grad.alpha"] != 1]).axes
    assert [text.get_text() for text in right.texts] == ["no seed trained with $\\alpha$ = 1 too"]


def test_runs_without_logit_statistics_are_told_how_to_get_them(tmp_path):
    write_run(tmp_path, "plain")
    with pytest.raises(UsageError, match="train with logit_stats=true"):
        logit_growth(load_runs(tmp_path))


def test_intervals_are_drawn_in_the_order_given():
    frame = pd.DataFrame({"label": ["a", "b"], "difference": [1.0, -1], "low": [0.0, -2], "high": [2.0, 0]})
    axis = intervals(frame.assign(p_holm=[0.04, 0.06]), "gain").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"] and axis.yaxis_inverted()
    (bars,) = (collection.get_segments() for collection in axis.collections)
    np.testing.assert_array_equal([segment[:, 0] for segment in bars], [[0, 2], [-2, 0]])
    clear, unclear = (line for line in axis.lines if line.get_marker() == "o")
    assert (list(clear.get_xdata()), list(unclear.get_xdata())) == ([1], [-1])
    assert unclear.get_markerfacecolor() == "white"


def test_reliability_shows_full_bins_and_names_the_error(logits):
    z, y = logits
    raw, scaled = ({a: reliability(z, y, b) for a, b in pairs} for pairs in (((1, 1), (0.5, 1)), ((1, 1), (0.5, 0.5))))
    figure = reliability_diagram(raw, scaled)
    for axis, found in zip(figure.axes, (raw, scaled), strict=True):
        names = [text.get_text() for text in axis.get_legend().get_texts()]
        assert names == [f"$\\alpha$ = {alpha:g}: ECE {100 * each.error:.1f} %" for alpha, each in found.items()]
        dots = [collection for collection in axis.collections if len(collection.get_offsets()) > 1]
        for dot, each in zip([d for d in dots if d.get_sizes().size > 1], found.values(), strict=True):
            full = each.count >= 10
            np.testing.assert_allclose(dot.get_offsets(), np.column_stack([each.confidence, each.accuracy])[full])


def test_calibration_is_drawn_for_raw_and_scaled_logits_of_every_network():
    rows = [
        {
            "network": network,
            "alpha": alpha,
            "seed": seed,
            "loss": 1 / alpha,
            "ece": 0.1,
            "loss_scaled": 1,
            "ece_scaled": 0.2,
        }
        for network in ("a", "b")
        for alpha in ALPHAS
        for seed in (0, 1)
    ]
    figure = calibration_by_alpha(pd.DataFrame(rows))
    for axis, (raw, scaled) in zip(figure.axes, (([1, 2, 4], [1, 1, 1]), ([10] * 3, [20] * 3)), strict=True):
        values = [container[0].get_ydata() for container in axis.containers]
        for line, expected in zip(values, [raw, scaled, raw, scaled], strict=True):
            np.testing.assert_allclose(sorted(line), expected)
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "0.5", "0.25"]


def test_axes_are_labelled_nothing_has_a_title_and_widths_are_those_of_a_paper(runs, logits):
    found = {1.0: reliability(*logits)}
    drawn = (gradient_profile([1], [1], 0.5), logit_growth(runs), reliability_diagram(found, found))
    for figure in drawn:
        assert all(axis.get_xlabel() and not axis.get_title() for axis in figure.axes)
        assert figure.axes[0].get_ylabel() and figure.get_figwidth() in (3.3, 6.8)
