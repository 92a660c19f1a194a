"""The training loop. It names no method: methods are hooks, and this file says when each of their events happens.

``python -m research.training RUN_DIR`` is what torchrun starts; ``fit(run)`` is the same in this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from research.distributed import Vote
from research.measures.evaluate import evaluate
from research.plugins.scope import with_its_plugins
from research.processes import stop_requested
from research.runs.pulse import DONE, EPOCH_END, EPOCH_START, EVALUATING, IN_STEP
from research.runs.run import Run
from research.training.checkpointing import checkpoint_due, keep_best, report, resume, save
from research.training.meter import Meter
from research.training.outcome import Stopped, outcome_recorded
from research.training.prepare import prepare
from research.training.schedule import learning_rate

LONG_EVALUATION = 10.0  # seconds; a launcher's grace for a last checkpoint is more


@with_its_plugins
def fit(run: Run) -> Run:
    """Train ``run`` from wherever it stands to its last epoch.

    Raises:
        UsageError: the loss or a weight is no longer finite, a checkpoint cannot be written or read, or the run is
            being trained elsewhere. What was reached before is kept.
        Stopped: this process, or that of another rank, was asked to stop; a checkpoint was written.
    """
    with run.alone(), outcome_recorded(run), closing(run):
        prepare(run)
        meter = resume(run)
        report(run, meter)
        if Vote(stop_requested).carried():  # nothing was done that a checkpoint could keep
            raise Stopped
        while run.epoch < run.epochs:
            run.train_loader.set_epoch(run.epoch, start=run.batch)
            if run.batch == 0:
                run.pulse.beat(run.step, EPOCH_START)
                for hook in run.hooks.values():
                    hook.epoch_start(run)
            if run.batch < run.steps_per_epoch:  # else it was stopped between the last step and the evaluation
                train_epoch(run, meter)
            result = evaluate_epoch(run, meter)
            run.pulse.beat(run.step, EPOCH_END)
            run.log("train_epoch", **meter.epoch_means())
            run.log("val", **result)
            for hook in run.hooks.values():
                hook.epoch_end(run)
            if run.epoch + 1 == run.epochs:
                tell_what_was_left_undone(run)
            keep_best(run, result["top1"])
            run.epoch, run.batch = run.epoch + 1, 0
            meter.new_epoch()
            save(run, meter, stop=Vote(stop_requested).carried())
    return run


@contextmanager
def closing(run: Run) -> Iterator[None]:
    """Close the loaders and the methods that ``run`` has when training ends, however it does."""
    try:
        yield
    finally:
        for hook in getattr(run, "hooks", {}).values():
            hook.close()
        for name in ("train_loader", "val_loader"):
            if loader := getattr(run, name, None):
                loader.close()


def train_epoch(run: Run, meter: Meter) -> None:
    """The rest of the current epoch, from batch ``run.batch``."""
    config, hooks = run.config, list(run.hooks.values())
    parameters = list(run.model.parameters())
    run.network.train()

    for inputs, targets in meter.waiting_for(run.train_loader):
        run.pulse.beat(run.step, IN_STEP)
        run.seed_everything("step", run.step, run.rank)
        lr = set_learning_rate(run)
        inputs, targets = run.mixing(inputs, targets, run.epoch, run.batch)
        parts = zip(inputs.chunk(config.accumulation), targets.chunk(config.accumulation), strict=True)
        for part, (run.inputs, run.targets) in enumerate(parts, start=1):
            with gradients_synced(run.network, now=part == config.accumulation):
                with run.autocast:
                    run.logits = run.network(run.inputs)
                    loss = run.criterion(run.logits, run.targets)
                    for hook in hooks:
                        loss = hook.loss(run, loss)
                run.pulse.beat(run.step, IN_STEP, part)  # the ranks meet in what comes now
                share = loss / config.accumulation if config.accumulation > 1 else loss
                run.scaler.scale(share).backward()
            meter.add(loss, run.logits, run.targets)
        run.pulse.beat(run.step, IN_STEP, config.accumulation + 1)
        stop = Vote(stop_requested)

        run.scaler.unscale_(run.optimizer)
        run.skipped = overflow(run.scaler, run.optimizer)
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
        run.pulse.beat(run.step, DONE)

        save_now = False
        if run.row_due:
            row, save_now = meter.flush(run, checkpoint_due(run))
            run.log("train", lr=lr, **row)
        if (stop := stop.carried()) or (save_now and run.batch < run.steps_per_epoch):
            save(run, meter, stop)


def evaluate_epoch(run: Run, meter: Meter) -> dict[str, float]:
    """The row of ``val`` after an epoch. A long evaluation begins with a checkpoint and can be stopped inside."""
    saved = Vote(lambda: run.evaluation_seconds > LONG_EVALUATION).carried()
    if saved:
        save(run, meter, stop=Vote(stop_requested).carried())
    shared = -(-(run.val_loader.info.val // run.world) // run.val_loader.batch)  # batches that every rank has

    def between(batch: int) -> None:
        run.pulse.beat(run.step, EVALUATING, batch)
        if saved and batch < shared and Vote(stop_requested).carried():
            raise Stopped

    result = evaluate(run, run.model, between)
    run.evaluation_seconds = result["seconds"]
    return result


def tell_what_was_left_undone(run: Run) -> None:
    """Note which methods have not done what they were asked for."""
    for name, hook in run.hooks.items():
        if undone := hook.undone(run):
            reason = hook.never(run)
            run.note(f"{name}: {undone}{f' ({reason})' if reason and reason not in undone else ''}")


def set_learning_rate(run: Run) -> float:
    lr = learning_rate(run.config, run.step, run.steps_per_epoch, run.first_epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    return lr


def overflow(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> Tensor | None:
    """1.0 if a gradient that was just unscaled is nan or inf, so that ``scaler`` skips the update, else 0.0.

    It stays on the device, and ranks agree, for their gradients are averaged already. ``None`` without a loss scale.
    """
    if not scaler.is_enabled():
        return None
    (found,) = scaler._found_inf_per_device(optimizer).values()  # public ones tell only after the step, on the host
    return found


def gradients_synced(network: nn.Module, now: bool):
    """DDP averages gradients over ranks in the last micro-batch of a step only."""
    return nullcontext() if now or not hasattr(network, "no_sync") else network.no_sync()
