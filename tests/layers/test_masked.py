"""Masks kept in place: weights, gradients and momentum that stay 0, in any layout, under any optimizer."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import rows, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_goldens import about, golden
from torch import nn
from torch.nn import functional as F

from research.errors import UsageError
from research.hooks import HOOKS
from research.hooks.sparse import StaticSparse, drop_smallest
from research.hooks.sparse.base import forget, regularizer
from research.layers.masked import Masked, attach_mask, choose, largest, masked_weights
from research.measures.paths import living
from research.models import create_model
from research.models.dry_run import WithoutInitialValues
from research.runs.run import Run
from research.training.loop import fit


def test_training_equals_the_published_masked_layer():
    said, arrays = golden("masked_linear_sgd")
    layer = nn.Linear(14, 10)
    with torch.no_grad():
        layer.weight.copy_(arrays["w0"])
        layer.bias.copy_(arrays["bias0"])
    attach_mask(layer, arrays["mask0"].bool())
    (tensor,) = masked_weights(layer)
    layer.weight.register_hook(tensor.masked)
    momentum = {"momentum": said["momentum"], "nesterov": said["nesterov"]}
    optimizer = torch.optim.SGD(layer.parameters(), lr=said["lr"], weight_decay=said["weight_decay"], **momentum)
    for t in range(4):  # until the prune; afterwards the published momentum of killed weights lives on
        F.cross_entropy(layer(arrays[f"x{t}"]), arrays[f"y{t}"].long()).backward()
        assert torch.equal(layer.weight.grad, tensor.masked(layer.weight.grad))
        torch.testing.assert_close(layer.weight.grad, arrays[f"grad{t}"], rtol=1e-5, atol=1e-7)
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(layer.weight.detach(), arrays[f"w_eff{t}"], rtol=1e-5, atol=1e-7)
        assert torch.equal(layer.weight, tensor.masked(layer.weight))
    killed = drop_smallest(tensor, len(arrays["pruned3"]))
    assert torch.equal(killed.sort().values, arrays["pruned3"].long())
    tensor.change(killed, killed[:0])
    forget(optimizer, tensor, killed)
    assert torch.equal(tensor.mask, arrays["mask_after3"].bool())
    state = optimizer.state[layer.weight]["momentum_buffer"]
    assert torch.equal(state, tensor.masked(state)) and state.any()


def test_regularizers_equal_the_published_ones():
    said = about("misc_scalars")["regularizer"]
    weight = torch.tensor(said["w"])
    kernel = Masked(weight, weight != 0)
    assert regularizer([kernel]).item() == pytest.approx(said["l1"], rel=1e-6)
    assert regularizer([kernel], group_lasso=True).item() == pytest.approx(said["group"], rel=1e-6)
    matrix = Masked(weight[0, 0], weight[0, 0] != 0)
    assert regularizer([matrix], group_lasso=True) == regularizer([matrix])


@given(st.integers(1, 4), st.booleans(), st.integers(0, 1000))
def test_units_are_numbered_alike_in_weight_mask_and_gradient(granularity, channels_last, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(5, 6, 3)
    attach_mask(conv, torch.rand((6, 5, 3, 3)[:granularity], generator=generator) < 0.4)
    if channels_last:
        conv.to(memory_format=torch.channels_last)
    (tensor,) = masked_weights(conv)
    whole = tensor.mask.reshape(*tensor.mask.shape, *[1] * (4 - granularity)).expand(6, 5, 3, 3).clone()
    assert not conv.weight[~whole].any() and conv.weight[whole].all()
    other = torch.randn(6, 5, 3, 3, generator=generator)
    for laid_out in (other, other.to(memory_format=torch.channels_last)):
        assert torch.equal(tensor.masked(laid_out), other * whole)
    killed, grown = tensor.active[::3], tensor.inactive[::4]
    before, weight = tensor.mask.clone(), conv.weight.detach().clone()
    tensor.change(killed, grown, 7.0)
    assert torch.equal(tensor.active, tensor.flat(tensor.mask).nonzero()[:, 0])
    assert (before & ~tensor.mask).sum() == len(killed) and (tensor.mask & ~before).sum() == len(grown)
    now = tensor.mask.reshape(whole.shape[:granularity] + (1,) * (4 - granularity)).expand(6, 5, 3, 3)
    assert torch.equal(conv.weight, torch.where(now & whole, weight, torch.where(now, 7.0, 0.0)))


@given(
    st.sampled_from([1, 7, 1000, 60_000]),
    st.floats(0, 1),
    st.sampled_from(["distinct", "ties", "sorted", "with nan", "mostly -inf"]),
    st.integers(0, 1000),
)
@settings(max_examples=60)
def test_the_largest_are_those_of_a_full_sort(size, share, kind, seed):
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if kind == "ties":
        values = values.round()
    elif kind == "sorted":
        values = values.sort().values
    elif kind == "with nan":
        values[::3] = torch.nan
    elif kind == "mostly -inf":
        values[: 9 * size // 10] = -torch.inf
    found = largest(values, count := int(share * size))
    ranked = values.nan_to_num(torch.finfo(values.dtype).min, torch.inf, -torch.inf)
    expected = ranked.sort(descending=True, stable=True).indices[:count].sort().values
    assert torch.equal(found, expected)


def test_units_count_as_inactive_within_a_context_only():
    tensor = Masked(torch.ones(3, 4), torch.arange(12).view(3, 4) % 2 == 0)
    mask, active = tensor.mask.clone(), tensor.active
    with pytest.raises(KeyError), tensor.without(torch.tensor([0, 4])):
        assert tensor.active.tolist() == [2, 6, 8, 10]
        assert tensor.inactive.tolist() == [0, 1, 3, 4, 5, 7, 9, 11]
        raise KeyError
    assert torch.equal(tensor.mask, mask) and torch.equal(tensor.active, active)
    assert tensor.weight.all()


@pytest.mark.parametrize("granularity", [2, 4])
def test_gradients_that_overflow_outside_the_mask_are_zero_there(granularity):
    conv = nn.Conv2d(4, 4, 3)
    attach_mask(conv, torch.rand((4, 4, 3, 3)[:granularity]) < 0.5)
    (tensor,) = masked_weights(conv)
    active = tensor.broadcast.expand_as(conv.weight)
    gradient = torch.where(active, 1.0, torch.tensor([torch.inf, torch.nan, -torch.inf]))
    tensor.restrict(gradient)
    assert torch.equal(gradient, active.float())


def test_a_gradient_that_autograd_shares_is_masked_for_its_own_weight_only():
    model = nn.Sequential(nn.Linear(6, 5))
    hook, other = StaticSparse(sparsity=0.5), torch.zeros(5, 6, requires_grad=True)
    run = SimpleNamespace(model=model, generator=lambda *_: torch.Generator().manual_seed(0))
    hook.build(run)
    hook.setup(run)
    (model[0].weight + other).sum().backward()
    assert torch.equal(model[0].weight.grad, model[0].weight_mask.float())
    assert other.grad.all()


class Watch:
    """Records what the optimizer is about to see."""

    def __init__(self, tensors):
        self.tensors, self.seen = tensors, 0

    def __call__(self, optimizer, *_):
        for tensor in self.tensors():
            assert torch.equal(tensor.weight.grad, tensor.masked(tensor.weight.grad))
            self.seen += 1


@pytest.mark.parametrize(
    "given_",
    [
        {"clip_norm": 0.1, "momentum": 0.9, "nesterov": True, "accumulation": 2},
        {"optimizer": "adamw", "lr": 0.01, "amp": "bf16", "channels_last": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["static_sparse", "set"])
def test_gradients_weights_and_optimizer_state_are_zero_outside_the_mask(given_, method, tiny, monkeypatch):
    from research.training import loop as train

    options = {"sparsity": 0.7, "granularity": 3} | ({"period": "2"} if method == "set" else {})
    run, watch = Run.create(tiny(model="resnet8", batch_size=256, hooks={method: options}, **given_)), None

    def resume(run, resume=train.resume):
        nonlocal watch
        watch = Watch(lambda: run.hooks[method].tensors)
        run.optimizer.register_step_pre_hook(watch)
        return resume(run)

    monkeypatch.setattr(train, "resume", resume)
    fit(run)
    assert watch.seen > 30
    for tensor in run.hooks[method].tensors:
        assert torch.equal(tensor.weight, tensor.masked(tensor.weight))
        for value in run.optimizer.state[tensor.weight].values():
            if value.shape == tensor.weight.shape:
                assert torch.equal(value, tensor.masked(value)) and value.any()


def test_a_static_mask_never_changes_and_every_epoch_says_so(tiny):
    run = fit(Run.create(tiny(hooks={"static_sparse": {"sparsity": 0.9}})))
    layers = [row for row in rows(run) if row["kind"] == "sparse"]
    assert [row["layer"] for row in layers] == ["1.weight", "3.weight", "5.weight"] * 2
    for row in layers:
        assert row["density"] == row["coverage"] == pytest.approx(0.1, abs=0.01)
        assert row["kept"] == row["survived"] == 1.0


def test_every_epoch_says_which_inputs_and_outputs_a_mask_connects_and_which_units_live(tiny):
    run = fit(Run.create(tiny(epochs=1, hooks={"static_sparse": {"sparsity": 0.98}})))
    told = {row["layer"]: row for row in rows(run) if row["kind"] == "sparse"}
    masks = [tensor.mask for tensor in run.hooks["static_sparse"].tensors]
    assert [row["inputs"] for row in told.values()] == [int(mask.any(0).sum()) for mask in masks]
    assert [row["outputs"] for row in told.values()] == [int(mask.any(1).sum()) for mask in masks]
    assert [row["living"] for row in told.values()] == [int(alive.sum()) for alive in living(masks)]
    assert told["1.weight"]["living"] < min(told["1.weight"]["outputs"], told["3.weight"]["inputs"])


def test_channels_count_as_units_and_a_network_with_dense_layers_is_no_chain(tiny):
    hooks = {"static_sparse": {"sparsity": 0.99}}
    run = fit(Run.create(tiny(model="resnet8", epochs=1, batch_size=512, hooks=hooks)))
    told = [row for row in rows(run) if row["kind"] == "sparse"]
    masks = [tensor.mask.any((2, 3)) for tensor in run.hooks["static_sparse"].tensors]
    assert [(row["inputs"], row["outputs"]) for row in told] == [
        (int(mask.any(0).sum()), int(mask.any(1).sum())) for mask in masks
    ]
    assert all(row["living"] is None for row in told)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_vector_of_units_takes_the_shape_of_the_mask_again(layout):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=layout)
    mask = torch.empty_like(weight, dtype=torch.bool).copy_(torch.rand(4, 3, 2, 2) < 0.5)
    tensor = Masked(weight, mask)
    assert torch.equal(tensor.shaped(tensor.flags), mask)


def test_coverage_grows_while_units_are_exchanged(tiny):
    run = fit(Run.create(tiny(epochs=3, hooks={"set": {"period": "2", "fraction": 0.3}})))
    first = [row for row in rows(run) if row["kind"] == "sparse" and row["layer"] == "1.weight"]
    coverage = [row["coverage"] for row in first]
    assert coverage == sorted(set(coverage)) and coverage[0] > first[0]["density"]
    assert all(0 < row["kept"] < 1 and 0 < row["survived"] < 1 for row in first)


def test_masks_and_initial_weights_are_copied_from_another_run(tiny):
    config = {"period": "2", "sparsity": 0.8}
    source = fit(Run.create(tiny(hooks={"set": config}, seed=1, name="source")))
    options = {"copy_mask_from": str(source.dir), "copy_init": True, "sparsity": 0.5}
    copied = Run.create(tiny(hooks={"static_sparse": options}, seed=2, epochs=1, lr=1e-30, weight_decay=0.0))
    fit(copied)
    theirs, mine = weights(source), weights(copied)
    from research.models import create_model

    source.seed_everything("initial weights")
    fresh = create_model("mnist_mlp", 10, (1, 8, 8), batch_norm=False)
    for name, weight in fresh.state_dict().items():
        if f"{name}_mask" in theirs:
            assert torch.equal(mine[f"{name}_mask"], theirs[f"{name}_mask"])
            torch.testing.assert_close(mine[name], weight * theirs[f"{name}_mask"])


def test_masks_of_another_shape_or_place_are_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="is not a run: it has no config.json"):
        fit(Run.create(tiny(hooks={"static_sparse": {"copy_mask_from": str(tmp_path)}})))
    torch.save({"1.weight": torch.zeros(3)}, tmp_path / "plain.pt")
    with pytest.raises(UsageError, match="mask of 1: expected .* found none"):
        fit(Run.create(tiny(hooks={"static_sparse": {"copy_mask_from": str(tmp_path / "plain.pt")}})))


def test_a_tensor_left_without_weights_is_told(tiny):
    run = fit(Run.create(tiny(epochs=1, hooks={"static_sparse": {"sparsity": 0.9999}})))
    notes = [json.loads(line) for line in run.paths.metrics.read_text().splitlines() if '"note"' in line]
    assert any("no weight of 5.weight is active" in note["text"] for note in notes)


@pytest.mark.parametrize("granularity", [2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_l1_trains_as_autograd_of_the_whole_sum_would(granularity, accumulation, tiny):
    class Whole(StaticSparse):
        def loss(self, run, loss):
            return loss + self.l1 * regularizer(self.tensors)

    given, ends = {"sparsity": 0.7, "l1": 1e-2, "granularity": granularity}, []
    for name, hook in (("added", StaticSparse), ("whole", Whole)):
        hooks = {"static_sparse": given}
        run = Run.create(tiny(model="resnet8", epochs=1, accumulation=accumulation, name=name, hooks=hooks))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(HOOKS, "static_sparse", hook)
            ends.append((weights(fit(run)), rows(run)))
    (added, losses), (whole, expected) = ends
    for name, weight in whole.items():
        torch.testing.assert_close(added[name], weight, rtol=1e-3, atol=1e-4)  # sums round, and batch norm amplifies
    told = [[row["loss"] for row in found if "loss" in row] for found in (losses, expected)]
    assert told[0] == pytest.approx(told[1], rel=1e-4)


def test_an_auxiliary_head_is_no_part_of_the_choice():
    """Whichever of the two methods is listed first: the classifier stays dense, and no mask is gone in evaluation."""
    with WithoutInitialValues():
        model = create_model("darts")
    before = choose(model)
    model.add_auxiliary_head()
    after = choose(model)
    assert (list(before.sparse), before.dense, before.weights) == (list(after.sparse), after.dense, after.weights)
    assert "classifier" in after.dense
    with pytest.raises(UsageError, match="matches no convolution"):
        choose(model, only="auxiliary_head*")
