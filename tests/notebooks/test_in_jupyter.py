"""Notebooks opened and saved by a Jupyter server, as JupyterLab does; what git then sees."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request

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
def test_shipped_notebook_is_saved_as_it_is(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "signatures"))
    shutil.copy(REPOSITORY / path, tmp_path)
    hook = re.search(r"pre_save_hook=(\S+)", (REPOSITORY / "Makefile").read_text())[1]
    server = LargeFileManager(root_dir=str(tmp_path), pre_save_hook=hook)
    model = server.get(path.name)
    as_lab_has_it(model["content"])
    server.save(model, path.name)
    assert (tmp_path / path.name).read_bytes() == (REPOSITORY / path).read_bytes()


@pytest.fixture
def clone(tmp_path):
    """A repository with the notebooks and what ``make lab`` needs, and the filter of an installed one."""
    folder = tmp_path / "clone"
    for name in ("notebooks", ".ci"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("Makefile", ".gitattributes", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "research").symlink_to(REPOSITORY / "research")

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    subprocess.run([folder / ".ci/filter-notebooks", sys.executable], check=True)
    git("add", "-A")
    git("commit", "-qm", "shipped")
    return folder, git


@pytest.mark.slow
def test_lab_opens_the_training_notebook_asks_nothing_and_saving_it_changes_nothing(clone, tmp_path):
    """A real server, from the command of ``make lab``; the notebook is saved as it was opened, then with outputs."""
    folder, git = clone
    name = "/api/contents/notebooks/train.ipynb"
    lab = Lab(folder, tmp_path)
    lab._start_server()

    def ask(path: str, **more) -> tuple[str, bytes]:
        request = urllib.request.Request(lab.url(path), headers={"Authorization": f"token {lab.token}"}, **more)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.url, answer.read()

    try:
        assert ask("/")[0].endswith("/lab/tree/notebooks/train.ipynb")
        settings = json.loads(ask("/lab/api/settings/@jupyterlab/apputils-extension:notification")[1])
        assert settings["schema"]["properties"]["fetchNews"]["default"] == "false"
        model = json.loads(ask(name)[1])
        notebook = as_lab_has_it(model["content"])
        ask(name, method="PUT", data=json.dumps(model).encode())
        assert git("status", "--porcelain") == ""
        code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        code |= {"execution_count": 1, "outputs": [{"output_type": "stream", "name": "stdout", "text": "ran\n"}]}
        ask(name, method="PUT", data=json.dumps(model).encode())
    finally:
        lab.server.terminate()
        lab.server.wait(30)
    assert "ran" in (folder / "notebooks/train.ipynb").read_text()
    assert git("diff") == ""
