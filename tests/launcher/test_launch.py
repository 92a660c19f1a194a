"""Starting, following, interrupting and losing the processes of a run."""

import json
import random
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
from conftest import assert_same_run, companies, rows, weights
from launched import command, kill_all, training, wait_until, workers
from PIL import Image

from research import launch
from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS
from research.launcher.launch import TrainingFailed, follow
from research.runs.run import Run
from research.training.loop import fit

OFTEN = {"epochs": 40, "log_interval": 11, "checkpoint_minutes": 0}  # long enough to be cut, saved every epoch


def test_two_processes_train_one_network(tiny, capsys, in_workers):
    """Without batch statistics the mathematics of 1 and 2 processes is the same; neither decides anything itself."""
    in_workers("import research.resources; research.resources.decide = None")
    both = launch(tiny(name="two", processes=2))
    alone = fit(Run.create(tiny(name="one")))
    for name, weight in weights(alone).items():
        assert weights(both)[name].sub(weight).abs().max() < 1e-4, name
    one, two = (next(row for row in rows(run) if row["kind"] == "val") for run in (alone, both))
    assert one["images"] == two["images"]
    assert "epoch 2/2" in capsys.readouterr().out
    assert "already finished" in (launch(tiny(name="two", processes=2)) and capsys.readouterr().out)


def test_worker_exception_is_raised_here_with_its_traceback(tiny, in_workers):
    in_workers("from research.training import loop; loop.evaluate_epoch = lambda run, meter: 1 / 0")
    config = tiny(name="broken")
    with pytest.raises(TrainingFailed, match="ZeroDivisionError"):
        launch(config)
    run = Run.open(Run.create(config).dir)
    assert run.status["status"] == "failed" and not workers(run)


def test_usage_error_of_a_worker_stays_one_line(tiny):
    with pytest.raises(UsageError, match="of run wild; training stopped") as refused:
        launch(tiny(name="wild", lr=1e20, momentum=0.0, log_interval=1))
    assert "\n" not in str(refused.value)


def test_killed_worker_is_replaced_and_nothing_changes(tiny):
    whole = fit(Run.create(tiny(name="whole", **OFTEN)))
    config = tiny(name="killed", **OFTEN)
    run = Run.create(config)
    starter = subprocess.Popen(command(config))
    wait_until(lambda: list(run.paths.checkpoints.glob("0*.pt")))
    training(run)[0].kill()
    assert starter.wait(120) == 0
    assert len(json.loads((run.dir / "env.json").read_text())) == 2, "two sessions"
    assert_same_run(whole, run)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_nothing_survives_the_launcher_and_the_run_continues(tiny, sent):
    whole = fit(Run.create(tiny(name="whole", **OFTEN)))
    config = tiny(name="cut", **OFTEN)
    run = Run.create(config)
    starter = subprocess.Popen(command(config), stderr=subprocess.DEVNULL)
    wait_until(lambda: list(run.paths.checkpoints.glob("0*.pt")))
    starter.send_signal(sent)
    starter.wait(60)
    wait_until(lambda: not workers(run), seconds=40)
    if sent == signal.SIGINT:
        assert run.status["status"] == "interrupted"
    assert_same_run(whole, fit(Run.create(config)))


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows_are_followed_through_whatever_happens_to_the_file(tmp_path):
    path, agent = tmp_path / "metrics.jsonl", SimpleNamespace(poll=lambda: None)
    one, two, three = ({"kind": "train", "step": step, "epoch": 0} for step in (1, 2, 3))
    path.write_text(lines(one, two))
    found = follow(path, agent)
    assert next(found) == {}, "what was there before is known"
    path.write_text(lines(one, two | {"loss": 0.5}, three))
    assert next(found) == three and next(found) == {}, "it shrank, and grew beyond where it had been"
    path.write_text(lines(one))
    assert next(found) == {}
    whole = lines(two)
    for part, row in ((whole[:9], {}), (whole[9:-1], {}), ("\n", two), ("5\n", {})):
        with open(path, "a") as file:
            file.write(part)
        assert next(found) == row
    agent.poll = lambda: 0
    assert list(found) == [{}], "of the look before the end"


@pytest.mark.parametrize(
    ("gpus", "given", "line"),
    [
        (2, {"processes": 4}, "processes=4: this machine has 2 GPUs, one process each; use gpus=2"),
        (0, {"device": "cuda"}, "device='cuda': this machine has no usable GPU; use device=cpu"),
        (0, {"amp": "fp16"}, "amp='fp16': needs a GPU; use amp=bf16 or amp=off on the CPU"),
        (0, {"sync_bn": True, "processes": 2}, "sync_bn=True: PyTorch synchronises batch statistics on GPUs only"),
        (0, {"model": "resnet18", "dataset": "circle"}, "model='resnet18': cannot take inputs of shape (2,)"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_anything_is_made(tiny, monkeypatch, tmp_path, gpus, given, line):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(UsageError) as refused:
        launch(tiny(**{"device": "auto"} | given))
    assert str(refused.value).startswith(line)
    assert not (tmp_path / "runs").exists()


def test_batch_larger_than_the_data_is_refused_before_anything_is_made(tiny, tmp_path):
    with pytest.raises(UsageError, match="batch_size=5000"):
        launch(tiny(batch_size=5000))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_two_nodes_meet_on_loopback(tiny):
    """Two agents on this machine stand for two nodes with a shared file system."""
    from torch.distributed.elastic.utils.distributed import get_free_port

    config = tiny(name="nodes", nodes=2, rendezvous=f"127.0.0.1:{get_free_port()}")
    both = [subprocess.Popen(command(config)) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    alone = fit(Run.create(tiny(name="one")))
    for name, weight in weights(alone).items():
        assert weights(Run.create(config))[name].sub(weight).abs().max() < 1e-4, name


@pytest.mark.slow
def test_twenty_kills_twenty_identical_endings(tiny):
    """kill -9 of everything at 20 random moments, each followed by the same command again."""
    whole = fit(Run.create(tiny(name="whole", model="resnet8", epochs=30, checkpoint_minutes=0)))
    moments = random.Random(0)
    for kill in range(20):
        config = tiny(name=f"kill-{kill}", model="resnet8", epochs=30, checkpoint_minutes=0)
        run = Run.create(config)
        starter = subprocess.Popen(command(config), start_new_session=True)
        wait_until(lambda run=run: run.paths.metrics.exists() and run.paths.metrics.stat().st_size)
        time.sleep(moments.uniform(0, 5))
        kill_all(run, starter)
        launch(config)
        assert_same_run(whole, run)


def test_run_that_cannot_begin_leaves_no_folder(tmp_path):
    """A picture that turns out unreadable when training reads it, after everything that is cheap was checked."""
    for name, color in (("a", "red"), ("b", "blue")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40, 40), color).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "pictures" / "a" / "bad.png").write_bytes((tmp_path / "pictures" / "a" / "0.png").read_bytes()[:60])
    given = {"dataset": "imagefolder", "data_root": str(tmp_path / "pictures"), "data_args": {"image_size": 32}}
    config = Config.load(given, {"batch_size": 4, "device": "cpu", "runs": str(tmp_path / "runs")})
    with pytest.raises(UsageError, match=r"bad\.png"):
        launch(config)
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("decider", ["deepr", "dsr", "rigl"])
def test_two_processes_with_many_methods_end_identically_after_kills(decider, tmp_path):
    """kill -9 of both processes, their agent and the launcher, twice, with all hooks that compose."""
    names = next(names for names in companies() if decider in names)
    common = {"model": "resnet8", "epochs": 12, "batch_size": 64, "processes": 2, "device": "cpu"}
    common |= {"checkpoint_minutes": 0, "log_interval": 5, "runs": str(tmp_path)}
    common["hooks"] = {name: dict(HOOKS[name].exercise) for name in names}
    whole = launch(Config.load(common, {"name": "whole"}))
    config = Config.load(common, {"name": "cut"})
    run, moments = Run.create(config), random.Random(decider)
    for _ in range(2):
        starter = subprocess.Popen(command(config), start_new_session=True)
        wait_until(lambda: training(run) and list(run.paths.checkpoints.glob("0*.pt")))
        time.sleep(moments.uniform(0, 8))
        kill_all(run, starter)
    launch(config)
    assert_same_run(whole, run)
