"""What a method promises; every function is one promise of the method ``name`` and fails with an AssertionError."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any
from unittest import mock

import torch

from research.contracts.bench import (
    OF_TRAINING,
    SMALL,
    Make,
    NotAsked,
    assert_equal,
    assert_same_run,
    cut_short,
    rows,
    trained,
    weights,
)
from research.contracts.watch import watched
from research.hooks import HOOKS, Hook
from research.parameters.signatures import parameters_of
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights

CLOSE = {"rtol": 1e-6, "atol": 1e-9}  # sums of float64 in another order, after ten steps


def documents_itself(name: str, make: Make) -> None:
    """The class has a docstring, and every parameter a default and a meaning."""
    method = HOOKS[name]
    assert vars(method).get("__doc__"), f"class {method.__name__} needs a docstring, whose first line is listed"
    for parameter in parameters_of(method).values():
        assert not parameter.required, f"{name}=true must be enough; give {parameter.name} a default"
        assert parameter.help, f"{name}.{parameter.name} needs a meaning: Annotated[type, Range(...), 'meaning']"


def acts_within_a_dozen_steps(name: str, make: Make) -> None:
    """With the parameters in ``exercise`` something differs from plain training, or is measured."""
    plain, other = trained(make(**SMALL, name="plain")), trained(make(**SMALL, name="acting", hooks=exercised(name)))
    undone = other.hooks[name].undone(other)
    assert not undone, undone
    mine = weights(other)
    moved = any(not torch.equal(tensor, mine[key]) for key, tensor in weights(plain).items() if key in mine)
    assert moved or mine.keys() != weights(plain).keys() or rows(plain) != rows(other), (
        f"nothing differs from plain training; {HOOKS[name].__name__}.exercise says with which parameters it acts"
    )


def neutral_settings_change_nothing(name: str, make: Make) -> None:
    """With the parameters in ``neutral`` training is plain training, bit for bit."""
    if not any("neutral" in vars(each) for each in HOOKS[name].__mro__ if each is not Hook and each is not object):
        raise NotAsked("declares no neutral settings")
    plain = trained(make(**SMALL, name="plain"))
    neutral = trained(make(**SMALL, name="neutral", hooks={name: dict(HOOKS[name].neutral)}))
    assert_equal(weights(plain), weights(neutral))
    assert rows(plain) == [row for row in rows(neutral) if row["kind"] in OF_TRAINING], "rows of training differ"


def resumes_bit_exactly(name: str, make: Make) -> None:
    """A run that lost its power ends as one that did not."""
    whole = trained(make(**SMALL, name="whole", hooks=exercised(name)))
    config = make(**SMALL, name="cut", hooks=exercised(name))
    cut_short(Run.create(config))
    assert_same_run(whole, trained(config))


def evaluates_later_as_in_training(name: str, make: Make) -> None:
    """What it changes in the network is there again when weights are loaded."""
    run = trained(make(**SMALL, name="evaluated", hooks=exercised(name)))
    (row,) = evaluate_weights([run.dir], last=True)
    assert abs(row["top1"] - run.status["last_top1"]) < 1e-4, f"{row['top1']} later, {run.status['last_top1']} then"


def composes_with_every_other(name: str, make: Make) -> None:
    """It trains beside all methods of the package that may run together, before and after them."""
    kinds = {HOOKS[name].exclusive: name} if HOOKS[name].exclusive else {}
    for other, method in HOOKS.items():
        kinds.setdefault(method.exclusive or other, other)
    company = {other: dict(HOOKS[other].exercise) for other in {*kinds.values(), name}}
    for order in (sorted(company, key=lambda each: each == name), sorted(company, key=lambda each: each != name)):
        hooks = {other: company[other] for other in order}
        run = trained(make(**SMALL, name=f"company-{order[0]}", hooks=hooks))
        assert run.status["status"] == "finished"


def waits_for_no_number_in_a_step(name: str, make: Make) -> None:
    """It asks for no value on the host in ``loss``, ``grads`` and ``step_end``, but in the rare steps of an event."""
    file, asked = inspect.getfile(HOOKS[name]), {}

    class Watched(HOOKS[name]):
        def loss(self, run: Run, loss: Any) -> Any:
            return self.seen("loss", run, lambda: super(Watched, self).loss(run, loss))

        def grads(self, run: Run) -> None:
            self.seen("grads", run, lambda: super(Watched, self).grads(run))

        def step_end(self, run: Run) -> None:
            self.seen("step_end", run, lambda: super(Watched, self).step_end(run))

        def seen(self, event: str, run: Run, call: Any) -> Any:
            result, asked[event, run.step] = watched(call, file)
            return result

    with mock.patch.dict(HOOKS, {name: Watched}):
        trained(make(**SMALL, name="watched", hooks=exercised(name)))
    for event in ("loss", "grads", "step_end"):
        steps = [told for (of, _), told in asked.items() if of == event]
        if (often := sum(map(bool, steps))) > len(steps) / 2:
            example = next(filter(None, steps))[0]
            raise AssertionError(f"{event} waits in {often} of {len(steps)} steps: {example}")


def is_the_same_on_two_processes(name: str, make: Make) -> None:
    """Two processes hold the same weights and state, resume bit-exactly, and train as one process does, in float64."""
    common = {"batch_size": 256, "checkpoint_minutes": 0, "log_interval": 2, "hooks": exercised(name)}
    one = make(**common, model="plain_network", name="double-one")
    pairs = {
        kind: Run.create(make(**common, processes=2, model=model, name=kind))
        for kind, model in (("whole-two", "resnet8"), ("cut-two", "resnet8"), ("double-two", "plain_network"))
    }
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        alone = trained(one)
    finally:
        torch.set_default_dtype(before)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "research.contracts.ranks", *(str(run.dir) for run in pairs.values())]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, next((w for w in done.stderr.splitlines() if "Error" in w), "a process failed")
    states = [torch.load(pairs["whole-two"].dir / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert_equal(*states)
    assert_same_run(pairs["whole-two"], pairs["cut-two"])
    together = weights(pairs["double-two"])
    for key, tensor in weights(alone).items():
        far = (tensor.double() - together[key].double()).abs().max().item() if tensor.numel() else 0.0
        assert torch.allclose(tensor, together[key], **CLOSE), f"{key} is {far:.2g} off what one process trains"


def exercised(name: str) -> dict[str, dict[str, Any]]:
    return {name: dict(HOOKS[name].exercise)}


PROMISES = (
    documents_itself,
    acts_within_a_dozen_steps,
    neutral_settings_change_nothing,
    resumes_bit_exactly,
    evaluates_later_as_in_training,
    composes_with_every_other,
    waits_for_no_number_in_a_step,
    is_the_same_on_two_processes,
)
