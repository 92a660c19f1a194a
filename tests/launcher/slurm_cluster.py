"""A real Slurm on this machine, for tests: one controller, one node, no systemd, no control groups, no accounting."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("slurm-wlm", "munge", "slurm-wlm-basic-plugins")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
JobRequeue=1
KillWait=60
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=2,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes={host} Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def available() -> str:
    """Why there can be no Slurm here; empty when there can. Installs Debian's packages where they are missing."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        if not shutil.which("apt-get"):
            return "no Slurm here, and no apt-get to install it with"
        for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", *words], capture_output=True, text=True, timeout=600)
        if done.returncode:
            return f"Slurm cannot be installed: {(done.stderr.strip().splitlines() or ['apt-get failed'])[-1]}"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Slurm while the context lasts: its programs find it by ``SLURM_CONF``. Skips the test where there can be none."""
    if why := available():
        pytest.skip(why)
    host, before = socket.gethostname().partition(".")[0], os.environ.get("SLURM_CONF")
    described = subprocess.run(["slurmd", "-C"], capture_output=True, text=True, check=True).stdout.split()
    told = dict(word.split("=", 1) for word in described if "=" in word)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    values = {"host": host, "folder": folder, "ports": (free_port(), free_port()), "cores": told["CPUs"]}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values, memory=int(told["RealMemory"]) - 2000))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    daemons = [start_munge(folder)]
    try:
        daemons += [subprocess.Popen([name, "-D"], stderr=subprocess.DEVNULL) for name in ("slurmctld", "slurmd")]
        for _ in range(120):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout
            if "idle" in state:
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"Slurm did not start: {(folder / 'slurmctld.log').read_text()[-500:]}")
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def start_munge(folder: Path) -> subprocess.Popen:
    """The daemon that Slurm's programs trust each other by, with a key and a socket of its own in ``folder``."""
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    parts = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{part}" for option, part in parts.items()]
    # --force: the folder of a test is not as public as a system's
    daemon = subprocess.Popen(["munged", "--foreground", "--force", *options], stderr=subprocess.DEVNULL)
    for _ in range(50):
        if subprocess.run(["munge", "-n", f"--socket={folder}/munge.socket"], capture_output=True).returncode == 0:
            break
        time.sleep(0.1)
    return daemon
