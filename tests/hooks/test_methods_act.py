"""A parameter of a method changes training or is refused, and a method that did nothing says so."""

import gc
import json
import weakref

import pytest
import torch
from conftest import rows, weights

from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS
from research.parameters.signatures import parameters_of
from research.runs.run import Run
from research.training.loop import fit
from research.training.preflight import preflight

SMALL = {"model": "resnet8", "batch_size": 256, "epochs": 2}


def notes(run: Run) -> list[str]:
    found = (json.loads(line) for line in run.paths.metrics.read_text().splitlines())
    return [row["text"] for row in found if row["kind"] == "note"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"dsr.fraction": 0.2}, "dsr.fraction=0.2: has no effect: it belongs to prune=fraction; this is threshold"),
        ({"dsr.prune": "fraction", "dsr.k": 9}, "dsr.k=9: has no effect: prune=fraction says how many units die"),
        ({"dsr.prune": "exact", "dsr.threshold": 0.1}, "prune=exact has no threshold"),
        ({"dsr.prune": "exact", "dsr.tolerance": 0.2}, "prune=exact has no threshold"),
        ({"dsr.reallocate": False, "dsr.rounding": "legacy"}, "each layer regrows what it lost"),
        ({"dsr.weighted": True}, "every unit is one weight"),
        ({"set.group_lasso": True}, "it says what l1 sums up; give l1"),
        ({"set.only": "fc", "set.sparse_downsample": True}, "only= says which layers are sparse"),
        ({"set.sparsity": 0, "set.fraction": 0.2}, "nothing is sparse, with sparsity=0"),
        ({"set.sparsity": 0.5, "set.sparsity_fc": 0.5, "set.sparsity_conv": 0.6}, "say it of every layer"),
        ({"static_sparse.momentum": "legacy"}, "no unit is ever killed"),
        ({"static_sparse.copy_mask_from": "x", "static_sparse.distribution": "erk"}, "the masks of copy_mask_from say"),
        ({"static_sparse.er_power": 0.5}, "it belongs to distribution=er and erk"),
        ({"deepr.eta": 0, "deepr.temperature": "1e-3"}, "there is no noise, with eta=0"),
        ({"rigl.power": 2}, "it belongs to anneal=power; this is cosine"),
        ({"rigl.growth": "random", "rigl.grown_momentum": 1}, "growth=random looks at no gradient"),
        ({"prune.every": 1, "prune.begin": 0.1}, "prunes come at ends of epochs, with every=1"),
        ({"prune.every": 1, "prune.end": 0.5}, "prunes come at ends of epochs, with every=1"),
        ({"prune.momentum": "legacy"}, "what is killed never grows again"),
        ({"prune.start_epoch": 1}, "it belongs to every="),
        ({"tied.sparsity": 0, "tied.unit": "slice"}, "nothing is tied"),
        ({"auxiliary.mode": "concat", "auxiliary.weight": 0.3}, "mode=concat takes the mean"),
        ({"auxiliary.mode": "concat", "auxiliary.weight": 0}, "there is no head, with weight=0"),
        ({"power_grad.final_alpha": 0.25}, "it is alpha itself"),
        ({"distill.temperature": 2}, "the teacher's logits have no weight; give alpha"),
        ({"distill.reduction": "batchmean"}, "the teacher's logits have no weight; give alpha"),
        ({"distill.beta": 0, "distill.alpha": 0.5, "distill.taps": ["layer1"]}, "attention maps have no weight"),
        ({"distill.teacher_model": "resnet20"}, "there is no teacher whose network it could name"),
        ({"distill.beta": 0, "distill.teacher": "x"}, "there is no teacher, with alpha=0 and beta=0"),
    ],
    ids=str,
)
def test_a_parameter_that_cannot_act_is_refused_with_the_reason(given, reason):
    with pytest.raises(UsageError, match="has no effect") as refused:
        Config.load(given)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"set.granularity": 2}, "no kernel is sparse here"),
        ({"set.l1": 1e-4, "set.group_lasso": True}, "no kernel is sparse here"),
        ({"set.sparsity_conv": 0.5}, "no convolution can be sparse here"),
        ({"set.sparse_downsample": True}, "the network has no convolutions of shortcuts"),
        ({"dsr.granularity": 2, "dsr.weighted": True}, "dsr.weighted=True: has no effect: no kernel"),
        ({"tied.unit": "slice"}, "no kernel is tied here"),
        ({"rigl.grown_momentum": 1, "momentum": 0}, "rigl.grown_momentum=1.0: has no effect: the optimizer has none"),
        ({"set.momentum": "legacy", "momentum": 0}, "the optimizer has none"),
        ({"power_grad.final_alpha": 0.5, "epochs": 1}, "the run has one epoch"),
        ({"model": "wrn-10-1", "set.sparsity_fc": 0.5}, "no matrix of a linear layer can be sparse here"),
        ({"model": "wrn-10-1", "prune.last": 0.5}, "there are no two matrices"),
        ({"drop_path.p": 0.3}, "mnist_mlp has no branches to drop"),
    ],
    ids=str,
)
def test_what_the_network_or_the_run_leaves_without_effect_is_refused_before_it_is_made(given, reason, tiny):
    config = tiny(**given)
    with pytest.raises(UsageError) as refused:
        preflight(config)
    assert reason in str(refused.value)
    assert not Run(config.runs + "/" + config.run_name, config).dir.exists()


def test_a_stored_run_with_such_a_parameter_stays_readable(tiny, tmp_path):
    stored = tiny(dsr=True).to_dict()
    stored["hooks"]["dsr"]["fraction"] = 0.2
    config = Config.load(stored)
    assert config.hooks["dsr"]["fraction"] == 0.2
    assert Config.load(stored, {"epochs": 3}).epochs == 3
    with pytest.raises(UsageError, match="dsr.fraction=0.3: has no effect"):
        Config.load(stored, {"dsr.fraction": 0.3})


@pytest.mark.parametrize(
    ("given", "undone"),
    [
        ({"set.period": 100}, "set: its masks have never changed"),
        ({"dsr.stop_epoch": 0}, "dsr: its masks have never changed"),
        ({"rigl.period": 100}, "rigl: its masks have never changed"),
        ({"itop.period": 22}, "itop: its masks have never changed"),
        ({"snfs": True, "epochs": 1}, "snfs: its masks have never changed"),
        ({"deepr.stop_epoch": 0}, "deepr: its masks have never changed"),
        ({"gram": True}, "gram: no gradient was ever scaled"),
        ({"auxiliary": True}, "auxiliary: mnist_mlp has no auxiliary head"),
        ({"model": "resnet8", "drop_path": True, "epochs": 1}, "drop_path: no branch was ever dropped"),
        ({"model": "resnet8", "gram": True, "epochs": 1}, "gram: no gradient was ever scaled"),
    ],
    ids=str,
)
def test_a_method_that_never_acts_is_foretold_and_says_so_at_the_end(given, undone, tiny):
    config = tiny(**given)
    with pytest.warns(UserWarning, match="will do nothing in this run"):
        preflight(config)
    assert undone in notes(fit(Run.create(config)))[-1]


def test_that_a_method_acted_is_known_after_a_stop(tiny, power_cut):
    config = tiny(hooks={"rigl": {"period": 3, "end": 4}, "power_cut": {}})
    power_cut.at = 13  # after the only event and the first epoch's checkpoint
    with pytest.raises(Exception, match=""):
        fit(Run.create(config))
    assert not [text for text in notes(fit(Run.create(config))) if "never changed" in text]


@pytest.mark.parametrize("name", ["rigl", "static_sparse", "prune", "distill", "ema", "gram", "tied"])
def test_run_network_and_method_end_with_training(name, tiny):
    model = {"model": "resnet8", "batch_size": 512} if name in ("distill", "gram") else {}
    run = fit(Run.create(tiny(**model, epochs=1, hooks={name: dict(HOOKS[name].exercise)})))
    kept = [weakref.ref(each) for each in (run, run.model, run.hooks[name])]
    del run
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]


def test_a_run_that_fails_ends_too(tiny, power_cut):
    run = Run.create(tiny(hooks={"rigl": {}, "power_cut": {}}))
    power_cut.at = 2
    with pytest.raises(Exception, match=""):
        fit(run)
    kept = [weakref.ref(run), weakref.ref(run.model)]
    del run
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


# Of every parameter that the table of refusals above does not hold: another value, and what lets it act.
FLIPS = {
    "auxiliary": {},
    "deepr": {"eta": 5.0, "temperature": "1", "stop_epoch": 1, "granularity": None},
    "distill": {"alpha": 0.5, "beta": 10.0, "temperature": (2.0, {"alpha": 0.5}), "taps": ["layer1"], "split": None,
                "reduction": ("batchmean", {"alpha": 0.5}), "cache": None, "teacher": None, "teacher_model": None,
                "teacher_mean": None, "teacher_std": None},
    "drop_path": {"p": 0.5},
    "dsr": {"period": "3", "k": 2000, "threshold": 0.2, "tolerance": None, "prune": ("exact", {"threshold": 1e-3}),
            "fraction": (0.3, {"prune": "fraction", "k": 600, "threshold": 1e-3}), "reallocate": False,
            "big_new_weights": True, "weighted": (True, {"granularity": 2}), "rounding": "legacy", "stop_epoch": 1},
    "ema": {"decay": None},
    "gram": {"k": 2.0, "epochs": None, "batches": 1, "warmup": 0, "variant": "sparse",
             "place": "permuted"},
    "itop": {"period": 3, "growth": "random", "rate": 0.3, "final_rate": 0.2},
    "l3": {"period": "3", "fraction": 0.3, "stop_epoch": 1},
    "logit_stats": {},
    "power_grad": {"alpha": 2.0, "final_alpha": 2.0},
    "prune": {"momentum": None, "last": None, "kind": "exponential", "iterations": 5, "begin": 0.2, "end": 0.5,
              "every": None, "start_epoch": None, "start_from": None, "legacy": True},
    "rigl": {"period": 3, "fraction": 0.5, "anneal": "constant", "power": (1.0, {"anneal": "power"}), "end": 0.4,
             "growth": "random", "grown_momentum": 1.0},
    "set": {"period": "3", "fraction": 0.3, "leak": (True, {"sparsity": 0.01}), "stop_epoch": 1},
    "snfs": {"period": 3, "rate": 0.3, "final_rate": 0.2, "redistribution": "nonzero"},
    "static_sparse": {"momentum": None},
    "tied": {"sparsity": 0.5, "sparsity_fc": None, "sparsity_conv": 0.5, "unit": "slice", "rescale_gradient": True,
             "only": "layer1*", "keep": "layer1*", "sparse_downsample": None},
}  # fmt: skip
MASKS = {
    "sparsity": 0.6, "sparsity_fc": None, "sparsity_conv": 0.6, "distribution": "erk", "granularity": 2,
    "only": "layer1*", "keep": "layer1*", "sparse_downsample": None, "l1": 1e-2, "momentum": "legacy",
    "group_lasso": (True, {"l1": 1e-2}), "copy_mask_from": None, "copy_init": None,
    "shuffle": None, "er_power": (0.5, {"distribution": "erk"}),
}  # fmt: skip
"""None: has its own test, because of what it needs."""


def flips() -> list:
    found = []
    for name, hook in HOOKS.items():
        known = parameters_of(hook)
        values = ({p: v for p, v in MASKS.items() if p in known} if "l1" in known else {}) | FLIPS.get(name, {})
        found += [(name, p, v) for p, v in values.items() if v is not None]
    return found


def test_every_parameter_of_every_method_is_flipped_or_has_its_own_test():
    for name, hook in HOOKS.items():
        known = set(parameters_of(hook)) - ({"weight", "mode"} if name == "auxiliary" else set())
        assert known <= FLIPS[name].keys() | (MASKS.keys() if "l1" in known else set()), name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameter", "value"), flips(), ids=lambda each: str(each))
def test_a_flipped_parameter_changes_training(name, parameter, value, tiny):
    value, needed = value if isinstance(value, tuple) else (value, {})
    base = dict(HOOKS[name].exercise) | needed
    ends = []
    for given in (base, base | {parameter: value}):
        run = fit(Run.create(tiny(**SMALL, name=f"run-{len(ends)}", hooks={name: given})))
        ends.append((weights(run), [row for row in rows(run) if row["kind"] == "train"]))
    (plain, told), (flipped, other) = ends
    same = plain.keys() == flipped.keys() and all(torch.equal(plain[key], flipped[key]) for key in plain)
    assert not same or told != other
