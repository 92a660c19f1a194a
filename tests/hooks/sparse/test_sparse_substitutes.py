"""Sparse training of networks whose convolutions were replaced: masks lie on what is free, and say so."""

import json

import pytest
import torch

from research.errors import UsageError
from research.hooks import HOOKS
from research.layers.families import LAYERS
from research.layers.masked import choose
from research.layers.substitute import substitute
from research.measures.cost import count
from research.models import create_model
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights
from research.trained.network_cost import count_run
from research.training.loop import fit
from research.training.preflight import preflight

SMALL = {"model": "resnet8", "batch_size": 512, "epochs": 1}
MASKED = {  # in resnet8 with 10 classes: what sparse training may mask
    "sep": 8_832, "hashed": 8_010, "sephashed": 1_456, "fullysephashed": 1_455, "generic": 5_376, "lr": 3_328,
    "shuffle": 1_792, "tt": 3_384, "tucker": 4_452, "cp": 1_432, "bottleneck": 33_664, "dconv": 8_832,
    "conv2x2": 32_768,
}  # fmt: skip
REFUSED = {"acdc", "dconv3d"}  # diagonals, and taps that all channels share


@pytest.mark.parametrize("family", LAYERS)
def test_free_weights_of_substitutes_are_masked(family):
    model = create_model("resnet8")
    substitute(model, family)
    if family in REFUSED:
        with pytest.raises(UsageError, match="nothing but the classifier fc is left to be sparse .*give only=fc"):
            choose(model)
        assert list(choose(model, only="fc").sparse) == ["fc"]
    else:
        assert sum(site.weight.numel() for site in choose(model).sparse.values()) == MASKED[family]


@pytest.mark.parametrize("family", ["sephashed:0.3", "tt", "lr", "generic"])
def test_a_run_is_as_sparse_as_asked_and_every_counter_agrees(family, tiny):
    given = SMALL | {"substitute": family, "hooks": {"set": {"sparsity": 0.8, "period": 2}}}
    run = fit(Run.create(tiny(**given)))
    tensors = run.hooks["set"].tensors
    active, weights = (sum(sizes) for sizes in zip(*((len(t.active), t.units) for t in tensors), strict=True))
    assert active / weights == pytest.approx(0.2, abs=0.01)
    assert all(torch.equal(tensor.weight, tensor.masked(tensor.weight)) for tensor in tensors)
    cost = count(run.model, (1, 8, 8))
    assert cost.params - cost.nonzeros == weights - active
    foretold = count_run({name: value for name, value in given.items()} | {"dataset": "digits"}).cost
    assert (foretold.params, foretold.nonzeros) == (cost.params, cost.nonzeros)
    assert evaluate_weights([run.dir], last=True)[0]["top1"] == pytest.approx(run.status["last_top1"])


@pytest.mark.parametrize("name", [name for name, hook in HOOKS.items() if hook.exclusive == "masks"])
def test_what_is_masked_and_what_is_not_is_told(name, tiny):
    hooks = {name: dict(HOOKS[name].exercise)}
    family = "sep" if name == "tied" else "sephashed:0.3"  # what is hashed cannot be tied once more
    run = fit(Run.create(tiny(**SMALL, substitute=family, hooks=hooks)))
    texts = [json.loads(line).get("text", "") for line in run.paths.metrics.read_text().splitlines()]
    (told,) = [text for text in texts if " weights in " in text]
    verb = "ties" if name == "tied" else "masks"
    assert told.startswith(f"{verb} ") and "conv1 because it is the first convolution" in told


def test_masks_of_the_classifier_alone_are_refused_before_a_run_is_made(tiny):
    with pytest.raises(UsageError, match="nothing but the classifier fc is left"):
        preflight(tiny(model="resnet8", substitute="acdc", hooks={"dsr": {}}))
    with pytest.raises(UsageError, match="goes by the sides of matrices and kernels"):
        preflight(tiny(model="resnet8", substitute="sephashed", hooks={"set": {"distribution": "erk"}}))


def test_new_weights_of_a_bank_are_as_large_as_those_it_has(tiny):
    hooks = {"dsr": {"period": 2, "k": 50, "threshold": 0.05, "sparsity": 0.5, "big_new_weights": True}}
    run = fit(Run.create(tiny(**SMALL, substitute="hashed", hooks=hooks)))
    assert run.status["status"] == "finished"
