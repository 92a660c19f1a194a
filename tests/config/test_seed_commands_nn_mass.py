"""Commands of NN-Mass's seed (imagenet.py, train_cifar.py), and the learning rates that its programs used."""

import json
import shlex

import pytest
import torch
from conftest import GOLDENS

from research.config import Config
from research.errors import UsageError
from research.models import create_model
from research.parameters.assignments import parse_assignments
from research.trained.evaluate_weights import evaluate_weights
from research.training.schedule import learning_rate

GOLDEN = json.loads((GOLDENS / "nn-mass" / "learning_rates.json").read_text())


def loaded(command: str) -> Config:
    """``--flag value`` and ``--switch``, or assignments, as a Config."""
    told = []
    for word in shlex.split(command):
        if word.startswith("-"):
            told.append(word.lstrip("-"))
        else:
            told[-1:] = (
                [f"{told[-1]}={word}"] if told and "=" not in told[-1] and "=" not in word else [*told[-1:], word]
            )
    return Config.load(parse_assignments(word if "=" in word else f"{word}=true" for word in told))


def test_the_published_mobilenet_command_is_the_recipe():
    config = loaded(
        "-a mobilenetv2 -d /data/imagenet --epochs 150 --lr-decay cos --lr 0.05 --wd 4e-5 -c logs/mobile "
        "--width-mult 1.4 --input-size 192 -j 8"
    )
    same = {"model_args": {"width_mult": 1.4}, "data_args": {"image_size": 192, "eval_resize": 219}}
    where = {"data_root": "/data/imagenet", "runs": "logs", "name": "mobile", "workers": 8}
    plain = Config.load({"recipe": "mobilenet_v2-imagenet-150", **same, **where})
    assert config.identity == plain.identity
    assert (config.runs, config.name, config.workers, config.data_root) == ("logs", "mobile", 8, "/data/imagenet")


def test_what_imagenet_py_leaves_open_has_its_defaults():
    config = loaded("arch=resnet50")
    assert (config.model, config.dataset, config.epochs, config.batch_size) == ("resnet50", "imagenet", 90, 256)
    assert (config.lr, config.momentum, config.weight_decay, config.decay_norm_and_bias) == (0.1, 0.9, 1e-4, True)
    assert (config.schedule, config.decay_epochs, config.decay_rate) == ("step", 30, 0.1)
    assert config.data_args == {"crop": "resized", "image_size": 224, "flip": True, "eval_resize": 256}


def test_what_train_cifar_py_leaves_open_has_its_defaults():
    config = loaded("arch=regular_dense")
    assert config.model_args == {"tc": [40, 80, 125]} or config.model_args == {"tc": (40, 80, 125)}
    assert (config.dataset, config.epochs, config.batch_size, config.lr) == ("cifar10", 10, 128, 0.1)
    assert (config.schedule, config.schedule_by, config.weight_decay) == ("cosine", "epoch", 5e-4)
    assert (config.data_args["crop"], config.data_args["flip"]) == ("none", False)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("--cell_depth 8 --tc1 21 --tc2 42 --tc3 66", {"cell_depth": 8, "tc": (21, 42, 66)}),
        ("--depth 8 --width 48 --tc 10", {"cell_depth": 8, "wm": 3, "tc": 10}),
        ("--num_cells 4 --wm 1", {"num_cells": 4, "wm": 1, "tc": (40, 80, 125, 200)}),
        ("--num-cells 5 --tc 3", {"num_cells": 5, "tc": 3}),
        ("--arch dense_depth --compat reference --frozen_bn", {"compat": "reference", "frozen_bn": True}),
    ],
)
def test_flags_shape_the_cifar_network(command, args):
    config = loaded(command)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in config.model_args.items()}
    assert config.model == "dense_depth" and args.items() <= given.items()


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("--dataset cifar100 --wm 1", {"crop": "pad", "padding": 4, "flip": True, "cutout": 4}),
        ("--dataset cifar100 --wm 1 --augment standard", {"crop": "pad", "flip": True, "cutout": 0}),
        ("--dataset cifar10 --wm 1 --augment standard", {"crop": "pad", "padding": 4, "flip": True}),
        ("--dataset cifar100 --wm 1 --augment none", {"crop": "none", "flip": False}),
    ],
)
def test_augmentation_is_the_program_s_unless_chosen(command, kept):
    config = loaded(command)
    assert config.recipe == f"nn-mass-{config.dataset}" and kept.items() <= config.data_args.items()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("arch=mobilenetv3", "arch='mobilenetv3': expected dense_depth or regular_dense or mobilenet_v2"),
        ("arch=resnet18 lr-decay=cosine", "lr_decay='cosine': expected step or schedule or cos or linear or step-ref"),
        ("arch=mobilenetv2 --pretrained", "pretrained=True: networks start from their seed"),
        ("arch=mobilenetv2 weight=x.pth -e", "weight=x.pth: `research evaluate FILE model=NAME` evaluates weights"),
        ("arch=resnet18 resume=x", "resume=x: a run continues by itself"),
        ("arch=resnet18 --world-size 2", "world_size=2: give gpus="),
        ("arch=resnet18 tc1=3", "tc1: is a flag of train_cifar.py"),
        ("arch=dense_depth lr-decay=cos", "lr_decay: is a flag of imagenet.py"),
        ("depth=8 width=8 tc=10 dataset=MNIST", "`research run topology dataset=MNIST depth=8 width=8 tc=10`"),
        ("tc=3 tc1=4", "tc and tc1: say the same; give one"),
        ("tc4=3", "tc4: there are 3 cells"),
        ("arch=dense_depth width=40", "width=40: expected a multiple of 16"),
        ("arch=dense_depth num_cells=5", "num_cells=5: expected 1 to 4"),
        ("arch=dense_depth iter_times=5", "iter_times=5: a run trains one network"),
        ("arch=dense_depth augment=all", "augment='all': expected none or standard or ref"),
        ("arch=resnet18 lr-decay=schedule schedule=a", "milestones"),
    ],
)
def test_what_means_nothing_here_is_refused(command, said):
    with pytest.raises(UsageError) as refused:
        loaded(command)
    assert said in str(refused.value) and "Traceback" not in str(refused.value)


def test_words_of_this_program_stay_what_they_are():
    assert loaded("schedule=linear model=resnet8").schedule == "linear"
    assert loaded("arch=resnet18 schedule=cosine").schedule == "cosine"
    for command in ("warmup=5", "step=3", "model=resnet8 width=2"):
        with pytest.raises(UsageError, match="unknown parameter"):
            loaded(command)
    config = loaded("arch=mobilenetv2 lr-decay=cos --warmup")
    assert Config.load(config.to_dict()) == config
    assert loaded("--arch resnet18 --start-epoch 0 --data-backend pytorch --iter_times 1").model == "resnet18"


@pytest.mark.parametrize(
    "golden", GOLDEN["imagenet_lr"], ids=lambda row: f"{row['lr_decay']}-{row['epochs']}-{row['warmup']}"
)
def test_rates_are_those_of_imagenet_py(golden):
    rising = sorted(set(golden["schedule"]))
    decay = {"step": "step-ref"}.get(golden["lr_decay"], golden["lr_decay"])  # what its step does, under its own name
    flags = {"arch": "mobilenet_v2", "lr-decay": decay, "warmup": golden["warmup"], "schedule": rising}
    config = Config.load(flags | {key: golden[key] for key in ("epochs", "lr", "gamma")})
    if len(rising) < len(golden["schedule"]) and decay == "schedule":  # an epoch named twice decays twice: a table
        rates = {0: golden["lr"]} | {
            epoch: golden["lr"] * golden["gamma"] ** sum(other <= epoch for other in golden["schedule"])
            for epoch in rising
        }
        table = " ".join(f"{epoch}:{rate!r}" for epoch, rate in rates.items())
        config = Config.load(config.to_dict(), {"schedule": "table", "lr_table": table, "milestones": []})
    steps = golden["iters_per_epoch"]
    for epoch, iteration, rate in golden["points_epoch_iter_lr"]:
        assert learning_rate(config, epoch * steps + iteration, steps) == pytest.approx(rate, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("golden", GOLDEN["cifar_cosine"], ids=lambda row: str(row["epochs"]))
def test_rates_are_those_of_train_cifar_py(golden):
    config = loaded(f"--arch dense_depth --epochs {golden['epochs']}")
    ours = [learning_rate(config, epoch * 7 + 3, 7) for epoch in range(golden["epochs"])]
    assert ours == pytest.approx(golden["lr_used_each_epoch"], rel=1e-9)


def test_step_decay_is_that_of_the_flag_not_of_its_defect():
    config = loaded("arch=resnet18 step=30 gamma=0.1 epochs=90")
    assert [learning_rate(config, epoch * 5, 5) for epoch in (0, 29, 30, 60)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_weights_of_the_program_are_evaluated_with_or_without_module_prefix(tmp_path):
    torch.manual_seed(0)
    state = create_model("mobilenet_v2", 10, (1, 8, 8), width_mult=0.35).state_dict()
    torch.save(state, tmp_path / "bare.pth")
    torch.save(
        {"arch": "mobilenetv2", "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "ddp.pth"
    )
    given = {"dataset": "digits", "model": "mobilenetv2", "model_args.width_mult": 0.35, "device": "cpu"}
    rows = evaluate_weights([tmp_path / "bare.pth", tmp_path / "ddp.pth"], given)
    assert [{**row, "weights": ""} for row in rows] == [{**rows[0], "weights": ""}] * 2 and rows[0]["images"] == 359


@pytest.mark.parametrize(
    ("command", "without", "said"),
    [
        ("arch=dense_depth num_seg=2", "arch=dense_depth", "num_seg=2: has no effect"),
        ("arch=resnet18 width-mult=0.5", "arch=resnet18", "width_mult=0.5: resnet18 ignores it"),
    ],
)
def test_flags_without_an_effect_there_are_taken_with_a_warning(command, without, said):
    with pytest.warns(UserWarning, match=said):
        told = Config.load(parse_assignments(command.split()))
    assert told == Config.load(parse_assignments(without.split()))
