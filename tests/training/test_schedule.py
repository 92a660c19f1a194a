"""Learning rates against the published trainers' own, and what holds for every schedule."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import GOLDENS
from hypothesis import given
from hypothesis import strategies as st

from research.config import Config
from research.errors import UsageError
from research.training.schedule import learning_rate

GOLDEN = GOLDENS / "schedule"
POWER_GRAD = sorted(path.stem for path in GOLDEN.glob("lr_*.npz"))


def rates(config: Config, steps_per_epoch: int) -> np.ndarray:
    return np.array([learning_rate(config, s, steps_per_epoch) for s in range(config.total_epochs * steps_per_epoch)])


@pytest.mark.parametrize(("key", "epochs", "min_lr"), [("resnet", 120, 1e-7), ("mbv1", 90, 1e-7), ("cifar", 200, 1e-6)])
def test_cosine_by_step_equals_gram_trainer(key, epochs, min_lr):
    golden = np.load(GOLDEN / "d26_lr_schedule.npz")[key]
    ours = rates(Config(epochs=epochs, lr=0.1, min_lr=min_lr), steps_per_epoch=7)
    assert ours.shape == golden.shape
    np.testing.assert_allclose(ours, golden, rtol=0, atol=7e-7)
    np.testing.assert_allclose(ours[2:], golden[2:], rtol=1e-9)  # past the reference's own start, all digits


@pytest.mark.parametrize(("key", "epochs", "min_lr"), [("resnet", 120, 1e-7), ("mbv1", 90, 1e-7), ("cifar", 200, 1e-6)])
def test_steps_as_executed_equal_gram_trainer_to_the_last_digits(key, epochs, min_lr):
    golden = np.load(GOLDEN / "d26_lr_schedule.npz")[key]
    ours = rates(Config(epochs=epochs, lr=0.1, min_lr=min_lr, schedule_by="step_executed"), steps_per_epoch=7)
    np.testing.assert_allclose(ours, golden, rtol=1e-9)


@pytest.mark.parametrize(("key", "epochs", "min_lr"), [("lr", 20, 1e-5), ("imagenet", 200, 1e-7)])
def test_warmup_as_executed_equals_gram_trainer(key, epochs, min_lr):
    golden = np.load(GOLDEN / "gram_warmup.npz")[key]
    config = Config.load(
        {"epochs": epochs, "lr": 0.1, "min_lr": min_lr, "schedule_by": "step_executed"}
        | {"warmup_epochs": 5, "warmup_lr": 1e-6}
    )
    np.testing.assert_allclose(rates(config, steps_per_epoch=7), golden, rtol=1e-9)


def test_steps_as_executed_are_of_cosine():
    with pytest.raises(UsageError, match="is how GraM's trainer moves schedule=cosine, not step"):
        Config.load({"schedule": "step", "schedule_by": "step_executed"})


def power_grad(name: str, schedule_by: str) -> tuple[Config, dict]:
    golden = np.load(GOLDEN / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    known = {f.name for f in fields(Config)} & set(meta) - {"name"}
    return Config(**{k: meta[k] for k in known}, schedule=meta["sched"], schedule_by=schedule_by), golden


@pytest.mark.parametrize("name", POWER_GRAD)
def test_schedule_by_epoch_equals_power_grad_nominal(name):
    config, golden = power_grad(name, "epoch")
    assert config.total_epochs == golden["num_epochs"]
    np.testing.assert_allclose(rates(config, 1), golden["lr_nominal"][:-1], rtol=1e-12)
    np.testing.assert_array_equal(rates(config, 3), np.repeat(rates(config, 1), 3))


@pytest.mark.parametrize("name", POWER_GRAD)
def test_executed_schedule_equals_power_grad_trainer(name):
    config, golden = power_grad(name, "epoch_executed")
    np.testing.assert_allclose(rates(config, 1), golden["lr_executed"], rtol=1e-12)
    np.testing.assert_array_equal(rates(config, 3), np.repeat(rates(config, 1), 3))


@pytest.mark.parametrize("every", [1, 2, 3, 7, 200])
def test_rates_between_evaluations_are_those_of_their_epochs(every):
    """Its trainer's own loop: several epochs, an evaluation, again; one epoch a time once it cools down."""
    config = Config.load(
        {"recipe": "power-grad-imagenet", "schedule_by": "epoch_executed"} | ({"train_continuous": every})
    )
    expected, epoch, t = [], 0, 0
    while epoch < config.total_epochs:
        for inner in range(every):
            expected.append(t)
            epoch += 1
            if inner < every - 1:
                t = epoch
            if epoch >= config.total_epochs - config.cooldown_epochs:
                break
        t = epoch + 1
    nominal = rates(replace(config, schedule_by="epoch", train_continuous=1), 1)
    nominal = np.append(nominal, config.min_lr)
    np.testing.assert_array_equal(rates(config, 1), nominal[expected])


def test_tanh_is_the_formula_with_its_own_ramp():
    config = Config.load(
        {"schedule": "tanh", "epochs": 90, "lr": 0.1, "min_lr": 1e-4, "schedule_by": "epoch"}
        | {"warmup_epochs": 5, "warmup_lr": 0.01, "cooldown_epochs": 10}
    )
    t = np.arange(90)
    curve = 1e-4 + (0.1 - 1e-4) * (1 - np.tanh(-6 * (1 - t / 90) + 4 * t / 90)) / 2
    ramp = 0.01 + t * (curve[5] - 0.01) / 5
    expected = np.concatenate([np.where(t < 5, ramp, curve), np.full(10, 1e-4)])
    np.testing.assert_allclose(rates(config, 1), expected, rtol=1e-12)


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0, 2.0])
def test_poly_is_a_power_of_what_is_left(power):
    config = Config(schedule="poly", epochs=10, lr=1.0, min_lr=0.1, power=power, cooldown_epochs=1)
    expected = 0.1 + 0.9 * (1 - np.arange(40) / 40) ** power
    np.testing.assert_allclose(rates(config, 4), [*expected, *[0.1] * 4], rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"power": 2}, "power=2.0: has no effect: it belongs to schedule=poly; this is cosine"),
        ({"train_continuous": 2}, "it belongs to schedule_by=epoch_executed; this is step"),
    ],
)
def test_parameters_of_other_schedules_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        Config.load(given)


def test_resumed_rates_as_executed_equal_power_grad_trainer():
    """Its first epoch after --resume trains at its own time, the others one ahead."""
    golden = np.load(GOLDEN / "resumed_lr_cosine_seed.npz")
    first = json.loads(str(golden["meta"]))["start_epoch"]
    config = Config.load({"recipe": "power-grad-imagenet", "schedule_by": "epoch_executed"})
    ours = [learning_rate(config, step, 1, first) for step in range(first, config.total_epochs)]
    assert first == 50
    np.testing.assert_allclose(ours, golden["lr_executed"], rtol=1e-12)


def test_milestones_are_the_first_epochs_at_the_lower_rate():
    config = Config(epochs=200, lr=0.1, schedule="step", milestones=(60, 120, 160), decay_rate=0.2)
    by_epoch = rates(config, 4)[::4]
    for epoch, lr in {0: 0.1, 59: 0.1, 60: 0.02, 119: 0.02, 120: 0.004, 160: 0.0008, 199: 0.0008}.items():
        assert by_epoch[epoch] == pytest.approx(lr, rel=1e-12)


def test_linear_falls_by_equal_steps_to_the_floor():
    ours = rates(Config(epochs=4, lr=1.0, min_lr=0.2, schedule="linear", cooldown_epochs=1), 5)
    np.testing.assert_allclose(ours[:20], np.linspace(1.0, 0.2, 21)[:20], rtol=1e-12)
    np.testing.assert_array_equal(ours[20:], 0.2)


def test_warmup_replaces_first_points_and_does_not_shift():
    plain, warm = Config(epochs=10, lr=0.1), Config(epochs=10, lr=0.1, warmup_epochs=2.5, warmup_lr=0.01)
    np.testing.assert_array_equal(rates(warm, 4)[10:], rates(plain, 4)[10:])
    np.testing.assert_allclose(rates(warm, 4)[:10], 0.01 + 0.09 * np.arange(10) / 10, rtol=1e-12)


@given(
    schedule=st.sampled_from(["cosine", "step", "linear", "poly", "tanh", "constant"]),
    schedule_by=st.sampled_from(["step", "epoch", "epoch_executed"]),
    epochs=st.integers(1, 40),
    cooldown=st.integers(0, 5),
    steps=st.integers(1, 9),
    min_lr=st.floats(0, 0.1),
)
def test_without_warmup_rates_never_rise_and_keep_their_limits(schedule, schedule_by, epochs, cooldown, steps, min_lr):
    config = Config(
        schedule=schedule,
        schedule_by=schedule_by,
        epochs=epochs,
        cooldown_epochs=cooldown,
        min_lr=min_lr,
        decay_epochs=3,
    )
    ours = rates(config, steps)
    first = min_lr + (config.lr - min_lr) * (1 - np.tanh(-6)) / 2 if schedule == "tanh" else config.lr
    assert ours[0] == pytest.approx(first, rel=1e-12) and (np.diff(ours) <= 1e-15).all()
    assert ours.min() >= (0 if schedule in ("step", "constant") else min_lr - 1e-15)


def test_table_schedule_holds_each_rate_from_its_epoch_on():
    config = Config.load({"schedule": "table", "lr_table": "0:0 1:0.02 15:0.02 25:0.004 35:0.0008", "epochs": 40})
    by_epoch = rates(config, steps_per_epoch=2)[::2]
    assert [by_epoch[e] for e in (0, 1, 14, 24, 25, 34, 35, 39)] == [0, 0.02, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008]
    assert Config.load(config.to_dict()) == config


@pytest.mark.parametrize(
    ("table", "said"),
    [("10:0.1", "start at 0"), ("0:1 5:2 5:3", "increase"), ("0:a", "expected epoch:value"), ("0:-1", "must be >= 0")],
)
def test_table_that_cannot_be_is_refused_with_the_reason(table, said):
    with pytest.raises(UsageError, match=said):
        Config.load({"schedule": "table", "lr_table": table})


def test_table_and_its_schedule_need_each_other():
    for alone in ({"schedule": "table"}, {"lr_table": 0.1}):
        with pytest.raises(UsageError, match="schedule=table"):
            Config.load(alone)


def test_warmup_first_begins_the_curve_after_the_warmup():
    config = Config(epochs=10, lr=1.0, warmup_epochs=5, warmup_lr=0.0, warmup_first=True)
    ours = rates(config, steps_per_epoch=4)
    np.testing.assert_allclose(ours[:20], np.arange(20) / 20)
    np.testing.assert_allclose(ours[20:], (1 + np.cos(np.pi * np.arange(20) / 20)) / 2)
