"""Tensor trains, Tucker and CP: sides and ranks, decompositions and layers, against published values."""

import json
from math import prod

import numpy as np
import pytest
import torch
from conftest import GOLDENS
from hypothesis import given
from hypothesis import strategies as st

from research.layers.base import Geometry
from research.layers.families import LAYERS, tensors
from research.layers.families.decomposed import CP, TensorTrain, Tucker

GOLDEN = GOLDENS / "cheap-convs"
PUBLISHED = ["tensortrain_0", "tensortrain_1", "tucker_2", "tucker_3"]
FAMILIES = [(TensorTrain, {}), (Tucker, {}), (Tucker, {"core": "dense"}), (CP, {})]
NAMES = {"TensorTrain": TensorTrain, "Tucker": Tucker}

side = st.integers(1, 9)
rank = st.floats(0.01, 1)


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    arrays = np.load(GOLDEN / f"decomp_{name}.npz")
    return {k: torch.from_numpy(v) for k, v in arrays.items() if k != "cfg"}, json.loads(str(arrays["cfg"]))


def published_layer(cfg: dict, **own) -> TensorTrain | Tucker:
    geometry = Geometry(cfg["i"], cfg["o"], (cfg["k"],) * 2, (cfg["stride"],) * 2, (cfg["padding"],) * 2)
    return NAMES[cfg["kind"]](geometry, rank=cfg["rank_scale"], **own)


def cube(d: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- sides and ranks


@pytest.mark.parametrize(
    "channels, expected",
    [
        ((640, 640), (80, 80, 64)),
        ((160, 160), (32, 32, 25)),
        ((320, 320), (50, 64, 32)),
        ((160, 16), (16, 16, 10)),
        ((1024, 512), (128, 128, 32)),
        ((64, 64), (16, 16, 16)),
    ],
)
def test_sides_are_published(channels, expected):
    assert tensors.sides(prod(channels)) == expected


@given(st.integers(1, 5000))
def test_sides_multiply_to_the_whole(n):
    assert prod(tensors.sides(n)) == n


@pytest.mark.parametrize("name", PUBLISHED)
def test_ranks_are_published(name):
    z, cfg = golden(name)
    d = tensors.sides(z["W"].numel())
    assert list(d) == z["dims"].tolist()
    if cfg["kind"] == "Tucker":
        t, joints = tensors.tucker_ranks(d, cfg["rank_scale"])
        assert list(t) == z["ranks_tucker"].tolist()
    else:
        joints = tensors.tt_ranks(d, cfg["rank_scale"])
    assert [1, *joints, 1] == z["ranks_tt"].tolist()


def test_layer_counts_are_published():
    rows = json.loads((GOLDEN / "layer_counts.json").read_text())["items"]
    rows = [row for row in rows if row["conv"].split("_")[0] in NAMES]
    assert len(rows) > 20
    for row in rows:
        name, h = row["conv"].split("_")
        k, own = row["k"], {"rank": float(h)}
        geometry = Geometry(row["i"], row["o"], (k, k), (row["stride"],) * 2, (k // 2,) * 2)
        layer = NAMES[name](geometry, **own)
        assert layer.count_parameters(geometry, **own) == row["params"]
        assert sum(p.numel() for p in layer.parameters()) == row["params"]
        assert layer.count_mult_adds(geometry, (row["hw"],) * 2, **own) == row["mult_adds"]


@given(st.integers(1, 40), st.integers(1, 40), rank, st.sampled_from(FAMILIES))
def test_counts_are_what_is_built_and_grow_with_the_rank(c_in, c_out, h, family):
    layer, own = family
    built = layer(Geometry(c_in, c_out), rank=h, **own)
    assert layer.count_matrix(c_in, c_out, rank=h, **own) == sum(p.numel() for p in built.parameters())
    assert layer.count_matrix(c_in, c_out, rank=h / 2, **own) <= layer.count_matrix(c_in, c_out, rank=h, **own)
    assert set(built.compressed) == {name for name, _ in built.named_parameters()}


# -- decompositions


@pytest.mark.parametrize("name", PUBLISHED)
def test_reconstructions_are_published(name):
    z, cfg = golden(name)
    layer = published_layer(cfg)
    layer.matrix_from_dense(z["W"])
    matrix = layer.matrix().detach()
    assert layer.count_matrix(cfg["i"], cfg["o"], **layer.arguments) == int(z["numel"])
    torch.testing.assert_close(matrix, z["rec"], atol=1e-4, rtol=0)
    assert float((matrix - z["W"]).norm() / z["W"].norm()) == pytest.approx(float(z["rel_err"]), abs=1e-6)


@pytest.mark.parametrize("name", ["tucker_2", "tucker_3"])
def test_dense_core_gives_the_same_tensor_with_fewer_parameters(name):
    z, cfg = golden(name)
    layer = published_layer(cfg, core="dense")
    layer.matrix_from_dense(z["W"])
    torch.testing.assert_close(layer.matrix().detach(), z["rec"], atol=1e-4, rtol=0)
    assert layer.count_matrix(cfg["i"], cfg["o"], **layer.arguments) < int(z["numel"])


@given(side, side, side)
def test_full_ranks_reconstruct_exactly(d1, d2, d3):
    d = d1, d2, d3
    x = cube(d)
    full = min(d1, d2 * d3), min(d1 * d2, d3)
    torch.testing.assert_close(tensors.tt_product(tensors.tt_svd(x, full)), x)
    t, joints = tensors.tucker_ranks(d, 1)
    core, factors = tensors.hosvd(x, t)
    torch.testing.assert_close(tensors.tucker_product(core, factors), x)
    cores, factors = tensors.hosvd_train(x, t, joints)
    torch.testing.assert_close(tensors.tucker_product(tensors.tt_product(cores), factors), x)


@given(side, side, side, rank)
def test_tucker_factors_are_orthonormal_and_both_cores_agree(d1, d2, d3, h):
    x = cube((d1, d2, d3))
    t, joints = tensors.tucker_ranks((d1, d2, d3), h)
    core, factors = tensors.hosvd(x, t)
    for u in factors:
        torch.testing.assert_close(u.T @ u, torch.eye(u.shape[1], dtype=u.dtype))
    cores, others = tensors.hosvd_train(x, t, joints)
    assert [tuple(c.shape) for c in cores] == [(t[0], joints[0]), (joints[0], t[1], joints[1]), (joints[1], t[2])]
    whole = tensors.tucker_product(core, factors)
    torch.testing.assert_close(tensors.tucker_product(tensors.tt_product(cores), others), whole)


@pytest.mark.parametrize("terms", [1, 2])
def test_cp_finds_a_tensor_of_low_rank(terms):
    factors = [cube((d, terms, 1), seed)[:, :, 0] for seed, d in enumerate((6, 5, 4))]
    x = tensors.cp_product(factors)
    torch.testing.assert_close(x, torch.einsum("ar,br,cr->abc", *factors))
    found = tensors.cp_product(tensors.cp_als(x, terms, sweeps=200))
    assert (found - x).norm() < 1e-3 * x.norm()


def test_cp_comes_closer_with_every_sweep():
    x = cube((6, 5, 4))
    errors = [float((tensors.cp_product(tensors.cp_als(x, 3, sweeps)) - x).norm()) for sweeps in (1, 2, 5, 20, 50)]
    assert all(later <= earlier + 1e-12 for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[-1] < x.norm()


# -- layers


@pytest.mark.parametrize("name", PUBLISHED)
def test_layer_is_the_published_one(name):
    z, cfg = golden(name)
    layer = published_layer(cfg)
    cores = [z["p_weight_core_0"][0], z["p_weight_core_1"], z["p_weight_core_2"][..., 0]]
    factors = [z[f"p_weight_u_{i}"] for i in range(3) if f"p_weight_u_{i}" in z]
    state = dict(zip(layer.compressed, cores + factors, strict=True))
    state |= {"depthwise.weight": z["p_grouped__weight"]} if cfg["k"] > 1 else {}
    layer.load_state_dict(state)
    torch.testing.assert_close(layer.matrix(), z["eff"], atol=1e-4, rtol=0)
    torch.testing.assert_close(layer(z["x"]), z["y"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("layer, own", FAMILIES)
@pytest.mark.parametrize("taps", [1, 3])
def test_kernel_is_what_the_layer_computes(layer, own, taps):
    torch.manual_seed(0)
    geometry = Geometry(6, 8, (taps,) * 2, (2, 2), (taps // 2,) * 2, bias=True)
    made = layer(geometry, **own).double()
    torch.nn.init.normal_(made.bias)
    x = torch.randn(2, 6, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(made(x), geometry.conv(x, made.kernel(), made.bias))


@pytest.mark.parametrize("layer, own", FAMILIES)
def test_gradients(layer, own):
    torch.manual_seed(0)
    made = layer(Geometry(4, 6), **own).double()
    parts = [getattr(made, name).detach().requires_grad_() for name in made.compressed]
    assert torch.autograd.gradcheck(made.compose, parts)


@pytest.mark.parametrize("layer, own", FAMILIES[:3])
def test_full_rank_starts_from_a_dense_matrix_exactly(layer, own):
    torch.manual_seed(0)
    weight = torch.randn(8, 4, 1, 1)
    made = layer(Geometry(4, 8), rank=1, **own)
    made.from_dense(weight)
    torch.testing.assert_close(made.kernel(), weight)


@pytest.mark.parametrize("layer, own", FAMILIES)
@pytest.mark.parametrize("h", [0.25, 0.75])
@pytest.mark.parametrize("channels", [(64, 64), (64, 128)])
def test_variance_is_that_of_the_dense_layer(layer, own, h, channels):
    c_in, c_out = channels
    gains = []
    for seed in range(4):
        torch.manual_seed(seed)
        kernel = layer(Geometry(c_in, c_out, (3, 3)), rank=h, **own).kernel()
        gains.append(float(kernel.detach().square().sum() / c_out))
    assert np.mean(gains) == pytest.approx(2 * c_in / c_out, rel=0.15)


def test_reference_initialisation_is_the_published_one():
    rows = json.loads((GOLDEN / "init_stats.json").read_text())["items"]
    rows = [row for row in rows if row["spec"].split("_")[0] in NAMES]
    assert len(rows) > 3
    for row in rows:
        name, h = row["spec"].split("_")
        stds = []
        for seed in range(row["seeds"]):
            torch.manual_seed(seed)
            layer = NAMES[name](Geometry(row["i"], row["o"], (3, 3)), rank=float(h), init="reference")
            stds.append(float(layer.kernel().detach().std()))
        assert np.mean(stds) == pytest.approx(row["eff_std"], rel=0.1)


def test_families_have_names():
    assert [LAYERS[name] for name in ("tt", "tucker", "cp")] == [TensorTrain, Tucker, CP]
