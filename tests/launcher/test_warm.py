"""Processes that start warm: as if each were a new Python, children of who asked, and none in danger from another."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from research.launcher.warm import Command, Server

MODULE = "what_the_test_starts"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that has imported little."""
    before = os.environ.get("PYTHONPATH", "")
    folder = tmp_path_factory.mktemp("modules")
    (folder / f"{MODULE}.py").write_text(textwrap.dedent(PROGRAM))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [before])])
    one = Server(["json", "a_module_that_is_not_there"])
    yield one
    one.close()
    os.environ["PYTHONPATH"] = before


PROGRAM = """
    import json, os, signal, sys, time
    from pathlib import Path
    from research.launcher import warm

    def told():
        return {
            "arguments": sys.argv[1:],
            "main": __name__,
            "environment": os.environ.get("TOLD"),
            "folder": os.getcwd(),
            "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            "leads": os.getsid(0) == os.getpid(),
            "parent": os.getppid(),
            "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
            "input": os.readlink("/proc/self/fd/0"),
            "process": os.getpid(),
            "warm": "what_the_test_starts" not in Path("/proc/self/cmdline").read_text(),
        }

    what, *rest = sys.argv[1:]
    print(json.dumps(told()))
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "sleep":
        time.sleep(60)
    if what == "nest":
        below = warm.start(warm.Command(__spec__.name, rest, {**os.environ, "TOLD": "below"}, Path(rest[-1])))
        sys.exit(below.wait())
    if what == "raise":
        raise ValueError("as any program may")
    sys.exit(int(rest[0]) if what == "exit" else 0)
"""


def command(tmp_path, *arguments, **environment):
    return Command(MODULE, arguments, os.environ | environment, tmp_path / "printed")


def told(path):
    return json.loads(path.read_text().splitlines()[0])


def test_what_is_started_is_as_a_new_python_would_be(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warm = command(tmp_path, "exit", "7", TOLD="word")
    assert server.start(warm).wait(60) == 7
    with open(tmp_path / "cold", "wb") as cold:
        python = [sys.executable, "-m", MODULE, *warm.arguments]
        alike = {"stdin": subprocess.DEVNULL, "start_new_session": True}
        assert subprocess.run(python, env=warm.environment, stdout=cold, **alike).returncode == 7
    found, expected = told(tmp_path / "printed"), told(tmp_path / "cold")
    for each in (found, expected):
        each.pop("process"), each.pop("parent")
    assert found.pop("warm") and not expected.pop("warm") and found == expected


def test_a_command_below_is_warm_and_a_child_of_who_started_it(server, tmp_path):
    """Three generations from one server; the fourth, for which no spare is left, is a new Python."""
    output = tmp_path / "printed"
    assert server.start(command(tmp_path, "nest", "nest", "nest", "exit", "5", str(output))).wait(60) == 5
    generations = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["warm"] for each in generations] == [True, True, True, False]
    assert [each["parent"] for each in generations[1:]] == [each["process"] for each in generations[:-1]]
    assert [each["environment"] for each in generations[1:]] == ["below"] * 3


KEEPER = """
    import os, sys, threading, time
    from pathlib import Path
    from research.launcher import warm
    from research.launcher.zygote import keep_spare

    if "threads" in sys.argv:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    before = dict(os.environ)
    keep_spare(["json"], spares=2)
    assert os.environ == before
    arguments = ["nest", "nest", "exit", "5", sys.argv[1]]
    command = warm.Command("what_the_test_starts", arguments, before, Path(sys.argv[1]))
    sys.exit(warm.start(command).wait())
"""


@pytest.mark.parametrize(("begun", "expected"), [([], [True, True, False]), (["threads"], [False, False, False])])
def test_a_process_keeps_a_spare_for_what_it_starts_unless_it_has_threads(server, tmp_path, begun, expected):
    keeper, output = tmp_path / "keeper.py", tmp_path / "printed"
    keeper.write_text(textwrap.dedent(KEEPER))
    program = [sys.executable, str(keeper), str(output), *begun]
    assert subprocess.run(program, stdin=subprocess.PIPE, timeout=60).returncode == 5
    generations = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each["warm"] for each in generations] == expected
    assert {each["input"] for each in generations} == {os.devnull}
    assert [each["parent"] for each in generations[1:]] == [each["process"] for each in generations[:-1]]


def test_a_spare_that_nobody_needs_ends_with_who_kept_it():
    program = "import psutil; from research.launcher.zygote import keep_spare; keep_spare([]); "
    program += "print([each.pid for each in psutil.Process().children()])"
    (spare,) = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(spare) and psutil.Process(spare).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_crashes_or_is_killed_ends_alone(server, tmp_path):
    crash = server.start(command(tmp_path, "crash"))
    assert crash.wait(60) == -signal.SIGSEGV
    first, second = (server.start(command(tmp_path, "sleep")) for _ in range(2))
    first.kill()
    assert first.wait(60) == -signal.SIGKILL
    assert second.poll() is None and server.start(command(tmp_path, "exit", "0")).wait(60) == 0
    second.terminate()
    assert second.wait(60) == -signal.SIGTERM


def test_an_error_is_printed_and_told(server, tmp_path):
    assert server.start(command(tmp_path, "raise")).wait(60) == 1
    assert (tmp_path / "printed").read_text().endswith("ValueError: as any program may\n")


def test_a_server_that_is_gone_costs_time_and_nothing_else(tmp_path, server):
    short = Server([])
    running = short.start(command(tmp_path, "sleep"))
    os.kill(short._process.pid, signal.SIGKILL)
    running_on = psutil.Process(running.pid)
    assert short.start(command(tmp_path, "exit", "3")).wait(60) == 3
    assert running.poll() is None  # it is asked to stop by what it said it wants at its parent's death, here nothing
    running_on.kill()
    assert running.wait(60) == -signal.SIGKILL
    short.close()


def test_what_nobody_waits_for_ends_with_its_server(tmp_path):
    short = Server([])
    alone = short.start(command(tmp_path, "exit", "0"))
    assert alone.wait(60) == 0
    left = psutil.Process(short._process.pid).children(recursive=True)
    deadline = time.monotonic() + 10
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in left):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    short.close()


def test_modules_that_begin_threads_are_refused(tmp_path, monkeypatch, capfd):
    (tmp_path / "begins_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    refused = Server(["begins_a_thread"])
    assert refused.start(Command("this", [], dict(os.environ), tmp_path / "printed")).wait(60) == 0  # a new Python
    assert "begins threads" in capfd.readouterr().err
    refused.close()
