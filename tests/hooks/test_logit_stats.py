"""Logit statistics: the numbers of a batch, and their exact means over epochs, batches and processes."""

import signal

import numpy as np
import pytest
import torch
from conftest import GOLDENS, assert_same_run, rows
from hypothesis import given
from hypothesis import strategies as st

from research import processes
from research.hooks import HOOKS, Hook
from research.hooks.logit_stats import LogitStatistics, add, logit_statistics, means
from research.runs.run import Run
from research.training import outcome
from research.training.loop import fit

GOLDEN = GOLDENS / "power-grad"
STATISTICS = sorted(path.stem for path in GOLDEN.glob("stats_*.npz"))


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_equal_the_golden_ones(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    z = torch.tensor(golden["logits"])
    assert LogitStatistics._fields == ("norm", "mean", "max", "var")
    np.testing.assert_allclose(torch.stack(logit_statistics(z.double())), golden["stats64"], rtol=1e-12)
    np.testing.assert_allclose(torch.stack(logit_statistics(z)), golden["stats32"], rtol=1e-6)


def test_means_over_batches_count_every_sample_once():
    (name,) = (name for name in STATISTICS if "batches" in name)
    golden = np.load(GOLDEN / f"{name}.npz")
    sums = torch.zeros(5, dtype=torch.float64)
    for batch in torch.tensor(golden["logits"]).double().split(golden["batch_sizes"].tolist()):
        add(sums, batch)
    found = means(sums)
    assert found.pop("images") == 40
    np.testing.assert_allclose(list(found.values()), golden["val_average_sample_weighted"], rtol=1e-12)


@given(n=st.integers(1, 20), classes=st.integers(1, 9), seed=st.integers(0, 99), factor=st.floats(0.1, 8))
def test_scaled_logits_scale_the_statistics_and_permuted_ones_keep_them(n, classes, seed, factor):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    found = torch.stack(logit_statistics(z))
    scaled = torch.stack(logit_statistics(-factor * z))
    torch.testing.assert_close(scaled[[0, 1, 3]], found[[0, 1, 3]] * torch.tensor([factor, factor, factor**2]).double())
    permuted = z[:, torch.randperm(classes, generator=generator)][torch.randperm(n, generator=generator)]
    torch.testing.assert_close(torch.stack(logit_statistics(permuted)), found)
    assert classes > 1 or found[3] == 0


def test_half_precision_is_computed_in_float32():
    z = torch.full((2, 1000), 60.0, dtype=torch.float16)  # whose squares would overflow
    norm, mean, largest, var = logit_statistics(z)
    assert norm.dtype == torch.float32 and norm.item() == pytest.approx(60 * 1000**0.5)
    assert (mean, largest, var) == (60, 60, 0)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_rows_are_the_statistics_of_all_logits_of_the_epoch(tiny, monkeypatch, accumulation):
    seen = {"train_logits": [], "val_logits": []}

    class Keep(Hook):
        def loss(self, run, loss):
            seen["train_logits"].append(run.logits.detach().clone())
            return loss

        def evaluated(self, run, logits, targets):
            seen["val_logits"].append(logits.clone())

    monkeypatch.setitem(HOOKS, "keep", Keep)
    config = tiny(epochs=1, accumulation=accumulation, log_interval=4, hooks={"logit_stats": {}, "keep": {}})
    found = {row["kind"]: row for row in rows(fit(Run.create(config)))}
    for split, logits in seen.items():
        z = torch.cat(logits).double()
        assert found[split]["images"] == len(z)
        for name, value in logit_statistics(z)._asdict().items():
            assert found[split][name] == pytest.approx(value.item(), rel=1e-5)


def test_run_stopped_between_two_rows_gives_the_same_means(tiny, monkeypatch):
    """Where a lone process may save what the next row has so far."""

    class StopOnce(Hook):
        def step_end(self, run):
            if run.step == 6 and run.name == "stopped" and not run.paths.checkpoints.exists():
                processes._stops.add(signal.SIGTERM)

    monkeypatch.setitem(HOOKS, "stop_once", StopOnce)
    whole, stopped = (
        tiny(epochs=1, name=name, hooks={"logit_stats": {}, "stop_once": {}}) for name in ("a", "stopped")
    )
    with pytest.raises(outcome.Stopped):
        fit(Run.create(stopped))
    processes._stops.clear()
    assert torch.load(*Run.create(stopped).paths.checkpoints.glob("*.pt"), weights_only=True)["batch"] == 6
    assert_same_run(fit(Run.create(whole)), fit(Run.create(stopped)))
