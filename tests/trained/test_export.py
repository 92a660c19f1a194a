"""Exported networks compute what their runs compute, take less room, and say when a format is of no use."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from research.checkpoints.weights import load_into
from research.cli import main
from research.errors import UsageError
from research.runs.network import network_of
from research.runs.run import Run
from research.runs.stored import find_stored
from research.trained.compressed import CsrLinear, crowded, to_two_of_four
from research.trained.export import export, load_export
from research.training.loop import fit


@pytest.fixture
def trained(tiny, here):
    """``trained(hooks, **config)``: the folder of a run of one epoch, and its network with the best weights."""

    def make(hooks, **given):
        run = fit(Run.create(tiny(name="r", epochs=1, hooks=hooks, **given)))
        model = network_of(run.config, 10, (1, 8, 8), torch.device("cpu"))
        load_into(model, find_stored(run.dir).tensors, "")
        return run.dir, model.eval()

    return make


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.booleans(), st.integers(0, 2**16))
def test_compressed_rows_are_the_linear_layer(n_in, n_out, zeros, bias, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(n_in, n_out, bias=bias).double()
    with torch.no_grad():
        linear.weight[torch.rand_like(linear.weight) < zeros] = 0
    compressed, x = CsrLinear.of(linear), torch.randn(3, 2, n_in, dtype=torch.float64)
    torch.testing.assert_close(compressed(x), linear(x))
    assert torch.equal(compressed.weight.to_dense(), linear.weight)
    assert compressed.weight.values().numel() == int(linear.weight.count_nonzero())


def test_csr_has_the_outputs_of_the_run_in_a_fraction_of_the_bytes(trained):
    directory, model = trained({"set": {"sparsity": 0.98, "period": "2"}})
    done = export(directory)
    assert (
        done.path == directory / "r.csr.safetensors" and done.bytes == done.path.stat().st_size < done.dense_bytes / 5
    )
    assert done.layers == pytest.approx({"1": 0.02, "3": 0.02, "5": 0.02}, abs=4e-3)  # what grew last is still 0
    exported, x = load_export(done.path), torch.randn(7, 1, 8, 8)
    assert [type(layer) for layer in exported if hasattr(layer, "in_features")] == [CsrLinear] * 3
    torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("hooks", [{}, {"tied": {"sparsity": 0.9}}, {"static_sparse": {"sparsity": 0.9}}])
def test_dense_is_a_file_of_plain_weights(trained, hooks):
    directory, model = trained(hooks, model_args={"hidden": [20]}, model="mnist_mlp")
    done = export(directory, "dense", "plain.safetensors")
    assert done.difference == 0 and done.layers == {}
    plain = find_stored(done.path, {"model": "mnist_mlp", "model_args": {"hidden": [20]}}).tensors
    assert not [name for name in plain if "mask" in name or "parametrizations" in name]
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(load_export(done.path)(x), model(x))


def test_a_layer_that_is_mostly_full_stays_dense(trained):
    directory, model = trained({"static_sparse": {"sparsity": 0.9, "only": "1"}})
    done = export(directory)
    assert list(done.layers) == ["1"]
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(load_export(done.path)(x), model(x))


def test_what_cannot_be_had_is_refused_in_one_line(trained, here, capsys, monkeypatch):
    directory, _ = trained({"tied": {"sparsity": 0.9}})
    refused = {
        ("--format", "csv"): "error: format='csv': expected dense, csr, 2:4, onnx; did you mean 'csr'?",
        (): f"error: {directory}: no linear layer has enough zeros for csr; give --format dense",
        (
            "--format",
            "2:4",
        ): "error: format=2:4: needs an NVIDIA GPU of compute capability 8.0 or newer; there is none here",
    }
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words, said in refused.items():
        assert main(["export", str(directory), *words]) == 2
        assert capsys.readouterr().err.strip() == said
    assert [path.name for path in here.rglob("*.safetensors")] == ["best.safetensors"]


def test_two_of_four_is_refused_on_a_gpu_too_where_the_pattern_is_missing(trained, monkeypatch):
    directory, _ = trained({"static_sparse": {"sparsity": 0.6}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with pytest.raises(UsageError, match=r"none of its 3 linear layers .* groups have more"):
        export(directory, "2:4")


def test_pattern_of_two_in_four():
    weight = torch.tensor([[1.0, 0, 2, 0, 0, 0, 0, 3], [0, 1, 0, 2, 3, 0, 4, 0]])
    assert crowded(weight) == 0
    weight[0, 1] = 5  # 1 5 2 0
    assert crowded(weight) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_of_four_on_a_gpu():
    linear = nn.Linear(128, 64)
    with torch.no_grad():
        linear.weight.view(-1, 4)[:, :2] = 0
    model = to_two_of_four(nn.Sequential(linear))
    x = torch.randn(64, 128)
    expected = x @ linear.weight.to_dense().float().t().cpu() + linear.bias.float().cpu()
    torch.testing.assert_close(model(x.half().cuda()).float().cpu(), expected, rtol=2e-2, atol=2e-2)


def test_an_export_that_differs_is_not_kept(trained, here, monkeypatch):
    directory, _ = trained({"static_sparse": {"sparsity": 0.9}})
    monkeypatch.setattr(CsrLinear, "forward", lambda self, x: x.new_zeros(len(x), self.out_features))
    with pytest.raises(UsageError, match="differs by .* nothing is kept"):
        export(directory)
    assert [path.name for path in here.rglob("*.safetensors")] == ["best.safetensors"]


def test_only_exports_are_loaded(trained, tmp_path):
    directory, _ = trained({})
    with pytest.raises(UsageError, match="was not written by `research export`"):
        load_export(directory / "best.safetensors")
    (tmp_path / "x").write_text(json.dumps({}))
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        load_export(tmp_path / "x")


def test_command_line_says_what_was_written(trained, here, capsys):
    directory, _ = trained({"static_sparse": {"sparsity": 0.99}})
    capsys.readouterr()
    assert main(["export", str(directory), "--out", "small.safetensors"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "layer 1  1.00 % non-zero" and said[-1] == "small.safetensors" and (here / said[-1]).is_file()
