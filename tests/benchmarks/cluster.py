"""What a cluster would do with two studies of this project: a formula, whose every assumption has a name.

python tests/benchmarks/cluster.py

Nothing here is measured on such a machine; the numbers of ``Cluster`` are assumptions, to be replaced by one's own.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from research.config import Config
from research.data.datasets import describe
from research.measures.cost import Cost
from research.studies.forecast.estimate import CHECKPOINTS, WEIGHT_BYTES, span
from research.studies.shares import Machine
from research.studies.study import Point, expand, read_study
from research.trained.network_cost import network_cost

STUDIES = Path(__file__).parents[2] / "notebooks" / "studies"
IMAGES = {"imagenet": (1_281_167, 50_000), "cifar10": (50_000, 10_000), "mnist": (60_000, 10_000)}  # train, val
TRAINING, OPERATIONS = 3, 2  # forward and backward pass; a multiplication and an addition


@dataclass(frozen=True)
class Cluster:
    """Nodes of H100s. What a GPU, a core, a link and a disk sustain is assumed."""

    nodes: int = 1
    gpus: int = 8  # of a node
    flops: float = 30e12  # of a GPU, in convolutions with TF32
    step: float = 0.010  # seconds: launching the kernels of a step, with however few images
    decoded: float = 400.0  # images of 224 x 224 a second that a core decodes and crops
    cores: int = 96  # of a node
    inside: float = 200e9  # bytes a second that a GPU sends to another one of its node
    between: float = 25e9  # bytes a second that a GPU sends to another node
    hidden: float = 0.5  # share of a step behind which gradients travel
    gram: float = 60.0  # seconds of GraM's measurement before an epoch
    disk: float = 1e9  # bytes a second that a checkpoint is written with
    start: float = 60.0  # seconds from a free GPU to the first step
    preempted: float = 2 * 3600.0  # seconds between two preemptions, which come with a signal
    queued: float = 300.0  # seconds that a preempted run waits


def dense_cost(config: Config) -> Cost:
    """The cost of a run's network; masked weights are multiplied all the same."""
    alone = Config(dataset=config.dataset, model=config.model, model_args=config.model_args)
    return network_cost(alone).cost


def seconds_of_step(config: Config, macs: int, parameters: int, cluster: Cluster, gpus: int) -> float:
    """Seconds of an optimizer step on ``gpus`` GPUs: what computing, data and gradients leave to wait for."""
    images = config.batch_size / gpus
    computing = max(cluster.step, images * macs * OPERATIONS * TRAINING / cluster.flops)
    data = 0.0
    if describe(config.dataset).kind == "folder":  # others lie decoded in memory
        nodes = -(-gpus // cluster.gpus)
        data = config.batch_size / (nodes * cluster.cores * cluster.decoded)
    link = cluster.inside if gpus <= cluster.gpus else cluster.between
    gradients = 2 * (gpus - 1) / gpus * WEIGHT_BYTES * parameters / link  # of a ring
    return max(computing, data) + max(0.0, gradients - cluster.hidden * computing)


def seconds_of_run(config: Config, cluster: Cluster, gpus: int) -> float:
    """Seconds from a run's start to its end, with its checkpoints and preemptions."""
    cost = dense_cost(config)
    train, validation = IMAGES[config.dataset]
    step = seconds_of_step(config, cost.mult_adds, cost.numel, cluster, gpus)
    evaluation = validation / config.batch_size * step / TRAINING
    moments = int(config.momentum > 0)
    checkpoint = WEIGHT_BYTES * cost.numel * (1 + moments) / cluster.disk
    epoch = train // config.batch_size * step + evaluation + checkpoint + cluster.gram * ("gram" in config.hooks)
    trained = cluster.start + config.total_epochs * epoch
    lost = checkpoint + cluster.queued + cluster.start  # of each preemption; no step is done twice
    return trained + math.floor(trained / cluster.preempted) * lost


def bytes_of_run(config: Config) -> int:
    """Bytes that a finished run keeps."""
    moments = int(config.momentum > 0)
    return WEIGHT_BYTES * dense_cost(config).numel * (CHECKPOINTS * (1 + moments) + 1)


def points_of(*names: str, **given) -> list[Point]:
    """The runs of the studies called ``names``, with what is ``given`` of where they run."""
    studies = [read_study(STUDIES / f"{name}.yaml") for name in names]
    points = [point for study in studies for point in expand(study)]
    return [replace(point, config=replace(point.config, **given)) for point in points]


def forecast(points: list[Point], cluster: Cluster, per_gpu: int = 1) -> tuple[float, float, float]:
    """Days until all ``points`` have ended, GPU days, and GB on disk; several runs of a GPU share its time."""
    machine = Machine([str(gpu) for gpu in range(cluster.nodes * cluster.gpus)], 10_000, per_gpu)
    seconds = [seconds_of_run(point.config, cluster, point.config.processes) for point in points]
    ordered = sorted(zip(points, seconds, strict=True), key=lambda each: -each[1])
    days = span(*zip(*ordered, strict=True), machine) / 86_400
    work = sum(each * machine.need(point.config) for point, each in zip(points, seconds, strict=True)) / per_gpu
    return days, work / 86_400, sum(bytes_of_run(point.config) for point in points) / 1e9


def cases() -> dict[str, tuple[list[Point], Cluster]]:
    one, eight = Cluster(), Cluster(nodes=8)
    calm = {"preempted": math.inf}
    gram, wide = points_of("gram-k-imagenet"), points_of("gram-k-imagenet", processes=64)
    sparse = [*points_of("sparse-mnist", "sparse-wrn"), *points_of("sparse-resnet50", processes=8)]
    return {
        "36 of K, one node, a run at a time": (gram, one),
        "36 of K, one node, never preempted": (gram, replace(one, **calm)),
        "36 of K, 8 nodes, a run a node": (gram, eight),
        "36 of K, 8 nodes, a run over all 64 GPUs": (wide, eight),
        "129 sparse, one node": (sparse, one),
        "129 sparse, 8 nodes": (sparse, eight),
        "129 sparse, 8 nodes, never preempted": (sparse, replace(eight, **calm)),
    }


if __name__ == "__main__":
    print(f"{'':42s} {'days':>6s} {'GPU days':>9s} {'GB':>6s}")
    for name, (points, cluster) in cases().items():
        days, gpu_days, size = forecast(points, cluster)
        print(f"{name:42s} {days:6.1f} {gpu_days:9.0f} {size:6.0f}")
