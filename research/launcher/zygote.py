"""What :mod:`research.launcher.warm` forks: the spares of a process, and its server.

That is ``python -m research.launcher.zygote LINE MODULE...``: the line to who asks, and what it imports.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from research.launcher import warm
from research.launcher.warm import Command
from research.processes import die_with_parent, inherited_block
from research.resources import asked_threads, usable_cores

SPARES = 2  # generations below a command of the server
THREADS = "OMP_NUM_THREADS"


def main(line: Connection, modules: Sequence[str]) -> None:
    """Serve; in a process that was forked, do what it was forked for."""
    die_with_parent(signal.SIGKILL)
    if not _import(modules):
        sys.exit(f"warm start is off: importing {' '.join(modules)} begins threads, which no fork survives")
    _become(_serve(line), SPARES)


def keep_spare(modules: Sequence[str], spares: int = 1) -> None:
    """Import ``modules``, which what this process starts needs as well, and keep a spare for the first that it starts.

    Of ``spares`` generations each keeps one for the next. A process that has begun threads, or has a spare, gets none.
    """
    if warm.spare or sys.platform != "linux":
        return
    with inherited_block(), _one_thread():
        if _import(modules) and (command := _fork_spare()):
            _become(command, spares - 1)


def _import(modules: Sequence[str]) -> bool:
    """Import ``modules``; whether this process can be forked now, because it has one thread."""
    for module in modules:
        with suppress(ImportError):  # an optional one; whoever needs another will say so
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is collected later leaves these pages shared
    return len(os.listdir("/proc/self/task")) == 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """In this context, libraries begin no threads for computing when they are imported."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


def _become(command: Command, spares: int) -> NoReturn:
    """Do ``command`` in this process, which was forked for it, with ``spares`` generations below; and end."""
    for left in reversed(range(spares + 1)):
        _enter(command)
        if not left or not (command_of_spare := _fork_spare()):
            break
        command = command_of_spare
    _look_again(command)
    signal.pthread_sigmask(signal.SIG_SETMASK, command.blocked)  # all above is forked with stop signals blocked
    sys.argv = [command.module, *command.arguments]
    code = _run(command.module)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)  # as multiprocessing ends what it forked: nobody needs what the server imported taken apart


def _run(module: str) -> int:
    """Be ``python -m module`` up to its end; the exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _serve(line: Connection) -> Command:
    """Fork a process for every command that comes, and tell how each ended. Returns in such a process only."""
    told, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = wait([line, told])
        if told in ready:
            os.read(told, 4096)
            with suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    line.send((ended[0], os.waitstatus_to_exitcode(ended[1])))
        if line not in ready:
            continue
        try:
            command = line.recv()
        except EOFError:
            os._exit(0)
        if not (pid := _fork()):
            break
        line.send(pid)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    line.close()
    os.close(told), os.close(tell)
    return command


def _fork() -> int:
    """As ``os.fork``, into a session of its own: no signal to who forks reaches what only waits."""
    if not (pid := os.fork()):
        os.setsid()
    return pid


def _fork_spare() -> Command | None:
    """Fork a spare. It returns the command that it was at last given; the process that forked it returns None."""
    ours, theirs = Pipe()
    if pid := _fork():
        theirs.close()
        warm.spare = warm.Process(pid), ours
        return None
    ours.close()
    with theirs:
        try:
            return theirs.recv()
        except EOFError:  # nobody needed it
            os._exit(0)


def _enter(command: Command) -> None:
    """Folder, environment, input and output of ``command``."""
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    if command.output:
        with open(command.output, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)


def _look_again(command: Command) -> None:
    """Decide again what modules decided by the environment, or by chance, when they were imported."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(asked_threads(command.environment) or usable_cores())
    if matplotlib := sys.modules.get("matplotlib"):
        if backend := command.environment.get("MPLBACKEND"):
            matplotlib.rcParams["backend"] = backend
    sys.stdout.reconfigure(line_buffering=True)  # whatever the server's was
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all that are forked draw the same


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), sys.argv[2:])
