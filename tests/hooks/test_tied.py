"""Tied weights: balanced maps, the bank's gradient against golden numbers, and the method in whole runs."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDENS, rows, weights
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from research.config import Config
from research.layers.base import Substitute
from research.layers.tied import balanced_index, bank_size, tie
from research.measures.cost import count
from research.runs.network import ScratchRun
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit
from research.training.prepare import build_network, weight_decays

GOLDEN = GOLDENS / "sparse"


def golden(name) -> tuple[dict, dict[str, torch.Tensor]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return json.loads((GOLDEN / f"{name}.json").read_text()), tensors


def bank_of(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


@pytest.mark.parametrize(
    ("name", "layer"), [("tied_fc", nn.Linear(30, 20)), ("tied_conv_gran4", nn.Conv2d(4, 6, 3, padding=1))]
)
def test_output_and_bank_gradient_equal_the_reference(name, layer):
    about, arrays = golden(name)
    tie(layer, arrays["weight_alloc"])
    bank = bank_of(layer)
    assert list(bank.shape) == [*about["bank_shape"], 1]
    with torch.no_grad():
        bank.copy_(arrays["bank"][:, None])
        layer.bias.copy_(arrays.get("bias", torch.zeros_like(layer.bias)))
    torch.testing.assert_close(layer.weight, arrays["expanded"], rtol=0, atol=0)
    y = layer(arrays["x"])
    torch.testing.assert_close(y, arrays["y"], rtol=1e-5, atol=1e-6)
    y.backward(arrays["grad_y"])
    torch.testing.assert_close(bank.grad.flatten(), arrays["grad_bank"], rtol=1e-5, atol=1e-5)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 9))
def test_every_row_is_used_equally_often_up_to_one(units, size, seed):
    size = min(units, size)
    uses = torch.bincount(balanced_index(units, size, torch.Generator().manual_seed(seed)), minlength=size)
    assert len(uses) == size
    assert uses.max() - uses.min() <= 1


def test_the_map_is_random_over_units():
    generator = torch.Generator().manual_seed(0)
    rows = torch.stack([balanced_index(12, 4, generator) for _ in range(4000)])
    expected = 4000 / 4
    for unit in range(12):
        counts = torch.bincount(rows[:, unit], minlength=4)
        assert ((counts - expected) ** 2 / expected).sum() < 21.1  # chi-square, 3 degrees: p = 1e-4


@given(st.sampled_from([1, 9]), st.integers(1, 24), st.integers(0, 9))
def test_weight_has_few_values_and_its_gradient_is_the_sum_over_uses(width, size, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(4, 6, 3, bias=False)
    units = conv.weight.numel() // width
    index = balanced_index(units, size, generator)
    before = conv.weight.detach().clone()
    tie(conv, index)
    bank = bank_of(conv)
    assert bank.shape == (size, width)
    assert torch.equal(conv.weight.view(units, width), bank[index])
    assert torch.isin(conv.weight, before).all()  # nothing but values of the layer's own initialisation
    grad = torch.randn(conv.weight.shape, generator=generator)
    conv.weight.backward(grad)
    sums = torch.zeros(size, width, dtype=torch.float64).index_add_(0, index, grad.double().view(units, width))
    torch.testing.assert_close(bank.grad.double(), sums, rtol=1e-5, atol=1e-5)


def test_bank_sizes_of_the_published_runs():
    assert [bank_size(n, 0.98) for n in (235200, 30000, 1000)] == [4704, 600, 20]
    assert bank_size(10, 0.99) == 1


def test_tied_layer_survives_copy_and_state():
    conv = nn.Conv2d(4, 6, 3)
    tie(conv, balanced_index(216, 20))
    other = copy.deepcopy(conv)
    assert torch.equal(other.weight, conv.weight)
    assert bank_of(other) is not bank_of(conv)
    again = nn.Conv2d(4, 6, 3)
    tie(again, balanced_index(216, 20))
    again.load_state_dict(conv.state_dict())
    assert torch.equal(again.weight, conv.weight)


def tied_run(tiny, **given) -> Run:
    own = {"sparsity": 0.75} | given.pop("tied", {})
    return fit(Run.create(tiny(hooks={"tied": own}, **given)))


def test_a_tied_network_has_its_published_size():
    run = ScratchRun(Path("nowhere"), Config.load({"model": "wrn-28-2", "hooks": {"tied": {"sparsity": 0.9}}}))
    run.device = torch.device("cpu")
    build_network(run, 10, (3, 32, 32))
    banks = [p for name, p in run.model.named_parameters() if name.endswith("weight.original")]
    assert len(banks) == 24
    assert sum(bank.numel() for bank in banks) == 145_155
    assert sum(p.numel() for p in run.model.parameters()) == 145_155 + 16_090


@pytest.mark.parametrize("unit", ["weight", "slice"])
def test_training_keeps_weights_tied_and_evaluation_rebuilds_them(tiny, unit):
    run = tied_run(tiny, model="resnet8", batch_size=256, tied={"unit": unit})
    width = {"weight": 1, "slice": 9}[unit]
    for name, module in run.model.named_modules():
        if hasattr(module, "parametrizations"):
            rows_ = module.weight.detach().reshape(-1, width)
            assert len(rows_.unique(dim=0)) <= round(0.25 * len(rows_))
            assert not torch.equal(bank_of(module), torch.zeros_like(bank_of(module))), name
    assert sum(hasattr(m, "parametrizations") for m in run.model.modules()) == 6
    best = max(row["top1"] for row in rows(run) if row["kind"] == "val")
    assert evaluate_weights([run.dir])[0]["top1"] == pytest.approx(best)


def test_the_map_is_the_seeds(tiny):
    def maps(**given):
        state = weights(tied_run(tiny, epochs=1, **given))
        return [value for name, value in state.items() if name.endswith("index")]

    one, again, other = maps(name="a"), maps(name="b", lr=0.01), maps(name="c", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_rescaling_divides_the_gradient_by_the_mean_number_of_uses(tiny):
    config = {"epochs": 1, "batch_size": 1437, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    start = tied_run(tiny, **config | {"lr": 1e-30}, name="start")
    plain, scaled = (
        tied_run(tiny, **config, name=str(on), tied={"rescale_gradient": on, "sparsity": 0.75}) for on in (False, True)
    )
    for name, first in weights(start).items():
        if name.endswith("original"):
            moved, less = weights(plain)[name] - first, weights(scaled)[name] - first
            uses = first.new_tensor(plain.hooks["tied"].uses[["1", "3", "5"].index(name.split(".")[0])])
            torch.testing.assert_close(less * uses, moved, rtol=1e-3, atol=1e-6)
            assert moved.abs().max() > 1e-4


def test_weight_decay_acts_on_the_bank_though_vectors_are_left_out(tiny):
    config = tiny(hooks={"tied": {}}, decay_norm_and_bias=False)
    run = ScratchRun(Path("nowhere"), config)
    run.device = torch.device("cpu")
    build_network(run, 10, (1, 8, 8))
    decays = weight_decays(run.model, config)
    assert {decays[bank] for bank in run.hooks["tied"].banks} == {config.weight_decay}


@pytest.mark.parametrize("family", ["sep", "generic", "shuffle", "dconv"])
def test_what_is_tied_inside_a_substitute_is_decayed_and_counted_as_its_banks(family, plain_network, tiny):
    config = tiny(model=plain_network, substitute=family, hooks={"tied": {"sparsity": 0.75}})
    run = ScratchRun(Path("nowhere"), config)
    run.device = torch.device("cpu")
    build_network(run, 10, (1, 8, 8))
    inside = [n for n in run.hooks["tied"].tied if n.startswith(("layer", "down"))]
    assert len(inside) >= 5
    compressed = {
        bank_of(layer.get_submodule(name.removesuffix(".weight")))
        for layer in run.model.modules()
        if isinstance(layer, Substitute)
        for name in layer.compressed
        if hasattr(layer.get_submodule(name.removesuffix(".weight")), "parametrizations")
    }
    decays = weight_decays(run.model, config)
    for bank in run.hooks["tied"].banks:
        scale = run.substitution.rho if bank in compressed else 1.0
        assert decays[bank] == config.weight_decay * scale
    assert count(run.model, (1, 8, 8)).params == sum(p.numel() for p in run.model.parameters())


def test_gram_leaves_tied_convolutions_alone(tiny):
    run = fit(Run.create(tiny(model="resnet8", batch_size=256, hooks={"gram": {"warmup": 0}, "tied": {}})))
    measured = {row["layer"] for row in rows(run) if row["kind"] == "gram"}
    tied = {name for name, module in run.model.named_modules() if hasattr(module, "parametrizations")}
    assert measured
    assert tied
    assert not measured & tied
