"""``python -m research.training RUN_DIR``: one process of a run, as torchrun or a launcher starts it."""

from __future__ import annotations

import signal
import sys

from research.processes import die_with_parent, stop_on_signals


def main(directory: str) -> int:
    """Train the run in ``directory`` as one of the processes that torchrun started.

    Returns the exit code: 2 for what a user must mend, which is printed last; 143 when it was asked to stop.
    """
    die_with_parent(signal.SIGKILL)
    stop_on_signals()

    # torch takes seconds, in which the launcher may die and signals may come
    from research.errors import UsageError
    from research.training.worker import train

    try:
        train(directory)
    except UsageError as error:
        sys.stdout.write(f"error: {error}\n")  # line and end at once: ranks share the log
        sys.stdout.flush()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
