import math
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date

import pytest
from conftest import REPOSITORY
from synthetic_runs import write_run

from research import logbook
from research.errors import UsageError
from research.frames import load_runs
from research.runs.run import Run

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
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def test_entry_is_dated_and_last(tmp_path):
    log = tmp_path / "log.md"
    assert logbook.append("First", "One.", path=log) == log
    logbook.append("Second", "more", path=log)
    assert log.read_text() == f"# Research log\n\n## {TODAY} First\n\nOne.\n\n## {TODAY} Second\n\nmore\n"


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
    logbook.append("after", "all", path=log)  # no lock is left held
    assert log.read_text().endswith(f"## {TODAY} after\n\nall\n")


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
        logbook.append("T", "text", path=tmp_path)
    with pytest.raises(UsageError, match="no such figure file"):
        logbook.append("T", figures=["missing.png"], path=tmp_path / "log.md")
    assert not list(tmp_path.iterdir())


BY_HAND = (
    f"# Mine\n\n## 2018-11-22 Old\n\ntext\n\n```\n## 2018-11-23 not a heading\n```\nlast\n\n## {TODAY} New\n\nmore\r\n"
)


def test_update_stands_at_the_end_of_its_entry_and_touches_nothing_else(tmp_path):
    log = tmp_path / "log.md"
    log.write_bytes(BY_HAND.encode())
    logbook.update("Old", "killed it", path=log)
    before, after = BY_HAND.encode().split(b"## " + TODAY.encode())
    assert log.read_bytes() == before + f"**update**: {TODAY}. killed it\n\n## {TODAY}".encode() + after
    logbook.update("New", "and this", path=log)
    assert log.read_bytes().endswith(f"more\r\n\n**update**: {TODAY}. and this\n".encode())


def test_update_belongs_to_the_newest_entry_of_that_title(tmp_path):
    log = tmp_path / "log.md"
    log.write_text("## 2018-11-22 A\n\none\n\n## 2018-11-23 A\n\ntwo\n\n## 2018-11-24 B\n\nthree\n")
    logbook.update("A", "new", path=log)
    assert f"two\n\n**update**: {TODAY}. new\n\n## 2018-11-24 B" in log.read_text()


def test_update_of_an_entry_that_is_not_there_names_the_nearest(tmp_path):
    log = tmp_path / "log.md"
    log.write_bytes(BY_HAND.encode())
    with pytest.raises(UsageError, match="no entry is called 'Odl'; did you mean 'Old'"):
        logbook.update("Odl", "text", path=log)
    assert log.read_bytes() == BY_HAND.encode()


def test_marked_text_is_written_once_and_updated_where_it_stands(tmp_path):
    log = tmp_path / "log.md"
    logbook.append("A", "first", path=log, marks={"one run": "s0", "two": "s0"})
    written = log.read_text()
    assert "<!-- run:one%20run s0 -->" in written and logbook.has({"one run": "s0"}, log)
    logbook.append("Another title", "first", path=log, marks={"two": "s0", "one run": "s0"})
    assert log.read_text() == written
    logbook.append("B", "by hand", path=log)
    logbook.append("A", "second", path=log, marks={"one run": "s1", "three": "s0"})
    text = log.read_text()
    assert (
        text.index("first") < text.index(f"**update**: {TODAY}. second") < text.index("run:three s0") < text.index("B")
    )
    logbook.append("A", "second", path=log, marks={"one run": "s1", "three": "s0"})
    assert log.read_text() == text


MARKED = """
import sys
from research import logbook
for number in range(15):
    logbook.append("Shared", f"part {number}", path=sys.argv[1], marks={f"run{number}": "done"})
    logbook.update("Old", sys.argv[2] + f" {number}", path=sys.argv[1])
"""


def test_concurrent_writers_of_the_same_marks_write_them_once_and_lose_no_update(tmp_path):
    log = tmp_path / "log.md"
    log.write_text(BY_HAND)
    writers = [
        subprocess.Popen([sys.executable, "-c", MARKED, str(log), who], cwd=REPOSITORY) for who in ("a", "b", "c")
    ]
    assert [process.wait(60) for process in writers] == [0] * 3
    text = log.read_text()
    assert all(text.count(f"<!-- run:run{number} done -->") == 1 for number in range(15))
    old = text.partition(f"## {TODAY} New")[0]
    assert sorted(re.findall(r"\*\*update\*\*: \S+ (\w \d+)", old)) == sorted(
        f"{w} {n}" for w in "abc" for n in range(15)
    )


OPEN = {  # text -> what closes it
    "see\n```\ncode": "\n```",
    "~~~~ python\nx\n~~~": "\n~~~~",
    "a comment <!-- left open": " -->",
    "<!-- hidden\n```\ncode": "\n-->",
    "```\n<!--": "\n```",
    "<pre>\n```\ncode\n```": "\n</pre>",
    "<details>\n<summary>a</summary>\n\nmore": "\n</details>",
    "```a``` in a line\n```\ncode": "\n```",
    "<pre>a</pre>\n<!-- b -->\n```\ncode\n```": "",
}


@pytest.mark.parametrize("text", OPEN)
def test_what_a_text_leaves_open_swallows_no_later_entry(tmp_path, text):
    log = tmp_path / "log.md"
    logbook.append("One", text, path=log)
    logbook.append("Two", "after", path=log)
    assert log.read_text().endswith(f" One\n\n{text}{OPEN[text]}\n\n## {TODAY} Two\n\nafter\n")
    assert logbook.update("Two", "more", path=log) == log  # it is seen as an entry of its own


def test_headings_inside_a_comment_are_no_entries(tmp_path):
    log = tmp_path / "log.md"
    log.write_text("# Log\n\n<!-- before:\n## 2020-01-01 Hidden\n-->\n\n## 2020-01-02 Shown\n\ntext\n")
    with pytest.raises(UsageError, match="no entry is called 'Hidden'"):
        logbook.update("Hidden", "more", path=log)
    assert logbook.update("Shown", "more", path=log) == log


def test_a_fence_left_open_by_hand_swallows_no_later_entry(tmp_path):
    log = tmp_path / "log.md"
    log.write_text("# Log\n\nby hand\n\n```\nopen\n")
    logbook.append("Two", "after", path=log)
    assert log.read_text().startswith("# Log\n\nby hand\n\n```\nopen\n")
    assert logbook.update("Two", "more", path=log) == log


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_entry_is_never_a_bare_heading(tmp_path, text):
    with pytest.raises(UsageError, match="'One': nothing to append; a log entry needs a text, figures or runs"):
        logbook.append("One", text, path=tmp_path / "log.md")
    assert list(tmp_path.iterdir()) == []


def test_runs_whose_loss_is_not_finite_say_so_in_the_entry(tiny, tmp_path):
    run = Run.create(tiny(name="wild"))
    run.log("val", loss=math.nan, top1=10.0)
    run.set_status("finished", epoch=1, best_top1=10.0, last_top1=9.0)
    logbook.append("t", "x", runs=load_runs(run.dir), path=tmp_path / "log.md")
    assert "| finished | 9.00, loss not finite | 10.00 |" in (tmp_path / "log.md").read_text()
