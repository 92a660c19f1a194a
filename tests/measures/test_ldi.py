"""LDI against the published program, autograd and itself: modes, averaging, many networks at once, failing solvers."""

import json
import random

import numpy as np
import pytest
import torch
from conftest import GOLDENS
from dense_goldens import STORED, renumbered, stored_mlp
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import UsageError
from research.measures import ldi as module
from research.measures.ldi import ldi, ldi_many, scaled_svdvals, sequence_ldi
from research.models import create_model

STATISTICS = json.loads((GOLDENS / "nn-mass" / "ldi_init_stats.json").read_text())


@pytest.mark.parametrize("row", STORED, ids=lambda r: r["name"])
@pytest.mark.parametrize("mode", ["exact", "reference", "post"])
def test_ldi_of_stored_networks(row, mode):
    model, x = stored_mlp(row)
    found, expected = ldi(model, x, mode, row["batch"]), row["modes"][mode]
    assert found.mean == pytest.approx(expected["mean"], rel=1e-7)
    assert found.std == pytest.approx(expected["std"], rel=1e-7)
    assert found.layers == pytest.approx(expected["per_layer_mean"], abs=1e-8)
    assert found.count == expected["n_sv_per_sample"] * len(x)
    if mode == "reference":
        run = row["reference_run"]
        batches = [ldi(model, part, mode) for part in x.split(row["batch"])]
        assert [b.mean for b in batches] == pytest.approx(run["f64_batch_mean"], rel=1e-7)
        assert [b.std for b in batches] == pytest.approx(run["f64_batch_std"], rel=1e-7)
    single = ldi(model.float(), x.float(), mode, row["batch"])
    assert (single.mean, single.std) == pytest.approx((found.mean, found.std), abs=2e-6)


@pytest.mark.parametrize("row", STORED, ids=lambda r: r["name"])
def test_exact_ldi_is_that_of_the_derivatives_that_autograd_finds(row):
    """Of every stage of the network's own graph: s_0 by x, h_1 by s_0, h_l by z_l."""
    model, x = stored_mlp(row)
    for sample in x[:3, None]:
        z, h = model.states(sample.requires_grad_())
        jacobians = [
            torch.stack([torch.autograd.grad(e, read, retain_graph=True)[0][0] for e in out[0]])
            for read, out in zip(z, [z[1], *h[1:]], strict=True)
        ]
        values = [torch.linalg.svdvals(j) for j in jacobians]
        found = ldi(model, sample)
        assert found.layers == pytest.approx([v.mean().item() for v in values], abs=1e-8)
        assert found.pooled_std == pytest.approx(torch.cat(values).std().item(), abs=1e-8)


def test_mean_and_std_are_averaged_over_batches_and_the_pooled_std_is_not():
    model, x = stored_mlp(STORED[0])
    whole, parts = ldi(model, x, batch_size=25), [ldi(model, part) for part in x.split(25)]
    assert whole.mean == pytest.approx(np.mean([p.mean for p in parts]), rel=1e-12)
    assert whole.std == pytest.approx(np.mean([p.std for p in parts]), rel=1e-12)
    assert whole.pooled_std == pytest.approx(ldi(model, x, batch_size=80).std, rel=1e-12)
    assert whole.pooled_std != pytest.approx(whole.std, rel=1e-6)


@pytest.mark.parametrize("mode", ["exact", "reference", "post"])
@pytest.mark.parametrize("act", ["elu", "relu"])
def test_many_networks_at_once_are_each_as_alone(mode, act, monkeypatch):
    torch.manual_seed(0)
    models = [create_model("dense_mlp", 10, (6,), width=4, depth=5, tc=5, act=act) for _ in range(3)]
    x = torch.randn(30, 6)
    alone = [ldi(model, x, mode, batch_size=8) for model in models]
    monkeypatch.setattr(module, "CHUNK", 21)  # 7 samples at a time
    for many, one in zip(ldi_many(models, x, mode, batch_size=8), alone, strict=True):
        assert many.count == one.count
        # zeros come out as the root of a rounding error
        for name in ("mean", "std", "pooled_std", "layers"):
            assert getattr(many, name) == pytest.approx(getattr(one, name), abs=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(3, 8), st.integers(0, 20), st.sampled_from(["elu", "relu"]), st.integers(0, 99))
def test_renaming_hidden_neurons_leaves_ldi(width, depth, tc, act, seed):
    torch.manual_seed(seed)
    args = {"width": width, "depth": depth, "tc": tc, "act": act}
    model, renamed = (create_model("dense_mlp", 3, (5,), **args).double() for _ in range(2))
    renamed.load_state_dict(renumbered(model.state_dict(), width, depth, random.Random(seed)))
    x = torch.randn(7, 5, dtype=torch.float64)
    for mode in ("exact", "reference", "post"):
        one, other = ldi(model, x, mode), ldi(renamed, x, mode)
        assert (one.mean, *one.layers) == pytest.approx((other.mean, *other.layers), abs=1e-7)


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["rows", "cols", "none"]), st.integers(0, 99))
def test_scaled_svdvals_are_those_of_the_product(rows, columns, side, seed):
    torch.manual_seed(seed)
    w = torch.randn(2, rows, columns, dtype=torch.float64)
    r = torch.rand(2, 5, rows, dtype=torch.float64) if side == "rows" else None
    c = torch.rand(2, 5, columns, dtype=torch.float64) if side == "cols" else None
    j = w[:, None] * (1 if r is None else r[..., None]) * (1 if c is None else c[..., None, :])
    found = scaled_svdvals(w, r, c)
    torch.testing.assert_close(found, torch.linalg.svdvals(j).flip(-1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("failure", ["some NaN", "raises"])
@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_where_eigenvalues_fail_the_jacobian_is_decomposed(failure, mode, monkeypatch):
    model, x = stored_mlp(STORED[0])
    expected, solve = ldi(model, x, mode), torch.linalg.eigvalsh

    def failing(gram):
        if failure == "raises":
            raise torch.linalg.LinAlgError("no convergence")
        values = solve(gram)
        values[:, ::3] = torch.nan
        return values

    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    found = ldi(model, x, mode)
    assert (found.mean, found.std, *found.layers) == pytest.approx(
        (expected.mean, expected.std, *expected.layers), rel=1e-7
    )


@pytest.mark.parametrize(
    "row",
    [r for r in STATISTICS if r["width"] == r["depth"] == 8 and r["tc"] in (0, 10)],
    ids=lambda r: f"tc={r['tc']}",
)
def test_ldi_of_fresh_networks_on_mnist(row, shared_data):
    with np.load(shared_data / "mnist.npz") as arrays:
        x = torch.from_numpy(arrays["test_images"][: row["n_images"]]).flatten(1) / 255
    torch.manual_seed(0)
    n = row["n_inits"] // 2
    models = [create_model("dense_mlp", 10, (784,), **{k: row[k] for k in ("width", "depth", "tc")}) for _ in range(n)]
    for mode in ("exact", "reference"):
        found, expected = ldi_many(models, x, mode, row["batch"]), row[mode]
        for name, value in (("ldi_mean", "mean"), ("ldi_std", "std")):
            mean = np.mean([getattr(one, value) for one in found])
            assert mean == pytest.approx(expected[name], abs=4 * expected[f"{name}_sd_over_inits"] / n**0.5), mode


def test_mistakes_are_refused():
    small, large = (create_model("dense_mlp", 10, (4,), width=w) for w in (4, 5))
    x = torch.rand(3, 4)
    for told, call in {
        "did you mean 'exact'": lambda: ldi(small, x, "exakt"),
        "batch_size=0": lambda: ldi(small, x, batch_size=0),
        "at least one sample": lambda: ldi(small, x[:0]),
        "one width, depth, tc and activation": lambda: ldi_many([small, large], x),
        "at least one network": lambda: ldi_many([], x),
        "not for Sequential": lambda: ldi(create_model("mnist_mlp"), x),
    }.items():
        with pytest.raises(UsageError, match=told):
            call()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_ldi_of_a_row_of_layers_is_that_of_the_derivatives_that_autograd_finds(batch_norm):
    """Of each linear layer with the ReLU before it and the batch norm behind it, the statistics held fast."""
    generator = torch.Generator().manual_seed(0)
    model = create_model("mnist_mlp", input_shape=(1, 3, 4), hidden=(7, 5), num_classes=4, batch_norm=batch_norm)
    model[1].weight.data[torch.rand(7, 12, generator=generator) < 0.7] = 0  # as a mask leaves it
    model, x = model.double().train(), torch.randn(20, 1, 3, 4, dtype=torch.float64, generator=generator)
    norms = [layer for layer in model if isinstance(layer, torch.nn.BatchNorm1d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 2, generator=generator)
        norm.momentum = 1.0  # the statistics of the last batch
    found = sequence_ldi(model, x)
    model(x)
    for norm in norms:
        norm.running_var *= 19 / 20  # biased, as training normalises
    model.eval()
    cuts = [i for i, layer in enumerate(model) if isinstance(layer, torch.nn.ReLU)]
    parts, before = [], 1
    for cut in [*cuts, len(model)]:
        parts.append(model[before:cut])
        before = cut
    values, h = [], x.flatten(1)
    for part in parts:
        each = [torch.linalg.svdvals(torch.autograd.functional.jacobian(part, row[None]).squeeze()) for row in h]
        values.append(torch.stack(each))
        h = part(h).detach()
    assert found.layers == pytest.approx([v.mean().item() for v in values], abs=1e-7)
    every = torch.cat([v.flatten() for v in values])
    assert (found.mean, found.count) == (pytest.approx(every.mean().item(), abs=1e-7), len(every))


def test_ldi_of_a_row_with_other_layers_is_refused():
    with pytest.raises(UsageError, match="not for Conv2d"):
        sequence_ldi(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), torch.zeros(2, 1, 2, 2))
