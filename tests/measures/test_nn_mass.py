"""NN-Mass: closed forms against the published program, and networks weighed by their structure."""

import json
import math

import pytest
import torch
from conftest import GOLDENS
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from research.errors import UsageError
from research.measures.nn_mass import Block, Cell, mlp_topology, nn_density, nn_mass, parts, tc_for_mass
from research.models import create_model
from research.models.dry_run import WithoutInitialValues

GOLDEN = GOLDENS / "nn-mass"
MLPS = json.loads((GOLDEN / "mlp_topology.json").read_text())
IMAGENET = json.loads((GOLDEN / "imagenet_models.json").read_text())
SIZES = st.integers(1, 20), st.integers(3, 20), st.integers(0, 300)


def uninitialised(name: str, **args) -> nn.Module:
    with torch.device("meta"), WithoutInitialValues():
        return create_model(name, **args)


@pytest.mark.parametrize("row", MLPS, ids=lambda r: f"{r['width']}-{r['depth']}-{r['tc']}")
def test_mlp_topology_is_that_of_the_published_program(row):
    found = mlp_topology(row["width"], row["depth"], row["tc"], row["input_dims"], row["num_classes"])
    assert found.links == tuple(row["layer_tc"]) and found.candidates == tuple(row["all_path_num"])
    assert found.nn_mass == pytest.approx(row["nn_mass"], rel=1e-12)
    assert found.nn_density == pytest.approx(row["density"], rel=1e-12)
    assert found.shapes == tuple(map(tuple, row["layer_shapes"]))
    assert (found.params, found.flops, found.macs) == (row["params"], row["flops"], row["macs"])


@given(*SIZES)
def test_density_is_a_share_and_mass_grows_with_tc(width, depth, tc):
    cell, wider = Cell(width, depth, tc), Cell(width, depth, tc + 1)
    assert 0 <= cell.density <= 1
    assert cell.mass <= wider.mass and (cell.mass < wider.mass) == (tc < width * (depth - 2))
    assert Cell(width, depth, width * (depth - 2)).mass == width * depth
    assert Cell(width, depth, 0).mass == 0


@given(*SIZES)
def test_tc_for_mass_inverts_the_mass(width, depth, tc):
    assert tc_for_mass(Cell(width, depth, tc).mass, width, depth) == min(tc, width * (depth - 2))


@given(st.floats(0, 1), st.integers(3, 20))
def test_tc_for_mass_is_the_nearest_cap_and_shares_density(fraction, depth):
    widths = [32, 64, 128]
    mass = fraction * depth * sum(widths)
    for width, tc in zip(widths, tc_for_mass(mass, widths, depth), strict=True):
        errors = [abs(Cell(width, depth, t).mass - fraction * depth * width) for t in (max(0, tc - 1), tc, tc + 1)]
        assert errors[1] == min(errors)


@pytest.mark.parametrize(
    "wrong", [(0, 4, 2), (8, 2, 2), (8, 4, -1)], ids=["no neurons", "too shallow", "negative number of links"]
)
def test_impossible_cells_are_refused(wrong):
    with pytest.raises(UsageError, match="must be >="):
        Cell(*wrong)
    with pytest.raises(UsageError, match="must be >="):
        mlp_topology(*wrong)


@pytest.mark.parametrize("mass", [-1.0, 32.1, math.nan])
def test_unreachable_mass_is_refused(mass):
    with pytest.raises(UsageError, match="must be >= 0 and <= 32"):
        tc_for_mass(mass, 8, 4)


@given(st.integers(1, 512), st.integers(1, 512))
def test_block_masses_are_the_published_closed_forms(a, q):
    assert Block((a, q)).mass == a + q
    assert Block((a, q, q)).mass == pytest.approx(a * (a + 2 * q) / (2 * a + q), rel=1e-12)
    assert Block((a, 6 * a, 6 * a)).mass == pytest.approx(13 * a / 8, rel=1e-12)
    assert Block((a, q, q), shortcut=False).mass == 0


@pytest.mark.parametrize("row", IMAGENET, ids=lambda r: f"{r['arch']} {r['kwargs']}")
def test_imagenet_networks_weigh_what_the_published_ones_do(row):
    args = {k: v for k, v in row["kwargs"].items() if k not in ("wm", "width_per_group", "num_classes")}
    if "inverted_residual_setting" in args:
        assert args.pop("inverted_residual_setting") and args == {"width_mult": 1.1}
        args["layout"] = "compressed"
    if "width_per_group" in row["kwargs"]:
        model = uninitialised(f"torchvision:{row['arch']}", **row["kwargs"])
    else:
        model = uninitialised(row["arch"], num_classes=row["kwargs"].get("num_classes", 1000), **args)
        assert (model.nn_mass, model.nn_density) == (nn_mass(model), nn_density(model))
    assert nn_mass(model) == pytest.approx(row["nn_mass"], rel=1e-12)
    assert sum(p.numel() for p in model.parameters()) == row["params"]
    # of MobileNetV2 a list of blocks, stem and head included; of ResNets one list a stage
    blocks = [mass for stage in row["per_block"] for mass in (stage if isinstance(stage, list) else [stage])]
    found = [part.mass for part in parts(model).values()]
    assert [mass for mass in found if mass] == pytest.approx([mass for mass in blocks if mass], rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mobilenet_v2", "timm:mobilenetv2_100"),
        ("mobilenetv2", "torchvision:mobilenet_v2"),
        ("resnet50", "timm:resnet50d"),
        ("resnext50_32x4d", "timm:resnext50_32x4d"),
        ("wide_resnet50_2", "timm:wide_resnet50_2"),
        ("seresnet18", "torchvision:resnet18"),
    ],
)
def test_libraries_networks_are_weighed_as_they_come(ours, theirs):
    assert uninitialised(ours).nn_mass == nn_mass(uninitialised(theirs)) > 0


def test_mass_leaves_torchvision_weights_loadable():
    ours, theirs = (uninitialised(n).state_dict() for n in ("mobilenet_v2", "torchvision:mobilenet_v2"))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_small_residual_networks_have_mass_and_networks_without_shortcuts_none():
    assert nn_mass(create_model("resnet8")) == sum(a + p for a, p in [(16, 16), (16, 32), (32, 64)])
    plain = uninitialised("mobilenet_v1")
    assert nn_mass(plain) == plain.nn_mass == nn_density(plain) == 0


@pytest.mark.parametrize(
    "name", ["cifar_vgg11", "torchvision:densenet121", "torchvision:mobilenet_v3_large", "timm:efficientnet_b0"]
)
def test_networks_without_a_defined_mass_are_refused(name):
    with pytest.raises(UsageError, match="NN-Mass of .* is not defined"):
        nn_mass(uninitialised(name))


def test_custom_layout_is_honoured():
    model = uninitialised("mobilenet_v2", layout=[[1, 16, 1, 1], [6, 24, 3, 2]])
    assert nn_mass(model) == pytest.approx(2 * 13 * 24 / 8)
