"""Every method under a loss scale: it changes nothing, and a step that is skipped moves nothing."""

import pytest
import torch
from conftest import companies
from overflow import SKIPPED, Overflow, Scaled, Watch
from plain_network import ACTING

from research.hooks import HOOKS
from research.runs.run import Run
from research.training.loop import fit


@pytest.fixture
def trained(tiny, plain_network, monkeypatch):
    """``trained(name, hooks, **given)``: a run of 2 epochs of 5 steps."""
    for name, hook in {"scaled": Scaled, "overflow": Overflow, "watch": Watch}.items():
        monkeypatch.setitem(HOOKS, name, hook)

    def train(name, hooks, **given) -> Run:
        return fit(Run.create(tiny(model=plain_network, batch_size=256, name=name, hooks=hooks, **given)))

    return train


@pytest.mark.parametrize("name", ACTING)
def test_a_loss_scale_changes_no_weight(name, trained):
    settings = {"clip_norm": 0.5, "accumulation": 2}
    plain = trained("plain", {name: ACTING[name]}, **settings)
    scaled = trained("scaled", {name: ACTING[name], "scaled": {}}, **settings)
    for (key, weight), other in zip(plain.model.named_parameters(), scaled.model.parameters(), strict=True):
        assert torch.equal(weight, other), key


# prunes come as they are planned, which test_skipped_steps.py holds
@pytest.mark.parametrize("names", [names for names in companies() if "prune" not in names], ids="-".join)
def test_a_skipped_step_moves_nothing(names, trained):
    inner = [name for name in names if name != "ema"]  # which sees the masks of its step if it comes after them
    hooks = {name: ACTING[name] for name in [*inner, "ema"]} | {"overflow": {}, "watch": {}}
    moved = trained("run", hooks, amp="fp16", epochs=1).hooks["watch"].moved
    before, skipped, after = moved[SKIPPED - 1 : SKIPPED + 2]
    assert [name for name in before if not torch.equal(before[name], skipped[name])] == []
    assert any(not torch.equal(skipped[name], after[name]) for name in before)
