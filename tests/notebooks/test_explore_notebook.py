"""The panels of explore.ipynb, and the notebook as it comes."""

import base64
import io

import nbformat
import numpy as np
import pytest
from matplotlib import image

from research.config import Config
from research.errors import UsageError
from research.notebooks.execute import execute
from research.notebooks.explore import NEW, LayerPanel, PicturePanel
from research.runs.run import Run
from research.training.loop import fit


def picture(panel) -> np.ndarray:
    return image.imread(io.BytesIO(panel.picture.value))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run with GraM, one whose masks move."""
    folder = tmp_path_factory.mktemp("explored") / "runs"
    base = {"runs": str(folder), "device": "cpu", "threads": 1, "epochs": 2, "batch_size": 256}
    fit(Run.create(Config.load(base, {"name": "gram", "gram": True, "epochs": 3})))
    fit(Run.create(Config.load(base, {"name": "rigl", "rigl.sparsity": 0.9, "rigl.period": 2})))
    return folder


def test_a_layer_is_seen_from_epoch_to_epoch_and_beside_another_run(runs):
    panel = LayerPanel(runs, Config.load({}), run="gram")
    assert panel.layer.value == "conv1" and panel.epoch.value == 2 and panel.epoch.max == 3
    assert "gram: weights are kept after epochs 0" in panel.text and "GraM measured after 1-2" in panel.text
    drawn = [picture(panel)]
    for control, value in ((panel.epoch, 1), (panel.layer, "layer2.0.conv1"), (panel.beside, "rigl")):
        control.value = value
        drawn.append(picture(panel))
        assert drawn[-1].shape != drawn[-2].shape or (drawn[-1] != drawn[-2]).any()
    assert "rigl: weights are kept after" in panel.text


def test_another_run_brings_its_own_layers_and_epochs(runs, tiny):
    fit(Run.create(tiny(runs=str(runs), name="mlp", epochs=1)))
    panel = LayerPanel(runs, Config.load({}))
    assert panel.run.value == "mlp"  # written to last
    assert panel.layer.options == ("1", "3", "5") and panel.epoch.max == 1
    panel.layer.value = "3"
    panel.run.value = "gram"
    assert panel.layer.value == "conv1" and panel.epoch.max == 3 and panel.picture.value
    panel.run.value = NEW
    assert panel.epoch.max == panel.epoch.value == 0 and "gram" not in panel.text


def test_without_runs_there_is_a_new_network_and_the_way_to_a_run(tmp_path):
    panel = LayerPanel(tmp_path / "runs", Config.load({}))
    assert panel.run.options == (NEW,) and panel.picture.value
    assert "There are no runs yet; `research train" in panel.text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"run": "gramm"}, "run='gramm': there is none; did you mean 'gram'"),
        ({"beside": "x"}, "beside='x': there is none"),
        ({"run": "gram", "layer": "conv"}, "layer='conv': there is none; did you mean 'conv1'"),
        ({"run": "gram", "epoch": 9}, "epoch=9: expected 0 to 3"),
    ],
)
def test_what_is_not_there_is_refused(runs, given, problem):
    with pytest.raises(UsageError, match=problem.replace("(", r"\(")):
        LayerPanel(runs, Config.load({}), **given)


def test_augmentation_is_drawn_as_it_is_typed():
    panel = PicturePanel(Config.load({"data_args": {"crop": "pad", "padding": 1}}), count=2, epochs=2)
    assert panel.augmentation.value == "crop=pad padding=1"
    before = picture(panel)
    panel.augmentation.value = "cutout=4"
    assert (picture(panel) != before).any()
    panel.augmentation.value = "cutuot=4"
    assert "did you mean 'data_args.cutout'" in panel.text and not panel.picture.value
    panel.dataset.value = "circle"
    assert "set of vectors" in panel.text and panel.augmentation.value == ""
    panel.dataset.value = "digits"
    assert panel.picture.value and panel.first.value == 0


def test_the_notebook_as_it_comes_draws_two_pictures_in_an_empty_folder(here):
    done = execute("explore", progress=False)
    outputs = [output for cell in nbformat.read(done, 4).cells for output in cell.get("outputs", ())]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", ())]
    assert len(pictures) == 2 and all(len(base64.b64decode(each)) > 5000 for each in pictures)
    assert any("There are no runs yet" in output.data["text/plain"] for output in outputs if "data" in output)
