"""Networks of DARTS: published sizes, golden numbers of the study, genotypes, and the auxiliary head as a method."""

import json
import re
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import GOLDENS, SHARED, Killed, assert_same_run, rows
from torch import nn
from torch.nn import functional as F

from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.hooks.attention import known_taps, recorded_maps
from research.layers.substitute import substitute
from research.measures.cost import count
from research.models import MODELS, check_model, create_model
from research.models.genotype import GENOTYPES, genotype_of
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit
from research.training.prepare import build_network, weight_decays

GOLDEN = GOLDENS / "cheap-convs"
WHOLE = SHARED / "golden" / "cheap-convs" / "darts_C4_L6_Sep.npz"  # with the auxiliary head: too large to keep here
SMALL = {"C": 4, "layers": 6}


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_the_published_ones():
    network = create_model("darts")
    cost = count(network, (3, 32, 32))
    assert (cost.params, cost.mult_adds) == (3_349_342, 537_399_946)
    network.add_auxiliary_head()
    assert parameters(network) == 3_825_768
    assert parameters(create_model("darts_imagenet")) == 4_718_752  # Liu et al.: 4.7 M


@pytest.mark.parametrize(
    ("conv", "params", "mult_adds"),
    [
        ("Generic_0.12", 1_398_106, 231_087_754),
        ("SepHashed_0.2", 848_866, 537_399_946),
        ("Tucker_0.54", 1_398_503, 537_399_946),
    ],
)
def test_a_separable_unit_is_replaced_as_one(conv, params, mult_adds):
    network = create_model("darts")
    report = substitute(network, conv)
    assert len(report.replaced) == 240
    cost = count(network, (3, 32, 32))
    assert (cost.params, cost.mult_adds) == (params, mult_adds)


def study_name(name: str) -> str:
    """Our name of a parameter or buffer of the study's network."""
    name = re.sub(r"_ops\.(\d+)\.(op\.)?", r"operations.\1.", name)
    name = re.sub(r"(preprocess\d)\.op\.", r"\1.", name)
    name = re.sub(r"(preprocess\d\.1)\.pointwise", r"\1", name)
    name = re.sub(r"conv_(\d)\.pointwise", r"conv\1", name)
    name = re.sub(r"auxiliary_head\.features", "auxiliary_head", name)
    name = name.replace("auxiliary_head.classifier", "auxiliary_head.10").replace(".grouped.", ".depthwise.")
    return name.replace("stem.0", "stem.conv").replace("stem.1", "stem.bn")


@pytest.mark.parametrize("path", [GOLDEN / WHOLE.name, WHOLE], ids=["cells", "whole"])
def test_network_computes_what_the_study_computes(path):
    if not path.exists():
        pytest.skip("the whole network's golden numbers are not here; set RESEARCH_SHARED to their folder")
    with np.load(path) as arrays:
        g = {key: arrays[key] for key in arrays}
    network = create_model("darts", **SMALL)
    assert parameters(network) == g["n_params_noaux"]
    head = "aux_train" in g
    if head:
        network.add_auxiliary_head()
        assert parameters(network) == g["n_params"]
    network.load_state_dict({study_name(k[4:]): torch.from_numpy(v) for k, v in g.items() if k.startswith("sd__")})
    maps = recorded_maps(network, known_taps(network))
    x, labels = torch.from_numpy(g["x"]), torch.from_numpy(g["labels"])
    near = {"rtol": 1e-4, "atol": 1e-5}

    logits = network.train()(x)
    loss = F.cross_entropy(logits, labels)
    np.testing.assert_allclose(logits.detach(), g["logits_train"], **near)
    np.testing.assert_allclose(loss.item(), g["loss_main"], **near)
    for i, m in enumerate(maps.values()):
        np.testing.assert_allclose(m.detach(), g[f"am{i}_train"], **near)
    if head:
        np.testing.assert_allclose(network.auxiliary_logits.detach(), g["aux_train"], **near)
        loss = (loss + F.cross_entropy(network.auxiliary_logits, labels)) / 2
        np.testing.assert_allclose(loss.item(), g["loss_concat"], **near)
        loss.backward()
        for name, norm in json.loads(str(g["grad_norms"])).items():
            found = network.get_parameter(study_name(name)).grad.norm().item()
            # batch norm over two values in the head: the study's own numbers are 8e-4 off those in double precision
            np.testing.assert_allclose(found, norm, rtol=1e-3, atol=1e-5, err_msg=name)
    state = network.state_dict()
    for name in (k for k in g if k.startswith("sd2__")):
        np.testing.assert_allclose(state[study_name(name[5:])], g[name], **near)
    np.testing.assert_allclose(network.eval()(x).detach(), g["logits_eval"], **near)
    for i, m in enumerate(maps.values()):
        np.testing.assert_allclose(m.detach(), g[f"am{i}_eval"], **near)


def test_layers_start_as_pytorch_has_them():
    torch.manual_seed(0)
    network = create_model("darts")
    unit = network.cells[19].operations[0][1]
    for weight, fan_in in ((unit.depthwise.weight, 9), (unit.pointwise.weight, 144)):
        assert weight.abs().max() <= fan_in**-0.5
        assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)


# -- genotypes ----------------------------------------------------------------------------------------------------


def test_genotype_may_be_a_name_a_mapping_or_text():
    named = genotype_of("DARTS_V2")
    assert genotype_of(GENOTYPES["DARTS_V2"]) == genotype_of(json.dumps(GENOTYPES["DARTS_V2"])) == named
    args = {"genotype": json.dumps(GENOTYPES["DARTS_V2"])} | SMALL
    assert parameters(create_model("darts", **args)) == 12_374


def test_every_operation_runs_at_either_stride():
    pairs = [[["sep_conv_5x5", 0], ["dil_conv_5x5", 1]], [["avg_pool_3x3", 0], ["skip_connect", 1]]]
    pairs += [[["sep_conv_7x7", 2], ["max_pool_3x3", 1]], [["sep_conv_3x3", 3], ["dil_conv_3x3", 0]]]
    cell = sum(pairs, [])
    genotype = {"normal": cell, "normal_concat": [4, 5], "reduce": cell, "reduce_concat": [2, 3, 5]}
    network = create_model("darts", 10, (3, 32, 32), genotype=genotype, **SMALL)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert network.cells[2](*[torch.randn(2, 8, 8, 8)] * 2).shape == (2, 24, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": [["sep_conv_3x4", 0], ["skip_connect", 1]]}, "'sep_conv_3x4'; did you mean 'sep_conv_3x3'"),
        ({"normal": [["none", 0], ["skip_connect", 1]]}, "unknown operation 'none'"),
        (
            {"normal": [["skip_connect", 2], ["skip_connect", 1]]},
            "in node 2: state 2 must be a whole number from 0 to 1",
        ),
        ({"normal": [["skip_connect", 0]]}, "two for every node"),
        ({"reduce_concat": [2, 6]}, "reduce_concat: state 6 must be a whole number from 2 to 5"),
        ({"reduce": None}, "reduce=None: expected pairs"),
        ({"normal_conact": [2]}, "unknown key 'normal_conact'; did you mean 'normal_concat'"),
    ],
)
def test_wrong_genotypes_are_refused_by_name(change, message):
    with pytest.raises(UsageError, match=message):
        genotype_of(GENOTYPES["DARTS_V2"] | change)
    (line,) = check_model("darts", {"genotype": GENOTYPES["DARTS_V2"] | change}, (3, 32, 32))
    assert re.search(message, line)


def test_unknown_genotype_names_the_known():
    with pytest.raises(UsageError, match="'DARTS_V3'.*did you mean 'DARTS_V2'"):
        genotype_of("DARTS_V3")


# -- the auxiliary head as a method -------------------------------------------------------------------------------


class WithHead(nn.Module):
    """The least network that the method works on; that of DARTS needs larger images than the digits."""

    def __init__(self, num_classes=10, input_shape=(1, 8, 8), /):
        super().__init__()
        self.auxiliary_head = self.auxiliary_logits = None
        self.first, self.last = nn.Linear(64, 20), nn.Linear(20, num_classes)

    def add_auxiliary_head(self):
        self.auxiliary_head = nn.Linear(20, 10)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        if self.training and self.auxiliary_head is not None:
            self.auxiliary_logits = self.auxiliary_head(x)
        return self.last(x)


@pytest.fixture
def with_head(monkeypatch) -> dict:
    monkeypatch.setitem(MODELS, "with_head", WithHead)
    return {"model": "with_head", "batch_size": 256, "log_interval": 2}


class Before(Hook):
    """Keeps the loss, and what the head's own is."""

    losses: ClassVar[list[tuple[float, float]]] = []

    def loss(self, run, loss):
        own = F.cross_entropy(run.model.auxiliary_logits, run.targets)
        Before.losses.append((loss.item(), own.item()))
        return loss


class After(Hook):
    losses: ClassVar[list[float]] = []

    def loss(self, run, loss):
        After.losses.append(loss.item())
        return loss


@pytest.mark.parametrize(("given", "main", "head"), [({"weight": 0.25}, 1.0, 0.25), ({"mode": "concat"}, 0.5, 0.5)])
def test_head_adds_its_share_of_the_loss(tiny, with_head, monkeypatch, given, main, head):
    for hook in (Before, After):
        monkeypatch.setitem(HOOKS, hook.__name__.lower(), hook)
        hook.losses.clear()
    run = fit(Run.create(tiny(**with_head, epochs=1, hooks={"before": {}, "auxiliary": given, "after": {}})))
    plain, own = np.array(Before.losses).T
    np.testing.assert_allclose(After.losses, main * plain + head * own, rtol=1e-6)
    (row,) = [row for row in rows(run) if row["kind"] == "auxiliary"]
    assert row["loss"] == pytest.approx(own.mean(), rel=1e-6) and 0 <= row["top1"] <= 100
    assert evaluate_weights([run.dir])[0]["top1"] == run.best_top1


def test_head_resumes_bit_exactly(tiny, with_head, power_cut):
    given = with_head | {"hooks": {"auxiliary": {}, "power_cut": {}}, "checkpoint_minutes": 0}
    whole = fit(Run.create(tiny(**given, name="whole")))
    power_cut.at = 7  # in the second epoch
    config = tiny(**given, name="cut")
    with pytest.raises(Killed):
        fit(Run.create(config))
    assert_same_run(whole, fit(Run.create(config)))


def test_weight_decay_of_substitutes_counts_the_head(tiny):
    given = {"dataset": "cifar10", "model": "darts", "model_args": {}, "weight_decay": 3e-4}
    config = tiny(**given, substitute="generic:0.12", hooks={"auxiliary": {}})
    run = Run("runs/none", config)
    run.device = torch.device("cpu")
    build_network(run, 10, (3, 32, 32))
    rho = (1_398_106 + 476_426) / (3_349_342 + 476_426)
    decays = weight_decays(run.model, config)
    assert sorted(set(decays.values())) == pytest.approx([3e-4 * rho, 3e-4])
    assert sum(p.numel() for p, decay in decays.items() if decay < 3e-4) == 1_199_340  # of the study


def test_images_too_small_for_the_head_are_refused(tiny):
    with pytest.raises(UsageError, match=r"auxiliary: the head does not fit images of shape \(1, 8, 8\)"):
        fit(Run.create(tiny(model="darts", model_args=SMALL, hooks={"auxiliary": {}})))


def test_network_without_a_head_trains_plainly_and_says_so(tiny):
    run = fit(Run.create(tiny(epochs=1, hooks={"auxiliary": {}})))
    assert "mnist_mlp has no auxiliary head" in run.paths.metrics.read_text()
