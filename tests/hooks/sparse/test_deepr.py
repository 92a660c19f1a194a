"""DeepR: every step against golden trainings of the published code, and what must hold without it."""

import math
from functools import partial

import pytest
import torch
from conftest import rows
from sparse_goldens import golden, replay

from research.config import Config
from research.errors import UsageError
from research.hooks.sparse import deepr_step, drop_sign_flips, grow_random
from research.hooks.sparse.deepr import deepr_noise
from research.layers.masked import Masked, active_weights
from research.runs.run import Run
from research.training.loop import fit


@pytest.mark.parametrize("name", ["deepr_mlp_realigned", "deepr_mlp", "deepr_conv"])
def test_steps_equal_the_published_code(name):
    said, arrays = golden(name)
    layers = said["steps"][0]["processed_tensors"]
    masks = [arrays[f"init_mask_{i}"].bool() for i in layers]
    for t, step in enumerate(said["steps"]):
        stored = [arrays[f"t{t}_grown_{i}"].long() for i in layers]
        tensors = [
            Masked(arrays[f"t{t}_w_poststep_{i}"].clone(), m.clone()) for i, m in zip(layers, masks, strict=True)
        ]
        for tensor in tensors:
            tensor.apply()
        signs = [arrays[f"t{t}_sign_before_{i}"].view(-1) for i in layers]
        before = torch.cat([sign[tensor.active] for tensor, sign in zip(tensors, signs, strict=True)])
        flips = drop_sign_flips(tensors, before)
        event = deepr_step(tensors, before, replay(tensors, stored))
        for j, (i, tensor) in enumerate(zip(layers, tensors, strict=True)):
            assert len(event.killed[j]) == step["n_pruned"][str(i)]
            assert torch.equal(event.killed[j], arrays[f"t{t}_pruned_{i}"].long().sort().values)
            assert torch.equal(event.killed[j], flips[j])
            assert torch.equal(tensor.mask, arrays[f"t{t}_mask_end_{i}"].bool())
            assert torch.equal(tensor.weight, tensor.masked(arrays[f"t{t}_w_end_{i}"]))
            # elsewhere the published code keeps signs of hidden values
            survivors = tensor.flat(tensor.mask & masks[j])
            assert torch.equal(tensor.flat(tensor.weight.sign())[survivors], arrays[f"t{t}_sign_after_{i}"][survivors])
        masks = [tensor.mask for tensor in tensors]


def test_noise_has_its_spread_and_touches_active_weights_only():
    masks = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4 for shape in ((200, 300), (100, 200))]
    tensors = [Masked(torch.zeros(mask.shape, requires_grad=True), mask) for mask in masks]
    for tensor in tensors:
        tensor.weight.grad = torch.zeros(tensor.weight.shape)
    deepr_noise(tensors, 0.01, 1e-2, torch.Generator().manual_seed(1))
    first, second = (tensor.weight.grad for tensor in tensors)
    for noise, mask in zip((first, second), masks, strict=True):
        assert not noise[~mask].any()
        assert noise[mask].std() == pytest.approx(math.sqrt(2 * 0.01 * 1e-2), rel=0.02)
    n = int(masks[1].sum())
    assert abs(torch.corrcoef(torch.stack([first[masks[0]][:n], second[masks[1]]]))[0, 1]) < 4 / math.sqrt(n)


def test_dense_tensors_are_left_alone_and_flips_are_found_in_every_other():
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(6, 7, generator=generator) < share for share in (0.5, 2.0, 0.5, 0.2)]
    tensors = [Masked(torch.randn(6, 7, generator=generator), mask) for mask in masks]
    for tensor in tensors:
        tensor.apply()
    before = active_weights(tensors)
    flipped = [tensor.active[::3].clone() for tensor in tensors]
    for tensor, units in zip(tensors, flipped, strict=True):
        tensor.weight.view(-1)[units] *= -1
    dense = tensors[1].weight.clone()
    event = deepr_step(tensors, before, partial(grow_random, generator=generator))
    for layer in (0, 2, 3):
        assert torch.equal(event.killed[layer], flipped[layer])
        assert len(event.grown[layer]) == len(flipped[layer])
    assert len(event.killed[1]) == len(event.grown[1]) == 0 and torch.equal(tensors[1].weight, dense)


def test_nothing_dies_where_no_sign_changed():
    generator = torch.Generator().manual_seed(0)
    tensor = Masked(torch.randn(8, 9, generator=generator), torch.rand(8, 9, generator=generator) < 0.5)
    tensor.apply()
    before = tensor.weight.clone()
    event = deepr_step([tensor], active_weights([tensor]), lambda *_: pytest.fail("nothing to grow"))
    assert event.pruned_count == event.grown_count == 0
    assert torch.equal(tensor.weight, before)


def test_a_new_weight_gets_its_sign_from_its_first_update():
    tensor = Masked(torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[True, True, False]]))
    before = active_weights([tensor])
    tensor.weight[0, 0] = -0.5
    event = deepr_step([tensor], before, lambda *_: torch.tensor([2]))
    assert event.killed[0].tolist() == [0] and tensor.mask.tolist() == [[False, True, True]]
    before = active_weights([tensor])
    tensor.weight[0, 2] = -1.0  # whatever its first update is
    assert deepr_step([tensor], before, lambda *_: pytest.fail("no kill")).pruned_count == 0
    before = active_weights([tensor])
    tensor.weight[0, 2] = 1.0
    assert deepr_step([tensor], before, lambda *_: torch.tensor([0])).killed[0].tolist() == [2]


def test_a_run_keeps_every_tensors_count_and_loses_little_in_its_first_steps(tiny):
    options = {"sparsity": 0.8, "sparsity_fc": 0.7, "temperature": "0:1e-4 1:0", "l1": 1e-4}
    run = Run.create(tiny(hooks={"deepr": options}, epochs=2))
    fit(run)
    tensors = run.hooks["deepr"].tensors
    first, _ = (row for row in rows(run) if row["kind"] == "sparse_event")
    assert 0 < first["pruned"] < 0.1 * sum(len(tensor.active) for tensor in tensors)  # half, with the published signs
    for tensor in tensors:
        assert len(tensor.active) == tensor.mask.sum() == int(0.3 * tensor.units + 0.1)
        assert torch.equal(tensor.weight, tensor.masked(tensor.weight))


def test_single_weights_only():
    with pytest.raises(UsageError, match="single weights"):
        Config.load({"hooks": {"deepr": {"granularity": 2}}})
