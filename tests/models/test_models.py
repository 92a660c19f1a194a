"""Every network by name: its size as published, its output, its first weights, and what is refused."""

import math

import pytest
import torch
from torch import nn

from research.errors import UsageError
from research.models import MODELS, check_model, create_model, model_names
from research.models.dry_run import WithoutInitialValues, failure

IMAGENET, CIFAR = (3, 224, 224), (3, 32, 32)

# published or counted by running the reference code; cheap-convolution, sparse, PowerGrad, GraM and NN-Mass papers
PARAMETERS = {
    ("mnist_mlp", 10, (1, 28, 28)): 267_020,
    ("resnet20", 10, CIFAR): 269_722,  # He et al.: 0.27, 0.46, 0.66, 0.85 and 1.7 M
    ("resnet32", 10, CIFAR): 464_154,
    ("resnet44", 10, CIFAR): 658_586,
    ("resnet56", 10, CIFAR): 853_018,
    ("resnet110", 10, CIFAR): 1_727_962,
    ("wrn-28-10", 10, CIFAR): 36_479_194,
    ("wrn_40_2", 10, CIFAR): 2_243_546,
    ("wrn-16-1", 10, CIFAR): 175_066,
    ("wrn-28-2", 10, CIFAR): 1_467_610,
    ("wrn-28-0.75", 10, CIFAR): 209_130,
    ("wrn-28-0.98", 10, CIFAR): 356_376,
    ("cifar_vgg11", 100, CIFAR): 28_518_244,  # pytorch-cifar100: 28.5 and 34.0 M
    ("cifar_vgg16", 100, CIFAR): 34_015_396,
    ("resnet18", 1000, IMAGENET): 11_689_512,
    ("resnet34", 1000, IMAGENET): 21_797_672,
    ("resnet50", 1000, IMAGENET): 25_557_032,
    ("resnet101", 1000, IMAGENET): 44_549_160,
    ("resnet152", 1000, IMAGENET): 60_192_808,
    ("resnext50_32x4d", 1000, IMAGENET): 25_028_904,
    ("resnext101_32x8d", 1000, IMAGENET): 88_791_336,
    ("wide_resnet50_2", 1000, IMAGENET): 68_883_240,
    ("wide_resnet101_2", 1000, IMAGENET): 126_886_696,
    ("resnet18_wobn", 1000, IMAGENET): 11_679_912,
    ("seresnet18", 1000, IMAGENET): 11_779_624,
    ("seresnet50", 1000, IMAGENET): 28_088_024,
    ("seresnet101", 1000, IMAGENET): 49_326_872,
    ("mobilenet_v1", 1000, IMAGENET): 4_231_976,
    ("mobilenet_v2", 1000, IMAGENET): 3_504_872,
}
MOBILENET_V2 = {0.35: 1_677_128, 0.5: 1_968_680, 0.75: 2_636_424, 1.1: 4_074_280, 1.3: 5_386_792, 1.4: 6_108_776}


def on_meta(name, classes=10, shape=CIFAR, **args) -> nn.Module:
    with torch.device("meta"), WithoutInitialValues():
        return create_model(name, classes, shape, **args)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("key", "parameters"), PARAMETERS.items(), ids=lambda v: v[0] if isinstance(v, tuple) else "")
def test_parameter_count_is_the_published_one(key, parameters):
    assert count(on_meta(*key)) == parameters


@pytest.mark.parametrize(("width", "parameters"), MOBILENET_V2.items())
def test_mobilenet_v2_widths_have_the_published_counts(width, parameters):
    assert count(on_meta("mobilenet_v2", 1000, IMAGENET, width_mult=width)) == parameters


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("shape", [CIFAR, (1, 64, 64)], ids=str)
def test_every_model_gives_one_logit_a_class(name, shape):
    assert failure(MODELS[name], {}, shape) is None
    with torch.device("meta"), torch.no_grad(), WithoutInitialValues():
        assert MODELS[name](7, shape).eval()(torch.empty(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["mnist_mlp", "resnet8", "wrn-10-1", "mobilenet_v1", "resnet18", "seresnet18"])
def test_every_parameter_learns_on_digits(name):
    torch.manual_seed(0)
    model = create_model(name, 10, (1, 8, 8))
    nn.functional.cross_entropy(model(torch.randn(16, 1, 8, 8)), torch.arange(16) % 10).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "name", ["resnet20", "wrn-16-1", "resnet18", "seresnet18", "resnet18_wobn", "mobilenet_v2", "mobilenet_v1"]
)
def test_convolutions_start_with_the_published_variance(name):
    """Normal with std sqrt(2 / (k k out)), depthwise kernels included."""
    torch.manual_seed(0)
    for conv in (m for m in create_model(name).modules() if isinstance(m, nn.Conv2d)):
        std = math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels))
        assert conv.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(conv.weight.numel()))


def test_gammas_start_at_one_unless_zero_init():
    for name in ("resnet18", "seresnet18"):
        plain, zero = create_model(name), create_model(name, zero_init=True)
        assert all((m.weight == 1).all() for m in plain.modules() if isinstance(m, nn.BatchNorm2d))
        assert all((stage[1].bn2.weight == 0).all() for stage in (zero.layer1, zero.layer4))


def test_without_batch_norm_resnet18_starts_as_the_same_function():
    torch.manual_seed(0)
    normed = create_model("resnet18").eval()
    bare = create_model("resnet18_wobn").eval()
    bare.load_state_dict({k: v for k, v in normed.state_dict().items() if k in bare.state_dict()})
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(bare(x), normed(x), rtol=1e-2, atol=1e-3)  # eps of batch norm


def test_mnist_mlp_takes_hidden_widths():
    assert count(create_model("mnist_mlp", hidden=[6, 30])) == 5_276  # the small dense networks of sparse training
    assert count(create_model("mnist_mlp", hidden=[3, 20])) == 2_678
    assert check_model("mnist_mlp", {"hidden": [6, 0]}) == ["model_args.hidden=[6, 0]: each must be >= 1"]


def test_mnist_mlp_has_biases_only_without_batch_norm():
    plain = create_model("mnist_mlp", 10, (1, 28, 28), batch_norm=False)
    assert count(plain) == 266_200 + 410
    limits = [1 / math.sqrt(n) for n in (784, 300, 100)]
    linears = [m for m in plain if isinstance(m, nn.Linear)]
    for linear, limit in zip(linears, limits, strict=True):
        assert 0.9 * limit < linear.weight.abs().max() <= limit and (linear.bias == 0).all()


def test_option_a_shortcut_is_the_subsampled_identity_between_zeros():
    x = torch.randn(2, 16, 8, 8)
    y = create_model("resnet8").layer2[0].shortcut(x)
    torch.testing.assert_close(y[:, 8:24], x[:, :, ::2, ::2], rtol=0, atol=0)
    assert (y[:, :8] == 0).all() and (y[:, 24:] == 0).all()
    assert count(on_meta("resnet20", shortcut="B")) == 272_474


def test_cifar_stem_keeps_the_resolution():
    model = create_model("resnet18", stem="cifar").eval()
    assert model.maxpool(model.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 32, 32)


def test_wrn_shortcut_convolution_takes_the_activated_input():
    block = create_model("wrn-10-2").group2[0]
    assert isinstance(block.shortcut, nn.Conv2d)
    x = torch.randn(2, 32, 8, 8)
    nn.init.zeros_(block.conv2.weight)
    torch.testing.assert_close(block(x), block.shortcut(torch.relu(block.bn1(x))), rtol=0, atol=0)


def test_equal_seeds_give_equal_weights():
    torch.manual_seed(3)
    first = create_model("resnet8").state_dict()
    torch.manual_seed(3)
    second = create_model("resnet8").state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_library_names_reach_torchvision_and_timm():
    assert count(on_meta("torchvision:squeezenet1_1", 1000, IMAGENET)) == 1_235_496
    assert count(on_meta("timm:resnet18", 1000, IMAGENET)) == 11_689_512
    assert on_meta("timm:resnet18", 10, (1, 32, 32)).conv1.in_channels == 1


@pytest.mark.parametrize(
    ("name", "args", "shape", "line"),
    [
        ("resnet19", {}, None, "unknown model 'resnet19'; did you mean 'resnet18'?"),
        ("torchvision:resnet19", {}, None, "unknown model 'torchvision:resnet19'; did you mean 'resnet18'?"),
        ("timm:resnett18", {}, None, "unknown model 'timm:resnett18'; did you mean 'resnet18'?"),
        ("wrn-27-10", {}, None, "depth must be 6n + 4 (10, 16, 22, 28, …); nearest is wrn-28-10"),
        ("wrn-28-0", {}, None, "leaves no channels"),
        ("resnet8", {"shortcut": "C"}, None, "model_args.shortcut='C': expected A | B"),
        ("resnet8", {"widht": 2}, None, "unknown parameter 'model_args.widht'"),
        ("wrn-16-1", {"dropout": 1}, None, "model_args.dropout=1: must be >= 0 and < 1"),
        ("resnet18", {"zero_init": "maybe"}, None, "model_args.zero_init='maybe': expected bool"),
        ("timm:resnet18", {"foo": 1}, None, "unexpected keyword argument 'foo'"),
        ("resnet8", {}, (2,), "model='resnet8': cannot take inputs of shape (2,)"),
        ("cifar_vgg11", {}, (3, 8, 8), "model='cifar_vgg11': cannot take inputs of shape (3, 8, 8)"),
        ("torchvision:resnet18", {}, (1, 32, 32), "take 3 channels, not 1"),
    ],
)
def test_mistake_is_one_line_that_names_it(name, args, shape, line):
    problems = check_model(name, args, shape)
    assert len(problems) == 1 and line in problems[0] and "\n" not in problems[0]
    if shape is None:
        with pytest.raises(UsageError):
            create_model(name, **args)


def test_what_the_data_set_decides_is_no_model_argument():
    assert "unknown parameter 'model_args.num_classes'" in check_model("resnet8", {"num_classes": 5})[0]


def test_every_problem_of_the_arguments_is_reported():
    assert len(check_model("resnet18", {"stem": "x", "zero_init": 7, "foo": 1})) == 3


@pytest.mark.parametrize(
    ("name", "parameters"), [("mnist_mlp", 267_020), ("resnet20", 269_722), ("mobilenet_v1", 4_231_976)]
)
def test_without_data_a_network_is_that_of_the_data_it_is_known_for(name, parameters):
    assert count(create_model(name)) == parameters


@pytest.mark.parametrize(("width", "parameters"), [(0.54, 8_167_095), (0.46, 5_771_217)])
def test_thin_resnets_have_the_published_sizes(width, parameters):
    assert sum(p.numel() for p in create_model("resnet50", width=width).parameters()) == parameters
