"""The training loop of a stack: what ``fit`` does for one run, for many runs of one shape at once.

Everything that a run is on disk it is here too: each network has its own rows, best weights and checkpoints, written by
the same functions. Only the steps between them are taken together. Times are shared out evenly.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from research.data.memory_loader import side_by_side
from research.errors import UsageError
from research.models.stacked_mlp import StackedMLP, part, stack
from research.runs.run import Run
from research.training.checkpointing import checkpoint_due, keep_best, save
from research.training.meter import Meter
from research.training.outcome import record_failure
from research.training.schedule import learning_rate


class StackedTraining:
    """Runs that stand at the same step, prepared and resumed, and their networks as one.

    ``meters`` are those of the runs to be trained. Other ``runs``, which stand elsewhere, only keep their places: what
    a network computes depends in its last bits on how many are computed with it, and so the same networks have the
    same stack wherever they stand. Networks have N places. ``members`` are the trained runs that have not failed, by
    place, and ``failures`` says what happened to the others. Data comes in K orders: 1 when all runs share it.
    """

    def __init__(self, runs: Sequence[Run], meters: Mapping[Run, Meter]):
        self.runs = sorted(runs, key=order)
        self.meters = {place: meters[run] for place, run in enumerate(self.runs) if run in meters}
        self.trained = {place: self.runs[place] for place in self.meters}
        self.members, self.failures = dict(self.trained), []
        first = next(iter(self.trained))
        # for what is the same for all: configuration, position, time
        self.lead, self.clock = self.trained[first], self.meters[first]
        self.network = StackedMLP([run.model for run in self.runs])
        self.optimizer = stacked_optimizer(self.network, self.runs, self.lead)
        by_order = {order(run): run.train_loader for run in self.runs}
        evenly = len(set(Counter(map(order, self.runs)).values())) == 1
        self.loaders = list(by_order.values()) if evenly else [run.train_loader for run in self.runs]
        # (log_interval, N) and (N,); what the meters count in are their columns
        self.losses = stack([self.clock.losses] * len(self.runs)).T.contiguous()
        self.correct = torch.stack([self.clock.correct] * len(self.runs))
        for place, meter in self.meters.items():
            self.losses[:, place], self.correct[place] = meter.losses, meter.correct
            meter.losses, meter.correct = self.losses[:, place], self.correct[place]

    def train(self, bar: tqdm) -> None:
        """Train from where the runs stand to their last epoch; ``bar`` counts optimizer steps of networks."""
        with self.outcomes_recorded():
            while self.members and self.lead.epoch < self.lead.epochs:
                self.train_epoch(bar)
                self.unstack()
                for place, run in self.members.items():
                    run.log("train_epoch", **self.meters[place].epoch_means())
                top1 = self.evaluate()
                for place, run in self.members.items():
                    keep_best(run, top1[place])
                for place, run in self.trained.items():
                    run.epoch, run.batch = run.epoch + 1, 0
                    self.meters[place].new_epoch()
                self.save()
                bar.write(self.summary())

    def train_epoch(self, bar: tqdm) -> None:
        """The rest of the current epoch, from batch ``lead.batch``."""
        lead, config = self.lead, self.lead.config
        for inputs, targets in self.clock.waiting_for(self.batches()):
            lr = learning_rate(config, lead.step, lead.steps_per_epoch, lead.first_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            logits = self.network(inputs)
            losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=config.smoothing).mean(1)
            losses.sum().backward()  # each network gets the gradient of its own loss
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.count(losses.detach(), logits.detach(), targets)

            if lead.row_due:
                bar.update(self.clock.parts * len(self.members))
                self.log_rows(lr)
                if not self.members:
                    return
                if checkpoint_due(lead) and lead.batch < lead.steps_per_epoch:
                    self.unstack()
                    self.save()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (K, B, F) and targets (N, B) of what is left of the epoch."""
        for loader in self.loaders:
            loader.set_epoch(self.lead.epoch, start=self.lead.batch)
        orders = len(self.loaders)
        for inputs, targets in side_by_side(self.loaders):
            targets = targets.view(orders, -1)
            yield inputs.reshape(*targets.shape, -1), targets.repeat_interleave(len(self.runs) // orders, dim=0)

    def count(self, losses: Tensor, logits: Tensor, targets: Tensor) -> None:
        """One more step of every network; no host synchronisation."""
        self.losses[self.clock.parts] = losses
        self.correct += (logits.max(1).indices == targets).sum(1)  # argmax(1) is ten times as slow
        for place, run in self.trained.items():
            self.meters[place].seen += targets.shape[1]
            self.meters[place].parts += 1
            run.step, run.batch = run.step + 1, run.batch + 1

    def log_rows(self, lr: float) -> None:
        """A row of every network. One whose loss is not finite ends here."""
        seconds, waited = time.perf_counter() - self.clock.row_started, self.clock.waited
        for place, run in list(self.members.items()):
            meter = self.meters[place]
            meter.waited = waited / len(self.meters)
            meter.row_started = time.perf_counter() - seconds / len(self.meters)
            with self.isolated(place):
                row, _ = meter.flush(run, wish=False)
                run.log("train", lr=lr, **row)
        for meter in self.meters.values():  # of networks that failed too
            meter.seen = meter.parts = 0
        self.clock.waited, self.clock.row_started = 0.0, time.perf_counter()

    @torch.inference_mode()
    def evaluate(self) -> list[float]:
        """A row of ``val`` for every network, as :func:`research.measures.evaluate.evaluate` has it; top-1 by place."""
        started, places, images = time.perf_counter(), len(self.runs), 0
        sums = torch.zeros(3, places, dtype=torch.float64, device=self.lead.device)  # loss, top-1, top-5
        for inputs, targets in self.lead.val_loader:
            logits = self.network(inputs.flatten(1)[None]).mT
            ranked = logits.topk(min(5, logits.shape[2])).indices == targets[:, None]
            losses = F.cross_entropy(logits.flatten(0, 1), targets.repeat(places), reduction="none")
            sums += torch.stack([losses.view(places, -1).sum(1), ranked[..., 0].sum(1), ranked.sum((1, 2))])
            images += len(targets)
        seconds = (time.perf_counter() - started) / len(self.meters)
        loss, top1, top5 = (sums * torch.tensor([[1.0], [100.0], [100.0]]).to(sums) / images).tolist()
        for place, run in self.members.items():
            row = {"loss": loss[place], "top1": top1[place], "top5": top5[place], "images": images}
            run.log("val", **row, seconds=seconds)
        return top1

    @torch.no_grad()
    def unstack(self) -> None:
        """Give every run its weights and the optimizer's state of them."""
        for name, stacked in self.network.named_parameters():
            for place, run in self.members.items():
                own = run.model.get_parameter(name)
                own.copy_(part(stacked[place], own.shape))
                run.optimizer.state[own] = {
                    key: (part(value[place], own.shape) if value.ndim else value).clone()
                    for key, value in self.optimizer.state[stacked].items()
                }

    def save(self) -> None:
        for place, run in list(self.members.items()):
            with self.isolated(place):
                save(run, self.meters[place])

    @contextmanager
    def isolated(self, place: int) -> Iterator[None]:
        """What is wrong with one network ends that one and no other."""
        try:
            yield
        except UsageError as error:
            self.failures.append(str(error))
            record_failure(self.members.pop(place), error)

    @contextmanager
    def outcomes_recorded(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            for run in self.members.values():
                record_failure(run, error)
            raise
        for run in self.members.values():
            run.set_status("finished")

    def summary(self) -> str:
        """How far these networks are, in a line."""
        top1 = [run.last_top1 for run in self.members.values()]
        shape = f"{len(self.runs)} networks of width {self.network.width} and depth {self.network.depth}"
        results = f"val top-1 {min(top1):.2f} to {max(top1):.2f} %" if top1 else "all failed"
        return f"{shape}: epoch {self.lead.epoch}/{self.lead.epochs}  {results}"


def order(run: Run) -> int:
    """The seed of the order of a run's data."""
    return run.train_loader.share.seed


def stacked_optimizer(network: StackedMLP, runs: Sequence[Run], lead: Run) -> torch.optim.Optimizer:
    """The optimizer of ``runs`` for all of their weights, with their states; its rule is the same for every number.

    It stands where ``lead`` stands; a run that has no state yet begins with zeros.
    """
    names = {parameter: name for name, parameter in lead.model.named_parameters()}
    groups = [
        group | {"params": [network.get_parameter(names[p]) for p in group["params"]], "fused": True}
        for group in lead.optimizer.param_groups
    ]
    optimizer = type(lead.optimizer)(groups, lr=lead.config.lr)
    for name, stacked in network.named_parameters():
        weights = [run.model.get_parameter(name) for run in runs]
        states = [run.optimizer.state.get(weight, {}) for run, weight in zip(runs, weights, strict=True)]
        optimizer.state[stacked] = {
            key: stack([state.get(key, torch.zeros_like(w)) for state, w in zip(states, weights, strict=True)])
            if value.ndim
            else value.clone()
            for key, value in lead.optimizer.state.get(lead.model.get_parameter(name), {}).items()
        }
    return optimizer
