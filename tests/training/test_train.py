"""The loop: what one step is, and what a run gives whatever happens to its processes."""

import math

import pytest
import torch
from conftest import Killed, assert_same_run, rows, weights

from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.runs.run import Run
from research.training.loop import fit


def trained(config) -> Run:
    return fit(Run.create(config))


def test_network_learns_the_digits(tiny):
    run = trained(tiny(epochs=8))
    assert run.best_top1 > 90
    assert run.status["status"] == "finished" and run.status["best_top1"] == run.best_top1
    assert (run.dir / "best.safetensors").exists()


def test_same_seed_same_run_other_seed_other_run(tiny):
    one, again, other = trained(tiny(name="a")), trained(tiny(name="b")), trained(tiny(name="c", seed=1))
    assert_same_run(one, again)
    assert rows(one) != rows(other)


@pytest.mark.parametrize("cut", [1, 4, 5, 8, 11, 12, 21])
def test_resumed_run_equals_uninterrupted(tiny, power_cut, cut):
    whole = trained(tiny(name="whole", power_cut=True, checkpoint_minutes=0))
    power_cut.at = cut
    config = tiny(name="cut", power_cut=True, checkpoint_minutes=0)
    with pytest.raises(Killed):
        trained(config)
    assert_same_run(whole, trained(config))


def test_finished_run_trains_no_further(tiny):
    run = trained(tiny())
    before = run.paths.metrics.read_bytes()
    assert_same_run(run, trained(tiny()))
    assert run.paths.metrics.read_bytes() == before


def test_accumulated_micro_batches_are_the_whole_batch(tiny):
    whole, parts = trained(tiny(name="whole", accumulation=1)), trained(tiny(name="parts", accumulation=4))
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], weight, rtol=1e-4, atol=1e-5)


def test_nan_loss_stops_and_names_step_and_run(tiny):
    config = tiny(name="wild", lr=1e20, momentum=0.0, log_interval=1, checkpoint_minutes=0)
    with pytest.raises(UsageError, match=r"(loss is (nan|inf)|a weight is not finite) at step \d+ .* of run wild"):
        trained(config)
    run = Run.open(Run.create(config).dir)
    assert run.status["status"] == "failed" and "of run wild" in run.status["message"]
    for path in run.paths.checkpoints.glob("*.pt"):
        state = torch.load(path, weights_only=True)
        assert all(w.isfinite().all() for w in state["model"].values())


def test_nan_names_the_first_bad_step_of_a_row(tiny, monkeypatch):
    class Bad(Hook):
        def loss(self, run, loss):
            return loss * math.nan if run.step == 5 else loss

    monkeypatch.setitem(HOOKS, "bad", Bad)
    with pytest.raises(UsageError, match="loss is nan at step 6 "):
        trained(tiny(bad=True, accumulation=2, log_interval=8))


def test_every_validation_sample_counts_once(tiny):
    run = trained(tiny(epochs=1))
    (row,) = [row for row in rows(run) if row["kind"] == "val"]
    assert row["images"] == len(run.val_loader.dataset_indices) if hasattr(run.val_loader, "dataset_indices") else 360


def test_norm_and_bias_are_spared_from_decay(tiny):
    run = trained(tiny(epochs=1, model="resnet8", decay_norm_and_bias=False))
    decayed, spared = run.optimizer.param_groups
    assert decayed["weight_decay"] > 0 == spared["weight_decay"]
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in spared["params"])


def test_bf16_and_adamw_train(tiny):
    run = trained(tiny(epochs=1, amp="bf16", optimizer="adamw", lr=1e-3))
    assert run.status["status"] == "finished"


def test_clipping_bounds_the_whole_gradient(tiny, monkeypatch):
    norms = []

    class Norms(Hook):
        def grads(self, run):
            norms.append(torch.stack([p.grad.norm() for p in run.model.parameters()]).norm().item())

    monkeypatch.setitem(HOOKS, "norms", Norms)
    trained(tiny(epochs=1, clip_norm=0.01, norms=True))
    assert max(norms) <= 0.01 * (1 + 1e-4)


def test_events_come_in_order_and_once_a_step(tiny, monkeypatch):
    seen = []

    class Spy(Hook):
        def build(self, run):
            seen.append("build")

        def setup(self, run):
            seen.append("setup")

        def epoch_start(self, run):
            seen.append("epoch_start")

        def loss(self, run, loss):
            seen.append("loss")
            return loss

        def grads(self, run):
            seen.append("grads")

        def step_end(self, run):
            seen.append("step_end")

        def epoch_end(self, run):
            seen.append("epoch_end")

    monkeypatch.setitem(HOOKS, "spy", Spy)
    trained(tiny(epochs=1, accumulation=2, batch_size=718, spy=True))
    step = ["loss", "loss", "grads", "step_end"]
    assert seen == ["build", "setup", "epoch_start", *step, *step, "epoch_end"]
