"""Times with a unit mean the steps that they name, and numbers alone mean what they always meant."""

import pytest
from conftest import assert_same_run
from hypothesis import given
from hypothesis import strategies as st

from research.config import Config
from research.errors import UsageError
from research.parameters.when import When, every, in_epochs, in_steps
from research.runs.run import Run
from research.training.loop import fit
from research.training.preflight import preflight
from research.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("value", "unit", "steps"),
    [
        ("12ep", "it", 1200),
        ("4000it", "ep", 4000),
        ("75%", "ep", 1500),
        (0.75, "share", 1500),
        (3, "ep", 300),
        (7, "it", 7),
    ],
)
def test_a_time_is_so_many_steps(value, unit, steps):
    assert in_steps(value, unit, epochs=20, steps_per_epoch=100) == steps
    assert in_epochs(value, unit, epochs=20, steps_per_epoch=100) == pytest.approx(steps / 100)


@given(st.integers(1, 10**9), st.sampled_from(["ep", "it"]))
def test_one_time_has_one_text(number, unit):
    assert When(f"{number}{unit}") == When(f"{number}.0 {unit}") == f"{number}{unit}"


@pytest.mark.parametrize("text", ["12", "ep", "-1ep", "0it", "101%", "1e3it", "1 epoch", "", "nan%", "12ep 3it"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError):
        When(text)


def test_a_period_is_at_least_a_step():
    assert [every(value, 10, 100) for value in ("0.001ep", "2ep", 7)] == [1, 200, 7]


STEPS = 11  # of an epoch of the digits, in batches of 128
SAME = [  # what is written, and what it was always written as
    ({"rigl.end": "1ep", "rigl.period": 2}, {"rigl.end": STEPS, "rigl.period": 2}),
    ({"rigl.end": "50%", "rigl.period": "2it"}, {"rigl.end": 0.5, "rigl.period": 2}),
    ({"rigl.period": "1ep"}, {"rigl.period": STEPS}),
    ({"itop.period": "0.5ep"}, {"itop.period": 6}),
    ({"snfs.period": "1ep"}, {"snfs.period": STEPS}),
    ({"set.period": "4it", "set.stop_epoch": "1ep"}, {"set.period": 4, "set.stop_epoch": 1}),
    (
        {"dsr.period": "4it", "dsr.k": 200, "dsr.stop_epoch": "50%"},
        {"dsr.period": 4, "dsr.k": 200, "dsr.stop_epoch": 1},
    ),
    ({"deepr.stop_epoch": "11it"}, {"deepr.stop_epoch": 1}),
    ({"prune.begin": "1ep", "prune.iterations": 3}, {"prune.begin": 0.5, "prune.iterations": 3}),
    ({"prune.end": "11it", "prune.iterations": 3}, {"prune.end": 0.5, "prune.iterations": 3}),
    ({"prune.every": "1ep", "prune.iterations": 2}, {"prune.every": 1, "prune.iterations": 2}),
    ({"warmup_epochs": "1ep"}, {"warmup_epochs": 1}),
    ({"warmup_epochs": "50%", "warmup_first": True}, {"warmup_epochs": 1, "warmup_first": True}),
    ({"cooldown_epochs": "1ep", "min_lr": 0.01}, {"cooldown_epochs": 1, "min_lr": 0.01}),
]


@pytest.mark.parametrize(("written", "known"), SAME, ids=lambda given: " ".join(f"{k}={v}" for k, v in given.items()))
def test_a_run_is_the_one_that_the_numbers_give(written, known, tiny):
    new, old = (fit(Run.create(tiny(name=name, **given))) for name, given in (("new", written), ("old", known)))
    assert_same_run(new, old)
    assert Run.open(new.dir).config == new.config


def test_an_old_number_is_stored_as_it_was():
    given = {"rigl.end": 0.5, "rigl.period": 2, "warmup_epochs": 2, "cooldown_epochs": 1}
    config = Config.load(given)
    assert (config.hooks["rigl"]["end"], config.hooks["rigl"]["period"]) == (0.5, 2)
    assert config.to_dict()["warmup_epochs"] == 2.0 and config.to_dict()["cooldown_epochs"] == 1


def test_a_warm_up_in_steps_is_so_many_steps():
    config = Config.load({"warmup_epochs": "5it", "warmup_lr": 0.0, "lr": 0.5, "schedule": "constant"})
    assert [learning_rate(config, step, 100) for step in range(7)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rigl.end": "12"}, None),
        ({"rigl.end": "12x"}, "rigl.end='12x': expected float | 12ep, 4000it, 75%"),
        ({"rigl.period": "0ep"}, "rigl.period='0ep': expected int"),
        ({"warmup_epochs": "10ep"}, "warmup_epochs=10ep: must be below epochs=10"),
        ({"warmup_epochs": "100%"}, "warmup_epochs=100%: must be below epochs=10"),
        ({"cooldown_epochs": "30it"}, "cooldown_epochs=30it: is made of whole epochs"),
    ],
)
def test_mistakes_are_told(given, told):
    if told is None:
        assert Config.load(given).hooks["rigl"]["end"] == 12
        return
    with pytest.raises(UsageError) as refused:
        Config.load(given)
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    "times", [{"prune.begin": "20it", "prune.end": "12it"}, {"prune.every": "20it", "prune.iterations": 5}]
)
def test_prunes_that_do_not_fit_into_the_run_are_refused_before_it_is_made(times, tiny):
    with pytest.raises(UsageError, match="prune"):
        preflight(tiny(**times))
