"""The PowerGrad notebook, executed through papermill."""

import re

import nbformat
from conftest import cells

from research.notebooks.execute import execute
from research.runs.run import Run
from research.training.loop import fit


def said(path):
    """What the notebook printed, and how many figures it shows."""
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    return text, sum("image/png" in output.get("data", {}) for output in outputs)


def test_without_runs_it_shows_what_needs_none_and_says_what_is_missing(here, monkeypatch, capsys):
    names = cells("analysis/power_grad", monkeypatch, runs="runs")
    text = capsys.readouterr().out
    assert [name for name, _ in names["drawn"]] == ["gradient profile", "published gains"]
    assert names["worst"] < 1e-12
    assert "no folder of runs at runs. What needs runs is left out below." in text
    assert "Of 9 published pairs, 9 gain (sign test: p = 0.0039), by +0.42 [+0.24, +0.60] points on average" in text
    for sentence in (
        "nothing to compare with",
        "no growth of logits to draw",
        "no differences to show",
        "no calibration",
    ):
        assert sentence in text
    assert list(here.iterdir()) == []


def test_runs_of_two_alphas_and_seeds_become_every_figure_and_one_entry(here, tiny):
    for alpha in (1.0, 0.25):
        for seed in (0, 1):
            hooks = {"power_grad": {"alpha": alpha}, "logit_stats": {}}
            fit(Run.create(tiny(name=f"a{alpha}-{seed}", epochs=1, seed=seed, hooks=hooks)))
    text, figures = said(execute("analysis/power_grad", {"log": "log.md", "folder": "kept"}, progress=False))
    assert figures == 6 and "left out" not in text
    log = (here / "log.md").read_text()
    links = re.findall(r"!\[.*\]\((.*)\)", log)
    assert (
        len(re.findall("^## ", log, re.M)) == 1 and len(links) == 5 and all((here / link).is_file() for link in links)
    )
    assert re.search(r"\| mnist_mlp \| 0.25 \| last_top1 \| 2 \| .* \| .* \| [+-].* \[.*\] \| 2 pairs", log)
