"""Files are whole or not there, and nothing is replaced."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from research import files
from research.files import write_new


def test_new_files_share_the_next_free_name(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"mine")
    assert write_new(tmp_path / "a", {".png": b"1", ".pdf": b"2"}) == tmp_path / "a-2"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.pdf": b"mine",
        "a-2.png": b"1",
        "a-2.pdf": b"2",
    }


@pytest.mark.parametrize("links", [True, False])
def test_without_hard_links_nothing_is_replaced_either(tmp_path, monkeypatch, links):
    def refuse(source, target):
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    assert [write_new(tmp_path / "a", {".png": bytes([n])}).name for n in range(3)] == ["a", "a-2", "a-3"]
    assert [(tmp_path / f"{name}.png").read_bytes() for name in ("a", "a-2", "a-3")] == [b"\0", b"\1", b"\2"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_writer_killed_at_any_moment_leaves_no_empty_file(tmp_path):
    """It is killed before its first call of the system that makes, links or syncs a file, its second, and so on."""
    code = """
import os, sys
from pathlib import Path
from research import files
left = int(sys.argv[2])
def counted(call):
    def wrapped(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return call(*args, **options)
    return wrapped
for name in ("open", "link", "fsync", "unlink", "fchmod"):
    setattr(os, name, counted(getattr(os, name)))
files.write_new(Path(sys.argv[1]) / "figure", {".png": b"picture", ".pdf": b"page"})
os._exit(0)
"""
    ends = []
    for calls in range(30):
        command = [sys.executable, "-c", code, str(tmp_path / str(calls)), str(calls)]
        (tmp_path / str(calls)).mkdir()
        ends.append(subprocess.run(command, cwd=REPOSITORY, check=False).returncode)
        shown = [path for path in (tmp_path / str(calls)).iterdir() if not path.name.startswith(".")]
        assert all(path.read_bytes() in (b"picture", b"page") for path in shown)
        if ends[-1] == 0:
            break
    assert ends[-1] == 0 and len(ends) > 6 and set(ends[:-1]) == {-9}


def test_a_name_taken_meanwhile_leaves_none_of_the_others(tmp_path, monkeypatch):
    link, taken = os.link, []

    def late(source, target):
        if str(target).endswith("a.pdf") and not taken:
            taken.append(target)
            target.write_bytes(b"another's")
        link(source, target)

    monkeypatch.setattr(files.os, "link", late)
    assert write_new(tmp_path / "a", {".png": b"1", ".pdf": b"2"}) == tmp_path / "a-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.pdf", "a-2.png", "a.pdf"]
