"""What the order of methods in a run's list means, in numbers: the pairs of the table in research/hooks/README.md."""

import re

import pytest
import torch
from composition_matrix import README, differing, read_matrix
from conftest import rows
from torch import nn

from research.hooks import HOOKS, Hook
from research.layers.masked import masked_weights
from research.runs.run import Run
from research.training.loop import fit
from research.training.preflight import preflight

ALPHA, WEIGHT, L1 = 0.25, 0.4, 1e-3
LOSSES = {
    "auxiliary": {"weight": WEIGHT},
    "distill": {"alpha": ALPHA, "beta": 0.0},
    "static_sparse": {"sparsity": 0.5, "l1": L1},
}
MASKS = {"sparsity": 0.5, "only": "layer2.0.conv2"}
GROWING = {"rigl": {"period": 1, "end": 1.0} | MASKS, "itop": {"period": 1} | MASKS}
GRAM = {"warmup": 0, "k": 1.0}


class Tap(Hook):
    """Keeps the loss of the labels, and each step's gradients as they are where it stands in the list."""

    def setup(self, run):
        self.losses, self.gradients, self.masks = [], [], []

    def loss(self, run, loss):
        self.losses.append(loss.item())
        return loss

    def grads(self, run):
        found = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
        self.gradients.append(found)
        self.masks.append({tensor.name: tensor.mask.clone() for tensor in masked_weights(run.model)})


@pytest.fixture
def trained(tiny, plain_network, monkeypatch):
    """``trained(hooks, **given)``: a run that hardly moves, with ``first`` before all other methods, ``last`` after."""
    monkeypatch.setitem(HOOKS, "first", Tap)
    monkeypatch.setitem(HOOKS, "last", Tap)

    def train(hooks, **given) -> Run:
        given = {"epochs": 1, "batch_size": 479, "lr": 1e-6, "momentum": 0.0, "weight_decay": 0.0} | given
        name = "-".join([*hooks, *map(str, hooks.get("dsr", {}).values())])
        return fit(Run.create(tiny(model=plain_network, name=name, hooks={"first": {}, **hooks, "last": {}}, **given)))

    return train


def losses(names, trained, **more) -> dict[str, float]:
    """The terms of the loss of one step under methods in this order, and the loss itself."""
    hooks = {name: LOSSES[name] | more.get(name, {}) for name in names}
    run = trained(hooks, batch_size=1437)
    logged = {row["kind"]: row for row in rows(run)}
    return {
        "labels": run.hooks["first"].losses[0],
        "kd": logged["distill"]["kd"],
        "head": logged.get("auxiliary", {}).get("loss"),
        "l1": L1 * sum(tensor.weight.abs().sum().item() for tensor in masked_weights(run.model)),
        "all": run.hooks["last"].losses[0],
    }


def test_distill_weighs_the_head_that_is_listed_before_it(trained):
    after, before = (losses(names, trained) for names in (["auxiliary", "distill"], ["distill", "auxiliary"]))
    for found, head in ((after, 1 - ALPHA), (before, 1.0)):
        expected = (1 - ALPHA) * found["labels"] + ALPHA * found["kd"] + head * WEIGHT * found["head"]
        assert found["all"] == pytest.approx(expected, rel=1e-5)
    assert before["all"] - after["all"] == pytest.approx(ALPHA * WEIGHT * after["head"], rel=1e-3)


def test_a_head_that_is_joined_halves_all_that_is_listed_before_it(trained):
    joined = {"auxiliary": {"weight": WEIGHT, "mode": "concat"}}
    after, before = (losses(names, trained, **joined) for names in (["auxiliary", "distill"], ["distill", "auxiliary"]))
    halves = (1 - ALPHA) * (after["labels"] + after["head"]) / 2 + ALPHA * after["kd"]
    assert after["all"] == pytest.approx(halves, rel=1e-5)
    halves = ((1 - ALPHA) * before["labels"] + ALPHA * before["kd"] + before["head"]) / 2
    assert before["all"] == pytest.approx(halves, rel=1e-5)


def test_distill_weighs_the_l1_of_masks_that_are_listed_before_it(trained):
    after, before = (losses(names, trained) for names in (["static_sparse", "distill"], ["distill", "static_sparse"]))
    for found, share in ((after, 1 - ALPHA), (before, 1.0)):
        expected = (1 - ALPHA) * found["labels"] + ALPHA * found["kd"] + share * found["l1"]
        assert found["all"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("first", [True, False], ids=["gram first", "gram last"])
@pytest.mark.parametrize("name", GROWING)
def test_units_grow_by_multiplied_gradients_where_gram_is_listed_first(name, first, trained):
    order = ["gram", name] if first else [name, "gram"]
    run = trained({each: GRAM if each == "gram" else GROWING[each] for each in order})
    tap, (tensor,) = run.hooks["first"], run.hooks[name].tensors
    at = 1 if name == "rigl" else 0  # the first step with an event
    after = run.hooks["last"].masks[at] if name == "rigl" else tap.masks[at + 1]
    grown = after[tensor.name] & ~tap.masks[at][tensor.name]
    plain = tap.gradients[at][tensor.name].abs()
    scaled = plain * run.hooks["gram"].multipliers[tensor.name.removesuffix(".weight")]
    looked_at, other = (scaled, plain) if first else (plain, scaled)
    passed_over = ~after[tensor.name]
    assert grown.sum() > 20
    assert looked_at[grown].min() >= looked_at[passed_over].max()
    assert other[grown].min() < other[passed_over].max()


def test_gram_multiplies_the_noise_of_deepr_that_is_listed_before_it(trained):
    deepr = {"sparsity": 0.5, "temperature": "1"}
    runs = [
        trained({name: {"gram": GRAM, "deepr": deepr}[name] for name in order})
        for order in (["gram", "deepr"], ["deepr", "gram"])
    ]
    (M,) = {tuple(run.hooks["gram"].multipliers["layer2.0.conv2"].flatten().tolist()) for run in runs}
    M, name = torch.tensor(M).view(3, 3), "layer2.0.conv2.weight"
    plain = runs[0].hooks["first"].gradients[0][name]
    after, before = (run.hooks["last"].gradients[0][name] for run in runs)
    noise = after - M * plain
    assert noise.std() > 0.05
    torch.testing.assert_close(before, M * (plain + noise), rtol=1e-5, atol=1e-6)


def test_clipping_comes_before_every_method_so_gram_changes_the_norm_that_was_clipped(trained):
    run = trained({"gram": GRAM}, clip_norm=0.01)
    came, went = (nn.utils.get_total_norm(run.hooks[tap].gradients[0].values()) for tap in ("first", "last"))
    assert came == pytest.approx(0.01, rel=1e-4)
    assert went != pytest.approx(0.01, rel=1e-2)


def test_an_average_listed_before_masks_has_new_weights_a_step_late(trained):
    """Only where they begin with values of their own: else they, and their average, are 0 in both orders."""
    dsr = {"period": "1", "k": 40, "threshold": 0.02, "sparsity": 0.5}
    for values in (True, False):
        own = {"dsr": dsr | {"big_new_weights": values}, "ema": {"decay": 0.9}}
        one, other = (trained({name: own[name] for name in order}) for order in (["dsr", "ema"], ["ema", "dsr"]))
        averages = [dict(run.hooks["ema"].averaged.module.named_parameters()) for run in (one, other)]
        assert all(torch.equal(one.model.state_dict()[n], other.model.state_dict()[n]) for n in one.model.state_dict())
        assert all(torch.equal(averages[0][n], averages[1][n]) for n in averages[0]) is not values


@pytest.mark.parametrize(
    ("hooks", "told"),
    [
        ({"distill": LOSSES["distill"], "auxiliary": {}}, "distill is listed early: the loss of auxiliary"),
        ({"static_sparse": LOSSES["static_sparse"], "distill": LOSSES["distill"]}, "weighs its l1 by 1 - alpha"),
        ({"gram": GRAM, "rigl": GROWING["rigl"]}, "gram is listed early: rigl, listed after it, grows by gradients"),
        ({"gram": GRAM, "itop": GROWING["itop"]}, "gram is listed early: itop, listed after it, grows by gradients"),
        ({"deepr": {}, "gram": GRAM}, "deepr is listed early: gram, listed after it, multiplies its noise"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else None,
)
def test_an_order_with_less_effect_is_told_before_a_run_is_made(hooks, told, tiny, plain_network, recwarn):
    preflight(tiny(model=plain_network, hooks=hooks))
    assert any(told in str(warning.message) for warning in recwarn)
    recwarn.clear()
    preflight(tiny(model=plain_network, hooks=dict(reversed(hooks.items()))))
    assert not any("is listed early" in str(warning.message) for warning in recwarn)


def test_the_documents_say_what_the_order_of_every_pair_means_that_does_not_commute():
    """Each `<` of the matrix is a row of the table."""
    document = README.read_text()
    table = document.partition("| listed first, and second |")[2].partition("\n\n")[0]
    told = [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()[2:]]
    for pair in differing(read_matrix(document)):
        assert any(set(pair) <= row for row in told), pair
