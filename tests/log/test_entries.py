"""Entries of the log made from runs."""

import json
import re
import shlex
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import write_run

from research.cli import main
from research.config import Config
from research.frames import load_runs
from research.frames.groups import compare_groups, group_runs, label_changes, relative, run_results
from research.log import entries
from research.log.provenance import command, command_of
from research.parameters.assignments import parse_assignments
from research.runs.plans import record
from research.runs.run import Run

TODAY = date.today().isoformat()
ENV = {"python": "3.11.7", "packages": {"torch": "2.0", "numpy": "1.0"}, "commit": "0123456789", "uncommitted": False}
ENV |= {"device": "cpu", "processes": 1, "threads": 2}


@pytest.fixture
def write(here):
    """``write(name, started, errors=…, **config)``: a run whose validation top-1 error after each epoch is given."""

    def make(name, started=0, errors=(40.0, 30.0), train=20.0, status=None, env=None, **config):
        run = write_run(here / "runs", name, epochs=len(errors), **config)
        session = ENV | {"started": f"2026-01-{started + 1:02}T00:00:00+0000"} | (env or {})
        (run / "env.json").write_text(json.dumps([session]))
        rows = []
        for epoch, error in enumerate(errors):
            at = {"step": 10 * epoch + 10, "epoch": epoch}
            rows.append({"kind": "train_epoch", **at, "loss": 0.5, "top1": 100 - train, "seconds": 3.0})
            rows.append({"kind": "val", **at, "loss": error / 10, "top1": 100 - error, "top5": 99.0, "seconds": 1.0})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if status:
            told = json.loads((run / "status.json").read_text()) | status
            (run / "status.json").write_text(json.dumps(told))
        return run

    return make


def test_results_are_those_of_the_last_and_the_best_epoch(write, here):
    write("a", errors=(40.0, 25.0, 30.0), train=12.5, seed=3)
    row = run_results(load_runs(here / "runs")).loc["a"]
    assert (row["seed"], row["top1_err"], row["best_top1_err"]) == (3, 30, 25)
    assert (row["val_loss"], row["least_val_loss"], row["train_top1_err"], row["train_loss"]) == (3.0, 2.5, 12.5, 0.5)
    assert row["seconds"] == 3 * 4


def test_runs_that_differ_in_their_seed_are_one_group_and_the_simplest_comes_first(write, here):
    for seed in (1, 0):
        write(f"m{seed}", hooks={"power_grad": {"alpha": 0.5, "final_alpha": 0.0}}, seed=seed)
        write(f"p{seed}", seed=seed)
    plain, method = group_runs(load_runs(here / "runs"))
    assert list(plain.runs["name"]) == ["p0", "p1"] and list(method.by_seed("top1_err").index) == [0, 1]
    assert plain.label == "plain" and method.label == "power_grad"
    assert method.changes["power_grad.alpha"] == 0.5


def test_labels_say_what_differs_and_name_a_hook_only_where_its_parameters_are_equal():
    a, b = {"model": "x", "lr": 0.1}, {"model": "x", "lr": 0.1, "substitute": "generic:0.1"}
    taught = b | {"distill.teacher": "far/away", "distill.beta": 5.0}
    assert label_changes([a, b, taught]) == ["x", "generic:0.1", "generic:0.1 distill"]
    assert label_changes([a, taught, taught | {"distill.beta": 1.0}])[1:] == [
        "generic:0.1 distill.teacher=far/away distill.beta=5",
        "generic:0.1 distill.teacher=far/away distill.beta=1",
    ]


def test_group_is_compared_with_the_one_that_lacks_least_and_keeps_what_stands_first(write, here):
    taught = {"power_grad": {"alpha": 0.5, "final_alpha": 0.0}}
    write("both", lr=0.05, hooks=taught)
    write("lr", lr=0.05)
    write("hook", hooks=taught)
    write("plain")
    write("other", lr=0.2)
    groups = {group.runs["name"].iloc[0]: group for group in group_runs(load_runs(here / "runs"))}
    nearest = {name: relative(group, list(groups.values())) for name, group in groups.items()}
    assert nearest["both"] is groups["lr"] and nearest["plain"] is None
    assert all(nearest[name] is groups["plain"] for name in ("lr", "hook", "other"))


def test_differences_are_paired_over_the_seeds_that_both_have(write, here):
    for seed, (plain, other) in enumerate([(30, 27), (31, 29), (35, 34)]):
        write(f"p{seed}", seed=seed, errors=(plain,))
        write(f"o{seed}", seed=seed, errors=(other,), lr=0.2)
    write("o9", seed=9, errors=(90,), lr=0.2)
    plain, other = group_runs(load_runs(here / "runs"))
    found = compare_groups({other: plain}).iloc[0]
    assert (found.arm, found.against, found.pairs, found.n) == ("lr=0.2", "plain", 3, 4)
    assert found.difference == pytest.approx(-2) and found.high - found.low == pytest.approx(2 * 4.302653 / np.sqrt(3))
    alone = group_runs(load_runs(here / "runs", ["p0", "p1", "o2", "o9"]))
    unpaired = compare_groups({alone[1]: alone[0]}).iloc[0]
    assert (unpaired.pairs, unpaired.test) == (0, "Welch t") and unpaired.difference == pytest.approx(62 - 30.5)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(1e-6, 10),
        "nesterov": st.just(True),
        "milestones": st.lists(st.integers(0, 9), min_size=1, unique=True).map(sorted),
        "seed": st.integers(0, 10**9),
        "data_args": st.just({"crop": "pad", "padding": 1, "flip": True}),
        "hooks": st.sampled_from([{"gram": {"k": 3.5}, "ema": {}}, {"ema": {}, "power_grad": {"alpha": 1e-3}}]),
    },
)


@given(VALUES)
def test_command_repeats_the_run(tmp_path_factory, values):
    config = Config.load({"model": "resnet8", "epochs": 10, "schedule": "step"}, values)
    stored = {name: value for name, value in config.to_dict().items() if name not in ("name", "runs")}
    run = write_run(tmp_path_factory.mktemp("runs"), "a", **stored)
    words = shlex.split(command(load_runs(run).changes()[0]))
    assert words[:2] == ["research", "train"]
    assert Config.load(parse_assignments(words[2:])).identity == config.identity


def test_what_old_runs_had_without_effect_is_not_typed_again_and_said(write, here):
    """A version that took these made the run; `nesterov=true optimizer=adamw` is refused now."""
    idle = {"nesterov": True, "min_lr": 0.001, "data_args": {"padding": 3}, "hooks": {"distill": {"temperature": 2.0}}}
    write("old", optimizer="adamw", schedule="step", lr=0.01, **idle)
    told = command_of(group_runs(load_runs(here / "runs")))
    (words,) = [shlex.split(line) for line in told.splitlines() if line.startswith("    ")]
    assert words[2:] == ["epochs=2", "optimizer=adamw", "lr=0.01", "schedule=step", "distill=true"]
    Config.load(parse_assignments(words[2:]))
    assert told.endswith(
        "without effect, so that it cannot be typed now: `nesterov=true`, `min_lr=0.001`, `data_args.padding=3`, "
        "`distill.temperature=2.0`."
    )
    assert words == shlex.split(command(load_runs(here / "runs").changes()[0]))


def test_losses_that_are_not_numbers_are_said(write, here):
    for name, losses in (("well", [0.5, 0.4]), ("odd", [None, 0.4]), ("worse", [None, None])):
        run = write(name, lr=0.2 if name == "well" else 0.3, seed=int(name == "odd"))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        validations = [row for row in rows if row["kind"] == "val"]
        for row, loss in zip(validations, losses, strict=True):
            row["loss"] = loss
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = entries.append(load_runs(here / "runs")).read_text()
    assert "- `odd`: the loss is not finite in 1 rows `val`, first in epoch 1" in text
    assert "- `worse`: the loss is not finite in 2 rows `val`, first in epoch 1" in text
    assert "`well`: the loss" not in text


def test_entry_tells_what_was_run_and_what_came_of_it(write, here):
    for seed in (0, 1):
        write(f"study-p{seed}", seed=seed, errors=(41, 30 + 2 * seed))
        write(f"study-l{seed}", seed=seed, errors=(41, 27 + seed), lr=0.05, env={"commit": "ffff", "uncommitted": True})
    path = entries.append(load_runs("runs"), note="Is 0.05 better?")
    text = path.read_text()
    assert (
        f"## {TODAY} study\n\nIs 0.05 better?\n\nresnet8 on digits, seeds 0, 1:\n\n    research train epochs=2\n"
        in text
    )
    assert "and, in turn, with `nothing more`" not in text and "with nothing more; `lr=0.05`." in text
    assert "4 runs; 32 s of training and evaluating, 8 s each (median); 2026-01-01; cpu, 1 process of 2 threads" in text
    assert "commits 0123456, ffff with uncommitted changes; Python 3.11.7, torch 2.0, numpy 1.0." in text
    assert "| lr=0.05 | 2 | 27.50 ± 0.71 | 21.15 to 33.85 | 27.50 ± 0.71 | 1.00 ± 0.00 |" in text
    row = "| lr=0.05 | plain | lr=0.05 (was 0.1) | -3.50 [-9.85, +2.85] | 2 pairs | 0.09 | 0.09 | d = -4.95 | "
    assert f"{row}8.17 | cannot tell |" in text
    assert "1 of 1 cannot be told from no difference, which is not to say that there is none" in text
    assert "**" not in text
    assert "- not all of these runs are of one commit" in text
    assert text.count("![curves](") == 1 and (here / re.search(r"!\[curves\]\((.*)\)", text)[1]).is_file()


def test_same_runs_again_append_nothing_and_more_of_them_update_the_entry(write, here):
    write("a0", seed=0)
    first = entries.append(load_runs("runs"), "Title").read_text()
    by_hand = first + "\nA thought.\n\n## 2026-01-01 Other\n\nmine\n"
    (here / "research-log.md").write_text(by_hand)
    drawn = sorted((here / "runs" / "log").iterdir())
    assert entries.append(load_runs("runs"), "Title") is None
    assert entries.append(load_runs("runs"), "Renamed since") is None
    assert (here / "research-log.md").read_text() == by_hand and sorted((here / "runs" / "log").iterdir()) == drawn
    write("a1", seed=1, errors=(50, 40))
    entries.append(load_runs("runs"), "Title")
    text = (here / "research-log.md").read_text()
    kept, added, other = re.fullmatch(r"(.*?)(\*\*update\*\*: .*)(## 2026-01-01 Other.*)", text, re.S).groups()
    assert kept + other == by_hand and "35.00 ± 7.07" in added and added.count("<!-- run:a") == 2
    (here / "runs" / "a1" / "status.json").write_text(json.dumps({"status": "interrupted", "epoch": 1}))
    assert entries.append(load_runs("runs"), "Title") and entries.append(load_runs("runs"), "Title") is None


def test_an_entry_says_what_was_planned_and_is_updated_once_that_is_confirmed(write, here):
    for seed, errors in enumerate([(3.0, 2.0), (4.0, 2.5), (5.0, 2.0)]):
        write(f"s-slow-seed-{seed}", seed=seed, errors=errors, lr=0.05)
        write(f"s-plain-seed-{seed}", seed=seed, errors=(9.0, 8.0 + seed))
    said = {"text": "", "contrasts": [["slow", "plain"]], "margin": None, "confirm_seeds": [7], "confirming": {}}
    said |= {"arms": {f"s-{arm}-seed-{seed}": arm for arm in ("slow", "plain") for seed in range(3)}}
    record(here / "runs", "s", said, [])
    text = entries.append(load_runs("runs", "s-*"), "Title").read_text()
    assert "| slow | plain | planned | -6.83 [" in text and "Not confirmed on fresh seeds." in text
    for arm, error in (("slow", 2.0), ("plain", 9.0)):
        write(f"confirm-s-{arm}-seed-7", seed=7, errors=(error,), lr=0.05 if arm == "slow" else 0.1)
    record(here / "runs", "s", said | {"confirming": {f"confirm-s-{arm}-seed-7": arm for arm in ("slow", "plain")}}, [])
    text = entries.append(load_runs("runs", "s-*"), "Title").read_text()
    _, added = text.split("**update**")
    assert "| slow | plain | planned | -6.83 [" in added and "| -7.00 |" in added and "Fresh seeds: 7." in added
    assert entries.append(load_runs("runs", "s-*"), "Title") is None


def test_lone_configuration_is_compared_with_the_newest_one_before_it(write, here):
    write("old", started=0, errors=(20,), lr=0.3)
    write("before", started=1, errors=(25,), lr=0.2)
    write("now", started=2, errors=(22,), lr=0.05)
    write("later", started=3, errors=(10,), lr=0.01)
    write("elsewhere", started=1, errors=(10,), model="resnet20", lr=0.02)
    text = entries.append(load_runs("runs/now")).read_text()
    assert f"## {TODAY} resnet8 on digits\n" in text and "Error@1 22.000 Error@5 1.000" in text
    assert "| earlier `before` | lr=0.05 (was 0.2) | -3.00 | 1 pair |" in text


def test_what_calls_for_a_second_look_is_told(write):
    write("over", errors=(20, 30), train=0.0)
    write("under", errors=(30, 28, 30), train=40.0, lr=0.05)
    write("noise", errors=(30, 28, 30), train=31.5, lr=0.01)  # above, by less than its own epochs differ
    write("short", errors=(20, 30), train=40.0, lr=0.02)  # weights improve during an epoch
    write("nan", errors=(20,), lr=9.0, status={"status": "failed", "message": "loss is nan at step 7"})
    text = entries.append(load_runs("runs")).read_text()
    assert "overfits: training error 0.00 %, validation loss 3.000 after 2.000" in text
    assert re.search(r"- underfit, the error .* in validation: [^,]*lr=0.05[^,]* \(40.00 above 30.00 %\)\n", text)
    assert "`nan` failed after 1 epochs: loss is nan at step 7" in text


def test_recipe_is_told_with_what_departs_from_it(write):
    config = Config.load({"recipe": "cifar-200", "epochs": 2}).to_dict()
    write("a", **{k: v for k, v in config.items() if k not in ("name", "epochs", "runs")})
    text = entries.append(load_runs("runs")).read_text()
    assert "Recipe `cifar-200`, except epochs=2 (there 200)." in text


def test_runs_that_have_not_been_evaluated_make_an_entry_too(here):
    run = write_run(here / "runs", "fresh")
    (run / "status.json").unlink()
    (run / "metrics.jsonl").unlink()
    text = entries.append(load_runs("runs")).read_text()
    assert "Nothing has been evaluated yet." in text and "Next:\n\n- `fresh`: created, 0 of 3 epochs\n" in text


def test_entry_says_how_long_running_ones_will_take_and_how_much_memory_was_needed(write, here):
    for name, memory in (("done", 1.234), ("going", 0.5)):
        run = write(name, errors=(41, 30), lr=0.1 if name == "done" else 0.2)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows = [row | {"peak_memory": memory} if row["kind"] == "train_epoch" else row for row in rows]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, status = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "status"))
    (run / "config.json").write_text(json.dumps(config | {"epochs": 8}))
    (run / "status.json").write_text(json.dumps(status | {"status": "running"}))
    with Run.open(run).alone():
        text = entries.append(load_runs("runs")).read_text()
    assert "(median); at most 1.2 GB of memory; 2026-01-01" in text
    assert "- `going`: running, 2 of 8 epochs, about 24 s left\n" in text and "To look at again" not in text


def test_command_line_writes_entries_notes_and_updates(write, here, capsys):
    write("a")
    assert main(["log", "runs=runs/a*", "--title", "Runs", "--note", "Why?"]) == 0
    assert capsys.readouterr().out == f"{here / 'research-log.md'}\n"
    assert main(["log", "runs=runs/a*"]) == 0
    assert "has these runs as they are; nothing was added" in capsys.readouterr().out
    assert main(["log", "a", "note", "--title", "By hand"]) == 0
    assert main(["log", "seen again", "--title", "Runs", "--update"]) == 0
    text = Path("research-log.md").read_text()
    assert f"## {TODAY} Runs\n\nWhy?" in text and text.endswith(f"## {TODAY} By hand\n\na note\n")
    assert text.index(f"**update**: {TODAY}. seen again") < text.index("By hand")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text", "runs=runs"], "finds text, figures and place itself"),
        (["text", "--note", "n"], "belongs to an entry made from runs"),
        (["runs=rnus"], "no folder of runs at rnus; did you mean 'runs'"),
        (["text", "--update", "--title", "Nothing"], "no entry is called 'Nothing'"),
    ],
)
def test_command_line_refuses_what_does_not_go_together(write, here, capsys, words, said):
    write("a")
    assert main(["log", *words]) == 2
    assert said in capsys.readouterr().err and not Path("research-log.md").exists()


def test_another_network_is_compared_with_the_one_that_the_others_are_compared_with(write):
    write("plain", model="resnet20", errors=(30,))
    write("narrow", model="resnet8", lr=0.2, errors=(36,))
    write("method", model="resnet20", hooks={"ema": {}}, errors=(29,))
    text = entries.append(load_runs("runs")).read_text()
    assert re.search(r"\| resnet20 ema \| resnet20 \| ema \| -1.00 \|", text)
    assert "| lr=0.2 | resnet20 | lr=0.2 (was 0.1) model=resnet8 (was resnet20) | +6.00 | 1 pair |" in text
