"""Evaluation in and outside of training: exact counts, every origin of weights, and no trace left behind."""

import argparse
import os

import pytest
import torch
from conftest import rows
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from research import cli
from research.checkpoints import weights
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.models import create_model
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Two epochs of an MLP on the digits, with averaged weights."""
    from research.config import Config

    given = {"model": "mnist_mlp", "epochs": 2, "lr": 0.05, "device": "cpu", "hooks": {"ema": {"decay": 0.8}}}
    return fit(Run.create(Config.load(given, {"name": "lr=0.05", "runs": str(tmp_path_factory.mktemp("runs"))})))


@pytest.fixture
def published(run, tmp_path):
    """``published(**content)``: a checkpoint as another trainer writes it."""

    def write(name="checkpoint.pth.tar", **content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def state_of(run) -> dict[str, torch.Tensor]:
    return load_file(run.dir / "best.safetensors")


def counted(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "weights"}


def test_hooks_see_every_validation_sample_of_the_run_once_an_epoch_and_of_no_other_network(tiny, monkeypatch):
    seen = []

    class Keep(Hook):
        def evaluated(self, run, logits, targets):
            assert torch.is_inference_mode_enabled() and not run.model.training
            seen.append((run.epoch, logits.float().clone(), targets))

        def epoch_end(self, run):
            seen.append((run.epoch, None, None))

    monkeypatch.setitem(HOOKS, "keep", Keep)
    found = rows(fit(Run.create(tiny(hooks={"ema": {}, "keep": {}}))))
    assert seen[-1][1] is None
    for epoch, row in enumerate(row for row in found if row["kind"] == "val"):
        batches = [(z, y) for e, z, y in seen if e == epoch and z is not None]
        z, y = (torch.cat(part) for part in zip(*batches, strict=True))
        assert len(z) == row["images"] == 359
        assert row["top1"] == pytest.approx(100 * (z.argmax(1) == y).double().mean().item(), abs=1e-9)
        assert row["loss"] == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)


def test_run_evaluates_to_what_it_recorded_and_stays_as_it_was(run):
    def stamps():
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.dir.rglob("*") if path.is_file()}

    before = stamps()
    best, last, averaged = (
        evaluate_weights([run.dir], last=last, ema=ema)[0] for last, ema in ((0, 0), (1, 0), (0, 1))
    )
    assert stamps() == before
    recorded = [row for row in rows(run) if row["kind"] == "val"]
    assert best["top1"] == run.best_top1 == pytest.approx(100 * best["correct"] / best["images"])
    assert (last["top1"], last["top5"], last["loss"]) == tuple(recorded[-1][n] for n in ("top1", "top5", "loss"))
    assert averaged["loss"] == [row for row in rows(run) if row["kind"] == "val_ema"][-1]["loss"]
    assert averaged["loss"] != last["loss"]


def test_files_of_a_run_know_their_run(run):
    newest = max((run.dir / "checkpoint").glob("*.pt"))
    from_folder, from_file = evaluate_weights([run.dir], last=True) + evaluate_weights([newest])
    assert counted(from_folder) == counted(from_file)
    assert from_file["weights"] == str(newest)


def test_result_does_not_depend_on_the_batch(run):
    whole, parts = (evaluate_weights([run.dir], {"batch_size": size})[0] for size in (1024, 7))
    assert (whole["correct"], whole["images"]) == (parts["correct"], parts["images"])
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-6)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("holder", ["state_dict", "model", "state_dict_ema", None])
def test_every_published_layout_gives_the_same_result(run, published, prefix, holder):
    state = {prefix + name: value for name, value in state_of(run).items()}
    more = {"arch": "mnist_mlp", "epoch": 2, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}}
    path = published(**(more | {holder: state} if holder else state))
    (row,) = evaluate_weights([path], {} if holder else {"model": "mnist_mlp"}, ema=holder == "state_dict_ema")
    assert counted(row) == counted(evaluate_weights([run.dir])[0])


def test_safetensors_and_counters_of_other_versions_are_understood(run, tmp_path):
    state = {n: value for n, value in state_of(run).items() if not n.endswith("num_batches_tracked")}
    save_file(state | {"n_averaged": torch.tensor(3)}, tmp_path / "other.safetensors")
    (row,) = evaluate_weights([tmp_path / "other.safetensors"], {"model": "mnist_mlp"})
    assert counted(row) == counted(evaluate_weights([run.dir])[0])


@pytest.mark.parametrize("network", ["resnet18", "resnet18_wobn", "seresnet18"])
def test_keys_of_published_networks_are_those_of_their_libraries(network):
    import timm
    from torch import nn

    with torch.device("meta"):
        ours = create_model(network, 1000, (3, 224, 224)).state_dict()
        name, norm = network.removesuffix("_wobn"), {"norm_layer": nn.Identity} if "wobn" in network else {}
        theirs = timm.create_model(name, **norm).state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_weights_of_another_network_are_told_apart(run, published):
    state = state_of(run)
    last = next(reversed([name for name in state if name.endswith("weight") and state[name].ndim == 2]))
    fewer = {name: value for name, value in state.items() if name != last} | {"head": torch.zeros(1)}
    with pytest.raises(UsageError, match=rf"1 missing \({last}\); 1 unexpected \(head\)"):
        evaluate_weights([published(state_dict=fewer)], {"model": "mnist_mlp"})
    wider = state | {last: torch.zeros(1000, 100)}
    with pytest.raises(UsageError, match=r"1 of another shape .*\(1000, 100\) for \(10, 100\)"):
        evaluate_weights([published(state_dict=wider)], {"model": "mnist_mlp"})


class Dangerous:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_code_in_a_file_is_refused_and_not_run(published, run, monkeypatch):
    path = published(state_dict=state_of(run), more=Dangerous())
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("the file ran a command"))
    with pytest.raises(UsageError, match=r"checkpoint.pth.tar: only tensors.*argparse.Namespace.*system"):
        weights.read(path)


def test_damaged_and_empty_files_are_told(tmp_path, published):
    for name in ("torn.pt", "torn.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 torn")
        with pytest.raises(UsageError, match=name):
            weights.read(tmp_path / name)
    with pytest.raises(UsageError, match="holds epoch"):
        weights.read(published(epoch=3))
    with pytest.raises(UsageError, match="averaged"):
        weights.read(published(state_dict={"w": torch.zeros(1)}), ema=True)
    with pytest.raises(UsageError, match="did you mean 'checkpoint.pth.tar'"):
        weights.read(tmp_path / "checkpoint.pth")


def test_command_prints_a_row_for_each_path_and_takes_names_with_equals_signs(run, capsys):
    path = str(run.dir)
    assert cli.main(["evaluate", path, path + "/ema.safetensors", "batch_size=100"]) == 0
    header, best, averaged = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["weights", "images", "correct"]
    assert best.split()[0] == path + "/best.safetensors" and averaged.split()[0] == path + "/ema.safetensors"
    assert f"{run.best_top1:.3f}" in best.split()
    assert cli.main(["evaluate", "batch_size=100"]) == 2
    assert "at least one" in capsys.readouterr().err
