"""What survives the end of a process: when the state is saved, what it holds, and how training continues from it."""

from __future__ import annotations

import os
import time

import torch

from research.checkpoints import checkpoint
from research.runs.run import Run
from research.training.meter import Meter
from research.training.outcome import Stopped, stop_requested


def checkpoint_due(run: Run) -> bool:
    return time.monotonic() - run.saved_at >= 60 * run.config.checkpoint_minutes


def save(run: Run, meter: Meter) -> None:
    """Checkpoint and status of this moment. Everything in it is equal on all ranks, so rank 0 writes it alone.

    Raises:
        UsageError: a weight is not finite, or the checkpoint cannot be written.
        Stopped: after the checkpoint, when training was asked to stop and is not complete anyway.
    """
    norms = torch.stack(torch._foreach_norm([p.detach() for p in run.model.parameters()]))
    if not norms.isfinite().all():
        raise run.diverged("a weight is not finite", run.step)
    if run.rank == 0:
        state = {
            "step": run.step,
            "epoch": run.epoch,
            "batch": run.batch,
            "best_top1": run.best_top1,
            "last_top1": run.last_top1,
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "hooks": {name: hook.state_dict() for name, hook in run.hooks.items()},
            "meter": meter.state_dict(),
            "metrics_bytes": run.paths.metrics.stat().st_size,
        }
        checkpoint.save(run.paths.checkpoints, run.step, state)
    report(run, meter)
    run.saved_at = time.monotonic()
    if stop_requested() and run.epoch < run.epochs:
        raise Stopped


def report(run: Run, meter: Meter) -> None:
    """How far the run is, in its status."""
    if run.rank == 0:
        run.set_status(
            "running",
            epoch=run.epoch,
            epochs=run.epochs,
            step=run.step,
            steps=run.epochs * run.steps_per_epoch,
            best_top1=run.best_top1 if run.best_top1 >= 0 else None,
            last_top1=run.last_top1,
            seconds=meter.seconds_in_all,
        )


def resume(run: Run) -> Meter:
    """Continue from the newest whole checkpoint, on every rank alike; rows written after it are dropped."""
    meter = Meter(run)
    run.saved_at = time.monotonic()
    state = checkpoint.load_newest(run.paths.checkpoints, run.device)
    if state is None:
        if run.rank == 0:
            run.paths.metrics.write_bytes(b"")
        return meter
    run.step, run.epoch, run.batch = state["step"], state["epoch"], state["batch"]
    run.best_top1, run.last_top1 = state["best_top1"], state["last_top1"]
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    for name, hook in run.hooks.items():
        hook.load_state_dict(state["hooks"][name])
    meter.load_state_dict(state["meter"])
    if run.rank == 0:
        os.truncate(run.paths.metrics, state["metrics_bytes"])
        print(f"{run.name}: continuing at epoch {run.epoch}, step {run.step}", flush=True)
    return meter


def keep_best(run: Run, top1: float) -> None:
    """Note the result of an epoch and keep the weights of the best one so far in ``best.safetensors``."""
    run.last_top1 = top1
    if top1 <= run.best_top1:
        return
    run.best_top1 = top1
    if run.rank == 0:
        checkpoint.save_weights(run.model, run.paths.best)
