"""What sparse training costs: one event, DeepR's upkeep at every step, and whole steps against the dense network's.

python tests/benchmarks/sparse.py [--repeats 7] [--models mnist_mlp wrn-28-2 resnet50]
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import count
from time import process_time
from types import SimpleNamespace

import torch
from pairs import Row, Ways
from torch import nn
from torch.nn import functional as F

from research.hooks.sparse import (
    DeepR,
    Dsr,
    MaskHook,
    Set,
    Snfs,
    StaticSparse,
    deepr_step,
    dsr_step,
    grow_random,
    itop_step,
    rigl_step,
    set_step,
    snfs_step,
)
from research.hooks.sparse.base import forget
from research.hooks.sparse.deepr import deepr_noise
from research.layers.masked import Masked, active_weights, masked_weights
from research.models import create_model
from research.processes import keep_freed_memory

CASES = {  # model: sparsity, K, limits in ms of an event and of DeepR's upkeep, batch of a whole step
    "mnist_mlp": (0.98, 600, 1, 0.5, 100),
    "wrn-28-2": (0.9, 20_000, 15, 5, 8),
    "resnet50": (0.9, 400_000, 350, 120, 0),
}


def fake_run(model: nn.Module) -> SimpleNamespace:
    """As much of a run as the hooks ask for."""
    seeds = count()
    return SimpleNamespace(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        generator=lambda *names: torch.Generator().manual_seed(next(seeds)),
        log=lambda *args, **values: None,
        config=SimpleNamespace(optimizer="sgd", momentum=0.9),
        step=0,
        epoch=0,
        batch=0,
        epochs=1,
        steps_per_epoch=10**6,
    )


def prepared(name: str, hook: MaskHook | None) -> tuple[SimpleNamespace, MaskHook | None]:
    torch.manual_seed(0)
    model = create_model(name).to(memory_format=torch.channels_last)
    run = fake_run(model)
    if hook:
        hook.build(run)
        hook.setup(run)
    return run, hook


def clock(work, repeats: int, before=lambda: None) -> float:
    """Least CPU time of ``work`` in ms."""
    times = []
    for _ in range(repeats):
        before()
        started = process_time()
        work()
        times.append(process_time() - started)
    return 1e3 * min(times)


def with_gradients(run: SimpleNamespace, tensors: list[Masked]) -> None:
    """Gradients and momentum as after a step, without taking one."""
    for tensor in tensors:
        tensor.weight.grad = tensor.masked(torch.randn_like(tensor.weight))
        run.optimizer.state[tensor.weight]["momentum_buffer"] = torch.zeros_like(tensor.weight)


def events(name: str) -> dict[str, tuple[Callable[[], None], Callable[[], None], float]]:
    """Event -> what is timed, what comes before it, and its limit in ms."""
    sparsity, k, event_limit, upkeep_limit, _ = CASES[name]
    run, _ = prepared(name, StaticSparse(sparsity=sparsity))
    tensors = masked_weights(run.model)
    with_gradients(run, tensors)
    dense = [torch.randn_like(tensor.weight) for tensor in tensors]  # gradients, or momentum
    values = torch.cat([tensor.magnitudes() for tensor in tensors])
    threshold = values.kthvalue(k).values.item()
    generator = torch.Generator().manual_seed(0)
    grow = partial(grow_random, generator=generator)

    @torch.no_grad()
    def redraw() -> None:
        for tensor in tensors:
            tensor.weight.copy_(tensor.masked(torch.randn_like(tensor.weight) * values.std()))
        nonlocal threshold
        threshold = torch.cat([tensor.magnitudes() for tensor in tensors]).kthvalue(k).values.item()

    def finish(event) -> None:
        for tensor, killed in zip(tensors, event.killed, strict=True):
            forget(run.optimizer, tensor, killed)
            len(tensor.active)  # the list that the next step needs

    before = []

    def remember() -> None:
        redraw()
        before[:] = [active_weights(tensors)]
        for tensor in tensors:  # a handful of signs change in a step
            tensor.write(tensor.weight, flipped := tensor.active[:2], -tensor.flat(tensor.weight)[flipped].detach())

    def upkeep() -> None:
        active_weights(tensors)
        deepr_noise(tensors, 0.01, 1e-5, generator)
        finish(deepr_step(tensors, *before, grow))

    return {
        "DSR event": (lambda: finish(dsr_step(tensors, threshold, k, grow)[0]), redraw, event_limit),
        "SET event": (lambda: finish(set_step(tensors, 0.1, grow)), redraw, event_limit),
        "RigL event": (lambda: finish(rigl_step(tensors, 0.3, dense)), redraw, event_limit),
        "ITOP event": (lambda: finish(itop_step(tensors, 0.3, dense)), redraw, event_limit),
        "SNFS event": (lambda: finish(snfs_step(tensors, dense, 0.3)), redraw, event_limit),
        "DeepR upkeep": (upkeep, remember, upkeep_limit),
    }


def within_limit(name: str, event: str, small: bool) -> Ways:
    keep_freed_memory()  # as a process of a run does
    work, before, limit = events(name)[event]
    return Ways(work, 1e-3 * limit, before)


ROWS = [
    Row(f"{event}, {name}", f"{CASES[name][3 if event == 'DeepR upkeep' else 2]:g} ms", "<= 1",
        partial(within_limit, name, event))
    for name in ("mnist_mlp", "wrn-28-2")
    for event in ("DSR event", "SET event", "RigL event", "ITOP event", "SNFS event", "DeepR upkeep")
]  # fmt: skip


def steps(name: str, repeats: int) -> None:
    """CPU time of whole steps, methods in turn, so that neighbours hurt all alike."""
    sparsity, k, _, _, batch = CASES[name]
    shape = (1, 28, 28) if name == "mnist_mlp" else (3, 32, 32)
    inputs, targets = torch.randn(batch, *shape), torch.randint(10, (batch,))
    contenders = {
        "dense": None,
        "static_sparse": StaticSparse(sparsity=sparsity),
        "set": Set(sparsity=sparsity),
        "dsr": Dsr(sparsity=sparsity, k=k),
        "dsr, l1": Dsr(sparsity=sparsity, k=k, l1=1e-4),
        "snfs": Snfs(sparsity=sparsity),
        "deepr": DeepR(sparsity=sparsity),
        "deepr, l1": DeepR(sparsity=sparsity, l1=1e-5),
    }
    prepared_runs = {what: prepared(name, hook) for what, hook in contenders.items()}
    number, rounds = (10, 20 * repeats) if name == "mnist_mlp" else (1, 3 * repeats)

    def some_steps(run: SimpleNamespace, hook: MaskHook | None) -> None:
        for _ in range(number):
            loss = F.cross_entropy(run.model(inputs), targets)
            (hook.loss(run, loss) if hook else loss).backward()
            if hook:
                hook.grads(run)
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)
            run.step += 1
            if hook:
                hook.step_end(run)

    times = {what: [] for what in contenders}
    for _ in range(rounds):
        for what, (run, hook) in prepared_runs.items():
            times[what].append(clock(partial(some_steps, run, hook), 1) / number)
    for what, taken in times.items():
        ratio = sorted(a / b for a, b in zip(taken, times["dense"], strict=True))[rounds // 2]
        print(
            f"{name:10s} {'step, ' + what:18s} {min(taken):9.3f} ms   {min(taken) / min(times['dense']):.2f} x dense"
            f" (median {ratio:.2f})"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a process of a run does
    print("1 thread, least CPU time of repeats; limits are those of an event or a step's upkeep")
    for model in options.models:
        repeats = options.repeats * (1 if model == "resnet50" else 10)
        for event, (work, before, limit) in events(model).items():
            print(f"{model:10s} {event:14s} {clock(work, repeats, before):9.2f} ms   limit {limit:6.1f} ms")
        if CASES[model][-1]:
            steps(model, options.repeats)
