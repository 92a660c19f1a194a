"""A run that continues on another number of processes: what stays equal, and what does not."""

import json
from collections import defaultdict

import pytest
from conftest import rows, weights

from research import launch
from research.runs.run import Run
from research.training import loop
from research.training.loop import Stopped, fit
from research.training.meter import Meter

WITNESS = """
import json, os, pathlib
from research.training import loop
from research.training.meter import Meter
def watched(self, loader, wait=Meter.waiting_for):
    for number, batch in enumerate(wait(self, loader), start=loader.start):
        name = f"{loader.epoch}-{number:02}-{loader.share.rank}"
        pathlib.Path(os.environ["SEEN"], name).write_text(json.dumps(batch[1].tolist()))
        yield batch
calls = iter(range(int(os.environ["STOP_AFTER"])))
Meter.waiting_for, loop.stop_requested = watched, lambda: next(calls, None) is None
"""


@pytest.fixture
def train(tmp_path, monkeypatch, in_workers):
    """``train(config, stop_after)``: train, here or on several processes, until so many looks found no wish to stop."""
    in_workers(WITNESS)

    def go(config, stop_after=1000) -> Run:
        (tmp_path / config.name).mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setenv("SEEN", str(tmp_path / config.name))
            patch.setenv("STOP_AFTER", str(stop_after))
            if config.processes > 1:
                return launch(config)
            patch.setattr(Meter, "waiting_for", Meter.waiting_for)
            patch.setattr(loop, "stop_requested", loop.stop_requested)
            exec(WITNESS, {})
            return fit(Run.create(config))

    return go


def seen(folder) -> dict[str, list[int]]:
    """The labels of every step, over all ranks in their order."""
    found = defaultdict(list)
    for path in sorted(folder.iterdir()):
        found[path.name.rpartition("-")[0]] += json.loads(path.read_text())
    return found


@pytest.mark.parametrize("batch_norm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_one_two_processes_take_the_steps_of_one(tiny, train, tmp_path, batch_norm):
    """Stopped between two rows of metrics, inside of epochs; a batch norm sees other batches on two processes."""
    given = {"epochs": 3, "model": "mnist_mlp", "model_args": {"batch_norm": batch_norm}}
    one, two = tiny(name="elastic", **given), tiny(name="elastic", processes=2, **given)
    with pytest.raises(KeyboardInterrupt):
        train(two, stop_after=6)
    assert Run.create(one).status["step"] == 6
    with pytest.raises(Stopped):
        train(one, stop_after=12)
    assert Run.create(one).status["step"] == 17
    run, whole = train(two), train(tiny(name="whole", **given))
    assert seen(tmp_path / "elastic") == seen(tmp_path / "whole") and len(seen(tmp_path / "whole")) == 33
    rates = [[row["lr"] for row in rows(each) if row["kind"] == "train"] for each in (run, whole)]
    assert rates[0] == rates[1]
    furthest = max(float(weights(whole)[name].sub(weight).abs().max()) for name, weight in weights(run).items())
    assert furthest > 1e-3 if batch_norm else furthest < 1e-5
