"""ONNX files compute what their runs compute, whatever methods and substitutes were at work."""

import importlib.util
import json

import pytest
import torch

from research.checkpoints.weights import load_into
from research.cli import main
from research.errors import UsageError
from research.layers.families import LAYERS
from research.runs.network import network_of
from research.runs.run import Run
from research.runs.stored import find_stored
from research.trained import export as exporting
from research.trained.export import export
from research.trained.onnx_files import NEEDED, run_onnx, write_onnx
from research.training.loop import fit

needs_onnx = pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason=f"needs {', '.join(NEEDED)}")
CASES = {
    "masked": {"hooks": {"rigl": {"sparsity": 0.9, "period": "5"}}},
    "tied": {"hooks": {"tied": {"sparsity": 0.9}}},
    "substituted": {"model": "resnet8", "substitute": "sephashed:0.2"},
}


@pytest.fixture
def trained(tiny, here):
    """``trained(**config)``: the folder of a run of one epoch, and its network with the best weights."""

    def make(**given):
        run = fit(Run.create(tiny(name="r", epochs=1, **given)))
        model = network_of(run.config, 10, (1, 8, 8), torch.device("cpu"))
        load_into(model, find_stored(run.dir).tensors, "")
        return run.dir, model.eval()

    return make


@needs_onnx
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_run_for_any_number_of_images(case, trained):
    directory, model = trained(**CASES[case])
    done = export(directory, "onnx")
    assert done.path == directory / "r.onnx" and done.inputs == "64 images of digits" and done.difference < 1e-4
    for count in (1, 7):
        x = torch.randn(count, 1, 8, 8)
        torch.testing.assert_close(run_onnx(done.path, x), model(x), rtol=1e-4, atol=1e-4)


@needs_onnx
def test_a_file_says_what_it_takes_and_whose_it_is(trained, here):
    import onnx

    directory, _ = trained()
    path = export(directory, "onnx").path
    file = onnx.load(path)
    onnx.checker.check_model(file)
    assert [value.name for value in (*file.graph.input, *file.graph.output)] == ["images", "logits"]
    told = json.loads(next(prop.value for prop in file.metadata_props if prop.key == "research"))
    assert told["shape"] == [1, 8, 8] and told["classes"] == 10 and len(told["mean"]) == len(told["std"]) == 1
    exporting.refuse_place(path)  # its own may be written again
    del file.metadata_props[:]
    for name, content in {"foreign.onnx": file.SerializeToString(), "text.onnx": b"mine"}.items():
        (here / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name}: exists, and `research export` did not write it"):
            export(directory, "onnx", name)
        assert (here / name).read_bytes() == content


@needs_onnx
def test_a_file_that_differs_is_not_kept(trained, monkeypatch):
    directory, _ = trained()
    monkeypatch.setattr(exporting, "run_onnx", lambda path, inputs: run_onnx(path, inputs) * 1.001)
    with pytest.raises(UsageError, match="differs by .* nothing is kept"):
        export(directory, "onnx")
    assert not list(directory.glob("*onnx*"))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("family", LAYERS)
def test_every_family_of_substitutes(family, tiny, tmp_path):
    first = {"shuffle": 2, "acdc": 2}.get(family, 0.3)  # counts
    config = tiny(model="resnet8", substitute=f"{family}:{first}" if LAYERS[family].settings else family)
    model = network_of(config, 10, (1, 8, 8), torch.device("cpu")).eval().requires_grad_(False)
    write_onnx(model, (1, 8, 8), {}, tmp_path / "x.onnx")
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(run_onnx(tmp_path / "x.onnx", x), model(x), rtol=1e-4, atol=1e-4)


def test_without_the_libraries_one_line_says_how_to_get_them(trained, monkeypatch, capsys):
    directory, _ = trained()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name in NEEDED else find(name, *_))
    capsys.readouterr()
    assert main(["export", str(directory), "--format", "onnx"]) == 2
    said = "error: format=onnx needs onnx and onnxscript and onnxruntime; pip install 'research[onnx]'\n"
    assert capsys.readouterr().err == said
