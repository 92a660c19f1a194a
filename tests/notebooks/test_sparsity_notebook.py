"""The sparsity notebook, executed: with runs of several methods, and with none."""

import re

import nbformat
from conftest import cells

from research.notebooks.execute import execute
from research.runs.plans import record
from research.runs.run import Run
from research.training.loop import fit

METHODS = {
    "dense": {},
    "dsr": {"dsr": {"sparsity": 0.9, "period": "3", "k": 200, "threshold": 0.01}},
    "prune": {"prune": {"sparsity": 0.9, "iterations": 4}},
    "tied": {"tied": {"sparsity": 0.9}},
    "static": {"static_sparse": {"sparsity": 0.9}},
}


def test_without_runs_it_shows_what_was_published(here, monkeypatch, capsys):
    names = cells("analysis/sparsity", monkeypatch, runs="runs")
    text = capsys.readouterr().out
    assert "no folder of runs at runs. What needs runs is left out below." in text
    assert re.findall("^(?:mnist_mlp|wrn-28-2|resnet50)$", text, re.M) == ["mnist_mlp", "wrn-28-2", "resnet50"]
    assert text.count(": no runs.") == 6 and names["drawn"] == []
    assert not (names["known"]["verification"] == "unverified").any()
    assert list(here.iterdir()) == []


def test_runs_of_several_methods_become_every_figure_and_one_entry(here, tiny):
    for name, hooks in METHODS.items():
        for seed in (0, 1) if name in ("dsr", "static") else (0,):
            fit(Run.create(tiny(name=f"{name}-{seed}", epochs=1, seed=seed, hooks=hooks)))
    done = execute("analysis/sparsity", {"log": "log.md", "folder": "kept"}, progress=False)
    outputs = [output for cell in nbformat.read(done, 4).cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    log = (here / "log.md").read_text()
    links = re.findall(r"!\[.*\]\((.*)\)", log)
    assert len(links) == 5 and all((here / link).is_file() for link in links)
    assert re.search(r"^\| DSR 0.9 \| 2 \| \d+\.\d\d ± \d+\.\d\d \|  \| 5,\d{3} \| \d+\.\d\d \|", log, re.M)
    assert len(re.findall(r"^\| (?:dense|DSR|pruning|tied|static)[^|]* \| \d", log, re.M)) == 5
    assert re.search(r"^\| DSR 0.9 \| static sparse 0.9 \| [+-].*2 pairs \|", log, re.M)


def test_arms_of_a_study_join_the_entry_seed_by_seed(here, tiny, monkeypatch):
    arms = {"dsr": METHODS["dsr"], "static": {"static_sparse": {"sparsity": 0.9}}}
    names = {f"s-{arm}-seed-{seed}": (hooks, seed) for arm, hooks in arms.items() for seed in (0, 1, 2)}
    for name, (hooks, seed) in names.items():
        fit(Run.create(tiny(name=name, epochs=1, seed=seed, hooks=hooks)))
    said = {"contrasts": [["dsr", "static"]], "margin": 5.0, "confirming": {}}
    record(here / "runs", "s", said | {"arms": {name: name.split("-")[1] for name in names}}, [])
    left = cells("analysis/sparsity", monkeypatch, log="log.md", folder="kept")
    assert "seeds of s" in dict(left["drawn"])
    log = (here / "log.md").read_text()
    assert re.search(r"^\| s \| first \| dsr \| 3 \| ", log, re.M) and "| dsr | static | planned |" in log
