"""EMA: the average is the recursion of its definition, and is evaluated beside the weights."""

import torch
from conftest import rows
from safetensors.torch import load_file

from research.hooks import HOOKS, Hook
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
