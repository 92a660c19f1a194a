"""Which weights are sparse and how many of them, against the counts and densities of the published codes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_goldens import about

from research.errors import UsageError
from research.hooks.sparse import StaticSparse, erk_density
from research.hooks.sparse.distributions import count_of, uniform_count
from research.layers.masked import sparse_layers
from research.models import create_model

MODELS = {"mnist_mlp": "mnist_mlp", "cifar10_WideResNet": "wrn-{layers}-{widen}", "imagenet_resnet50": "resnet50"}


@pytest.mark.parametrize("case", about("model_param_counts"))
def test_sparse_tensors_and_their_counts_equal_the_published_code(case):
    said = about("model_param_counts")[case]
    name, *words = case.split("|")
    options = dict(word.split("=") if "=" in word else (word, "true") for word in words)
    args = {"batch_norm": False} if "no_batch_norm" in options else {}
    with torch.device("meta"):
        model = create_model(MODELS[name].format(**options), **args)
    layers = sparse_layers(model, sparse_downsample="sparse_downsample" in options)
    sparsity = float(options.get("s", options.get("s_conv")))
    hook = StaticSparse(sparsity=sparsity, granularity=int(options.get("gran", 4)))
    counts = hook.initial_counts(layers)
    sizes = {n: layers[n].weight.shape[hook.granularity :].numel() for n in counts if layers[n].weight.ndim == 4}
    found = sorted([list(layers[n].weight.shape), ones, ones * sizes.get(n, 1)] for n, ones in counts.items())
    if "tensors" in said:
        assert found == said["tensors"]
    active = sum(elements for _, _, elements in found)
    dense = sum(p.numel() for p in model.parameters()) - sum(layers[n].weight.numel() for n in counts)
    assert (active, active + dense) == (said["sparse"], said["learnable"])


def test_er_power_goes_from_uniform_to_erdos_renyi_and_beyond():
    layers = sparse_layers(create_model("mnist_mlp"))
    told = {
        p: StaticSparse(sparsity=0.99, distribution="er", er_power=p).initial_counts(layers) for p in (0, 0.5, 1, 2)
    }
    assert list(told[0].values()) == [2352, 300, 10]
    assert told[1] == StaticSparse(sparsity=0.99, distribution="er").initial_counts(layers)
    first, _, last = ([counts[name] for counts in told.values()] for name in told[0])
    assert sorted(first, reverse=True) == first and sorted(last) == last and len(set(first)) == 4
    assert all(abs(sum(counts.values()) - 2662) <= 3 for counts in told.values())


def test_initial_counts_equal_the_published_code():
    for case in about("misc_scalars")["initial_mask_counts"]:
        assert uniform_count(case["n"], case["sparsity"]) == case["ones"]


@pytest.mark.parametrize("case", about("erk_densities"))
def test_erdos_renyi_densities_equal_the_published_code(case):
    if "|random|" in case or "custom" in case:
        pytest.skip("not Erdos-Renyi")
    _, kind, sparsity = case.split("|")
    layers = about("erk_densities")[case]
    shapes = [shape[::-1] for shape, _, _ in layers]  # (kh, kw, in, out) there
    densities = erk_density(shapes, float(sparsity), kernel=kind.endswith("kernel"))
    assert densities == pytest.approx([density for _, density, _ in layers], rel=1e-9)
    assert [count_of(d, math.prod(s)) for d, s in zip(densities, shapes, strict=True)] == [
        ones for _, _, ones in layers
    ]


shapes = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 300), st.integers(1, 300)),
        st.tuples(st.integers(1, 64), st.integers(1, 64), st.sampled_from([1, 3, 7]), st.sampled_from([1, 3, 7])),
    ),
    min_size=1,
    max_size=12,
)


@given(shapes, st.floats(0.05, 0.99), st.booleans())
def test_erdos_renyi_meets_the_sparsity_asked_for(shapes, sparsity, kernel):
    sizes = [math.prod(shape) for shape in shapes]
    densities = erk_density(shapes, sparsity, kernel=kernel)
    assert all(0 <= density <= 1 for density in densities)
    active = sum(count_of(density, size) for density, size in zip(densities, sizes, strict=True))
    assert abs(1 - active / sum(sizes) - sparsity) <= 2 * len(sizes) / sum(sizes)


def test_wrn_22_2_at_0_9_has_three_dense_layers():
    layers = about("erk_densities")["wrn22_2|erdos_renyi_kernel|0.9"]
    assert sum(d == 1 for d in erk_density([s[::-1] for s, _, _ in layers], 0.9)) == 3


def test_patterns_choose_layers():
    model = create_model("resnet8")
    assert list(sparse_layers(model, only="layer1*conv1 layer3.0.conv2")) == ["layer1.0.conv1", "layer3.0.conv2"]
    assert "layer1.0.conv1" not in sparse_layers(model, keep="layer1*")
    assert {"conv1", "fc"} <= set(sparse_layers(model, only="*"))
    with pytest.raises(UsageError, match="did you mean 'layer1.0.conv2'"):
        sparse_layers(model, only="layer1.0.conv")
    with pytest.raises(UsageError, match="no layer"):
        sparse_layers(model, keep="*")


def test_depthwise_convolutions_and_the_stem_stay_dense():
    model = create_model("mobilenet_v2")
    chosen = sparse_layers(model)
    assert all(module.weight.shape[1] > 1 for module in chosen.values())
    assert "features.0.0" not in chosen and "classifier.1" in chosen


def test_one_weight_shared_by_two_modules_is_one_tensor():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(sparse_layers(model)) == ["0"]
