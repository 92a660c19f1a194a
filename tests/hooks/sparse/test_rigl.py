"""RigL: events against golden numbers of the published code, what an event may change, and whole runs."""

import json
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import GOLDENS, rows
from hypothesis import given
from hypothesis import strategies as st

from research.hooks import HOOKS, Hook
from research.hooks.sparse.rigl import drop_count, drop_fraction, rigl_step, set_momentum
from research.layers.masked import Masked
from research.runs.run import Run
from research.training.loop import fit

GOLDEN = GOLDENS / "sparse"


def golden(name) -> tuple[dict, dict[str, torch.Tensor]]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return json.loads((GOLDEN / f"{name}.json").read_text()), tensors


@pytest.mark.parametrize("name", ["rigl_fc", "rigl_conv", "rigl_acc", "rigl_dense_ish"])
def test_event_equals_the_published_code(name):
    about, arrays = golden(name)
    mask = arrays["mask"].bool()
    tensor = Masked(arrays["w"] * mask, mask.clone())
    k = drop_count(len(tensor.active), about["drop_fraction"])
    assert k == about["n_prune"]
    event = rigl_step([tensor], about["drop_fraction"], [arrays["grad"]])
    assert event.pruned_count == event.grown_count == about["n_new"] == k - about["n_regrown"]
    assert torch.equal(tensor.mask, arrays["mask_after"].bool())
    assert torch.equal(tensor.weight, arrays["w_after"] * tensor.mask)  # the published code masks in the forward pass


@pytest.mark.parametrize("number", range(5))
def test_annealing_equals_the_published_code(number):
    case = json.loads((GOLDEN / "drop_fraction_anneal.json").read_text())["rigl"][number]
    anneal = {"exponential_3": "power"}.get(case["anneal"], case["anneal"])
    for step, value in zip(case["steps"], case["values"], strict=True):
        assert drop_fraction(step, case["end"], case["drop_fraction"], anneal, 3) == pytest.approx(value, abs=1e-7)
    assert drop_fraction(case["end"] + 1, case["end"], 0.3, anneal) == 0


@given(
    shape=st.sampled_from([(7, 9), (4, 3, 3, 3), (5, 4, 1, 1)]),
    granularity=st.integers(1, 4),
    density=st.floats(0, 1),
    fraction=st.floats(0, 1),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_event_keeps_the_count_and_the_survivors(shape, granularity, density, fraction, channels_last, seed):
    torch.manual_seed(seed)
    layout = torch.channels_last if channels_last and len(shape) == 4 else torch.contiguous_format
    weight = torch.randn(shape).contiguous(memory_format=layout)
    mask = torch.rand(shape[:granularity] if len(shape) == 4 else shape) < density
    if mask.ndim == 4:
        mask = mask.contiguous(memory_format=layout)
    tensor = Masked(weight, mask)
    tensor.apply()
    before, active, grad = weight.clone(), mask.clone(), torch.randn(shape)
    wide = [*mask.shape, *[1] * (len(shape) - mask.ndim)]
    rigl_step([tensor], fraction, [grad])

    assert mask.sum() == active.sum()
    stayed = (mask & active).view(wide) if not channels_last else (mask & active).reshape(wide)
    assert torch.equal(weight * stayed, before * stayed)
    assert not (weight * ~stayed).any()  # what left and what came is 0
    strength = grad.abs().mean(tuple(range(mask.ndim, 4))) if mask.ndim < len(shape) else grad.abs()
    born, outside = mask & ~active, ~mask
    if born.any() and outside.any():
        assert strength[born].min() >= strength[outside].max()


class Watch(Hook):
    """Keeps weight, mask and momentum of the first layer, and its bias, after every step."""

    seen: ClassVar[list[dict]] = []

    def step_end(self, run):
        layer = run.model[1]
        momentum = run.optimizer.state[layer.weight]["momentum_buffer"]
        kept = {"w": layer.weight, "mask": layer.weight_mask, "momentum": momentum, "bias": layer.bias}
        self.seen.append({name: tensor.detach().clone() for name, tensor in kept.items()})


@pytest.fixture
def watched(tiny, monkeypatch):
    """``watched(hooks)``: a tiny run with them, and what was seen of it after every step."""
    monkeypatch.setitem(HOOKS, "watch", Watch)
    monkeypatch.setattr(Watch, "seen", [])

    def train(hooks, **given):
        run = fit(Run.create(tiny(hooks=hooks | {"watch": {}}, **given)))
        return run, Watch.seen

    return train


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_events_happen_when_and_how_they_should(watched, growth):
    run, seen = watched({"rigl": {"period": 5, "growth": growth, "end": 0.5, "sparsity": 0.8}})
    events = [row for row in rows(run) if row["kind"] == "sparse_event"]
    at = [step for step in range(1, len(seen)) if not torch.equal(seen[step]["mask"], seen[step - 1]["mask"])]
    last = len(seen) / 2
    assert at == [step for step in range(5, len(seen), 5) if step <= last]
    assert [e["fraction"] for e in events] == pytest.approx([0.15 * (1 + math.cos(math.pi * t / last)) for t in at])
    assert all(e["pruned"] == e["grown"] > 0 for e in events)
    for step, now in enumerate(seen):
        assert now["mask"].sum() == seen[0]["mask"].sum()
        assert not now["w"][~now["mask"]].any()
        assert not now["momentum"][~now["mask"]].any()
        if step in at:
            before = seen[step - 1]
            stayed, born = now["mask"] & before["mask"], now["mask"] & ~before["mask"]
            assert born.any()
            assert not now["w"][born].any()
            assert not now["momentum"][born].any()
            replaced = torch.equal(now["w"][stayed], before["w"][stayed])
            assert replaced == torch.equal(now["momentum"][stayed], before["momentum"][stayed])
            assert replaced == (growth == "gradient")  # the event takes the place of the update
            assert not torch.equal(now["bias"], before["bias"])


def test_new_units_may_start_with_momentum(watched):
    _, seen = watched({"rigl": {"period": 5, "grown_momentum": 0.5}})
    born = seen[5]["mask"] & ~seen[4]["mask"]
    assert (seen[5]["momentum"][born] != 0).all()
    assert not seen[5]["w"][born].any()


@pytest.mark.parametrize("name", ["rigl_fc", "rigl_acc", "rigl_conv"])
def test_momentum_of_new_units_equals_the_published_code(name):
    about, arrays = golden(name)
    tensor = Masked(arrays["w"] * arrays["mask"], arrays["mask"].bool())
    momentum = arrays["momentum"].clone()
    event = rigl_step([tensor], about["drop_fraction"], [arrays["grad"]])
    set_momentum(tensor, momentum, event.grown[0], about["initial_acc_scale"] * arrays["grad"])
    assert torch.equal(momentum, arrays["momentum_after"])
