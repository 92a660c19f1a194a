"""Pruning: schedules and counts against the published code's plans, and whole runs."""

import json
import math
import shutil

import pytest
import torch
from conftest import GOLDENS, rows, weights
from hypothesis import given
from hypothesis import strategies as st

from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS, Hook
from research.hooks.prune import Prune, prune_counts, prune_schedule, spare_last
from research.runs.run import Run
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit
from research.training.preflight import preflight

PLANS = json.loads((GOLDENS / "sparse" / "prune_plans.json").read_text())
KINDS = {"exponential": "exp", "cubic": "cubic"}
MATRICES = {"300x784": 235_200, "100x300": 30_000, "10x100": 1_000}


@pytest.mark.parametrize("number", range(len(PLANS)))
def test_densities_and_counts_equal_the_published_code(number):
    plan = PLANS[number]
    n, compared = plan["iterations"], 0
    for kind, key in KINDS.items():
        if f"ideal_density_{key}" in plan:
            densities = prune_schedule(kind, plan["target"], n)
            assert densities == pytest.approx(plan[f"ideal_density_{key}"], abs=1e-12)
        for layer, counts in plan.get(f"counts_{key}", {}).items():
            target = plan["target"]
            if layer in MATRICES:
                target = plan["special_target" if layer == "10x100" else "fc_target_adjusted"]
            units = MATRICES.get(layer) or int(layer)
            assert prune_counts(units, prune_schedule(kind, target, n), legacy=True) == counts
            exact = prune_counts(units, prune_schedule(kind, target, n))
            assert exact[0] == units
            assert exact[-1] == pytest.approx((1 - target) * units, abs=1)
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("number", range(len(PLANS)))
def test_prunes_come_at_the_published_epochs(number):
    plan = PLANS[number]
    hook = Prune(iterations=plan["iterations"], start_epoch=plan["start"], every=plan["frequency"])
    assert hook.prune_steps(plan["n_epochs_total"], 7) == [7 * (epoch + 1) for epoch in plan["prune_epochs"]]
    with pytest.raises(UsageError, match=rf"give epochs={plan['prune_epochs'][-1] + 1} "):
        hook.prune_steps(plan["prune_epochs"][-1], 7)


@given(st.sampled_from(list(KINDS)), st.floats(0, 0.999), st.integers(1, 30), st.integers(1, 10**6), st.booleans())
def test_masks_only_shrink_and_follow_the_density(kind, S, n, units, legacy):
    densities = prune_schedule(kind, S, n)
    counts = prune_counts(units, densities, legacy)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 0
    slack = n + 1 if legacy else 1  # one unit too many at each prune
    assert all(
        -slack <= count - density * units <= 0.1 + 1e-6 for count, density in zip(counts, densities, strict=True)
    )


def test_last_layer_is_spared_as_published_and_the_total_stays():
    for plan in PLANS:
        if plan["model"] == "mnist_mlp" and plan["target"] > 0.9:
            found = spare_last(plan["target"], MATRICES, "10x100", 0.9)
            assert found["10x100"] == plan["special_target"]
            assert found["300x784"] == found["100x300"] == pytest.approx(plan["fc_target_adjusted"], abs=1e-12)
            left = sum((1 - found[name]) * units for name, units in MATRICES.items())
            assert left == pytest.approx((1 - plan["target"]) * 266_200)
    with pytest.raises(UsageError, match="keeps 900 units of 10x100, and sparsity 0.999 leaves 266 in all"):
        spare_last(0.999, MATRICES, "10x100", 0.1)


def test_gradual_pruning_is_the_cubic_ramp_in_steps():
    hook = Prune(iterations=40, begin=0.25, end=0.75)
    steps, densities = hook.prune_steps(10, 100), prune_schedule("cubic", 0.8, 40)
    t0, t1 = 250, 750
    for t, density in zip(steps, densities[1:], strict=True):
        exact = 0.8 * (1 - (1 - (t - t0) / (t1 - t0)) ** 3)
        assert 1 - density == pytest.approx(exact, abs=0.8 * 3 * 0.5 / (t1 - t0) + 1e-12)  # t is rounded
    assert steps[-1] == t1


def test_impossible_ramp_is_refused():
    with pytest.raises(UsageError, match="prune: begin=0.8: must be below end=0.5"):
        Config.load({"prune.begin": 0.8, "prune.end": 0.5})


class Watch(Hook):
    """The masks and weights of the first layer after every step."""

    seen = []

    def step_end(self, run):
        self.seen.append((run.model[1].weight_mask.clone(), run.model[1].weight.detach().clone()))


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setitem(HOOKS, "watch", Watch)
    monkeypatch.setattr(Watch, "seen", [])
    return Watch.seen


def density_by_epoch(run) -> dict[int, dict[str, float]]:
    found = {}
    for row in rows(run):
        if row["kind"] == "sparse":
            found.setdefault(row["epoch"], {})[row["layer"]] = row["active"]
    return found


@pytest.mark.parametrize("legacy", [False, True])
def test_a_trained_network_is_pruned_at_the_ends_of_epochs(tiny, watched, legacy):
    dense = fit(Run.create(tiny(name="dense")))
    own = {"iterations": 3, "start_epoch": 1, "every": 2, "sparsity": 0.95, "last": 0.9, "legacy": legacy}
    config = tiny(epochs=8, name="pruned", hooks={"prune": own | {"start_from": str(dense.dir)}, "watch": {}})
    run = fit(Run.create(config))

    targets = spare_last(0.95, {"1": 19_200, "3": 30_000, "5": 1_000}, "5", 0.9)
    units = {"1": 19_200, "3": 30_000, "5": 1_000}
    for epoch, active in density_by_epoch(run).items():
        done = sum(e <= epoch for e in (1, 3, 5))
        for name, S in targets.items():
            assert active[f"{name}.weight"] == prune_counts(units[name], prune_schedule("cubic", S, 3), legacy)[done]

    (_, first), per_epoch = watched[0], run.steps_per_epoch
    trained = weights(dense)["1.weight"]
    assert (first - trained).norm() < 0.1 * trained.norm()  # one step away from it
    for step in range(1, len(watched)):
        (mask, weight), (before, _) = watched[step], watched[step - 1]
        assert not (mask & ~before).any()
        assert not weight[~mask].any()
        assert torch.equal(mask, before) == ((step + 1) not in (2 * per_epoch, 4 * per_epoch, 6 * per_epoch))


def test_the_smallest_weights_go(tiny, watched):
    still = {"lr": 1e-30, "weight_decay": 0.0, "momentum": 0.0}
    fit(Run.create(tiny(**still, hooks={"prune": {"iterations": 1, "begin": 0.0, "end": 0.5}, "watch": {}})))
    (before, weight), (after, _) = watched[9], watched[10]
    assert before.all()
    assert int(after.sum()) == 1_920
    assert weight[~after].abs().max() <= weight[after].abs().min()


def test_best_weights_have_the_final_sparsity(tiny):
    own = {"sparsity": 0.99, "iterations": 2, "start_epoch": 0, "every": 3, "kind": "exponential"}
    run = fit(Run.create(tiny(epochs=6, hooks={"prune": own})))
    val = {row["epoch"]: row["top1"] for row in rows(run) if row["kind"] == "val"}
    assert run.status["best_top1"] == max(val[3], val[4], val[5])
    row = evaluate_weights([run.dir])[0]
    assert row["top1"] == pytest.approx(run.status["best_top1"])


def test_pruned_run_can_be_evaluated_without_the_network_it_started_from(tiny):
    dense = fit(Run.create(tiny(epochs=1, name="dense")))
    run = fit(Run.create(tiny(name="pruned", hooks={"prune": {"start_from": str(dense.dir)}})))
    shutil.rmtree(dense.dir)
    assert evaluate_weights([run.dir])[0]["top1"] == pytest.approx(run.status["best_top1"])


def test_missing_or_foreign_start_is_refused(tiny):
    for own, told in (
        ({"start_from": "nowhere"}, "no such run or file"),
        ({"every": 1, "iterations": 4}, r"epochs=2: the last of 4 prunes .* give epochs=4 "),
    ):
        config = tiny(hooks={"prune": own})
        for refuse in (preflight, lambda config: fit(Run.create(config))):  # before there is a run, and in it
            with pytest.raises(UsageError, match=told):
                refuse(config)
    other = fit(Run.create(tiny(name="other", epochs=1, model="resnet8", batch_size=256)))
    with pytest.raises(UsageError, match="prune.start_from=.*not weights of this network"):
        fit(Run.create(tiny(name="b", hooks={"prune": {"start_from": str(other.dir)}})))


def test_targets_of_matrices_and_kernels_are_separate(tiny):
    own = {"sparsity_fc": 0.5, "sparsity_conv": 0.8, "only": "*conv* fc"}
    run = fit(Run.create(tiny(model="resnet8", batch_size=256, hooks={"prune": own})))
    last = [row for row in rows(run) if row["kind"] == "sparse" and row["epoch"] == 1]
    assert {round(row["density"], 1) for row in last if row["layer"] == "fc.weight"} == {0.5}
    assert {round(row["density"], 1) for row in last if row["layer"] != "fc.weight"} == {0.2}
    assert len(last) == 8
    assert math.isfinite(run.status["best_top1"])
