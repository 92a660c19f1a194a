"""Events in steps that are skipped because a gradient overflowed under amp=fp16: they take such a step for none."""

import json
import shutil

import pytest
import torch
from conftest import Killed, rows, weights

from research.hooks import HOOKS, Hook
from research.runs.run import Run
from research.training.loop import fit

REWIRED = {  # methods with events in every other step, and the rows they write when none is skipped
    "rigl": ({"period": 2}, [2, 4, 6, 8]),  # before the update, so that the row has the number of the step
    "itop": ({"period": 2}, [2, 4, 6, 8, 10]),
    "set": ({"period": "2"}, [3, 5, 7, 9, 11]),
    "dsr": ({"period": "2", "k": 200, "threshold": 0.02}, [3, 5, 7, 9, 11]),
    "snfs": ({"period": 2}, [2, 4, 6, 8, 10]),
}


class Overflow(Hook):
    """Makes a gradient of the first layer infinite in the 0-based steps ``at``, before the scaler looks at it."""

    at: tuple[int, ...] = ()

    def setup(self, run):
        def overflow(weight):
            if run.step in Overflow.at:
                weight.grad.view(-1)[:4] = torch.inf

        self.handle = run.model[1].weight.register_post_accumulate_grad_hook(overflow)

    def close(self):
        self.handle.remove()


class Masks(Hook):
    """Keeps the masks as they are after every step."""

    def step_end(self, run):
        sparse = next(hook for hook in run.hooks.values() if hook.exclusive == "masks")
        self.seen = [*getattr(self, "seen", []), torch.cat([t.mask.flatten() for t in sparse.tensors])]


@pytest.fixture
def trained(tiny, monkeypatch):
    """``trained(at, **hooks)``: a run under amp=fp16 whose steps ``at`` overflow."""
    monkeypatch.setitem(HOOKS, "overflow", Overflow)
    monkeypatch.setitem(HOOKS, "masks", Masks)

    def train(at: tuple[int, ...], epochs: int = 1, **hooks) -> Run:
        monkeypatch.setattr(Overflow, "at", at)
        return fit(Run.create(tiny(amp="fp16", epochs=epochs, hooks={"overflow": {}} | hooks)))

    return train


def events(run: Run) -> list[int]:
    return [row["step"] for row in rows(run) if row["kind"] == "sparse_event"]


def told(run: Run, what: str) -> bool:
    return any(what in json.loads(line).get("text", "") for line in run.paths.metrics.read_text().splitlines())


def assert_sparse_and_finite(run: Run) -> None:
    (hook,) = (hook for hook in run.hooks.values() if hook.exclusive == "masks")
    for tensor in hook.tensors:
        assert torch.equal(tensor.weight, tensor.masked(tensor.weight)) and tensor.weight.isfinite().all()


@pytest.mark.parametrize("name", REWIRED)
def test_an_event_is_put_off_to_the_next_step_that_is_not_skipped(name, trained):
    parameters, due = REWIRED[name]
    step = due[1] if name == "rigl" else due[1] - 1
    run = trained((0, step), **{name: parameters}, masks={})
    assert events(run) == [due[0], due[1] + 1, *due[2:]]
    assert told(run, f"gradients overflow in step {step}, which is skipped; the event due in it comes in the next one")
    masks = run.hooks["masks"].seen
    assert torch.equal(masks[step - 1], masks[step]) and not torch.equal(masks[step], masks[step + 1])
    assert_sparse_and_finite(run)


@pytest.mark.parametrize("name", ["rigl", "itop"])
def test_an_event_at_random_is_put_off_too(name, trained):
    run = trained((3, 4), **{name: {"period": 4, "growth": "random"}})
    assert events(run)[:2] == [6, {"rigl": 9, "itop": 8}[name]]  # one follows steps 4, 8, the other updates 4, 8


def test_an_event_that_was_put_off_survives_a_stop(trained, power_cut):
    whole = trained((10,), itop={"period": 11}, power_cut={}, epochs=2)  # put off from the last step of the first epoch
    kept = weights(whole), rows(whole)
    shutil.rmtree(whole.dir)
    power_cut.at = 12
    with pytest.raises(Killed):
        trained((10,), itop={"period": 11}, power_cut={}, epochs=2)
    cut = trained((10,), itop={"period": 11}, power_cut={}, epochs=2)
    assert events(cut) == [12] and rows(cut) == kept[1]
    assert all(torch.equal(weight, kept[0][name]) for name, weight in weights(cut).items())


def test_snfs_has_its_first_event_after_the_first_update(trained):
    run = trained((0, 1), snfs={"period": 1})
    assert events(run)[:2] == [3, 4]


def test_prune_comes_as_planned(trained):
    prune = {"iterations": 2, "begin": 0.0, "end": 0.2}
    run = trained((0, 1), prune=prune)  # steps 1 and 2 of 11
    assert events(run) == run.hooks["prune"].plan == [1, 2]
    assert_sparse_and_finite(run)


def test_deepr_kills_nothing(trained):
    run = trained((2, 3), deepr=HOOKS["deepr"].exercise, masks={})
    masks = run.hooks["masks"].seen
    assert torch.equal(masks[1], masks[3]) and not torch.equal(masks[1], masks[4])
    assert_sparse_and_finite(run)
