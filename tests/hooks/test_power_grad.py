"""PowerGrad: the gradient against golden numbers and its own mathematics, the value against plain cross-entropy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import GOLDENS, rows, weights
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from research.config import Config
from research.errors import UsageError
from research.hooks import power_grad
from research.hooks.power_grad import PowerGrad, legacy_gradient, power_grad_cross_entropy
from research.hooks.power_grad_compiled import gradient as compiled_gradient
from research.models import create_model
from research.models.dry_run import WithoutInitialValues
from research.runs.run import Run
from research.training.loop import fit
from research.training.prepare import make_optimizer

GOLDEN = GOLDENS / "power-grad"
GRADIENTS = sorted(path.stem for path in GOLDEN.glob("pgt_*.npz"))
SCALES = sorted(path.stem for path in GOLDEN.glob("forkscale_*.npz"))


def gradient(logits, target, factor=1.0, **options) -> torch.Tensor:
    """The gradient at ``logits`` of ``factor`` times the (summed) loss, divided by it again."""
    z = logits.clone().requires_grad_()
    (power_grad_cross_entropy(z, target, **options) * factor).sum().backward()
    return z.grad / factor


def example(n=6, classes=5, seed=0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return z.to(dtype), torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize(
    ("dtype", "tolerance", "of_value"), [(torch.float64, 1e-12, 1e-9), (torch.float32, 2e-6, 5e-4)]
)
def test_gradient_and_value_equal_the_golden_ones_under_any_loss_scale(name, dtype, tolerance, of_value):
    golden = np.load(GOLDEN / f"{name}.npz")
    z = torch.tensor(golden["logits"], dtype=dtype)
    target = torch.tensor(golden["soft_targets"] if "soft_targets" in golden else golden["labels"])
    options = {"alpha": float(golden["alpha"]), "smoothing": float(golden["smoothing"])}
    options["reduction"] = str(golden["reduction"])
    if "ignore_index" in golden:
        options["ignore_index"] = int(golden["ignore_index"])
    chosen = golden["rows"] if "rows" in golden else slice(None)
    for scale in (1.0, 1e-3, 65536.0):
        found = gradient(z, target, scale, **options)
        np.testing.assert_allclose(found.numpy()[chosen], golden["grad64"], rtol=0, atol=tolerance)
    value = power_grad_cross_entropy(z, target, **options)
    np.testing.assert_allclose(value.numpy(), golden["ce_loss"], rtol=0, atol=of_value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_alpha_one_is_cross_entropy_bit_for_bit(dtype):
    z, y = example(dtype=dtype)
    x = z.clone().requires_grad_()
    plain = F.cross_entropy(x, y, label_smoothing=0.1)
    plain.backward()
    assert torch.equal(power_grad_cross_entropy(z, y, 1.0, 0.1), plain)
    assert torch.equal(gradient(z, y, alpha=1.0, smoothing=0.1), x.grad)


@pytest.mark.parametrize("alpha", [0, -0.25, math.inf, math.nan])
def test_alpha_must_be_a_finite_number_above_zero(alpha):
    with pytest.raises(UsageError, match="alpha"):
        power_grad_cross_entropy(*example(), alpha=alpha)


@given(
    alpha=st.floats(0.01, 4),
    smoothing=st.sampled_from([0, 0.01, 0.1, 0.2, 0.5]),
    n=st.sampled_from([1, 7, 256]),
    classes=st.integers(2, 12),
    seed=st.integers(0, 1000),
)
def test_gradient_is_that_of_the_tempered_loss_and_sums_to_zero(alpha, smoothing, n, classes, seed):
    z, y = example(n, classes, seed)
    found = gradient(z, y, alpha=alpha, smoothing=smoothing)
    q = (1 - smoothing) * F.one_hot(y, classes).double() + smoothing / classes
    torch.testing.assert_close(found, ((alpha * z).softmax(1) - q) / n, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.sum(1), torch.zeros(n).double(), rtol=0, atol=1e-14)
    x = z.clone().requires_grad_()
    (F.cross_entropy(alpha * x, y, label_smoothing=smoothing) / alpha).backward()
    torch.testing.assert_close(found, x.grad, rtol=0, atol=1e-14)
    plain = F.cross_entropy(z, y, label_smoothing=smoothing)
    torch.testing.assert_close(power_grad_cross_entropy(z, y, alpha, smoothing), plain, rtol=0, atol=0)


def test_gradient_ignores_an_offset_and_follows_permutations_of_classes_and_rows():
    z, y = example()
    found = gradient(z, y, alpha=0.3)
    torch.testing.assert_close(gradient(z + 4096, y, alpha=0.3), found, rtol=0, atol=1e-12)
    offset = gradient((8 * z).round().float() / 8 + 4096, y, alpha=0.3)
    torch.testing.assert_close(offset, gradient((8 * z).round().float() / 8, y, alpha=0.3), rtol=0, atol=1e-7)
    classes, order = torch.randperm(5), torch.randperm(6)
    torch.testing.assert_close(gradient(z[:, classes], classes.argsort()[y], alpha=0.3), found[:, classes])
    torch.testing.assert_close(gradient(z[order], y[order], alpha=0.3), found[order])
    one_by_one = torch.cat([gradient(z[i : i + 1], y[i : i + 1], alpha=0.3) for i in range(6)])
    torch.testing.assert_close(one_by_one / 6, found)


def test_soft_targets_equal_hard_ones_and_scale_with_their_mass():
    z, y = example()
    q = F.one_hot(y, 5).double()
    w = torch.tensor([0.5, 2, 1, 3, 0.1]).double()
    for options in ({}, {"smoothing": 0.1}, {"reduction": "sum", "weight": w}, {"reduction": "none", "weight": w}):
        torch.testing.assert_close(gradient(z, q, alpha=0.3, **options), gradient(z, y, alpha=0.3, **options))
        value = power_grad_cross_entropy(z, q, 0.3, **options)
        torch.testing.assert_close(value, power_grad_cross_entropy(z, y, 0.3, **options))
    torch.testing.assert_close(gradient(z, 0.75 * q, alpha=0.3), 0.75 * gradient(z, q, alpha=0.3))


def test_each_row_is_multiplied_by_its_own_upstream_gradient():
    z, y = example()
    upstream = torch.randn(6).double()
    x = z.clone().requires_grad_()
    power_grad_cross_entropy(x, y, 0.3, reduction="none").backward(upstream)
    torch.testing.assert_close(x.grad, upstream[:, None] * 6 * gradient(z, y, alpha=0.3))


def test_class_weights_multiply_the_targets():
    z, y = example()
    w = torch.tensor([0.5, 2, 1, 3, 0.1]).double()
    found = gradient(z, y, alpha=0.3, weight=w, smoothing=0.1)
    q = w * (0.9 * F.one_hot(y, 5) + 0.1 / 5)
    expected = (q.sum(1, keepdim=True) * (0.3 * z).softmax(1) - q) / w[y].sum()
    torch.testing.assert_close(found, expected)
    value = power_grad_cross_entropy(z, y, 0.3, 0.1, weight=w)
    torch.testing.assert_close(value, F.cross_entropy(z, y, w, label_smoothing=0.1))


def test_ignored_rows_have_no_gradient_and_do_not_count():
    z, y = example()
    y[[1, 4]] = 3
    found = gradient(z, y, alpha=0.3, ignore_index=3)
    kept = y != 3
    assert (found[~kept] == 0).all()
    torch.testing.assert_close(found[kept], gradient(z[kept], y[kept], alpha=0.3))
    nothing = torch.full_like(y, 3)
    assert power_grad_cross_entropy(z, nothing, 0.3, ignore_index=3).isnan()  # as F.cross_entropy
    assert (gradient(z, nothing, alpha=0.3, ignore_index=3) == 0).all()


@pytest.mark.parametrize("alpha", [0.05, 0.25, 1.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [50, 1e4, 65504, None], ids=str)
def test_gradient_is_finite_for_every_finite_logit(alpha, dtype, size):
    size = torch.finfo(dtype).max if size is None else size
    z = torch.tensor([[size, -size, 0], [-size, size, 1], [size, size, size], [-size, -size, -size]]).to(dtype)
    y = torch.tensor([0, 0, 1, 2])
    q = F.one_hot(y, 3).to(dtype)
    for target in (y, q, 0.5 * q + 0.5 * q.roll(1, 1)):
        for smoothing in (0, 0.2):
            found = gradient(z, target, alpha=alpha, smoothing=smoothing)
            assert found.dtype == dtype and found.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_class_ruled_out_by_minus_infinity_takes_no_part(soft):
    z, y = example(classes=4)
    ruled_out = torch.cat([z, torch.full((6, 1), -torch.inf)], dim=1)
    target, wider = (F.one_hot(y, 4).double(), F.one_hot(y, 5).double()) if soft else (y, y)
    found = gradient(ruled_out, wider, alpha=0.3)
    assert (found[:, 4] == 0).all()
    torch.testing.assert_close(found[:, :4], gradient(z, target, alpha=0.3))
    value = power_grad_cross_entropy(ruled_out, wider, 0.3)
    torch.testing.assert_close(value, power_grad_cross_entropy(z, target, 0.3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    z, y = example(dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradient(z, y, alpha=0.3)
    exact = gradient(z.double(), y, alpha=0.3)
    for found in (inside, gradient(z, y, alpha=0.3)):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-7)


@given(
    alpha=st.floats(0.01, 4).filter(lambda alpha: alpha != 1),  # 1 is PyTorch's own loss
    smoothing=st.sampled_from([0, 0.1]),
    n=st.sampled_from([1, 7, 64]),
    classes=st.integers(2, 70),
    seed=st.integers(0, 1000),
)
def test_the_compiled_gradient_is_that_of_torch(alpha, smoothing, n, classes, seed):
    z, y = example(n, classes, seed, torch.float32)
    y[::3] = -100
    if not smoothing:
        z[torch.arange(n), (y.clamp(min=0) + 1) % classes] = -torch.inf
    options = {"alpha": alpha, "smoothing": smoothing}
    with pytest.MonkeyPatch.context() as patched:
        used = []
        patched.setattr(power_grad, "_kernel", lambda: lambda *given: used.append(compiled_gradient(*given)))
        compiled = gradient(z, y, 3.0, **options)
        assert used
        patched.setattr(power_grad, "_kernel", lambda: None)
        torch.testing.assert_close(compiled, gradient(z, y, 3.0, **options), rtol=2e-6, atol=1e-7)
    exact = gradient(z.double(), y, **options)
    torch.testing.assert_close(compiled.double(), exact, rtol=0, atol=2e-7)
    assert ((compiled == 0) | (z > -torch.inf)).all() and not compiled[::3].any()


def test_logits_that_are_no_numbers_have_no_gradient_and_raise_nothing():
    z, y = example(dtype=torch.float32)
    z[2, 1] = torch.nan
    found = gradient(z, y, alpha=0.3)
    assert found[2].isnan().all() and found[[0, 1, 3, 4, 5]].isfinite().all()


def test_a_large_power_needs_what_torch_subtracts():
    z, y = torch.zeros(3, 1000), torch.arange(3)
    found = gradient(z, y, alpha=40.0)
    torch.testing.assert_close(found, gradient(z.double(), y, alpha=40.0).float())


def test_maps_of_logits_equal_their_pixels_as_rows():
    z = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    y = torch.randint(5, (2, 3, 4))
    as_rows = gradient(z.movedim(1, -1).reshape(-1, 5), y.reshape(-1), alpha=0.3)
    torch.testing.assert_close(gradient(z, y, alpha=0.3).movedim(1, -1).reshape(-1, 5), as_rows)


def test_second_derivative_is_alpha_times_the_covariance():
    z, y = example(n=1)
    p = (0.3 * z[0]).softmax(0)
    x = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(power_grad_cross_entropy(x, y, 0.3), x, create_graph=True)
    second = torch.stack([torch.autograd.grad(g, x, retain_graph=True)[0][0] for g in first[0]])
    torch.testing.assert_close(second, 0.3 * (p.diag() - p.outer(p)))
    upstream = torch.randn((), dtype=torch.float64, requires_grad=True)

    def gradient_of(z, upstream):
        return torch.autograd.grad(upstream * power_grad_cross_entropy(z, y, 0.3), z, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient_of, (x, upstream))


@pytest.mark.slow  # the import of functorch
def test_per_sample_gradients_by_vmap_equal_single_ones():
    z, y = example()
    each = torch.func.vmap(torch.func.grad(lambda z, y: power_grad_cross_entropy(z, y, 0.3)))(z, y)
    torch.testing.assert_close(each, 6 * gradient(z, y, alpha=0.3))


def test_compiled_equals_eager():
    z, y = example()
    compiled = torch.compile(power_grad_cross_entropy, backend="aot_eager", fullgraph=True)
    x = z.clone().requires_grad_()
    value = compiled(x, y, 0.3, 0.1)
    value.backward()
    torch.testing.assert_close(value, power_grad_cross_entropy(z, y, 0.3, 0.1))
    torch.testing.assert_close(x.grad, gradient(z, y, alpha=0.3, smoothing=0.1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()


@pytest.mark.parametrize("initial_scale", [256.0, 65536.0])
def test_loss_scale_of_mixed_precision_does_not_matter(initial_scale):
    """Where the published code computes another gradient for every scale."""
    ends = []
    for scale in (1.0, initial_scale):
        model, scaler = network(), torch.amp.GradScaler("cpu", init_scale=scale)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(5):
            z, y = model(torch.randn(7, 6, generator=torch.Generator().manual_seed(step)).double()), torch.arange(7) % 5
            optimizer.zero_grad()
            scaler.scale(power_grad_cross_entropy(z, y, 0.25)).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == scale
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_training_equals_plain_cross_entropy_with_the_last_layer_reparametrised():
    """With alpha times the last layer's weights and rate, and 1 / alpha of its decay; the rest inversely."""
    alpha, lr, decay = 0.3, 0.1, 1e-3
    ours, plain = network(), network()
    with torch.no_grad():
        plain[2].weight *= alpha
        plain[2].bias *= alpha
    groups = [
        {"params": plain[0].parameters(), "lr": lr / alpha, "weight_decay": alpha * decay},
        {"params": plain[2].parameters(), "lr": alpha * lr, "weight_decay": decay / alpha},
    ]
    trained = (
        (ours, torch.optim.SGD(ours.parameters(), lr, 0.9, weight_decay=decay, nesterov=True), alpha),
        (plain, torch.optim.SGD(groups, momentum=0.9, nesterov=True), 1.0),
    )
    x, y = torch.randn(20, 6).double(), torch.randint(5, (20,))
    for _ in range(100):
        for model, optimizer, power in trained:
            optimizer.zero_grad()
            power_grad_cross_entropy(model(x), y, power).backward()
            optimizer.step()
    torch.testing.assert_close(alpha * ours(x), plain(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SCALES)
def test_legacy_gradient_is_that_of_the_published_code(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    z, y = torch.tensor(golden["logits"]), torch.tensor(golden["labels"])
    found = legacy_gradient(z, y, float(golden["alpha"]), float(golden["smoothing"]), float(golden["loss_scale"]))
    np.testing.assert_allclose(found.numpy(), golden["grad_fork64"], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found.isnan().any(1), golden["nan_rows"])


def test_legacy_gradient_is_ours_where_the_loss_scale_is_the_squared_batch():
    z, y = example()
    torch.testing.assert_close(legacy_gradient(z, y, 0.25, 0.1, 36.0), gradient(z, y, alpha=0.25, smoothing=0.1))


# of the published trainer: parameters with and without weight decay, and their tensors
NETWORKS = {
    "resnet18": (11_678_912, 10_600, 62),
    "resnet18_wobn": (11_678_912, 1_000, 22),
    "resnet50": (25_502_912, 54_120, 161),
    "resnet101": (44_442_816, 106_344, 314),
    "seresnet18": (11_766_976, 12_648, 94),
    "seresnet50": (28_017_856, 70_168, 225),
    "seresnet101": (49_185_984, 140_888, 446),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_decay_the_published_parameters(name):
    config = Config.load({"recipe": "power-grad-imagenet", "model": name})
    with torch.device("meta"), WithoutInitialValues():
        model = create_model(name, 1000, (3, 224, 224))
    decayed, spared = make_optimizer(
        SimpleNamespace(config=config, model=model, device=torch.device("cpu"))
    ).param_groups
    sizes = [sum(p.numel() for p in group["params"]) for group in (decayed, spared)]
    assert (*sizes, len(decayed["params"]) + len(spared["params"])) == NETWORKS[name]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (5e-4, 0)


# -- the hook


def test_modify_softmax_is_alpha_and_zero_is_off():
    assert Config.load({"modify_softmax": 0.25}).hooks == Config.load({"power_grad.alpha": 0.25}).hooks
    assert Config.load({"modify_softmax": 0}) == Config.load()
    with pytest.raises(UsageError, match="modify_softmax=-1: must be > 0"):
        Config.load({"modify_softmax": -1})


def test_hook_trains_on_its_gradient_with_the_smoothing_of_the_run(tiny):
    config = tiny(epochs=1, smoothing=0.1, hooks={"power_grad": {"alpha": 0.5}})
    run = fit(Run.create(config))
    model = run.model.double().train()
    ((inputs, targets),) = run.train_loader.head(1)
    z = model(inputs.double())
    run.criterion(z, targets).backward()
    expected = ((0.5 * z).softmax(1) - 0.9 * F.one_hot(targets, 10).double() - 0.01).mean(0)
    torch.testing.assert_close(model[-1].bias.grad, expected)


def test_accumulated_gradients_equal_those_of_the_whole_batch(tiny):
    whole, split = (
        weights(fit(Run.create(tiny(epochs=1, name=f"in{n}", accumulation=n, hooks={"power_grad": {}}))))
        for n in (1, 4)
    )
    for key, weight in whole.items():
        torch.testing.assert_close(split[key], weight, rtol=1e-4, atol=1e-6)


def test_rows_hold_the_validation_loss_of_alpha_times_the_logits(tiny):
    run = fit(Run.create(tiny(epochs=2, hooks={"power_grad": {"alpha": 0.5}})))
    run.model.eval()
    with torch.no_grad():
        batches = [(run.model(inputs), targets) for inputs, targets in run.val_loader]
    z, y = (torch.cat(part) for part in zip(*batches, strict=True))
    last = [row for row in rows(run) if row["kind"] == "power_grad"][-1]
    assert last["epoch"] == 1 and last["alpha"] == 0.5
    assert last["loss_scaled"] == pytest.approx(F.cross_entropy(0.5 * z, y).item(), rel=1e-5)


def test_final_alpha_is_approached_linearly(tiny):
    hook = PowerGrad(alpha=0.2, final_alpha=1.0)
    assert [hook.alpha_at(epoch, 5) for epoch in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [PowerGrad(alpha=0.2).alpha_at(epoch, 5) for epoch in range(5)] == [0.2] * 5
    run = fit(Run.create(tiny(epochs=2, hooks={"power_grad": {"alpha": 0.2, "final_alpha": 0.6}})))
    assert [row["alpha"] for row in rows(run) if row["kind"] == "power_grad"] == pytest.approx([0.2, 0.6])
