"""What survives the end of a process: when the state is saved, what it holds, and how training continues from it."""

from __future__ import annotations

import hashlib
import io
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from research.checkpoints import checkpoint
from research.config import Config
from research.distributed import of_all_ranks, of_rank_0
from research.errors import UsageError
from research.runs import epoch_table, metrics
from research.runs.run import Run, differences
from research.runs.status import recorded
from research.training.beginnings import continue_training
from research.training.meter import Meter
from research.training.outcome import Stopped

TABLE_SECONDS = 1.0  # between two writings of summary.csv, which would cost networks of milliseconds as much again


def checkpoint_due(run: Run) -> bool:
    return time.monotonic() - run.saved_at >= 60 * run.config.checkpoint_minutes


def save(run: Run, meter: Meter, stop: bool = False) -> None:
    """Checkpoint and status of this moment; ``stop`` (equal on all ranks) ends training with it.

    At a row of metrics everything in it is equal on all ranks, so that rank 0 writes it alone; a stop between two rows
    gathers what each rank has of its own.

    Raises:
        UsageError: a weight is not finite, or the checkpoint cannot be written.
        Stopped: after the checkpoint, when training is to stop and is not complete anyway.
    """
    norms = torch.stack(torch._foreach_norm([p.detach() for p in run.model.parameters()]))
    if not norms.isfinite().all():
        raise run.diverged("a weight is not finite", run.step)
    ranks = [] if run.row_due else states_of_ranks(run, meter)
    if run.rank == 0:
        state = {
            "identity": run.config.identity,
            "config": run.config.to_dict(),
            "step": run.step,
            "epoch": run.epoch,
            "first_epoch": run.first_epoch,
            "batch": run.batch,
            "best_top1": run.best_top1,
            "last_top1": run.last_top1,
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "hooks": {name: hook.state_dict() for name, hook in run.hooks.items()},
            "meter": meter.state_dict(),
            "ranks": ranks,
            "metrics_bytes": metrics.length_on_disk(run.paths.metrics),
        }
        checkpoint.save(run.paths.checkpoints, run.step, state)
        if stop or run.epoch == run.epochs or time.monotonic() - run.tabled_at > TABLE_SECONDS:
            epoch_table.update(run.paths)
            run.tabled_at = time.monotonic()
    report(run, meter)
    run.saved_at = time.monotonic()
    if stop and run.epoch < run.epochs:
        of_rank_0(None)  # the first rank to leave takes the others along: rank 0 must have written
        raise Stopped


def states_of_ranks(run: Run, meter: Meter) -> list[bytes]:
    """For every rank its meter and those states of its hooks that differ from those of rank 0; none of a lone one."""
    if run.world == 1:
        return []
    states = {name: _packed(hook.state_dict()) for name, hook in run.hooks.items()}
    digests = {name: hashlib.blake2b(content).digest() for name, content in states.items()}
    common = of_rank_0(digests)
    own = {name: hook.state_dict() for name, hook in run.hooks.items() if digests[name] != common[name]}
    return of_all_ranks(_packed({"meter": meter.state_dict(), "hooks": own}))


def _packed(state: Any) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


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
    """Continue from the newest whole checkpoint, on every rank alike; rows written after it are dropped.

    Damaged checkpoints are set aside and told of, and so is what ``metrics.jsonl`` has lost.

    Raises:
        UsageError: the run has been further than any whole checkpoint of it and ``start_over`` is not set, a checkpoint
            belongs to another configuration, or one cannot be read now.
    """
    meter = Meter(run)
    run.saved_at = time.monotonic()
    notes: list[str] = []
    state = newest_state(run, notes)
    if state is None:
        begin(run, notes)
        notes += continue_training(run)
    else:
        restore(run, meter, state)
        if run.rank == 0:
            lost = metrics.cut(run.paths.metrics, state["metrics_bytes"], run.step, run.epoch, run.batch)
            notes += [lost] if lost else []
            epoch_table.update(run.paths)
            print(f"{run.name}: continuing at epoch {run.epoch}, step {run.step}", flush=True)
    for note in notes:
        run.note(note)
    run.record_environment()
    return meter


def newest_state(run: Run, notes: list[str]) -> dict[str, Any] | None:
    """What the newest whole checkpoint holds, on every rank; ``None`` without any. Rank 0 sets damaged ones aside.

    Raises:
        UsageError: on all ranks, when some do not find what rank 0 found: its nodes see different folders.
    """
    path: Path | None = None
    state = None
    if run.rank == 0:
        path, state, damaged = checkpoint.find_newest(run.paths.checkpoints, run.device)
        if state is not None and not is_of(state, run.config):
            differing = differences(state["config"], run.config.to_dict())
            raise UsageError(
                f"checkpoint {path} belongs to another configuration ({differing}); move it out of this run"
            )
        for file, reason in damaged.items():
            aside = checkpoint.set_aside(file)
            notes.append(f"checkpoint {file.name} is damaged ({reason}) and now called {aside.name}")
    chosen = of_rank_0(path.name if path else "")
    problem = ""
    if run.rank and chosen:
        try:
            state = checkpoint.read(run.paths.checkpoints / chosen, run.device)
        except FileNotFoundError:
            problem = "it is not there"
        except (UsageError, checkpoint.Damaged) as error:
            problem = str(error)
    if run.rank and not problem and checkpoint.newest_step(run.paths.checkpoints) > checkpoint.step_of(chosen):
        problem = "there is one of a later step"
    refuse_different_folders(run, chosen, problem)
    return state


def refuse_different_folders(run: Run, chosen: str, problem: str) -> None:
    """Raise UsageError on every rank when any has a ``problem`` with the checkpoint that rank 0 has ``chosen``.

    The name of a checkpoint is its step and its digest, which reading it has checked.
    """
    told = of_all_ranks((platform.node(), problem))
    lines = [f"rank {rank} on {node}: {problem}" for rank, (node, problem) in enumerate(told) if problem]
    if lines:
        begins = f"continues from {chosen}" if chosen else "finds no checkpoint"
        raise UsageError(
            f"run {run.name} cannot go on: rank 0 on {told[0][0]} {begins}, but {'; '.join(lines)}. All nodes need the "
            f"same {run.paths.checkpoints}: share the folder of runs, or copy the newest checkpoint to every node"
        )


def is_of(state: Mapping[str, Any], config: Config) -> bool:
    """Whether a checkpoint's ``state`` is of the run that ``config`` defines, of whatever version."""
    if state.get("identity", config.identity) == config.identity:
        return True
    return Config.stored(state["config"]).identity == config.identity


def begin(run: Run, notes: list[str]) -> None:
    """Make a run without a checkpoint ready for its first step; refuse where it has been further than that."""
    if run.rank:
        return
    aside = checkpoint.are_aside(run.paths.checkpoints)
    if aside or recorded(run.dir).get("step") or any(row["epoch"] for row in metrics.read_rows(run.paths.metrics)):
        why = f"its checkpoints are damaged ({', '.join(p.name for p in aside)})" if aside else "its checkpoint is gone"
        if not run.config.start_over:
            raise UsageError(
                f"run {run.name} cannot continue: {why}; put a whole one into {run.paths.checkpoints}, or begin anew "
                "with start_over=true, which sets aside what the run has"
            )
        notes[:] = [f"{why}: beginning anew, what the run had is in {set_aside(run).name}"]
    run.paths.metrics.write_bytes(b"")


def set_aside(run: Run) -> Path:
    """Move what training wrote into a folder of its own in the run; the folder."""
    paths, folder = run.paths, run.paths.set_aside()
    folder.mkdir()
    for path in (paths.checkpoints, paths.best, paths.average, paths.multipliers, paths.metrics, paths.summary):
        if path.exists():
            path.rename(folder / path.name)
    return folder


def restore(run: Run, meter: Meter, state: dict[str, Any]) -> None:
    """Make ``run`` and ``meter`` what they were when ``state`` was saved."""
    run.step, run.epoch, run.batch = state["step"], state["epoch"], state["batch"]
    run.first_epoch = state.get("first_epoch", 0)
    run.best_top1, run.last_top1 = state["best_top1"], state["last_top1"]
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    ranks = state.get("ranks", [])
    if len(ranks) == run.world:
        own = torch.load(io.BytesIO(ranks[run.rank]), map_location=run.device, weights_only=True)
        state = state | {"meter": own["meter"], "hooks": state["hooks"] | own["hooks"]}
    for name, hook in run.hooks.items():
        hook.load_state_dict(state["hooks"][name])
    meter.load_state_dict(state["meter"])


def keep_best(run: Run, top1: float) -> None:
    """Note the result of an epoch and keep the weights of the best one so far in ``best.safetensors``."""
    run.last_top1 = top1
    if top1 <= run.best_top1:
        return
    run.best_top1 = top1
    if run.rank == 0:
        checkpoint.save_weights(run.model, run.paths.best)
