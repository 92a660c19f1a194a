"""Every notebook as people see it: opened in a browser in a fresh copy of the project, all cells run.

With ``SCREENSHOTS=FOLDER`` each page is kept there as a picture, to be looked at.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from lab import Lab, browser, errors, fresh_copy, run_all, wait_for_text, wait_until_done, widths

from research.runs.metrics import read_rows

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted(
    path.relative_to(REPOSITORY / "notebooks").with_suffix("").as_posix()
    for path in (REPOSITORY / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
INTERRUPT = ".jp-NotebookPanel-toolbar [data-jp-item-name=interrupt] jp-button"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    browser()  # skips all where there is none
    project = fresh_copy(tmp_path_factory.mktemp("project"))
    with Lab(project, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def screenshot(page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
        height = page.evaluate("document.querySelector('.jp-WindowedPanel-inner').scrollHeight")
        page.set_viewport_size({"width": 1400, "height": min(int(height) + 250, 12_000)})
        page.wait_for_timeout(1000)
        page.screenshot(path=Path(folder) / f"{name.replace('/', '-')}.png")


@pytest.mark.parametrize("notebook", [name for name in NOTEBOOKS if name not in ("train", "explore")])
def test_a_notebook_as_it_comes_runs_to_its_end(notebook, lab):
    with lab.opened(notebook) as page:
        run_all(page)
        wait_until_done(page)
        screenshot(page, notebook)
        assert errors(page) == []
        assert all(width > 200 for width in widths(page))


def test_training_is_interrupted_and_continues(lab):
    with lab.opened("train") as page:
        run_all(page)
        wait_for_text(page, "epoch 1/10")
        page.click(INTERRUPT)
        wait_for_text(page, "KeyboardInterrupt")
        (status,) = lab.project.glob("runs/*/status.json")
        stopped = json.loads(status.read_text())
        assert stopped["status"] == "interrupted" and 0 < stopped["epoch"] < 10
        screenshot(page, "train-interrupted")
        run_all(page)
        wait_until_done(page)
        screenshot(page, "train")
        assert errors(page) == [] and max(widths(page)) > 400
        assert json.loads(status.read_text())["status"] == "finished"
        sessions = json.loads(status.with_name("env.json").read_text())
        epochs = [row["epoch"] for row in read_rows(status.with_name("metrics.jsonl")) if row["kind"] == "val"]
        assert len(sessions) == 2 and epochs == list(range(10))


def test_the_picture_follows_the_slider(lab):
    train = ["train", "model=resnet8", "gram.k=8", "epochs=2", "name=seen"]
    environment = {**os.environ, "PYTHONPATH": str(lab.project)}
    subprocess.run([sys.executable, "-m", "research", *train], cwd=lab.project, env=environment, check=True)
    with lab.opened("explore") as page:
        run_all(page)
        wait_until_done(page)
        pictures = page.locator("img.widget-image")
        assert pictures.count() == 2 and all(width > 400 for width in widths(page)) and errors(page) == []
        screenshot(page, "explore")
        before = pictures.first.get_attribute("src")
        page.locator(".widget-slider .noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("old => document.querySelector('img.widget-image').src != old", arg=before)
        wait_for_text(page, "GraM measured after 1")
        screenshot(page, "explore-moved")
        assert errors(page) == []
