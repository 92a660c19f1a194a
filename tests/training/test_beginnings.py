"""Training that begins with other weights (init), or continues another training as a run of its own."""

import argparse
import json
import warnings

import pytest
import torch
from conftest import Killed, rows, weights
from safetensors.torch import load_file, save_file
from torch import nn

from research.config import Config
from research.errors import UsageError
from research.models import create_model
from research.runs.run import Run
from research.training.loop import fit
from research.training.preflight import preflight
from research.training.prepare import prepare


def notes(run: Run) -> list[str]:
    found = [json.loads(line) for line in run.paths.metrics.read_text().splitlines()]
    return [row["text"] for row in found if row["kind"] == "note"]


def prepared(config: Config) -> Run:
    """The run of ``config``, checked and ready for its first step."""
    preflight(config)
    run = Run.create(config)
    prepare(run)
    return run


# -- init ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["run", "name", "safetensors", "published"])
def test_training_begins_with_the_weights_of(kind, tiny, tmp_path):
    base = fit(Run.create(tiny(name="base", epochs=1)))
    best = load_file(base.paths.best)
    save_file(best, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in best.items()}, "epoch": 3}, tmp_path / "w.pth.tar")
    place = {"run": base.dir, "name": "base", "safetensors": tmp_path / "w.safetensors"}
    run = prepared(tiny(name="next", init=str(place.get(kind, tmp_path / "w.pth.tar"))))
    assert all(torch.equal(value, best[name]) for name, value in run.model.state_dict().items())
    assert (run.epoch, run.step) == (0, 0)
    done = fit(Run.create(run.config))
    assert notes(done)[0].startswith("init: begins with the weights of mnist_mlp of ")
    assert rows(done) != rows(base) and done.status["epoch"] == 2


def test_a_head_of_another_size_is_drawn_anew_and_the_rest_is_kept(tiny, tmp_path):
    other = create_model("mnist_mlp", 7, (1, 8, 8), batch_norm=False)
    torch.save(other.state_dict(), tmp_path / "seven.pt")
    run = prepared(tiny(name="ten", init=str(tmp_path / "seven.pt")))
    drawn = prepared(tiny(name="drawn"))
    own, theirs, fresh = run.model.state_dict(), other.state_dict(), drawn.model.state_dict()
    head = [name for name in own if own[name].shape != theirs[name].shape]
    assert len(head) == 2 and all(torch.equal(own[name], fresh[name]) for name in head)
    assert all(torch.equal(own[name], theirs[name]) for name in own if name not in head)
    assert run.began_with[0].endswith(f"; {head[0]}, {head[1]} drawn anew, for 10 classes")


def test_published_weights_come_with_their_normalisation(monkeypatch, tmp_path):
    import torchvision.models as library

    state = library.resnet18().state_dict()
    monkeypatch.setattr(library.ResNet18_Weights, "get_state_dict", lambda self, **_: state)
    given = {"dataset": "cifar10", "model": "torchvision:resnet18", "init": "torchvision:resnet18"}
    with pytest.warns(match="inputs are normalised as its weights know them"):
        config = Config.load(given)
    assert config.data_args == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert Config.load(config.to_dict()) == config == Config.stored(config.to_dict())
    assert Config.load(given | {"data_args.normalize": False}).data_args == {"normalize": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Config.load(given | {"dataset": "imagenet"}).data_args

    from research.training.sources import own_source, own_tensors  # of the patched library

    [(key, source)] = own_source(config).items()
    tensors, origin = own_tensors(key, source, config)
    assert origin == "torchvision:resnet18 as published" and torch.equal(tensors["fc.weight"], state["fc.weight"])


def test_weights_of_a_run_with_other_inputs_are_refused_with_both_choices(tiny):
    fit(Run.create(tiny(name="base", epochs=1, **{"data_args.mean": [0.5], "data_args.std": [0.25]})))
    with pytest.raises(UsageError) as refused:
        preflight(tiny(name="next", init="base"))
    said = str(refused.value)
    assert "give data_args.mean=[0.5] data_args.std=[0.25] to take that along, or data_args.mean=[0.3055]" in said
    preflight(tiny(name="next", init="base", **{"data_args.mean": [0.5], "data_args.std": [0.25]}))


def test_masks_of_a_method_lie_on_the_weights_it_begins_with(tiny):
    base = fit(Run.create(tiny(name="base", epochs=1)))
    run = prepared(tiny(name="sparse", init="base", hooks={"static_sparse": {"sparsity": 0.8}}))
    state, best = run.model.state_dict(), load_file(base.paths.best)
    masks = {name: mask for name, mask in state.items() if name.endswith("_mask")}
    assert masks and all(
        torch.equal(state[name], best[name] * state.get(f"{name}_mask", torch.ones(()))) for name in best
    )
    torch.save({f"module.{name}": value for name, value in best.items()}, base.dir / "wrapped.pt")
    again = prepared(tiny(name="again", init=str(base.dir / "wrapped.pt"), hooks=run.config.hooks))
    assert all(torch.equal(value, state[name]) for name, value in again.model.state_dict().items())
    back = prepared(tiny(name="dense", init=str(fit(Run.create(run.config)).dir)))
    assert back.model.state_dict().keys() == best.keys()


def test_a_run_that_was_cut_off_needs_its_source_no_more(tiny, tmp_path, power_cut):
    torch.save(create_model("mnist_mlp", 10, (1, 8, 8), batch_norm=False).state_dict(), tmp_path / "w.pt")
    given = {"init": str(tmp_path / "w.pt"), "hooks": {"power_cut": {}}}
    whole = fit(Run.create(tiny(name="whole", **given)))
    power_cut.at = 15
    with pytest.raises(Killed):
        fit(Run.create(tiny(name="cut", **given)))
    (tmp_path / "w.pt").unlink()
    preflight(tiny(name="cut", **given))
    cut = fit(Run.create(tiny(name="cut", **given)))
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(cut).items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"init": "absent"}, "no such run or file"),
        ({"init": "torchvision:resnett18"}, "unknown model 'torchvision:resnett18'; did you mean 'resnet18'"),
        ({"init": "here"}, "a run cannot start from itself"),
        ({"init": "a", "continue_from": "b"}, "both say what weights begin with"),
        ({"continue_from": "timm:resnet10t"}, "published weights alone are for init"),
        ({"init": "other.pt"}, "not weights of this network"),
        ({"init": "other.pt", "hooks": {"prune": {"start_from": "other.pt"}}}, "init and prune.start_from: both say"),
        ({"continue_from": "other.pt"}, "no training to continue: expected weights, optimizer and epoch"),
    ],
)
def test_what_cannot_be_begun_with_is_refused_before_a_run_is_made(given, said, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("dense_mlp", 10, (1, 8, 8)).state_dict(), "other.pt")
    with pytest.raises(UsageError, match=said):
        preflight(tiny(name="here", **given))
    assert not (tmp_path / "runs").exists()


# -- continue_from ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"momentum": 0.9, "nesterov": True},
        {"optimizer": "adamw", "lr": 0.01},
        {"hooks": {"ema": {}, "rigl": {"sparsity": 0.8, "period": 3}}, "decay_norm_and_bias": False},
    ],
)
def test_a_longer_training_is_what_it_would_have_been(given, tiny):
    """With a constant rate the first epochs of a long training are a short one."""
    given = given | {"schedule": "constant"}
    if "rigl" in given.get("hooks", {}):
        given["hooks"]["rigl"]["end"] = "20it"
    long = fit(Run.create(tiny(name="long", epochs=4, **given)))
    fit(Run.create(tiny(name="short", epochs=2, **given)))
    config = tiny(name="longer", epochs=4, continue_from="short", **given)
    preflight(config)
    longer = fit(Run.create(config))
    assert all(torch.equal(value, weights(long)[name]) for name, value in weights(longer).items())
    later = [row for row in rows(long) if row["epoch"] >= 2]
    assert [row for row in rows(longer) if row["kind"] != "rigl"] == [row for row in later if row["kind"] != "rigl"]
    assert "continues short after epoch 2, with its optimizer" in notes(longer)


def test_the_run_that_continues_goes_by_its_own_parameters(tiny):
    fit(Run.create(tiny(name="short", epochs=1)))
    config = tiny(name="longer", epochs=2, continue_from="short", weight_decay=0.5, hooks={"power_grad": {}})
    preflight(config)
    run = fit(Run.create(config))
    assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0.5}
    assert "continues short after epoch 1, with its optimizer; power_grad begins here" in notes(run)
    assert min(row["epoch"] for row in rows(run)) == 1 and run.step == 22


def test_a_training_that_is_over_or_stands_inside_an_epoch_is_refused(tiny, power_cut):
    fit(Run.create(tiny(name="short", epochs=2)))
    with pytest.raises(UsageError, match="has trained 2 epochs; give more than epochs=2"):
        preflight(tiny(name="longer", epochs=2, continue_from="short", weight_decay=0.5))
    power_cut.at = 9
    with pytest.raises(Killed):
        fit(Run.create(tiny(name="cut", hooks={"power_cut": {}}, checkpoint_minutes=0)))
    with pytest.raises(UsageError, match="stands inside epoch 0; let that end"):
        preflight(tiny(name="longer", epochs=3, continue_from="cut"))


@pytest.mark.parametrize("groups", ["one", "vectors first", "matrices first"])
def test_a_published_checkpoint_continues_with_its_optimizer(groups, tiny, tmp_path):
    """As timm writes it; whatever the order of its groups, every buffer finds its parameter."""
    model = create_model("mnist_mlp", 10, (1, 8, 8))
    vectors = [p for p in model.parameters() if p.ndim == 1]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    kinds = {"one": [list(model.parameters())], "vectors first": [vectors, matrices]}
    kinds["matrices first"] = [matrices, vectors]
    sgd = torch.optim.SGD([{"params": each} for each in kinds[groups]], lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    sgd.step()
    wanted = {name: sgd.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
    content = {"epoch": 1, "arch": "x", "state_dict": nn.DataParallel(model).state_dict()}
    content |= {"optimizer": sgd.state_dict(), "args": argparse.Namespace(a=1), "version": 2}
    torch.save(content, tmp_path / "model_best.pth.tar")
    given = {"model": "mnist_mlp", "continue_from": str(tmp_path / "model_best.pth.tar"), "decay_norm_and_bias": False}
    config = tiny(name="on", epochs=2, **given)
    preflight(config)
    seen = {}

    from research.hooks import HOOKS, Hook  # patched for this test alone

    class Look(Hook):
        def epoch_start(self, run):
            seen.update({n: run.optimizer.state[p]["momentum_buffer"].clone() for n, p in run.model.named_parameters()})
            seen["epoch"], seen["step"] = run.epoch, run.step

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HOOKS, "look", Look)
        fit(Run.create(tiny(name="on", epochs=2, hooks={"look": {}}, **given)))
    assert (seen.pop("epoch"), seen.pop("step")) == (1, 11)
    assert all(torch.equal(seen[name], wanted[name]) for name in wanted)


def test_the_state_of_another_optimizer_is_refused(tiny, tmp_path):
    fit(Run.create(tiny(name="short", epochs=1)))
    with pytest.raises(UsageError, match="its optimizer keeps momentum_buffer; this is adamw"):
        fit(Run.create(tiny(name="other", epochs=2, continue_from="short", optimizer="adamw")))


def test_old_runs_keep_their_identity():
    assert Config().identity == Config.load({"init": "", "continue_from": ""}).identity
    assert Config.load({"init": "a"}).identity != Config().identity
