"""The original command lines of the five systems become commands of this program that make the same Config."""

import shlex
import subprocess
import sys
import warnings

import pytest
from conftest import GOLDENS

from research import cli
from research.config import Config
from research.config.shell import read_lines
from research.config.translation import translate
from research.errors import UsageError
from research.notebooks.execute import find, read_parameters
from research.parameters.assignments import parse_assignments

COMMANDS = GOLDENS / "commands"
GRAM = (COMMANDS / "gram.txt").read_text()
POWER_GRAD = (COMMANDS / "power-grad.txt").read_text()
NN_MASS = (COMMANDS / "nn-mass.txt").read_text()
SPARSE = (COMMANDS / "sparse.txt").read_text()
CHEAP = (COMMANDS / "cheap-convs.txt").read_text().splitlines()
SETTINGS = {
    "wrn": "Generic_0.03 Generic_0.06 Generic_0.12 Tucker_0.24 Tucker_0.37 Tucker_0.54 TensorTrain_0.27 "
    "TensorTrain_0.41 TensorTrain_0.59 Shuffle_1 Shuffle_2 Shuffle_4",
    "imagenet": "ACDC_12 ACDC_28 SepHashed_0.08 SepHashed_0.58 Generic_0.03 Generic_0.21 Tucker_0.25 Tucker_0.73 "
    "TensorTrain_0.27 TensorTrain_0.75 Shuffle_7 Shuffle_1",
}
SETTINGS["darts"] = f"ACDC_6 ACDC_12 SepHashed_0.09 SepHashed_0.20 SepHashed_0.38 {SETTINGS['wrn']}"


def translated(text: str) -> list[tuple[list[str], list[str]]]:
    """The words and the notes of every command in ``text``."""
    found = []
    for line in read_lines(text.splitlines(), {}):
        if line.words:
            translation = translate(line.words)
            found += [(command, translation.notes) for command in translation.commands]
    return found


def typed(words: list[str]) -> Config:
    """The Config that a command makes when it is typed: what has no effect would be refused."""
    assert words[0] == "train"
    return Config.load(parse_assignments(words[1:]))


def one(text: str) -> tuple[Config, list[str]]:
    [(words, notes)] = translated(text)
    return typed(words), notes


# -- GraM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "short", "strategy"),
    [
        ("resnet18", "res18", "resnet"),
        ("resnet34", "res34", "resnet"),
        ("resnet50", "res50", "resnet"),
        ("mobilenet_v1", "mbv1", "mbv1"),
    ],
)
def test_all_commands_of_gram_translate(model, short, strategy):
    recipe = {"resnet": "gram-imagenet-resnet", "mbv1": "gram-imagenet-mobilenet_v1"}[strategy]
    for k in (1, 2, 4, 8, 16, 32, 64, 256):
        config, notes = one(GRAM.format(model=model, short=short, strategy=strategy, k=k))
        assert config == Config.load(
            {
                "recipe": recipe,
                "model": model,
                "name": f"imagenet_{short}_k{k}",
                "data_root": "~/datasets/ImageNet",
                "gpus": 8,
                "gram": {"k": k, "batches": 2},
            }
        )
        assert notes == ["dist_port=29500: has no effect: processes find a free port by themselves"]


@pytest.mark.parametrize(
    ("flags", "holds"),
    [
        ("--c_type nmi4 --c_epochs 5 --gram", {"k": 4.0, "epochs": 5}),
        ("--sgs --sgs_k 5 --sgs-epochs 30 --sgs_diagonal_removal", {"k": 5.0, "epochs": 30, "variant": "sparse"}),
        ("--gram --c-warmup 3", {"warmup": 3}),
    ],
)
def test_flags_of_gram_are_those_of_the_hook(flags, holds):
    config, _ = one(f"python tools/train.py -c configs/strategies/GraM/resnet.yaml --model resnet18 {flags}")
    assert holds.items() <= config.hooks["gram"].items() and config.processes == 1


def test_flags_of_the_trainer_of_gram_keep_their_meaning():
    config, notes = one(
        "bash tools/dist_train.sh 2 configs/strategies/SGS/cifar.yaml cifar_vgg16 --c_type nmi4 --warmup-epochs 5 "
        "--warmup-lr 1e-6 --clip-grad-norm --clip-grad-max-norm 1 --opt-no-filter --color-jitter 0.1 --seed 7 "
        "--batch-size 64 --model-ema --model-ema-decay 0.99 --dataset cifar100"
    )
    assert (config.recipe, config.dataset, config.batch_size, config.seed) == ("cifar-600", "cifar100", 64, 7)
    assert (config.warmup_epochs, config.warmup_lr, config.schedule_by) == (5, 1e-6, "step_executed")
    assert (config.clip_norm, config.decay_norm_and_bias, config.data_args["jitter"]) == (1, True, 0.1)
    assert list(config.hooks) == ["ema"] and config.hooks["ema"]["decay"] == 0.99
    assert "c_type=nmi4: has no effect without --gram" in notes


# -- PowerGrad ----------------------------------------------------------------------------------------------------


def test_the_command_of_power_grad_translates():
    config, notes = one(POWER_GRAD)
    assert config == Config.load(
        {
            "recipe": "power-grad-imagenet",
            "data_root": "IMAGENET_DIR",
            "gpus": 4,
            "schedule_by": "epoch_executed",
            "power_grad": {"alpha": 0.25},
            "logit_stats": True,
        }
    )
    assert "batch_size=1024: 256 on each of 4 GPUs" in notes


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        ("--smoothing 0.1", "smoothing", 0.1),
        ("--model seresnet101", "model", "seresnet101"),
        ("--sched step", "schedule", "step"),
        ("--sched constant", "schedule", "constant"),
        ("--opt momentum", "nesterov", False),
        ("--batch-size 64", "batch_size", 256),
        ("-b 32", "batch_size", 128),
        ("--cooldown-epochs 0", "cooldown_epochs", 0),
        ("--warmup-lr 0.02", "warmup_lr", 0.02),
        ("--min-lr 0", "min_lr", 0),
        ("--lr 0.2", "lr", 0.2),
        ("--dr 0.2 --sched step", "decay_rate", 0.2),
        ("--clip-grad 5", "clip_norm", 5.0),
        ("--sync-bn", "sync_bn", True),
        ("--seed 3", "seed", 3),
        ("--experiment mine", "name", "mine"),
        ("--output out", "runs", "out"),
        ("--log-interval 10", "log_interval", 10),
        ("--modify-softmax 0", "hooks", ["logit_stats"]),
        ("--grad-stats", "amp", "fp16"),
        ("--final-validate", "epochs", 90),
        ("--dali-gpu", "data_args", 0.0),
        ("--validation-batch-size-multiplier 2", "batch_size", 1024),
    ],
)
def test_every_flag_of_power_grad_keeps_its_meaning(flags, field, value):
    config, _ = one(f"{POWER_GRAD.strip()[:-1]} {flags}")
    found = getattr(config, field)
    assert (list(found) if field == "hooks" else found["jitter"] if field == "data_args" else found) == value


def test_what_the_command_of_power_grad_leaves_open_has_its_trainer_s_default():
    config, notes = one("python train.py --data_dir d --model resnet50 --modify-softmax 0.3")
    assert (config.batch_size, config.weight_decay, config.warmup_epochs, config.cooldown_epochs) == (256, 1e-4, 0, 0)
    assert (config.amp, config.processes, config.data_args["jitter"]) == ("off", 1, 0.4)
    assert any(note.startswith("without --dali") for note in notes)


def test_mixtures_and_erasing_of_power_grad_s_trainer_translate():
    flags = "--mixup 0.2 --cutmix 1.0 --reprob 0.25 --remode pixel --smoothing 0.1"
    config, notes = one(f"python train.py --data_dir d --model resnet50 {flags}")
    found = {name: config.data_args[name] for name in ("mixup", "cutmix", "erase", "erase_mode")}
    assert found == {"mixup": 0.2, "cutmix": 1.0, "erase": 0.25, "erase_mode": "pixel"}
    assert any(note.startswith("reprob=0.25: boxes of torchvision's sizes") for note in notes)
    config, notes = one(f"python train.py --data_dir d --model resnet50 --dali {flags}")
    assert config.data_args["mixup"] == 0.2 and not config.data_args.get("erase")
    assert "reprob=0.25: has no effect with --dali" in notes and "remode=pixel: has no effect without --reprob" in notes
    config, notes = one("python tools/train.py -c resnet.yaml --model resnet18 --reprob 0.2 --remode pixel --aa none")
    assert (config.data_args["erase"], config.data_args["erase_mode"]) == (0.2, "pixel")


def test_evaluation_of_power_grad_s_checkpoints():
    path = "resnet50/cosine-scheduler-alpha-0.3-label-smoothing/model_best.pth.tar"
    [(words, _)] = translated(f"{POWER_GRAD.strip()[:-1]} --model resnet50 --validate --resume {path}")
    assert words == ["evaluate", path, "dataset=imagenet", "model=resnet50", "data_root=IMAGENET_DIR"]
    [(words, notes)] = translated(f"{POWER_GRAD.strip()[:-1]} --validate --experiment mine")
    assert words == ["evaluate", "runs/mine"] and "untrained" in notes[-1]


@pytest.mark.parametrize(
    ("command", "field", "value"),
    [
        (f"{POWER_GRAD.strip()[:-1]} --resume a/last.pth.tar", "continue_from", "a/last.pth.tar"),
        (f"{POWER_GRAD.strip()[:-1]} --initial-checkpoint a.pth.tar", "init", "a.pth.tar"),
        (f"{POWER_GRAD.strip()[:-1]} --pretrained", "init", "timm:resnet18"),
        ("python imagenet.py -a resnet18 --resume c.pth.tar", "continue_from", "c.pth.tar"),
        ("python imagenet.py -a resnet18 --pretrained", "init", "torchvision:resnet18"),
        ("main.py --rewire --resume ./runs/mnist_mlp_0", "init", "./runs/mnist_mlp_0"),
        (
            "bash tools/dist_train.sh 1 configs/strategies/GraM/resnet.yaml resnet18 --resume e/last.pth.tar",
            "continue_from",
            "e/last.pth.tar",
        ),
    ],
)
def test_commands_that_start_from_weights(command, field, value):
    assert getattr(one(command)[0], field) == value


# -- NN-Mass ------------------------------------------------------------------------------------------------------


def test_every_example_of_nn_mass_translates():
    (mlp, _), (ldi, _), (training, notes), (evaluation, _) = translated(NN_MASS)
    shape = ["depth=8", "width=8", "tc=10", "dataset=MNIST"]
    assert mlp == ["run", "topology", *shape, "ldi=false"] and ldi == ["run", "topology", *shape, "train=false"]
    assert {word.partition("=")[0] for word in (*mlp[2:], *ldi[2:])} <= read_parameters(find("topology")).keys()
    config = typed(training)
    assert (config.model, config.epochs, config.lr, config.weight_decay) == ("mobilenet_v2", 150, 0.05, 4e-5)
    assert config.schedule == "cosine" and "--width-mult <width-multiplier>: a place to fill in; left out" in notes
    assert evaluation == ["evaluate", "<pretrained-pth-file>", "dataset=imagenet", "model=mobilenet_v2"]


def test_places_that_are_filled_in_are_parameters():
    text = NN_MASS.replace("<path-to-ILSVRC2012-data>", "/data").replace("<path-to-save-checkpoints>", "logs/mobile")
    text = text.replace("<width-multiplier>", "1.4").replace("<input-resolution>", "192").replace("<num-workers>", "8")
    *_, (training, _), (evaluation, _) = translated(text.replace("<pretrained-pth-file>", "w.pth"))
    config = typed(training)
    assert (config.model_args, config.data_root, config.name) == ({"width_mult": 1.4}, "/data", "mobile")
    assert (config.data_args["image_size"], config.data_args["eval_resize"], config.workers) == (192, 219, 8)
    sizes = ["model_args.width_mult=1.4", "data_args.image_size=192", "data_args.eval_resize=219"]
    assert evaluation[1] == "w.pth" and set(sizes) <= set(evaluation)


def test_networks_of_train_cifar_are_runs_with_other_seeds():
    found = translated(
        "python train_cifar.py --arch regular_dense --cell_depth 8 --tc1 21 --iter_times 2 --save_dir c/d"
    )
    configs = [typed(words) for words, _ in found]
    assert [config.seed for config in configs] == [0, 1] and configs[0].model == "regular_dense"
    assert [(config.runs, config.name) for config in configs] == [("c", "d-seed-0"), ("c", "d-seed-1")]
    assert "num_seg=4: has no effect on CIFAR and ImageNet networks" in one("python train_cifar.py --num_seg 4")[1]


def test_flags_of_the_mlp_programs_without_effect_are_told():
    [(words, notes)] = translated("python train_mlp.py --batch_size 10 --num_seg 4 --epochs 2 --iter_times 3 --lr 0.01")
    assert words == ["run", "topology", "epochs=2", "iter_times=3", "lr=0.01", "ldi=false"] and len(notes) == 2
    [(words, notes)] = translated("python train_mlp.py --dataset linear --num_seg 4 --make_dataset --batch_size 10")
    assert {"num_seg=4", "make_dataset=true", "batch_size=10", "dataset=linear"} <= set(words) and not notes


# -- cheap convolutions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "lines"), [("wrn", CHEAP[:2]), ("darts", CHEAP[2:4]), ("imagenet", CHEAP[4:])])
def test_every_list_of_cheap_convolutions_translates(network, lines):
    recipes = {"wrn": "wrn-cifar10", "darts": "darts-cifar10", "imagenet": "resnet-imagenet-90"}
    for setting in SETTINGS[network].split():
        (teacher, _), (student, _) = (one(line.format(setting=setting, lower=setting.lower())) for line in lines)
        own = {"recipe": recipes[network], "substitute": setting, "name": teacher.name}
        own |= {"model": "wide_resnet50_2", "gpus": 4} if network == "imagenet" else {}
        own |= {"hooks": {"drop_path": {"p": 0.2}, "auxiliary": {"mode": "concat"}}} if network == "darts" else {}
        expected = Config.load(own)
        assert teacher.substitute == f"{expected.substitute},init=reference"
        assert {**vars(teacher), "substitute": ""} == {**vars(expected), "substitute": ""}
        distill = student.hooks["distill"]
        assert (distill["alpha"], distill["beta"], student.substitute) == (0.0, 1000.0, teacher.substitute)
        assert distill["teacher"] == lines[1].split(" -t ")[1].split()[0]
        assert student.name.endswith(f"{setting.lower()}.student.Jan5")


def test_flags_of_cheap_convolutions_keep_their_meaning():
    config, notes = one(
        "python main.py cifar100 student -t T -s S --conv Hashed_0.1 --budget 2000000 --nocrswd --wrn_depth 16 "
        "--wrn_width 2 --AT_split 2 --alpha 0.9 --temperature 3 --clip_grad 5 --lr 0.05 --epoch_step '[30,60]' --GPU 1"
    )
    assert config.substitute == "hashed:init=reference,decay=plain,budget=2000000"
    assert (config.model, config.dataset, config.lr, config.milestones) == ("wrn-16-2", "cifar100", 0.05, (30, 60))
    assert (config.clip_norm, config.device, config.data_args["cutout"]) == (5, "cuda", 0)
    assert (config.hooks["distill"]["split"], config.hooks["distill"]["temperature"]) == (2, 3)
    config, notes = one("python main.py cifar10 teacher --conv Conv --network DARTS --lr 0.3 --alpha 0.1")
    assert config.lr == 0.025 and config.substitute == "" and len(notes) == 2


# -- sparse training ----------------------------------------------------------------------------------------------


def sparse_commands() -> list[tuple[str, float, str]]:
    """Method, target sparsity and command of every experiment."""
    lines = SPARSE.splitlines()
    return [(*about.split()[1:], command) for about, command in zip(lines[::2], lines[1::2], strict=True)]


def test_all_commands_of_sparse_training_translate(subtests):
    commands = sparse_commands()
    assert len(commands) == 129
    for method, target, command in commands:
        with subtests.test(command):
            config, _ = one(command)
            words = shlex.split(command)
            given = {word: after for word, after in zip(words, [*words[1:], ""], strict=True) if word[:2] == "--"}
            head = method.partition("_")[0]
            hook = {"dense": [], "thin": [], "iterative": ["prune"], "static": ["static_sparse"]}
            assert list(config.hooks) == hook.get(head, [head])
            assert config.weight_decay == float(given.get("--weight-decay", 1e-4))
            assert config.batch_size == int(given.get("--batch-size", 100)) and config.schedule == "table"
            assert config.name.startswith(f"{given['--model']}_{given['--job-idx']}")
            if "--prune" not in given:
                assert config.epochs == int(given.get("--epochs", 100))
            if config.hooks:
                own = next(iter(config.hooks.values()))
                assert float(target) in (own["sparsity"], own.get("sparsity_fc"), own.get("sparsity_conv"))
                if "--stop-rewire-epoch" in given and "stop_epoch" in own:
                    assert own["stop_epoch"] == int(given["--stop-rewire-epoch"])


OPTIONS = """--start-epoch 0|--lr 0.3|--momentum 0.8|--nesterov False|--wd 0.001|--L1-loss-coeff 1e-5|--print-freq 5|
--layers 16|--start-pruning-after-epoch 3|--prune-epoch-frequency 4|--prune-target-sparsity-fc 0.9|
--prune-target-sparsity-conv 0.9|--prune-iterations 3|--post-prune-epochs 4|--n-prune-params 60|--validate-set|
--rescale-tied-gradient|--no-validate-train|--DeepR_eta 0.1|--stop-rewire-epoch 50|--no-batch-norm|
--rewire-fraction 0.2|--sub-kernel-granularity 4|--cubic-prune-schedule|--sparse-resnet-downsample|--conv-group-lasso|
--big-new-weights|--widen-factor 2|--initial-sparsity-conv 0.5|--initial-sparsity-fc 0.9|--job-idx 3|--no-augment|
--data d|-j 2|--schedule-file mnist_schedule.yaml|--name mine|-b 50|--epochs 3|--learning-rate 0.1|--rewire-scaling|
--threshold-prune|--tied|--DeepR|--rewire""".replace("\n", "").split("|")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("model", ["mnist_mlp", "cifar10_WideResNet", "imagenet_resnet50"])
def test_every_option_of_main_py_translates_or_is_told(option, model):
    granularity = " --sub-kernel-granularity 4" if option == "--DeepR" else ""  # its signs are of single weights
    config, notes = one(f"main.py --model {model} {option}{granularity}")
    plain, before = one(f"main.py --model {model}{granularity}")
    assert config != plain or len(notes) > len(before) or option in INVISIBLE


INVISIBLE = {"--start-epoch 0", "--initial-sparsity-conv 0.5", "--no-validate-train", "--sub-kernel-granularity 4"}
INVISIBLE |= {"--schedule-file mnist_schedule.yaml"}
"""At their default for one of the networks, or without a counterpart that could differ."""


def test_eta_of_deepr_is_the_one_of_its_help():
    config, notes = one("main.py --DeepR")
    assert config.hooks["deepr"]["eta"] == 0.1 and any("its code has 0.001" in note for note in notes)


# -- lines --------------------------------------------------------------------------------------------------------


def told(text: str, monkeypatch, capsys) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", text.splitlines(keepends=True))
    code = cli.main(["translate"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_comments_and_blank_lines_stay_and_one_odd_line_spoils_none(monkeypatch, capsys):
    text = "# first\n\nmain.py --rewire\npython mine.py\n- ./main.py --tied \\\n  --initial-sparsity-fc 0.9\n# last\n"
    code, out, err = told(text, monkeypatch, capsys)
    lines = out.splitlines()
    assert code == 2 and err == ("error: line 4: mine.py: not a command of the five systems; did you mean 'main.py'?\n")
    assert lines[:2] == ["# first", ""] and lines[-1] == "# last" and "# not translated: python mine.py" in lines
    assert [line.split()[1] for line in lines if line.startswith("research")] == ["train", "train"]


def test_lists_of_commands_may_be_quoted_or_bare_flags():
    command = "--model mnist_mlp --rewire --schedule-file ./learning_schedules/ mnist_schedule.yaml"
    same = {
        tuple(translated(line)[0][0]) for line in (f"- main.py {command}", f"- 'main.py {command}'", f"- {command}")
    }
    assert len(same) == 1 and "set.period=0:100 25:200 50:400 75:800" in same.pop()


def test_variables_are_those_of_the_lines_before(monkeypatch, capsys):
    launch = "python -m torch.distributed.run --nproc_per_node=${NUM_GPU} train.py --dali --model resnet18"
    code, out, err = told(f"CUDA_VISIBLE_DEVICES=0,1 NUM_GPU=2 {launch}\n", monkeypatch, capsys)
    assert code == 0 and "\nCUDA_VISIBLE_DEVICES=0,1 NUM_GPU=2 research train recipe=power-grad-imagenet" in out
    assert "batch_size=512" in out and "gpus=2" in out
    monkeypatch.delenv("NUM_GPU", raising=False)
    code, out, err = told(f"{launch}\n", monkeypatch, capsys)
    assert code == 2 and "line 1: $NUM_GPU: not known; give `export NUM_GPU=…` before the line" in err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("bash tools/dist_train.sh 8 configs/other.yaml resnet18 --gram", "configs/other.yaml: not a strategy"),
        ("python train.py --data_dir d", "model: the trainer's default"),
        ("python train.py --model resnet18 --jsd", "--jsd: no such flag"),
        ("python train.py --model resnet18 --sched plateau", "schedule='plateau': expected cosine"),
        ("python train.py --model resnet18 --opt lamb", "opt='lamb': expected sgd, nesterov"),
        ("python train.py --model resnet18 --lr-cycle-limit 3", "lr_cycle_limit=3: expected 1"),
        ("python tools/train.py -c resnet.yaml --model resnet18 --drop 0.2", "drop=0.2: expected 0"),
        ("python train.py --model resnet18 --aa rand-m9", "aa='rand-m9': timm's policies are not here"),
        ("torchrun --nnodes 2 train.py --model resnet18", "nnodes=2"),
        ("main.py --rewire --tied", "rewire and tied: each is a method of its own"),
        ("main.py cifar10 student --module layers.py", "module=layers.py: its layers are in a Python file"),
        ("main.py --rewire > log.txt", ">: give one command a line"),
        ("python imagenet.py -e -a resnet18", "evaluate: of which weights?"),
        ("main.py --epochs three", "epochs='three': expected int"),
        ("main.py 'unfinished", "No closing quotation"),
    ],
)
def test_what_cannot_be_translated_says_why(line, why, monkeypatch, capsys):
    code, out, err = told(line, monkeypatch, capsys)
    assert code == 2 and why in err and out.startswith("# not translated: ") and "research" not in out


def test_words_after_two_dashes_are_one_command(capsys):
    assert cli.main(["translate", "--", "python", "ldi.py", "--depth=8"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "research run topology depth=8 train=false"


# -- the same flags as words of a run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("batch-size=64 weight-decay=0.1 warmup-epochs=2", "batch_size=64 weight_decay=0.1 warmup_epochs=2"),
        ("gram=true c-train-batches=3 sgs-k=4", "gram.batches=3 gram.k=4"),
        ("data-path=d experiment=e sgd-no-nesterov=true", "data_root=d name=e nesterov=false"),
        ("data_dir=d modify-softmax=0.3 logit-stats=true sched=step amp=true",
         "data_root=d power_grad.alpha=0.3 logit_stats=true schedule=step amp=fp16"),
        ("opt=momentum output=o initial-checkpoint=w.pt num-classes=10", "nesterov=false runs=o init=w.pt"),
        ("mixup=0.2 cutmix=1 reprob=0.25 remode=pixel recount=1",
         "data_args.mixup=0.2 data_args.cutmix=1 data_args.erase=0.25 data_args.erase_mode=pixel"),
        ("resume=c.pth.tar native-amp=true clip-grad=5", "continue_from=c.pth.tar amp=fp16 clip_norm=5"),
        ("model-ema=true model-ema-decay=0.9 cutout-length=4 reprob=0",
         "ema.decay=0.9 data_args.cutout=4 data_args.erase=0"),
        ("conv=ACDC_12 wrn-depth=16 wrn_width=2 teacher-checkpoint=t",
         "recipe=wrn-cifar10 model=wrn-16-2 substitute=acdc:12,init=reference name=t"),
        ("wrn_depth=16 wrn_width=2 conv=Conv mode=student teacher_checkpoint=t student-checkpoint=s name=mine",
         "recipe=wrn-cifar10 model=wrn-16-2 name=mine distill.teacher=t"),
    ],
)  # fmt: skip
def test_flags_may_have_dashes_or_underscores(words, same):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Config.load(parse_assignments(words.split())) == Config.load(parse_assignments(same.split()))


def test_flags_without_effect_are_told_not_refused():
    with pytest.warns(match="dist-port=29500: has no effect: processes find"):
        assert Config.load({"dist-port": 29500}) == Config()


def test_words_of_this_program_say_that_they_bring_no_defaults_of_the_seed():
    with pytest.warns(match="read as this program's method") as notes:
        config = Config.load({"model": "mnist_mlp", "tied": True})
    assert config.dataset == "digits" and len(notes) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Config.load({"model": "mnist_mlp", "tied": True, "dataset": "digits"})


def test_a_name_given_beside_a_command_is_kept():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"model": "mnist_mlp", "initial-sparsity-fc": 0.9, "job-idx": 3}
        assert Config.load({**given, "name": "mine"}).name == "mine" and Config.load(given).name == "mnist_mlp_3"
        assert Config.load({"arch": "resnet18", "save_dir": "a/b", "name": "mine"}).name == "mine"


def test_no_torch_is_needed_for_the_help():
    code = "import sys, research.cli as c; c.parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_usage_error_of_the_result_is_the_reason():
    with pytest.raises(UsageError, match="must be >= 1"):
        translate("main.py --epochs 0".split())
