import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from synthetic_runs import LAYERS, write_run

from research import figures
from research.errors import UsageError
from research.figures.correlation import independent_floor
from research.frames import gram_taps, load_gram, load_runs


@pytest.fixture
def runs(tmp_path):
    """Three seeds plain, one with GraM; validation loss of epoch e is 1 / (e + 1 + seed)."""
    for seed in range(3):
        write_run(tmp_path / "runs", f"plain{seed}", seed=seed)
    write_run(tmp_path / "runs", "gram", gram=True)
    return load_runs(tmp_path / "runs")


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_seeds_are_one_line_with_mean_spread_and_count(runs):
    figure = figures.loss_curves(runs[runs["hooks"] == ""])
    loss, top1 = figure.axes
    validation = next(line for line in loss.lines if line.get_linestyle() == "-")
    expected = [np.mean([1 / (epoch + 1 + seed) for seed in range(3)]) for epoch in range(3)]
    np.testing.assert_allclose(validation.get_ydata(), expected)
    np.testing.assert_array_equal(validation.get_xdata(), [1, 2, 3])  # epochs trained
    assert len(loss.lines) == len(top1.lines) == 2 and len(loss.collections) == 2  # a band each
    assert any("n = 3" in text for text in texts(figure))


def test_every_configuration_has_its_colour(runs):
    figure = figures.loss_curves(runs)
    by_colour = {to_rgba(line.get_color()) for line in figure.axes[0].lines}
    assert len(figure.axes[0].lines) == 4 and len(by_colour) == 2
    assert sum("n = 3" in text for text in texts(figure)) == sum("n = 1" in text for text in texts(figure)) == 1


def test_axes_are_labelled_and_nothing_has_a_title(runs):
    run = runs[runs["hooks"] == "gram"]["dir"].item()
    taps = gram_taps(run)
    for figure in (figures.loss_curves(runs), figures.multiplier_over_epochs(taps), figures.tap_profile(taps)):
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


def test_profile_is_the_mean_multiplier_of_taps_at_equal_distance(runs):
    run = runs[runs["hooks"] == "gram"]["dir"].item()
    line = figures.tap_profile(gram_taps(run)).axes[0].lines[0]
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
