"""On a pretended GPU every network, substitute, event, batch and measure gives the CPU's numbers, and runs are
evaluated, kept and continued."""

import pytest
import torch
from conftest import Killed, assert_same_run, rows
from gpu_cases import gpu, train
from gpu_computations import COMPUTATIONS, LARGE
from pretend_cuda import OnGpu

from research.config import Config
from research.hooks import HOOKS
from research.hooks.sparse import MaskHook
from research.models import MODELS
from research.runs.run import Run
from research.studies.population import fit_population
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit

MASKS = [name for name, hook in HOOKS.items() if issubclass(hook, MaskHook) and name != "deepr"]  # which takes 4 only


def compare(compute) -> None:
    expected = compute("cpu")
    with gpu():
        found = {name: tensor.cpu() for name, tensor in compute("cuda:0").items()}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_the_gpu_computes_what_the_cpu_computes(name):
    compare(COMPUTATIONS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_networks_compute_what_they_compute_on_the_cpu(name):
    compare(LARGE[name])


def test_every_kind_of_network_is_among_the_cases():
    """Of those that one function makes for several depths or widths, one."""
    made = {maker.__qualname__ + maker.__module__: name for name, maker in MODELS.items()}
    cases = {name.removeprefix("network ") for name in {**COMPUTATIONS, **LARGE}}
    kinds = {MODELS[name].__qualname__ + MODELS[name].__module__ for name in cases & MODELS.keys()}
    assert {name for kind, name in made.items() if kind not in kinds} <= {"wrn-28-10"} and "wrn" in cases


@pytest.mark.slow
@pytest.mark.parametrize("granularity", [1, 2, 3])
@pytest.mark.parametrize("name", MASKS)
def test_units_of_any_size_stay_on_the_gpu(name, granularity, tmp_path):
    given = {k: v for k, v in HOOKS[name].exercise.items() if k != "k"}
    run, observer = train(str(tmp_path), hooks={name: {**given, "granularity": granularity, "sparsity": 0.5}})
    assert observer.waits.step == 0
    assert all(isinstance(p, OnGpu) for p in run.model.parameters())


def test_a_run_that_is_cut_off_on_the_gpu_continues_bit_for_bit(tmp_path, power_cut):
    hooks = {"rigl": {"period": 2}, "ema": {}, "logit_stats": {}, "power_cut": {}}
    given = {"hooks": hooks, "checkpoint_minutes": 0, "epochs": 2, "log_interval": 1, "amp": "bf16"}
    whole, _ = train(str(tmp_path), name="whole", **given)
    power_cut.at = 7
    with pytest.raises(Killed):
        train(str(tmp_path), name="cut", **given)
    continued, _ = train(str(tmp_path), name="cut", **given)
    assert_same_run(whole, continued)


def test_weights_evaluated_on_the_gpu_are_as_good_as_they_were_in_training(tmp_path):
    run, _ = train(str(tmp_path))
    with gpu():
        (found,) = evaluate_weights([run.dir])
    (told,) = (row for row in rows(run) if row["kind"] == "val")
    assert found["top1"] == told["top1"] and found["loss"] == pytest.approx(told["loss"], rel=1e-6)


def test_a_population_on_the_gpu_is_the_one_on_the_cpu(tmp_path):
    def member(device: str, tc: int) -> Config:
        base = {"dataset": "digits", "model": "dense_mlp", "model_args": {"width": 6, "depth": 5, "tc": tc}}
        base |= {"epochs": 1, "batch_size": 256, "threads": 1, "device": device, "name": f"{device}-{tc}"}
        return Config.load(base, {"runs": str(tmp_path)})

    alone = fit_population([member("cpu", tc) for tc in (0, 3)], ldi_modes=["exact"])
    with gpu():
        together = fit_population([member("cuda", tc) for tc in (0, 3)], ldi_modes=["exact"])
        assert fit(Run.open(together[0].dir)).status["status"] == "finished"
    for one, other in zip(alone, together, strict=True):
        for mine, theirs in zip(rows(one), rows(other), strict=True):
            assert mine.keys() == theirs.keys()
            numbers = [name for name, value in mine.items() if isinstance(value, float)]
            assert [mine[name] for name in numbers] == pytest.approx([theirs[name] for name in numbers], rel=1e-5)
