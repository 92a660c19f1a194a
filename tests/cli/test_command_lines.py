"""Whatever is typed, the answer is what was asked for or a line: never a traceback, exit codes 0, 1 and 2 only."""

import random
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from research import cli
from research.config import Config
from research.hooks import HOOKS
from research.launcher import launch
from research.notebooks import execute
from research.parameters.signatures import parameters_of
from research.studies import sweep
from research.training.preflight import preflight

LINES = {  # command line -> exit code, and a part of what is told
    "train model=null": (2, "model=None"),
    "train model=timm:": (2, "unknown model 'timm:'"),
    "train model=torchvision:": (2, "unknown model 'torchvision:'"),
    "train 'model=[resnet8]'": (2, "model=['resnet8']: expected str"),
    "train 'dataset=[]'": (2, "dataset=[]: expected str"),
    "train 'logit_stats={1: 2}'": (2, "expected names before the values, not 1"),
    "train 'model_args={1: 2}'": (2, "expected names before the values, not 1"),
    "train 'model_args={a: 1, a: 2}'": (2, "the key 'a' is given twice"),
    "train 'hooks=[gram]'": (2, "hooks=['gram']: expected a mapping"),
    "train hooks.lr=3": (2, "unknown hook 'lr'"),
    "train gram.=3": (2, "'gram.': expected the name of a parameter"),
    "train gram.kk=1": (2, "did you mean 'gram.k'?"),
    "train widht=3": (2, "`research parameters` lists them"),
    "train width=16": (2, "did you mean 'model_args.width'?"),
    "train depth=8": (2, "did you mean 'model_args.depth'?"),
    "train input_size=160": (2, "unknown parameter 'input_size'"),
    "train gram=false c_type=nmi4": (2, "contradict each other"),
    "train c_type=nmi4 gram=false": (2, "contradict each other"),
    "train lr=0.1 lr=0.2": (2, "lr=0.1 and lr=0.2: they contradict"),
    "train gpus=0": (2, "give device=cpu"),
    "train gpus=-2": (2, "gpus=-2: must be >= 1"),
    "train sgs_k=-1": (2, "sgs_k=-1: must be > 0"),
    "train name=" + "x" * 300: (2, "300 bytes; a folder's name may have 240"),
    "train 'name=\"a\\nb\"'": (2, "must be a plain folder name"),
    "train 'lr_table=0:0.1,nan:3' schedule=table": (2, "epochs must be numbers"),
    "train 'betas=[0.9, 1.0]' optimizer=adamw": (2, "each must be >= 0 and < 1"),
    "train rewire=true lr=0.1": (2, "lr=0.1: the schedule has the learning rates"),
    "train DeepR=true model=cifar10_WideResNet": (2, "DeepR: its signs are of single weights"),
    "train epochs": (2, "'epochs': expected key=value"),
    "trian epochs=3": (2, "unknown command 'trian'; did you mean 'train'?"),
    "run ''": (2, "no notebook ''"),
    "run " + "x" * 300: (2, "no notebook"),
    "run train 'epochs={1: 2}'": (2, "epochs={1: 2}: expected int"),
    "sweep absent.yaml": (2, "no study 'absent.yaml' in "),
    "sweep latin.yaml": (2, "not text in UTF-8"),
    "sweep numbers.yaml": (2, "unknown parameter '1'"),
    "evaluate /etc/passwd": (2, "/etc/passwd: damaged, or not a file of weights"),
    "evaluate " + "x" * 300: (2, "damaged, or not a file of weights"),
    "evaluate small.pth model=mnist_mlp --last": (2, "--last: small.pth is not the folder of a run"),
    "evaluate best.safetensors model=mnist_mlp --ema": (2, "--ema: best.safetensors holds one set of weights"),
    "export absent": (2, "no such run or file"),
    "count --input 1x1x1": (2, "at least 2 pixels"),
    "count --input 0x3x3": (2, "expected CxHxW"),
    "count model=mnist_mlp rigl.sparsity=0.9 --total": (0, "267,020 params, 27,440 nonzeros"),
    "count model=mnist_mlp tied.sparsity=0.9 --total": (0, "27,440 params, 27,440 nonzeros"),
    "hooks grma": (2, "did you mean 'gram'?"),
    "recipes extra": (2, "unknown recipe 'extra'"),
    "log": (2, "required: TEXT"),
}


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """``told(line)``: exit code and output of a command among odd files; nothing trains, no kernel starts."""
    monkeypatch.chdir(tmp_path)
    Path("latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    Path("numbers.yaml").write_text("1: 2\nname: a\n")
    Path("study.yaml").write_text("name: a\nbase: {epochs: 1}\nseeds: [0, 1]\n")
    torch.save({"a": torch.zeros(2)}, "small.pth")
    monkeypatch.setattr(launch, "launch", lambda config: preflight(config) and SimpleNamespace(dir="trained"))
    monkeypatch.setattr(execute, "_execute", lambda source, output, parameters, progress: output.write_text("{}"))
    monkeypatch.setattr(sweep.Execution, "run", lambda self: [])

    def run(line: str) -> tuple[int, str]:
        code = cli.main(shlex.split(line))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:40])
def test_a_mistake_is_told_in_a_line(line, told):
    code, said = told(line)
    expected, part = LINES[line]
    assert code == expected and part in said, said
    if code == 2:
        assert all(each.startswith("error: ") for each in said.splitlines()), said


VALUES = r"""
null ~ true false no 0 -1 1 3 010 1e-4 .5 3.10 1:30 nan inf .nan .inf '' "" [] {} [1] [a,b] [[[ 2026-01-02 0x10 1_000
timm: timm:resnet18 torchvision:x resnet8 digits digit sgd step table 0:0.1 0:0.1,3:x a/b ../x . .. *x &a !!int !t - ? |
runs/none small.pth /etc/passwd 9999999999999999999999 é \ ` @ > % x=y tt:0.5 hashed:budget=3 wrn-10-1 nmi4 {a:1} {1:2}
""".split()
VALUES += ["{a: b}", "{1: 2}", "{a: 1, a: 2}", "a: b", "a\nb", " ", "{a: {b: [1, 2]}}", "[null]", "[[1]]"]


def command_line(rng: random.Random) -> list[str]:
    """Some command with words, values and options that may or may not mean something."""
    own = [*Config.parameters(), "rewire", "arch", "gpus", "c_type", "sgs_k", "modify_softmax", "width", "tc", "resume"]
    own += [f"{hook}.{name}" for hook, owner in HOOKS.items() for name in parameters_of(owner)] + [*HOOKS]
    own += [f"data_args.{name}" for name in ("crop", "flip", "padding", "image_size", "holdout", "cutout")]
    own += ["model_args.shortcut", "model_args.x", "hooks.gram", "hooks", "settings"]

    def assignment() -> str:
        key = rng.choice(own)
        key = key[: rng.randrange(len(key))] + rng.choice("x.-_") + key if rng.random() < 0.1 else key
        return f"{key}={rng.choice(VALUES)}"

    words = [assignment() for _ in range(rng.randrange(4))]
    odd = rng.choice(["small.pth", "absent", "/etc/passwd", "", ".", "..", "study.yaml", "latin.yaml", "x" * 300])
    command = rng.choice("train train train run count evaluate sweep export runs log lists".split())
    options = {
        "run": [rng.choice(["train", "analysis/curves", "topology", odd])],
        "count": ["--total", "--input", rng.choice(["1x1x1", "3x8x8", "x", "-1", "1e3x2x2"])][: rng.choice([1, 3])],
        "evaluate": [odd, *rng.sample(["--last", "--ema"], rng.randrange(3))],
        "sweep": [odd, "--dry-run", *rng.choice([[], ["--jobs", "0"], ["--jobs", "x"]])],
        "export": [
            odd,
            "--format",
            rng.choice(["csr", "dense", "2:4", "x"]),
            "--out",
            rng.choice(["/proc/x", "o", "."]),
        ],
        "runs": [odd],
        "log": [odd or "text", "--path", rng.choice(["log.md", "/proc/log.md", ".", "small.pth/x"])],
    }
    if command == "lists":
        return [rng.choice(["hooks", "substitutes", "models", "recipes", "parameters", "hoks"]), *words[:1]]
    return [command, *options.get(command, []), *(words if command in ("train", "run", "count", "evaluate") else [])]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_command_line_ends_in_a_traceback(told):
    rng = random.Random(20261128)
    for _ in range(300):
        line = shlex.join(command_line(rng))
        try:
            code, said = told(line)
        except BaseException as error:
            raise AssertionError(f"research {line}") from error
        assert code in (0, 1, 2), (line, said)
        assert "Traceback" not in said and (code == 0 or said.strip()), (line, said)


def test_a_damaged_file_of_weights_is_told(tmp_path, told):
    torch.save({"state_dict": {"a": torch.zeros(30)}, "epoch": 3}, tmp_path / "whole.pth")
    whole, rng = (tmp_path / "whole.pth").read_bytes(), random.Random(1)
    for trial in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "odd.pth").write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        assert told("evaluate odd.pth model=mnist_mlp")[0] == 2, trial


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "EACCES"])
def test_a_disk_that_cannot_be_written_is_a_line(code, told, monkeypatch):
    import errno
    import os

    def fail(*args, **more):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), "research-log.md")

    monkeypatch.setattr("research.log.logbook.write_atomic", fail)
    told_code, said = told("log 'it works'")
    assert told_code == 1 and said == f"error: research-log.md: {os.strerror(getattr(errno, code))}\n"
