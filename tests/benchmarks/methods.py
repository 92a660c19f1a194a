"""The training loop against a bare one, and a step with each method against a step without, in processes of their own.

python tests/benchmarks/methods.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from loop import METHODS, bare, ours, prepared
from pairs import Alone, Row, Ways, main, told

from research.processes import keep_freed_memory


def our_loop(model: str, batch: int, method: str) -> Callable[[], None]:
    keep_freed_memory()  # as a process of a run does
    return partial(ours, *prepared(model, batch, hooks=METHODS.get(method, {})))


def bare_loop(model: str, batch: int) -> Callable[[], None]:
    """With PyTorch's SGD as it comes."""
    run, _ = prepared(model, batch)
    given = {"momentum": run.config.momentum, "weight_decay": run.config.weight_decay, "nesterov": True}
    return partial(bare, run, torch.optim.SGD(run.model.parameters(), 0.1, **given))


@cache
def alone(prepare: Callable, *given: Any) -> Alone:
    return Alone(prepare, *given)


def loops(model: str, small: bool) -> Ways:
    return Ways(alone(our_loop, model, 64, ""), alone(bare_loop, model, 64), cost=told)


def peaks(model: str, small: bool) -> Ways:
    own, other = alone(our_loop, model, 64, ""), alone(bare_loop, model, 64)
    return Ways(own.peak, other.peak, cost=told)


def with_method(method: str, small: bool) -> Ways:
    return Ways(Alone(our_loop, "mnist_mlp", 100, method), alone(our_loop, "mnist_mlp", 100, ""), cost=told)


AIMS = {"ema": 1.03, "tied": 1.08, "dsr, l1": 1.06, "deepr": 1.12, "deepr, l1": 1.12}  # masks: 1.04
MODELS = ("mnist_mlp", "resnet20")
ROWS = [Row(f"our loop, {model}", "a bare loop", "<= 1.00", partial(loops, model)) for model in MODELS]
ROWS += [
    Row(f"memory of our loop, {model}", "a bare loop's process", "<= 1.03", partial(peaks, model), unit="MB")
    for model in MODELS
]
ROWS += [
    Row(f"step with {method}, mnist_mlp", "no method", f"<= {AIMS.get(method, 1.04)}", partial(with_method, method))
    for method in METHODS
    if method not in ("power_grad", "logit_stats")
]

if __name__ == "__main__":
    main(ROWS, __doc__)
