import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from synthetic_runs import LAYERS, write_run

from research import figures
from research.errors import UsageError
from research.figures.taps import independent_floor
from research.frames import load_runs
from research.frames.gram import at_k, gram_epochs, gram_taps, load_gram, results_against_k


@pytest.fixture
def runs(tmp_path):
    """Three seeds plain, one with GraM; validation loss of epoch e is 1 / (e + 1 + seed)."""
    for seed in range(3):
        write_run(tmp_path / "runs", f"plain{seed}", seed=seed)
    write_run(tmp_path / "runs", "gram", gram=True)
    return load_runs(tmp_path / "runs")


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in (legend.get_title(), *legend.get_texts())]


def test_seeds_are_one_line_with_mean_spread_and_count(runs):
    figure = figures.loss_curves(runs[runs["hooks"] == ""])
    loss, top1 = figure.axes
    validation = next(line for line in loss.lines if line.get_linestyle() == "-")
    expected = [np.mean([1 / (epoch + 1 + seed) for seed in range(3)]) for epoch in range(3)]
    np.testing.assert_allclose(validation.get_ydata(), expected)
    np.testing.assert_array_equal(validation.get_xdata(), [1, 2, 3])  # epochs trained
    assert len(loss.lines) == len(top1.lines) == 2 and len(loss.collections) == 2  # a band each
    assert [text for text in texts(figure) if "n = 3" in text] == ["mean ± s.d., n = 3"]  # said once


def test_every_configuration_has_its_colour(runs):
    figure = figures.loss_curves(runs)
    by_colour = {to_rgba(line.get_color()) for line in figure.axes[0].lines}
    assert len(figure.axes[0].lines) == 4 and len(by_colour) == 2
    assert sum("n = 3" in text for text in texts(figure)) == sum("n = 1" in text for text in texts(figure)) == 1


def test_axes_are_labelled_and_nothing_has_a_title(runs):
    run = runs[runs["hooks"] == "gram"]["dir"].item()
    taps = gram_taps(*(load_gram(run, epoch) for epoch in gram_epochs(run)))
    lines = (
        figures.multiplier_over_epochs,
        figures.multiplier_over_k,
        figures.tap_profile,
        figures.horizontal_and_vertical,
    )
    for figure in (figures.loss_curves(runs), *(draw(taps) for draw in lines)):
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
        assert not any(axis.get_title() for axis in figure.axes)
        assert figure.get_figwidth() in (3.3, 6.8)


def test_matrices_show_every_layer_in_order_of_depth(runs):
    record = load_gram(runs[runs["hooks"] == "gram"]["dir"].item())
    figure = figures.nmi_matrices(record)
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert len(shown) == 2 * len(LAYERS)
    for pair, layer in zip(zip(shown[::2], shown[1::2], strict=True), record.layers, strict=True):
        np.testing.assert_array_equal(pair[0], layer.corr)
        np.testing.assert_array_equal(pair[1], layer.multiplier)
    names = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert [name for name in names if name in LAYERS] == list(LAYERS)


def test_strips_show_every_layer_at_every_k_and_epoch(runs):
    run = runs[runs["hooks"] == "gram"]["dir"].item()
    records = [load_gram(run, epoch) for epoch in gram_epochs(run)]
    over_k, over_epochs = figures.multipliers_of_ks(records[-1], [1, 8]), figures.multipliers_of_epochs(records)
    for figure, columns in ((over_k, [at_k(records[-1], k) for k in (1, 8)]), (over_epochs, records)):
        shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
        expected = [record.layers[depth].multiplier for depth in range(len(LAYERS)) for record in columns]
        assert len(shown) == len(expected)
        for image, multiplier in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(image, multiplier)
    written = {text.get_text() for axis in over_epochs.axes for text in axis.texts}
    assert written == {"1", "2", "3", *LAYERS}


def test_wide_kernels_are_written_in_numbers(runs):
    record = load_gram(runs[runs["hooks"] == "gram"]["dir"].item())
    corr, multiplier = [axis for axis in figures.wide_kernels(record).axes if axis.images]
    assert len(corr.texts) == len(multiplier.texts) == 49
    assert [text.get_text() for text in corr.texts if text.get_position() == (0, 0)] == ["1.00"]
    with pytest.raises(UsageError, match="larger than 3x3"):
        figures.wide_kernels(type(record)(0, 8.0, "center", record.layers[:1]))


def test_horizontal_and_vertical_neighbours_are_told_apart(runs):
    taps = gram_taps(load_gram(runs[runs["hooks"] == "gram"]["dir"].item()))
    taps.loc[(taps["dy"] == 0) & (taps["dx"].abs() == 1), "multiplier"] = 30.0
    axis = figures.horizontal_and_vertical(taps).axes[0]
    by_label = {line.get_label(): line.get_xdata() for line in axis.lines}
    assert (by_label["horizontal"] == 30).all() and (by_label["vertical"] < 30).all()
    assert [label.get_text() for label in axis.get_yticklabels()] == list(LAYERS)


def test_results_stand_beside_the_band_of_plain_training(tmp_path):
    for seed in range(2):
        write_run(tmp_path, f"plain{seed}", seed=seed)
        for k in (1.0, 16.0):
            write_run(tmp_path, f"gram{k}-{seed}", seed=seed, hooks={"gram": {"k": k}})
    table = load_runs(tmp_path)
    table["last_top1"] = 72.0 + table["seed"] + table["gram.k"].notna() * np.where(table["seed"] == 0, 0.5, 0.7)
    results = results_against_k(table)
    figure = figures.against_k(results)
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["plain", "1", "16"]
    dots = {tuple(dot) for each in left.collections for dot in np.asarray(each.get_offsets()).tolist()}
    assert {(0, 72), (0, 73), (1, 72.5), (1, 73.7), (2, 72.5), (2, 73.7)} <= dots  # every seed, plain training first
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.6, 0.6])
    reach = 12.7062 * np.std([0.5, 0.7], ddof=1) / np.sqrt(2)
    bars = [each.get_segments()[0] for each in right.collections]
    np.testing.assert_allclose(bars[0], [[1, 0.6 - reach], [1, 0.6 + reach]], rtol=1e-5)
    assert {line.get_markerfacecolor() for line in right.lines if line.get_marker() == "o"} == {"white"}  # p > 0.05
    assert texts(figure)[0].endswith("seeds (n = 2; plain 2)") and texts(figure)[-1] == "GraM"
    assert right.get_ylabel() == "difference to plain (points)"
    with pytest.raises(UsageError, match="no run with GraM"):
        figures.against_k(results[results["k"].isna()])


def test_cost_of_several_runs_is_their_median():
    cost = pd.DataFrame({"run": ["a", "b", "c"], "epoch": 1, "seconds": [1.0, 2.0, 9.0], "share": [0.1, 0.2, 0.9]})
    seconds, share = figures.measuring_cost(cost).axes
    assert seconds.lines[0].get_ydata() == [2.0] and share.lines[0].get_ydata() == [20.0]
    with pytest.raises(UsageError, match="no cost to draw"):
        figures.measuring_cost(cost.head(0))


def test_profile_is_the_mean_multiplier_of_taps_at_equal_distance(runs):
    run = runs[runs["hooks"] == "gram"]["dir"].item()
    line = figures.tap_profile(gram_taps(load_gram(run))).axes[0].lines[0]
    multiplier = load_gram(run).layers[0].multiplier
    edges, corners = multiplier[[0, 1, 1, 2], [1, 0, 2, 1]], multiplier[[0, 0, 2, 2], [0, 2, 0, 2]]
    np.testing.assert_allclose(line.get_ydata(), [multiplier[1, 1], edges.mean(), corners.mean()])


def test_histogram_counts_every_defined_channel_and_neighbour(runs):
    record = load_gram(runs[runs["hooks"] == "gram"]["dir"].item())
    axes = [axis for axis in figures.nmi_histogram(record).axes if axis.patches]
    assert len(axes) == len(LAYERS)
    for axis in axes:
        assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(1)


@pytest.mark.parametrize(
    "n, measured", [(200, 0.040), (1000, 0.012), (5000, 0.0038), (25000, 0.0009), (200000, 0.0002)]
)
def test_floor_is_what_independent_data_give(n, measured):
    assert independent_floor(n, 1 + int(np.ceil(np.log2(n)))) == pytest.approx(measured, rel=0.2)


def test_nothing_to_draw_is_said(tmp_path):
    run = write_run(tmp_path, "new")
    (run / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="no run has finished an epoch"):
        figures.loss_curves(load_runs(tmp_path))


def test_saving_replaces_nothing(tmp_path):
    (tmp_path / "f-2.pdf").write_text("mine")
    saved = [figures.save(Figure(), tmp_path, "f").name for _ in range(3)]
    assert saved == ["f.png", "f-3.png", "f-4.png"] and (tmp_path / "f-2.pdf").read_text() == "mine"
    assert not (tmp_path / "f-2.png").exists() and (tmp_path / "f-4.pdf").stat().st_size > 0


def test_drawing_changes_no_defaults_and_keeps_no_figure_open(runs):
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before = dict(mpl.rcParams)
    figures.loss_curves(runs)
    assert dict(mpl.rcParams) == before and plt.get_fignums() == []
