"""Events in steps that are skipped because a gradient overflowed under amp=fp16."""

import json
import shutil

import pytest
import torch
from conftest import Killed, rows, weights

from research.hooks import HOOKS, Hook
from research.runs.run import Run
from research.training.loop import fit


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


@pytest.fixture
def trained(tiny, monkeypatch):
    """``trained(at, **hooks)``: a run under amp=fp16 whose steps ``at`` overflow."""
    monkeypatch.setitem(HOOKS, "overflow", Overflow)

    def train(at: tuple[int, ...], **hooks) -> Run:
        monkeypatch.setattr(Overflow, "at", at)
        return fit(Run.create(tiny(amp="fp16", hooks={"overflow": {}} | hooks)))

    return train


def events(run: Run) -> list[int]:
    return [row["step"] for row in rows(run) if row["kind"] == "sparse_event"]


def told(run: Run, what: str) -> bool:
    return any(what in json.loads(line).get("text", "") for line in run.paths.metrics.read_text().splitlines())


def test_rigl_puts_its_event_off_until_gradients_are_finite(trained):
    run = trained((4, 5), rigl={"period": 4, "end": 9})
    assert events(run) == [6, 8]
    assert told(run, "rigl: gradients overflow in step 4; its event comes in the next one")
    assert all(weight.isfinite().all() for weight in run.model.parameters())


def test_itop_puts_its_event_off_until_gradients_are_finite(trained):
    run = trained((3, 4), itop={"period": 4})
    assert events(run)[:2] == [6, 8]
    assert told(run, "itop: gradients overflow in step 3; its event comes after the next one")
    assert all(weight.isfinite().all() for weight in run.model.parameters())


def test_an_event_that_was_put_off_survives_a_stop(trained, power_cut):
    whole = trained((10,), itop={"period": 11}, power_cut={})  # put off from the last step of the first epoch
    kept = weights(whole), rows(whole)
    shutil.rmtree(whole.dir)
    power_cut.at = 12
    with pytest.raises(Killed):
        trained((10,), itop={"period": 11}, power_cut={})
    cut = trained((10,), itop={"period": 11}, power_cut={})
    assert events(cut) == [12] and rows(cut) == kept[1]
    assert all(torch.equal(weight, kept[0][name]) for name, weight in weights(cut).items())


def test_snfs_leaves_out_an_event_before_the_first_update(trained):
    run = trained((0,), snfs={"period": 1})
    assert told(run, "snfs: no momentum yet after step 1, whose update was skipped")
    assert events(run)[0] == 2


@pytest.mark.parametrize("name", ["set", "dsr", "deepr", "prune", "static_sparse"])
def test_other_methods_go_on_with_what_they_have(name, trained):
    run = trained((2, 3), **{name: dict(HOOKS[name].exercise)})
    assert run.status["status"] == "finished"
    for tensor in run.hooks[name].tensors:
        assert torch.equal(tensor.weight, tensor.masked(tensor.weight)) and tensor.weight.isfinite().all()
