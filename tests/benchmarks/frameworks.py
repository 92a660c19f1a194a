"""The training loop against those of Lightning, Accelerate, Composer, and one as torchvision's reference has it.

python tests/benchmarks/frameworks.py

Network, batches, SGD and what is told after an epoch, the mean loss and top-1, are the same. A measurement is an epoch
of 400 steps of 2 ms or of 8 of 100 ms; what Lightning prepares for a call is in it, as no call leaves it out. Each way
is a process of its own.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache, partial

import torch
from loop import ours, prepared
from pairs import Alone, Row, Ways, main, told
from torch.nn import functional as F

from research.processes import keep_freed_memory
from research.runs.run import Run

STEPS = {"mnist_mlp": 400, "resnet20": 8}
BATCH = 64


def sgd(run: Run) -> torch.optim.SGD:
    """What every framework is given: PyTorch's SGD as it comes."""
    config = run.config
    return torch.optim.SGD(
        run.model.parameters(), 0.1, config.momentum, weight_decay=config.weight_decay, nesterov=True
    )


def cosine(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10**6)


def torchvision_reference(run: Run) -> Callable[[], None]:
    """Loss, top-1 and top-5 are read in every step, means over windows of 20 are printed in every 10th."""
    optimizer = sgd(run)

    def epoch() -> None:
        windows = defaultdict(lambda: deque(maxlen=20))
        run.model.train()
        for step, (inputs, targets) in enumerate(run.train_loader):
            started = time.time()
            output = run.model(inputs)
            optimizer.zero_grad()
            loss = F.cross_entropy(output, targets)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                hits = output.topk(5, 1).indices.t().eq(targets[None])
                for k in (1, 5):
                    windows[f"acc{k}"].append((hits[:k].flatten().sum(dtype=torch.float32) * 100 / len(inputs)).item())
            windows["loss"].append(loss.item())
            windows["img/s"].append(len(inputs) / (time.time() - started))
            if step % 10 == 0:
                told = (f"{name}: {torch.tensor(list(window)).median().item():.4f}" for name, window in windows.items())
                print("  ".join(told))

    return partial(silently, epoch)


def lightning(run: Run) -> Callable[[], None]:
    import lightning
    from torchmetrics.classification import MulticlassAccuracy

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.top1 = run.model, MulticlassAccuracy(10, average="micro")

        def training_step(self, batch, index):
            inputs, targets = batch
            logits = self.model(inputs)
            loss = F.cross_entropy(logits, targets)
            self.top1(logits, targets)
            self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(targets))
            self.log("top1", self.top1, on_step=False, on_epoch=True, batch_size=len(targets))
            return loss

        def configure_optimizers(self):
            optimizer = sgd(run)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine(optimizer), "interval": "step"}}

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    module = Module()

    def epoch() -> None:
        lightning.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(module, run.train_loader)

    return partial(silently, epoch)


def accelerate(run: Run) -> Callable[[], None]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    optimizer = sgd(run)
    model, optimizer, scheduler = accelerator.prepare(run.model, optimizer, cosine(optimizer))

    def epoch() -> None:
        model.train()
        loss_sum, correct, seen = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
        for inputs, targets in run.train_loader:
            logits = model(inputs)
            loss = F.cross_entropy(logits, targets)
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            loss_sum += loss.detach().float()
            correct += (logits.argmax(1) == targets).sum()
            seen += len(targets)
        loss_sum.item(), correct.item()

    return epoch


def composer(run: Run) -> Callable[[], None]:
    from composer import Trainer
    from composer.models import ComposerClassifier
    from composer.optim import CosineAnnealingScheduler

    trainer = Trainer(
        model=ComposerClassifier(run.model, num_classes=10),
        train_dataloader=run.train_loader,
        optimizers=sgd(run),
        schedulers=CosineAnnealingScheduler(),
        max_duration="1000ep",
        device_train_microbatch_size=BATCH,
        device="cpu",
        progress_bar=False,
    )
    return partial(silently, partial(trainer.fit, duration="1ep"))


def silently(work: Callable[[], object]) -> None:
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work()


def our_loop(model: str, steps: int) -> Callable[[], None]:
    keep_freed_memory()  # as a process of a run does
    return partial(ours, *prepared(model, BATCH, steps))


def theirs(rival: Callable[[Run], Callable[[], None]], model: str, steps: int) -> Callable[[], None]:
    return rival(prepared(model, BATCH, steps)[0])


@cache
def alone(prepare: Callable, *given) -> Alone:
    return Alone(prepare, *given)


def against(rival: Callable[[Run], Callable[[], None]], model: str, small: bool) -> Ways:
    steps = 4 if small else STEPS[model]
    return Ways(alone(our_loop, model, steps), Alone(theirs, rival, model, steps), cost=told)


RIVALS = {
    "Lightning": (lightning, "lightning"),
    "Accelerate": (accelerate, "accelerate"),
    "Composer": (composer, "composer"),
    "torchvision's reference loop": (torchvision_reference, ""),
}
ROWS = [
    Row(f"training loop, {model}", name, ">= 1", partial(against, rival, model), needs)
    for model in STEPS
    for name, (rival, needs) in RIVALS.items()
]

if __name__ == "__main__":
    main(ROWS, __doc__)
