"""Masks copied from another run, with its initial weights or, as the control, with others."""

import pytest
import torch
from conftest import REPOSITORY, weights

from research.errors import UsageError
from research.hooks.sparse import StaticSparse
from research.hooks.sparse.first_masks import shuffled
from research.runs.network import network_of
from research.runs.run import Run
from research.studies.study import expand, read_study
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit

STILL = {"epochs": 1, "lr": 1e-30, "weight_decay": 0.0}  # weights end as they began


@pytest.fixture
def source(tiny) -> Run:
    return fit(Run.create(tiny(name="source", hooks={"set": {"period": "2", "sparsity": 0.8}})))


def copied(tiny, source: Run | str, name: str, init: bool, shuffle: str = "none", **given) -> Run:
    options = {"copy_mask_from": getattr(source, "name", source), "copy_init": init, "sparsity": 0.8}
    options |= {"shuffle": shuffle}
    return fit(Run.create(tiny(**STILL | given, name=name, hooks={"static_sparse": options})))


def initial(run: Run) -> dict[str, torch.Tensor]:
    config = run.config
    return network_of(config, 10, (1, 8, 8), torch.device("cpu"), without="masks").state_dict()


def test_the_control_has_the_masks_and_other_initial_weights_under_the_same_seed(tiny, source):
    ticket, control = copied(tiny, source, "ticket", True), copied(tiny, source, "control", False)
    began = initial(source)
    for name, mask in weights(source).items():
        if name.endswith("_mask"):
            weight = name.removesuffix("_mask")
            assert torch.equal(weights(ticket)[name], mask) and torch.equal(weights(control)[name], mask)
            torch.testing.assert_close(weights(ticket)[weight], began[weight] * mask)
            assert (weights(control)[weight] != weights(ticket)[weight])[mask].float().mean() > 0.99
    evaluated = evaluate_weights([control.dir], last=True)[0]
    assert evaluated["top1"] == pytest.approx(control.status["last_top1"])


@pytest.mark.parametrize("shuffle", ["layer", "inputs", "outputs"])
def test_shuffled_masks_keep_the_numbers_that_they_name(tiny, source, shuffle):
    run = copied(tiny, source, shuffle, False, shuffle)
    for name, mask in weights(source).items():
        if name.endswith("_mask"):
            other = weights(run)[name]
            same = {"layer": None, "inputs": 0, "outputs": 1}[shuffle]
            assert not torch.equal(other, mask) and other.sum() == mask.sum()
            if same is not None:
                assert torch.equal(other.sum(same), mask.sum(same))
                assert not torch.equal(other.sum(1 - same), mask.sum(1 - same))
            assert not weights(run)[name.removesuffix("_mask")][~other].any()


def test_places_are_shuffled_by_the_seed_and_not_along_with_the_first_weights(tiny, source):
    begun = [copied(tiny, source, f"s{seed}", True, "layer", seed=seed) for seed in (1, 2)]
    for name, mask in weights(begun[0]).items():
        if name.endswith("_mask"):
            assert not torch.equal(mask, weights(begun[1])[name])
            weight, began = name.removesuffix("_mask"), initial(source)
            torch.testing.assert_close(weights(begun[0])[weight], began[weight] * mask)


@pytest.mark.parametrize("within", ["layer", "inputs", "outputs"])
def test_channels_of_kernels_are_shuffled_as_units_of_matrices_are(within):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 5, 3, 3, generator=generator) < 0.3
    other = shuffled(mask, within, generator)
    kept = {"layer": (0, 1, 2, 3), "inputs": 0, "outputs": (1, 2, 3)}[within]
    assert torch.equal(other.sum(kept), mask.sum(kept)) and not torch.equal(other, mask)


def test_shuffling_needs_masks_to_shuffle(tiny):
    with pytest.raises(UsageError, match="shuffle=layer: needs copy_mask_from"):
        StaticSparse(shuffle="layer")


def test_a_control_of_a_control_begins_with_what_its_source_began_with(tiny, source):
    control = copied(tiny, source, "control", False)
    again = copied(tiny, control, "again", True)
    for name, weight in weights(control).items():
        torch.testing.assert_close(weights(again)[name], weight)


def test_a_ticket_of_a_ticket_begins_with_the_first_run(tiny, source):
    ticket = copied(tiny, source, "ticket", True, seed=5)
    again = copied(tiny, ticket, "again", True, seed=6)
    for name, weight in weights(ticket).items():
        torch.testing.assert_close(weights(again)[name], weight)


def test_a_ticket_of_a_pruned_network_begins_with_what_was_pruned(tiny):
    dense = fit(Run.create(tiny(name="dense", epochs=1)))
    prune = {"start_from": "dense", "every": 1, "iterations": 1, "sparsity": 0.5}
    fit(Run.create(tiny(name="pruned", epochs=2, hooks={"prune": prune})))
    ticket = copied(tiny, "pruned", "ticket", True)
    for name in ("1", "3"):
        mask = weights(ticket)[f"{name}.weight_mask"]
        torch.testing.assert_close(weights(ticket)[f"{name}.weight"], weights(dense)[f"{name}.weight"] * mask)


def test_initial_weights_of_substitutes_are_copied_too(tiny):
    common = {"model": "resnet8", "batch_size": 512, "substitute": "sephashed:0.5"}
    source = fit(Run.create(tiny(**common, name="source", epochs=1, hooks={"set": {"period": "2", "sparsity": 0.8}})))
    ticket, control = (copied(tiny, source, str(init), init, **common) for init in (True, False))
    bank = "layer1.0.conv1.hashed.weight"
    mask = weights(source)[f"{bank}_mask"]
    assert 0 < mask.sum() < mask.numel()
    torch.testing.assert_close(weights(ticket)[bank], initial(source)[bank] * mask)
    assert not torch.equal(weights(control)[bank], weights(ticket)[bank])


@pytest.mark.parametrize("name", ["sparse-wrn", "sparse-resnet50"])
def test_controls_in_the_studies_are_other_runs_than_the_tickets(name):
    streams = {}
    for point in expand(read_study(REPOSITORY / "notebooks" / "studies" / f"{name}.yaml")):
        given = point.config.hooks.get("static_sparse", {})
        if given.get("copy_mask_from"):
            streams[point.config.name] = StaticSparse(**given).initial_stream()
    tickets = {name for name, stream in streams.items() if not stream}
    assert len(streams) == 2 * len(tickets) == 4 and all("init" in name for name in tickets)
