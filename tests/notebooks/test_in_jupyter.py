"""Notebooks opened and saved by a Jupyter server, as JupyterLab does; what git then sees."""

import json
import shutil
import subprocess
import sys
import urllib.request

import nbformat
import pytest
from conftest import REPOSITORY
from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from lab import Lab

NOTEBOOKS = sorted(
    path.relative_to(REPOSITORY)
    for path in (REPOSITORY / "notebooks").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)


def as_lab_has_it(notebook: dict) -> dict:
    """What JupyterLab writes into a notebook that it opens with a kernel."""
    kernel = KernelSpecManager().get_kernel_spec("python3")
    named = {"name": "python3", "display_name": kernel.display_name, "language": kernel.language}
    notebook["metadata"] |= {"kernelspec": named, "language_info": dict(IPythonKernel.language_info)}
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shipped_notebook_is_saved_as_it_is_but_for_the_version_of_python(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "signatures"))
    shutil.copy(REPOSITORY / path, tmp_path)
    server = LargeFileManager(root_dir=str(tmp_path))
    model = server.get(path.name)
    as_lab_has_it(model["content"])
    server.save(model, path.name)
    saved = nbformat.read(tmp_path / path.name, nbformat.NO_CONVERT)
    del saved.metadata.language_info["version"]
    assert nbformat.writes(saved) + "\n" == (REPOSITORY / path).read_text()


@pytest.fixture
def clone(tmp_path):
    """A repository with the notebooks and what ``make lab`` needs, and the filter of an installed one."""
    folder = tmp_path / "clone"
    for name in ("notebooks", ".ci"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("Makefile", ".gitattributes", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder / name)

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "core.safecrlf=false"]
        return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    subprocess.run([folder / ".ci/filter-notebooks", sys.executable], check=True)
    git("add", "-A")
    git("commit", "-qm", "shipped")
    return folder, git


@pytest.mark.slow
def test_lab_opens_the_training_notebook_asks_nothing_and_saving_it_changes_nothing(clone, tmp_path):
    """A real server, from the command of ``make lab``; the notebook is saved with the outputs of a run."""
    folder, git = clone
    committed = git("show", "HEAD:notebooks/train.ipynb")
    assert committed == (REPOSITORY / "notebooks/train.ipynb").read_text()
    lab = Lab(folder, tmp_path)
    lab._start_server()

    def ask(path: str, **more):
        headers = {"Authorization": f"token {lab.token}"}
        return urllib.request.urlopen(urllib.request.Request(lab.url(path), headers=headers, **more), timeout=60)

    try:
        with ask("/") as first:
            assert first.url.endswith("/lab/tree/notebooks/train.ipynb")
        with ask("/lab/api/settings/@jupyterlab/apputils-extension:notification") as settings:
            assert json.load(settings)["schema"]["properties"]["fetchNews"]["default"] == "false"
        with ask("/api/contents/notebooks/train.ipynb") as opened:
            model = json.load(opened)
        notebook = as_lab_has_it(model["content"])
        code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        code |= {"execution_count": 1, "outputs": [{"output_type": "stream", "name": "stdout", "text": "ran\n"}]}
        ask("/api/contents/notebooks/train.ipynb", method="PUT", data=json.dumps(model).encode()).close()
    finally:
        lab.server.terminate()
        lab.server.wait(30)
    assert "ran" in (folder / "notebooks/train.ipynb").read_text()
    assert git("status", "--porcelain") == ""
