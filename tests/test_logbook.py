import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
from synthetic_runs import write_run

from research import logbook
from research.errors import UsageError
from research.frames import load_runs

TODAY = date.today().isoformat()
WRITER = """
import sys
from research import logbook
path, who, count = sys.argv[1:]
for number in range(int(count)):
    logbook.append(f"{who} {number}", "text of " + who + " " + "x" * 2000, path=path)
    print(number, flush=True)
"""


def writer(path, who, count):
    command = [sys.executable, "-c", WRITER, str(path), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)


def test_entry_is_dated_and_last(tmp_path):
    log = tmp_path / "log.md"
    assert logbook.append("First", "One.", path=log) == log
    logbook.append("Second", path=log)
    assert log.read_text() == f"# Research log\n\n## {TODAY} First\n\nOne.\n\n## {TODAY} Second\n"


def test_same_title_continues_the_last_entry_only(tmp_path):
    log = tmp_path / "log.md"
    for title, text in [("A", "one"), ("A", "two"), ("B", "three"), ("A", "four")]:
        logbook.append(title, text, path=log)
    assert log.read_text() == (
        f"# Research log\n\n## {TODAY} A\n\none\n\ntwo\n\n## {TODAY} B\n\nthree\n\n## {TODAY} A\n\nfour\n"
    )


def test_heading_inside_fenced_code_is_not_an_entry(tmp_path):
    log = tmp_path / "log.md"
    logbook.append("A", "```\n## not a heading\n```", path=log)
    logbook.append("A", "more", path=log)
    assert log.read_text().count(f"## {TODAY} A") == 1


@pytest.mark.parametrize(
    "by_hand", [b"", b"no newline", b"\r\nwin\r\n", b"\xff\xfe not utf-8\n", b"## 2018-11-21 Old\n\n\n"]
)
def test_text_written_by_hand_stays_byte_for_byte(tmp_path, by_hand):
    log = tmp_path / "log.md"
    log.write_bytes(by_hand)
    log.chmod(0o640)
    logbook.append("New", "text", path=log)
    assert log.read_bytes().startswith(by_hand) and f"## {TODAY} New\n\ntext\n".encode() in log.read_bytes()
    assert log.stat().st_mode & 0o777 == 0o640


def test_concurrent_writers_lose_nothing(tmp_path):
    log = tmp_path / "log.md"
    writers = [writer(log, f"w{i}", 15) for i in range(4)]
    assert [process.wait(60) for process in writers] == [0] * 4
    found = re.findall(rf"^## {TODAY} (w\d \d+)$", log.read_text(), re.M)
    assert sorted(found) == sorted(f"w{i} {n}" for i in range(4) for n in range(15))


def test_writer_killed_at_any_moment_leaves_whole_entries(tmp_path):
    log = tmp_path / "log.md"
    for who, delay in enumerate((0.0, 0.003, 0.011)):
        process = writer(log, f"k{who}", 10000)
        process.stdout.readline()  # at least one entry is in
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        said = [0, *map(int, process.stdout.read().split())]
        process.wait()
        kept = re.findall(rf"^## {TODAY} k{who} (\d+)\n\ntext of k{who} x{{2000}}$", log.read_text(), re.M)
        assert [int(n) for n in kept] == list(range(len(kept))) and len(kept) > said[-1]
    logbook.append("after", path=log)  # no lock is left held
    assert log.read_text().endswith(f"## {TODAY} after\n")


def test_figures_are_stored_and_linked_relative_to_the_log(tmp_path):
    from matplotlib.figure import Figure

    log, folder = tmp_path / "notes" / "log.md", tmp_path / "runs" / "log"
    (tmp_path / "made by hand.png").write_bytes(b"png")
    for _ in range(2):
        logbook.append("T", figures=[("Loss curves", Figure()), tmp_path / "made by hand.png"], path=log, folder=folder)
    links = re.findall(r"!\[.*?\]\((.*?)\)", log.read_text())
    assert len(links) == len(set(links)) == 4 and all((log.parent / link).is_file() for link in links)
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{TODAY}-loss-curves-2.pdf",
        f"{TODAY}-loss-curves-2.png",
        f"{TODAY}-loss-curves.pdf",
        f"{TODAY}-loss-curves.png",
        f"{TODAY}-made-by-hand-2.png",
        f"{TODAY}-made-by-hand.png",
    ]


def test_runs_become_a_table_of_what_differs_from_defaults(tmp_path):
    write_run(tmp_path / "runs", "a", lr=0.05)
    logbook.append("T", runs=load_runs(tmp_path / "runs"), path=tmp_path / "log.md")
    assert "| `a` | epochs=3, lr=0.05 | finished | 72.00 |" in (tmp_path / "log.md").read_text()


@pytest.mark.parametrize("locked", ["log.md", "figures", "."])
def test_read_only_places_are_refused_before_anything_is_written(tmp_path, locked):
    log, folder = tmp_path / "log.md", tmp_path / "figures"
    folder.mkdir()
    log.write_text("mine\n")
    before = sorted(os.listdir(tmp_path))
    mode = (tmp_path / locked).stat().st_mode
    (tmp_path / locked).chmod(mode & ~0o222)
    try:
        with pytest.raises(UsageError, match="read-only"):
            logbook.append("T", figures=[("f", None)], path=log, folder=folder)
    finally:
        (tmp_path / locked).chmod(mode)
    assert log.read_text() == "mine\n" and sorted(os.listdir(tmp_path)) == before and not list(folder.iterdir())


def test_impossible_entries_are_refused(tmp_path):
    with pytest.raises(UsageError, match="title"):
        logbook.append("  ", "text", path=tmp_path / "log.md")
    with pytest.raises(UsageError, match="folder"):
        logbook.append("T", path=tmp_path)
    with pytest.raises(UsageError, match="no such figure file"):
        logbook.append("T", figures=["missing.png"], path=tmp_path / "log.md")
    assert not list(tmp_path.iterdir())
