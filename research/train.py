"""The training loop. It names no method: methods are hooks, and this file says when each of their events happens.

``python -m research.train RUN_DIR`` is what torchrun starts; ``fit(run)`` is the same in this process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from safetensors.torch import save_model
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from research import checkpoint
from research.data.loaders import make_loader
from research.errors import UsageError
from research.hooks import HOOKS
from research.meter import Meter
from research.models import create_model
from research.processes import all_reduce, broadcast_buffers, die_with_parent, join, leave, lost_a_peer
from research.run import Run
from research.schedule import learning_rate, total_epochs


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
        while run.epoch < run.epochs:
            if run.batch == 0:
                for hook in run.hooks.values():
                    hook.epoch_start(run)
            train_epoch(run, meter)
            run.log("epoch", **meter.epoch_means())
            top1 = evaluate(run, run.model)
            for hook in run.hooks.values():
                hook.epoch_end(run)
            keep_best(run, top1)
            run.epoch, run.batch = run.epoch + 1, 0
            meter.new_epoch()
            save(run, meter)
        for loader in (run.train_loader, run.val_loader):
            loader.close()
    return run


def train_epoch(run: Run, meter: Meter) -> None:
    """The rest of the current epoch, from batch ``run.batch``."""
    config, hooks = run.config, list(run.hooks.values())
    autocast = torch.autocast(run.device.type, AMP_TYPES.get(config.amp), enabled=config.amp != "off")
    parameters = list(run.model.parameters())
    run.network.train()
    run.train_loader.set_epoch(run.epoch, start=run.batch)

    for inputs, targets in meter.waiting_for(run.train_loader):
        run.seed_everything("step", run.step, run.rank)
        lr = set_learning_rate(run)
        parts = zip(inputs.chunk(config.accumulation), targets.chunk(config.accumulation), strict=True)
        for part, (run.inputs, run.targets) in enumerate(parts, start=1):
            with autocast:
                run.logits = run.network(run.inputs)
                loss = run.criterion(run.logits, run.targets)
                for hook in hooks:
                    loss = hook.loss(run, loss)
            with gradients_synced(run.network, part == config.accumulation):
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

        last = run.batch == run.steps_per_epoch
        if last or run.step % config.log_interval == 0:
            row, save_now = meter.flush(run, stop_requested() or checkpoint_due(run))
            run.log("train", lr=lr, **row)
        else:
            save_now = stop_requested() and run.world == 1  # several ranks agree on it at the next row
        if save_now and not last:
            save(run, meter)


@torch.inference_mode()
def evaluate(run: Run, model: nn.Module, split: str = "val") -> float:
    """Loss (cross-entropy, nats) and top-1/top-5 (percent) of ``model`` over the validation set, as a row of ``split``.

    Every sample counts exactly once on any number of ranks. Returns top-1.
    """
    started = time.perf_counter()
    broadcast_buffers(model)
    was_training = model.training
    model.eval()
    autocast = torch.autocast(run.device.type, AMP_TYPES.get(run.config.amp), enabled=run.config.amp != "off")
    sums = torch.zeros(4, dtype=torch.float64, device=run.device)  # loss, top-1, top-5, images
    for inputs, targets in run.val_loader:
        with autocast:
            logits = model(inputs)
        ranked = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
        loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        sums += torch.stack([loss, ranked[:, 0].sum(), ranked.sum(), torch.tensor(len(targets), device=run.device)])
    loss, top1, top5, images = all_reduce(sums).tolist()
    model.train(was_training)
    run.log(
        split,
        loss=loss / images,
        top1=100 * top1 / images,
        top5=100 * top5 / images,
        images=int(images),
        seconds=time.perf_counter() - started,
    )
    return 100 * top1 / images


# -- before the first step ------------------------------------------------------------------------------------------

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(run: Run) -> None:
    """Data, model, hooks, criterion, optimizer: everything that training needs, in the order it may depend on."""
    config = run.config
    run.device = getattr(run, "device", None) or pick_device(config)
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.deterministic

    run.train_loader, run.val_loader = (
        make_loader(config, split, run.rank, run.world, run.device) for split in ("train", "val")
    )
    run.steps_per_epoch, run.epochs = len(run.train_loader), total_epochs(config)

    run.seed_everything("initial weights")
    info = run.train_loader.info
    run.model = create_model(config.model, num_classes=info.classes, input_shape=info.shape, **config.model_args)
    run.criterion = nn.CrossEntropyLoss(label_smoothing=config.smoothing)
    run.hooks = {name: HOOKS[name](**given) for name, given in config.hooks.items()}
    run.model.to(run.device)
    for hook in run.hooks.values():
        hook.setup(run)
    run.model.to(run.device)  # with what the hooks put in

    if run.world > 1 and config.sync_bn:
        run.model = nn.SyncBatchNorm.convert_sync_batchnorm(run.model)
    if config.channels_last:
        run.model.to(memory_format=torch.channels_last)
    run.optimizer = make_optimizer(run)
    run.scaler = torch.amp.GradScaler(run.device.type, enabled=config.amp == "fp16")
    run.network = wrap(run)
    run.record_environment()


def pick_device(config) -> torch.device:
    """The device of this process: its own GPU when there are GPUs and the run may use them."""
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def make_optimizer(run: Run) -> torch.optim.Optimizer:
    """SGD or AdamW; with ``decay_norm_and_bias=False`` vectors (biases, normalisation) are not decayed."""
    config = run.config
    trained = [p for p in run.model.parameters() if p.requires_grad]
    decayed = [p for p in trained if config.decay_norm_and_bias or p.ndim > 1]
    spared = [p for p in trained if not (config.decay_norm_and_bias or p.ndim > 1)]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}] if spared else decayed
    common = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": run.device.type == "cuda"}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, **common)
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, **common)


def wrap(run: Run) -> nn.Module:
    """What the loop calls: the model, distributed and compiled as configured."""
    network = run.model
    if run.world > 1:
        network = DistributedDataParallel(network, device_ids=[run.device] if run.device.type == "cuda" else None)
    return torch.compile(network) if run.config.compile else network


# -- the step's small parts -----------------------------------------------------------------------------------------


def set_learning_rate(run: Run) -> float:
    lr = learning_rate(run.config, run.step, run.steps_per_epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    return lr


def gradients_synced(network: nn.Module, now: bool):
    """DDP averages gradients over ranks in the last micro-batch of a step only."""
    return nullcontext() if now or not hasattr(network, "no_sync") else network.no_sync()


# -- what must survive ----------------------------------------------------------------------------------------------


@contextmanager
def outcome_recorded(run: Run) -> Iterator[None]:
    """Keep ``status.json`` true from the first moment to the last, however training ends (kill -9 excepted)."""
    if run.rank == 0:
        run.set_status("running")
    try:
        yield
        if run.rank == 0:
            run.set_status("finished", **progress(run))
    except (Stopped, KeyboardInterrupt):
        if run.rank == 0:
            run.set_status("interrupted", message="asked to stop; the same command continues it")
        raise
    except Exception as error:  # of any rank: the first cause counts, not the peers that it took along
        if not lost_a_peer(error):
            usage = isinstance(error, UsageError)
            run.set_status("failed", message=str(error), usage=usage, traceback=traceback.format_exc())
        raise


class Stopped(SystemExit):
    """Training was asked to stop and has written a checkpoint; exit code 143, as after SIGTERM."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


_stop = False


def stop_requested() -> bool:
    return _stop


def _request_stop(signum, frame) -> None:
    global _stop
    _stop = True


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
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "hooks": {name: hook.state_dict() for name, hook in run.hooks.items()},
            "meter": meter.state_dict(),
            "metrics_bytes": run.metrics_path.stat().st_size,
        }
        checkpoint.save(run.checkpoints, run.step, state)
        run.set_status("running", seconds=meter.seconds_in_all, **progress(run))
    run.saved_at = time.monotonic()
    if stop_requested() and run.epoch < run.epochs:
        raise Stopped


def progress(run: Run) -> dict:
    return {
        "epoch": run.epoch,
        "epochs": run.epochs,
        "step": run.step,
        "steps": run.epochs * run.steps_per_epoch,
        "best_top1": run.best_top1 if run.best_top1 >= 0 else None,
    }


def resume(run: Run) -> Meter:
    """Continue from the newest whole checkpoint, on every rank alike; rows written after it are dropped."""
    meter = Meter(run)
    run.saved_at = time.monotonic()
    state = checkpoint.load_newest(run.checkpoints, run.device)
    if state is None:
        if run.rank == 0:
            run.metrics_path.write_bytes(b"")
        return meter
    run.step, run.epoch, run.batch = state["step"], state["epoch"], state["batch"]
    run.best_top1 = state["best_top1"]
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    for name, hook in run.hooks.items():
        hook.load_state_dict(state["hooks"][name])
    meter.load_state_dict(state["meter"])
    if run.rank == 0:
        os.truncate(run.metrics_path, state["metrics_bytes"])
        print(f"{run.name}: continuing at epoch {run.epoch}, step {run.step}", flush=True)
    return meter


def keep_best(run: Run, top1: float) -> None:
    """Keep the weights of the best epoch so far in ``best.safetensors``."""
    if top1 <= run.best_top1:
        return
    run.best_top1 = top1
    if run.rank == 0:
        part = run.dir / ".best.safetensors.part"
        save_model(run.model, str(part))
        os.replace(part, run.dir / "best.safetensors")


# -- one process of a run -------------------------------------------------------------------------------------------


def main(directory: str) -> int:
    """Train the run in ``directory`` as one of the processes that torchrun started; the exit code."""
    die_with_parent(signal.SIGKILL)
    for asked in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(asked, _request_stop)
    run = Run.open(directory)
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) and run.status["status"] == "failed":
        return 1  # a restart cures a lost worker, not an error
    if run.config.threads:
        torch.set_num_threads(run.config.threads)
    run.device = pick_device(run.config)
    run.rank, run.world = join(run.device)
    try:
        fit(run)
    finally:
        leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
