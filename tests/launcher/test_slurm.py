"""Jobs on Slurm, with programs in the place of Slurm's: what is asked of it, what it says, and what a job does."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, assert_same_run
from launched import begun, slow_steps, wait_until
from submitit.core.utils import DelayedSubmission

from research import cli
from research.errors import Note
from research.launcher.slurm.job import Command, Job
from research.launcher.slurm.options import Options, minutes, read_options
from research.launcher.slurm.queue import Standing
from research.launcher.standing import words_of
from research.runs.run import Run
from research.runs.status import recorded
from research.studies.selection import trials
from research.studies.study import read_study
from research.training.loop import fit

PROGRAMS = {
    "srun": "",
    "sinfo": "printf 'low*|infinite|2|4|(null)\\nhigh|1-00:00:00|1|8|gpu:a100:4(S:0-1)\\n'",
    "sbatch": 'cp "$1" sent.sh; test -s refusal && { cat refusal >&2; exit 1; }; echo Submitted batch job 7',
    "squeue": "case $* in *--Format*) cat queue;; *) cat state;; esac",
    "scancel": 'echo "scancel $*" >> said',
    "scontrol": 'echo "scontrol $*" >> said',
}


@pytest.fixture
def slurm(here, monkeypatch):
    """A folder in which Slurm's programs leave what they are asked (``sent.sh``, ``said``) and find what to answer."""
    for name, does in PROGRAMS.items():
        (here / "bin").mkdir(exist_ok=True)
        program = here / "bin" / name
        program.write_text(f"#!/bin/sh\ncd {here}\n{does}\n")
        program.chmod(0o755)
    for name in ("queue", "state", "said", "refusal"):
        (here / name).touch()
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(here))
    return here


@pytest.fixture
def research(capsys):
    """``research(line)``: exit code and all that a command prints."""

    def run(*words: str) -> tuple[int, str]:
        code = cli.main(words)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def study(slurm, tiny):
    """Write a study of tiny runs with these entries; its path."""

    def write(**entries) -> str:
        base = {"model": "mnist_mlp", "epochs": 2, "device": "cpu", "lr": 0.05, "runs": str(slurm / "runs")}
        given = {"name": "s", "base": base, "seeds": [0, 1, 2]} | entries
        Path("study.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
        return "study.yaml"

    return write


def asked() -> dict[str, str]:
    """The options of the job that sbatch was given."""
    lines = [line.removeprefix("#SBATCH --") for line in Path("sent.sh").read_text().splitlines() if "#SBATCH" in line]
    return dict((line.partition("=")[0], line.partition("=")[2].strip("'")) for line in lines)


def sent_jobs() -> list[Job]:
    return [DelayedSubmission.load(path).function for path in sorted(Path("runs/.slurm/jobs").glob("*_submitted.pkl"))]


def test_waiting_runs_are_queued_as_one_array(study, research):
    path = study()
    finished = Run.create(Run.open(make(path, 1)).config)
    finished.set_status("finished", epoch=2, epochs=2)
    words = ("--partition", "low", "--time", "2:00:00", "--array-parallelism", "5", "--notice", "90", "--account", "us")
    code, said = research("sweep", path, "--on", "slurm", *words)
    assert code == 0 and said.splitlines()[-1] == "queued: 7_0 7_1"
    options = asked()
    wanted = {"array": "0-1%2", "partition": "low", "time": "120", "account": "us", "signal": "USR2@90", "nodes": "1"}
    assert options.items() >= wanted.items() and "requeue" in options and "gpus-per-node" not in options
    jobs = sent_jobs()
    assert [words[:2] for job in jobs for words in [job.commands[0].words]] == [("run", "train")] * 2
    assert [next(w for w in job.commands[0].words if w.startswith("seed")) for job in jobs] == ["seed=0", "seed=2"]
    assert json.loads(Path("runs/.slurm/s-seed-2.json").read_text())["job"] == "7_1"


def test_what_chooses_is_queued_first_and_then_what_was_chosen(study, research):
    path = study(seeds=[0, 1], select={"over": "lr", "values": [0.05, 0.1], "on": {"holdout": 9}})
    code, said = research("sweep", path, "--on", "slurm")
    assert code == 0 and said.splitlines()[-1].startswith("the same command queues the runs at what these choose")
    rates = [next(w for w in job.commands[0].words if w.startswith("lr")) for job in sent_jobs()]
    assert rates == ["lr=0.05", "lr=0.1"]
    Path("queue").write_text("7_0|RUNNING|None|n12|0|\n7_1|RUNNING|None|n12|0|\n")
    assert "2 runs, 0 finished, 2 in the queue, 0 to queue" in research("sweep", path, "--on", "slurm")[1]
    Path("queue").write_text("")
    for trial, top1 in zip(trials(read_study(path)), (60.0, 70.0), strict=True):
        Run.create(trial.point.config).set_status("finished", epoch=2, epochs=2, last_top1=top1)
    code, said = research("sweep", path, "--on", "slurm")
    assert code == 0 and "s: lr=0.1 of [0.05, 0.1]" in said and said.splitlines()[-1] == "queued: 7_0 7_1"
    words = [job.commands[0].words for job in sent_jobs()[-2:]]
    assert all({"lr=0.1"} < set(each) and not any("holdout" in word for word in each) for each in words)


def make(path: str, seed: int) -> Path:
    """Make the folder of one run of a study, as a start does."""
    from research.studies.study import expand, read_study

    return Run.create(expand(read_study(path))[seed].config).dir


def test_what_is_in_the_queue_is_not_queued_again(study, research):
    path = study()
    research("sweep", path, "--on", "slurm")
    queue = "7_0|RUNNING|None|n12|0|\n7_1|PENDING|Priority||0|\n7_2|FAILED|NonZeroExitCode|n12|0|\n"
    Path("queue").write_text(queue)
    Path("sent.sh").unlink()
    code, said = research("sweep", path, "--on", "slurm")
    assert code == 0 and said.splitlines()[-1] == "queued: 7"
    assert "3 runs, 0 finished, 2 in the queue, 1 to queue" in said
    assert "s-seed-0  seed=0  running on n12 (job 7_0)" in said


def test_a_run_that_only_waits_is_listed_and_cancelled(study, research):
    research("sweep", study(seeds=[0]), "--on", "slurm")
    Path("queue").write_text("7|PENDING|Priority||0|\n")
    assert "s-seed-0  queued (job 7: Priority)" in research("runs")[1]
    code, said = research("stop", "s-seed-*")
    assert code == 0 and "cancelled: was queued" in said and Path("said").read_text() == "scancel 7\n"


def test_a_run_that_is_trained_in_a_job_is_asked_for_a_checkpoint(study, research):
    path = study(seeds=[0, 1])
    research("sweep", path, "--on", "slurm", "--pack", "2")
    Path("queue").write_text("7|RUNNING|None|n12|0|\n")
    code, said = research("stop", path)
    assert Path("said").read_text() == "scancel --signal=INT 7\n", "once, though the job holds two runs"
    assert "asked to stop: was running on n12 (job 7), with s-seed-1 of the same job" in said


def test_packed_runs_share_a_job(study, research):
    code, said = research("sweep", study(), "--on", "slurm", "--pack", "2")
    assert [len(job.commands) for job in sent_jobs()] == [2, 1] and asked()["cpus-per-task"] == "2"


def test_runs_that_need_gpus_are_given_them(study, research):
    cuda = {"model": "mnist_mlp", "epochs": 2, "gpus": 2}
    code, said = research("sweep", study(base=cuda), "--on", "slurm", "--partition", "high")
    assert code == 0, said
    assert asked()["gpus-per-node"] == "2" and asked()["cpus-per-task"] == "2"


def test_one_run_is_one_job(slurm, research):
    code, said = research("train", "model=mnist_mlp", "epochs=2", "name=one", "--on", "slurm", "--nodes", "2")
    assert (code, said) == (0, "one: queued as job 7\n")
    (job,) = sent_jobs()
    assert job.commands[0].words == ("train", "model=mnist_mlp", "epochs=2", "name=one", "nodes=2")
    assert asked()["nodes"] == "2" and "array" not in asked()
    code, said = research("run", "analysis/curves", "--on", "slurm")
    assert code == 2 and "trains no run" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--partition lo", "partition='lo': unknown here; did you mean 'low'?"),
        ("--time tomorrow", "--time='tomorrow': expected minutes, hours:minutes:seconds or days-hours"),
        ("--partition high --time 2-0", "time=2-0: partition high allows 1440 minutes; runs go on in a next turn"),
        ("--gpus 1", "gpus=1: a node of partition low has 0"),
        ("--partition high --gpus 8", "gpus=8: a node of partition high has 4"),
        ("--nodes 4", "nodes=4: partition low has 2"),
        ("--time 1 --notice 60", "notice=60: time=1 leaves a job no time before it"),
        ("--pack 0", "--pack='0': must be >= 1"),
        ("--pack 9", "cpus=9: a node of partition low has 4"),
        ("--pack 2 --nodes 2", "pack=2: a run on nodes=2 has its job for itself"),
        ("--jobs 2", "--jobs: of a sweep on this machine; with --on slurm leave it out"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_nothing_is_queued(study, research, words, told):
    code, said = research("sweep", study(), "--on", "slurm", *words.split())
    assert code == 2 and [line for line in said.splitlines() if line.startswith("error")] == [f"error: {told}"]
    assert not Path("sent.sh").exists()


def test_what_slurm_refuses_is_told_in_its_words(study, research):
    Path("refusal").write_text("sbatch: error: Batch job submission failed: Invalid account\n")
    code, said = research("sweep", study(), "--on", "slurm", "--account", "them")
    assert code == 2 and "error: Slurm refuses: Batch job submission failed: Invalid account\n" in said
    assert not list(Path("runs").glob(".slurm/*.json"))


def test_a_cluster_that_does_not_answer_is_told_and_hides_no_run(study, research, slurm):
    path = study(seeds=[0])
    research("sweep", path, "--on", "slurm")
    make(path, 0)
    (slurm / "bin" / "squeue").write_text("#!/bin/sh\necho squeue: error: no controller >&2; exit 1\n")
    with pytest.warns(Note, match="Slurm does not say how its jobs stand: no controller"):
        code, said = research("runs")
    assert code == 0 and "s-seed-0  created" in said


def test_without_submitit_the_extra_is_named(study, research, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "submitit" else find(name))
    code, said = research("sweep", study(), "--on", "slurm")
    assert code == 2 and "error: --on slurm needs submitit; pip install 'research[slurm]'" in said


def test_options_of_slurm_without_slurm_are_refused(study, research, monkeypatch):
    assert research("sweep", study(), "--partition", "low") == (2, "error: --partition low: needs --on slurm\n")
    monkeypatch.setenv("PATH", "/nowhere")
    code, said = research("sweep", study(), "--on", "slurm")
    assert code == 2 and "error: no sinfo here; give --on slurm on a machine that has Slurm's commands" in said


def test_a_cluster_that_does_not_answer_is_told_in_its_words(slurm, study, research):
    silent = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    (slurm / "bin" / "sinfo").write_text(f"#!/bin/sh\necho '{silent}' >&2; exit 1\n")
    code, said = research("sweep", study(), "--on", "slurm")
    assert code == 2 and f"error: {silent}" in said


def test_the_command_line_wins_over_the_study_over_the_site(slurm):
    Path("slurm.yaml").write_text("partition: a\ntime: 1:30:00\ngpus: 1\nsetup: [module load cuda]\n")
    options = read_options({"partition": "b", "gpus": 2, "array-parallelism": 3}, {"gpus": "4"})
    assert options == Options(partition="b", time="1:30:00", gpus=4, array_parallelism=3, setup=("module load cuda",))


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-12", 3600), ("1-0:30", 1470), ("infinite", None), ("0", None)],
)
def test_times_are_read_as_slurm_reads_them(time, expected):
    assert minutes(time) == expected


@pytest.mark.parametrize(
    ("own", "standing", "words"),
    [
        ("new", Standing("7", "PENDING", "Priority"), "queued (job 7: Priority)"),
        ("running", Standing("7", "RUNNING", "None", "n[1-2]"), "running on n[1-2] (job 7)"),
        ("interrupted", Standing("7", "PENDING", "BeginTime", restarts=2),
         "preempted, queued again (job 7, started 3 times: BeginTime)"),
        ("interrupted", Standing("7", "RUNNING", "None", "n1", restarts=1), "running on n1 (job 7, started 2 times)"),
        ("interrupted", Standing("7", "COMPLETED"), "interrupted"),
        ("interrupted", Standing("7", "CANCELLED", "None"), "interrupted: cancelled (job 7)"),
        ("interrupted", Standing("7", "OUT_OF_MEMORY", "OutOfMemory"), "failed: out of memory (job 7, OutOfMemory)"),
        ("interrupted", Standing("7", "NODE_FAIL", "NodeDown", "n1"), "failed: node fail (job 7, NodeDown)"),
        ("finished", Standing("7", "RUNNING", "None", "n1"), "finished"),
        ("running", None, "running"),
    ],
)  # fmt: skip
def test_how_a_run_stands_is_what_it_says_put_right_by_slurm(own, standing, words):
    assert words_of({"status": own}, standing) == words


def test_of_several_nodes_the_first_executes_the_notebook():
    command = Command(("run", "train", "lr=0.1", "nodes=2"), "runs/.sweep/a.log")
    assert command.on(0, "n1:20007").words == ("run", "train", "lr=0.1", "nodes=2", "rendezvous=n1:20007")
    assert command.on(1, "n1:20007") == Command(
        ("train", "lr=0.1", "nodes=2", "rendezvous=n1:20007"), "runs/.sweep/a.node1.log"
    )


# -- the job itself -----------------------------------------------------------------------------------------------


def started(folder: Path, job: Job, node: int = 0, nodes: int = 1) -> subprocess.Popen:
    """``job`` as srun starts it on one of its nodes, which are all this machine."""
    (folder / "jobs").mkdir(exist_ok=True)
    submission = DelayedSubmission(job)
    submission.set_timeout(60, 10)
    submission.dump(folder / "jobs" / "7_submitted.pkl")
    where = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "localhost", "SUBMITIT_EXECUTOR": "slurm"}
    where |= {name: str(nodes) for name in ("SLURM_NTASKS", "SLURM_JOB_NUM_NODES")}
    where |= {name: str(node) for name in ("SLURM_PROCID", "SLURM_NODEID")}
    program = [sys.executable, "-m", "submitit.core._submit", str(folder / "jobs")]
    with open(folder / "printed", "ab") as printed:
        return subprocess.Popen(program, env=os.environ | where, stdout=printed, stderr=printed)


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on_bit_for_bit(slurm, tiny, in_workers):
    slow_steps(in_workers)
    given = {"epochs": 8, "log_interval": 4}
    config = tiny(name="cut", **given)
    words = [f"{name}={json.dumps(value)}" for name, value in config.changes().items() if name != "name"]
    job = Job((Command(("train", *words, "name=cut", f"runs={config.runs}"), str(slurm / "cut.log")),))
    (slurm / "state").write_text("RUNNING\n")
    run = Run(slurm / "runs" / "cut", config)
    process = started(slurm, job)
    begun(run)
    process.send_signal(signal.SIGTERM)  # as a preemption with a time of grace begins
    process.wait(60)
    assert recorded(run.dir)["status"] == "interrupted" and 0 < recorded(run.dir)["step"] < 88
    assert (slurm / "said").read_text() == "scontrol requeue 7\n"
    process = started(slurm, job)
    assert process.wait(120) == 0 and recorded(run.dir)["status"] == "finished"
    assert_same_run(run, fit(Run.create(tiny(name="whole", **given))))


@pytest.mark.slow
def test_a_run_on_two_nodes_meets_at_the_first(slurm, tiny):
    config = tiny(name="two", nodes=2, rendezvous="node-list:0")
    words = [f"{name}={json.dumps(value)}" for name, value in config.changes().items() if name != "rendezvous"]
    job = Job((Command(("run", "train", *words), str(slurm / "two.log")),))
    nodes = [started(slurm, job, node, nodes=2) for node in (0, 1)]
    assert [process.wait(240) for process in nodes] == [0, 0]
    run = Run.open(slurm / "runs" / "two")
    assert recorded(run.dir)["status"] == "finished" and run.config.rendezvous == "localhost:20007"
    assert len(list(run.dir.glob("*.ipynb"))) == 1, "the notebook is executed once"


WAITS = """
import subprocess, sys
from research.launcher.slurm import job
job.start = lambda command, index, among: subprocess.Popen([sys.executable, "-c", command.words[0]])
"""


@pytest.mark.parametrize(
    ("sent", "state", "said", "code"),
    [
        (signal.SIGUSR2, "RUNNING", "scontrol requeue 7\n", 255),  # the time limit comes
        (signal.SIGTERM, "CANCELLED", "", 143),  # scancel
        (signal.SIGTERM, "PENDING", "", 143),  # scontrol requeue: Slurm does it
        (signal.SIGINT, "RUNNING", "", 0),  # research stop
    ],
)
def test_a_job_is_queued_again_unless_it_was_stopped_or_slurm_has_decided(slurm, sent, state, said, code, monkeypatch):
    (slurm / "injected").mkdir()
    (slurm / "injected" / "sitecustomize.py").write_text(WAITS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(slurm / "injected"), str(REPOSITORY)]))
    (slurm / "state").write_text(f"{state}\n")
    ready = slurm / "ready"
    process = started(slurm, Job((Command((f"open({str(ready)!r}, 'w'); import time; time.sleep(60)",), "log"),)))
    wait_until(ready.exists)
    process.send_signal(sent)
    assert process.wait(30) == code, (slurm / "printed").read_text()
    assert (slurm / "said").read_text() == said


def test_packed_runs_share_gpus_evenly(monkeypatch, tmp_path):
    from research.launcher.slurm import job

    seen = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, env, **more: seen.append(env))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    for index in range(4):
        job.start(Command(("train",), str(tmp_path / "log"), gpus=1), index, 4)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["4", "5", "4", "5"]
    assert {(env["RESEARCH_SHARERS"], env["RESEARCH_GPU_SHARERS"]) for env in seen} == {("4", "2")}
