"""Drop-path: the published numbers, what is dropped and when, and the recipe it belongs to."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDENS, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from research.config import Config
from research.data import pixel_kernels as kernels
from research.data.draws import DRAW
from research.errors import UsageError
from research.hooks.drop_path import ScheduledDropPath
from research.layers.drop_path import DropPath, drop_path
from research.models import create_model
from research.runs.run import Run
from research.training.loop import fit
from research.training.schedule import learning_rate

GOLDEN = GOLDENS / "cheap-convs"
SCHEDULES = {item["name"]: item for item in json.loads((GOLDEN / "schedules.json").read_text())["items"]}


@pytest.mark.parametrize("name", ["droppath_0", "droppath_2"])
def test_drop_path_equals_the_published_function(name):
    with np.load(GOLDEN / f"{name}.npz") as g:
        y = drop_path(torch.from_numpy(g["x"]), torch.from_numpy(g["mask"]), g["p"].item())
        np.testing.assert_allclose(y, g["y"], rtol=1e-6)


@given(st.integers(0, 2**31), st.floats(0.05, 0.9), st.integers(1, 4))
@settings(max_examples=10)
def test_whole_samples_are_dropped_at_the_given_rate_and_the_mean_stays(seed, p, axes):
    torch.manual_seed(seed)
    layer, count = DropPath(), 2000
    layer.p = torch.tensor(p)
    y = layer(torch.ones(count, *[2] * axes)).flatten(1)
    assert torch.equal(y, y[:, :1].expand_as(y))
    kept = (y[:, 0] > 0).double().mean().item()
    assert abs(kept - (1 - p)) < 6 * (p * (1 - p) / count) ** 0.5
    torch.testing.assert_close(y[y > 0], torch.full_like(y[y > 0], 1 / (1 - p)))


def test_nothing_is_drawn_or_changed_in_evaluation_or_when_it_is_off():
    x, state = torch.randn(4, 3), torch.get_rng_state()
    layer = DropPath()
    assert layer(x) is x
    layer.p = torch.tensor(0.5)
    assert layer.eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state) and not layer.state_dict()


def test_identities_of_a_darts_cell_are_never_dropped():
    torch.manual_seed(0)
    cell = create_model("darts", C=4, layers=6).cells[0]
    cell.drop_path.p = torch.tensor(1.0)
    s0, s1 = torch.randn(2, 3, 12, 8, 8)
    skip = cell.preprocess0(s0)  # DARTS_V2: nodes 4 and 5 have a skip connection from state 0
    torch.testing.assert_close(cell(s0, s1), torch.cat([0 * skip, 0 * skip, skip, skip], 1))


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1"])
def test_residual_networks_without_their_branches_are_their_shortcuts(name):
    network = create_model(name, 10, (1, 8, 8))
    block = (network.layer1 if name == "resnet8" else network.group1)[0]
    block.drop_path.p = torch.tensor(1.0)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x.relu() if name == "resnet8" else x)


def test_chance_rises_with_the_epochs_as_published():
    hook = ScheduledDropPath(p=0.2)
    for epoch, p in SCHEDULES["darts"]["drop_path"]:
        assert hook.p_at(epoch, 600) == pytest.approx(p, rel=1e-12)


def test_the_chance_of_the_epoch_is_in_force_and_changes_training(tiny):
    small = {"model": "resnet8", "batch_size": 512, "epochs": 2}
    plain = fit(Run.create(tiny(**small, name="plain")))
    run = fit(Run.create(tiny(**small, name="dropped", hooks={"drop_path": {"p": 0.5}})))
    ends = [module for module in run.model.modules() if isinstance(module, DropPath)]
    assert len(ends) == 3 and all(module.p.item() == 0.25 for module in ends)
    assert any(not torch.equal(weight, weights(plain)[name]) for name, weight in weights(run).items())


def test_network_without_branches_is_refused(tiny):
    with pytest.raises(UsageError, match="drop_path: mnist_mlp has no branches to drop; networks of DARTS"):
        fit(Run.create(tiny(hooks={"drop_path": {}})))


@pytest.mark.parametrize(("recipe", "name"), [("darts-cifar10", "darts"), ("wrn-cifar10", "wrn_cifar10")])
def test_recipe_has_the_learning_rates_of_the_study(recipe, name):
    config = Config.load({"recipe": recipe})
    assert config.epochs == SCHEDULES[name]["epochs"]
    for epoch, lr in SCHEDULES[name]["lr"]:
        assert learning_rate(config, epoch * 391, 391) == pytest.approx(lr, rel=1e-9)


@pytest.mark.parametrize("name", ["cutout_0", "cutout_7"])
def test_cutout_of_the_recipes_has_the_published_geometry(name):
    with np.load(GOLDEN / f"{name}.npz") as g:
        mask = g["mask"]
        numbers = np.random.RandomState(int(g["seed"]))
    draw = np.zeros(1, DRAW)
    draw["rows"] = draw["columns"] = 32
    draw["cut_row"], draw["cut_column"] = numbers.randint(32), numbers.randint(32)  # in this order
    out = np.empty((32, 32, 1), np.float32)
    cutout = Config.load({"recipe": "darts-cifar10"}).data_args["cutout"]
    lines = np.ones(32, np.float32), np.zeros(32, np.float32)
    kernels.render(np.ones((32, 32, 1), np.uint8), draw[0], (*lines, cutout, False, False, False), out)
    assert np.array_equal(out[:, :, 0], mask)
