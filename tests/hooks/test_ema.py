"""EMA: the average is the recursion of its definition, and is evaluated beside the weights."""

from types import SimpleNamespace

import pytest
import torch
from conftest import rows
from safetensors.torch import load_file

from research.hooks import HOOKS, Hook
from research.hooks.ema import Ema
from research.layers.masked import attach_mask, masked_weights
from research.runs.run import Run
from research.training.loop import fit


def test_average_follows_its_recursion(tiny, monkeypatch):
    seen = []

    class Trace(Hook):
        def step_end(self, run):
            seen.append(run.model[1].weight.detach().clone())

    monkeypatch.setitem(HOOKS, "trace", Trace)
    run = fit(Run.create(tiny(epochs=1, hooks={"trace": {}, "ema": {"decay": 0.75}})))
    average = seen[0]  # the first average is the first weights
    for weight in seen[1:]:
        average = 0.75 * average + 0.25 * weight
    torch.testing.assert_close(load_file(run.dir / "ema.safetensors")["1.weight"], average)


def test_average_is_evaluated_after_every_epoch(tiny):
    run = fit(Run.create(tiny(hooks={"ema": {"decay": 0.9}})))
    assert [row["epoch"] for row in rows(run) if row["kind"] == "val_ema"] == [0, 1]


def test_integers_and_masks_are_kept_not_averaged(tiny):
    hooks = {"set": {"sparsity": 0.5, "period": 2}, "ema": {"decay": 0.9}}
    run = fit(Run.create(tiny(substitute="hashed:0.5", model="resnet8", epochs=1, hooks=hooks)))
    averaged = run.hooks["ema"].averaged.module
    exact = {name: b for name, b in run.model.named_buffers() if not b.is_floating_point()}
    assert {b.dtype for b in exact.values()} == {torch.int32, torch.int64, torch.bool}
    for name, buffer in exact.items():
        assert torch.equal(averaged.get_buffer(name), buffer), name


@pytest.mark.parametrize("first", [True, False], ids=["ema first", "ema last"])
@pytest.mark.parametrize("name", ["rigl", "set", "dsr", "itop", "snfs", "deepr", "prune"])
def test_the_average_of_a_sparse_network_is_zero_outside_its_newest_mask(name, first, tiny):
    methods = {name: dict(HOOKS[name].exercise), "ema": {"decay": 0.98}}
    hooks = dict(sorted(methods.items(), key=lambda item: (item[0] == "ema") != first))
    run = fit(Run.create(tiny(epochs=1, hooks=hooks)))
    kept, average = load_file(run.paths.average), run.hooks["ema"].averaged.module
    for tensor in run.hooks[name].tensors:
        assert torch.equal(kept[f"{tensor.name}_mask"], tensor.mask)
        assert not kept[tensor.name][~tensor.mask].any() and kept[tensor.name].any()
        assert torch.equal(average.get_parameter(tensor.name), kept[tensor.name])


def test_a_weight_that_grows_again_has_no_past(tiny):
    """The average of a killed weight is forgotten, not kept aside."""
    layer = torch.nn.Linear(2, 1, bias=False)
    attach_mask(layer, torch.ones(1, 2, dtype=torch.bool))
    run = SimpleNamespace(model=layer, config=tiny(), skipped=None)
    ema = Ema(decay=0.5)
    ema.setup(run)
    (tensor,) = masked_weights(layer)
    none = torch.empty(0, dtype=torch.long)
    with torch.no_grad():
        layer.weight.fill_(8.0)
    ema.step_end(run)
    tensor.change(killed=torch.tensor([1]), grown=none)
    ema.step_end(run)
    tensor.change(killed=none, grown=torch.tensor([1]), values=4.0)
    ema.step_end(run)
    assert ema.averaged.module.weight.tolist() == [[8.0, 2.0]]
