"""The generated sets of the NN-Mass studies: statistics and layout of the shipped files, and the published labels."""

import hashlib
import json

import numpy as np
import pytest
from conftest import GOLDENS

from research.data.synthetic import BINS, PER_BIN, labels, points, write_csv

GOLDEN = json.loads((GOLDENS / "nn-mass" / "labels_csv.json").read_text())
SPLITS = {"train": "train", "test": "val"}


@pytest.mark.parametrize("row", GOLDEN["seg_labels"], ids=lambda row: f"{row['n']}-{row['num_seg']}")
def test_labels_are_the_published_ones(row):
    mine = labels(row["n"], row["num_seg"])
    assert hashlib.sha256("".join(map(str, mine)).encode()).hexdigest() == row["sha256_of_ascii_labels"]
    assert mine.sum() == row["ones"]
    assert (np.flatnonzero(np.diff(mine)) + 1).tolist()[: len(row["change_points"])] == row["change_points"]


@pytest.mark.parametrize("row", GOLDEN["csv"], ids=lambda row: row["file"])
def test_files_have_the_layout_and_the_statistics_of_the_shipped_ones(row, tmp_path):
    """The draws differ, so places of points agree within four standard errors."""
    write_csv(tmp_path / "data")
    path = tmp_path / "data" / row["file"]
    text = path.read_text()
    numbers = [cell.lstrip("-") for line in text.splitlines() for cell in line.split(",")]
    assert len(numbers) == 2 * row["rows"] and text.endswith("\n")
    assert all(cell == row["line_format"] % float(cell) for cell in numbers)
    assert path.stat().st_size == pytest.approx(row["bytes"], rel=0 if row["cols_equal"] else 1e-3)
    table = np.loadtxt(path, delimiter=",")
    assert (table[:, 0] == table[:, 1]).all() == row["cols_equal"]
    assert len(np.unique(table, axis=0)) == row["unique_rows"]
    place = table[:, 0] if row["cols_equal"] else np.hypot(*table.T)
    within = place * BINS / 100 - np.arange(BINS).repeat(row["per_bin"])
    assert within.min() >= 0 and within.max() < 1
    error = row["within_bin_position_std"] / np.sqrt(row["rows"])
    assert abs(within.mean() - row["within_bin_position_mean"]) < 4 * error * np.sqrt(2)
    assert abs(within.std() - row["within_bin_position_std"]) < 4 * error


@pytest.mark.parametrize("split", PER_BIN)
def test_points_of_the_circle_have_a_truncated_normal_radius_and_a_uniform_angle(split):
    """Of a normal variable within one standard deviation: half a bin times sqrt(1 - 2 phi(1) / (2 Phi(1) - 1))."""
    x, y = points("circle", split).T
    radius, angle = np.hypot(x, y) * BINS / 100 % 1, np.arctan2(y, x)
    count = len(radius)
    assert abs(radius.std() - 0.5 * np.sqrt(1 - 2 * 0.2419707 / 0.6826895)) < 4 * 0.27 / np.sqrt(2 * count)
    assert abs(np.exp(1j * angle).mean()) < 4 / np.sqrt(count)
