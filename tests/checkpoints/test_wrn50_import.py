"""The published functional WRN-50-2, with folded batch norms, becomes torchvision's network of the same function."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDENS
from torch import nn
from torch.nn import functional as F

from research import cli
from research.checkpoints import weights
from research.checkpoints.functional_wrn import is_functional_wrn, to_torchvision
from research.errors import UsageError
from research.models import create_model
from research.runs.stored import find_stored

GOLDEN = GOLDENS / "cheap-convs" / "wrn50_import.json"
BLOCKS = (3, 4, 6, 3)


def folded(width: float = 1.0, classes: int = 1000) -> dict[str, torch.Tensor]:
    """Random weights of the functional network, whose inner channels may be fewer; branches add a little each."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}

    def layer(name: str, *shape: int) -> None:
        std = (2 / np.prod(shape[1:])) ** 0.5 * (0.3 if name.endswith("conv2") else 1)
        tensors[f"{name}.weight"] = std * torch.randn(shape, generator=generator)
        tensors[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)

    layer("conv0", 64, 3, 7, 7)
    before = 64
    for group, blocks in enumerate(BLOCKS):
        inner, out = int(128 * 2**group * width), 256 * 2**group
        for block in range(blocks):
            name = f"group{group}.block{block}"
            layer(f"{name}.conv0", inner, before, 1, 1)
            layer(f"{name}.conv1", inner, inner, 3, 3)
            layer(f"{name}.conv2", out, inner, 1, 1)
            if block == 0:
                layer(f"{name}.conv_dim", out, before, 1, 1)
            before = out
    layer("fc", classes, before)
    return tensors


def functional(x: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
    """The published network: every convolution has its bias, and there is no batch norm."""

    def conv(x, name, stride=1, padding=0):
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], stride, padding)

    x = F.max_pool2d(F.relu(conv(x, "conv0", 2, 3)), 3, 2, 1)
    for group, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            name, stride = f"group{group}.block{block}", 2 if group and not block else 1
            y = F.relu(conv(x, f"{name}.conv0"))
            y = F.relu(conv(y, f"{name}.conv1", stride, 1))
            y = conv(y, f"{name}.conv2")
            x = F.relu(y + (x if block else conv(x, f"{name}.conv_dim", stride)))
    return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


def narrow() -> nn.Module:
    """WRN-50-2 with an eighth of its inner channels, so that a test can run it."""
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, BLOCKS, width_per_group=16)


def test_network_and_functional_give_the_same_logits():
    network, tensors = narrow(), folded(width=1 / 8)
    network.load_state_dict(to_torchvision(tensors), strict=False)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = functional(x, tensors)
    found = network.eval()(x)
    assert 1 < expected.abs().max() < 100
    assert (found - expected).abs().max() < 1e-4


def test_names_pair_up_as_in_the_study():
    with torch.device("meta"):
        tensors = {name: torch.empty(1) for name in folded_names()}
    assert len(tensors) == 108
    pairs = json.loads(GOLDEN.read_text())["pairs"]
    for functional_name, study in pairs:
        ours = study.replace(".conv.weight", ".weight")
        ours = ours.replace("downsample.conv", "downsample.0").replace("downsample.bn", "downsample.1")
        assert ours in to_torchvision({functional_name: tensors[functional_name]})


def folded_names() -> list[str]:
    convs = [f"conv{i}" for i in range(3)]
    blocks = [(g, b) for g, count in enumerate(BLOCKS) for b in range(count)]
    layers = [f"group{g}.block{b}.{conv}" for g, b in blocks for conv in convs + ["conv_dim"] * (b == 0)]
    return [f"{layer}.{kind}" for layer in ["conv0", *layers, "fc"] for kind in ("weight", "bias")]


def test_published_file_is_known_by_itself_and_fits_every_weight(tmp_path):
    path = tmp_path / "wide-resnet-50-2-export.pth"
    torch.save(folded(), path)
    read = weights.read(path)
    assert read.network == "wide_resnet50_2"
    found = find_stored(path, {"dataset": "imagenet"})
    assert found.config.model == "wide_resnet50_2"
    network = create_model("wide_resnet50_2")
    weights.load_into(network, found.tensors, path)
    bn = network.layer4[2].bn3
    assert torch.all(bn.weight == 1) and torch.all((bn.running_var + bn.eps).sqrt() == 1)


def test_other_files_are_not_taken_for_it(tmp_path):
    tensors = {name: torch.zeros(1) for name in folded_names()}
    assert is_functional_wrn(tensors)
    assert not is_functional_wrn(tensors | {"bn.weight": torch.zeros(1)})
    assert not is_functional_wrn({"conv0.weight": torch.zeros(1)})
    torch.save(tensors | {"group0.block0.conv0.weight": torch.zeros(7)}, tmp_path / "damaged.pth")
    with pytest.raises(UsageError, match="of another shape"):
        weights.load_into(create_model("wide_resnet50_2"), weights.read(tmp_path / "damaged.pth").tensors, "damaged")


@pytest.mark.slow
def test_evaluate_reads_the_published_file(tmp_path, capsys):
    from PIL import Image

    numbers = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = numbers.integers(0, 256, (80, 80, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    torch.save(folded(classes=2), tmp_path / "wrn.pth")
    words = [
        "dataset=imagefolder",
        f"data_root={tmp_path / 'data'}",
        "data_args.image_size=64",
        "batch_size=2",
        "device=cpu",
    ]
    assert cli.main(["evaluate", str(tmp_path / "wrn.pth"), *words]) == 0
    assert "wrn.pth" in capsys.readouterr().out
