"""ITOP: events against golden numbers of the published code, coverage, and whole runs."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import GOLDENS, rows

from research.hooks import HOOKS, Hook
from research.hooks.sparse.events import annealed_rate
from research.hooks.sparse.itop import drop_up_to, itop_step
from research.layers.masked import Masked
from research.runs.run import Run
from research.training.loop import fit

GOLDEN = GOLDENS / "sparse"
LAYERS = ("0.weight", "2.weight")


def updates(name):
    """For each of three events: what the published code says of it, and its arrays by layer."""
    about = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        for u, told in enumerate(about["updates"]):
            keys = ("w", "mask_before", "mask_after", "grad", "momentum", "momentum_after")
            yield told, [{k: torch.from_numpy(arrays[f"u{u}_{layer}_{k}"]) for k in keys} for layer in LAYERS], arrays


def masked(layer) -> Masked:
    return Masked(layer["w"].clone(), layer["mask_before"].bool())


def test_gradient_growth_equals_the_published_code():
    for told, layers, _ in updates("itop_gradient"):
        for layer, removed, left in zip(layers, told["num_removed"], told["nnz_after"], strict=True):
            tensor = masked(layer)
            event = itop_step([tensor], told["rate"], [layer["grad"]])
            assert event.pruned_count == event.grown_count <= removed
            assert torch.equal(tensor.mask, layer["mask_after"].bool())
            assert tensor.mask.sum() == left
            # where a unit that was dropped came back at once, its momentum is still there
            assert torch.equal(layer["momentum"] * tensor.mask, layer["momentum_after"])


def test_random_growth_drops_as_the_published_code_and_draws_as_many_as_it_expects():
    for u, (told, layers, arrays) in enumerate(updates("itop_random")):
        for i, (layer, removed) in enumerate(zip(layers, told["num_removed"], strict=True)):
            tensor = masked(layer)
            (dropped,) = drop_up_to([tensor], [removed])
            assert len(dropped) == removed
            kept = tensor.mask.clone()
            kept.view(-1)[dropped] = False
            drawn = torch.from_numpy(arrays[f"u{u}_rand{i}"]) < removed / (~kept).sum()
            assert torch.equal(kept | drawn, layer["mask_after"].bool())

            itop_step([tensor], told["rate"], generator=torch.Generator().manual_seed(u))
            assert tensor.mask.sum() == layer["mask_before"].sum()  # exactly, where the published code varies
            assert (tensor.mask & kept).sum() == kept.sum()


def test_random_growth_is_uniform_over_everything_not_kept():
    weight = torch.arange(1.0, 13)
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(12)
    for _ in range(3000):
        tensor = Masked(weight.clone(), torch.arange(12) < 6)
        tensor.apply()
        itop_step([tensor], 0.5, generator=generator)
        counts += tensor.mask
    assert counts[3:6].tolist() == [3000, 3000, 3000]
    free = counts[[0, 1, 2, 6, 7, 8, 9, 10, 11]]  # three of these nine come every time
    assert ((free - 1000) ** 2 / 1000).sum() < 25


def test_equal_magnitudes_go_together():
    tensor = Masked(torch.tensor([3.0, 1.0, 1.0, 2.0, 0.0]), torch.tensor([True, True, True, True, False]))
    assert drop_up_to([tensor], [1])[0].tolist() == [1, 2]
    assert drop_up_to([tensor], [0])[0].tolist() == []


def test_rate_equals_the_published_code():
    case = json.loads((GOLDEN / "drop_fraction_anneal.json").read_text())["itop_snfs_cosine_eta_min"]
    for t, value in enumerate(case["values"]):
        assert annealed_rate(t, case["T_max"], case["initial"], case["eta_min"]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_coverage_grows_while_the_count_stays(tiny, growth):
    own = {"period": 4, "growth": growth, "sparsity": 0.8}
    run = fit(Run.create(tiny(epochs=3, hooks={"itop": own})))
    events = [row for row in rows(run) if row["kind"] == "sparse_event"]
    total = 3 * run.steps_per_epoch
    assert [row["step"] for row in events] == [step for step in range(4, total, 4)]
    assert [row["rate"] for row in events] == pytest.approx([annealed_rate(row["step"], total) for row in events])
    for layer in ("1.weight", "3.weight", "5.weight"):
        told = [row for row in rows(run) if row["kind"] == "sparse" and row["layer"] == layer]
        assert len({row["active"] for row in told}) == 1
        coverage = [row["coverage"] for row in told]
        assert 0.2 < coverage[0] < coverage[1] < coverage[2] <= 1


def test_update_comes_before_the_event(tiny, monkeypatch):
    class Watch(Hook):
        seen: ClassVar[list] = []

        def step_end(self, run):
            momentum = run.optimizer.state[run.model[1].weight]["momentum_buffer"]
            kept = (run.model[1].weight_mask, run.model[1].weight, momentum)
            self.seen.append([tensor.detach().clone() for tensor in kept])

    monkeypatch.setitem(HOOKS, "watch", Watch)
    fit(Run.create(tiny(hooks={"itop": {"period": 4}, "watch": {}})))
    (before, old, _), (mask, new, momentum) = Watch.seen[2], Watch.seen[3]
    stayed, born = mask & before, mask & ~before
    assert born.any()
    assert (new[stayed] != old[stayed]).float().mean() > 0.5  # inputs that are always 0 move nothing
    assert not new[~stayed].any()
    assert not momentum[~stayed].any()
