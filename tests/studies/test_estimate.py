"""What runs will cost, from those that were made, from a few steps, and from the size of a network; who goes first."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import yaml

from research.config import Config
from research.errors import UsageError
from research.runs.run import Run
from research.studies import sweep as sweeping
from research.studies.forecast.estimate import (
    Cost,
    bytes_in,
    costs_before,
    disk_needed,
    kind_of,
    longest_first,
    seconds_left,
    span,
    told,
    weights_on_disk,
)
from research.studies.forecast.probe import probe
from research.studies.shares import Machine
from research.studies.study import Study, expand
from research.studies.sweep import sweep

BASE = {"model": "mnist_mlp", "device": "cpu"}


@pytest.fixture
def points(tmp_path, monkeypatch):
    """``points(count)``: that many runs of four epochs; ``points(1, "t", epochs=…)``: others, of a study ``t``."""
    monkeypatch.chdir(tmp_path)

    def make(count, name="s", **base):
        return expand(Study(name, base=BASE | {"epochs": 4} | base, seeds=tuple(range(count))))

    return make


def trained(config: Config, epochs: int, seconds: float, evaluation: float, status: str = "finished") -> Run:
    """A run as training leaves it after ``epochs`` epochs of ten steps."""
    run = Run.create(config)
    run.set_status(status, epoch=epochs, epochs=4, step=10 * epochs, steps=40, seconds=seconds)
    for epoch in range(epochs):
        run.step, run.epoch = 10 * (epoch + 1), epoch
        run.log("val", loss=1.0, top1=50.0, seconds=evaluation)
        run.log("train_epoch", loss=1.0)
    return run


def test_runs_of_one_kind_tell_what_another_one_will_take(points, tmp_path):
    first, second, third = points(3)
    trained(first.config, epochs=4, seconds=8.0, evaluation=1.0)
    trained(second.config, epochs=2, seconds=2.0, evaluation=1.0, status="interrupted")
    costs = costs_before([third.dir.parent])
    assert costs == {kind_of(third): Cost(epoch=2.5, disk=bytes_in(first.dir))}  # a median of 3 and 2
    assert (seconds_left(third, costs), seconds_left(second, costs)) == (10.0, 5.0)
    (other,) = points(1, batch_size=64)
    assert seconds_left(other, costs) != seconds_left(other, costs)  # NaN: of another kind nothing is known


@pytest.mark.parametrize("count", [1, 10, 300])
def test_every_number_of_runs_is_planned(points, count):
    all_points = points(count)
    costs = {kind_of(all_points[0]): Cost(epoch=9.0, disk=1000)}
    lines = told(all_points, costs, Machine([], jobs=2)).splitlines()
    minutes = count * 4 * 9 / 60
    together = -(-count // 2) * 4 * 9 / 60
    expected = [f"{m / 60:.3g} hours" if m >= 60 else f"{m:.3g} minutes" for m in (minutes, together)]
    assert lines[0] == f"time  {expected[0]} of runs, {expected[1]} with --jobs 2"
    assert lines[1].startswith(f"disk  {count * 1000 / 1e9:.3g} GB more, of ")


def test_gpu_hours_count_every_gpu_and_what_shares_one_halves_them(points):
    (two,) = points(1, processes=2, device="auto")
    costs = {kind_of(two): Cost(epoch=1800.0, disk=0)}
    assert "GPUs  4 GPU-hours" in told([two], costs, Machine(["0", "1"], jobs=1))
    assert "GPUs  2 GPU-hours" in told([two], costs, Machine(["0", "1"], jobs=1, per_gpu=2))


def test_the_longest_goes_first_and_equal_ones_as_written(points):
    short, long, unknown = points(2, "a", epochs=2), points(2, "b", epochs=9), points(1, "c", epochs=5, batch_size=64)
    trained(long[0].config, epochs=4, seconds=1.0, evaluation=0.0, status="interrupted")  # five epochs are left
    costs = {kind_of(short[0]): Cost(epoch=1.0, disk=0)}
    ordered = longest_first([*short, *long, *unknown], costs)
    assert ordered == [long[1], long[0], *unknown, *short]
    assert longest_first([*short, *long], {}) == [long[1], long[0], *short]


def test_the_span_is_that_of_runs_begun_in_their_order_on_what_is_free(points):
    one, whole = points(3), points(1, "t", processes=2, device="auto")
    assert span(one, [5.0, 3.0, 3.0], Machine([], jobs=2)) == 6.0
    gpus = points(2, device="auto")
    assert span([*gpus, *whole], [4.0, 6.0, 10.0], Machine(["0", "1"], jobs=3)) == 16.0  # the last one needs both


def test_a_disk_that_will_not_do_stops_a_study_before_it_starts(points, tmp_path, monkeypatch):
    needed = disk_needed(points(10), {})
    assert needed == 10 * weights_on_disk(points(1)[0].config)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=needed - 1))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "s", "base": BASE | {"epochs": 4}, "seeds": [*range(10)]}))
    told_of = rf"10 runs will take about {re.escape(f'{needed / 1e9:.3g}')} GB, and .* are free"
    with pytest.raises(UsageError, match=told_of):
        sweep("s.yaml", dry_run=True)
    assert not (tmp_path / "runs").exists()
    sweep("s.yaml", dry_run=True, only="*-[0-8]")


@pytest.mark.parametrize(
    "given", [{}, {"optimizer": "adamw"}, {"momentum": 0.0}, {"model": "resnet8"}], ids=lambda given: str(given)
)
def test_a_probe_measures_what_the_size_of_a_network_foretells(points, given):
    """Bytes by the formula are those of real checkpoints, which have a header and the state of batch norms beside."""
    (point,) = points(1, **given)
    found = probe(point.config)
    assert found["epoch"] > 0
    assert found["disk"] == pytest.approx(weights_on_disk(point.config), rel=0.1)
    assert not point.dir.parent.exists()


def test_a_dry_run_probes_each_kind_once(points, tmp_path, monkeypatch, capsys):
    asked = []

    class Started:
        def __init__(self, command):
            folder, result = command.arguments
            asked.append(json.loads(open(f"{folder}/config.json").read())["batch_size"])
            open(result, "w").write('{"epoch": 60.0, "disk": 5000000}')

        def wait(self):
            return 0

    server = SimpleNamespace(start=Started, close=lambda: None)
    monkeypatch.setattr(sweeping, "Server", lambda modules: server)
    study = {"name": "s", "base": BASE | {"epochs": 4}, "grid": {"batch_size": [64, 128]}, "seeds": [0, 1, 2]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    assert sweep("s.yaml", dry_run=True, probe=True) == 0
    assert asked == [64, 128]
    assert "time  24 minutes of runs, 24 minutes with --jobs 1\ndisk  0.03 GB more" in capsys.readouterr().out
