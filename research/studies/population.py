"""Populations: many small networks at once, those of one shape as one computation, each an ordinary run.

``fit_population(configs)`` gives what ``fit`` of every config gives: the same folders, rows of metrics, checkpoints and
weights, equal up to rounding, so that either continues what the other began. A population that is stopped continues bit
for bit, wherever each of its networks stands, when it is the same population: networks that were finished, added or
left out before it was stopped make other stacks, and then it continues equal up to rounding (1e-7 of a weight). Dense
MLPs can be stacked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from research.config import Config
from research.data.choice import make_loader
from research.errors import Failure, UsageError
from research.frames import load_runs
from research.measures.ldi import Mode, ldi
from research.models import MODELS
from research.parameters.signatures import check_arguments
from research.plugins.scope import plugged
from research.runs.network import build_network, pick_device
from research.runs.paths import home_of
from research.runs.run import Run
from research.terminal import bar_class, bar_interval, output_kind
from research.training.checkpointing import report, resume
from research.training.preflight import preflight
from research.training.prepare import prepare
from research.training.stacked import StackedTraining

MODEL = "dense_mlp"
MOST = 128  # networks of one stack: with more, the time for each no longer falls
FREE = ("name", "runs", "recipe", "seed", "order_seed")  # what may differ between the networks of a stack,
FREE_ARGS = ("tc", "link_seed")  # of the network's arguments too
NEUTRAL = ("hooks", "accumulation", "clip_norm", "amp", "compile", "processes", "nodes")  # what a stack leaves out


def fit_population(configs: Sequence[Config], ldi_modes: Sequence[Mode] = ()) -> list[Run]:
    """Train the networks of ``configs`` in this process; their runs, in the same order.

    Networks that differ in seeds, ``tc`` and ``link_seed`` only are one stack. Finished runs are skipped, interrupted
    ones continue from their checkpoints. A network whose loss is no longer finite ends alone. Uses ``threads`` threads,
    by default 1: layers this small gain nothing from more. Before that, LDI of each in ``ldi_modes``.

    Raises:
        UsageError: a config that cannot be stacked, data that is missing, a folder of another configuration, two
            configs of one folder, or a run that is being trained elsewhere.
        Failure: one line for every network that failed, after all others were trained.
    """
    groups = stackable(configs)
    for group in groups:
        preflight(group[0])
    for config in configs:
        Run(home_of(config), config).refuse_another()
    runs = [Run.create(config) for config in configs]
    waiting = {run.dir: run for run in runs if run.status["status"] != "finished"}
    failures: list[str] = []
    with progress(list(waiting.values())) as bar, threads(configs[0].threads if configs else 0):
        measure_ldi([run for run in runs if run.dir not in waiting], ldi_modes)
        every = {run.dir: run for run in runs}
        for group in groups:
            together = stacks([every[home_of(config)] for config in group], set(waiting))
            failures += [failure for stack in together for failure in fit_stack(stack, ldi_modes, bar)]
    if failures:
        raise Failure("\n".join(failures))
    return runs


def stacks(runs: Sequence[Run], waiting: Set[Path]) -> list[Sequence[Run]]:
    """The stacks to train, each of runs of one shape: of those that wait, or of all once any of these has begun.

    What is finished then keeps its place, so that the stacks are those that the others began in.
    """
    left = [run for run in runs if run.dir in waiting]
    begun = any(run.status.get("step") for run in left)
    chosen = runs if begun else left
    parts = [chosen[at : at + MOST] for at in range(0, len(chosen), MOST)]
    return [part for part in parts if any(run.dir in waiting for run in part)]


def fit_stack(runs: Sequence[Run], ldi_modes: Sequence[Mode], bar: tqdm) -> list[str]:
    """Train those of ``runs``, all of one shape, that are not finished; what failed.

    Runs that stand at the same step are trained at once; the others keep their places meanwhile.
    """
    failures: list[str] = []
    left = [run for run in runs if run.status["status"] != "finished"]
    with ExitStack() as held:
        meters = {}
        for run in runs:
            if run in left:
                held.enter_context(run.alone())
            prepare(run)
            held.callback(close_loaders, run)
        for run in left:
            meters[run] = resume(run)
            report(run, meters[run])
        measure_ldi(left, ldi_modes)
        bar.unpause()  # what came before the first step is no part of its time
        for _, level in groupby(sorted(left, key=position), key=position):
            stack = StackedTraining(runs, {run: meters[run] for run in level})
            stack.train(bar)
            failures += stack.failures
    return failures


def close_loaders(run: Run) -> None:
    run.train_loader.close()
    run.val_loader.close()


def measure_ldi(runs: Sequence[Run], modes: Sequence[Mode]) -> None:
    """LDI of the networks of ``runs`` with their initial weights, over the validation set, as rows of their metrics.

    For every mode and layer one row ``kind="ldi"`` with ``mode``, ``layer`` and ``mean``, and then one without
    ``layer`` that has ``mean``, ``std`` and ``pooled_std`` of all. Initial weights follow from the Config, so a run may
    be trained, or not yet; what was measured before is not measured again.
    """
    inputs: dict[str, Tensor] = {}
    missing = [(run, mode) for run in runs for mode in modes if not measured(run, mode)]
    for trained, mode in bar_class()(
        missing, unit="network", desc="LDI", leave=False, mininterval=bar_interval(), delay=bar_interval()
    ):
        config = trained.config
        run = Run(trained.dir, config)  # at step 0
        run.device = pick_device(config)
        with plugged(config.plugin):
            loader = make_loader(config, "val", device=run.device)
        if (data := repr((config.dataset, config.data_args, config.data_root))) not in inputs:
            inputs[data] = torch.cat([x for x, _ in loader])
        loader.close()
        build_network(run, loader.info.classes, loader.info.shape)
        found = ldi(run.model, inputs[data], mode)
        for layer, mean in enumerate(found.layers):
            run.log("ldi", mode=mode, layer=f"layers.{layer}", mean=mean)
        run.log("ldi", mode=mode, mean=found.mean, std=found.std, pooled_std=found.pooled_std)


def measured(run: Run, mode: Mode) -> bool:
    """Whether the metrics of ``run`` have its LDI."""
    rows = load_runs(run.dir).metrics
    rows = rows[(rows["kind"] == "ldi") & (rows["metric"] == "pooled_std")]
    return len(rows) > 0 and mode in set(rows["mode"])


def stackable(configs: Sequence[Config]) -> list[list[Config]]:
    """The configs in groups whose networks can be trained as one.

    Raises:
        UsageError: every reason why some cannot.
    """
    plain, problems, groups, folders = Config(), [], {}, set()
    for config in configs:
        if config.model != MODEL:
            problems.append(f"model={config.model!r}: only {MODEL} networks can be trained together")
            continue
        for name in ("mixup", "cutmix"):
            if given := config.data_args.get(name):
                problems.append(f"data_args.{name}={given:g}: networks that are trained together need {name}=0")
        for name in NEUTRAL:
            if (given := getattr(config, name)) != (needed := getattr(plain, name)):
                problems.append(f"{name}={given!r}: networks that are trained together need {name}={needed!r}")
        if home_of(config) in folders:
            problems.append(f"{config.run_name}: this run is in the population twice")
        folders.add(home_of(config))
        groups.setdefault(json.dumps(shared(config), sort_keys=True), []).append(config)
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return list(groups.values())


def shared(config: Config) -> dict[str, Any]:
    """What is the same for all networks of a stack."""
    args = {name: value for name, value in arguments(config).items() if name not in FREE_ARGS}
    return {name: value for name, value in config.to_dict().items() if name not in FREE} | {"model_args": args}


def arguments(config: Config) -> dict[str, Any]:
    """The arguments of the network with their defaults filled in."""
    return check_arguments("", MODELS[config.model], config.model_args)[0]


def position(run: Run) -> int:
    return run.step


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on ``count`` threads (0: one), and afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def progress(runs: Sequence[Run]) -> tqdm:
    """A bar over the optimizer steps of all networks, with rate and time left; in text none, lines tell."""
    steps = sum(run.config.total_epochs * (preflight(run.config).train // run.config.batch_size) for run in runs)
    before = sum(run.status.get("step", 0) for run in runs)
    style = {"mininterval": bar_interval(), "disable": output_kind() == "text"}
    return bar_class()(total=steps, initial=before, unit="step", unit_scale=True, desc="population", **style)
