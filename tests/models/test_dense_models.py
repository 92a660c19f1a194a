"""Networks with random long-range links: links, sizes and outputs as in the published program, and what they refuse."""

import hashlib
import json
import random

import numpy as np
import pytest
import torch
from dense_goldens import GOLDEN, STORED, mlp, renumbered, stored_mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from research.errors import UsageError
from research.models import check_model, create_model

MLPS = json.loads((GOLDEN / "mlp_topology.json").read_text())
CNNS = json.loads((GOLDEN / "cnn_topology.json").read_text())
FORWARD = json.loads((GOLDEN / "cnn_forward.json").read_text())


def links_of(module: nn.Module, depth: int) -> list[list[int]]:
    return [[], [], *(getattr(module, f"links_{layer}").tolist() for layer in range(2, depth))]


def sha256(links: list) -> str:
    return hashlib.sha256(json.dumps(links, separators=(",", ":")).encode()).hexdigest()


@pytest.mark.parametrize("row", MLPS, ids=lambda r: f"{r['width']}-{r['depth']}-{r['tc']}")
def test_mlp_links_and_sizes_are_those_of_the_published_program(row):
    model = mlp(row, link_seed=row["link_seed"])
    assert sha256(links_of(model, row["depth"])) == row["links_sha256"]
    assert sum(p.numel() for p in model.parameters()) == row["params"]
    assert model.nn_mass == pytest.approx(row["nn_mass"], rel=1e-12)
    assert model.nn_density == pytest.approx(row["density"], rel=1e-12)


@pytest.mark.parametrize("row", STORED, ids=lambda r: r["name"])
def test_mlp_logits_are_those_of_the_published_program(row):
    model, x = stored_mlp(row)
    with np.load(GOLDEN / "ldi_stored_models.npz") as arrays:
        expected = torch.from_numpy(arrays[f"{row['name']}/logits_f64"])
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-14)


def test_links_follow_the_seed_of_the_run_unless_they_have_their_own():
    def made(seed: int, **args) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return create_model("dense_mlp", 10, (4,), depth=8, **args).state_dict()

    first, again, other = made(0), made(0), made(1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["links_7"], other["links_7"])
    fixed, fixed_other = made(0, link_seed=5), made(1, link_seed=5)
    assert torch.equal(fixed["links_7"], fixed_other["links_7"])
    assert torch.equal(fixed["layers.7.weight"], first["layers.7.weight"])  # drawing links leaves weights as they are


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(3, 8), st.integers(0, 20), st.sampled_from(["elu", "relu"]), st.integers(0, 99))
def test_renaming_hidden_neurons_changes_nothing(width, depth, tc, act, seed):
    torch.manual_seed(seed)
    model = create_model("dense_mlp", 3, (5,), width=width, depth=depth, tc=tc, act=act).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    renamed = create_model("dense_mlp", 3, (5,), width=width, depth=depth, tc=tc, act=act).double()
    renamed.load_state_dict(renumbered(model.state_dict(), width, depth, random.Random(seed)))
    torch.testing.assert_close(renamed(x), model(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row", CNNS, ids=lambda r: f"{r['arch']}-{r['cell_depth']}-{r['wm']}-{r['num_cells']}")
def test_cnn_links_and_sizes_are_those_of_the_published_program(row):
    own = {name: row[name] for name in ("wm", "num_cells", "cell_depth", "tc")}
    model = create_model(row["arch"], row["num_classes"], (3, 32, 32), **own)
    assert sha256([links_of(stage, row["cell_depth"]) for stage in model.stages]) == row["links_sha256"]
    params = row["params"]
    if row["num_cells"] == 4:  # the published head is that of 3 cells, and cannot run
        w = row["width"]
        params += row["num_classes"] * (w[3] * 4 - w[2] * 16)
    assert sum(p.numel() for p in model.parameters()) == params
    assert model.nn_mass == pytest.approx(row["nn_mass"], rel=1e-12)
    assert model.cell_densities == pytest.approx(row["density"], rel=1e-12)
    assert model.nn_density == pytest.approx(np.mean(row["density"]), rel=1e-12)


def stored_cnn(row: dict, arrays, **args) -> nn.Module:
    own = {"cell_depth": row["cell_depth"], "wm": row["wm"], "tc": row["tc_array"], "num_cells": row["num_cells"]}
    model = create_model(row["arch"], row["num_classes"], (3, 32, 32), **own, **args)
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    separable = {"0.weight": "pw0", "3.weight": "dw", "6.weight": "pw2"}
    separable |= {f"{i}.{ours}": f"bn{k}.{n}" for k, i in enumerate((1, 4, 7)) for ours, n in norm.items()}
    state = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    for name in model.state_dict().keys() - state.keys():
        if name.startswith("fc."):
            key = name
        else:
            _, cell, kind, *rest = name.split(".", 3)
            layer = kind.removeprefix("links_") if kind.startswith("links_") else rest[0].split(".")[0]
            leaf = rest[0].partition(".")[2] if rest else ""
            theirs = "links" if not rest else f"bn.{norm[leaf]}" if kind == "norms" else separable.get(leaf, "conv")
            key = f"c{cell}.l{layer}.{theirs}"
        state[name] = torch.from_numpy(arrays[f"{row['name']}/{key}"])
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("row", FORWARD, ids=lambda r: r["arch"])
@pytest.mark.parametrize("compat", ["none", "reference"])
def test_cnn_logits_are_those_of_paper_and_published_program(row, compat):
    with np.load(GOLDEN / "cnn_forward.npz") as arrays:
        model = stored_cnn(row, arrays, compat=compat)
        frozen = stored_cnn(row, arrays, compat=compat, frozen_bn=True)
        x = torch.from_numpy(arrays["x"])
        of = "paper" if compat == "none" else "reference"
        expected = {
            mode: torch.from_numpy(arrays[f"{row['name']}/logits_{of}_{mode}_f64"]) for mode in ("eval", "trainbn")
        }
    torch.testing.assert_close(model.eval()(x.float()).double(), expected["eval"], rtol=0, atol=5e-6)
    torch.testing.assert_close(model.double()(x.double()), expected["eval"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.train()(x.double()), expected["trainbn"], rtol=1e-9, atol=1e-12)
    before = frozen.double().train().state_dict()["stages.0.norms.0.running_mean"].clone()
    torch.testing.assert_close(frozen(x.double()), expected["eval"], rtol=1e-9, atol=1e-12)
    assert torch.equal(frozen.state_dict()["stages.0.norms.0.running_mean"], before)


@pytest.mark.parametrize("name", ["regular_dense", "dense_depth"])
@pytest.mark.parametrize("compat", ["none", "reference"])
def test_every_trainable_parameter_learns(name, compat):
    torch.manual_seed(0)
    model = create_model(name, 10, (1, 9, 8), wm=1, cell_depth=4, tc=[0, 5, 40], compat=compat)
    nn.functional.cross_entropy(model(torch.randn(16, 1, 9, 8)), torch.arange(16) % 10).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters()) == (compat == "none")


def test_links_leave_the_global_generator_of_random_alone():
    random.seed(7)
    state = random.getstate()
    create_model("regular_dense", wm=1, cell_depth=4)
    create_model("dense_mlp")
    assert random.getstate() == state


def test_one_cap_counts_for_every_cell():
    one, listed = (create_model("dense_depth", wm=1, cell_depth=4, num_cells=2, tc=tc) for tc in (9, [9, 9]))
    assert one.nn_mass == listed.nn_mass > 0


@pytest.mark.parametrize(
    ("name", "args", "shape", "told"),
    [
        ("dense_mlp", {"depth": 2}, None, "depth=2: must be >= 3"),
        ("dense_mlp", {"tc": -1}, None, "tc=-1: must be >= 0"),
        ("dense_mlp", {"act": "rely"}, None, "did you mean 'relu'"),
        ("regular_dense", {"cell_depth": 2}, None, "cell_depth=2: must be >= 3"),
        ("regular_dense", {"tc": -1}, None, "tc=-1: must be >= 0"),
        ("regular_dense", {"tc": [1, 2, -3]}, (3, 32, 32), "tc=-3: must be >= 0"),
        ("dense_depth", {"tc": [1, 2]}, (3, 32, 32), "expected one number, or 3, one a cell"),
        ("dense_depth", {}, (3, 4, 4), "need at least 5 pixels"),
    ],
)
def test_impossible_networks_are_refused(name, args, shape, told):
    problems = check_model(name, args, shape)
    assert len(problems) == 1 and told in problems[0]
    with pytest.raises(UsageError, match="must be|expected|pixels"):
        create_model(name, 10, shape, **args)
