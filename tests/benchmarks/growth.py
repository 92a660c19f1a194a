"""How costs grow with size: a power of the size fitted to the least CPU time at each, with its interval.

python tests/benchmarks/growth.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import frames
import ldi
import loaders
import nmi
import numpy as np
import sweep
import torch
from pairs import SPAN, cpu_seconds
from scipy import stats
from torch import nn
from torch.nn import functional as F

from research.config import Config
from research.data.choice import make_loader
from research.frames import load_runs
from research.hooks.sparse import grow_random, rigl_step, set_step
from research.layers.masked import Masked
from research.measures import nmi_compiled
from research.measures.ldi import ldi as ldi_of

REPEATS = 3


class Growth(NamedTuple):
    """A cost that depends on a size; ``work(size)`` prepares what is timed."""

    subject: str
    size: str
    sizes: Sequence[int]
    work: Callable[[int], Callable[[], Any]]
    cost: Callable[[Callable[[], Any]], float] = cpu_seconds


def loading(images: int) -> Callable[[], Any]:
    config = Config(dataset="cifar10", data_root=loaders.files(images // 5).name, batch_size=256, loader="memory")
    return partial(loaders.epoch, make_loader(config, "train"))


def correlating(images: int = 4, channels: int = 64) -> Callable[[], Any]:
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    maps = F.avg_pool2d(torch.randn(images, channels, 60, 60), 5, 1)
    return partial(nmi.ours, nmi_compiled, [(conv, maps)])


def decomposing(images: int = 2000, width: int = 8) -> Callable[[], Any]:
    return partial(ldi_of, *ldi.network_and_images(images, width))


def moving(step: Callable[..., Any], width: int) -> Callable[[], Any]:
    """An event of a sparse method on one matrix, a tenth of whose weights live."""
    mask = torch.rand(width, width, generator=torch.Generator().manual_seed(0)) < 0.1
    tensor = Masked(nn.Parameter(torch.randn(width, width) * mask), mask)
    signal, generator = [torch.randn(width, width)], torch.Generator().manual_seed(0)
    if step is rigl_step:
        return partial(rigl_step, [tensor], 0.3, signal)
    return partial(set_step, [tensor], 0.1, partial(grow_random, generator=generator))


GROWTHS = (
    Growth("an epoch from memory", "images", (1280, 2560, 5120, 10240, 20480), loading),
    Growth("NMI", "images", (2, 4, 8, 16, 32), lambda size: correlating(images=size)),
    Growth("NMI", "channels", (16, 32, 64, 128, 256), lambda size: correlating(channels=size)),
    Growth("LDI", "images", (1000, 2000, 4000, 8000, 16000), lambda size: decomposing(images=size)),
    Growth("LDI", "width", (8, 16, 32, 64, 128), lambda size: decomposing(width=size)),
    Growth("SET event", "weights", (2**16, 2**18, 2**20, 2**22), lambda size: moving(set_step, int(size**0.5))),
    Growth("RigL event", "weights", (2**16, 2**18, 2**20, 2**22), lambda size: moving(rigl_step, int(size**0.5))),
    Growth("load_runs of all", "runs", (125, 250, 500, 1000), lambda size: partial(load_runs, frames.many(size).name)),
    Growth("metrics", "rows", (25_000, 50_000, 100_000, 200_000),
           lambda size: lambda: load_runs(frames.long(size).name).metrics),
    Growth("sweep, seconds by the clock", "runs", (1, 2, 4),
           lambda size: partial(sweep.sweep, tempfile.mkdtemp(), size), sweep.clock),
)  # fmt: skip


def measured(growths: Sequence[Growth], small: bool) -> list[dict[str, Any]]:
    """Every growth with the least seconds at each of its sizes, the exponent, and its 95 % interval."""
    torch.set_num_threads(1)
    found = []
    for growth in growths:
        sizes = growth.sizes[:3] if small else growth.sizes
        works = [growth.work(size) for size in sizes]
        for work in works:
            growth.cost(work)  # compiles and fills caches
        seconds = np.min([[least(work, growth.cost) for work in works] for _ in range(REPEATS)], axis=0)
        fit = stats.linregress(np.log(sizes), np.log(seconds))
        half = stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr
        row = {"subject": growth.subject, "size": growth.size, "sizes": list(sizes), "seconds": seconds.tolist()}
        row |= {"exponent": fit.slope, "interval": [fit.slope - half, fit.slope + half]}
        print(line(row), flush=True)
        found.append(row)
    return found


def least(work: Callable[[], Any], cost: Callable[[Callable[[], Any]], float]) -> float:
    """The least cost of a call, over about ``SPAN`` seconds of them."""
    until = monotonic() + SPAN
    found = [cost(work)]
    while monotonic() < until:
        found.append(cost(work))
    return min(found)


def line(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['subject']:28s} {row['size']:18s} size^{row['exponent']:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three sizes each, to see that all runs")
    parser.add_argument("--only", default="", help="part of the subjects")
    given = parser.parse_args()
    measured([each for each in GROWTHS if given.only in each.subject], given.small)
