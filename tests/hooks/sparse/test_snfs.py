"""Sparse momentum: events against golden numbers of the published code, allotment, and whole runs."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import GOLDENS, rows
from hypothesis import given
from hypothesis import strategies as st

from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.hooks.sparse.snfs import Balance, Snfs, growth_counts, layer_shares, snfs_step
from research.layers.masked import Masked
from research.runs.run import Run
from research.training.loop import fit

GOLDEN = GOLDENS / "sparse"
LAYERS = ("0.weight", "2.weight")


@pytest.mark.parametrize("redistribution", ["momentum", "nonzero"])
def test_events_equal_the_published_code(redistribution):
    about = json.loads((GOLDEN / f"snfs_{redistribution}.json").read_text())
    with np.load(GOLDEN / f"snfs_{redistribution}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    balance = Balance(int(about["updates"][0]["baseline_nonzero"]))
    for u, told in enumerate(about["updates"]):
        of = [
            {k: arrays[f"u{u}_{layer}_{k}"] for k in ("w", "mask_before", "mask_after", "momentum")} for layer in LAYERS
        ]
        tensors = [Masked(layer["w"].clone(), layer["mask_before"].bool()) for layer in of]
        momenta = [layer["momentum"] for layer in of]
        shares = layer_shares(tensors, momenta if redistribution == "momentum" else None)
        assert shares == pytest.approx(told["variance_share"], rel=1e-6)
        snfs_step(tensors, momenta, told["rate"], balance.adjustment, redistribution)
        for tensor, layer in zip(tensors, of, strict=True):
            assert torch.equal(tensor.mask, layer["mask_after"].bool())
        balance.update(sum(len(tensor.active) for tensor in tensors))
        assert balance.adjustment == pytest.approx(told["adjusted_growth_after"])


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.integers(0, 500)), min_size=1, max_size=6),
    st.floats(-50, 1500),
)
def test_growth_is_never_more_than_there_is_room(layers, total):
    raw, room = zip(*layers, strict=True)
    counts = growth_counts([share / sum(raw) for share in raw], total, room)
    assert all(0 <= count <= 0.99 * places for count, places in zip(counts, room, strict=True))
    if 0 < total <= 0.9 * sum(room):
        assert sum(counts) >= total - len(room)  # what one layer has no room for goes to the others


def test_a_layer_that_is_nearly_dense_and_wants_more_loses_no_more_than_its_zeros():
    near_dense = Masked(torch.rand(10, 10) + 1, torch.ones(10, 10, dtype=torch.bool))
    near_dense.change(torch.arange(5), torch.arange(0))
    sparse = Masked(torch.rand(10, 10) + 1, torch.zeros(10, 10, dtype=torch.bool))
    sparse.change(torch.arange(0), torch.arange(50), 1.0)
    momenta = [torch.full((10, 10), 2.0), torch.full((10, 10), 1.0)]
    snfs_step([near_dense, sparse], momenta, 0.5)
    # 5 % of 95 units are removed of the first, half of 50 of the second; 5 + 25 are distributed 2 : 1, and there is
    # room for 0.99 * (5 + 5) in the first: 9, where five are inactive
    assert len(near_dense.active) == 95 - 5 + 9
    assert len(sparse.active) == 50 - 25 + 20


class Watch(Hook):
    """Mask, weight and momentum of the first layer after every step, and the active units of all."""

    seen: ClassVar[list] = []

    def step_end(self, run):
        momentum = run.optimizer.state[run.model[1].weight]["momentum_buffer"]
        active = sum(int(run.model[i].weight_mask.sum()) for i in (1, 3, 5))
        kept = (run.model[1].weight_mask, run.model[1].weight, momentum)
        self.seen.append([active, *(tensor.detach().clone() for tensor in kept)])


def test_momentum_is_dense_weights_are_sparse_and_units_move_between_layers(tiny, monkeypatch):
    monkeypatch.setitem(HOOKS, "watch", Watch)
    monkeypatch.setattr(Watch, "seen", [])
    run = fit(Run.create(tiny(epochs=3, hooks={"snfs": {"period": 6, "sparsity": 0.8}, "watch": {}})))
    target = Watch.seen[0][0]
    changed = []
    for step, (active, mask, weight, momentum) in enumerate(Watch.seen):
        assert not weight[~mask].any()
        assert momentum[~mask].any()
        assert abs(active - target) < 0.05 * target
        if step and not torch.equal(mask, Watch.seen[step - 1][1]):
            changed.append(step + 1)
            born = mask & ~Watch.seen[step - 1][1]
            assert momentum[born].abs().min() >= momentum[~mask].abs().max()  # and it goes on with it
    assert changed == [step for step in range(6, len(Watch.seen), 6)]
    densities = [row["density"] for row in rows(run) if row["kind"] == "sparse" and row["epoch"] == 2]
    assert max(densities) > 1.1 * min(densities)


def test_events_come_at_the_ends_of_epochs_and_the_last_has_none(tiny):
    run = fit(Run.create(tiny(epochs=3, hooks={"snfs": {}})))
    events = [row["step"] for row in rows(run) if row["kind"] == "sparse_event"]
    assert events == [run.steps_per_epoch, 2 * run.steps_per_epoch]


def test_sgd_without_momentum_is_refused(tiny):
    config = tiny(momentum=0.0, hooks={"snfs": {}})
    for refuse in (Snfs().check, lambda config: fit(Run.create(config))):
        with pytest.raises(UsageError, match="momentum=0: leaves snfs nothing to grow by"):
            refuse(config)
