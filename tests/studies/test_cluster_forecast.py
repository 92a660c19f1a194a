"""The formula of what a cluster would do: each of its parts where it alone decides, computed by hand."""

import math
from dataclasses import replace

import pytest
from benchmarks.cluster import Cluster, bytes_of_run, cases, forecast, seconds_of_run, seconds_of_step

from research.config import Config
from research.studies.study import Study, expand
from research.trained.network_cost import network_cost

FREE = Cluster(
    flops=math.inf, step=0.0, decoded=math.inf, inside=math.inf, between=math.inf, disk=math.inf, start=0.0,
    gram=0.0, queued=0.0, preempted=math.inf,
)  # fmt: skip


@pytest.fixture
def config() -> Config:
    """A run of two epochs of 468 steps on MNIST."""
    return Config.load({"dataset": "mnist", "model": "mnist_mlp", "epochs": 2, "batch_size": 128})


@pytest.mark.parametrize(
    ("assumed", "gpus", "seconds"),
    [
        ({}, 1, 0.0),
        ({"step": 0.01}, 1, 0.01),
        ({"flops": 1e9}, 4, 32 * 1e6 * 6 / 1e9),  # 32 images of 1e6 multiply-adds, forward and twice that backward
        ({"inside": 1e9}, 4, 2 * 3 / 4 * 4 * 1e6 / 1e9),  # a ring of four sends 3/4 of 1e6 weights twice
        ({"inside": 1e9, "step": 0.01}, 4, 0.01 + 0.006 - 0.005),  # half of the step hides some of it
        ({"between": 1e9}, 16, 2 * 15 / 16 * 4 * 1e6 / 1e9),  # two nodes: the slower link
        ({"inside": 1e9}, 16, 0.0),
        ({"decoded": 1.0}, 1, 0.0),  # MNIST lies decoded in memory
    ],
)
def test_a_step_waits_for_the_slowest(config, assumed, gpus, seconds):
    cluster = replace(FREE, **assumed)
    assert seconds_of_step(config, int(1e6), int(1e6), cluster, gpus) == pytest.approx(seconds)


def test_pictures_of_files_are_decoded_by_all_cores_of_the_nodes(config):
    pictures = replace(config, dataset="imagenet")
    cluster = replace(FREE, decoded=1.0, cores=64)
    assert seconds_of_step(pictures, 0, 0, cluster, 8) == 2.0
    assert seconds_of_step(pictures, 0, 0, cluster, 16) == 1.0


def test_a_run_is_its_steps_evaluations_checkpoints_and_preemptions(config):
    weights = network_cost(config).cost.numel
    cluster = replace(FREE, step=1.0, start=100.0, disk=8.0 * weights, queued=50.0, preempted=400.0)
    epoch = 468 + 10_000 / 128 / 3 + 1  # a checkpoint has weights and momenta and takes a second
    trained = 100 + 2 * epoch
    assert seconds_of_run(config, cluster, 1) == pytest.approx(trained + 2 * (1 + 50 + 100))
    assert bytes_of_run(config) == 4 * weights * 5  # two checkpoints, and the best weights


def test_runs_are_shared_out_over_all_gpus():
    base = {"dataset": "mnist", "model": "mnist_mlp", "epochs": 1}
    points = expand(Study("s", base=base, seeds=tuple(range(32))))
    cluster = replace(FREE, step=1.0, gpus=8)
    alone = seconds_of_run(points[0].config, cluster, 1) / 86_400
    assert forecast(points, cluster)[:2] == pytest.approx((4 * alone, 32 * alone))
    assert forecast(points, replace(cluster, nodes=4))[:2] == pytest.approx((alone, 32 * alone))


def test_the_cases_are_the_whole_studies():
    counts = {name.partition(",")[0]: len(points) for name, (points, _) in cases().items()}
    assert counts == {"36 of K": 36, "129 sparse": 129}
