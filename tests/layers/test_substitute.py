"""Convolutions replaced in place: which ones, how they are asked for, their weight decay, and budgets."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from conftest import GOLDENS, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from research.cli import main
from research.config import Config
from research.errors import UsageError
from research.layers.base import Geometry, Substitute
from research.layers.families import LAYERS
from research.layers.selection import layout
from research.layers.spec import log_names, parse_spec
from research.layers.substitute import OnVectors, fit_budget, substitute
from research.measures.cost import count
from research.models import create_model
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit
from research.training.preflight import preflight
from research.training.prepare import weight_decays

GOLDEN = GOLDENS / "cheap-convs"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@cache
def network(name):
    """A network without storage for its weights."""
    with torch.device("meta"):
        return create_model(name.lower())


def items(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())["items"]


def numel(model):
    return sum(p.numel() for p in model.parameters())


# -- what a user types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, same",
    [
        ("Hashed_0.1", "hashed:0.1"),
        ("HashedDecimate", "hashed:fraction=0.1"),
        ("SepHashedDecimate", "sephashed:0.1,of=dense"),
        ("ACDC", "acdc:12"),
        ("TensorTrain_0.25", "tt:rank=0.25"),
        ("Shuffle_4", "shuffle:4"),
        ("G8B2", "bottleneck:2,channels=8"),
        ("DConvA4", "dconv:0,groups=4"),
        ("generic:0.5,init=reference,decay=plain", "generic:rank=0.5,decay=plain,init=reference"),
    ],
)
def test_names_of_the_log_and_specs_mean_the_same(text, same):
    assert parse_spec(text) == parse_spec(same)


@pytest.mark.parametrize("text", ["Sep", "hashed:0.1", "shuffle:budget=5000", "lr:0.3,keep=a|b.*,from_dense=true",
                                  "tucker:mult_adds=1e6,allow_miss=true", *map(str, LAYERS)])  # fmt: skip
def test_a_spec_survives_being_written(text):
    assert parse_spec(str(parse_spec(text))) == parse_spec(text)


def test_every_log_name_is_a_spec():
    for name in log_names():
        number = "2" if "B" in name or name.startswith(("DConv", "Shuffle", "ACDC", "OriginalACDC")) else "0.5"
        assert parse_spec(name.replace("x", number).replace("y", "4").replace(f"Conv2{number}2", "Conv2x2"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("hashd:0.1", "did you mean 'hashed'"),
        ("TensorTrai_0.1", "did you mean 'TensorTrain_x'"),
        ("nothing", "known: "),
        ("hashed:2", "fraction='2': must be <= 1 and > 0"),
        ("hashed:many", "expected float"),
        ("hashed:fractoin=0.1", "did you mean 'fraction'"),
        ("shuffle:2.5", "expected int"),
        ("acdc:1", "must be >= 2"),
        ("hashed:0.1,init=refrence", "did you mean 'reference'"),
        ("sep:3", "'3': expected argument=value"),
        ("hashed:0.1,budget=600", "a budget sets fraction"),
        ("hashed:budget=600,mult_adds=600", "not both"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(text, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as refused:
        parse_spec(text)
    assert str(refused.value).startswith(f"substitute={text!r}: ")
    assert "\n" not in str(refused.value)


def test_config_checks_the_spec_and_gives_it_one_name():
    assert Config.load({"substitute": "Hashed_0.1"}).substitute == "hashed:0.1"
    assert Config.load({"substitute": "Hashed_0.1"}).identity == Config.load({"substitute": "hashed:0.1"}).identity
    assert Config.load({"substitute": "Conv"}) == Config()
    assert "hashed-0.1" in Config.load({"substitute": "hashed:0.1"}).run_name
    with pytest.raises(UsageError, match="did you mean 'hashed'") as refused:
        Config.load({"substitute": "hashd", "epochs": 0})
    assert len(str(refused.value).splitlines()) == 2


def test_launch_refuses_a_substitute_that_does_not_fit_the_network(tiny):
    with pytest.raises(UsageError, match="replaces nothing"):
        preflight(tiny(substitute="hashed:0.1"))
    with pytest.raises(UsageError, match="reaches .* on this network"):
        preflight(tiny(model="resnet8", substitute="hashed:budget=100", model_args={}))


# -- surgery ------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 16, 3, stride=2, padding=2, dilation=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.same = nn.Conv2d(16, 16, 3, padding="same")
        self.b = nn.Conv2d(16, 16, 1, bias=False)
        self.again = self.b
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.same(self.grouped(self.depthwise(self.a(self.stem(x)))))
        return self.fc(self.again(self.b(x)).mean((2, 3)))


def test_what_is_replaced_by_default():
    report = substitute(Small(), "sep")
    assert report.replaced == ("a", "b")
    assert {name: reason.split(",")[0] for name, reason in report.kept.items()} == {
        "stem": "first convolution",
        "depthwise": "depthwise",
        "grouped": "needs groups=1",
        "same": "Conv2d with padding='same'",
        "fc": "linear",
    }
    assert substitute(Small(), "hashed").replaced == ("a", "grouped", "b")


@pytest.mark.parametrize("family", ["sep", "hashed", "sephashed", "generic", "shuffle", "tt", "bottleneck"])
def test_shapes_sharing_and_training_mode_stay(family):
    model = Small().double().eval()
    shapes = {}
    for name in ("a", "b"):
        model.get_submodule(name).register_forward_hook(lambda m, x, y, name=name: shapes.__setitem__(name, y.shape))
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    model(x)
    before = dict(shapes)
    substitute(model, family)
    assert model.again is model.b and isinstance(model.b, Substitute) and not model.b.training
    for name in ("a", "b"):
        model.get_submodule(name).register_forward_hook(lambda m, x, y, name=name: shapes.__setitem__(name, y.shape))
    shapes.clear()
    assert model(x).shape == (2, 5)
    assert shapes == before
    assert model.a.geometry == Geometry(8, 16, (3, 3), (2, 2), (2, 2), (2, 2), 1, True)


def test_only_and_keep_name_layers():
    assert substitute(Small(), "sep:only=stem|b").replaced == ("stem", "b")
    assert substitute(Small(), "hashed:keep=gr*").replaced == ("a", "b")
    assert substitute(create_model("resnet8"), "sep:only=layer2").replaced == ("layer2.0.conv1", "layer2.0.conv2")
    model = create_model("wrn-10-1")
    assert substitute(model, "sep:only=group3").replaced == ("group3.0.conv1", "group3.0.conv2")  # no shortcut
    assert substitute(model, "sep:only=group3.0.shortcut").replaced == ("group3.0.shortcut",)
    with pytest.raises(UsageError, match="no layer is named 'bb'"):
        substitute(Small(), "sep:only=bb")
    with pytest.raises(UsageError, match="layer 'grouped' cannot be replaced: needs groups=1"):
        substitute(Small(), "sep:only=grouped")


def test_a_linear_layer_is_replaced_as_a_pointwise_convolution():
    model = nn.Sequential(nn.Linear(8, 16))
    dense, x = model[0], torch.randn(3, 5, 8)
    substitute(model, "sep:only=0,from_dense=true")
    assert isinstance(model[0], OnVectors)
    torch.testing.assert_close(model(x), dense(x))
    assert count(model, (5, 8)).mult_adds == 5 * 8 * 16


def test_from_dense_starts_at_the_trained_network():
    """With every weight a bucket of its own in expectation nothing is lost but collisions; rank 1 kernels lose none."""
    model = Small()
    with torch.no_grad():
        model.a.weight.copy_(model.a.weight[:, :, :1, :1] * torch.randn(1, 8, 3, 3))
    x = torch.randn(2, 3, 9, 9)
    before = model(x)
    substitute(model, "sep:from_dense=true")
    torch.testing.assert_close(model(x), before)


def test_a_substituted_network_can_be_substituted_again():
    model = create_model("wrn-10-1")
    first = substitute(model, "sep")
    assert substitute(model, "hashed:0.1").replaced == first.replaced
    assert numel(model) == 11_716


def test_nothing_is_drawn_or_changed_without_a_spec():
    model, state = create_model("resnet8"), torch.get_rng_state()
    before = [p.clone() for p in model.parameters()]
    assert substitute(model, "") is None and substitute(model, "Conv") is None
    assert all(a.equal(b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("name, replaced", [("wrn-16-2", 12), ("resnet18", 19), ("resnet50", 52), ("mobilenet_v2", 35)])
def test_networks_keep_what_they_keep_in_the_log(name, replaced):
    assert len(layout(network(name), parse_spec("sep")).replaced) == replaced


@pytest.mark.parametrize("family", LAYERS)
def test_every_family_trains_a_network_two_steps(family):
    model = create_model("wrn-10-1")
    substitute(model, family)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.02), []
    x, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_run_trains_evaluates_and_repeats_with_its_substitute(tiny):
    given = {"model": "resnet8", "model_args": {}, "substitute": "sephashed:0.3", "epochs": 1, "batch_size": 256}
    weights = []
    for name in ("one", "two"):
        run = Run.create(tiny(**given, name=name))
        fit(run)
        weights.append(run.model.state_dict())
    assert weights[0]["layer1.0.conv1.hashed.indices"].equal(weights[1]["layer1.0.conv1.hashed.indices"])
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
    assert run.substitution.after == numel(run.model)
    assert evaluate_weights([run.dir])[0]["images"] == 359


# -- weight decay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", items("weight_decay_groups"), ids=lambda row: f"{row['network']} {row['conv']}")
def test_compressed_parameters_are_those_of_the_published_decay_group(row):
    model = create_model(row["network"].lower())
    report = substitute(model, row["conv"])
    assert report.rho == pytest.approx(row["compression_ratio_first_call"], rel=1e-12)
    decays = weight_decays(model, Config(weight_decay=5e-4))
    scaled = sum(p.numel() for p, decay in decays.items() if decay == pytest.approx(5e-4 * report.rho, rel=1e-9))
    assert numel(model) == row["params"]
    if report.rho != 1:
        assert (scaled, numel(model) - scaled) == (row["lowrank_numel"], row["other_numel"])
    assert set(decays.values()) <= {5e-4, 5e-4 * report.rho}


def test_plain_decay_is_one_decay():
    model = create_model("wrn-10-1")
    substitute(model, "hashed:0.1,decay=plain")
    assert set(weight_decays(model, Config()).values()) == {5e-4}


def test_hashed_weights_decay_where_biases_do_not():
    model = create_model("wrn-10-1")
    report = substitute(model, "sephashed:0.1")
    decays = weight_decays(model, Config(decay_norm_and_bias=False))
    layer = model.group1[0].conv1
    assert decays[layer.hashed.weight] == pytest.approx(5e-4 * report.rho)
    assert decays[layer.bias] == decays[model.bn.weight] == 0
    assert decays[layer.depthwise.weight] == 5e-4


# -- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", items("budget_search"), ids=lambda r: f"{r['network']} {r['type']} {r['budget']:g}")
def test_budgets_are_met_at_least_as_well_as_by_the_published_search(row):
    family = {"TensorTrain": "tt"}.get(row["type"], row["type"].lower())
    model, target = network(row["network"]), row["budget"]
    closest = fit_budget(model, family, params=target, allow_miss=True)
    assert abs(closest.reached - target) <= min(abs(row["bisect_params"] - target), abs(row["ref_params"] - target))
    if abs(closest.error) > 0.005:
        with pytest.raises(UsageError, match="nearest"):
            fit_budget(model, family, params=target)
    elif closest.reached < _size(model, "sep"):  # larger ones are not offered unasked
        assert fit_budget(model, family, params=target).reached == closest.reached


def _size(model, spec):
    return layout(model, parse_spec(spec)).params(parse_spec(spec))


def test_a_budget_in_a_spec_is_what_is_built():
    model = create_model("wrn-16-1")
    report = substitute(model, "sephashed:budget=15000")
    assert numel(model) == report.after == report.budget.reached
    assert abs(numel(model) / 15_000 - 1) < 0.005
    assert parse_spec(str(report.spec)) == report.spec
    assert report.spec.arguments["fraction"] == report.budget.value


def test_a_budget_of_mult_adds():
    model = create_model("wrn-10-2")
    found = fit_budget(lambda: model, "generic", mult_adds=4e6, input_shape=(3, 32, 32), tolerance=0.02)
    substitute(model, found.spec)
    assert count(model, (3, 32, 32)).mult_adds == found.reached == pytest.approx(4e6, rel=0.02)


@pytest.mark.parametrize(
    "family, given, message",
    [
        ("hashed", {"params": 1000}, "reaches 5,030 to 175,514 on this network"),
        ("generic", {"params": 10**6}, "nearest"),
        ("sep", {"params": 10**5}, "has one size"),
        ("hashed", {"params": 10**5, "mult_adds": 1e6}, "one of them"),
        ("hashed", {}, "one of them"),
        ("hashed", {"mult_adds": 1e6}, "needs input_shape"),
    ],
)
def test_impossible_budgets_say_what_is_possible(family, given, message):
    with pytest.raises(UsageError, match=message):
        fit_budget(network("wrn-16-1"), family, **given)


def test_nothing_larger_than_dense_pointwise_is_offered_unasked():
    """Rank 0.7 of a square matrix has more parameters than the matrix."""
    with pytest.raises(UsageError, match="288,362"):
        fit_budget(network("wrn-40-2"), "generic", params=400_000)


@given(
    family=st.sampled_from([name for name, layer in LAYERS.items() if layer.settings]),
    share=st.floats(0, 1),
)
@settings(max_examples=60)
def test_a_found_budget_is_no_further_than_its_neighbours(family, share):
    plan, spec = layout(network("wrn-16-2"), parse_spec(family)), parse_spec(family)
    ends = [plan.params(spec.at(value)) for value in spec.layer.settings]
    target = min(ends) + share * (max(ends) - min(ends))
    found = fit_budget(network("wrn-16-2"), family, params=target, allow_miss=True)
    step = 1 if isinstance(found.value, int) else 0.003
    for value in (found.value - step, found.value + step):
        if min(spec.layer.settings) <= value <= max(spec.layer.settings):
            assert abs(plan.params(spec.at(value)) - target) >= abs(found.reached - target)


# -- whole networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file, conv", [("WRN_10_1_HashedDecimate", "HashedDecimate"), ("WRN_10_2_Shuffle_4", "Shuffle_4")]
)
def test_whole_substituted_networks_equal_the_published_ones(file, conv):
    path = SHARED / "golden" / "cheap-convs" / f"net_{file}.npz"
    if not path.exists():
        pytest.skip("the published networks' tensors are not here")
    golden = np.load(path)
    *name, conv = file.split("_", 3)
    model = create_model("-".join(name).lower())
    substitute(model, conv)
    model.load_state_dict({_ours(name[4:]): torch.tensor(golden[name]) for name in golden.files if name[:4] == "sd__"})
    x, close = torch.tensor(golden["x"]), {"rtol": 1e-4, "atol": 1e-5}
    logits = model(x)
    nn.functional.cross_entropy(logits, torch.tensor(golden["labels"])).backward()
    np.testing.assert_allclose(logits.detach(), golden["logits_train"], **close)
    norms = {_ours(name): norm for name, norm in json.loads(str(golden["grad_norms"])).items()}
    assert {n: float(p.grad.norm()) for n, p in model.named_parameters()} == pytest.approx(norms, rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(model.eval()(x).detach(), golden["logits_eval"], **close)


def _ours(name):
    """The published WRN's parameter names in ours."""
    pairs = {"block": "group", ".0.layer.": ".", "convShortcut": "shortcut", "hashed_weight": "hashed.weight",
             "idxs": "hashed.indices", "shuffle_gconv1": "contract", "shuffle_dwconv": "depthwise",
             "shuffle_gconv2": "expand"}  # fmt: skip
    for theirs, own in pairs.items():
        name = name.replace(theirs, own)
    return "bn" + name[3:] if name.startswith("bn1") else name


def test_the_command_lists_families_and_their_log_names(capsys):
    assert main(["substitutes", "hashed"]) == 0
    out = capsys.readouterr().out
    assert "fraction=0.1" in out and "in the log: Hashed_x = hashed:x" in out and "decay=scaled" in out
    assert main(["substitutes", "hashd"]) == 2
