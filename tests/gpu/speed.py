"""How fast a GPU trains: images a second, our loop against a bare one, and what each method adds.

Times are the least of a few rounds, in which all that is compared takes turns; the device is waited for at both ends.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from isolated import Skip, Wrong
from torch import nn
from torch.nn import functional as F

from research.config import Config
from research.data.augment import Augment
from research.data.loader import Batch, DataInfo, Loader, Share
from research.data.memory_loader import Images, MemoryLoader
from research.hooks import HOOKS
from research.models import MODELS, create_model
from research.runs.run import Run
from research.training.loop import train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare
from research.training.schedule import learning_rate

ROUNDS = 3
EPOCHS = 200  # of the usual CIFAR recipe
WITHOUT = ("drop_path", "auxiliary")  # this network has no branches that end in a DropPath, and no second head
METHODS = [name for name in HOOKS if name not in WITHOUT and HOOKS[name].__module__.startswith("research.")]


def cifar_resnet18(num_classes: int = 10, input_shape: tuple[int, ...] = (3, 32, 32), /) -> nn.Module:
    """ResNet-18 as it is used on CIFAR: a 3x3 stem without pooling."""
    model = create_model("resnet18", num_classes, input_shape)
    model.conv1, model.maxpool = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False), nn.Identity()
    return model


MODELS["cifar_resnet18"] = cifar_resnet18


class OneBatch(Loader):
    """The same batch of noise again and again, on the device: training without data."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(self.batch, *self.info.shape, generator=generator).to(self.device)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        targets = torch.randint(0, self.info.classes, (self.batch,), generator=generator).to(self.device)
        for _ in range(first, last):
            yield inputs, targets


def noise(device: str, batch: int, size: int, steps: int) -> dict[str, Loader]:
    info = DataInfo("noise", 1000, (3, size, size), (0.5,) * 3, (0.2,) * 3, steps * batch, batch)
    return {split: OneBatch(info, Share(split, 0, 1, batch, 0), device) for split in ("train", "val")}


def cifar(device: str, batch: int, images: int) -> dict[str, Loader]:
    """As many random images as CIFAR-10 has, with its augmentation, from memory."""
    random = np.random.default_rng(0)
    info = DataInfo("cifar", 10, (3, 32, 32), (0.5,) * 3, (0.2,) * 3, images, batch)
    stored = Images.of_one_size(
        random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, images)
    )
    augment = Augment(crop="pad", padding=4, flip=True)
    shares = {split: Share(split, 0, 1, batch, 0) for split in ("train", "val")}
    return {split: MemoryLoader(info, share, stored, augment, device) for split, share in shares.items()}


@contextmanager
def prepared(device: str, loaders: dict[str, Loader], **given: Any) -> Iterator[tuple[Run, Meter]]:
    """A run before its first step, on these data."""
    base = {"device": device, "batch_size": loaders["train"].share.batch_size, "epochs": EPOCHS, "log_interval": 10_000}
    base |= {"amp": "bf16", "channels_last": True, "threads": 1}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as runs:
        run = Run.create(Config.load(base, {"runs": runs}, given))
        with mock.patch("research.training.prepare.make_loaders", lambda *_, **__: loaders):
            prepare(run)
        for hook in run.hooks.values():
            hook.epoch_start(run)
        yield run, Meter(run)
        for hook in run.hooks.values():
            hook.close()


def ours(run: Run, meter: Meter) -> None:
    run.batch = 0
    run.train_loader.set_epoch(run.epoch)
    train_epoch(run, meter)
    meter.new_epoch()


def bare(run: Run) -> None:
    """The plainest loop over the same batches with the same network and optimizer."""
    run.network.train()
    for inputs, targets in run.train_loader:
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(run.config, run.step, run.steps_per_epoch)
        with run.autocast:
            loss = F.cross_entropy(run.network(inputs), targets)
        loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)


def seconds(device: str, work: Callable[[], None]) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def least(device: str, works: dict[str, Callable[[], None]], rounds: int = ROUNDS) -> dict[str, float]:
    """The least seconds of each, after one round that counts for nothing."""
    found = [{name: seconds(device, work) for name, work in works.items()} for _ in range(1 + rounds)]
    return {name: min(each[name] for each in found[1:]) for name in works}


def cifar_speed(device: str) -> dict[str, Any]:
    """ResNet-18 on CIFAR-10's shapes under bf16: images a second, against a bare loop, and the loader alone."""
    batch, images, model = (512, 50_000, "cifar_resnet18") if device == "cuda" else (32, 96, "resnet8")
    loaders = cifar(device, batch, images)

    def read() -> None:
        for _ in loaders["train"]:
            pass

    with prepared(device, loaders, model=model) as (run, meter):
        took = least(device, {"ours": partial(ours, run, meter), "bare": partial(bare, run), "loader": read})
        trained = run.steps_per_epoch * batch
    return {
        "network and batch": f"{model}, {batch}",
        "images/s": round(trained / took["ours"]),
        "images/s of a bare loop": round(trained / took["bare"]),
        "time / bare": round(took["ours"] / took["bare"], 3),
        "images/s of the loader alone": round(trained / took["loader"]),
        f"{EPOCHS} epochs of 50,000, minutes": round(EPOCHS * 50_000 / (trained / took["ours"]) / 60, 1),
    }


def imagenet_speed(compiled: bool, device: str) -> dict[str, Any]:
    """ResNet-50 at 224 pixels on noise, bf16 and channels_last: images a second, against a bare loop."""
    if compiled and device == "cpu":
        raise Skip("compiling ResNet-50 takes minutes on a CPU")
    batch, size, steps = (256, 224, 20) if device == "cuda" else (4, 64, 2)
    with prepared(device, noise(device, batch, size, steps), model="resnet50", compile=compiled) as (run, meter):
        took = least(device, {"ours": partial(ours, run, meter), "bare": partial(bare, run)})
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return {
        "batch and pixels": f"{batch}, {size}",
        "images/s": round(steps * batch / took["ours"], 1),
        "images/s of a bare loop": round(steps * batch / took["bare"], 1),
        "time / bare": round(took["ours"] / took["bare"], 3),
        "GiB": round(memory, 1),
    }


def method_speed(device: str) -> dict[str, Any]:
    """What each method adds to a step of ResNet-18 at its defaults, in steps without an event."""
    batch, images, model = (512, 512 * 20, "cifar_resnet18") if device == "cuda" else (32, 64, "resnet8")
    loaders, numbers = cifar(device, batch, images), {}
    for name in METHODS:
        with ExitStack() as held:
            plain, own = (
                held.enter_context(prepared(device, loaders, model=model, hooks=hooks)) for hooks in ({}, {name: {}})
            )
            took = least(device, {"plain": partial(ours, *plain), "own": partial(ours, *own)}, 2)
        numbers[f"{name}: time / plain"] = round(took["own"] / took["plain"], 3)
    return numbers


def measuring_speed(device: str) -> dict[str, Any]:
    """GraM's measuring before an epoch of ResNet-18 on CIFAR's shapes, and its share of that epoch."""
    batch, images, model = (512, 50_000, "cifar_resnet18") if device == "cuda" else (32, 96, "resnet8")
    with prepared(device, cifar(device, batch, images), model=model, hooks={"gram": {"warmup": 0}}) as (run, meter):
        took = least(
            device, {"epoch": partial(ours, run, meter), "measure": partial(run.hooks["gram"].epoch_start, run)}
        )
    share = took["measure"] / (took["measure"] + took["epoch"])
    return {"seconds": round(took["measure"], 3), "share of the epoch, %": round(100 * share, 1)}


def profiled_waits(device: str) -> dict[str, Any]:
    """What the CUDA runtime was asked to wait for in 20 steps without a row or an event."""
    if device == "cpu":
        raise Skip("needs a GPU; the pretended one counts waits in 'methods train, and wait'")
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    hooks, counted = {"rigl": {"period": 100_000}, "gram": {"warmup": 0}, "ema": {}}, Counter()
    for amp in ("bf16", "fp16"):
        loaders = cifar(device, 128, 128 * 21)
        with prepared(device, loaders, model="resnet20", hooks=hooks, amp=amp) as (run, meter):
            ours(run, meter)

            def steps(run: Run = run, meter: Meter = meter, loaders: dict[str, Loader] = loaders) -> None:
                run.steps_per_epoch = 10**6  # no row
                run.train_loader.set_epoch(1, start=1)
                train_epoch(run, meter)

            torch.cuda.synchronize()
            with torch.profiler.profile(activities=activities) as profile:
                steps()
        for event in profile.events():
            if "Synchronize" in event.name or "DtoH" in event.name:
                counted[f"{amp}: {event.name}"] += 1
    numbers = dict(counted) | {"steps": 20}
    if any(count > 5 for count in counted.values()):
        raise Wrong("the host waits in the steps", numbers)
    return numbers


SPEED = {
    "waits by the profiler": profiled_waits,
    "speed cifar": cifar_speed,
    "speed imagenet": partial(imagenet_speed, False),
    "speed imagenet, compiled": partial(imagenet_speed, True),
    "speed of methods": method_speed,
    "speed of GraM's measuring": measuring_speed,
}
