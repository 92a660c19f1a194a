"""ACDC: cosine transforms and kernels against published values, both ways of building K, and the layer itself."""

import json
import math

import numpy as np
import pytest
import scipy.fft
import torch
from conftest import GOLDENS
from hypothesis import given
from hypothesis import strategies as st

from research.errors import UsageError
from research.layers.base import Geometry
from research.layers.families.acdc import ACDC, FFT_FROM, acdc, stack_by_fft, stack_by_products
from research.layers.families.cosine import dct, dct_matrix, idct, riffle

GOLDEN = GOLDENS / "cheap-convs"
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def golden(name: str) -> dict[str, torch.Tensor]:
    arrays = np.load(GOLDEN / f"{name}.npz")
    return {k: torch.from_numpy(v) for k, v in arrays.items() if k != "cfg"}


def diagonals(factors: int, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A, D = 1 + 0.3 * torch.randn(2, factors, n, generator=generator, dtype=torch.float64)
    return A, D


# -- transforms


@pytest.mark.parametrize("n", [3, 31, 64])
def test_transforms_are_the_published_ones(n):
    z = golden(f"dct_{n}")
    for ours, theirs in (
        (dct(z["x"], norm=None), z["dct"]),
        (idct(z["x"], norm=None), z["idct"]),
        (dct(z["x"]), z["dct_ortho"]),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@given(st.integers(1, 70), st.sampled_from(["ortho", None]))
def test_transforms_are_scipys_and_inverse(n, norm):
    x = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    expected = torch.from_numpy(scipy.fft.dct(x.numpy(), norm=norm))
    torch.testing.assert_close(dct(x, norm), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(idct(expected, norm), x, atol=1e-12, rtol=0)


@given(st.integers(1, 70))
def test_matrix_is_orthogonal_and_the_transform(n):
    q = dct_matrix(n, torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    torch.testing.assert_close(q @ q.T, eye, atol=1e-12, rtol=0)
    torch.testing.assert_close(dct(eye), q, atol=1e-12, rtol=0)


def test_riffle_puts_even_positions_first():
    z = golden("riffle")
    assert torch.equal(z["x2"][:, riffle(12)], z["y2"])
    assert riffle(5).tolist() == [0, 2, 4, 1, 3]


# -- factors and stacks


@pytest.mark.parametrize("name", ["single_N8_riffle", "single_N32_riffle", "single_N32_original"])
def test_one_factor_is_the_published_one(name):
    z = golden(f"acdc_{name}")
    n = len(z["A"])
    within = None if "original" in name else riffle(n)
    torch.testing.assert_close(acdc(torch.eye(n), z["A"][:, 0], z["D"][:, 0], within), z["W"], **CLOSE)


def test_factor_on_vectors_in_groups():
    z = golden("acdc_vec_grouped")
    within = riffle(8)
    d = z["D"].view(2, 8)[:, within].flatten()  # that layer scales before it riffles
    torch.testing.assert_close(acdc(z["x"], z["A"][0], d, within) + z["bias"], z["y"], **CLOSE)


def test_factor_on_vectors_repeated():
    z = golden("acdc_linear_expand")
    repeated = torch.cat([z["x"], z["x"]], 1)
    torch.testing.assert_close(acdc(repeated, z["A"][:, 0], z["D"][:, 0], riffle(32)), z["y"], **CLOSE)


@pytest.mark.parametrize("build", [stack_by_products, stack_by_fft])
@pytest.mark.parametrize("name", ["acdc_a", "acdc_e"])
def test_both_builds_give_the_published_kernel(name, build):
    z = golden(name)
    r = riffle(z["A"].shape[1])
    torch.testing.assert_close(build(z["A"], z["D"], r, r), z["kernel"], **CLOSE)


@given(st.integers(1, 12), st.integers(1, 24), st.booleans(), st.booleans())
def test_both_builds_are_the_product_of_the_factors(factors, n, riffled, random):
    A, D = diagonals(factors, n)
    within = riffle(n) if riffled else None
    between = torch.randperm(n, generator=torch.Generator().manual_seed(n)) if random else riffle(n)
    expected = torch.eye(n, dtype=torch.float64)
    for a, d in zip(A, D, strict=True):
        expected = acdc(expected, a, d, within)[:, between]
    for build in (stack_by_products, stack_by_fft):
        torch.testing.assert_close(build(A, D, within, between), expected, atol=1e-10, rtol=1e-10)


@given(st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_diagonals_of_ones_give_an_orthogonal_matrix(factors, n, riffled):
    ones = torch.ones(factors, n, dtype=torch.float64)
    K = stack_by_fft(ones, ones, riffle(n) if riffled else None, riffle(n))
    torch.testing.assert_close(K @ K.T, torch.eye(n, dtype=torch.float64), atol=1e-11, rtol=0)


@pytest.mark.parametrize("build", [stack_by_products, stack_by_fft])
@pytest.mark.parametrize("n", [5, 6])
def test_gradients_of_both_builds(n, build):
    A, D = (x.requires_grad_() for x in diagonals(3, n))
    between = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda A, D: build(A, D, riffle(n), between), (A, D))
    assert torch.autograd.gradgradcheck(lambda A, D: build(A, D, riffle(n), between), (A, D))


# -- the layer


@pytest.mark.parametrize("name", ["acdc_a", "acdc_e"])
def test_layer_is_the_published_one_forward_and_backward(name):
    z, cfg = golden(name), json.loads(str(np.load(GOLDEN / f"{name}.npz")["cfg"]))
    geometry = Geometry(cfg["i"], cfg["o"], stride=(cfg["stride"],) * 2)
    layer = ACDC(geometry, layers=cfg["n_layers_arg"])
    layer.load_state_dict({"A": z["A"], "D": z["D"]})
    x = z["x"].requires_grad_()
    y = layer(x)
    y.backward(z["gy"])
    for ours, theirs in ((y, "y"), (x.grad, "gx"), (layer.A.grad, "gA"), (layer.D.grad, "gD")):
        torch.testing.assert_close(ours, z[theirs], **CLOSE)


@pytest.mark.parametrize("channels", [(6, 6), (4, 12), (5, 12), (3, 7), (12, 4)])
@pytest.mark.parametrize("taps", [1, 3])
def test_kernel_is_what_the_layer_computes(channels, taps):
    torch.manual_seed(0)
    geometry = Geometry(*channels, (taps,) * 2, (2, 2), (taps // 2,) * 2, bias=True)
    layer = ACDC(geometry, layers=4).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, channels[0], 7, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), geometry.conv(x, layer.kernel(), layer.bias))


@pytest.mark.parametrize("channels", [(4, 12), (5, 12), (3, 7), (12, 4)])
def test_other_shapes_repeat_the_input_or_sum_the_output(channels):
    """As the published code does it: pad with the first channels, tile, multiply by K, sum adjacent outputs."""
    torch.manual_seed(0)
    c_in, c_out = channels
    layer = ACDC(Geometry(c_in, c_out), layers=3).double()
    n = max(channels)
    K = stack_by_products(layer.A, layer.D, riffle(n), riffle(n))
    x = torch.randn(c_in, dtype=torch.float64)
    padded = next(m for m in range(c_in, n + 1) if max(c_in, c_out) % m == 0)
    tiled = x.repeat(3)[:padded].repeat(n // padded)
    y = K @ tiled
    expected = y.view(c_out, -1).sum(1) if c_out < c_in else y
    torch.testing.assert_close(layer.matrix() @ x, expected)


def test_wide_layer_is_built_by_fft_and_the_same():
    torch.manual_seed(0)
    layer = ACDC(Geometry(FFT_FROM, FFT_FROM), layers=12)
    r = riffle(FFT_FROM)
    torch.testing.assert_close(layer.matrix(), stack_by_products(layer.A, layer.D, r, r), **CLOSE)
    assert "Orthogonal" in type(layer.matrix().grad_fn).__name__


def test_contraction_must_divide():
    with pytest.raises(UsageError, match="12 input channels are not a multiple of 5"):
        ACDC(Geometry(12, 5))


def counted() -> list[dict]:
    rows = json.loads((GOLDEN / "layer_counts.json").read_text())["items"]
    return [row for row in rows if row["conv"].startswith("ACDC_")]


def test_layer_counts_are_published():
    """With L - 1 factors for the name ACDC_L; multiply-adds counted at the input's pixels, as at the end of the log."""
    assert len(counted()) > 8
    for row in counted():
        k, own = row["k"], {"layers": int(row["conv"].split("_")[1])}
        geometry = Geometry(row["i"], row["o"], (k, k), (row["stride"],) * 2, (k // 2,) * 2)
        assert ACDC.count_parameters(geometry, **own) == row["params"]
        assert sum(p.numel() for p in ACDC(geometry, **own).parameters()) == row["params"]
        size = (row["hw"],) * 2
        legacy = ACDC.count_mult_adds(geometry, size, frozenset({"acdc"}), **own)
        assert legacy == pytest.approx(row["mult_adds"], rel=1e-9)
        assert ACDC.count_mult_adds(geometry, size, **own) <= legacy


@pytest.mark.parametrize("channels", [(64, 64), (64, 128), (48, 128), (128, 64)])
def test_variance_is_that_of_the_dense_layer(channels):
    c_in, c_out = channels
    gains = []
    for seed in range(4):
        torch.manual_seed(seed)
        gains.append(float(ACDC(Geometry(c_in, c_out, (3, 3))).kernel().detach().square().sum() / c_out))
    assert np.mean(gains) == pytest.approx(2 * c_in / c_out, rel=0.15)


def test_reference_initialisation_is_the_published_one():
    for row in json.loads((GOLDEN / "init_stats.json").read_text())["items"]:
        if not row["spec"].startswith("ACDC"):
            continue
        stds = []
        for seed in range(row["seeds"]):
            torch.manual_seed(seed)
            layer = ACDC(Geometry(row["i"], row["o"], (3, 3)), layers=int(row["spec"][5:]), init="reference")
            stds.append(float(layer.kernel().detach().std()))
        assert np.mean(stds) == pytest.approx(row["eff_std"], rel=0.05)


def test_kernel_is_nearly_orthogonal_at_first():
    torch.manual_seed(0)
    layer = ACDC(Geometry(64, 64), init="reference")
    values = torch.linalg.svdvals(layer.matrix().detach())
    assert values.min() > 0.85
    assert values.max() < 1.15
    assert float(layer.matrix().detach().std()) == pytest.approx(1 / math.sqrt(64), rel=0.05)


def test_random_permutation_is_kept_in_checkpoints():
    torch.manual_seed(0)
    one, other = (ACDC(Geometry(16, 16), layers=4, outer="random", inner=inner) for inner in ("riffle", "none"))
    assert not torch.equal(one.matrix(), other.matrix())
    other = ACDC(Geometry(16, 16), layers=4, outer="random")
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.matrix(), other.matrix())


def test_kernel_is_exact_under_autocast():
    layer = ACDC(Geometry(16, 16), layers=12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer.matrix()
    assert torch.equal(low, layer.matrix())
