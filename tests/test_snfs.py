"""Sparse momentum: events against golden numbers of the published code, allotment, and whole runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from research.hooks.sparse.snfs import Balance, growth_counts, layer_shares, snfs_step
from research.layers.masked import Masked

GOLDEN = Path(__file__).parent / "golden" / "sparse"
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
