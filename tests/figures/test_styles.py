"""One look a method, colours that everybody tells apart, legends that fit, names of files that say what they show."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from synthetic_runs import write_run

from research.figures.legends import legend_below, spread, tell_apart
from research.figures.style import FAMILIES, LOOKS, OTHERS, PAGE, PALETTE, SPARSE, TALLEST, looks, style
from research.frames import load_runs
from research.frames.sparse import NAMES
from research.log import logbook

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
SIGHTS = {
    "all colours": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colour, sight):
    """CIELAB (D65) of a colour as a reader of this sight sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(np.array(SIGHTS[sight]) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_differ_as_much_as_those_of_okabe_and_ito_whoever_looks(sight):
    seen = [lab(colour, sight) for colour in PALETTE]
    pairs = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)]
    assert len(set(PALETTE)) == len(PALETTE) == 12 and min(pairs) > 17.8  # green and pink to a deuteranope


def test_no_two_methods_of_a_kind_share_a_colour_or_a_marker_and_no_two_at_all_both():
    for kind in (SPARSE, FAMILIES, OTHERS):
        assert len({look.colour for look in kind.values()}) == len({look.marker for look in kind.values()}) == len(kind)
    assert len({look[:2] for look in LOOKS.values()}) == len(LOOKS) == len(SPARSE) + len(FAMILIES) + len(OTHERS) - 1
    assert {look.colour for look in LOOKS.values()} <= set(PALETTE)
    assert {method: look.name for method, look in SPARSE.items()}.items() <= NAMES.items()


def test_a_method_keeps_its_colour_and_what_shares_a_method_gets_those_that_are_left():
    own = looks({"a": "dsr", "b": "tied", "c": "gram", "d": "gram", "e": "gram+dsr"})
    assert (own["a"], own["b"]) == (LOOKS["dsr"], LOOKS["tied"])
    assert len({look.colour for look in own.values()}) == 5


def test_up_to_eight_lines_have_colours_and_more_have_groups_and_numbers():
    few = tell_apart({f"k{place}": "gram" for place in range(8)})
    assert len({look.colour for look in few.looks.values()}) == 8 and not few.numbers and not few.groups
    methods = {f"{method} {place}": method for method in ("dsr", "set", "rigl") for place in range(100)}
    many = tell_apart(methods, best=["set 7", *methods])
    assert {look.colour for look in many.looks.values()} == {LOOKS[method].colour for method in ("dsr", "set", "rigl")}
    assert [line.get_label() for line in many.groups] == [f"{m}: 100 configurations" for m in ("DSR", "SET", "RigL")]
    assert many.numbers["set 7"] == 1 and len(many.numbers) == len(many.handles) == 12


@pytest.mark.parametrize("count", [1, 10, 300])
def test_a_legend_lies_within_the_figure_and_the_figure_on_a_page(count):
    with style():
        figure, _ = plt.subplots(figsize=(PAGE, 2.0), layout="constrained")
        words = "milestones=[25, 50, 75] lr_table=0:0.1 1:0.02 2:0.004 static_sparse.distribution=er " * 2
        legend_below(figure, [Line2D([], [], label=f"{place} {words}") for place in range(count)])
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        plt.close(figure)
    assert len(figure.legends) == 1 and figure.get_figheight() <= TALLEST + 0.3
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert " ".join(shown[0].split()) == f"0 {words}".strip()
    if len(shown) < count:
        assert shown[-1] == f"and {count - len(shown) + 1} more"


def test_places_are_apart_and_as_near_as_can_be():
    assert spread([0.2, 0.8, 0.5], 0.1).tolist() == pytest.approx([0.2, 0.8, 0.5])
    placed = spread([0.9, 0.9, 0.95, 0.1], 0.06)
    assert (
        np.diff(np.sort(placed)).min() >= 0.06 - 1e-9 and placed.max() <= 1 + 1e-9 and placed[3] == pytest.approx(0.1)
    )


def test_a_parameter_without_a_value_is_no_word_of_a_label(tmp_path):
    write_run(tmp_path, "a", substitute="")
    write_run(tmp_path, "b", substitute="tt:rank=2")
    write_run(tmp_path, "c", substitute="", lr=0.3)
    assert load_runs(tmp_path).labels().tolist() == ["lr=0.1", "substitute=tt:rank=2 lr=0.1", "lr=0.3"]


def test_files_of_figures_are_named_by_all_that_tells_them_apart(tmp_path):
    names = [f"mass and accuracy of dense_mlp on circle, data_args.num_seg={n}" for n in (10, 20)]
    names += [f"{'a very long population ' * 6}num_seg={n}" for n in (10, 20)]
    for name in names:
        figure = plt.figure(figsize=(1, 1))
        plt.close(figure)
        logbook.append("t", "x", figures=[(name, figure)], path=tmp_path / "log.md", folder=tmp_path / "f")
    files = sorted(path.stem for path in (tmp_path / "f").glob("*.png"))
    assert len(files) == 4 and sorted(stem[-10:] for stem in files) == [
        "num-seg-10",
        "num-seg-10",
        "num-seg-20",
        "num-seg-20",
    ]
