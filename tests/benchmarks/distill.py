"""What a teacher costs a training step, asked at every step and asked once (``cache``): WRN-16-1 teaching WRN-10-1.

python tests/benchmarks/distill.py --root FOLDER [--rounds 6] [--steps 12]

FOLDER holds CIFAR-10. One thread, CPU time, ways in turn; the teacher's weights are random, which costs the same.
"""

import argparse
import tempfile
from pathlib import Path
from time import process_time

import torch

from research.config import Config
from research.models import create_model
from research.runs.run import Run
from research.training.loop import train_epoch
from research.training.meter import Meter
from research.training.prepare import prepare

WAYS = {"no teacher": {}, "asked at every step": {"cache": False}, "cache=true": {"cache": True}}


def prepared(way: str, root: str, folder: Path) -> tuple[Run, Meter]:
    weights = folder / "teacher.pt"
    if not weights.exists():
        torch.save(create_model("wrn-16-1").state_dict(), weights)
    teacher = {"teacher": str(weights), "teacher_model": "wrn-16-1", "alpha": 0.9}
    config = Config.load(
        {"dataset": "cifar10", "data_root": root, "data_args": {"crop": "none", "flip": False}, "model": "wrn-10-1"},
        {"device": "cpu", "runs": str(folder), "name": way.replace(" ", "-"), "epochs": 1000},
        {"hooks": {"distill": teacher | WAYS[way]} if WAYS[way] else {}},
    )
    run = Run.create(config)
    started = process_time()
    prepare(run)
    print(f"{way:22s} prepared in {process_time() - started:6.1f} s")
    return run, Meter(run)


def milliseconds(run: Run, meter: Meter, steps: int) -> float:
    run.train_loader.set_epoch(run.epoch, start=len(run.train_loader) - steps)
    run.batch, run.steps_per_epoch = len(run.train_loader) - steps, len(run.train_loader)
    started = process_time()
    train_epoch(run, meter)
    taken = process_time() - started
    meter.new_epoch()
    return 1e3 * taken / steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        runs = {way: prepared(way, options.root, Path(folder)) for way in WAYS}
        times = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, prepared_run in runs.items():
                times[way].append(milliseconds(*prepared_run, options.steps))
    for way, taken in times.items():
        print(f"{way:22s} {min(taken):8.1f} ms a step")
