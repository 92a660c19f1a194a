"""Every parameter of a run, flipped: something differs, or the user is told why not."""

import subprocess
import warnings
from contextlib import nullcontext

import pytest
import torch
from conftest import REPOSITORY, rows, weights
from torch import nn

from research.config import Config
from research.config.config import CHECKED
from research.config.effects import ELSEWHERE, without_effect
from research.data.choice import make_loader
from research.errors import Note, UsageError
from research.launcher import agent, launch
from research.resources import decide
from research.runs.run import Run
from research.training.loop import fit
from research.training.preflight import preflight
from research.training.prepare import prepare

# what another value changes in a run of one epoch: parameter -> (value, what it needs beside it)
CHANGES = {
    "model": ("dense_mlp", {"model_args": {}}),
    "recipe": ("nn-mass-cifar10", {}),
    "hooks": ({"power_grad": {"alpha": 0.5}}, {}),
    "model_args": ({"batch_norm": False, "hidden": [20]}, {}),
    "substitute": ("shuffle:1", {"model": "resnet8", "model_args": {}, "batch_size": 512}),
    "dataset": ("circle", {"data_args": {}}),
    "data_args": ({"holdout": 100}, {}),
    "seed": (1, {}),
    "order_seed": (1, {}),
    "mask_seed": (1, {"hooks": {"static_sparse": {"sparsity": 0.5}}}),
    "epochs": (2, {}),
    "batch_size": (64, {}),
    "accumulation": (2, {}),
    "optimizer": ("adamw", {}),
    "lr": (0.03, {}),
    "momentum": (0.5, {}),
    "nesterov": (True, {}),
    "betas": ([0.5, 0.9], {"optimizer": "adamw"}),
    "eps": (0.1, {"optimizer": "adamw"}),
    "weight_decay": (0.1, {}),
    "decay_norm_and_bias": (False, {"weight_decay": 0.1}),
    "clip_norm": (0.1, {}),
    "schedule": ("linear", {}),
    "schedule_by": ("epoch", {}),
    "min_lr": (0.01, {}),
    "warmup_epochs": (0.5, {}),
    "warmup_lr": (0.02, {"warmup_epochs": 0.5}),
    "warmup_first": (True, {"warmup_epochs": 0.5}),
    "power": (0.5, {"schedule": "poly"}),
    "train_continuous": (2, {"schedule_by": "epoch_executed", "schedule": "linear", "epochs": 2}),
    "cooldown_epochs": (1, {}),
    "decay_epochs": (1, {"schedule": "step", "epochs": 2}),
    "milestones": ([1], {"schedule": "step", "epochs": 2}),
    "decay_rate": (0.5, {"schedule": "step", "decay_epochs": 1, "epochs": 2}),
    "lr_table": ("0:0.01", {"schedule": "table"}),
    "smoothing": (0.2, {}),
    "amp": ("bf16", {}),
    "log_interval": (2, {}),
}
SHOWN_BY = {  # tests of what these do when something goes wrong
    "restarts": "tests/launcher/test_interruption.py",
    "hang_minutes": "tests/launcher/test_interruption.py",
    "join_minutes": "tests/launcher/test_nodes.py",
    "start_over": "tests/training/test_checkpointing.py",
    "init": "tests/training/test_beginnings.py",
    "continue_from": "tests/training/test_beginnings.py",
    "checkpoint_minutes": "tests/training/test_train.py",
    "plugin": "tests/plugins/test_plugins.py",
}
SEEN = {"channels_last", "compile", "deterministic", "sync_bn", "loader", "data_root", "download", "workers", "name"}
SEEN |= {"tf32", "runs", "device", "processes", "nodes", "rendezvous", "threads"}  # below, one by one


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``trained(given)``: weights and rows of a run; equal ones are trained once."""
    done = {}

    def train(**given):
        base = {"dataset": "digits", "model": "mnist_mlp", "epochs": 1, "lr": 0.05, "device": "cpu", "log_interval": 4}
        given = base | {"batch_size": 256, "model_args": {"batch_norm": False}} | given
        if repr(given) not in done:
            folder = tmp_path_factory.mktemp("flip")
            run = fit(Run.create(Config.load(given | {"runs": str(folder), "name": "r"}, {})))
            done[repr(given)] = weights(run), rows(run)
        return done[repr(given)]

    return train


def test_every_parameter_is_looked_at():
    assert CHANGES.keys() | SHOWN_BY.keys() | SEEN == Config.parameters().keys()
    for name, file in SHOWN_BY.items():
        assert f"{name}=" in (REPOSITORY / file).read_text(), name


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore::research.errors.Note")
def test_another_value_makes_another_run(name, trained):
    value, beside = CHANGES[name]
    without = {key: other for key, other in beside.items() if name != "recipe" or key == "data_args"}
    plain = trained(**{"schedule": "step"} if name == "lr_table" else without)
    flipped = trained(**beside | {name: value})
    same = plain[0].keys() == flipped[0].keys() and all(torch.equal(plain[0][n], flipped[0][n]) for n in plain[0])
    assert not same or plain[1] != flipped[1]


IDLE = [  # (given, the parameter that cannot act, why)
    ({"optimizer": "adamw", "nesterov": True}, "nesterov=true", "optimizer=sgd"),
    ({"optimizer": "adamw", "momentum": 0.9}, "momentum=0.9", "optimizer=sgd"),
    ({"betas": [0.8, 0.9]}, "betas=[0.8, 0.9]", "optimizer=adamw"),
    ({"eps": 1e-3}, "eps=0.001", "optimizer=adamw"),
    ({"weight_decay": 0, "decay_norm_and_bias": False}, "decay_norm_and_bias=false", "weight_decay=0"),
    ({"schedule": "step", "min_lr": 0.01}, "min_lr=0.01", "floor"),
    ({"schedule": "constant", "min_lr": 0.01}, "min_lr=0.01", "floor"),
    ({"schedule": "table", "lr_table": "0:1", "min_lr": 0.01}, "min_lr=0.01", "floor"),
    ({"warmup_lr": 0.01}, "warmup_lr=0.01", "warmup_epochs"),
    ({"warmup_first": True}, "warmup_first=true", "warmup_epochs"),
    ({"warmup_first": True, "warmup_epochs": 2, "schedule": "step"}, "warmup_first=true", "begin after"),
    ({"schedule": "step", "cooldown_epochs": 3}, "cooldown_epochs=3", "min_lr"),
    ({"schedule": "constant", "cooldown_epochs": 3}, "cooldown_epochs=3", "min_lr"),
    ({"schedule": "table", "lr_table": "0:1", "cooldown_epochs": 3}, "cooldown_epochs=3", "min_lr"),
    ({"schedule": "constant", "schedule_by": "epoch"}, "schedule_by='epoch'", "between epochs"),
    (
        {"schedule_by": "step_executed", "warmup_epochs": 2, "warmup_first": True},
        "warmup_first=true",
        "always begins after",
    ),
    ({"power": 2.0}, "power=2.0", "schedule=poly"),
    ({"train_continuous": 2}, "train_continuous=2", "schedule_by=epoch_executed"),
    ({"decay_epochs": 3}, "decay_epochs=3", "schedule=step"),
    ({"decay_rate": 0.3}, "decay_rate=0.3", "schedule=step"),
    ({"milestones": [3]}, "milestones=[3]", "schedule=step"),
    ({"schedule": "step", "milestones": [3], "decay_epochs": 2}, "decay_epochs=2", "milestones"),
    ({"schedule": "table", "lr_table": "0:1", "lr": 0.3}, "lr=0.3", "lr_table"),
    ({"mask_seed": 3}, "mask_seed=3", "draws masks"),
    ({"hooks": {"gram": {}}, "mask_seed": 3}, "mask_seed=3", "draws masks"),
    ({"hooks": {"prune": {}}, "mask_seed": 3}, "mask_seed=3", "draws masks"),
    ({"rendezvous": "host:1"}, "rendezvous='host:1'", "nodes"),
    ({"join_minutes": 3.0}, "join_minutes=3.0", "nodes"),
]


@pytest.mark.parametrize(("given", "name", "why"), IDLE, ids=lambda value: str(value)[:30])
def test_what_is_typed_and_cannot_act_is_refused_with_the_reason(given, name, why):
    with pytest.raises(UsageError) as refused:
        Config.load(given)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{name}: has no effect: ") and why in line


def test_every_rule_has_its_case():
    """Values under which each rule speaks are in the list above or among what is only told."""
    refused = {name.partition("=")[0] for _, name, _ in IDLE}
    settings = ({}, {"optimizer": "adamw", "weight_decay": 0}, {"schedule": "step"}, {"schedule": "constant"})
    spoken = {name for given in settings for name in without_effect(Config.load({"device": "cpu"}, given).to_dict())}
    assert spoken - ELSEWHERE <= refused


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ([{"recipe": "gram-imagenet-resnet", "optimizer": "adamw"}], "nesterov=true: .*from the recipe"),
        ([{"nesterov": True}, {"optimizer": "adamw"}], "nesterov=true: has no effect"),
        ([{"schedule": "step", "milestones": [30]}], r"milestones=\[30\]: .*ends before"),
        ([{"sync_bn": True}], "sync_bn=true: has no effect"),
        ([{"deterministic": True, "device": "cpu"}], "deterministic=true: has no effect"),
    ],
)
def test_what_speaks_for_many_runs_is_told_in_a_note(sources, told, monkeypatch):
    with pytest.warns(Note, match=told):
        Config.load(*sources)
    monkeypatch.setenv(CHECKED, "1")
    with pytest.warns() as silent:
        Config.load(*sources)
        warnings.warn("end", stacklevel=1)
    assert [str(each.message) for each in silent] == ["end"]


def test_what_takes_back_a_value_below_acts():
    below = {"optimizer": "adamw", "nesterov": True}
    assert Config.load(below, {"nesterov": False}).nesterov is False
    assert Config.load({"recipe": "gram-imagenet-resnet", "schedule": "step", "min_lr": 0.0}).min_lr == 0


@pytest.mark.filterwarnings("error::research.errors.Note")
def test_a_run_that_exists_is_opened_whatever_it_holds(tmp_path):
    stored = Config().to_dict() | {"nesterov": True, "optimizer": "adamw", "milestones": [3]}
    assert Config.stored(stored).nesterov and Config.load(stored).nesterov
    old = {name: value for name, value in stored.items() if name not in ("start_over", "hang_minutes")}
    run = Run.create(Config.stored(old | {"runs": str(tmp_path)}))
    assert Run.open(run.dir).config.milestones == (3,)
    assert Config.load(Run.open(run.dir).config.to_dict(), {"epochs": 3}).epochs == 3


# -- where and how a run is computed ----------------------------------------------------------------------------


@pytest.fixture
def prepared(tiny, monkeypatch):
    """``prepared(given)``: a run of a small convolutional network, up to its first step."""
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)

    def make(**given) -> Run:
        run = Run.create(tiny(model="resnet8", batch_size=512, name="-".join(given) or "plain", **given))
        prepare(run)
        return run

    return make


def test_memory_format_and_compilation_are_seen_in_the_network(prepared, monkeypatch):
    def lies_in_channels_last(run: Run) -> bool:
        kernels = [m.weight for m in run.model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
        return all(w.is_contiguous(memory_format=torch.channels_last) for w in kernels)

    assert lies_in_channels_last(prepared()) and not lies_in_channels_last(prepared(channels_last=False))
    monkeypatch.setattr(torch, "compile", lambda model: ("compiled", model))
    run = prepared(compile=True)
    assert run.network == ("compiled", run.model)


def test_deterministic_asks_torch_for_it(prepared, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    with pytest.warns(Note):
        Config.load({"deterministic": True, "device": "cpu"})
    run = Run(prepared().dir, Config.stored(Config().to_dict() | {"deterministic": True, "device": "cpu"}))
    prepare(run)
    assert asked == [True]


@pytest.mark.parametrize(
    ("tf32", "convolutions", "products"),
    [("nothing", False, "highest"), ("convolutions", True, "highest"), ("everything", True, "high")],
)
def test_tf32_asks_torch_for_it(prepared, tf32, convolutions, products):
    with pytest.warns(Note, match="TF32 is of GPUs") if tf32 != "convolutions" else nullcontext():
        Config.load({"tf32": tf32, "device": "cpu"})
    run = Run(prepared().dir, Config.stored(Config().to_dict() | {"tf32": tf32, "device": "cpu"}))
    prepare(run)
    asked = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert asked == (convolutions, products)


def test_place_of_data_and_run_are_where_they_were_said_to_be(tiny, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no digits-train.beton"):
        preflight(tiny(loader="ffcv", data_root=str(tmp_path)))
    with pytest.raises(UsageError, match=str(tmp_path)):
        preflight(tiny(dataset="mnist", data_root=str(tmp_path)))
    asked = []

    def count(name, root, split, download):
        asked.append(download)
        raise UsageError("none")

    monkeypatch.setattr("research.data.arrays.count", count)
    for download in (True, False):
        with pytest.raises(UsageError, match="none"):
            preflight(tiny(dataset="mnist", data_root=str(tmp_path), download=download))
    assert asked == [True, False]
    assert Run.create(tiny(name="mine", runs=str(tmp_path / "there"))).dir == tmp_path / "there" / "mine"


def test_workers_and_device(tiny, monkeypatch):
    given = {"data_args": {"crop": "pad", "padding": 1}}
    assert make_loader(tiny(workers=3, **given), "train").threads == 1, "digits are not worth a second thread"
    monkeypatch.setattr("research.data.memory_loader.SMALLEST_PART", 1)
    loaders = [make_loader(tiny(workers=workers, **given), "train") for workers in (1, 3)]
    assert [loader.threads for loader in loaders] == [1, 3]
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device='cuda'"):
            preflight(tiny(device="cuda"))


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"threads": 3}, "OMP_NUM_THREADS=3"),
        ({"processes": 2}, "--nproc-per-node 2"),
        ({"processes": 2, "nodes": 2, "rendezvous": "host:29400"}, "--nnodes 2"),
        ({"processes": 2, "nodes": 2, "rendezvous": "host:29400"}, "--rdzv-endpoint host:29400"),
        ({"processes": 2, "nodes": 2, "rendezvous": "host:29400"}, "--local-addr 10.0.0.1"),
    ],
)
def test_processes_start_as_they_were_asked_for(given, seen, tiny, monkeypatch):
    said = []
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, env=None, **more: said.append(f"OMP_NUM_THREADS={env['OMP_NUM_THREADS']}")
    )
    monkeypatch.setattr("torch.distributed.run.main", lambda words: said.append(" ".join(words)))
    monkeypatch.setattr(agent, "die_with_parent", lambda number: None)
    monkeypatch.setattr(agent, "unblock", lambda: None)
    monkeypatch.setattr(agent.signal, "signal", lambda number, handler: None)  # of this process they stay
    monkeypatch.setenv(agent.PARENT, "")
    monkeypatch.setenv(agent.LOCAL_ADDRESS, "10.0.0.1")
    run = Run.create(tiny(**given))
    launch.start(run, decide(run.config, "memory").environment())
    agent.main(str(run.dir))
    assert seen in " ".join(said)
