"""A teacher's outputs for the training set: computed once, looked up afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from research.data.augment import Augment
from research.data.choice import drawn_arguments
from research.devices import send
from research.distributed import all_reduce, of_all_ranks
from research.errors import UsageError
from research.resources import MEMORY_SHARE, free_memory
from research.terminal import bar_interval

if TYPE_CHECKING:
    from research.config import Config
    from research.runs.run import Run

TeacherOutputs = dict[str, Tensor]
"""What a teacher says of B inputs, by module name: attention maps (B, HW); "", the whole network: logits (B, C)."""


def refuse_drawn(config: Config) -> None:
    """Raise UsageError if training inputs of ``config`` differ from epoch to epoch, so that no output could be kept."""
    if drawn := drawn_arguments(config):
        given = ", ".join(f"{name}={_typed(value)}" for name, value in drawn.items())
        remedy = " ".join(f"data_args.{name}={_typed(getattr(Augment, name))}" for name in drawn)
        raise UsageError(
            f"distill.cache=true: stores one teacher output per image, but data_args.{given} draw"
            f"{'' if len(drawn) > 1 else 's'} each image anew every epoch; give {remedy}, or distill.cache=false"
        )


def _typed(value: object) -> str:
    return str(value).lower()


class TeacherCache:
    """The teacher's outputs for every training sample, (samples, …) in their own dtype, on every rank's device.

    Computed in stored order, in micro-batches as large as in training, each rank its share: the numbers do not depend
    on how often a run is continued, and equal those of computing them at every step up to rounding.

    Raises:
        UsageError: inputs are augmented at random, or the outputs would take too much memory.
    """

    def __init__(self, run: Run, ask: Callable[[Tensor], TeacherOutputs]):
        refuse_drawn(run.config)
        loader, samples = run.train_loader.in_order(), run.train_loader.info.train
        rows = send(torch.from_numpy(loader.rows(0, len(loader))), run.device)
        self.all: TeacherOutputs = {}
        style = {"desc": "teacher's answers", "unit": "img", "mininterval": bar_interval(), "disable": run.rank > 0}
        with tqdm(total=len(rows) * run.world, **style) as bar:
            for inputs, _ in loader:
                for part in inputs.chunk(run.config.accumulation):
                    at, rows = rows[: len(part)], rows[len(part) :]
                    with run.autocast:
                        answers = ask(part)
                    self.all = self.all or self._room(run, samples, answers)
                    for name, answer in answers.items():
                        self.all[name][at] = answer
                    bar.update(len(part) * run.world)
        for everything in self.all.values():
            all_reduce(everything)  # zeros but for this rank's share
        self.epoch = self.step = -1

    def __call__(self, run: Run) -> TeacherOutputs:
        """The teacher's outputs for the current micro-batch; no host synchronisation."""
        if run.epoch != self.epoch:
            steps, loader = run.steps_per_epoch, run.train_loader
            rows = torch.from_numpy(loader.rows(0, steps)).view(steps, run.config.accumulation, -1)
            self.rows, self.epoch = send(rows, run.device), run.epoch
        self.part = self.part + 1 if run.step == self.step else 0
        self.step = run.step
        at = self.rows[run.batch, self.part]
        return {name: everything[at] for name, everything in self.all.items()}

    @staticmethod
    def _room(run: Run, samples: int, answers: TeacherOutputs) -> TeacherOutputs:
        """Zeros for every sample, like one's ``answers``."""
        needed = samples * sum(answer[0].nbytes for answer in answers.values())
        room = run.resources.memory
        if run.device.type == "cuda":
            room = min(of_all_ranks(free_memory(run.device) // MEMORY_SHARE))
        if needed > room:
            raise UsageError(
                f"distill.cache=true: the outputs for {samples:,} images are {needed / 1e9:.1f} GB, more than "
                f"the {room / 1e9:.1f} GB that each process may take for them, 1/{MEMORY_SHARE} of what is free; "
                "give distill.cache=false"
            )
        return {name: answer.new_zeros(samples, *answer.shape[1:]) for name, answer in answers.items()}
