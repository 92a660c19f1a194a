"""EMA: the average is the recursion of its definition, and is evaluated beside the weights."""

import torch
from conftest import rows
from safetensors.torch import load_file

from research.hooks import HOOKS, Hook
from research.run import Run
from research.train import fit


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
    assert [row["epoch"] for row in rows(run) if row["split"] == "val_ema"] == [0, 1]
