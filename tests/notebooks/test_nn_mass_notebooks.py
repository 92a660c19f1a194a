"""The notebooks of NN-Mass and LDI: without runs, and on networks trained here."""

import re
from pathlib import Path

import nbformat
import pytest
from conftest import cells

from research.notebooks.execute import execute
from research.studies.mlp_grid import mlp_configs
from research.studies.population import fit_population


@pytest.fixture
def trained(here):
    """Nine networks of three shapes on a line, one epoch of six steps, with LDI."""
    given = {"dataset": "linear", "width": 4, "depth": 5, "tc": [0, 2, 6], "num_seg": 4, "seeds": [0, 1, 2]}
    configs = mlp_configs("nn-mass", **given, batch_size=2000, device="cpu")
    return fit_population(configs, ["exact", "reference"])


@pytest.mark.parametrize(("name", "figures"), [("nn_mass", []), ("ldi", ["singular values"])])
def test_without_runs_they_draw_what_needs_none_and_say_what_is_missing(name, figures, here, monkeypatch, capsys):
    left = cells(f"analysis/{name}", monkeypatch, runs="runs")
    assert "no folder of runs at runs" in capsys.readouterr().out
    assert [name for name, _ in left["drawn"]] == figures and left["said"] == []
    assert list(here.iterdir()) == []


def test_new_networks_see_points_in_the_plane_too(here, monkeypatch):
    left = cells("analysis/ldi", monkeypatch, runs="runs", dataset="circle", inits=1, images=20)
    assert left["x"].shape == (20, 2) and [name for name, _ in left["drawn"]] == ["singular values"]


def test_networks_of_one_mass_are_nothing_to_correlate(trained, monkeypatch, capsys):
    for name in ("nn_mass", "ldi"):
        cells(f"analysis/{name}", monkeypatch, runs="runs/*tc-2-*")
        assert "No two networks of different NN-Mass" in capsys.readouterr().out
    cells("analysis/nn_mass", monkeypatch, runs="runs/*tc-2-*", log="empty.md")
    assert "empty.md gets no entry" in capsys.readouterr().out and not Path("empty.md").exists()


def test_both_make_one_entry(trained, here, monkeypatch):
    given = {"log": "log.md", "title": "Small networks", "folder": "kept"}
    left = cells("analysis/ldi", monkeypatch, **given, inits=2, images=20)
    assert [name.split(" of ")[0] for name, _ in left["drawn"]] == [
        "singular values",
        "LDI and mass",
        "LDI and accuracy",
    ]
    done = execute("analysis/nn_mass", given, progress=False)
    outputs = [output for cell in nbformat.read(done, 4).cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    log = (here / "log.md").read_text()
    links = re.findall(r"!\[.*\]\((.*)\)", log)
    assert (
        len(re.findall("^## ", log, re.M)) == 1 and len(links) == 4 and all((here / link).is_file() for link in links)
    )
    assert re.search(r"\| nn_mass \| top1 \| all \| 3 \| 3 \| -?[\d.]+ \[", log)
    assert re.search(r"\| 5 \| 0.000 \| 0\.\d+ \| ", log)
