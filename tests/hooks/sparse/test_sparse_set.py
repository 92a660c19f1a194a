"""SET: events against golden numbers of the published code, and the number of weights that every layer keeps."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_goldens import about, golden, networks, replay, tensors_of

from research.hooks.sparse import grow_random, set_step
from research.hooks.sparse.events import event_due, set_count
from research.layers.masked import Masked
from research.parameters.piecewise import Piecewise
from research.runs.run import Run
from research.training.loop import fit


@pytest.mark.parametrize("name", ["set_mlp", "set_dense_layer_decay", "set_conv"])
def test_events_equal_the_published_code(name):
    said, arrays = golden(name)
    layers = len(said["layers"])
    for t, step in enumerate(said["steps"]):
        tensors = tensors_of(arrays, f"t{t}_", layers)
        stored = [arrays[f"t{t}_l{layer}_r0_grown"].long() for layer in range(layers)]
        event = set_step(tensors, said["args"]["rewire_fraction"], replay(tensors, stored), leak=True)
        assert [len(units) for units in event.killed] == step["n_pruned"]
        for layer, tensor in enumerate(tensors):
            assert torch.equal(event.killed[layer].sort().values, arrays[f"t{t}_l{layer}_pruned"].long())
            assert torch.equal(tensor.mask, arrays[f"t{t}_l{layer}_mask_after"].bool())
            if (after := arrays.get(f"t{t}_l{layer}_w_after")) is not None:
                assert torch.equal(tensor.weight, tensor.masked(after))


@given(networks(), st.sampled_from([0.0, 0.1, 0.5, 0.99]))
def test_every_tensor_keeps_its_number_of_units(network, fraction):
    tensors, generator = network
    before = [(tensor.mask.clone(), tensor.weight.clone(), len(tensor.active)) for tensor in tensors]
    asked = [set_count(tensor, fraction) for tensor in tensors]
    event = set_step(tensors, fraction, partial(grow_random, generator=generator))
    for tensor, (mask, weight, active), k, killed, grown in zip(
        tensors, before, asked, event.killed, event.grown, strict=True
    ):
        assert len(tensor.active) == tensor.mask.sum() == active
        assert len(killed) == len(grown) == min(k, active, tensor.units - active)
        assert not tensor.flat(mask)[grown].any()
        assert torch.equal(tensor.weight, Masked(weight, mask & tensor.mask).masked(weight))


def test_events_come_when_the_published_code_has_them():
    said = about("rewire_event_counts")
    period = Piecewise("0:100 25:200 80:400 140:800")
    for name, stop in (("wrn_b100_200ep_stop190", 190), ("wrn_b100_200ep_stop10", 10)):
        steps = [e * 500 + b for e in range(stop) for b in range(500) if event_due(e * 500 + b, int(period.at(e)))]
        count, first, last = said[name]
        assert (len(steps), steps[:3], steps[-3:]) == (count, first, last)


def test_history_is_three_bits_a_unit_and_that_of_older_checkpoints_is_read(tiny):
    hook = fit(Run.create(tiny(epochs=1, hooks={"set": {"period": "2", "sparsity": 0.8}}))).hooks["set"]
    state, bits = hook.state_dict(), hook.history
    assert {tensor.name: tensor.units for tensor in hook.tensors} == {name: len(each) for name, each in bits.items()}
    assert {int(number) for each in bits.values() for number in each.unique()} == {0, 4, 5, 6, 7}
    stored = [planes["bits"] for each in state["history"].values() for planes in each]
    assert sum(map(len, stored)) <= sum(3 * (len(each) // 8 + 1) for each in bits.values())
    older = [{name: each.to(kind) for name, each in bits.items()} for kind in (torch.uint8, torch.int64)]
    for history in (state["history"], *older):
        hook.load_state_dict(state | {"history": history})
        for name, each in hook.history.items():
            assert each.dtype == torch.uint8 and torch.equal(each, bits[name])
