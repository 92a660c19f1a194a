"""``mask_seed`` takes what methods draw out of the seed: initial weights and the order of data stay as they are."""

import pytest
import torch
from conftest import rows, weights

from research.config import Config
from research.layers.masked import masks_among
from research.runs.run import Run
from research.training.loop import fit
from research.training.prepare import prepare

STATIC, TIED = {"static_sparse": {"sparsity": 0.5}}, {"tied": {"sparsity": 0.5}}
MOVING = {"set": {"sparsity": 0.5, "period": 2}}


def begun(tiny, **given) -> dict[str, torch.Tensor]:
    """Everything in the network of a run that has not trained yet."""
    run = Run.create(tiny(**given))
    prepare(run)
    return run.model.state_dict()


def test_it_changes_masks_and_no_initial_weight(tiny):
    first, second = (begun(tiny, hooks=STATIC, name=f"m{seed}", mask_seed=seed) for seed in (1, 2))
    masks = masks_among(first)
    assert masks and not any(torch.equal(first[name], second[name]) for name in masks)
    for name in first.keys() - set(masks):
        both = (first[name] != 0) & (second[name] != 0)
        assert both.any() or not first[name].any()
        assert torch.equal(first[name][both], second[name][both])


def test_it_keeps_masks_while_the_seed_changes_the_weights(tiny):
    first, second = (begun(tiny, hooks=STATIC, name=f"s{seed}", seed=seed, mask_seed=7) for seed in (1, 2))
    assert all(torch.equal(first[name], second[name]) for name in masks_among(first))
    assert not all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "hooks", [STATIC, TIED, {"set": {"sparsity": 0.5, "period": 2}}], ids=lambda hooks: [*hooks][0]
)
def test_the_seed_given_as_the_mask_seed_is_the_same_training(tiny, hooks):
    given = {"hooks": hooks, "seed": 3}
    runs = [fit(Run.create(tiny(**given, name=name, **more))) for name, more in (("a", {}), ("b", {"mask_seed": 3}))]
    first, second = map(weights, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row.get("loss") for row in rows(runs[0])] == [row.get("loss") for row in rows(runs[1])]


def test_it_changes_no_identity_while_it_is_not_given():
    assert Config(mask_seed=None).identity == Config().identity != Config(mask_seed=0).identity
