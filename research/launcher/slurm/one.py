"""One run on a Slurm cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from research.config import Config
from research.errors import UsageError
from research.launcher.slurm.cluster import refuse_impossible
from research.launcher.slurm.options import completed, gpus_of, read_options
from research.launcher.slurm.queue import standings, submit
from research.launcher.standing import follow, told
from research.parameters import yaml_1_2
from research.plugins.source import freeze, frozen
from research.runs.paths import home_of
from research.runs.run import Run

NODE_LIST = "node-list:0"  # stands for the rendezvous, which a job makes of the nodes that it gets


def on_nodes(given: Mapping[str, Any], nodes: int) -> Config:
    """The Config of ``given`` on so many machines; UsageError when its batch does not divide into them."""
    return Config.load(given) if nodes == 1 else Config.load(given, {"nodes": nodes, "rendezvous": NODE_LIST})


def run_on_slurm(words: tuple[str, ...], config: Config, typed: Mapping[str, Any], wait: bool = False) -> int:
    """Queue ``research`` with ``words``, which trains the run of ``config``, and return an exit code.

    ``typed`` are options of :class:`Options` by name. With ``wait``, follows the run to its end; 1 when it failed.

    Raises:
        UsageError: every problem of the run, and of what is asked of Slurm; nothing is queued then.
    """
    from research.training.preflight import preflight  # torch takes seconds

    options = read_options({}, typed)
    if options.pack > 1:
        raise UsageError(f"--pack {options.pack}: there is one run; leave it out")
    if options.nodes > 1:
        config = on_nodes(config.to_dict(), options.nodes)
        words = (*words, f"nodes={options.nodes}")
    run = home_of(config)
    preflight(config, devices=False)
    Run(run, config).refuse_another()
    known = standings([run])
    if Run(run, config).status["status"] == "finished" or (run in known and known[run].active):
        print(f"{run.name}: {told([run], known)[run]}")
    else:
        options = refuse_impossible(options, [config])
        from research.launcher.slurm.job import Command, Job  # submitit may be missing

        freeze(config.plugin, run.parent)
        if plugins := [str(path) for path in frozen(config.plugin, run.parent)]:
            words = (*(word for word in words if not word.startswith("plugin=")), f"plugin={yaml_1_2.typed(plugins)}")
        log = run.parent / ".slurm" / f"{run.name}.log"
        job = Job((Command(words, str(log), config.processes, gpus_of(config)),))
        (job_id,) = submit({job: [run]}, options, completed(options, [config]), run.name)
        print(f"{run.name}: queued as job {job_id}")
    return 1 if wait and follow([run]) else 0
