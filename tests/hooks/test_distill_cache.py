"""A teacher's kept answers: what asking at every step gives, on every data path, or refused; and published teachers."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TESTS, Killed, assert_same_run, rows
from hypothesis import given
from hypothesis import strategies as st

from research.config import Config
from research.data.augment import Augment
from research.data.draws import draw_evaluation, draw_training
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.hooks.base import Source
from research.hooks.distill import Distill
from research.launcher.launch import launch
from research.runs.run import Run
from research.training.loop import fit
from research.training.sources import load_source

BOTH = {"alpha": 0.4, "beta": 50.0}  # the teacher is the network as it was initialised
SMALL = {"model": "resnet8", "batch_size": 256, "log_interval": 2}


def distilled(tiny, name: str, cache: bool, **given) -> Run:
    return Run.create(tiny(**SMALL | {"hooks": {"distill": BOTH | {"cache": cache}}} | given, name=name))


def assert_close_runs(one: Run, other: Run, rel: float, percent: float = 0.3) -> None:
    """Every number of the metrics agrees to ``rel``, accuracies to ``percent``: a few images."""
    assert len(rows(one)) == len(rows(other)) > 3
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        exact = {key: value for key, value in mine.items() if not isinstance(value, float)}
        assert exact == {key: theirs[key] for key in exact}
        for key in mine.keys() - exact.keys():
            tolerance = {"abs": percent} if key.startswith("top") else {"rel": rel}
            assert mine[key] == pytest.approx(theirs[key], **tolerance), key


@pytest.mark.parametrize("given", [{}, {"accumulation": 2, "order_seed": 5}], ids=["whole", "micro-batches"])
def test_losses_are_those_of_asking_at_every_step(tiny, given):
    asked, kept = (fit(distilled(tiny, str(cache), cache, epochs=2, **given)) for cache in (False, True))
    assert_close_runs(asked, kept, rel=1e-4)
    assert {row["kind"] for row in rows(kept)} >= {"distill", "val_teacher"}


class Look(Hook):
    """Compares what is looked up with the teacher's answer at every micro-batch."""

    worst = 0.0
    steps = 0

    def loss(self, run, loss):
        hook = run.hooks["distill"]
        for name, answer in hook.ask(run.inputs).items():
            found = hook.kept.all[name]
            here = hook.kept.rows[run.batch, hook.kept.part]
            assert found.dtype == answer.dtype
            Look.worst = max(Look.worst, (found[here] - answer).abs().max().item() / answer.abs().max().item())
        Look.steps += 1
        return loss


@pytest.mark.parametrize(
    ("given", "tolerance"),
    [
        ({"accumulation": 2}, 1e-5),
        ({"amp": "bf16"}, 0.02),
        ({"dataset": "linear", "model": "mnist_mlp", "hooks": {"distill": {"alpha": 0.5, "beta": 0.0}}}, 1e-5),
    ],
    ids=["float32", "half", "vectors"],
)
def test_every_micro_batch_finds_its_own_answers(tiny, monkeypatch, given, tolerance):
    monkeypatch.setitem(HOOKS, "look", Look)
    Look.worst, Look.steps = 0.0, 0
    distill = given.get("hooks", {}).get("distill", BOTH) | {"cache": True}
    run = fit(distilled(tiny, "run", True, **given | {"epochs": 2, "hooks": {"distill": distill, "look": {}}}))
    assert Look.steps == run.step * run.config.accumulation
    assert Look.worst < tolerance
    assert run.hooks["distill"].kept.all.keys() == {"", *run.hooks["distill"].maps}


def test_teacher_is_asked_once_an_image_and_logits_that_do_not_count_are_not_kept(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(Distill, "ask", lambda self, x, ask=Distill.ask: asked.append(len(x)) or ask(self, x))
    run = fit(distilled(tiny, "run", True, hooks={"distill": {"beta": 50.0, "cache": True}}))
    assert sum(asked) == run.train_loader.info.train
    assert run.hooks["distill"].kept.all.keys() == {"layer1", "layer2", "layer3"}


def test_run_stopped_inside_an_epoch_continues_bit_exactly(tiny, power_cut):
    given = {"epochs": 2, "checkpoint_minutes": 0, "hooks": {"distill": BOTH | {"cache": True}, "power_cut": {}}}
    whole = fit(distilled(tiny, "whole", True, **given))
    power_cut.at = 7  # in the second epoch
    with pytest.raises(Killed):
        fit(distilled(tiny, "cut", True, **given))
    assert_same_run(whole, fit(distilled(tiny, "cut", True, **given)))


def test_processes_share_the_work_and_have_all_answers(tiny):
    common = {"processes": 2, "epochs": 1}
    asked, kept = (distilled(tiny, str(cache), cache, **common) for cache in (False, True))
    half = distilled(tiny, "half", True, amp="bf16", **common)
    directories = [run.dir for run in (asked, kept, half)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = TESTS / "ranks.py"
    subprocess.run([*torchrun, program, *directories], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert_close_runs(asked, kept, rel=1e-4)
    assert_close_runs(kept, half, rel=0.05, percent=5)


# -- refused ------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["none", "pad", "resized"]),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0, 3]),
)
def test_augmentation_knows_whether_it_changes_an_image(crop, padding, flip, jitter, cutout):
    augment = Augment(crop=crop, padding=padding, flip=flip, jitter=jitter, cutout=cutout)
    indices, sides = np.arange(64), np.full(64, 20)
    always = draw_evaluation(augment, sides, sides, 20)
    drawn = [draw_training(augment, indices, sides, sides, 0, epoch, 20) for epoch in (0, 1)]
    assert all((draws == always).all() for draws in drawn) == (not augment.drawn)
    assert (drawn[0] == drawn[1]).all() == (not augment.drawn)


@pytest.mark.parametrize(
    ("data_args", "told"),
    [
        ({"flip": True}, "data_args.flip=true draws each image anew every epoch; give data_args.flip=false, or dist"),
        (
            {"crop": "pad", "padding": 1, "flip": True, "cutout": 2},
            "data_args.crop=pad, flip=true, cutout=2 draw each image anew every epoch; give data_args.crop=none "
            "data_args.flip=false data_args.cutout=0, or distill.cache=false",
        ),
    ],
)
def test_images_that_change_are_refused_before_the_run_is_made(tiny, data_args, told):
    config = tiny(**SMALL, name="student", data_args=data_args, hooks={"distill": {"cache": True}})
    with pytest.raises(UsageError, match=told):
        launch(config)
    assert not Path(config.runs).exists()
    with pytest.raises(UsageError, match=told):
        fit(Run.create(config))  # nobody asked check


def test_answers_that_would_fill_the_memory_are_refused(tiny, monkeypatch):
    needed = 1438 * 4 * (64 + 16 + 4 + 10)
    for free, enough in ((4 * needed, True), (4 * needed - 4, False)):
        monkeypatch.setattr("research.resources.free_memory", lambda free=free: free)
        run = distilled(tiny, str(free), True, epochs=1)
        if enough:
            fit(run)
        else:
            with pytest.raises(UsageError, match=r"outputs for 1,438 images are 0.0 GB, more .* 1/4 .*cache=false"):
                fit(run)


# -- published teachers -------------------------------------------------------------------------------------------


def student(shape: tuple[int, ...], classes: int) -> SimpleNamespace:
    info = SimpleNamespace(shape=shape, classes=classes, mean=(), std=())
    loader = SimpleNamespace(info=info)
    return SimpleNamespace(train_loader=loader, device=torch.device("cpu"), config=Config.load(), dir=Path("runs/x"))


def test_teacher_of_timm_comes_with_its_published_weights_and_classes(monkeypatch):
    import timm

    trained, asked = timm.create_model("resnet10t"), []

    def create(name, pretrained=False, **args):
        asked.append((name, pretrained, args))
        return trained

    monkeypatch.setattr(timm, "create_model", create)
    source = Source("timm:resnet10t", wants="network")
    teacher = load_source("distill.teacher", source, student((1, 64, 64), 1000))
    network, origin = teacher.network, teacher.origin
    assert network is trained and origin == "timm:resnet10t as published"
    assert asked[-1] == ("resnet10t", True, {"num_classes": 1000, "in_chans": 1})
    with pytest.raises(UsageError, match="was published for 1000 classes, the data has 10; give a run or a file"):
        load_source("distill.teacher", source, student((1, 64, 64), 10))
    assert [pretrained for _, pretrained, _ in asked].count(True) == 1  # refused before anything is fetched


@pytest.mark.parametrize("teacher", ["timm:resnet10t", "torchvision:resnet18"])
def test_without_a_network_one_line_says_what_to_do(monkeypatch, teacher):
    import timm
    import torchvision.models as library

    def offline(*args, **kwargs):
        if kwargs.get("pretrained") or kwargs.get("weights"):
            raise OSError("Name or service not known\nand more")
        return torch.nn.Identity()

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(library, "get_model", offline)
    told = rf"published weights of {teacher} are not on this machine.*\(Name or service not known\); build it once"
    with pytest.raises(UsageError, match=told) as error:
        load_source("distill.teacher", Source(teacher, wants="network"), student((3, 64, 64), 1000))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("teacher", ["wrn-16-2", "resnet20"])
def test_name_of_an_untrained_network_is_refused_as_teacher(tiny, teacher):
    with pytest.raises(
        UsageError, match=f"teacher='{teacher}': is a network's name, and untrained it cannot teach; give a run"
    ):
        launch(tiny(**SMALL, hooks={"distill": {"teacher": teacher}}))
    with pytest.raises(UsageError, match="unknown model 'timm:resnett18'; did you mean 'resnet18'"):
        launch(tiny(**SMALL, hooks={"distill": {"teacher": "timm:resnett18"}}))
