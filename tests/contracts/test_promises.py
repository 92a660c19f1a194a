"""Promises are broken by what breaks them, and kept by the skeletons that `research new` writes."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from research import cli
from research.contracts import data, hooks, layers, networks
from research.contracts.bench import NotAsked
from research.contracts.check import PLAIN, maker
from research.data.datasets import DATASETS, describe
from research.hooks import HOOKS, Hook
from research.layers.families import LAYERS
from research.layers.families.low_rank import Generic
from research.models import MODELS
from research.plugins.scope import plugged
from research.plugins.source import words_for

DEAR = {"acts_within_a_dozen_steps", "waits_for_no_number_in_a_step", "is_the_same_on_two_processes"}
DEAR |= {"composes_with_every_other", "trains", "trains_in_a_network", "evaluates_later_as_in_training"}


class Forgetful(Hook):
    """A defect: what it has summed up is in no checkpoint."""

    def __init__(self):
        self.sum = 0.0

    def grads(self, run):
        self.sum = self.sum + next(run.model.parameters()).grad.mean()

    def epoch_end(self, run):
        run.log("sum", value=float(self.sum))


class Loud(Hook):
    """A defect: at its neutral settings it still moves weights."""

    neutral = {}

    def step_end(self, run):
        with torch.no_grad():
            next(run.model.parameters()).mul_(1.001)


class Asking(Hook):
    """A defect: it looks at a number in every step."""

    def grads(self, run):
        self.norm = next(run.model.parameters()).grad.norm().item()


class Listing(Hook):
    """A defect: it copies its gradients to the host in every step."""

    def step_end(self, run):
        self.list = next(run.model.parameters())[0].tolist()


class Vain(Hook):
    """A defect: it does nothing."""


class Unsaid(Hook):
    def __init__(self, rate: float = 1.0):
        self.rate = rate


@pytest.mark.parametrize(
    ("defect", "promise", "words"),
    [
        (Forgetful, hooks.resumes_bit_exactly, "a row differs: {'kind': 'sum'"),
        (Loud, hooks.neutral_settings_change_nothing, "differs"),
        (Asking, hooks.waits_for_no_number_in_a_step, r"grads waits in 10 of 10 steps: line \d+ asks for a number"),
        (Listing, hooks.waits_for_no_number_in_a_step, r"step_end waits in 10 of 10 steps: line \d+ asks for tolist"),
        (Vain, hooks.acts_within_a_dozen_steps, "nothing differs from plain training; Vain.exercise says"),
        (Unsaid, hooks.documents_itself, "class Unsaid needs a docstring"),
    ],
)
def test_a_method_that_breaks_a_promise_is_found(defect, promise, words, tiny, monkeypatch):
    monkeypatch.setitem(HOOKS, "defect", defect)
    with pytest.raises(AssertionError, match=words):
        promise("defect", small(tiny))


def small(make_any):
    """``make_any`` on a network that is trained in a moment."""

    def make(**given):
        return make_any(**{**given, "model": "mnist_mlp"})

    return make


def test_a_method_that_declares_no_neutral_settings_is_not_asked(tiny, monkeypatch):
    monkeypatch.setitem(HOOKS, "defect", Vain)
    with pytest.raises(NotAsked, match="declares no neutral settings"):
        hooks.neutral_settings_change_nothing("defect", tiny)


class Net(nn.Module):
    """A network, with one of several defects."""

    def __init__(self, num_classes=10, input_shape=(1, 4, 4), /, *, defect: str = ""):
        super().__init__()
        self.fc = nn.Linear(16, 10 if defect == "ten" else num_classes)
        self.unused = nn.Parameter(torch.ones(3)) if defect == "unused" else None
        self.noise = torch.rand(1) if defect == "no buffer" else 0
        if defect == "own generator":
            self.fc.weight.data.normal_(generator=torch.Generator().manual_seed(3))
            self.fc.bias.data.zero_()
        self.dropout = defect == "always drops"

    def forward(self, x):
        return nn.functional.dropout(self.fc(x.flatten(1)) + self.noise, training=self.dropout)


@pytest.mark.parametrize(
    ("defect", "promise", "words"),
    [
        ("ten", networks.gives_logits_of_the_classes_asked_for, r"\(4, 10\) for 4 images of 7 classes"),
        ("unused", networks.learns_with_every_parameter, "unused has no part in the output"),
        ("own generator", networks.is_what_its_seed_says, "two seeds give one network"),
        ("no buffer", networks.evaluates_alike_twice_and_from_its_state, "the same state_dict gives other outputs"),
        ("always drops", networks.evaluates_alike_twice_and_from_its_state, "outputs differ from pass to pass"),
    ],
)
def test_a_network_that_breaks_a_promise_is_found(defect, promise, words, tiny, monkeypatch):
    def net(num_classes: int = 10, input_shape: tuple[int, ...] = (1, 4, 4), /):
        return Net(num_classes, input_shape, defect=defect)

    monkeypatch.setitem(MODELS, "net", Net)
    promise("net", tiny)
    monkeypatch.setitem(MODELS, "net", net)
    with pytest.raises(AssertionError, match=words):
        promise("net", tiny)


class Miscounted(Generic):
    """A defect: one parameter too few."""

    log_names = {}

    @classmethod
    def count_parameters(cls, geometry, **own):
        return super().count_parameters(geometry, **own) - 1


class Shifted(Generic):
    """A defect: what it computes is not its kernel."""

    log_names = {}

    def forward(self, x):
        return super().forward(x) + 0.1


class Cropped(Generic):
    """A defect: its output is smaller than that of the convolution."""

    log_names = {}

    def forward(self, x):
        return super().forward(x)[:, :, 1:]


@pytest.mark.parametrize(
    ("defect", "promise", "words"),
    [
        (Miscounted, layers.has_the_parameters_that_it_counts, "says 183 and has 184 for Geometry"),
        (Shifted, layers.is_the_convolution_with_its_kernel, "its output and that of its kernel are 0.1 apart"),
        (Cropped, layers.has_the_output_of_the_convolution, r"\(2, 16, 7, 8\) in place of \(2, 16, 8, 8\)"),
    ],
)
def test_a_layer_that_breaks_a_promise_is_found(defect, promise, words, tiny, monkeypatch):
    monkeypatch.setitem(LAYERS, "defect", Generic)
    promise("defect", tiny)
    monkeypatch.setitem(LAYERS, "defect", defect)
    with pytest.raises(AssertionError, match=words):
        promise("defect", tiny)


def test_a_data_set_that_gives_not_what_it_says_is_found(tiny, monkeypatch):
    digits = describe("digits")
    monkeypatch.setitem(DATASETS, "digits", replace(digits, classes=11))
    with pytest.raises(AssertionError, match="train: no image of class 10"):
        data.gives_what_it_says("digits", tiny)


# -- research new -----------------------------------------------------------------------------------------------------

KINDS = {"hook": hooks, "model": networks, "layer": layers}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_keeps_its_promises_and_passes_its_test(kind, here, monkeypatch):
    assert cli.main(["new", kind, "own_idea"]) == 0
    words = words_for([str(PLAIN), "own_idea.py"])
    with plugged(words):
        for promise in KINDS[kind].PROMISES:
            if promise.__name__ not in DEAR:
                promise("own_idea", small(maker(words, str(here))))
    monkeypatch.syspath_prepend(str(here))
    names = {"__name__": "test", "__file__": str(here / "test_own_idea.py")}
    exec(Path("test_own_idea.py").read_text(), names)
    own = [name for name in names if name.startswith("test_") and "promise" not in name]
    assert len(own) >= 1
    for name in own:
        names[name]()
    del sys.modules["own_idea"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_passes_the_whole_check(kind, here, capsys):
    assert cli.main(["new", kind, "own_idea"]) == 0
    assert cli.main(["check", "own_idea.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all kept"
    assert len([line for line in lines if line.startswith("kept    own_idea")]) == len(KINDS[kind].PROMISES)


def test_a_check_ends_with_1_and_names_what_is_broken(here, capsys, monkeypatch):
    wrong = "class Net(nn.Flatten):\n    'No logits.'\n\n    def __init__(self, n=10, s=(1, 8, 8), /):\n"
    wrong += "        super().__init__()\n"
    Path("net.py").write_text(f"from torch import nn\n\n{wrong}\nMODELS = {{'net': Net}}\n")
    monkeypatch.setattr(networks, "PROMISES", networks.PROMISES[:2])
    assert cli.main(["check", "net.py"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "broken  net  gives logits of the classes asked for: (4, 64) for 4 images of 10 classes",
        "1 broken",
    ]


def test_new_overwrites_nothing_and_takes_no_name_that_there_is(here, capsys):
    Path("test_mine.py").write_text("mine")
    for words, told in {
        ("hook", "mine"): "test_mine.py: is there already, and is not overwritten; choose another name",
        ("hook", "gram"): "'gram': the package has a method of this name; choose another",
        ("model", "resnet8"): "'resnet8': the package has a network of this name; choose another",
        ("layer", "My-Layer"): "'My-Layer': small letters, digits and _ make the name of a file that Python can import",
        ("hok", "mine2"): "'hok': expected hook, model, layer; did you mean 'hook'?",
    }.items():
        assert cli.main(["new", *words]) == 2
        assert capsys.readouterr().err == f"error: {told}\n"
    assert [path.name for path in here.iterdir()] == ["test_mine.py"]
    assert Path("test_mine.py").read_text() == "mine"
