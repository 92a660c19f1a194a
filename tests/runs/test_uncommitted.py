"""Whether the code of a run is committed is asked of git without what git does for notebooks."""

import subprocess

from research.runs.environment import UNCOMMITTED


def git(folder, *words):
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    return subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True).stdout


def test_changed_code_is_told_and_no_filter_is_started_for_notebooks(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text("*.ipynb filter=slow\n")
    (tmp_path / "package").mkdir()
    for name in ("code.py", "a.ipynb", "package/b.ipynb"):
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    git(tmp_path, "config", "filter.slow.clean", f"touch '{tmp_path / 'started'}'; cat")
    for name in ("a.ipynb", "package/b.ipynb"):
        (tmp_path / name).write_text("2\n")
    assert git(tmp_path / "package", *UNCOMMITTED) == "" and not (tmp_path / "started").exists()
    (tmp_path / "code.py").write_text("2\n")
    assert git(tmp_path / "package", *UNCOMMITTED) == " M code.py\n"
    assert "b.ipynb" in git(tmp_path, "status", "--porcelain") and (tmp_path / "started").exists()
