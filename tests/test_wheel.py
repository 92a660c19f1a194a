"""The life of a wheel: built, installed elsewhere, a folder made, and the demo's commands run in it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

STUDY = """
name: small
base: {dataset: digits, model: mnist_mlp, epochs: 1, device: cpu}
grid: {lr: [0.1, 0.05]}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of what git knows of this folder, by way of a source distribution."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in map(Path, map(os.fsdecode, filter(None, names.split(b"\0")))):
        if os.path.lexists(REPOSITORY / name):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, source / name, follow_symlinks=False)
    build = [sys.executable, "-m", "uv", "build", "--offline", "--no-build-isolation", "--out-dir", out, source]
    subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_holds_notebooks_studies_and_documents_of_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("notebooks", "research"):
        for ending in ("ipynb", "yaml", "csv", "py"):
            for path in (REPOSITORY / folder).rglob(f"[!.]*.{ending}"):
                name = path.relative_to(REPOSITORY).as_posix()
                if ".ipynb_checkpoints" not in name and "/shipped/" not in name:
                    assert (f"research/shipped/{name}" if folder == "notebooks" else name) in names
    assert not [name for name in names if name.startswith(("tests", "notebooks", "runs"))]


@pytest.fixture(scope="module")
def research(wheel, tmp_path_factory):
    """``research(*words)``: the command of that wheel, installed in an environment of its own; what it printed."""
    home = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python = home / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", python, wheel]
    subprocess.run(install, check=True, capture_output=True)
    site = next((home / "venv" / "lib").glob("python*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # which has what the wheel depends on
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")  # its files are not found by a path

    def run(*words: str) -> str:
        done = subprocess.run(
            [home / "venv" / "bin" / "research", *words],
            cwd=home / "bench",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    (home / "bench").mkdir()
    run.folder = home / "bench"
    return run


@pytest.mark.slow
def test_a_folder_elsewhere_trains_studies_and_draws(research):
    said = research("init")
    assert "files made" in said
    train = ("run", "train", "model=mnist_mlp", "epochs=1", "device=cpu")
    research(*train, "name=demo-plain", "html=true")
    research(*train, "name=demo-power", "power_grad.alpha=0.5")
    assert (research.folder / "runs" / "demo-plain" / "notebook.html").is_file()
    (research.folder / "notebooks" / "studies" / "small.yaml").write_text(STUDY)
    research("sweep", "small")
    assert "gram-k-small" in research("sweep", "gram-k-small", "--dry-run", "--no-probe")
    assert [line.split()[1] for line in research("runs").splitlines()[1:]] == ["finished"] * 4
    research("run", "analysis/curves", "runs=runs/demo-*", "log=research-log.md", "title=First")
    assert "First" in (research.folder / "research-log.md").read_text()
    assert list((research.folder / "runs" / "log").glob("*.png"))
