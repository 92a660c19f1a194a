"""Commands of the sparse-training seed, as that program's users type them."""

import csv
import json
import shlex

import pytest
from conftest import REPOSITORY, SHARED

from research.config import Config
from research.config.seed_commands.sparse import MODELS
from research.config.seed_commands.sparse_schedules import SCHEDULES
from research.errors import UsageError
from research.parameters.assignments import parse_assignments
from research.studies.study import expand, read_study
from research.training.schedule import learning_rate

EXPERIMENTS = SHARED / "specs" / "sparse-experiments.csv"


def words(command: str) -> dict:
    """``--flag value --switch`` as assignments."""
    told = []
    for word in shlex.split(command):
        if word.startswith("--"):
            told.append(word.removeprefix("--"))
        else:
            told[-1] += f"={word}"
    return parse_assignments(word if "=" in word else f"{word}=true" for word in told)


def test_a_dsr_command_becomes_the_hook_with_its_schedules():
    config = Config.load(
        words(
            "--model mnist_mlp --rewire --threshold-prune --rewire-scaling --n-prune-params 300 --weight-decay 0.0 "
            "--L1-loss-coeff 1.0e-4 --initial-sparsity-fc 0.99 --stop-rewire-epoch 90 --job-idx 3"
        )
    )
    dsr = config.hooks["dsr"]
    assert (dsr["sparsity"], dsr["k"], dsr["l1"], dsr["stop_epoch"]) == (0.99, 300, 1e-4, 90)
    assert dsr["period"] == SCHEDULES["mnist_schedule"].period
    assert (config.dataset, config.model, config.weight_decay, config.epochs) == ("mnist", "mnist_mlp", 0.0, 100)
    assert config.name == "mnist_mlp_3"
    assert [learning_rate(config, epoch * 600, 600) for epoch in (0, 25, 50, 75)] == [0.1, 0.02, 0.004, 0.0008]


@pytest.mark.parametrize(
    ("flags", "hook", "holds"),
    [
        ("--rewire --rewire-fraction 0.2", "set", {"fraction": 0.2}),
        ("--rewire --rewire-scaling", "dsr", {"prune": "fraction", "reallocate": True}),
        ("--rewire --threshold-prune", "dsr", {"reallocate": False, "k": 600}),
        ("--rewire --big-new-weights", "dsr", {"prune": "fraction", "reallocate": False, "big_new_weights": True}),
        ("--DeepR --DeepR_eta 0.01", "deepr", {"eta": 0.01, "temperature": SCHEDULES["mnist_schedule"].temperature}),
        ("--tied --rescale-tied-gradient", "tied", {"sparsity": 0.98, "rescale_gradient": True}),
        ("--initial-sparsity-fc 0.9", "static_sparse", {"sparsity": 0.9}),
    ],
)
def test_flags_choose_the_method(flags, hook, holds):
    config = Config.load(words(flags))
    assert list(config.hooks) == [hook]
    assert holds.items() <= config.hooks[hook].items()


def test_networks_and_data_follow_their_flags():
    wide = Config.load(words("--model cifar10_WideResNet --layers 22 --widen-factor 2 --no-augment --validate-set"))
    assert wide.model == "wrn-22-2" and wide.hooks["static_sparse"]["granularity"] == 2
    assert (wide.data_args["crop"], wide.data_args["flip"], wide.data_args["holdout"]) == ("none", False, 5000)
    assert wide.data_args["pad_mode"] == "zero"
    usual = Config.load({"model": "cifar10_WideResNet"})
    assert usual.model == "wrn-28-10"
    assert usual.data_args == {"crop": "pad", "padding": 4, "pad_mode": "reflect", "flip": True}
    thin = Config.load(words("--model imagenet_resnet50 --widen-factor 0.54 --sparse-resnet-downsample"))
    assert thin.model == "resnet50" and thin.model_args["width"] == 0.54
    assert Config.load(words("--no-batch-norm")).model_args["batch_norm"] is False


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--DeepR --rewire", "DeepR and rewire: each is a method of its own"),
        ("--prune --rewire --resume runs/x", "prune and rewire: each"),
        ("--threshold-prune", "threshold_prune: has no effect without rewire"),
        ("--n-prune-params 5 --rewire", "n_prune_params: has no effect without threshold_prune"),
        ("--cubic-prune-schedule", "cubic_prune_schedule: has no effect without prune"),
        ("--prune --prune-iterations 5", "give resume=RUN"),
        ("--rewire --resume runs/x", "a run continues by itself"),
        ("--widen-factor 2 --model cifar_wrn", "expected mnist_mlp or cifar10_WideResNet"),
        ("--rewire --schedule-file wrnet_shedule.yaml", "did you mean 'wrnet_schedule'"),
        ("--rewire --sub-kernel-granularity 0 --model cifar10_WideResNet", "granularity=0: must be >= 1"),
    ],
)
def test_contradictions_are_refused(flags, said):
    with pytest.raises(UsageError) as error:
        Config.load(words(flags))
    assert said in str(error.value)


def test_a_schedule_file_is_read_as_that_program_reads_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "lr_schedule: [{0: 0.2}, {3: 0.02}]\nrewire_period_schedule: [{0: 7}]\n"
        "DeepR_temperature_schedule: [{0: 1.0e-5}]"
    )
    config = Config.load(words(f"--rewire --schedule-file {file}"))
    assert (config.lr_table, config.hooks["set"]["period"]) == ("0:0.2 3:0.02", "0:7")
    file.write_text("lr_schedule: [{0: 0.2}]")
    with pytest.raises(UsageError, match="rewire_period_schedule"):
        Config.load(words(f"--rewire --schedule-file {file}"))


def test_every_own_parameter_still_means_itself():
    config = Config.load({"dataset": "digits", "model": "mnist_mlp", "hooks": {"tied": {"sparsity": 0.5}}, "epochs": 3})
    assert (config.recipe, config.epochs, config.hooks["tied"]["sparsity"]) == ("", 3, 0.5)


@pytest.mark.skipif(not EXPERIMENTS.exists(), reason="the list of published commands is not here")
def test_all_published_commands_are_understood(subtests):
    experiments = list(csv.DictReader(EXPERIMENTS.open()))
    assert len(experiments) == 129
    for experiment in experiments:
        with subtests.test(experiment["name"]):
            config = Config.load(words(f"--model {experiment['model']} {experiment['flags']}"))
            assert config.recipe == MODELS[experiment["model"]].recipe
            method = experiment["method"].partition("_")[0]
            hook = {"dense": [], "thin": [], "iterative": ["prune"], "static": ["static_sparse"]}.get(method, [method])
            assert list(config.hooks) == hook
            if hook:
                given = config.hooks[hook[0]]
                target = [given.get(k) for k in ("sparsity_fc", "sparsity_conv")]
                assert float(experiment["target_sparsity"]) in (*target, given["sparsity"])


@pytest.mark.skipif(not EXPERIMENTS.exists(), reason="the list of published commands is not here")
@pytest.mark.parametrize(("study", "count"), [("sparse-wrn", 83), ("sparse-resnet50", 21), ("sparse-mnist", 25)])
def test_studies_are_the_published_commands(study, count):
    points = expand(read_study(REPOSITORY / "notebooks" / "studies" / f"{study}.yaml"))
    model = {"sparse-wrn": "cifar10_WideResNet", "sparse-resnet50": "imagenet_resnet50"}.get(study, "mnist_mlp")
    commands = [e for e in csv.DictReader(EXPERIMENTS.open()) if e["model"] == model]
    published = [what_counts(Config.load(words(f"--model {model} {e['flags']}"))) for e in commands]
    ours = [what_counts(point.config) for point in points]
    assert len(ours) == len(published) == count
    for one in ours:
        assert one in published
        published.remove(one)


def what_counts(config: Config) -> tuple:
    """Of a run of the list: everything but where its lists are wrong (see the studies' comments)."""
    hooks = json.loads(json.dumps(config.hooks))
    for given in hooks.values():
        given.pop("start_from", None)
        given["copy_mask_from"] = bool(given.get("copy_mask_from"))
        parts = [given.pop(kind, None) for kind in ("sparsity_fc", "sparsity_conv")]
        if parts[0] is not None and parts[0] == parts[1]:
            given["sparsity"] = parts[0]
    rates = [round(learning_rate(config, epoch, 1), 9) for epoch in range(config.epochs)]
    decay = 5e-4 if "prune" in hooks and config.dataset == "cifar10" else config.weight_decay
    batch = 256 if config.dataset == "imagenet" else config.batch_size
    return config.model, str(config.model_args), config.epochs, batch, decay, config.nesterov, rates, hooks
