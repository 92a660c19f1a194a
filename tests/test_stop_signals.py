"""Signals to a process that is asked to stop."""

import subprocess
import sys

STORM = """
import os, signal, time
from research.processes import STOP_SIGNALS, stop_on_signals, stop_requested
stop_on_signals()
sender = os.fork()
if not sender:
    for _ in range(5000):
        for number in STOP_SIGNALS:
            os.kill(os.getppid(), number)
    os._exit(0)
while os.waitpid(sender, os.WNOHANG) == (0, 0):
    pass
print(stop_requested())
"""


def test_a_signal_that_interrupts_the_handler_of_another_one_does_not_hang_the_process():
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
