"""What runs that go at the same time share: GPUs, cores and memory of this machine, dealt out once, by the sweep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from research.config import Config
from research.errors import UsageError
from research.resources import GPU_SHARERS, SHARERS


@dataclass(frozen=True)
class Share:
    """What one run may use: the names of its GPUs (none: whatever it finds), and the environment that tells it all."""

    gpus: tuple[str, ...]
    environment: dict[str, str]


@dataclass
class Machine:
    """This machine while ``jobs`` runs at a time use it, ``per_gpu`` on one GPU.

    A run needs as many GPUs as it has processes, none with ``device=cpu`` or where there is none. It gets those with
    the fewest runs, and waits until there are enough.
    """

    gpus: Sequence[str]  # as CUDA_VISIBLE_DEVICES names them
    jobs: int = 1
    per_gpu: int = 1
    running: int = field(default=0, init=False)
    load: dict[str, int] = field(init=False)  # runs on every GPU

    def __post_init__(self) -> None:
        self.load = dict.fromkeys(self.gpus, 0)

    @classmethod
    def here(cls, jobs: int, per_gpu: int) -> Machine:
        """The machine that this process sees; imports torch."""
        return cls(visible_gpus(), jobs, per_gpu)

    @property
    def sharers(self) -> dict[str, str]:
        """The environment that tells a run with how many others it shares cores and memory."""
        return {SHARERS: str(self.jobs), GPU_SHARERS: str(self.per_gpu)}

    @contextmanager
    def reckoned(self) -> Iterator[None]:
        """Let this process reckon with the memory of one run, as the run will when it is looked at again."""
        before = dict(os.environ)
        os.environ.update(self.sharers)
        try:
            yield
        finally:
            for name in self.sharers:
                os.environ.pop(name)
                os.environ.update({name: before[name]} if name in before else {})

    def need(self, config: Config) -> int:
        """GPUs that a run of ``config`` needs at once."""
        return 0 if config.device == "cpu" or not self.gpus else config.processes

    def refuse(self, configs: Iterable[Config]) -> None:
        """Raise UsageError when so many jobs, or runs a GPU, can never be."""
        needs = sorted(map(self.need, configs))[: self.jobs]
        if self.per_gpu > 1 and not any(needs):
            why = "this machine has none" if not self.gpus else "no run here uses one"
            raise UsageError(f"--per-gpu {self.per_gpu}: shares out GPUs, and {why}; leave it out")
        slots, most = len(self.gpus) * self.per_gpu, 0
        for need in needs:
            slots -= need
            most += slots >= 0
        if most < len(needs) and 0 < most:
            gpus, fewest = len(self.gpus), -(-sum(needs) // len(self.gpus))
            raise UsageError(
                f"--jobs {self.jobs}: {most} of these runs at a time fill {gpus} GPU{'s'[: gpus > 1]} "
                f"with --per-gpu {self.per_gpu}; use --jobs {most}, or --per-gpu {fewest}"
            )

    @property
    def is_full(self) -> bool:
        """Whether nothing at all may start now."""
        return self.running == self.jobs

    def take(self, config: Config) -> Share | None:
        """The share of a run of ``config`` that may start now; None while it has to wait."""
        free = sorted((gpu for gpu in self.gpus if self.load[gpu] < self.per_gpu), key=self.load.__getitem__)
        need = self.need(config)
        if self.is_full or need > len(free):
            return None
        taken = tuple(sorted(free[:need], key=self.gpus.index))
        for gpu in taken:
            self.load[gpu] += 1
        self.running += 1
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(taken)} if taken else {}
        return Share(taken, self.sharers | visible)

    def give_back(self, share: Share) -> None:
        """Let others have ``share``, whose run has ended."""
        self.running -= 1
        for gpu in share.gpus:
            self.load[gpu] -= 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them: numbers, or UUIDs."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]
