"""What every hook promises, checked over HOOKS: a new method is tested here without a line being added."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import TESTS, PowerCut, assert_same_run, companies

from research.config import Config
from research.contracts import hooks
from research.contracts.bench import SMALL, trained
from research.errors import UsageError
from research.hooks import HOOKS
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights

every_hook = pytest.mark.parametrize("name", HOOKS)


@every_hook
def test_hook_documents_itself_and_annotates_every_parameter(name):
    hooks.documents_itself(name, Config)


@every_hook
def test_neutral_settings_leave_training_bit_identical(name, tiny):
    hooks.neutral_settings_change_nothing(name, tiny)


@every_hook
def test_hook_resumes_bit_exactly(name, tiny):
    hooks.resumes_bit_exactly(name, tiny)


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
@pytest.mark.parametrize("names", companies(), ids="-".join)
def test_hooks_compose(names, order, tiny):
    company = {name: dict(HOOKS[name].exercise) for name in names[::order]}
    assert trained(tiny(**SMALL, epochs=2, hooks=company)).status["status"] == "finished"


@pytest.mark.parametrize("kind", sorted({hook.exclusive for hook in HOOKS.values()} - {""}))
def test_hooks_of_one_exclusive_kind_are_refused_together(kind):
    names = [name for name in HOOKS if HOOKS[name].exclusive == kind]
    for name, other in zip(names, names[1:], strict=False):
        with pytest.raises(UsageError, match=f"{other}: cannot run together with {name}: both decide the {kind}"):
            Config.load({"hooks": {name: {}, other: {}}})


@every_hook
def test_weights_evaluate_later_as_in_training(name, tiny):
    """What a method changes in the network is rebuilt when its weights are loaded."""
    run = trained(tiny(**SMALL, hooks={name: dict(HOOKS[name].exercise)}))
    assert not run.hooks[name].undone(run) or name == "auxiliary"  # for which the network has no head
    (row,) = evaluate_weights([run.dir], last=True)
    assert row["top1"] == pytest.approx(run.status["last_top1"])


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory) -> dict[str, Run]:
    """Two runs with each hook, ``NAME`` and ``NAME-cut``, all trained by one pair of processes."""
    common = SMALL | {"epochs": 2, "processes": 2, "device": "cpu", "runs": str(tmp_path_factory.mktemp("ranks"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HOOKS, "power_cut", PowerCut)
        runs = {}
        for hook in [name for name in HOOKS if name != "power_cut"]:
            exercised = {hook: dict(HOOKS[hook].exercise), "power_cut": {}}
            for name in (hook, f"{hook}-cut"):
                runs[name] = Run.create(Config.load(common, {"name": name, "hooks": exercised}))
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        directories = [run.dir for run in runs.values()]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*torchrun, TESTS / "ranks.py", *directories], check=True, env=threads)
        yield runs


@every_hook
def test_all_ranks_end_with_the_same_weights_and_hook_state(name, on_two_ranks):
    one, two = (torch.load(on_two_ranks[name].dir / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one.keys() == two.keys()
    for key in one:
        assert torch.equal(one[key], two[key]), key


@every_hook
def test_hook_resumes_bit_exactly_on_two_ranks(name, on_two_ranks):
    assert_same_run(on_two_ranks[name], on_two_ranks[f"{name}-cut"])
