"""NMI of feature maps: the published reference's numbers, and what must hold for any map."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDENS
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import UsageError
from research.measures import nmi, nmi_torch

nmi_compiled = pytest.importorskip("research.measures.nmi_compiled")

GOLDEN = GOLDENS / "gram"
VARIANTS = {"A": "center", "B": "allpairs", "C": "sparse"}
CASES = sorted(path.stem for path in GOLDEN.glob("d*.npz") if path.stem[:3] not in ("d23", "d24", "d25"))
every_variant = pytest.mark.parametrize("variant", VARIANTS.values())


def gauss(seed, shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def golden(case):
    """(arrays, x, arguments) of one golden case."""
    arrays = np.load(GOLDEN / f"{case}.npz")
    if "x" in arrays:
        x = arrays["x"]
    else:  # the recipe of d20: a periodic 3x3 running sum of noise in float64, half of it cut off
        assert json.loads(str(arrays["meta"]))["recipe"] == "relu(box(gauss(120,(8,16,32,32)),3))"
        x = gauss(120, (8, 16, 32, 32)).astype(np.float64)
        for axis in (2, 3):
            x = np.roll(x, -1, axis) + x + np.roll(x, 1, axis)
        x = np.maximum((x / 3).astype(np.float32), 0)
    arguments = {"kernel_size": "kernel", "padding": "padding", "dilation": "dilation"}
    return arrays, torch.from_numpy(x), {name: tuple(map(int, arrays[key])) for name, key in arguments.items()}


def maps(seed, shape=(3, 4, 9, 11)):
    """Channels as networks have them: signed, cut off at 0, coarse, dead, constant."""
    x = torch.from_numpy(gauss(seed, shape))
    x[:, 1::5] = x[:, 1::5].relu()
    x[:, 2::5] = (x[:, 2::5] * 2).round() / 2
    if seed % 3 == 0:
        x[:, 3::5] = 0
    if seed % 3 == 1:
        x[:, 3::5] = 2.5
    return x


def both(x, variant, **arguments):
    geometry = nmi.geometry_of(
        x.shape[2:], arguments["kernel_size"], arguments["padding"], arguments["dilation"], variant
    )
    found = nmi.ranges(x, geometry)
    how = x, geometry, found.low, found.high, found.bins, found.finite
    return nmi_compiled.counts(*how), nmi_torch.counts(*how)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("letter", VARIANTS)
def test_reference_numbers(case, letter):
    arrays, x, arguments = golden(case)
    if f"{letter}_corr" not in arrays:
        pytest.skip("the reference does not handle this case")
    arguments["variant"] = VARIANTS[letter]
    raw = nmi.nmi_per_channel(x, **arguments)
    corr = nmi.correlation_matrix(x, **arguments, k=arrays["ks"].tolist())
    assert raw.dtype == torch.float64
    for mine, key, tolerance in (
        (raw, "nmi_per_channel", 2e-6),
        (corr, "corr", 2e-6),
        (nmi.gradient_multiplier(corr), "mult", 1e-5),
    ):
        np.testing.assert_allclose(mine.numpy(), arrays[f"{letter}_{key}"], rtol=0, atol=tolerance)


def test_reference_joint_counts():
    arrays, x, arguments = golden("d21_joint_counts")
    geometry = nmi.geometry_of(x.shape[2:], **arguments, variant="center")
    counts = nmi.joint_counts(x, geometry, nmi.ranges(x, geometry))
    for pairing, mine in zip(geometry.pairings, counts[0], strict=True):
        dy, dx = pairing.tap[0] - 1, pairing.tap[1] - 1
        np.testing.assert_array_equal(mine, arrays[f"counts_{dy:+d}_{dx:+d}"])


def test_nmi_k_multiplies_the_odds():
    for raw, k, expected in ((0.01, 8, 0.075), (0.05, 4, 0.174), (0.1, 256, 0.966), (0.2, 2, 0.333), (0.5, 64, 0.985)):
        assert nmi.nmi_k(raw, k) == pytest.approx(expected, abs=5e-4)
    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(nmi.nmi_k(grid, 1), grid)
    odds = grid[1:-1] / (1 - grid[1:-1])
    lifted = nmi.nmi_k(grid, 3.5)[1:-1]
    torch.testing.assert_close(lifted / (1 - lifted), 3.5 * odds)


cases = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([(3, 3), (5, 5), (2, 2), (3, 5), (4, 3), (1, 3)]),
        "padding": st.sampled_from([(0, 0), (1, 1), (2, 1), "same"]),
        "dilation": st.sampled_from([(1, 1), (2, 1)]),
    }
)


@settings(max_examples=40)
@given(st.integers(0, 999), cases, st.sampled_from(list(VARIANTS.values())))
def test_compiled_and_torch_count_the_same(seed, arguments, variant):
    x = maps(seed, (3, 5, 9, 11))
    x[0, 4, 0, 0] = torch.nan if seed % 7 == 0 else 1e30
    compiled, plain = both(x, variant, **arguments)
    assert torch.equal(compiled, plain)
    if variant == "sparse":
        geometry = nmi.geometry_of(x.shape[2:], **arguments, variant=variant)
        compiled, plain = (kernels.sparse_ranges(x[:, :4], geometry) for kernels in (nmi_compiled, nmi_torch))
        assert all(torch.equal(*pair) for pair in zip(compiled, plain, strict=True))


@every_variant
def test_counts_are_those_of_numpy_histogram2d(variant):
    """The definition, pair by pair; on maps of more than one block of images and of channels."""
    x = maps(7, (40, 18, 64, 62))
    geometry = nmi.geometry_of(x.shape[2:], 3, 1, 1, variant)
    found = nmi.ranges(x, geometry)
    counts = nmi.joint_counts(x, geometry, found)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)) if variant != "sparse" else 0)
    for c, t in ((0, 0), (1, 1), (2, 2), (17, 3)):
        (h, w), (i, j), (y, z) = (getattr(geometry.pairings[t], name) for name in ("size", "x", "y"))
        a, b = padded[:, c, i : i + h, j : j + w].ravel(), padded[:, c, y : y + h, z : z + w].ravel()
        if variant == "sparse":
            a, b = a[(a != 0) & (b != 0)], b[(a != 0) & (b != 0)]
        bins = 1 + int(np.ceil(np.log2(len(a))))
        edges = [(float(v.min()), float(v.max()) + 1e-12) for v in (a, b)]
        index = [
            np.minimum((v.astype(np.float64) - lo) * (bins / (hi - lo)), bins - 1).astype(int)
            for v, (lo, hi) in zip((a, b), edges, strict=True)
        ]
        expected = np.histogram2d(*index, bins=bins, range=[[0, bins]] * 2)[0]
        np.testing.assert_array_equal(counts[c, t, :bins, :bins], expected)
        assert counts[c, t].sum() == len(a)


def test_counting_by_matrix_product_is_counting():
    draw = torch.Generator().manual_seed(0)
    q_x, q_y = (torch.randint(0, high, (3, 10000), generator=draw, dtype=torch.int32) for high in (16, 15))
    assert torch.equal(nmi_torch.count_by_product(q_x, q_y, 15), nmi_torch.count_by_bincount(q_x, q_y, 15))


@every_variant
def test_threads_and_memory_format_do_not_matter(variant):
    x = maps(5, (6, 20, 12, 13))
    one = nmi.nmi_per_channel(x, 3, 1, variant=variant)
    try:
        torch.set_num_threads(3)
        three = nmi.nmi_per_channel(x.to(memory_format=torch.channels_last), 3, 1, variant=variant)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.nan_to_num(-1), three.nan_to_num(-1))


@every_variant
def test_result_does_not_depend_on_how_images_are_split_over_processes(variant):
    x = maps(8, (8, 5, 10, 10))
    geometry = nmi.geometry_of(x.shape[2:], 3, 1, 1, variant)
    parts = (x[5:], x[:5])
    here, there = (nmi.ranges(part, geometry) for part in parts)
    low, high = torch.minimum(here.low, there.low), torch.maximum(here.high, there.high)
    merged = nmi.Ranges(low, high, here.pairs + there.pairs)
    counts = sum(nmi.joint_counts(part, geometry, merged) for part in parts)
    split = nmi.nmi_of_counts(counts, geometry, merged)
    assert torch.equal(split.nan_to_num(-1), nmi.nmi_per_channel(x, 3, 1, variant=variant).nan_to_num(-1))


@settings(max_examples=30)
@given(st.integers(0, 999), st.sampled_from(list(VARIANTS.values())), st.floats(0.1, 1e3))
def test_multiplier_has_mean_one_and_peaks_at_the_centre(seed, variant, k):
    multiplier = nmi.gradient_multiplier(nmi.correlation_matrix(maps(seed), 3, 1, k=k, variant=variant))
    assert multiplier.sum().item() == pytest.approx(9, abs=1e-5)
    assert multiplier[1, 1] == multiplier.max() and multiplier[1, 1] >= 1 - 1e-6


@every_variant
def test_large_k_is_plain_training_and_small_k_the_centre_alone(variant):
    large, small = nmi.gradient_multiplier(nmi.correlation_matrix(maps(2), 3, 1, k=[1e9, 1e-9], variant=variant))
    torch.testing.assert_close(large, torch.ones(3, 3), atol=1e-4, rtol=0)
    assert small[1, 1].item() == pytest.approx(9, abs=1e-4)


@every_variant
def test_many_k_share_one_pass(variant):
    x = maps(4)
    together = nmi.correlation_matrix(x, 3, 1, k=[1, 2.5, 64], variant=variant)
    alone = [nmi.correlation_matrix(x, 3, 1, k=k, variant=variant) for k in (1, 2.5, 64)]
    assert together.dtype == torch.float32 and torch.equal(together, torch.stack(alone))


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_flips_and_transposition_move_the_matrix(seed):
    x = maps(seed)

    def measured(x):
        return nmi.nmi_per_channel(x, 3, 1).nan_to_num(-1)

    assert torch.equal(measured(x.flip(3)), measured(x).flip(2))
    assert torch.equal(measured(x.flip(2)), measured(x).flip(1))
    assert torch.equal(measured(x.transpose(2, 3)), measured(x).transpose(1, 2))


@every_variant
def test_order_duplicates_and_powers_of_two_change_nothing(variant):
    x = maps(2)
    corr = nmi.correlation_matrix(x, 3, 1, variant=variant)
    assert torch.equal(nmi.correlation_matrix(x[[2, 0, 1]], 3, 1, variant=variant), corr)
    torch.testing.assert_close(nmi.correlation_matrix(x.repeat(1, 2, 1, 1), 3, 1, variant=variant), corr)
    without_slack = x * 2.0**14  # where the 1e-12 beyond the maximum is lost in both
    assert torch.equal(
        nmi.correlation_matrix(without_slack * 4, 3, 1, variant=variant),
        nmi.correlation_matrix(without_slack, 3, 1, variant=variant),
    )


def test_dead_channels_are_left_out_but_lower_sparse():
    x = maps(2)
    padded = torch.cat([x, torch.zeros_like(x)], dim=1)
    for variant in ("center", "allpairs"):
        assert torch.equal(*(nmi.correlation_matrix(maps, 3, 1, variant=variant) for maps in (x, padded)))
    sparse, lowered = (nmi.correlation_matrix(maps, 3, 1, variant="sparse") for maps in (x, padded))
    torch.testing.assert_close(lowered[0], sparse[0] / 2)


def test_large_constant_channel_is_undefined_and_its_range_holds_the_maximum():
    x = torch.full((2, 1, 5, 5), 20000.0)
    assert nmi.nmi_per_channel(x, 3).isnan().sum() == 8
    x[0, 0, 0, 0] = 30000.0
    geometry = nmi.geometry_of((5, 5), 2, 0, 1, "center")
    assert (nmi.joint_counts(x, geometry, nmi.ranges(x, geometry)).sum(dim=(-2, -1)) == 2 * 16).all()


@every_variant
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_channel_with_nan_or_inf_is_left_out_with_a_warning(variant, bad):
    x = maps(2)
    clean = nmi.nmi_per_channel(x, 3, 1, variant=variant)
    x[1, 2, 4, 4] = bad
    with pytest.warns(UserWarning, match="1 of 4 channels hold nan or inf"):
        found = nmi.nmi_per_channel(x, 3, 1, variant=variant)
    assert found[2].isnan().sum() == 8 and found[2, 1, 1] == 1
    assert torch.equal(found[[0, 1, 3]], clean[[0, 1, 3]])


def test_kernel_of_one_tap_has_multiplier_one():
    assert torch.equal(nmi.gradient_multiplier(nmi.correlation_matrix(maps(2), 1)), torch.ones(1, 1))


def test_same_padding_of_an_even_kernel_pads_more_at_the_end():
    x = maps(2)
    given = torch.nn.functional.pad(x, (1, 2, 1, 2))
    one, other = nmi.nmi_per_channel(x, 4, "same"), nmi.nmi_per_channel(given, 4, 0)
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k=0: must be > 0"),
        ({"variant": "centre"}, "did you mean 'center'"),
        ({"kernel_size": 13}, r"kernel \(13, 13\) .* is larger than the padded \(9, 11\) map"),
        ({"dilation": 0}, r"dilation \(0, 0\): must be >= 1"),
        ({"x": torch.zeros(3, 4, 5)}, r"x of shape \(3, 4, 5\): expected \(B, C, H, W\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    given = {"x": maps(2), "kernel_size": 3, "padding": 1, "k": 8.0, "variant": "center"}
    with pytest.raises(UsageError, match=message):
        nmi.correlation_matrix(**given | change)


@pytest.mark.parametrize("sparse", [False, True])
def test_compiled_entropies_are_those_of_torch(sparse):
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (40, 3, 7, 7), generator=generator).pow(5)  # beyond the table of small counts too
    counts[torch.rand(counts.shape, generator=generator) < 0.6] = 0
    counts[0] = 0  # no pair
    counts[1, :, 1:] = 0  # one row: a constant side
    counts[2] = 0
    counts[2, 0, 3, 4] = 5  # one cell
    compiled, plain = (kernels.nmi(counts, sparse) for kernels in (nmi_compiled, nmi_torch))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-14, equal_nan=True)
    assert compiled.isnan().any() != sparse and (compiled == 0).any()
