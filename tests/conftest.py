"""What tests share: tiny runs on the embedded digits, trained in this process, and their comparison."""

import json
import os
import textwrap
from pathlib import Path

import nbformat
import pytest
import torch
from hypothesis import settings
from plain_network import PlainNetwork

from research.checkpoints import checkpoint
from research.config import Config
from research.hooks import HOOKS, Hook
from research.models import MODELS
from research.notebooks.execute import find
from research.runs.run import Run

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
GOLDENS = TESTS / "golden"  # numbers of the original systems, a folder each
SHARED = Path(os.environ.get("RESEARCH_SHARED", REPOSITORY.parent / "shared"))
settings.register_profile("no clock", deadline=None)  # a first example loads libraries, and machines are shared
settings.load_profile("no clock")
CLOCKS = {"seconds", "images_per_second", "data_wait", "peak_memory"}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data packs; the test is skipped where they are absent."""
    if not (SHARED / "data").exists():
        pytest.skip("no real data packs here; set RESEARCH_SHARED to their folder")
    return SHARED / "data"


@pytest.fixture
def tiny(tmp_path):
    """``tiny(key=value, ...)``: the Config of a run of seconds: an MLP on the digits, 2 epochs of 11 steps.

    Without batch statistics, so that the mathematics does not depend on how a batch is split.
    """

    def make(**given) -> Config:
        base = {"dataset": "digits", "model": "mnist_mlp", "epochs": 2, "lr": 0.05, "device": "cpu", "log_interval": 4}
        base["threads"] = 1  # of sub-processes, as in this one: sums are bit-identical for one number of threads
        if "model" not in given:
            base["model_args"] = {"batch_norm": False}
        return Config.load(base | {"runs": str(tmp_path / "runs")}, given)

    return make


@pytest.fixture
def plain_network(monkeypatch) -> str:
    """The name of the network for a Config."""
    monkeypatch.setitem(MODELS, "plain", PlainNetwork)
    return "plain"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory, from which kernels find the package whether it is installed or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.fixture
def in_workers(tmp_path, monkeypatch):
    """``in_workers(code)``: Python that every training process of launched runs executes before it begins."""

    def inject(code: str) -> None:
        folder = tmp_path / "injected"
        folder.mkdir()
        guarded = "import sys\nif 'research.training' in sys.orig_argv and 'launcher' not in sys.orig_argv[2]:\n"
        others = "elif 'research' in sys.orig_argv:  # with a thread it forks no worker, which would not execute this\n"
        others += (
            "    import threading, time\n    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        )
        (folder / "sitecustomize.py").write_text(
            guarded + textwrap.indent(textwrap.dedent(code), "    ") + "\n" + others
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(REPOSITORY)]))

    return inject


class Killed(Exception):
    """Stands for a power cut: nothing is saved on the way out."""


class PowerCut(Hook):
    """Ends training right after optimizer step ``at``, once."""

    at: int | None = None

    def step_end(self, run):
        if run.step == PowerCut.at:
            PowerCut.at = None
            raise Killed


@pytest.fixture
def power_cut(monkeypatch):
    """The hook ``power_cut``, whose ``at`` says when."""
    monkeypatch.setitem(HOOKS, "power_cut", PowerCut)
    monkeypatch.setattr(PowerCut, "at", None)
    return PowerCut


def cells(notebook: str, monkeypatch, **parameters) -> dict:
    """A notebook's cells run in this process, which saves starting a kernel; what they left behind."""
    monkeypatch.setenv("RESEARCH_HEADLESS", "1")
    names = {"__name__": notebook}
    for cell in nbformat.read(find(notebook), 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", ()):
                names |= parameters
    return names


def weights(run: Run) -> dict[str, torch.Tensor]:
    """The weights in the newest checkpoint."""
    path = max(run.paths.checkpoints.glob("[0-9]*.pt"))
    return checkpoint.read(path)["model"]


def rows(run: Run) -> list[dict]:
    """The rows of metrics, without notes and times."""
    found = [json.loads(line) for line in run.paths.metrics.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in found if row["kind"] != "note"]


def assert_same_run(one: Run, other: Run) -> None:
    """Both runs ended with bit-identical weights and metrics."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert rows(one) == rows(other)


def companies() -> list[list[str]]:
    """Hooks that may run together, as many as possible at once, so that each is in one of these lists."""
    kinds: dict[str, list[str]] = {}
    for name, hook in HOOKS.items():
        kinds.setdefault(hook.exclusive, []).append(name)
    free = set(kinds.pop("", []))
    rounds = range(max(map(len, kinds.values()), default=1))
    chosen = [free | {names[n % len(names)] for names in kinds.values()} for n in rounds]
    return [[name for name in HOOKS if name in names] for names in chosen]
