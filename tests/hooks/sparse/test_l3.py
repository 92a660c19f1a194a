"""L3: scores against their formula, path by path, and what an event kills, grows and keeps."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_goldens import networks

from research.hooks.sparse.events import set_count
from research.hooks.sparse.l3 import l3_scores, l3_step
from research.layers.masked import Masked
from research.runs.run import Run
from research.training.loop import fit


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6))
def test_scores_are_the_sum_over_paths_of_three_links(seed, outs, ins):
    links = (torch.rand(outs, ins, generator=torch.Generator().manual_seed(seed)) < 0.5).long()
    scores = l3_scores(links)
    for o, i in itertools.product(range(outs), range(ins)):
        paths = [(a, b) for a in range(outs) for b in range(ins) if links[o, b] and links[a, b] and links[a, i]]
        by_hand = sum(1 / math.sqrt(links[a].sum() * links[:, b].sum()) for a, b in paths)
        assert scores[o, i].item() == pytest.approx(by_hand, abs=1e-12)


@given(networks(), st.sampled_from([0.0, 0.1, 0.5, 0.99]))
def test_every_tensor_keeps_its_number_of_units_and_none_returns(network, fraction):
    tensors, generator = network
    tensors = [tensor for tensor in tensors if tensor.mask.ndim > 1]
    before = [(tensor.mask.clone(), len(tensor.active)) for tensor in tensors]
    asked = [set_count(tensor, fraction) for tensor in tensors]
    event = l3_step(tensors, fraction, generator)
    for tensor, (mask, active), k, killed, grown in zip(tensors, before, asked, event.killed, event.grown, strict=True):
        assert len(tensor.active) == tensor.mask.sum() == active
        assert len(killed) == len(grown) == min(k, active, tensor.units - active)
        assert not tensor.flat(mask)[grown].any()
        assert not tensor.weight[~tensor.broadcast.expand(tensor.weight.shape)].any()


def test_links_grow_where_paths_lead_and_elsewhere_only_by_chance():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, :3] = mask[1, :2] = True  # (1, 2) is three links from where 0 and 1 meet; 2 and 3, and 3 to 5, are bare
    mask[3, 5] = True  # the smallest, which dies
    weight = torch.nn.Parameter(torch.rand(4, 6) + 1)
    with torch.no_grad():
        weight[3, 5] = 1e-3
        weight.mul_(mask)
    tensor = Masked(weight, mask)
    event = l3_step([tensor], 0.0)
    assert event.killed[0].tolist() == [3 * 6 + 5]
    assert event.grown[0].tolist() == [1 * 6 + 2]


def test_in_kernels_all_taps_of_two_channels_are_links_of_one_pair():
    mask = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    mask[0, :2, 0, 0] = mask[1, 1] = mask[1, 2, 0] = True
    weight = torch.nn.Parameter(torch.ones(2, 3, 2, 2) * mask)
    with torch.no_grad():
        weight[1, 2, 0, 1] = 1e-3
    links = mask.flatten(2).sum(2)
    links[1, 2] -= 1  # the tap that dies
    pair = l3_scores(links).masked_fill(links == 4, -1).argmax()  # whose taps are not all there
    (grown,) = l3_step([Masked(weight, mask)], 0.0).grown
    assert grown.item() // 4 == pair


@pytest.mark.parametrize("model", ["mnist_mlp", "resnet8"])
def test_runs_train_and_their_masks_move(tiny, model):
    run = fit(Run.create(tiny(model=model, epochs=1, hooks={"l3": {"period": "2", "sparsity": 0.8}})))
    events = [row for row in run.paths.metrics.read_text().splitlines() if '"sparse_event"' in row]
    assert events and run.hooks["l3"].undone(run) == ""


def test_a_row_of_values_has_no_paths_and_grows_at_random_which_is_told(tiny, capsys):
    given = {"model": "resnet8", "substitute": "hashed:0.5", "hooks": {"l3": {"period": "2", "sparsity": 0.8}}}
    run = fit(Run.create(tiny(epochs=1, **given)))
    assert (
        "conv2.hashed.weight: rows of values without two sides to link, which grow at random" in capsys.readouterr().out
    )
    assert run.hooks["l3"].undone(run) == ""
