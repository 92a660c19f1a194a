"""What stands in the place of a convolution: outputs, gradients, sizes and initial values of every family."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import GOLDENS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from research.errors import UsageError
from research.layers.base import Geometry
from research.layers.families import LAYERS
from research.layers.families.grouped import Separable, Shuffle
from research.layers.families.hashed import FullySepHashed, Hashed, HashedTensor, SepHashed
from research.layers.families.low_rank import Generic, Tied
from research.layers.spec import parse_spec
from research.measures.cost import RULES, count

GOLDEN = GOLDENS / "cheap-convs"
LINEAR = [name for name, family in LAYERS.items() if family.linear]


def square(c_in, c_out, k=3, stride=1, padding=None, dilation=1, groups=1, bias=False):
    padding = dilation * (k // 2) if padding is None else padding
    return Geometry(c_in, c_out, (k, k), (stride, stride), (padding, padding), (dilation, dilation), groups, bias)


def build(spec, geometry, init="variance"):
    spec = parse_spec(spec)
    return spec.layer(geometry, **spec.arguments, init=init)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# -- golden numbers -----------------------------------------------------------------------------------------------


def assert_golden(layer, golden, named):
    """Output and every gradient; ``named``: golden gradient -> parameter."""
    x = torch.tensor(golden["x"], requires_grad=True)
    y = layer(x)
    y.backward(torch.tensor(golden["gy"]))
    close = {"atol": 2e-5, "rtol": 1e-4}
    np.testing.assert_allclose(y.detach(), golden["y"], **close)
    np.testing.assert_allclose(x.grad, golden["gx"], **close)
    for key, parameter in named.items():
        np.testing.assert_allclose(parameter.grad.view(golden[key].shape), golden[key], **close, err_msg=key)


def put(values):
    """Copy golden arrays into parameters and buffers."""
    with torch.no_grad():
        for tensor, value in values.items():
            tensor.copy_(torch.tensor(value).view(tensor.shape))


def put_hashed(layer, golden):
    tensors = {layer.hashed.indices: "idxs", layer.hashed.weight: "hashed_weight", layer.bias: "bias"}
    put({tensor: golden[name] for tensor, name in tensors.items()})


@pytest.mark.parametrize("name", ["hashed_a", "hashed_b", "hashed_c"])
def test_hashed_equals_the_golden_layer(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    c = json.loads(str(golden["cfg"]))
    g = square(c["i"], c["o"], c["k"], c["stride"], c["padding"], c["dilation"], c["groups"])
    layer = Hashed(g, fraction=(c["budget"] + 0.5) / g.dense)
    put_hashed(layer, golden)
    np.testing.assert_array_equal(layer.kernel().detach(), golden["dense"])
    assert_golden(layer, golden, {"g_hashed": layer.hashed.weight, "g_bias": layer.bias})


@pytest.mark.parametrize("name", ["sephashed_a", "sephashed_c"])
def test_separable_hashed_equals_the_golden_layer(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    c = json.loads(str(golden["cfg"]))
    g = square(c["i"], c["o"], c["k"], c["stride"], c["padding"], c["dilation"])
    layer = SepHashed(g, fraction=(len(golden["hashed_weight"]) + 0.5) / (c["i"] * c["o"]))
    put_hashed(layer, golden)
    put({layer.depthwise.weight: golden["grouped"]})
    assert_golden(layer, golden, {"g_hashed": layer.hashed.weight, "g_grouped": layer.depthwise.weight})


@pytest.mark.parametrize(
    "name, make, names",
    [
        ("sep_b", lambda: Separable(square(8, 12, 1, 2, bias=True)), {"pointwise": "pointwise.weight"}),
        (
            "generic_a",
            lambda: Generic(square(8, 12, 3, 2), rank=0.25),
            {"grouped": "depthwise", "lowrank_contract": "contract", "lowrank_expand": "expand"},
        ),
        ("lowrank_a", lambda: Tied(square(6, 18), rank=0.25), {"grouped": "depthwise", "lowrank": ""}),
        (
            "shuffle_a",
            lambda: Shuffle(square(12, 24, 3, 2), groups=3),
            {"shuffle_gconv1": "contract", "shuffle_dwconv": "depthwise", "shuffle_gconv2": "expand"},
        ),
        (
            "shuffle_c",
            lambda: Shuffle(square(8, 16, 1, 2), groups=2),
            {"shuffle_gconv1": "contract", "shuffle_dwconv": "depthwise", "shuffle_gconv2": "expand"},
        ),
    ],
)
def test_factorised_layers_equal_the_golden_ones(name, make, names):
    golden, layer = np.load(GOLDEN / f"{name}.npz"), make()
    own = {their: layer.get_parameter(f"{our}.weight".lstrip(".").replace("weight.weight", "weight"))
           for their, our in names.items()}  # fmt: skip
    values = {own[their]: golden[f"p_{their}__weight"] for their in names}
    if layer.bias is not None:
        values[layer.bias] = golden["p_pointwise__bias"]
    put(values)
    gradients = {f"g_{their}__weight": parameter for their, parameter in own.items()}
    assert_golden(layer, golden, gradients | ({"g_pointwise__bias": layer.bias} if layer.bias is not None else {}))


@pytest.mark.parametrize("row", json.loads((GOLDEN / "layer_counts.json").read_text())["items"], ids=str)
def test_sizes_of_single_layers_are_the_published_ones(row):
    spec, size = parse_spec(row["conv"]), (row["hw"], row["hw"])
    g = square(row["i"], row["o"], row["k"], row["stride"], row["k"] // 2)
    if spec is None:
        assert g.dense == row["params"]
        return
    assert spec.layer.count_parameters(g, **spec.arguments) == row["params"]
    if "mult_adds" in row:
        counted = spec.layer.count_mult_adds(g, size, frozenset({"acdc"}), **spec.arguments)
        assert counted == pytest.approx(row["mult_adds"], rel=1e-9)


# -- what every family promises -----------------------------------------------------------------------------------

GEOMETRIES = {
    "strided": square(8, 16, 3, 2),
    "dilated": square(8, 8, 3, 1, 2, 2),
    "pointwise": square(8, 16, 1, 2),
    "biased": square(8, 8, bias=True),
    "oblong": Geometry(8, 16, (3, 1), (2, 1), (1, 0)),
}


def made(family, where):
    geometry = GEOMETRIES[where]
    if reason := LAYERS[family].unsupported(geometry):
        pytest.skip(reason)
    layer = LAYERS[family](geometry)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)  # one of zeros would hide what it does
    return layer


@pytest.mark.parametrize("where", GEOMETRIES)
@pytest.mark.parametrize("family", LINEAR)
def test_a_linear_layer_is_the_convolution_with_its_kernel(family, where):
    layer, x = made(family, where).double(), torch.randn(2, 8, 7, 9, dtype=torch.float64)
    bias = layer.bias
    if isinstance(layer, FullySepHashed) and layer.depthwise:
        bias = layer.bias + layer.hashed()[:, :, 0, 0] @ layer.spatial_bias
    assert layer.kernel().shape == GEOMETRIES[where].weight_shape
    torch.testing.assert_close(layer(x), GEOMETRIES[where].conv(x, layer.kernel(), bias))


@pytest.mark.parametrize("where", GEOMETRIES)
@pytest.mark.parametrize("family", LAYERS)
def test_the_closed_forms_are_what_is_built(family, where):
    layer, geometry = made(family, where), GEOMETRIES[where]
    assert layer.count_parameters(geometry, **layer.arguments) == sum(p.numel() for p in layer.parameters())
    assert layer(torch.zeros(2, 8, 7, 9)).shape[2:] == geometry.output_size((7, 9))
    assert all(layer.get_parameter(name) is not None for name in layer.compressed)


@pytest.mark.parametrize("family", ["sep", "generic", "shuffle", "bottleneck", "dconv"])
@pytest.mark.parametrize("where", GEOMETRIES)
def test_closed_mult_adds_are_those_of_the_convolutions_inside(family, where):
    layer = made(family, where)
    convs, inside = [m for m in layer.modules() if isinstance(m, nn.Conv2d)], []
    if family == "sep" and layer.depthwise is None:
        assert len(convs) == 1
    for conv in convs:
        rule = RULES[nn.modules.conv._ConvNd][1]
        conv.register_forward_hook(lambda m, x, y, rule=rule: inside.append(rule(m, x[0].shape[1:], y.shape[1:], ())))
    layer(torch.zeros(2, 8, 7, 9))
    assert sum(inside) == layer.count_mult_adds(GEOMETRIES[where], (7, 9), **layer.arguments)


@pytest.mark.parametrize("family", LAYERS)
def test_gradients_are_those_of_finite_differences(family):
    layer = LAYERS[family](square(4, 4, bias=True)).double()
    names, values = zip(*((n, p.detach().requires_grad_()) for n, p in layer.named_parameters()), strict=True)
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)

    def output(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(output, (x, *values), fast_mode=True)


@pytest.mark.parametrize("family", LAYERS)
def test_what_does_not_fit_is_refused_with_the_reason(family):
    grouped = square(8, 8, groups=4)
    if LAYERS[family].unsupported(grouped) is None:
        assert LAYERS[family](grouped).kernel().shape == grouped.weight_shape
    else:
        with pytest.raises(UsageError, match="groups"):
            LAYERS[family](grouped)


@pytest.mark.parametrize("family", LAYERS)
@torch.no_grad()
def test_evaluation_follows_what_is_loaded_and_changed(family):
    layer, other = made(family, "strided").eval(), made(family, "strided").eval()
    x = torch.randn(2, 8, 7, 7)
    first = layer(x)
    assert layer(x).equal(first)
    layer.load_state_dict(other.state_dict())
    assert layer(x).equal(other(x))
    assert not layer(x).equal(first)
    for parameter in other.parameters():
        parameter.mul_(2)
    assert not other(x).equal(layer(x))


@pytest.mark.parametrize("family", ["hashed", "sephashed", "fullysephashed", "acdc", "tt", "tucker", "cp"])
@torch.no_grad()
def test_weights_that_are_built_are_built_once_in_evaluation(family):
    layer = made(family, "strided").eval()
    build = layer.hashed if "hashed" in family else layer.matrix
    assert build() is build()
    layer.train()
    assert build() is not build()


# -- initial values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c_out", [64, 128])
@pytest.mark.parametrize("family", LINEAR)
def test_initial_values_keep_the_variance_of_the_dense_layer(family, c_out):
    """The kernel's squares summed are the gain in variance of white noise: 2 in / out of He's initialisation."""
    layers = (LAYERS[family](square(64, c_out)) for _ in range(6))
    gain = np.mean([float(layer.kernel().detach().square().sum()) / c_out for layer in layers])
    assert gain == pytest.approx(2 * 64 / c_out, rel={"shuffle": 0.5, "lr": 0.2}.get(family, 0.15))


@pytest.mark.parametrize("row", json.loads((GOLDEN / "init_stats.json").read_text())["items"], ids=str)
def test_reference_initial_values_have_the_measured_scale(row):
    layers = (build(row["spec"], square(row["i"], row["o"], row["k"]), "reference") for _ in range(row["seeds"]))
    std = np.mean([float(layer.kernel().detach().std()) for layer in layers])
    loose = row["spec"].startswith(("ACDC", "TensorTrain", "Tucker"))
    assert std == pytest.approx(row["eff_std"], rel=0.1 if loose else 0.05)


# -- from a trained kernel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sep", "hashed", "generic", "conv2x2"])
def test_a_kernel_of_the_family_is_found_again(family):
    source = made(family, "biased")
    layer = LAYERS[family](GEOMETRIES["biased"], **source.arguments)
    for name, buffer in layer.named_buffers():
        buffer.copy_(source.get_buffer(name))
    layer.from_dense(source.kernel().detach(), source.bias.detach())
    torch.testing.assert_close(layer.kernel(), source.kernel(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.bias, source.bias)


@pytest.mark.parametrize("family", ["sep", "hashed", "sephashed", "generic"])
def test_no_small_change_comes_closer_to_the_dense_kernel(family):
    layer, dense = made(family, "strided").double(), torch.randn(16, 8, 3, 3, dtype=torch.float64)
    layer.from_dense(dense)
    distance = (layer.kernel() - dense).square().sum()
    gradients = torch.autograd.grad(distance, [p for n, p in layer.named_parameters() if not n.endswith("bias")])
    if family in ("sep", "hashed"):  # least squares; the others fit their factors one after the other
        assert max(g.abs().max() for g in gradients) < 1e-8 * distance
    assert distance < dense.square().sum()


def test_families_without_a_closest_kernel_say_so():
    with pytest.raises(UsageError, match="no kernel closest"):
        made("shuffle", "strided").from_dense(torch.zeros(16, 8, 3, 3))


# -- hashing ------------------------------------------------------------------------------------------------------


@given(buckets=st.integers(1, 50), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_indices_reach_every_bucket_and_stay_in_range(buckets, seed):
    torch.manual_seed(seed)
    tensor, reference = HashedTensor((40, 50), buckets), HashedTensor((40, 50), buckets, "reference")
    assert tensor.indices.dtype == torch.int32
    assert tensor.indices.unique().tolist() == list(range(buckets))  # 2000 draws of at most 50
    assert int(reference.indices.max()) == max(0, buckets - 2)


def test_indices_follow_the_seed_and_survive_a_checkpoint():
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Hashed(square(8, 8)))
    assert drawn[0].hashed.indices.equal(drawn[1].hashed.indices)
    assert not drawn[0].hashed.indices.equal(drawn[2].hashed.indices)
    drawn[2].load_state_dict(drawn[0].state_dict())
    assert drawn[2].kernel().equal(drawn[0].kernel())


def test_how_indices_are_drawn_moves_the_global_generator_by_one_number():
    for size in (8, 16):
        torch.manual_seed(0)
        HashedTensor((size, size), 10)
        after = torch.rand(())
        torch.manual_seed(0)
        HashedTensor((100, 100), 10)
        assert torch.rand(()) == after


@given(c_in=st.integers(1, 40), c_out=st.integers(1, 40), k=st.sampled_from([1, 3, 5]), fraction=st.floats(0.001, 1))
@settings(max_examples=60)
def test_hashed_sizes_are_never_empty_nor_larger_than_dense(c_in, c_out, k, fraction):
    g = square(c_in, c_out, k)
    for family in (Hashed, SepHashed, FullySepHashed):
        assert family.count_parameters(g, fraction=fraction) >= 1 + c_out
    assert Hashed.count_parameters(g, fraction=fraction) <= g.dense + c_out
    assert Hashed.count_parameters(g, fraction=1.0) == g.dense + c_out


@given(groups=st.integers(1, 64), c_in=st.integers(1, 64), c_out=st.integers(4, 64))
@settings(max_examples=60)
def test_shuffle_takes_the_largest_number_of_groups_that_divides(groups, c_in, c_out):
    fitting = Shuffle.fitting(square(c_in, c_out), groups)
    divides = [g for g in range(1, groups + 1) if not (c_in % g or c_out % g or (c_out // 4) % g)]
    assert fitting == max(divides)


def test_a_layer_with_a_bias_keeps_it_in_its_closed_form():
    with_bias, without = square(8, 8, bias=True), square(8, 8)
    for family in ("sep", "generic", "shuffle", "bottleneck", "conv2x2"):
        sizes = [LAYERS[family].count_parameters(g) for g in (with_bias, without)]
        assert sizes[0] - sizes[1] == 8, family
    assert replace(without, bias=True) == with_bias


def test_a_substitute_is_one_row_of_the_count():
    layer = nn.Sequential(Generic(square(8, 16), rank=0.25), nn.ReLU())
    rows = count(layer, (8, 6, 6)).rows
    assert [(row.kind, row.params) for row in rows] == [("Generic", 8 * 9 + 4 * 24), ("ReLU", 0)]
