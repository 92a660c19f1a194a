"""DSR: events against golden numbers of the published code, conservation where that code fails, and whole runs."""

import gc
import json
import weakref
from functools import partial

import pytest
import torch
from conftest import rows, weights
from hypothesis import given
from hypothesis import strategies as st
from sparse_goldens import about, golden, networks, replay, tensors_of

from research.config import Config
from research.errors import UsageError
from research.hooks.sparse import (
    allocate,
    allocate_legacy,
    drop_magnitude_threshold,
    drop_smallest,
    drop_smallest_of_all,
    dsr_step,
    grow_random,
    sparsify,
)
from research.hooks.sparse.dsr import adapt_threshold, big_new_weights, regrow
from research.hooks.sparse.events import set_count
from research.layers.masked import Masked, masked_weights
from research.runs.run import Run
from research.training.loop import fit

CASES = [
    "dsr_mlp_small",
    "dsr_conv_gran1",
    "dsr_conv_gran2",
    "dsr_conv_gran3",
    "dsr_conv_gran4",
    "dsr_remove_all_keep_one",
    "dsr_saturated_161",
    "dsr_saturated_163",
    "dsr_surplus",
    "dsr_many_tiny_layers",
    "dsr_mid_5layers",
    "dsr_lenet_full",
    "dsr_big_new_weights",
    "threshold_no_scaling",
    "fraction_with_scaling",
]
LIVELOCKS = ["livelock_dsr_conv_gran1", "livelock_dsr_mlp_small_down", "livelock_dsr_saturated_layers"]


def drawn_from(generator):
    return lambda layers: int(torch.randint(layers, (), generator=generator))


@pytest.mark.parametrize("name", CASES)
def test_events_equal_the_published_code(name):
    said, arrays = golden(name)
    layers, options = len(said["layers"]), said["args"]
    for t, step in enumerate(said["steps"]):
        tensors = tensors_of(arrays, f"t{t}_", layers)
        before = [tensor.weight.clone() for tensor in tensors]
        survivors = [len(tensor.active) for tensor in tensors]
        capacity = [tensor.units - len(tensor.active) for tensor in tensors]
        if options["threshold_prune"]:
            killed = drop_magnitude_threshold(tensors, step["threshold_before"])
        else:
            killed = [drop_smallest(tensor, set_count(tensor, options["rewire_fraction"])) for tensor in tensors]
        for layer, units in enumerate(killed):
            assert torch.equal(units.sort().values, arrays[f"t{t}_l{layer}_pruned"].long())
            survivors[layer] -= len(units)

        total, repairs = sum(map(len, killed)), iter(step["randint"])
        if options["rewire_scaling"]:
            rounds = allocate_legacy(survivors, total, capacity, lambda _, drawn=repairs: next(drawn))
            assert [requested for requested, _ in rounds] == [r["requested"] for r in step["rounds"]]
            assert [grown for _, grown in rounds] == [r["grown"] for r in step["rounds"]]
        stored = [
            torch.cat([killed[0][:0], *(arrays[f"t{t}_l{layer}_r{r}_grown"] for r in range(len(step["rounds"])))])
            for layer in range(layers)
        ]
        wanted = [len(units) for units in stored]
        event = regrow(tensors, killed, replay(tensors, stored), lambda *_, wanted=wanted: wanted)
        assert [len(units) for units in event.grown] == step["n_grown"]
        if options["threshold_prune"]:
            assert (
                adapt_threshold(step["threshold_before"], total, options["n_prune_params"]) == step["threshold_after"]
            )
        for layer, tensor in enumerate(tensors):
            assert torch.equal(tensor.mask, arrays[f"t{t}_l{layer}_mask_after"].bool())
            if (after := arrays.get(f"t{t}_l{layer}_w_after")) is not None:
                new = torch.zeros(tensor.units, dtype=torch.bool)
                new[event.grown[layer]] = True
                kept = Masked(tensor.weight, tensor.mask & ~new.view(tensor.mask.shape))
                assert torch.equal(kept.masked(after), kept.masked(tensor.weight))
                assert torch.equal(kept.masked(tensor.weight), kept.masked(before[layer]))
                assert options["big_new_weights"] or not after[~kept.broadcast.expand_as(after)].any()


@pytest.mark.parametrize("name", LIVELOCKS)
def test_terminates_and_conserves_where_the_published_code_loops_for_ever(name):
    said, arrays = golden(name)
    tensors = tensors_of(arrays, "", len(said["layers"]))
    capacity = [tensor.units - len(tensor.active) for tensor in tensors]
    active = sum(len(tensor.active) for tensor in tensors)
    before = [tensor.flat(tensor.mask).clone() for tensor in tensors]
    generator = torch.Generator().manual_seed(0)
    event, _ = dsr_step(tensors, said["threshold_before"], 10, partial(grow_random, generator=generator))
    for layer, (killed, grown) in enumerate(zip(event.killed, event.grown, strict=True)):
        assert torch.equal(killed, arrays[f"l{layer}_pruned"].long())
        assert len(grown) <= capacity[layer]
        assert not before[layer][grown].any()
    assert event.grown_count == event.pruned_count
    assert sum(len(tensor.active) for tensor in tensors) == active
    survivors = [len(t.active) - len(g) for t, g in zip(tensors, event.grown, strict=True)]
    allocate_legacy(survivors, event.pruned_count, capacity, drawn_from(generator))  # ends as well


@pytest.mark.parametrize("trace", range(8))
def test_threshold_follows_the_kills_of_real_runs(trace):
    traces = about("threshold_traces")
    if trace >= len(traces):
        pytest.skip("no such trace")
    said = traces[trace]
    threshold = said["initial_threshold"]
    for pruned, after in zip(said["n_pruned"], said["threshold_after"], strict=True):
        threshold = adapt_threshold(threshold, pruned, said["K"], said["tolerance"])
        assert threshold == after


def test_threshold_stays_exactly_on_the_tolerance():
    assert adapt_threshold(1.0, 110, 100) == adapt_threshold(1.0, 90, 100) == 1.0
    assert (adapt_threshold(1.0, 111, 100), adapt_threshold(1.0, 89, 100), adapt_threshold(1.0, 0, 100)) == (0.5, 2, 2)


layers = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8)


@given(layers, st.integers(0, 300))
def test_allocation_conserves_respects_capacity_and_is_proportional(layers, total):
    survivors, capacity = map(list, zip(*layers, strict=True))
    grown = allocate(survivors, total, capacity)
    assert sum(grown) == min(total, sum(capacity))
    assert all(0 <= g <= room for g, room in zip(grown, capacity, strict=True))
    if sum(survivors) and all(survivor * total // sum(survivors) < room for survivor, room in layers):
        assert all(abs(g - survivor * total / sum(survivors)) < 1 for g, survivor in zip(grown, survivors, strict=True))


@given(layers, st.integers(0, 300), st.data())
def test_weighted_allocation_leaves_less_than_one_unit(layers, total, data):
    survivors, capacity = map(list, zip(*layers, strict=True))
    sizes = data.draw(st.lists(st.sampled_from([1, 9]), min_size=len(layers), max_size=len(layers)))
    grown = allocate(survivors, total, capacity, sizes)
    left = min(total, sum(r * s for r, s in zip(capacity, sizes, strict=True)))
    left -= sum(g * s for g, s in zip(grown, sizes, strict=True))
    room = [s for g, r, s in zip(grown, capacity, sizes, strict=True) if g < r]
    assert 0 <= left < min(room, default=1)
    assert all(0 <= g <= r for g, r in zip(grown, capacity, strict=True))


@given(layers, st.integers(0, 300), st.integers(0, 1000))
def test_legacy_rounding_ends_within_half_a_unit_for_every_layer(layers, total, seed):
    survivors, capacity = map(list, zip(*layers, strict=True))
    rounds = allocate_legacy(survivors, total, capacity, drawn_from(torch.Generator().manual_seed(seed)))
    assert sum(sum(grown) for _, grown in rounds) <= total + len(survivors) / 2


@given(networks(), st.sampled_from([0.0, 0.3, 1.0, 9.0]), st.integers(1, 200))
def test_an_event_conserves_units_and_touches_nothing_else(network, threshold, k):
    tensors, generator = network
    before = [(tensor.mask.clone(), tensor.weight.clone(), len(tensor.active)) for tensor in tensors]
    lonely = drop_magnitude_threshold(tensors, threshold)
    capacity = sum(tensor.units - len(tensor.active) for tensor in tensors)
    event, after = dsr_step(tensors, threshold, k, partial(grow_random, generator=generator))
    assert after in (threshold / 2, threshold, threshold * 2)
    assert event.grown_count == min(event.pruned_count, capacity)
    for tensor, (mask, weight, active), killed, expected, grown in zip(
        tensors, before, event.killed, lonely, event.grown, strict=True
    ):
        assert torch.equal(killed, expected)
        assert len(tensor.active) == tensor.mask.sum() == active - len(killed) + len(grown)
        assert active == 0 or len(killed) < active
        flat = tensor.flat(mask)
        assert flat[killed].all() and not flat[grown].any() and len(grown.unique()) == len(grown)
        kept = Masked(weight, mask & tensor.mask)
        assert torch.equal(tensor.weight, kept.masked(weight))  # survivors as they were, all else exactly 0


@given(networks(), st.integers(0, 400))
def test_exact_pruning_kills_the_k_smallest_of_the_network(network, k):
    tensors, _ = network
    largest = [tensor.magnitudes().max() for tensor in tensors if len(tensor.active)]
    killed = drop_smallest_of_all(tensors, k)
    assert sum(map(len, killed)) == min(k, sum(len(tensor.active) for tensor in tensors) - len(largest))
    dead, alive = [], []
    for tensor, units in zip(tensors, killed, strict=True):
        is_dead = torch.isin(tensor.active, units)
        dead.append(tensor.magnitudes()[is_dead])
        alive += [tensor.magnitudes()[~is_dead].sort().values[:-1]]  # the largest is spared whatever it is
        assert not len(tensor.active) or not is_dead.all()
    dead, alive = torch.cat(dead), torch.cat(alive)
    assert not len(dead) or not len(alive) or dead.max() <= alive.min()


@pytest.mark.parametrize("density", [0.1, 0.7])
@pytest.mark.parametrize("count", [5, 60])
def test_growth_is_uniform_over_inactive_units(density, count):
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(20, 25, generator=generator) < density
    tensor, rounds = Masked(torch.zeros(20, 25), mask), 2000
    hits = torch.zeros(500)
    for _ in range(rounds):
        hits[grow_random(tensor, count, generator)] += 1
    free = ~mask.view(-1)
    assert not hits[~free].any()
    share = count / free.sum()
    chi_square = ((hits[free] - rounds * share) ** 2 / (rounds * share * (1 - share))).sum()
    assert abs(chi_square - free.sum()) < 4 * (2 * free.sum()) ** 0.5


def test_big_new_weights_have_the_published_spread():
    generator = torch.Generator().manual_seed(0)
    matrix = Masked(torch.zeros(10, 400), torch.zeros(10, 400, dtype=torch.bool))
    kernel = Masked(torch.zeros(8, 4, 3, 3), torch.zeros(8, 4, dtype=torch.bool))
    assert big_new_weights(matrix, 20000, generator).std() == pytest.approx(1 / 20, rel=0.03)
    drawn = big_new_weights(kernel, 3000, generator)
    assert drawn.shape == (3000, 3, 3) and drawn.std() == pytest.approx((2 / 72) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 60, "threshold": 0.02},
        {"k": 60, "granularity": 2, "weighted": True, "keep": "layer3*", "threshold": 0.2},
        {"k": 60, "prune": "exact", "big_new_weights": True, "momentum": "legacy"},
        {"prune": "fraction", "rounding": "legacy", "l1": 1e-4},
        {"k": 60, "threshold": 0.02, "reallocate": False, "distribution": "erk", "group_lasso": True, "l1": 1e-4},
    ],
    ids=str,
)
def test_a_run_stays_sparse_and_its_weights_evaluate_alike(options, tiny):
    from research.trained.evaluate_weights import evaluate_weights

    common = {"period": "0:2 1:3", "sparsity": 0.7, "stop_epoch": 2}
    config = tiny(
        model="resnet8", batch_size=256, epochs=3, hooks={"dsr": common | options}, optimizer="adamw", lr=0.01
    )
    run = fit(Run.create(config))
    events = [row for row in rows(run) if row["kind"] == "sparse_event"]
    assert [event["step"] - 1 for event in events] == [
        2,
        4,
        6,
        9,
    ]  # then every 3, none in the third epoch
    assert events[0]["pruned"] > 0
    for event in events:
        if options.get("granularity", 4) == 4 and options.get("rounding") != "legacy":
            assert event["grown"] == event["pruned"]
        assert event["density"] == pytest.approx(0.3, abs=2e-3)
    if options.get("prune") == "exact":
        assert {event["pruned"] for event in events} == {60}
    saved = weights(run)
    masks = {name: mask for name, mask in saved.items() if name.endswith("weight_mask")}
    assert masks
    for name, mask in masks.items():
        tensor = Masked(saved[name.removesuffix("_mask")], mask)
        assert torch.equal(tensor.weight, tensor.masked(tensor.weight))
    assert evaluate_weights([run.dir], last=True)[0]["top1"] == pytest.approx(run.last_top1)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"period": "0"}, "period"),
        ({"period": "0:1.5"}, "whole numbers"),
        ({"weighted": True, "rounding": "legacy"}, "rounding=exact"),
        ({"distribution": "erk", "sparsity_fc": 0.5}, "sparsity_fc"),
        ({"copy_init": True}, "copy_mask_from"),
        ({"granularity": 0}, ">= 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(given_, told):
    with pytest.raises(UsageError, match=told):
        Config.load({"hooks": {"dsr": given_}})


def test_state_holds_the_threshold(tiny):
    run = fit(Run.create(tiny(hooks={"dsr": {"period": "2", "k": 300}})))
    state = torch.load(max(run.paths.checkpoints.glob("*.pt")), weights_only=True)["hooks"]["dsr"]
    logged = [json.loads(line) for line in run.paths.metrics.read_text().splitlines()]
    assert state["threshold"] == [row for row in logged if row["kind"] == "sparse_event"][-1]["next_threshold"]


def test_sparsify_keeps_any_network_sparse_through_its_checkpoints_and_lets_it_go():
    def network(seed):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 10))
        return model, sparsify(model, 0.8, torch.Generator().manual_seed(seed))

    (first, tensors), (second, _) = network(0), network(1)
    assert [len(tensor.active) for tensor in tensors] == [120, 60]
    second.load_state_dict(first.state_dict())
    second(torch.rand(5, 20)).square().sum().backward()
    for here, there in zip(tensors, masked_weights(second), strict=True):
        assert torch.equal(here.active, there.active)
        assert there.weight.grad[~there.mask].count_nonzero() == 0 < there.weight.grad.count_nonzero()
    with pytest.raises(UsageError, match=r"sparsity=1\.0: must be >= 0 and < 1"):
        sparsify(first, 1.0)
    gone = weakref.ref(first[0].weight)
    del first, tensors, here
    gc.collect()
    assert gone() is None
