"""The trials: each injects one fault, knows the end that it must have, and proves that nothing finished was lost.

A trial takes a random stream and an empty folder and returns ``IDENTICAL`` (it went on to what it would have been),
``TOLD`` (it went on, and said what it could not restore), ``REFUSED`` (one clear line, nothing changed), or
``UNTRIED`` where the fault cannot be made on this machine, which proves nothing; everything else raises.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import psutil
from injection import Lost, Process, Training, at_step, at_touch, die, ended, python, same

from research.data.ffcv import beton
from research.launcher import watch
from research.log import logbook
from research.processes import STOP_SIGNALS
from research.runs.metrics import read_rows
from research.runs.run import Run
from research.runs.status import recorded

IDENTICAL, TOLD, REFUSED = "identical", "went on, loss told", "refused clearly"
UNTRIED = "not tried"
SECONDS = 120.0  # that anything in a trial may take
STEPS = 33  # of a small run: 3 epochs of 11
Trial = Callable[[Random, Path], str]
TRIALS: dict[str, tuple[int, Trial]] = {}  # name -> how many of 1,000, the trial


def trial(share: int):
    def register(function: Trial) -> Trial:
        TRIALS[function.__name__.replace("_", " ")] = share, function
        return function

    return register


def both(random: Random, folder: Path, **given) -> tuple[Training, Training]:
    """A run that nothing happens to, finished, and one that is to suffer."""
    seed = random.random()
    whole, other = (Training(folder / name, Random(seed), **given) for name in ("whole", "other"))
    done = whole.train()
    expect(done.code == 0, f"the undisturbed run ended with {done}")
    return whole, other


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise Lost(otherwise)


def a_line(done) -> None:
    expect(done.code == 2 and done.said and "Traceback" not in done.said, f"no clear line: {done}")


def go_on(whole: Training, other: Training) -> str:
    """Train to the end, from no earlier than the newest whole checkpoint, to the same end."""
    before = other.reached()
    done = other.train()
    expect(done.code == 0, f"does not continue: {done}")
    expect(other.reached() >= before, "went back")
    same(whole, other)
    return IDENTICAL


def interrupt_often(random: Random, whole: Training, other: Training, once: Callable[[], object]) -> str:
    """``once`` one to three times, each after the other, and then to the end."""
    reached = 0
    for _ in range(random.randint(1, 3)):
        once()
        expect(other.reached() >= reached, "a whole checkpoint is gone")
        reached = other.reached()
    return go_on(whole, other)


@trial(180)
def kill_9_of_training_at_a_random_time(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)

    def once():
        process = other.begin()
        time.sleep(random.uniform(0, 0.6))
        process.send(signal.SIGKILL)
        process.wait()

    return interrupt_often(random, whole, other, once)


@trial(220)
def kill_9_of_training_at_a_touch_of_the_disk(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)
    return interrupt_often(random, whole, other, lambda: other.train(lambda: at_touch(random.randint(1, 220), die)))


@trial(60)
def kill_9_of_training_inside_a_step(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)
    step = random.randint(1, STEPS)
    other.train(lambda: at_step(step, lambda run: die()))
    return go_on(whole, other)


@trial(110)
def signal_to_training(random: Random, folder: Path) -> str:
    """Every signal that asks for a stop, at a chosen step: a checkpoint of that step, and status interrupted."""
    whole, other = both(random, folder)
    step, number = random.randint(1, STEPS - 1), random.choice(STOP_SIGNALS)
    done = other.train(lambda: at_step(step, lambda run: os.kill(os.getpid(), number)))
    expect(done.code == 143, f"{number.name}: {done}")
    expect(other.reached() == step, f"stopped in step {step} with a checkpoint of step {other.reached()}")
    expect(recorded(other.run.dir)["status"] == "interrupted", "another status")
    return go_on(whole, other)


@trial(20)
def other_signals_to_training(random: Random, folder: Path) -> str:
    """Whatever else may arrive at any time, and several at once."""
    whole, other = both(random, folder)

    def once():
        process = other.begin()
        time.sleep(random.uniform(0, 0.5))
        for _ in range(random.randint(1, 4)):
            process.send(random.choice([signal.SIGQUIT, signal.SIGALRM, signal.SIGSEGV, signal.SIGPIPE, *STOP_SIGNALS]))
        process.wait()

    return interrupt_often(random, whole, other, once)


@trial(60)
def damaged_checkpoint(random: Random, folder: Path) -> str:
    """The newest, or all: passed over with a note, or refused until the user's word."""
    whole, other = both(random, folder)
    other.train(lambda: at_step(random.randint(24, STEPS), lambda run: die()))
    found = sorted(other.run.paths.checkpoints.glob("[0-9]*.pt"), reverse=True)
    expect(len(found) == 2, "two checkpoints are kept")
    every, how = random.random() < 0.5, random.choice(["flip", "cut", "empty", "zeros", "swap", "renamed"])
    for path in found if every else found[:1]:
        damage(path, how, random)
    if not every:
        done = other.train()
        expect(done.code == 0, f"does not continue: {done}")
        same(whole, other)
        expect("is damaged" in other.notes(), "not told")
        return IDENTICAL
    rows = other.run.paths.metrics.read_bytes()
    for _ in range(random.randint(1, 2)):
        a_line(other.train())
        expect(other.run.paths.metrics.read_bytes() == rows, "rows were dropped")
        expect(len(list(other.run.paths.checkpoints.iterdir())) == 2, "a damaged checkpoint was removed")
    done = other.train(start_over=True)
    expect(done.code == 0, f"does not start over: {done}")
    same(whole, other)
    return REFUSED


def damage(path: Path, how: str, random: Random) -> None:
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif how == "zeros":
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    elif how == "swap":
        content = bytearray(random.randbytes(500))
    elif how == "renamed":
        path.rename(path.with_name(f"9{path.name[1:]}"))
        return
    path.write_bytes({"cut": content[: random.randrange(len(content))], "empty": b""}.get(how, content))


@trial(40)
def damaged_metrics(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)
    other.train(lambda: at_step(random.randint(13, STEPS), lambda run: die()))
    path = other.run.paths.metrics
    content, how = path.read_bytes(), random.choice(["cut", "missing", "zeros"])
    at = random.randrange(len(content) // 4)
    path.write_bytes(content[:at] + (bytes(len(content) - at) if how == "zeros" else b""))
    if how == "missing":
        path.unlink()
    done = other.train()
    expect(done.code == 0, f"does not continue: {done}")
    same(whole, other, rows=False)
    expected, found = whole.result()[1], other.result()[1]
    expect(found == [row for row in expected if row in found], "a row was made up")
    expect(b"\0" not in path.read_bytes(), "zeros in the rows")
    expect("is not what it was" in other.notes(), "not told")
    return TOLD


@trial(60)
def damaged_missing_or_odd_file_of_the_run(random: Random, folder: Path) -> str:
    """Everything but checkpoints and metrics: what training does not need is mended, what it needs is refused."""
    whole, other = both(random, folder)
    other.train(lambda: at_step(random.randint(13, STEPS), lambda run: die()))
    paths, how = other.run.paths, random.choice(["damaged", "missing", "empty", "folder"])
    path = random.choice([paths.config, paths.status, paths.environment, paths.lock, paths.best])
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes(random.randbytes(40) if how == "damaged" else b"")
    reached, done = other.reached(), other.train()
    expect(other.reached() >= reached, "a checkpoint is gone")
    if done.code == 2:
        a_line(done)
        if how == "folder":
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if path == paths.config:
            shutil.copy(whole.run.paths.config, path)
        go_on(whole, other)
        return REFUSED
    expect(done.code == 0, f"{how} {path.name}: {done}")
    same(whole, other)
    return IDENTICAL


@trial(20)
def files_of_another_run(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)
    foreign = Training(folder / "foreign", random, seed=1, epochs=2)
    foreign.train()
    other.train(lambda: at_step(random.randint(13, STEPS), lambda run: die()))
    shutil.rmtree(other.run.paths.checkpoints)
    shutil.copytree(foreign.run.paths.checkpoints, other.run.paths.checkpoints)
    done = other.train()
    a_line(done)
    expect("belongs to another configuration" in done.said, done.said)
    return REFUSED


SIZES = [round(2 ** (k / 2)) * 40 for k in range(16)]  # kB: from nothing of a run to all of it


@trial(48)
def full_disk(random: Random, folder: Path) -> str:
    """A file system of one of 16 sizes: a line, and once there is room the same end."""
    whole, other = both(random, folder)
    size, place = random.choice(SIZES), folder / "other"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place], capture_output=True).returncode:
        return UNTRIED  # not allowed here
    try:
        done = other.train()
        if done.code:
            a_line(done)
        reached = other.reached()
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        expect(other.reached() == reached, "a checkpoint is gone")
        go_on(whole, other)
        return REFUSED if done.code else IDENTICAL
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@trial(15)
def two_trainers_of_one_run(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)

    def impatient():
        alone = Run.alone
        Run.alone = lambda run, patience=0.05: alone(run, patience)

    first, second = (other.begin(impatient) for _ in range(2))
    ends = sorted([first.wait(), second.wait()])
    expect(ends[0].code == 0, f"none trained: {ends}")
    if ends[1].code:
        a_line(ends[1])
        expect("is being trained by another process" in ends[1].said, ends[1].said)
    same(whole, other)
    return REFUSED if ends[1].code else IDENTICAL


@trial(15)
def clock_that_jumps(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)

    def jump():
        now = time.time
        time.time = lambda: now() + random.uniform(-1e9, 1e9)

    other.train(lambda: (jump(), at_step(random.randint(2, STEPS), lambda run: die())))
    expect(other.train(jump).code == 0, "does not end")
    same(whole, other)
    return IDENTICAL


@trial(25)
def loss_that_is_no_number(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)
    step = random.randint(1, STEPS)

    def poison(run):
        for parameter in run.model.parameters():
            parameter.grad.fill_(float("nan"))

    done = other.train(lambda: at_step(step, poison))
    a_line(done)
    expect("not finite" in done.said or "loss is nan" in done.said, done.said)
    expect(recorded(other.run.dir)["status"] == "failed", "another status")
    go_on(whole, other)
    return REFUSED


@trial(25)
def method_that_raises(random: Random, folder: Path) -> str:
    whole, other = both(random, folder)

    def fail(run):
        raise ZeroDivisionError("in a method")

    done = other.train(lambda: at_step(random.randint(1, STEPS), fail))
    expect(done.code == 3 and "in a method" in done.said, f"{done}")
    said = recorded(other.run.dir)
    expect(said["status"] == "failed" and "in a method" in said["traceback"], "not on record")
    return go_on(whole, other)


class Ranks:
    """Two processes that train one run together."""

    def __init__(self, training: Training, port: int, sabotage: Callable[[int], None] = lambda rank: None):
        self.processes = [Process(lambda rank=rank: self._train(training, port, rank, sabotage)) for rank in range(2)]

    def _train(self, training: Training, port: int, rank: int, sabotage: Callable[[int], None]) -> None:
        from research.processes import stop_on_signals
        from research.training import worker

        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        stop_on_signals()
        sabotage(rank)
        worker.train(str(training.run.dir))

    def wait(self) -> list:
        """How both ended; when one failed, an agent ends the other, and so does this."""
        left, ends = dict(enumerate(self.processes)), {}
        while left:
            for rank, process in list(left.items()):
                done = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if done is not None:
                    ends[rank] = left.pop(rank).wait()
                    if ends[rank].code and left:
                        time.sleep(0.5)
                        for other in left.values():
                            other.send(signal.SIGKILL if ends[rank].code != 143 else signal.SIGTERM)
            time.sleep(0.005)
        return [ends[rank] for rank in sorted(ends)]


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def pair(random: Random, folder: Path) -> tuple[Training, Training]:
    """The same run twice, for two processes; one is finished."""
    seed = random.random()
    found = [Training(folder / name, Random(seed), processes=2) for name in ("whole", "other")]
    for each in found:
        Run.create(each.config)
    expect([end.code for end in Ranks(found[0], free_port()).wait()] == [0, 0], "two processes do not train")
    return found[0], found[1]


def together(whole: Training, other: Training) -> str:
    expect([end.code for end in Ranks(other, free_port()).wait()] == [0, 0], "two processes do not continue")
    same(whole, other)
    return IDENTICAL


@trial(30)
def kill_9_of_one_of_two_processes(random: Random, folder: Path) -> str:
    whole, other = pair(random, folder)
    victim, step = random.randrange(2), random.randint(1, STEPS)
    Ranks(other, free_port(), lambda rank: rank == victim and at_step(step, lambda run: die())).wait()
    return together(whole, other)


@trial(30)
def signal_to_one_of_two_processes(random: Random, folder: Path) -> str:
    """Both stop after the same step, within one of the signal, between two rows of metrics too."""
    whole, other = pair(random, folder)
    victim, step, number = random.randrange(2), random.randint(1, STEPS - 2), random.choice(STOP_SIGNALS)

    def sabotage(rank):
        if rank == victim:
            at_step(step, lambda run: os.kill(os.getpid(), number))

    ends = Ranks(other, free_port(), sabotage).wait()
    expect([end.code for end in ends] == [143, 143], f"{ends}")
    expect(step <= other.reached() <= step + 1, f"asked in step {step}, stopped after {other.reached()}")
    expect(recorded(other.run.dir)["status"] == "interrupted", "another status")
    return together(whole, other)


@trial(10)
def method_that_raises_on_one_rank(random: Random, folder: Path) -> str:
    whole, other = pair(random, folder)

    def fail(run):
        raise ZeroDivisionError("on one rank")

    step, victim = random.randint(1, STEPS), random.randrange(2)
    Ranks(other, free_port(), lambda rank: rank == victim and at_step(step, fail)).wait()
    said = recorded(other.run.dir)
    expect(said["status"] == "failed" and "on one rank" in said["traceback"], f"not on record: {said}")
    return together(whole, other)


@trial(8)
def rank_that_hangs(random: Random, folder: Path) -> str:
    """One of two stops moving in a step: it is named with its last step; ended as a launcher ends them, both go on."""
    whole, other = pair(random, folder)
    victim, step = random.randrange(2), random.randint(2, STEPS)
    looking = watch.Watch(Run(other.run.dir, replace(other.config, hang_minutes=0.1)))

    def sabotage(rank):
        if rank == victim:
            at_step(step, lambda run: time.sleep(SECONDS))

    ranks = Ranks(other, free_port(), sabotage)
    try:
        for _ in range(round(SECONDS / 0.02)):
            looking.look()
            time.sleep(0.02)
        raise Lost("not seen")
    except watch.Hung as error:
        # the other waits for it, in the next step or in the same one
        told = rf"ranks? (0, )?{victim}(, 1)? made no step for \S+ minutes \(last step {step - 1}, in the next step\)"
        expect(bool(re.match(told, str(error))), f"rank {victim} hung in step {step}: {error}")
    finally:
        for process in ranks.processes:
            process.send(signal.SIGKILL)
        ranks.wait()
    return together(whole, other)


@trial(60)
def kill_9_of_writers_of_the_log(random: Random, folder: Path) -> str:
    """Several at once, one of them killed at a touch of the disk: every finished entry is there, whole, once."""
    log = folder / "log.md"
    log.write_text("# Mine\n\nwritten by hand\n")

    def write(writer: int, entries: int):
        for entry in range(entries):
            logbook.append(f"entry {writer}-{entry}", f"text {writer}-{entry} end", path=log, folder=folder / "figures")
            (folder / f"done-{writer}-{entry}").touch()

    def doomed():
        at_touch(random.randint(1, 60), die)
        write(0, 4)

    processes = [Process(doomed), *(Process(lambda n=n: write(n, 3)) for n in (1, 2))]
    codes = [process.wait().code for process in processes]
    expect(codes[1:] == [0, 0], f"a writer failed: {codes}")
    text = log.read_text()
    expect(text.startswith("# Mine\n\nwritten by hand\n"), "what was written by hand is gone")
    for done in folder.glob("done-*"):
        name = done.name.removeprefix("done-")
        expect(text.count(f"text {name} end") == 1, f"entry {name}")
    heads = re.findall(r"^## \S+ entry (\S+)$", text, re.M)
    expect(all(f"text {name} end" in text for name in heads), "a head without its text")
    logbook.append("after", "all is well", path=log, folder=folder / "figures")
    return IDENTICAL


@trial(12)
def kill_9_of_a_beton_writer(random: Random, folder: Path) -> str:
    """No file or a whole one, and the next call writes it."""
    out = folder / "out"
    out.mkdir()
    process = Process(lambda: beton.write("digits", out=out, splits=["val"]))
    time.sleep(random.uniform(0, 1.0))
    for child in [*psutil.Process(process.pid).children(recursive=True), process] if process else []:
        try:
            child.send(signal.SIGKILL) if isinstance(child, Process) else child.kill()
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    process.wait()
    target = out / "digits-val.beton"
    if not target.exists():
        done = ended(lambda: beton.write("digits", out=out, splits=["val"]), 120)
        expect(done.code == 0, f"cannot be written again: {done}")
    done = ended(lambda: beton.verify(target))
    expect(done.code == 0, f"not whole: {done}")
    return IDENTICAL


@trial(10)
def kill_9_of_launcher_notebook_or_sweep(random: Random, folder: Path) -> str:
    """While its run trains: all processes below it end, and the same command gives what the undisturbed one gave."""
    whole = Training(folder / "whole", random, hooks={}, epochs=40)
    expect(whole.train().code == 0, "the undisturbed run")
    other = Training(folder / "other", random, **whole.given | {"runs": str(folder / "other")})
    study, base = folder / "study.yaml", {key: value for key, value in other.given.items() if key != "name"}
    study.write_text(json.dumps({"name": "run", "base": base}))
    words = [f"{key}={json.dumps(value)}" for key, value in other.given.items() if value != {}]
    command = random.choice([("train", *words), ("run", "train", *words), ("sweep", str(study))])
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(python("research", *command), **silent, start_new_session=True)
    step, end = random.randint(1, 300), time.monotonic() + SECONDS
    while step > max((row["step"] for row in read_rows(other.run.paths.metrics)), default=0):
        expect(process.poll() is None and time.monotonic() < end, f"{command[0]} trains nothing")
        time.sleep(0.01)
    below = psutil.Process(process.pid).children(recursive=True)
    expect(len(below) > 0 and other.run.status["status"] == "running", f"{command[0]} has ended already")
    process.send_signal(random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]))
    process.wait(SECONDS)
    gone, alive = psutil.wait_procs(below, timeout=45)
    expect(not alive, f"left alive: {alive}")
    reached = other.reached()
    done = subprocess.run(python("research", *command), capture_output=True, text=True, timeout=SECONDS)
    expect(done.returncode == 0, f"{command[0]} does not continue: {done.stdout} {done.stderr}")
    expect(other.reached() >= reached, "went back")
    same(whole, other)
    return IDENTICAL


@trial(5)
def kill_9_of_an_analysis(random: Random, folder: Path) -> str:
    """The log is whole, and the same command writes the entry."""
    trained = Training(folder, random)
    expect(trained.train().code == 0, "the run")
    log = folder / "log.md"
    words = [
        "research",
        "run",
        "analysis/curves",
        f"runs={trained.run.dir}",
        f"log={log}",
        f"folder={folder / 'figures'}",
    ]
    process = subprocess.Popen(python(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(random.uniform(1, 12))
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=45)
    expect(not alive, f"left alive: {alive}")
    done = subprocess.run(python(*words), capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, done.stderr)
    text = log.read_text()
    expect(text.count("\n## ") == 1, "one entry")
    for link in re.findall(r"\]\(([^)]+\.png)\)", text):
        expect((log.parent / link).stat().st_size > 0, f"{link} is empty")
    return IDENTICAL
