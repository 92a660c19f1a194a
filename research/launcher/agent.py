"""``python -m research.launcher.agent RUN_DIR``: torchrun for a run on several processes, dying with its launcher."""

from __future__ import annotations

import json
import os
import signal
import sys

from research.processes import LOCAL_ADDRESS, PARENT, STOP_SIGNALS, STOPPED, die_with_parent, unblock
from research.runs.paths import RunPaths

JOIN_SECONDS = 120  # the launchers have met: only starting Python stands between the nodes
USAGE = 2  # exit code of a process that refused something


def main(directory: str) -> int:
    """Start and watch the processes of the run in ``directory``; the exit code.

    It is 2 when one of them refused the run, and 143 when they were asked to stop, here or on another node.
    """
    die_with_parent(signal.SIGTERM)
    unblock()
    os.environ[PARENT] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing import api  # torch takes seconds
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig
    from torch.distributed.run import main as torchrun

    paths = RunPaths(directory)
    config = json.loads(paths.config.read_bytes())
    if config["nodes"] == 1:
        where = ["--standalone"]
    else:
        where = ["--nnodes", str(config["nodes"]), "--rdzv-backend", "c10d", "--rdzv-endpoint", config["rendezvous"]]
        where += ["--rdzv-id", paths.dir.name, "--rdzv-conf", f"is_host=false,join_timeout={JOIN_SECONDS}"]
        where += ["--local-addr", os.environ[LOCAL_ADDRESS]]
    if hasattr(LaunchConfig, "signals_to_handle"):
        where += ["--signals-to-handle", ",".join(number.name for number in STOP_SIGNALS)]
    else:  # torch before 2.9
        for number in STOP_SIGNALS:
            signal.signal(number, api._terminate_process_handler)
    where += ["--log-dir", os.devnull]  # else it leaves a folder in the temporary directory
    try:
        torchrun([*where, "--nproc-per-node", str(config["processes"]), "-m", "research.training", directory])
    except ChildFailedError as error:
        print(error, flush=True)
        codes = [each.exitcode for each in error.failures.values()]
        return next((code for code in (USAGE, STOPPED) if code in codes), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
