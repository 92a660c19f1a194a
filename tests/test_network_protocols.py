"""Networks say of themselves what the protocols name, and are asked by no other way."""

import ast

import pytest
import torch
from conftest import REPOSITORY

from research import network_protocols
from research.layers.substitute import substitute
from research.models import create_model

PROTOCOLS = {
    name: protocol
    for name, protocol in vars(network_protocols).items()
    if getattr(protocol, "_is_protocol", False) and name != "Protocol"
}
MEMBERS = {
    "kept_layers", "replaced_linear", "decay_scale", "attention_taps", "auxiliary_head", "auxiliary_logits",
    "add_auxiliary_head", "cells", "nn_mass", "nn_density", "states",
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet8", set()),
        ("wrn-10-1", {"KeepsLayers"}),
        ("mobilenet_v1", {"HasCells"}),
        ("mobilenet_v2", {"ReplacesLinear"}),
        ("darts", {"KeepsLayers", "NamesTaps", "TakesAuxiliaryHead"}),
        ("dense_mlp", {"HasCells", "WithStates"}),
        ("dense_depth", {"HasCells"}),
    ],
)
def test_a_network_says_what_it_has_to(model, said):
    args = {"C": 4, "layers": 6} if model == "darts" else {}
    network = create_model(model, **args)
    assert {name for name, protocol in PROTOCOLS.items() if isinstance(network, protocol)} == said


def test_a_network_still_takes_an_auxiliary_head_once_it_has_one():
    network = create_model("darts", C=4, layers=6)
    network.add_auxiliary_head()
    assert isinstance(network, network_protocols.TakesAuxiliaryHead)
    network(torch.randn(2, 3, 32, 32))
    assert network.auxiliary_logits.shape == (2, 10)


def test_substituted_layers_scale_their_decay():
    network = create_model("wrn-10-1")
    report = substitute(network, "hashed:0.1")
    scaled = {n for n, layer in network.named_modules() if isinstance(layer, network_protocols.ScalesDecay)}
    assert scaled == set(report.replaced)


def test_members_are_not_asked_for_by_name():
    """``getattr(model, "cells", ...)`` would be a question that no protocol documents."""
    asked = []
    for path in (REPOSITORY / "research").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
                name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
                asked += [f"{path.name}:{node.lineno}"] * (name in MEMBERS)
    assert asked == []
