"""The checks of a GPU are isolated from each other, and their JSON is whole; they need no GPU to be tested."""

import json
import os
import signal
import subprocess
import sys
import time

import absent
import psutil
import pytest
from conftest import REPOSITORY
from isolated import Check, Skip, Wrong, run


def crash(device):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(device):
    print("what it printed")
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")


def differ(device):
    raise Wrong("1 of 2 differ", {"compared": 2})


def lack(device):
    raise Skip("needs a GPU")


@pytest.mark.parametrize(
    "function, outcome, reason",
    [
        (lambda device: {"on": device}, "passed", None),
        (lack, "skipped", "needs a GPU"),
        (differ, "failed", "1 of 2 differ"),
        (fail, "failed", "RuntimeError: CUDA error: an illegal memory access was encountered"),
        (crash, "failed", "its process ended with code -9"),
        (lambda device: time.sleep(60), "failed", "not done after 3 s"),
    ],
)
def test_whatever_happens_in_a_check_is_an_outcome(function, outcome, reason):
    result = run(Check(function, seconds=3), "cuda")
    assert (result["outcome"], result.get("reason")) == (outcome, reason)
    assert ("what it printed" in result.get("output", "")) == (function is fail)
    if function is differ:
        assert result["numbers"] == {"compared": 2}


def test_a_check_that_has_no_time_left_is_skipped():
    assert run(Check(fail, seconds=60), "cuda", left=2.0)["reason"] == "no time left: 2 s"


def test_what_stands_in_for_psutil_knows_the_memory():
    assert absent.psutil().virtual_memory().available == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.slow
def test_a_checkout_is_enough(tmp_path):
    """No package of the project's own, pytest among them, is needed beyond what comes with torch, torchvision, timm."""
    out = tmp_path / "told.json"
    code = (
        "import runpy, sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in sys.argv[1].split(','):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "sys.argv = sys.argv[2:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    gone = "ffcv,pandas,matplotlib,papermill,jupyter_client,IPython,pytest,hypothesis,cv2,nbformat,scipy,submitit"
    words = [REPOSITORY / "tests/gpu/check.py", "--device", "cpu", "--only", "equal [mp]*", "--out", out]
    done = subprocess.run([sys.executable, "-c", code, gone, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(out.read_text())
    assert {name: check["outcome"] for name, check in told["checks"].items()} == dict.fromkeys(
        ["hardware", "equal multipliers", "equal power_grad", "equal population"], "passed"
    )
    assert told["device"] == "cpu" and told["hardware"]["torch"]
