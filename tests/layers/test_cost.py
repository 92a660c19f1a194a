"""What networks cost: the published counts, two ways of counting, and what may not be overlooked."""

import json
from functools import cache

import pytest
import torch
from conftest import GOLDENS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from research.cli import main
from research.errors import UsageError
from research.layers.masked import sparse_layers
from research.layers.selection import layout
from research.layers.spec import parse_spec
from research.layers.substitute import substitute
from research.layers.tied import balanced_index, bank_size, tie
from research.measures.cost import count
from research.models import create_model, known_for

GOLDEN = GOLDENS / "cheap-convs"
NAMES = {"WRN-50-2": "wide_resnet50_2", "ResNet-50": "resnet50", "MobileNetV2": "mobilenet_v2"}
AS_LOGGED = frozenset({"acdc"})


def items(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())["items"]


@cache
def network(name):
    """A network without storage for its weights: counting and planning need shapes alone."""
    with torch.device("meta"):
        model = create_model(NAMES.get(name, name.lower().removesuffix("+aux")))
    if name in ("WRN-50-2", "ResNet-50"):
        model.avgpool = nn.AvgPool2d(7)  # the published one, which counts; torchvision's adaptive one does not
    if name == "DARTS+aux":
        model.add_auxiliary_head()
    return model


@cache
def plan(name, shape, legacy):
    return layout(network(name), parse_spec("sep"), shape, legacy)


def predicted(name, conv, shape, legacy=frozenset()):
    """Parameters and multiply-adds of a substituted network from closed forms."""
    spec = parse_spec(conv)
    if spec is None:
        cost = count(network(name), shape, legacy)
        return cost.params, cost.mult_adds
    sizes = plan(name, shape, legacy)
    return sizes.params(spec), sizes.mult_adds(spec, legacy)


@pytest.mark.parametrize("row", items("network_counts"), ids=lambda row: f"{row['network']} {row['conv']}")
def test_networks_have_the_published_counts(row):
    name, shape = row["network"], (3, row["input_hw"], row["input_hw"])
    if name == "DARTS+aux":
        assert sum(p.numel() for p in network(name).parameters()) == row["params"]
        return
    params, mult_adds = predicted(name, row["conv"], shape, AS_LOGGED)
    if (name, row["conv"]) == ("MobileNetV2", "Conv"):
        mult_adds -= 1000  # torchvision's classifier is linear, whose biases count; the published one convolves
    assert params == row["params"]
    assert mult_adds == pytest.approx(row["mult_adds"], rel=1e-9)


@pytest.mark.parametrize("row", [r for r in items("historical_counts") if r["commit"] == "fae4a05"], ids=str)
def test_the_counts_of_november_2018_come_out_again(row):
    assert predicted("WRN-28-10", row["args"][2], (3, 32, 32), frozenset({"dilation", "conv3d"})) == (
        row["params"],
        row["mult_adds"],
    )


def test_the_logs_other_hashed_sizes_come_out_again():
    """The first count, with k^2 taken for k, and both factors hashed."""
    assert predicted("WRN-28-10", f"hashed:{1 / 30}", (3, 32, 32)) == (1_498_842, 5_245_638_922)
    assert predicted("WRN-28-10", "fullysephashed:0.1", (3, 32, 32)) == (710_327, 629_696_778)


def test_old_ways_of_counting_are_kept():
    assert count(network("DARTS"), (3, 32, 32)).mult_adds == 537_399_946
    assert count(network("DARTS"), (3, 32, 32), {"dilation"}).mult_adds == 538_200_874
    dense, output, own = (predicted("WRN-28-10", "ACDC", (3, 32, 32), legacy)[1] for legacy in (
        frozenset({"acdc-min"}), frozenset({"acdc"}), frozenset()
    ))  # fmt: skip
    assert dense == pytest.approx(799_261_613.7)
    assert own < output == pytest.approx(1_338_791_912.79)
    with pytest.raises(UsageError, match="did you mean 'dilation'"):
        count(network("WRN-16-1"), (3, 32, 32), {"dilatoin"})


@pytest.mark.parametrize("row", items("torchvision_counts"), ids=lambda row: row["network"])
def test_torchvision_networks_have_the_counts_of_the_published_counter(row):
    cost = count(network(row["network"].replace(".", ":")), (3, 224, 224))
    assert (cost.params, cost.mult_adds) == (row["params"], row["mult_adds"])


@pytest.mark.parametrize("row", items("kept_params"), ids=lambda row: row["network"])
def test_the_layers_that_stay_are_the_published_ones(row):
    found = layout(network(row["network"]), parse_spec("sep"))
    assert (found.rest, len(found.replaced)) == (row["kept_params"], row["n_substituted"])


def test_table_rows_add_up_and_print_as_in_the_log():
    cost = count(network("WRN-28-10"), (3, 32, 32))
    assert sum(row.params for row in cost.rows) == cost.params == cost.numel == 36_479_194
    assert str(cost) == "Mult-Adds: 5.24564E+09\nParams: 3.64792E+07\nSanity check, parameters: 3.64792E+07"


@pytest.mark.parametrize("spec", ["", "sep", "generic:0.3", "shuffle:4", "hashed:0.2", "bottleneck:2"])
def test_two_independent_counts_agree(spec):
    """torch's own counter sees the operations themselves: two flops for each multiply-add of convolution or matmul."""
    model = create_model("wrn-10-1").eval()
    substitute(model, spec)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    cost = count(model, (3, 32, 32))
    elementwise = sum(row.mult_adds for row in cost.rows if row.kind == "ReLU")
    assert cost.mult_adds - elementwise - model.fc.out_features == flops.get_total_flops() / 2


@pytest.mark.parametrize(
    "name, args",
    [("mnist_mlp", {}), ("resnet20", {}), ("cifar_vgg11", {}), ("mobilenet_v1", {}), ("seresnet18", {}),
     ("timm:resnet10t", {}), ("torchvision:squeezenet1_0", {})],
)  # fmt: skip
def test_any_network_is_counted(name, args):
    model = create_model(name, **args)
    classes, shape = known_for(name)
    cost = count(model, shape)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert cost.mult_adds > cost.params * 0.9


def test_parameters_without_a_rule_are_not_overlooked():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.gamma = nn.Parameter(torch.ones(7))

        def forward(self, x):
            return self.conv(x)

    with pytest.raises(UsageError, match=r"Scaled \(7\)"):
        count(Scaled(), (3, 8, 8))
    cost = count(Scaled(), (3, 8, 8), allow_ignored=True)
    assert (cost.ignored, cost.params, cost.numel) == ({"Scaled": 7}, 112, 119)


def test_a_rule_that_miscounts_is_caught():
    linear = nn.Linear(4, 4)
    linear.out_features = 5
    with pytest.raises(UsageError, match="counted 25 parameters by rule, but the network has 20"):
        count(linear, (4,))


def test_shared_layers_cost_at_every_use_but_own_their_parameters_once():
    conv, relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
    cost = count(nn.Sequential(conv, relu, conv, relu), (3, 8, 8))
    assert cost.params == 84
    assert cost.mult_adds == 2 * (81 * 64 + 3 * 64)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert count(tied, (4,)).params == 24


def test_nonzeros_come_from_masks_or_from_zeros():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
    nn.init.zeros_(model[0].bias)  # a bias of zero is no pruned weight
    with torch.no_grad():
        model[2].weight[:, ::2] = 0
    assert count(model, (3, 8, 8)).nonzeros == 112 + 720 + 10
    model[0].register_buffer("weight_mask", torch.zeros(4, 3, 3, 3, dtype=torch.bool))
    model[0].weight_mask[0] = True
    cost = count(model, (3, 8, 8))
    assert [row.nonzeros for row in cost.rows] == [27 + 4, 720 + 10]
    assert cost.params == 112 + 1450


def test_counting_leaves_the_network_as_it_was():
    model = create_model("wrn-10-1")
    model.group1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    count(model, (3, 32, 32))
    assert all(before[name].equal(value) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_hooks for module in model.modules())


def test_the_command_prints_the_logs_lines_and_a_table(capsys):
    assert main(["count", "model=wrn-10-1", "substitute=Hashed_0.1"]) == 0
    out = capsys.readouterr().out
    assert "group1.0.conv1     Hashed       16  16   3x3     16x32x32  246     246       2,359,296" in out
    assert "Params: 7.78500E+04" in out and "Params: 1.17160E+04\nSanity check, parameters: 1.17160E+04" in out
    assert "77,850 -> 11,716 parameters (x 0.150495)" in out
    assert main(["count", "model=wrn-10-1", "--input", "3by32"]) == 2
    assert main(["count", "model=resnet8", "dataset=digits", "--total"]) == 0


def test_tied_weights_count_as_the_values_they_share():
    model = create_model("mnist_mlp")
    dense = count(model, (1, 28, 28))
    for name, layer in sparse_layers(model).items():
        units = layer.weight.numel()
        tie(layer.owner, balanced_index(units, bank_size(units, 0.98), torch.Generator().manual_seed(len(name))))
    tied = count(model, (1, 28, 28))
    assert (tied.params, tied.mult_adds) == (6144, dense.mult_adds)
    assert tied.params == tied.numel
