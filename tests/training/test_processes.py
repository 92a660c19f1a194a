"""A run is the same experiment on 1, 2 and 4 processes: shown in float64, where sums in another order hardly differ."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import TESTS, rows
from plain_network import ACTING, PlainNetwork

from research.config import Config
from research.models import MODELS
from research.runs.run import Run

BASE = {"dataset": "digits", "model": "plain", "epochs": 2, "batch_size": 256, "lr": 0.05, "device": "cpu"}
BASE |= {"log_interval": 4, "threads": 1}
SETTINGS = {name: {"hooks": {name: parameters}} for name, parameters in ACTING.items()}
del SETTINGS["drop_path"]  # every process draws for its own images: equal in distribution only
SETTINGS |= {
    "plain": {},
    "clipping": {"clip_norm": 0.5, "accumulation": 2},
    "augmentation": {"data_args": {"crop": "pad", "padding": 1, "flip": True, "cutout": 2}},
    "mixing": {"data_args": {"mixup": 0.4, "cutmix": 1.0}, "hooks": {"power_grad": {"alpha": 0.5}}},
    "adamw": {"optimizer": "adamw", "lr": 1e-3},
    "sync_bn": {"sync_bn": True, "model_args": {"norm": True}},
}


QUICK = {("gram", 2), ("rigl", 2), ("sync_bn", 2), ("mixing", 2)}
CASES = [
    pytest.param(name, world, marks=() if (name, world) in QUICK else pytest.mark.slow)
    for name in SETTINGS
    for world in (2, 4)
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request) -> dict[tuple[str, int], Run]:
    """A run of each setting that is asked for, on one process and on several."""
    here = [item for item in request.session.items if item.path == request.path]
    asked = [item.callspec.params for item in here if "trained" in item.fixturenames]
    asked = [params for params in asked if params.keys() == {"name", "world"}]
    folder, runs = tmp_path_factory.mktemp("worlds"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "plain", PlainNetwork)
        for params in asked:
            for name, world in ((params["name"], 1), (params["name"], params["world"])):
                place = {"runs": str(folder), "name": f"{name}-{world}", "processes": world}
                runs[name, world] = Run.create(Config.load(BASE, SETTINGS[name], place))
    directories = [run.dir for run in runs.values()]
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, TESTS / "worlds.py", *directories], check=True, env=threads)
    return runs


@pytest.mark.parametrize(("name", "world"), CASES)
def test_a_run_ends_with_the_same_weights_and_rows_on_any_number_of_processes(name, world, trained):
    one, several = (torch.load(trained[name, n].dir / "weights.pt", weights_only=True) for n in (1, world))
    assert one.keys() == several.keys()
    for key in one:
        torch.testing.assert_close(one[key], several[key], rtol=1e-8, atol=1e-10, msg=key)
    alone, shared = rows(trained[name, 1]), rows(trained[name, world])
    assert len(alone) == len(shared) > 5
    for row, other in zip(alone, shared, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            assert value == (pytest.approx(other[key], rel=1e-6) if isinstance(value, float) else other[key]), key
