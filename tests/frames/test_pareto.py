"""Fronts are what no other configuration beats; costs count what masks leave, three passes an image, the teacher."""

import json
import math

import pandas as pd
import pytest
from synthetic_runs import write_run

from research.config import Config
from research.figures.pareto import pareto_fronts
from research.frames import load_runs
from research.frames.budgets import front, priced
from research.trained.network_cost import network_cost

POINTS = pd.DataFrame(
    [
        ("cheap", 10, 9.0), ("cheap", 10, 11.0),  # 10 on average
        ("worse", 10, 12.0),
        ("middle", 20, 5.0),
        ("as good", 20, 5.0),
        ("dearer", 30, 5.0),
        ("dear", 40, 1.0),
        ("unknown", math.nan, 0.5),
    ],
    columns=["configuration", "params", "top1_err"],
)  # fmt: skip


def test_the_front_has_what_no_other_beats_by_means_over_seeds():
    table = front(POINTS, "params")
    assert table["best"].to_dict() == {
        "cheap": True, "worse": False, "middle": True, "as good": True, "dearer": False, "dear": True
    }  # fmt: skip
    assert table.loc["cheap"].to_list() == [2, 10, 10.0, True]


def test_the_figure_has_a_dot_a_seed_and_steps_along_the_front():
    figure = pareto_fronts(POINTS[POINTS["configuration"] != "unknown"], ["params"])
    (axis,) = figure.axes
    steps = axis.lines[0]
    assert list(steps.get_ydata()) == [10.0, 5.0, 5.0, 1.0] and steps.get_drawstyle() == "steps-post"
    assert sum(len(dots.get_offsets()) for dots in axis.collections) == 7
    bold = {text.get_text() for text in axis.texts if text.get_fontweight() == "bold"}
    names = {text.get_text(): place for place, text in enumerate(figure.legends[0].get_texts(), start=1)}
    assert bold == {str(names[name]) for name in ("cheap", "middle", "as good", "dear")}


def test_labels_at_one_cost_do_not_cover_each_other():
    close = pd.DataFrame({"configuration": list("abcdef"), "params": 10, "top1_err": [5.0, 5.01, 5.02, 5.03, 9.0, 1.0]})
    figure = pareto_fronts(close, ["params"])
    heights = sorted(text.xyann[1] for text in figure.axes[0].texts)
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) > 0.05


def test_training_counts_three_passes_an_image_and_the_teacher_and_skips_zeros(tmp_path):
    model = {"model": "mnist_mlp", "dataset": "digits", "batch_size": 100}
    teacher = {"model": "resnet8", "dataset": "digits"}
    write_run(tmp_path, "plain", epochs=2, **model)
    write_run(tmp_path, "teacher", epochs=2, **teacher)
    write_run(tmp_path, "taught", epochs=2, **model, hooks={"distill": {"teacher": "teacher"}})
    write_run(tmp_path, "cached", epochs=2, **model, hooks={"distill": {"teacher": "teacher", "cache": True}})
    write_run(tmp_path, "lost", epochs=2, **model, hooks={"distill": {"teacher": "elsewhere"}})
    (tmp_path / "plain" / "env.json").write_text(json.dumps([{"threads": 2, "processes": 1}]))
    runs = load_runs(tmp_path)
    names = ["plain", "taught", "cached", "lost"]
    cost = network_cost(Config.load(model)).cost.mult_adds
    whole = network_cost(Config.load(teacher)).cost.mult_adds
    points = pd.DataFrame({"run": names, "mult_adds": float(cost)})
    table = priced(points, runs).set_index("run")
    images = 20 * 100  # two epochs of ten steps
    assert table["training"].iloc[:3].tolist() == pytest.approx(
        [images * 3 * cost, images * (3 * cost + whole), images * (3 * cost + whole / 2)]
    )
    assert math.isnan(table.loc["lost", "training"])
    assert table["inference"].tolist() == [cost] * 4
    assert table.loc["plain", "cpu_seconds"] == pytest.approx(2 * 2 * 1.5)  # epochs, threads, seconds of an epoch
    sparse = points.assign(sparse_mult_adds=10.0, trained_mult_adds=20.0)
    assert priced(sparse, runs)[["inference", "training"]].iloc[0].tolist() == [10.0, images * 3 * 20.0]
