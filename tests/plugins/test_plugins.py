"""Plugins: part of a run by their content, known to their own run alone, and refused with the line that is wrong."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import rows, weights

from research import cli
from research.config import Config
from research.errors import Note, UsageError
from research.hooks import HOOKS
from research.launcher.launch import launch
from research.models import MODELS, create_model
from research.plugins.scope import plugged
from research.plugins.source import words_for
from research.runs.run import Run
from research.studies.population import fit_population
from research.studies.study import Study, expand
from research.trained.evaluate_weights import evaluate_weights
from research.trained.export import export, load_export
from research.training.loop import fit
from research.training.preflight import preflight

METHOD = '''
"""A method: every gradient times a factor."""

from __future__ import annotations

from typing import Annotated

from research.hooks import Hook
from research.parameters.signatures import Range


class Scaled(Hook):
    """Gradients times a factor."""

    factor = 1.0

    def __init__(self, rate: Annotated[float, Range(above=0), "factor of every gradient"] = 0.5):
        self.rate = rate

    def grads(self, run):
        for parameter in run.model.parameters():
            parameter.grad *= self.rate * self.factor


HOOKS = {"scaled": Scaled}
'''
NETWORK = '''
import torch
from torch import nn


def narrow(num_classes: int = 10, input_shape: tuple[int, ...] = (1, 8, 8), /, *, width: int = 4) -> nn.Module:
    """One hidden layer."""
    inputs = torch.Size(input_shape).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, num_classes))


MODELS = {"narrow": narrow}
'''
LAYER = '''
from research.layers.families.low_rank import Generic


class Thin(Generic):
    """A low-rank layer of another name."""

    log_names = {}


LAYERS = {"thin": Thin}
'''
DATA = '''
import numpy as np
from research.data.datasets import Dataset

SIDE = 8

def read(folder, split):
    """Bright above, or bright below."""
    labels = np.arange({"train": 64, "val": 16}[split]) % 2
    images = np.zeros((len(labels), SIDE, SIDE, 1), np.uint8)
    for image, label in zip(images, labels):
        image[: SIDE // 2 if label else SIDE, :] = 255
    return images, labels


DATASETS = {"halves": Dataset("halves", "images", 2, (1, SIDE, SIDE), (0.5,), (0.5,), "halves", read=read)}
'''


@pytest.fixture
def write(here):
    """``write(text, name)``: a file of this text in the working folder; its name."""

    def written(text: str, name: str = "my_method.py") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
        return name

    return written


def trained(config: Config) -> Run:
    return fit(Run.create(config))


# -- what a run is ----------------------------------------------------------------------------------------------------


def test_a_run_is_told_by_what_its_plugin_holds_and_not_by_its_name(write, tiny):
    one = tiny(plugin=write(METHOD), scaled=True)
    moved = tiny(plugin=[write(METHOD, "elsewhere/renamed.py")], scaled=True)
    edited = tiny(plugin=write(METHOD.replace("factor = 1.0", "factor = 2.0")), scaled=True)
    assert one.identity == moved.identity != edited.identity
    assert one.identity != tiny().identity


def test_the_order_of_plugins_tells_no_runs_apart(write, tiny):
    names = [write(METHOD, "a.py"), write(NETWORK, "b.py")]
    assert tiny(plugin=names).identity == tiny(plugin=names[::-1]).identity


def test_a_module_that_can_be_imported_is_a_plugin(write, tiny, monkeypatch):
    by_file = tiny(plugin=write(METHOD, "lab/methods.py"), scaled=True)
    assert tiny(plugin="lab.methods", scaled=True) == by_file
    monkeypatch.chdir("lab")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    assert tiny(plugin="methods", scaled=True) == by_file


def test_a_config_with_plugins_survives_its_own_json(write, tiny):
    config = tiny(plugin=write(METHOD), scaled={"rate": 0.1})
    Path("my_method.py").unlink()
    assert Config.load(config.to_dict()) == Config.stored(config.to_dict()) == config


def test_a_plugin_that_was_edited_since_its_word_was_written_is_refused(write, tiny):
    (word,) = tiny(plugin=write("# of another process\n" + METHOD)).plugin
    from research.plugins import source

    source._known.pop(word)
    write(METHOD)
    with pytest.raises(UsageError, match=r"my_method.py has changed since"):
        tiny(plugin=word)


def test_an_edited_plugin_changes_no_old_run(write, tiny):
    old = trained(tiny(name="old", plugin=write(METHOD), scaled={"rate": 0.1}, epochs=1))
    (before,) = evaluate_weights([old.dir])
    write(METHOD.replace("class Scaled(Hook)", "class Scaled").replace("Hook\n", "Nothing\n"))
    (after,) = evaluate_weights([old.dir])
    assert before == after
    with pytest.raises(UsageError, match="cannot import name 'Nothing'"):
        tiny(name="old", plugin="my_method.py", scaled={"rate": 0.1}, epochs=1)
    write(METHOD.replace("factor = 1.0", "factor = 2.0"))
    with pytest.raises(UsageError, match=r"belongs to another configuration \(plugin: "):
        Run.create(tiny(name="old", plugin="my_method.py", scaled={"rate": 0.1}, epochs=1))
    copy = old.paths.plugins / "my_method.py"
    again = Run.create(tiny(name="old", plugin=str(copy), scaled={"rate": 0.1}, epochs=1))
    assert (again.dir, again.status["status"]) == (old.dir, "finished")


def test_a_copy_that_was_edited_is_refused(write, tiny):
    run = Run.create(tiny(plugin=write("# edited in its run\n" + METHOD), scaled=True))
    from research.plugins import source

    source._known.clear()  # as in a new process
    (run.paths.plugins / "my_method.py").write_text(METHOD)
    with pytest.raises(UsageError, match="is not what its run was made with"):
        Run.open(run.dir)


def test_a_run_that_was_not_begun_leaves_no_plugin_behind(write, tiny):
    run = Run.create(tiny(plugin=write(METHOD), scaled=True))
    run.remove_unbegun()
    assert not run.dir.exists()


# -- the right run only -----------------------------------------------------------------------------------------------


def test_two_versions_of_a_method_each_act_in_their_own_run(write, tiny):
    slow = tiny(name="slow", plugin=write(METHOD.replace("factor = 1.0", "factor = 0.0")), scaled=True, weight_decay=0)
    usual = tiny(name="usual", plugin=write(METHOD), scaled={"rate": 1})
    plain = tiny(name="plain")
    runs = {config.name: trained(config) for config in (usual, slow, plain)}
    for key, weight in weights(runs["plain"]).items():
        assert torch.equal(weight, weights(runs["usual"])[key])
    assert len({row["loss"] for row in rows(runs["slow"]) if row["kind"] == "val"}) == 1  # no weight has moved
    assert {row["weights"]: row["top1"] for row in evaluate_weights([runs["slow"].dir, runs["usual"].dir])}


def test_what_a_plugin_registers_is_unknown_outside_of_its_runs(write, tiny):
    before = set(HOOKS), set(MODELS)
    words = words_for([write(METHOD, "a.py"), write(NETWORK, "b.py")])
    with plugged(words):
        assert create_model("narrow", 3, (1, 2, 2), width=5)(torch.zeros(1, 1, 2, 2)).shape == (1, 3)
        with plugged(()):
            assert (set(HOOKS), set(MODELS)) == before
        assert "scaled" in HOOKS
    assert (set(HOOKS), set(MODELS)) == before
    with pytest.raises(UsageError, match="unknown model 'narrow'"):
        tiny(model="narrow")


def test_a_plugin_that_fails_leaves_what_was_known(write, tiny):
    before = set(HOOKS)
    with plugged(words_for([write(METHOD)])):
        with pytest.raises(UsageError, match="division by zero"):
            tiny(plugin=write("1 / 0\n", "b.py"))
        assert set(HOOKS) == {*before, "scaled"}
    assert set(HOOKS) == before


def test_one_plugin_imports_another_that_is_given_before_it(write, tiny):
    write("RATE = 0.25\n", "shared_rate.py")
    write(
        METHOD.replace("from research.hooks", "import shared_rate\nfrom research.hooks").replace(
            "= 0.5", "= shared_rate.RATE"
        )
    )
    config = tiny(plugin=["shared_rate.py", "my_method.py"], scaled=True)
    assert config.hooks["scaled"] == {"rate": 0.25}
    run = Run.create(config)
    assert sorted(path.name for path in run.paths.plugins.iterdir()) == ["my_method.py", "shared_rate.py"]


# -- what it may register ---------------------------------------------------------------------------------------------


def test_network_layer_data_and_method_of_plugins_train_evaluate_and_count(write, tiny, capsys):
    plugins = [write(text, f"{name}.py") for name, text in (("m", METHOD), ("n", NETWORK), ("l", LAYER), ("d", DATA))]
    run = trained(tiny(plugin=plugins, model="narrow", dataset="halves", batch_size=16, lr=0.5, scaled=True, epochs=6))
    assert run.status["last_top1"] == 100
    assert evaluate_weights([run.dir])[0]["top1"] == 100
    assert cli.main(["count", "plugin=[l.py]", "model=resnet8", "substitute=thin:0.1", "--total"]) == 0
    thin = capsys.readouterr().out
    assert cli.main(["count", "model=resnet8", "substitute=generic:0.1", "--total"]) == 0
    assert thin == capsys.readouterr().out.replace("generic", "thin")


def test_two_versions_of_a_data_set_are_two(write, tiny):
    def shape(config):
        return preflight(config).shape

    small = tiny(plugin=write(DATA, "d.py"), dataset="halves", batch_size=16)
    large = tiny(plugin=write(DATA.replace("SIDE = 8", "SIDE = 12"), "d.py"), dataset="halves", batch_size=16)
    assert [shape(small), shape(large), shape(small)] == [(1, 8, 8), (1, 12, 12), (1, 8, 8)]


def test_populations_take_data_of_plugins(write, tiny):
    common = {"plugin": write(DATA), "dataset": "halves", "model": "dense_mlp", "batch_size": 16, "epochs": 1}
    runs = fit_population([tiny(**common, name=f"n{seed}", seed=seed) for seed in (0, 1)])
    assert [run.status["status"] for run in runs] == ["finished", "finished"]
    assert [path.name for path in runs[1].paths.plugins.iterdir()] == ["my_method.py"]


def test_an_exported_network_of_a_plugin_is_read_where_its_plugin_is_known(write, tiny):
    run = trained(tiny(plugin=write(NETWORK), model="narrow", model_args={"width": 8}, epochs=1))
    written = export(run.dir, "dense")
    assert load_export(written.path)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_its_parameters_are_checked_and_listed_like_those_of_the_package(write, tiny, capsys):
    name = write(METHOD)
    with pytest.raises(UsageError, match=r"unknown parameter 'scaled.rat'; did you mean 'scaled.rate'\?"):
        Config.load({"plugin": name, "scaled.rat": 2})
    with pytest.raises(UsageError, match=r"scaled.rate=-1: must be > 0"):
        Config.load({"plugin": name, "scaled.rate": -1})
    with pytest.raises(UsageError, match=r"unknown parameter 'scaled.rate'$|unknown parameter 'scaled.rate'"):
        Config.load({"scaled.rate": 1})
    assert cli.main(["hooks", "scaled", f"plugin={name}"]) == 0
    told = "  scaled.rate=0.5  float > 0  factor of every gradient"
    assert capsys.readouterr().out == f"scaled: Gradients times a factor.\n{told}\n"
    assert cli.main(["parameters", f"plugin={name}"]) == 0
    assert told in capsys.readouterr().out.splitlines()


HOOK = "from research.hooks import HOOKS as ALL, Hook\n"
HOOK_OF = HOOK + "class Mine(Hook):\n    def __init__(self, {}\nHOOKS = {{'mine': Mine}}\n"
LAYER_OF = "from research.layers.base import Substitute\nLAYERS = {'thin': Substitute}\n"
TAKEN = "the package has a {} of this name; choose another"
WRONG = {
    "x = (\n": ":1: '(' was never closed",
    "import os\n\n1 / 0\n": ":3: ZeroDivisionError: division by zero",
    "def f():\n    raise KeyError('k')\n\nf()\n": ":2: KeyError: 'k'",
    "x = 1\n": ": registers nothing; give it HOOKS = {'name': Method}, or MODELS, LAYERS or DATASETS",
    "HOOKS = {\n    'a': 3,\n}\n": ":2: HOOKS['a']: expected a class that extends research.hooks.Hook, not 3",
    "HOOKS = []\n": ":1: HOOKS: expected a dict of names",
    HOOK + "HOOKS = {'gram': Hook}\n": ":2: HOOKS['gram']: " + TAKEN.format("method"),
    HOOK + "HOOKS = {'epochs': Hook}\n": ":2: HOOKS['epochs']: epochs is a parameter of a run; choose another",
    HOOK + "HOOKS = {'c_type': Hook}\n": ": c_type is a parameter of a run in the words of another program; choose",
    HOOK + "HOOKS = {'a b': Hook}\n": ":2: HOOKS['a b']: letters, digits and ._+- make a name",
    HOOK + "ALL['mine'] = Hook\n": ": changes the HOOKS of the package, which every run shares; give it HOOKS = {…}",
    HOOK_OF.format("k: int): ..."): ":4: HOOKS['mine']: mine=true must be enough, and k has no default",
    HOOK_OF.format("k: int = 0): 1 / k"): ":4: HOOKS['mine']: cannot be made with its defaults: ZeroDivisionError",
    "def net(width=3): ...\nMODELS = {'net': net}\n": ":2: MODELS['net']: begins with two parameters, num_classes=10",
    "def net(n=2, s=(1, 8), *, w): ...\nMODELS = {'net': net}\n": "MODELS['net']: its argument w has no default",
    "MODELS = {'wrn-10-1': dict}\n": "MODELS['wrn-10-1']: " + TAKEN.format("network"),
    LAYER_OF: ":2: LAYERS['thin']: lacks forward",
    "LAYERS = {'conv': int}\n": "LAYERS['conv']: " + TAKEN.format("layer"),
    "DATASETS = {'d': 1}\n": ":1: DATASETS['d']: expected a research.data.datasets.Dataset, not 1",
    "import helper_of_mine\n": ":1: imports helper_of_mine (",
    "from . import other\n": ":1: a relative import; a plugin stands alone, and imports others by name",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_plugin_that_cannot_serve_is_refused_with_its_line(text, write, tiny, monkeypatch):
    write("", "helper_of_mine.py")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    with pytest.raises(UsageError, match=re.escape(WRONG[text])) as refused:
        tiny(plugin=write(text))
    assert re.search(r"my_method\.py(:\d+)?: .*", str(refused.value))[0] and "\n" not in str(refused.value)
    assert not Path("runs").exists()


def test_a_plugin_that_is_not_there_is_refused_with_the_nearest(write, tiny):
    write(METHOD)
    write(METHOD, "lab/my_method.py")
    for given, told in {
        "my_methd.py": "plugin='my_methd.py': there is no such file; did you mean 'my_method.py'?",
        "my_methd": "plugin='my_methd': there is no such file or module; did you mean 'my_method.py'?",
        "lab": "plugin='lab': is a folder",
        "research/nothing.py": "plugin='research/nothing.py': there is no such file",
        ("my_method.py", "lab/my_method.py"): "plugin: two files are called my_method.py; rename one",
        3: "plugin=3: expected a file or module, or a list of them",
    }.items():
        with pytest.raises(UsageError, match=re.escape(told)):
            tiny(plugin=list(given) if isinstance(given, tuple) else given)


def test_a_plugin_of_which_a_run_has_nothing_is_told(write, tiny):
    with pytest.warns(Note, match="plugin=my_method.py: has no effect: this run has no scaled"):
        tiny(plugin=write(METHOD))


def test_two_plugins_of_one_name_are_refused(write, tiny):
    with pytest.raises(
        UsageError, match=r"b.py:\d+: HOOKS\['scaled'\]: a.py has a method of this name; choose another"
    ):
        tiny(plugin=[write(METHOD, "a.py"), write(METHOD + "\n# again\n", "b.py")])


# -- other processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_processes_of_a_run_load_the_copy(processes, write, tiny):
    config = tiny(plugin=write(METHOD), scaled={"rate": 0.1}, epochs=1, batch_size=256, processes=processes)
    write("raise RuntimeError('the original, edited after the run was defined')\n")
    run = launch(config)
    assert run.status["status"] == "finished"
    frozen = Path(run.paths.plugins / "my_method.py").read_text()
    assert frozen == METHOD


def test_a_study_names_plugins_and_gives_its_runs_what_they_were(write):
    write(METHOD, "v1.py")
    write(METHOD.replace("factor = 1.0", "factor = 2.0"), "v2.py")
    base = {"model": "mnist_mlp", "epochs": 1, "scaled.rate": 0.5}
    points = expand(Study("versions", base=base, grid={"plugin": ["v1.py", "v2.py"]}))
    assert [point.dir.name for point in points] == ["versions-plugin-v1.py", "versions-plugin-v2.py"]
    assert len({point.config.identity for point in points}) == 2
    (word,) = [word for word in points[0].words if word.startswith("plugin=")]
    digest = points[0].config.plugin[0].partition("@")[2]
    assert word == f'plugin=["{Path("runs").resolve()}/.plugins/{digest}/v1.py"]'


@pytest.mark.slow
def test_a_sweep_trains_each_run_with_its_own_version(write):
    write(METHOD, "v1.py")
    write(METHOD.replace("factor = 1.0", "factor = 0.0"), "v2.py")
    Path("study.yaml").write_text(
        textwrap.dedent("""
        name: versions
        base: {model: mnist_mlp, epochs: 1, scaled.rate: 1, weight_decay: 0}
        grid: {plugin: [v1.py, v2.py]}
        """)
    )
    assert cli.main(["sweep", "study.yaml", "--jobs", "2"]) == 0
    losses = [rows(Run.open(f"runs/versions-plugin-v{n}.py"))[-1]["loss"] for n in (1, 2)]
    assert losses[0] < losses[1]
    for n in (1, 2):
        assert [path.name for path in Path(f"runs/versions-plugin-v{n}.py/plugins").iterdir()] == [f"v{n}.py"]
