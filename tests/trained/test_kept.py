"""Weights of a run at each epoch of which there are any, and one layer of them."""

import numpy as np
import pytest
import torch
from conftest import Killed

from research.checkpoints import checkpoint
from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.runs.metrics import read_rows
from research.runs.run import Run
from research.trained.kept import KeptNetwork, spans
from research.training.loop import fit


class Spy(Hook):
    """Copies the network before every epoch."""

    seen: list[dict] = []

    def epoch_start(self, run):
        Spy.seen.append({name: value.clone() for name, value in run.model.state_dict().items()})


@pytest.fixture
def sparse(tiny, monkeypatch):
    """A run of three epochs whose masks move, and its states before each of them."""
    monkeypatch.setitem(HOOKS, "spy", Spy)
    monkeypatch.setattr(Spy, "seen", [])
    hooks = {"set": {"sparsity": 0.9, "period": 5}, "spy": {}}
    run = fit(Run.create(tiny(epochs=3, hooks=hooks)))
    return run, Spy.seen


def test_initial_weights_and_masks_are_those_that_training_began_with(sparse):
    run, seen = sparse
    state = KeptNetwork.of_run(run.dir).at(0).state_dict()
    assert state.keys() == seen[0].keys() and all(torch.equal(state[name], seen[0][name]) for name in state)


def test_each_epoch_has_its_own_weights_and_others_are_refused(sparse):
    run, seen = sparse
    network = KeptNetwork.of_run(run.dir)
    assert {0, 2, 3} <= set(network.kept) and network.epochs == 3
    assert torch.equal(network.at(2).state_dict()["1.weight"], seen[2]["1.weight"])
    newest = max(run.paths.checkpoints.glob("*.pt"))
    assert torch.equal(network.at(3).state_dict()["1.weight"], checkpoint.read(newest)["model"]["1.weight"])
    with pytest.raises(UsageError, match=r"no weights are kept after epoch 7; there are those after 0"):
        network.at(7)
    newest.unlink()
    with pytest.raises(UsageError, match="is gone"):
        network.at(3)


def test_best_weights_belong_to_the_epoch_that_evaluated_best(sparse):
    run, seen = sparse
    for path in run.paths.checkpoints.glob("*.pt"):
        path.unlink()
    (epoch,) = set(KeptNetwork.of_run(run.dir).kept) - {0}
    results = [row["top1"] for row in read_rows(run.paths.metrics) if row["kind"] == "val"]
    assert epoch == 1 + int(np.argmax(results))


def test_a_layer_has_weights_mask_singular_values_and_cost(sparse):
    run, _ = sparse
    network = KeptNetwork.of_run(run.dir)
    assert network.layers() == ["1", "3", "5"]
    state = network.layer("3", 3)
    assert state.mask.mean() == pytest.approx(0.1, abs=0.01) and not state.weight[~state.mask].any()
    np.testing.assert_allclose(state.singular_values, np.linalg.svd(state.weight, compute_uv=False), atol=1e-5)
    assert state.row.layer == "3" and state.row.nonzeros == state.mask.sum() + state.weight.shape[0]
    with pytest.raises(UsageError, match="has no layer '4'"):
        network.layer("4", 3)


def test_a_stop_within_an_epoch_counts_its_steps_and_gives_way_to_the_end_of_an_epoch(tiny, power_cut):
    run = Run.create(tiny(checkpoint_minutes=0, hooks={"power_cut": {}}))
    power_cut.at = 19
    with pytest.raises(Killed):
        fit(run)
    assert KeptNetwork.of_run(run.dir).kept[1].path == run.paths.best
    run.paths.best.unlink()  # what is left are checkpoints at steps 12 and 16, of 11 an epoch
    kept = KeptNetwork.of_run(run.dir).kept
    assert set(kept) == {0, 1} and kept[1].steps in (1, 5)


def test_weights_that_come_from_elsewhere_are_not_drawn_again(tiny):
    first = fit(Run.create(tiny(name="first", epochs=1)))
    assert 0 in KeptNetwork.of_run(first.dir).kept
    other = KeptNetwork(tiny(name="second", init="first"))
    assert other.kept == {} and other.name == "new mnist_mlp"


@pytest.mark.parametrize(
    ("hooks", "substitute"),
    [({"tied": {"sparsity": 0.9}}, ""), ({"static_sparse": {"granularity": 2}}, ""), ({}, "bottleneck")],
)
def test_tied_masked_and_substituted_convolutions_are_layers(hooks, substitute):
    network = KeptNetwork(Config.load({"hooks": hooks, "substitute": substitute}))
    for name in network.layers():
        state = network.layer(name, 0)
        assert state.weight.ndim >= 2 and np.isfinite(state.singular_values).all()
        assert state.mask is None or state.mask.shape == state.weight.shape


def test_spans():
    assert spans([3, 0, 1, 2, 9]) == "0-3, 9" and spans([]) == ""
