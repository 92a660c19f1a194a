"""The training loop. It names no method: methods are hooks, and this file says when each of their events happens.

``python -m research.training.loop RUN_DIR`` is what torchrun starts; ``fit(run)`` is the same in this process.
"""

from __future__ import annotations

from contextlib import nullcontext

from torch import nn

from research.measures.evaluate import evaluate
from research.runs.run import Run
from research.training.checkpointing import checkpoint_due, keep_best, report, resume, save
from research.training.meter import Meter
from research.training.outcome import outcome_recorded, stop_requested
from research.training.prepare import prepare
from research.training.schedule import learning_rate


def fit(run: Run) -> Run:
    """Train ``run`` from wherever it stands to its last epoch.

    Raises:
        UsageError: the loss or a weight is no longer finite, a checkpoint cannot be written, or the run is being
            trained elsewhere. What was reached before is kept.
        Stopped: SIGTERM or SIGUSR1 arrived; a checkpoint was written.
    """
    with run.alone(), outcome_recorded(run):
        prepare(run)
        meter = resume(run)
        report(run, meter)
        while run.epoch < run.epochs:
            run.train_loader.set_epoch(run.epoch, start=run.batch)
            if run.batch == 0:
                for hook in run.hooks.values():
                    hook.epoch_start(run)
            train_epoch(run, meter)
            run.log("train_epoch", **meter.epoch_means())
            result = evaluate(run, run.model)
            run.log("val", **result)
            for hook in run.hooks.values():
                hook.epoch_end(run)
            keep_best(run, result["top1"])
            run.epoch, run.batch = run.epoch + 1, 0
            meter.new_epoch()
            save(run, meter)
        for loader in (run.train_loader, run.val_loader):
            loader.close()
    return run


def train_epoch(run: Run, meter: Meter) -> None:
    """The rest of the current epoch, from batch ``run.batch``."""
    config, hooks = run.config, list(run.hooks.values())
    parameters = list(run.model.parameters())
    run.network.train()

    for inputs, targets in meter.waiting_for(run.train_loader):
        run.seed_everything("step", run.step, run.rank)
        lr = set_learning_rate(run)
        parts = zip(inputs.chunk(config.accumulation), targets.chunk(config.accumulation), strict=True)
        for part, (run.inputs, run.targets) in enumerate(parts, start=1):
            with gradients_synced(run.network, now=part == config.accumulation):
                with run.autocast:
                    run.logits = run.network(run.inputs)
                    loss = run.criterion(run.logits, run.targets)
                    for hook in hooks:
                        loss = hook.loss(run, loss)
                run.scaler.scale(loss / config.accumulation).backward()
            meter.add(loss, run.logits, run.targets)

        run.scaler.unscale_(run.optimizer)
        if config.clip_norm:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for hook in hooks:
            hook.grads(run)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        run.step, run.batch = run.step + 1, run.batch + 1
        for hook in hooks:
            hook.step_end(run)

        if run.row_due:
            row, save_now = meter.flush(run, stop_requested() or checkpoint_due(run))
            run.log("train", lr=lr, **row)
        else:
            save_now = stop_requested() and run.world == 1  # several ranks agree on it at the next row
        if save_now and run.batch < run.steps_per_epoch:
            save(run, meter)


def set_learning_rate(run: Run) -> float:
    lr = learning_rate(run.config, run.step, run.steps_per_epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    return lr


def gradients_synced(network: nn.Module, now: bool):
    """DDP averages gradients over ranks in the last micro-batch of a step only."""
    return nullcontext() if now or not hasattr(network, "no_sync") else network.no_sync()
