"""A Jupyter kernel of this interpreter that ends when asked, with everything below it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from importlib.metadata import EntryPoint
from types import FrameType
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from jupyter_core.utils import run_sync

from research.config.config import CHECKED
from research.launcher import warm
from research.launcher.warm import Command
from research.processes import SAME_ASK_SECONDS, STOP_SIGNALS, listens

INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel sets for itself, before anything is imported
GRACE_SECONDS = 40.0  # more than a launcher gives its workers for a last checkpoint


class ThisInterpreter(KernelSpecManager):
    """Knows one kernel, whatever is installed for the user: the running Python, told that nobody watches."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
            env={"RESEARCH_HEADLESS": "1", CHECKED: "1", "MPLBACKEND": os.environ.get("MPLBACKEND", INLINE)},
            metadata={"kernel_provisioner": {"provisioner_name": Provisioner.__qualname__}},
        )


class Provisioner(LocalProvisioner):
    """Starts a kernel as :mod:`research.launcher.warm` starts anything; it ends with this process."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        _, _, module, *arguments = cmd
        mine = f"--IPKernelApp.parent_handle={os.getpid()}"
        self.process = warm.start(Command(module, [*arguments, mine], kwargs["env"]))
        self.pid = self.pgid = self.process.pid  # it leads a session
        return self.connection_info


class Kernel:
    """Context of one kernel. A stop signal to this process interrupts it, as the stop button of JupyterLab would.

    Another signal more than ``SAME_ASK_SECONDS`` later, or ``GRACE_SECONDS`` without an answer, kills it. On leaving,
    nothing that it started is alive.
    """

    def __init__(self) -> None:
        KernelProvisionerFactory.instance().provisioners[Provisioner.__qualname__] = EntryPoint(
            Provisioner.__qualname__, f"{__name__}:{Provisioner.__qualname__}", KernelProvisionerFactory.GROUP_NAME
        )
        self._folder = tempfile.TemporaryDirectory(prefix="kernel-")  # private sockets instead of open TCP ports
        self.manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=ThisInterpreter(),
            transport="ipc",
            connection_file=f"{self._folder.name}/kernel.json",
        )
        self.interrupted = False
        self._asked = 0.0  # time of the first signal

    def __enter__(self) -> Kernel:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in filter(listens, STOP_SIGNALS):
                self._previous[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            left = self._tree()
            if self.manager.has_kernel:
                run_sync(self.manager.shutdown_kernel)(now=True)
            run_sync(self.manager.cleanup_resources)()
            _kill(left)
            self._folder.cleanup()
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def stop_if_interrupted(self, **_: object) -> None:
        """Between cells, where an interrupt finds an idle kernel and would be lost."""
        if self.interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        again, self.interrupted = self.interrupted, True
        if again and time.monotonic() - self._asked < SAME_ASK_SECONDS:
            return
        tree = self._tree()
        if again or not tree:
            _kill(tree)
            raise KeyboardInterrupt
        self._asked = time.monotonic()
        os.killpg(tree[0].pid, signal.SIGINT)  # the kernel leads a process group
        late = threading.Timer(GRACE_SECONDS, lambda: _kill(self._tree()))
        late.daemon = True
        late.start()

    def _tree(self) -> list[psutil.Process]:
        """The kernel itself, then all processes below it."""
        pid = getattr(self.manager.provisioner, "pid", None)
        try:
            kernel = psutil.Process(pid) if pid else None
            return [kernel, *kernel.children(recursive=True)] if kernel else []
        except psutil.NoSuchProcess:
            return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()  # psutil compares start times: a reused number is not killed
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(processes, timeout=5)
