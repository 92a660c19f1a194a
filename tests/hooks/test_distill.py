"""Distillation: the losses against golden numbers, the taps of every family, and the hook with each kind of teacher."""

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import GOLDENS, rows, weights
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.hooks.attention import known_taps, recorded_maps
from research.hooks.base import Source
from research.hooks.distill import attention_map, attention_transfer_loss, attention_transfer_terms, kd_loss
from research.launcher.launch import launch
from research.models import create_model
from research.runs.run import Run
from research.training.loop import fit
from research.training.preflight import preflight
from research.training.sources import load_source, renormalise

GOLDEN = GOLDENS / "cheap-convs"


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind != "U"}


# -- losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kd_0", "kd_1", "kd_3"])
def test_kd_loss_equals_both_published_forms(name):
    g = golden(name)
    y = g["y"].requires_grad_()
    common = {"temperature": g["T"].item(), "alpha": g["alpha"].item()}
    elementwise = kd_loss(y, g["t"], g["labels"], **common)
    batchmean = kd_loss(y, g["t"], g["labels"], **common, reduction="batchmean")
    torch.testing.assert_close(elementwise, g["loss_ref_elementwise_mean"], rtol=1e-5, atol=0)
    torch.testing.assert_close(batchmean, g["loss_at_repo_batchmean"], rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.autograd.grad(elementwise, y)[0], g["g_y"], rtol=1e-5, atol=1e-7)


def test_kd_loss_of_an_equal_teacher_is_cross_entropy_alone_and_sends_it_no_gradient():
    y, teacher_y = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True).unbind()
    labels = torch.arange(6) % 5
    assert kd_loss(y, y.clone(), labels, alpha=0.3).item() == pytest.approx(0.7 * F.cross_entropy(y, labels).item())
    teacher_y.retain_grad()
    kd_loss(y, teacher_y, labels, alpha=0.3).backward()
    assert teacher_y.grad is None


@pytest.mark.parametrize("name", ["at_0", "at_2"])
def test_attention_transfer_loss_equals_the_golden_terms_and_gradient(name):
    g = golden(name)
    count = len(g["terms"])
    student, teacher = ([g[f"a{who}{i}"] for i in range(count)] for who in "st")
    torch.testing.assert_close(attention_transfer_terms(student, teacher), g["terms"], rtol=1e-5, atol=0)
    last = g["s_last"].requires_grad_()
    student[-1] = attention_map(last)
    torch.testing.assert_close(student[-1], g[f"as{count - 1}"], rtol=1e-5, atol=1e-8)
    loss = attention_transfer_loss(student, teacher, g["beta"].item())
    torch.testing.assert_close(loss, g["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, last)[0], g["g_s_last"], rtol=1e-4, atol=1e-8)


@given(st.integers(0, 2**31), st.sampled_from([1e-3, 0.5, 40.0]))
def test_attention_map_is_of_unit_length_and_blind_to_scale_sign_and_channel_order(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, 4, 2, 5, generator=generator, dtype=torch.float64)
    m = attention_map(a)
    assert m.shape == (3, 10)
    torch.testing.assert_close(m.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(attention_map(-scale * a.flip(1)), m)


def test_half_precision_is_computed_in_single():
    a = 300 * torch.randn(2, 3, 4, 4)  # squares overflow half precision
    torch.testing.assert_close(attention_map(a.half()), attention_map(a.half().float()))
    y = torch.randn(2, 4, 10)
    half = kd_loss(y[0].half(), y[1].half(), torch.arange(4), alpha=1.0)
    assert half.dtype == torch.float32
    assert half.item() == kd_loss(*y.half().float(), torch.arange(4), alpha=1.0).item()


# -- taps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "split", "taps", "sides"),
    [
        ("wrn-16-1", 1, ["group1", "group2", "group3"], [32, 16, 8]),
        ("wrn-16-1", 2, [f"group{g}.{b}" for g in (1, 2, 3) for b in (0, 1)], [32, 32, 16, 16, 8, 8]),
        ("resnet8", 1, ["layer1", "layer2", "layer3"], [32, 16, 8]),
        ("resnet18", 1, ["layer1", "layer2", "layer3", "layer4"], [8, 4, 2, 1]),
        ("darts", 1, ["cells.5", "cells.12"], [32, 16]),
        ("mobilenet_v2", 1, ["features.2", "features.4", "features.7", "features.14"], [8, 4, 2, 1]),
        ("mnist_mlp", 1, [], []),
    ],
)
def test_known_taps_are_the_ends_of_the_stages(model, split, taps, sides):
    network = create_model(model, 10, (3, 32, 32), **({"C": 4} if model == "darts" else {})).eval()
    assert known_taps(network, split) == taps
    maps = recorded_maps(network, taps)
    network(torch.randn(2, 3, 32, 32))
    assert {name: m.shape for name, m in maps.items()} == {n: (2, s * s) for n, s in zip(taps, sides, strict=True)}


def study_name(name: str) -> str:
    """Our name of a parameter or buffer of the study's wide ResNet."""
    name = re.sub(r"^block(\d)\.(\d)\.layer\.0\.", r"group\1.\2.", name)
    name = re.sub(r"(conv\d)\.conv\.", r"\1.", name.replace("convShortcut", "shortcut"))
    return re.sub(r"^bn1\.", "bn.", name)


def test_wide_resnet_computes_logits_maps_and_gradients_of_the_study():
    with np.load(GOLDEN / "net_WRN_10_1_Conv.npz") as arrays:
        g = {key: arrays[key] for key in arrays}
    network = create_model("wrn-10-1")
    network.load_state_dict({study_name(k[4:]): torch.from_numpy(v) for k, v in g.items() if k.startswith("sd__")})
    maps = recorded_maps(network, known_taps(network))
    x, labels = torch.from_numpy(g["x"]), torch.from_numpy(g["labels"])
    for mode in ("train", "eval"):
        logits = network.train(mode == "train")(x)
        np.testing.assert_allclose(logits.detach(), g[f"logits_{mode}"], rtol=1e-4, atol=1e-5)
        for i, m in enumerate(maps.values()):
            np.testing.assert_allclose(m.detach(), g[f"am{i}_{mode}"], rtol=1e-4, atol=1e-5)
        if mode == "train":
            loss = F.cross_entropy(logits, labels)
            np.testing.assert_allclose(loss.item(), g["ce"], rtol=1e-4)
            loss.backward()
    for name, norm in json.loads(str(g["grad_norms"])).items():
        assert network.get_parameter(study_name(name)).grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-5)
    state = network.state_dict()
    for name in (k for k in g if k.startswith("sd2__")):
        np.testing.assert_allclose(state[study_name(name[5:])], g[name], rtol=1e-4, atol=1e-5)


# -- the hook -----------------------------------------------------------------------------------------------------

SMALL = {"model": "resnet8", "batch_size": 256, "epochs": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Run:
    """Two epochs of a ResNet-8 on the digits."""
    given = SMALL | {"epochs": 2, "seed": 7, "device": "cpu", "name": "teacher"}
    return fit(Run.create(Config.load(given, {"runs": str(tmp_path_factory.mktemp("runs"))})))


class Spy(Hook):
    """Computes every step's loss again, from scratch, with a teacher of its own."""

    seen: ClassVar[list[float]] = []

    def setup(self, run):
        given = run.config.hooks["distill"]
        self.teacher = create_model("resnet8", 10, (1, 8, 8))
        self.teacher.load_state_dict(load_file(Path(given["teacher"]) / "best.safetensors"), strict=False)
        self.teacher.eval()
        self.activations = {}
        for who, network in (("student", run.model), ("teacher", self.teacher)):
            for stage in (1, 2, 3):
                network.get_submodule(f"layer{stage}").register_forward_hook(self.keep(who, stage))

    def keep(self, who, stage):
        def hook(module, args, output):
            self.activations[who, stage] = output

        return hook

    def loss(self, run, loss):
        given = run.config.hooks["distill"]
        with torch.no_grad():
            teacher_y = self.teacher(run.inputs)
        student, teacher = (
            [attention_map(self.activations[who, stage]) for stage in (1, 2, 3)] for who in ("student", "teacher")
        )
        kd = kd_loss(run.logits, teacher_y, run.targets, given["temperature"], given["alpha"])
        expected = kd + attention_transfer_loss(student, teacher, given["beta"])
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        Spy.seen.append(loss.item())
        return loss


def test_loss_of_every_step_is_that_of_the_equations(tiny, teacher, monkeypatch):
    monkeypatch.setitem(HOOKS, "spy", Spy)
    distill = {"teacher": str(teacher.dir), "alpha": 0.4, "temperature": 3.0, "beta": 500.0}
    run = fit(Run.create(tiny(**SMALL, hooks={"distill": distill, "spy": {}})))
    (row,) = [row for row in rows(run) if row["kind"] == "distill"]
    (epoch,) = [row for row in rows(run) if row["kind"] == "train_epoch"]
    assert epoch["loss"] == pytest.approx(np.mean(Spy.seen), rel=1e-6)
    assert row["at"] == pytest.approx(500.0 * sum(row[f"at.layer{i}"] for i in (1, 2, 3)), rel=1e-6)
    assert 0 < row["kd"] and 0 < row["at"] < epoch["loss"]


def test_teacher_is_measured_and_named_and_no_part_of_the_run(tiny, teacher):
    plain = fit(Run.create(tiny(**SMALL, name="plain")))
    run = fit(Run.create(tiny(**SMALL, name="student", hooks={"distill": {"teacher": str(teacher.dir)}})))
    assert weights(run).keys() == weights(plain).keys()
    assert len(run.optimizer.param_groups[0]["params"]) == len(plain.optimizer.param_groups[0]["params"])
    (measured,) = [row for row in rows(run) if row["kind"] == "val_teacher"]
    assert measured["top1"] == teacher.best_top1
    assert (
        f"{teacher.dir}/best.safetensors; its top-1 here is {teacher.best_top1:.2f} %" in run.paths.metrics.read_text()
    )
    network = run.hooks["distill"].network
    for name, value in load_file(teacher.dir / "best.safetensors").items():
        assert torch.equal(network.state_dict()[name], value), name
    assert not network.training and not any(p.requires_grad or p.grad is not None for p in network.parameters())


def test_teacher_that_was_distilled_does_not_need_its_own_teacher(tiny, teacher):
    middle = fit(Run.create(tiny(**SMALL, name="middle", hooks={"distill": {"teacher": str(teacher.dir)}})))
    config = json.loads((middle.dir / "config.json").read_text())
    config["hooks"]["distill"]["teacher"] = "runs/gone"
    (middle.dir / "config.json").write_text(json.dumps(config))
    run = fit(Run.create(tiny(**SMALL, name="last", hooks={"distill": {"teacher": "middle"}})))  # the name of a run
    assert f"middle/best.safetensors; its top-1 here is {middle.best_top1:.2f} %" in run.paths.metrics.read_text()


def test_without_a_teacher_it_is_the_own_network_as_it_was_initialised(tiny):
    run = fit(Run.create(tiny(**SMALL, hooks={"distill": {}})))
    run.seed_everything("initial weights")
    fresh = create_model("resnet8", 10, (1, 8, 8)).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in run.hooks["distill"].network.state_dict().items())
    assert "untrained" in run.paths.metrics.read_text()


def test_a_file_of_weights_is_of_the_students_network_unless_said_otherwise(tiny, teacher, tmp_path):
    bare, other = tmp_path / "bare.pt", tmp_path / "other.pt"
    torch.save({"state_dict": weights(teacher)}, bare)
    torch.save(create_model("resnet20", 10, (1, 8, 8)).state_dict(), other)
    fit(Run.create(tiny(**SMALL, name="same", hooks={"distill": {"teacher": str(bare)}})))
    larger = {"teacher": str(other), "teacher_model": "resnet20"}
    run = fit(Run.create(tiny(**SMALL, name="larger", hooks={"distill": larger})))
    assert f"resnet20 of {other}" in run.paths.metrics.read_text()


def test_published_teacher_comes_with_its_weights_and_classes(monkeypatch):
    import torchvision.models as library

    state = library.resnet18().state_dict()
    monkeypatch.setattr(library.ResNet18_Weights, "get_state_dict", lambda self, **_: state)
    run = fake_run((3, 64, 64), 1000)
    source = Source("torchvision:resnet18", wants="network")
    teacher = load_source("distill.teacher", source, run)
    network, origin = teacher.network, teacher.origin
    assert torch.equal(network.fc.weight, state["fc.weight"]) and origin == "torchvision:resnet18 as published"
    with pytest.raises(UsageError, match="1000"):
        load_source("distill.teacher", source, fake_run((3, 64, 64), 10))


def fake_run(shape: tuple[int, ...], classes: int):
    from types import SimpleNamespace

    info = SimpleNamespace(shape=shape, classes=classes, mean=(), std=())
    loader = SimpleNamespace(info=info)
    return SimpleNamespace(train_loader=loader, device=torch.device("cpu"), config=Config.load(), dir=Path("runs/x"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher": "{runs}/teachr"}, "teachr: no such run or file; did you mean 'teacher'"),
        ({"teacher": "{teacher}", "taps": ["layer1", "layer5"]}, "no module 'layer5'; did you mean 'layer"),
        ({"teacher": "{teacher}", "taps": ["fc"]}, "fc does not give feature maps"),
        ({"teacher": "{bare}", "teacher_model": "resnet20"}, "for 10 classes: not weights of this network"),
        ({"teacher": "{hundred}"}, r"for 10 classes.*fc.weight \(100, 64\) for \(10, 64\)"),
        ({"teacher": "{imagenet}", "teacher_model": "resnet18"}, "model has taps layer1, layer2, layer3, the teacher"),
        ({"teacher": "{wide}", "teacher_model": "mnist_mlp"}, "Sequential has no known places for attention maps"),
        ({"split": 2}, "split=2: does not divide the 1 blocks of layer1"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(tiny, teacher, tmp_path, given, message):
    files = {"teacher": teacher.dir, "runs": teacher.dir.parent}
    files["bare"] = tmp_path / "bare.pt"
    torch.save(weights(teacher), files["bare"])
    for name, model, classes in (("hundred", "resnet8", 100), ("imagenet", "resnet18", 10), ("wide", "mnist_mlp", 10)):
        files[name] = tmp_path / f"{name}.pt"
        torch.save(create_model(model, classes, (1, 8, 8)).state_dict(), files[name])
    given = {key: value.format(**files) if isinstance(value, str) else value for key, value in given.items()}
    run = Run.create(tiny(**SMALL, hooks={"distill": given}))
    with pytest.raises(UsageError, match=message):
        fit(run)
    assert run.step == 0


def test_maps_of_different_sizes_are_refused(tiny, teacher):
    taps = {"taps": ["layer1"], "teacher": str(teacher.dir)}
    assert fit(Run.create(tiny(**SMALL, name="fits", hooks={"distill": taps}))).step
    student = tiny(**SMALL | {"model": "resnet18"}, name="not", hooks={"distill": taps})
    with pytest.raises(UsageError, match="4 pixels at layer1 of the model, 64 at layer1 of the teacher"):
        fit(Run.create(student))


def test_missing_teacher_is_refused_before_the_run_is_made(tiny, teacher):
    config = tiny(**SMALL, name="student", runs=str(teacher.dir.parent), hooks={"distill": {"teacher": "teachr"}})
    with pytest.raises(UsageError, match="did you mean 'teacher'"):
        launch(config)
    assert not (teacher.dir.parent / "student").exists()
    itself = tiny(**SMALL, name="teacher", runs=str(teacher.dir.parent), hooks={"distill": {"teacher": "teacher"}})
    with pytest.raises(UsageError, match="a run cannot start from itself"):
        launch(itself)


def test_taps_and_split_together_are_refused():
    with pytest.raises(UsageError, match="split=2.*give one"):
        Config.load({"distill.split": 2, "distill.taps": ["layer1"]})


def test_a_teacher_for_logits_alone_is_proposed_where_maps_are_not_known(tiny):
    with pytest.raises(UsageError, match=r"distill: Sequential has no known places .*; give distill.beta=0 to train"):
        preflight(tiny(hooks={"distill": {"alpha": 0.5}}))
    preflight(tiny(hooks={"distill": {"alpha": 0.5, "beta": 0}}))


def test_a_teacher_sees_inputs_normalised_as_in_its_own_training(tiny):
    teacher = fit(Run.create(tiny(name="teacher", epochs=1, data_args={"mean": [0.1], "std": [0.9]})))
    student = Run.create(
        tiny(name="student", epochs=1, hooks={"distill": {"teacher": "teacher", "alpha": 0.5, "beta": 0}})
    )
    fit(student)
    (note,) = [row["text"] for row in map(json.loads, student.paths.metrics.open()) if row["kind"] == "note"][:1]
    assert "with inputs normalised as in its own training (mean [0.1], deviation [0.9])" in note
    (measured,) = [row for row in rows(student) if row["kind"] == "val_teacher"]
    assert measured["top1"] == pytest.approx(teacher.status["best_top1"])


def test_a_file_of_another_origin_is_told_its_normalisation(tiny, tmp_path):
    own = {"mean": [0.1], "std": [0.9]}
    teacher = fit(Run.create(tiny(name="teacher", epochs=1, data_args=own)))
    torch.save({"state_dict": weights(teacher)}, tmp_path / "foreign.pt")
    given = {"teacher": str(tmp_path / "foreign.pt"), "alpha": 0.5, "beta": 0}
    told = given | {"teacher_mean": [0.1], "teacher_std": [0.9]}
    untold, knowing = (
        fit(Run.create(tiny(name=name, epochs=1, hooks={"distill": each}))).paths.metrics.read_text()
        for name, each in (("untold", given), ("told", told))
    )
    assert "normalised as in its own training" not in untold
    assert "normalised as in its own training (mean [0.1], deviation [0.9])" in knowing
    measured = [json.loads(row) for row in knowing.splitlines() if '"val_teacher"' in row]
    assert [row["top1"] for row in measured] == [pytest.approx(teacher.status["best_top1"])]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"teacher_mean": [0.1]}, "teacher_mean=.*teacher_std=.*give both, a number a channel"),
        ({"teacher_mean": [0.1], "teacher_std": [0]}, "teacher_std=.*must be > 0"),
        ({"teacher_mean": [0.1] * 3, "teacher_std": [1] * 3}, "expected 1 numbers, one a channel of digits"),
        ({"teacher": "", "teacher_mean": [0.1], "teacher_std": [1]}, "teacher_mean.*the run's own network"),
        ({"alpha": 0, "teacher_mean": [0.1], "teacher_std": [1]}, "teacher_std.*there is no teacher"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(given, problem, tiny):
    with pytest.raises(UsageError, match=problem):
        preflight(tiny(hooks={"distill": {"teacher": "x", "alpha": 0.5, "beta": 0} | given}))


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        ("run", {}, ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))),
        ("run", {"normalisation": ((0.1,) * 3, (0.2,) * 3)}, ((0.1,) * 3, (0.2,) * 3)),
        ("library", {}, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("library", {"normalisation": ((0.1,) * 3, (0.2,) * 3)}, ((0.1,) * 3, (0.2,) * 3)),
    ],
)
def test_a_network_of_a_library_is_normalised_as_whoever_trained_it(recorded, given, expected, tmp_path, monkeypatch):
    """A run of one's own by its configuration, whatever the library records of the weights that it published."""
    model, run = "torchvision:squeezenet1_1", fake_run((3, 64, 64), 1000)
    run.train_loader.info.mean, run.train_loader.info.std = (0.0,) * 3, (1.0,) * 3
    if recorded == "run":
        arguments = {"image_size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
        mine = Config.load({"dataset": "imagefolder", "model": model, "runs": str(tmp_path), "data_args": arguments})
        mine = Run.create(mine)
        save_file(create_model(model, 1000, (3, 64, 64)).state_dict(), mine.paths.best)
        source = Source(str(mine.dir), wants="network", **given)
    else:
        import torchvision.models as library

        state = library.squeezenet1_1().state_dict()
        monkeypatch.setattr(library.SqueezeNet1_1_Weights, "get_state_dict", lambda self, **_: state)
        source = Source(model, wants="network", **given)
    mean, std = map(list, expected)
    told = f"normalised as in its own training (mean {mean}, deviation {std})"
    assert told in load_source("distill.teacher", source, run).origin


def test_normalisations_are_exchanged_exactly():
    network = torch.nn.Conv2d(2, 2, 1)
    x, plain = torch.rand(3, 2, 4, 4), torch.nn.Conv2d(2, 2, 1)
    plain.load_state_dict(network.state_dict())
    given, own = ((0.1, 0.2), (0.5, 0.7)), ((0.4, 0.3), (0.2, 0.9))
    normalised = [(x - torch.tensor(m).view(2, 1, 1)) / torch.tensor(s).view(2, 1, 1) for m, s in (given, own)]
    renormalise(network, given, own)
    torch.testing.assert_close(network(normalised[0]), plain(normalised[1]))
