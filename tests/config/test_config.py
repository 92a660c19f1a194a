"""Config: precedence, aliases, every problem at once, identity."""

import json

import pytest

from research.config import Config
from research.errors import UsageError
from research.hooks import HOOKS
from research.parameters.assignments import parse_assignments


def problems(**given) -> list[str]:
    with pytest.raises(UsageError) as refused:
        Config.load(given)
    return str(refused.value).splitlines()


def test_later_sources_win_and_text_becomes_numbers():
    config = Config.load(
        {"lr": 0.5, "epochs": 3}, parse_assignments(["lr=1e-2", "betas=[0.8, 9e-1]", "optimizer=adamw"])
    )
    assert (config.lr, config.epochs, config.betas) == (0.01, 3, (0.8, 0.9))


def test_every_problem_is_reported_at_once():
    found = problems(lrr=1, epochs=0, lr=True, model="resnet81", dataset="digit", hooks={"gramm": {}})
    assert len(found) == 6
    assert "unknown parameter 'lrr'; did you mean 'lr'?" in found
    assert "epochs=0: must be >= 1" in found
    assert "lr=True: expected float" in found


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"model": "resnet21"}, "unknown model 'resnet21'; did you mean"),
        ({"dataset": "digit"}, "unknown dataset 'digit'; did you mean 'digits'?"),
        ({"recipe": "cifar-20"}, "unknown recipe 'cifar-20'; did you mean"),
        ({"hooks": {"gramm": {}}}, "unknown hook 'gramm'; did you mean 'gram'?"),
        ({"gram.kk": 1}, "unknown parameter 'gram.kk'; did you mean 'gram.k'?"),
        ({"gram.k": -1}, "gram.k=-1: must be > 0"),
        ({"gram": 8}, "gram=8: expected true, false or parameters"),
        ({"amp": "fp8"}, "amp='fp8': expected off | bf16 | fp16"),
        ({"batch_size": 7, "processes": 2}, "batch_size=7: must divide into"),
        ({"nodes": 2}, "nodes=2: needs rendezvous=host:port"),
        ({"nodes": 2, "rendezvous": "host:port"}, "nodes=2: needs rendezvous=host:port"),
        ({"warmup_epochs": 10, "epochs": 10}, "warmup_epochs=10: must be below epochs=10"),
        ({"min_lr": 1.0}, "min_lr=1: must not exceed lr=0.1"),
        ({"milestones": [5, 3], "schedule": "step"}, "milestones=[5, 3]: must increase"),
        ({"name": "a/b"}, "name='a/b': must be a plain folder name"),
        ({"model_args": 3}, "model_args=3: expected a mapping"),
        ({"c_type": "pearson"}, "c_type='pearson': expected 'nmi' followed by a number"),
        ({"epochs": 2.5}, "epochs=2.5: expected int"),
        ({"lr": "nan"}, "lr='nan': expected float"),
    ],
)
def test_a_mistake_is_one_line_with_value_and_remedy(given, line):
    (found,) = problems(**given)
    assert found.startswith(line)


def test_recipe_lies_below_what_the_user_says():
    recipe = Config.load({"recipe": "cifar-200", "dataset": "cifar10"})
    shorter = Config.load({"recipe": "cifar-200", "dataset": "cifar10", "epochs": 2})
    assert recipe.epochs == 200 and shorter.epochs == 2
    assert shorter.weight_decay == recipe.weight_decay == 5e-4


def test_hooks_keep_their_order_and_take_defaults():
    config = Config.load({"gram": True, "gram.k": 2}, {"gram.warmup": 0})
    assert config.hooks["gram"]["k"] == 2 and config.hooks["gram"]["warmup"] == 0
    assert Config.load({"gram.k": 2}, {"gram": False}).hooks == {}


def test_seed_names_are_aliases():
    assert Config.load({"gram": True, "c_type": "nmi2.5", "c_train_batches": 3}) == Config.load(
        {"hooks": {"gram": {"k": 2.5, "batches": 3}}}
    )
    assert Config.load({"gpus": 2}).device == "cuda"


def test_json_round_trip_is_exact():
    config = Config.load({"gram.k": 2.5, "milestones": [1, 2], "schedule": "step", "data_args": {}})
    assert Config.load(json.loads(json.dumps(config.to_dict()))) == config


def test_identity_ignores_defaults_and_place_but_nothing_else():
    plain = Config.load({})
    same = [{"lr": 0.1}, {"processes": 2}, {"name": "x"}, {"runs": "elsewhere"}, {"log_interval": 3}]
    other = [{"lr": 0.2}, {"seed": 1}, {"gram": True}, {"smoothing": 0.1}, {"loader": "memory"}]
    assert {Config.load(given).identity for given in same} == {plain.identity}
    assert len({Config.load(given).identity for given in other} | {plain.identity}) == len(other) + 1


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"dataset": "cifar10", "data_args.padding": 2}, {"dataset": "cifar10", "data_args.padding": 2.0}),
        ({"data_args.jitter": 1}, {"data_args.jitter": 1.0}),
        (
            {"data_args": {"crop": "resized", "scale": [0.5, 1]}},
            {"data_args": {"crop": "resized", "scale": [0.5, 1.0]}},
        ),
        ({"data_args.flip": 1}, {"data_args.flip": True}),
        ({"model": "dense_mlp", "model_args.width": 8}, {"model": "dense_mlp", "model_args.width": 8.0}),
    ],
)
def test_a_number_typed_in_two_ways_is_one_run(given, same):
    one, other = Config.load(given), Config.load(same)
    assert one == other and one.identity == other.identity and one.to_dict() == other.to_dict()


def test_hook_defaults_do_not_change_identity():
    assert Config.load({"gram": True}).identity == Config.load({"gram.k": 8}).identity


PINNED = [
    ({"auxiliary": True}, "2bcce92bbad284d1"),
    ({"deepr": True}, "c8b014da0c196fa5"),
    ({"distill": True}, "ec2289c59b9d1985"),
    ({"drop_path": True}, "63c0e363660b4a5c"),
    ({"dsr": True}, "41b76b2186ed27c1"),
    ({"ema": True}, "f9e1555adc6a6179"),
    ({"gram": True}, "9fe30f547fe9d26e"),
    ({"itop": True}, "7789a8c2befe9361"),
    ({"l3": True}, "89cd6df3835b9a47"),
    ({"logit_stats": True}, "14dec485117ea138"),
    ({"power_grad": True}, "48551698c3e27184"),
    ({"prune": True}, "7d81242942057b54"),
    ({"rigl": True}, "e47285d9be4601e6"),
    ({"set": True}, "9a4d38baae763c7c"),
    ({"snfs": True}, "821bcda3a065d799"),
    ({"static_sparse": True}, "df4e45d06f1e13e9"),
    ({"tied": True}, "1ad450e697a7a2d5"),
    ({"model_args": {"shortcut": "B"}, "model": "resnet20"}, "9d64b900bc9e1d09"),
    ({"data_args": {"flip": True}}, "06940ce0682b19ef"),
    ({"substitute": "sephashed:0.2"}, "5cb68d066e6f1dcd"),
    ({"hooks": {"gram": {"k": 4}, "ema": {}}}, "f770876477106814"),
    ({"hooks": {"ema": {}, "gram": {"k": 4}}}, "a680e55ab1f3236d"),
    ({"schedule": "table", "lr_table": "0:0.1 5:0.02"}, "a47182591fec0684"),
    ({"milestones": [3, 5], "schedule": "step"}, "9fd5228cf9a7c7c3"),
    ({"recipe": "cifar-200", "model": "resnet20"}, "3b0ff389622085b3"),
    ({"set.period": "0:100 25:200"}, "38e26f27e4b4b156"),
    ({"model": "resnet20", "dataset": "cifar10", "seed": 3}, "9c3c7268f3ffcd96"),
]


@pytest.mark.parametrize(("given", "identity"), PINNED, ids=lambda each: each if isinstance(each, str) else "")
def test_identity_of_known_runs_stays(given, identity):
    """These runs exist on users' disks: a new field with a neutral default must not orphan them."""
    assert Config.load(given).identity == identity


def test_every_hook_has_a_pinned_identity():
    assert set(HOOKS) <= {name for given, _ in PINNED for name in given}


def test_assignment_without_value_is_refused():
    with pytest.raises(UsageError, match="'gram': expected key=value"):
        parse_assignments(["gram"])


def test_a_table_of_one_pair_is_not_read_as_a_time_of_day():
    assert parse_assignments(["dsr.period=5:10", "lr_table=0:0.1", "name=a:b"]) == {
        "dsr.period": "5:10",
        "lr_table": "0:0.1",
        "name": "a:b",
    }
    with pytest.raises(UsageError, match="dsr.period='5:10': epochs must start at 0"):
        Config.load(parse_assignments(["dsr.period=5:10"]))


@pytest.mark.parametrize("betas", [[0.9, 1.5], [0.9, 1.0], [-0.1, 0.9]])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_betas_that_torch_refuses_are_refused(betas, optimizer):
    with pytest.raises(UsageError, match="each must be >= 0 and < 1"):
        Config.load({"optimizer": optimizer, "betas": betas})
