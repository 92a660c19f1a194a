"""The notebooks of the repository, executed through papermill."""

import re

import nbformat
import papermill
import pytest
from conftest import REPOSITORY
from synthetic_runs import write_run

from research.config.recipes import load_recipe
from research.errors import UsageError
from research.notebooks.execute import execute, find, read_parameters
from research.studies.study import expand, read_study

ROOT = REPOSITORY
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def outputs(path, mime):
    return [
        o.data[mime] for c in nbformat.read(path, 4).cells for o in c.get("outputs", ()) if mime in o.get("data", ())
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_is_clean_and_takes_parameters(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    assert read_parameters(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_and_editors_see_the_type_of_every_parameter(path):
    seen = papermill.inspect_notebook(path)
    assert list(seen) == list(read_parameters(path))
    assert "None" not in {parameter["inferred_type_name"] for parameter in seen.values()}


CHEAP = ("topology",)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem in CHEAP else pytest.mark.slow, id=path.stem) for path in NOTEBOOKS],
)
def test_notebook_runs_as_shipped_where_there_is_nothing(path, here, monkeypatch):
    """From top to bottom, with the data that comes with the package; nothing is said in the words of an error."""
    monkeypatch.delenv("RESEARCH_DATA", raising=False)
    done = execute(path, progress=False)
    assert outputs(done, "image/png") or outputs(done, "text/html")
    cells = [cell for cell in nbformat.read(done, 4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [o for cell in cells for o in cell.outputs if o.get("name") == "stderr"]


def test_training_notebook_trains_and_is_kept_with_its_run(here):
    done = execute("train", {"epochs": 1, "model": "mnist_mlp", "device": "cpu", "lr": 0.05, "log_interval": 5})
    run = done.parent
    assert (
        run.parent == here / "runs" and (run / "best.safetensors").is_file() and (run / "figures/curves.pdf").is_file()
    )
    assert len(outputs(done, "image/png")) == 1
    assert f"{run}\n" in nbformat.read(done, 4).cells[-1].outputs[0].text


def test_training_notebook_refuses_before_it_makes_anything(here):
    with pytest.raises(UsageError, match="unknown hook 'gramm'|unknown parameter 'gramm"):
        execute("train", {"gramm.k": 8})
    assert list(here.iterdir()) == []


def test_analyses_of_one_day_make_one_entry(here):
    for seed in range(2):
        write_run(here / "runs", f"plain{seed}", seed=seed)
    write_run(here / "runs", "gram", gram=True)
    curves = execute("analysis/curves", {"log": "log.md", "title": "Demo"}, progress=False)
    correlation = execute(
        "analysis/correlation",
        {"runs": "runs", "log": "log.md", "title": "Demo", "logged": ["top-1 against k"]},
        progress=False,
    )
    assert curves.parent == correlation.parent == here / "runs" / "analysis"
    assert len(outputs(curves, "image/png")) == 1 and len(outputs(correlation, "image/png")) == 11
    log = (here / "log.md").read_text()
    assert len(re.findall("^## ", log, re.M)) == 1
    links = re.findall(r"!\[.*\]\((.*)\)", log)
    assert len(links) == 2 and all((here / link).is_file() for link in links)


def test_analysis_without_anything_to_analyse_says_so(here):
    write_run(here / "runs", "plain")
    with pytest.raises(UsageError, match="no run in runs has GraM measurements"):
        execute(find("analysis/correlation"), {"runs": "runs"}, progress=False)
    assert not (here / "runs" / "analysis").exists()


def test_imagenet_study_is_the_seed_s_with_four_controls():
    configs = [point.config for point in expand(read_study(ROOT / "notebooks" / "studies" / "gram-k-imagenet.yaml"))]
    ks = {(config.model, config.hooks.get("gram", {}).get("k")) for config in configs}
    models = ("resnet18", "resnet34", "resnet50", "mobilenet_v1")
    assert len(configs) == 36
    assert ks == {(model, k) for model in models for k in (None, 1, 2, 4, 8, 16, 32, 64, 256)}
    for config in configs:
        recipe = load_recipe("gram-imagenet-mobilenet_v1" if config.model == "mobilenet_v1" else "gram-imagenet-resnet")
        told = config.to_dict()
        assert {key: told[key] for key in recipe} == recipe | {"model": config.model}
        assert (config.processes, config.device) == (8, "cuda")
        for given in config.hooks.values():
            settings = {"epochs": 1, "batches": 2, "warmup": 1, "variant": "center", "place": "measured"}
            assert {**given, "k": 0} == {"k": 0} | settings
