"""A process of a run, as it treats the machine."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from research.processes import keep_freed_memory

def asked_for() -> int:
    "Pages that the system hands out for 64 MB that were in use before."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(1 << 18) for _ in range(32)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
asked_for(), asked_for()
print(asked_for())
"""


def pages(how: str, **environment: str) -> int:
    """Pages that a process gets for memory which it had freed."""
    command = [sys.executable, "-c", PAGES, how]
    return int(subprocess.run(command, env=os.environ | environment, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_without_asking_the_system_unless_the_user_says_otherwise():
    assert pages("kept") < 1000 < pages("as it comes")
    assert pages("kept", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 1000
