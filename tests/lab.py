"""A JupyterLab of a fresh copy of the project, with Chromium before it: what people see, for tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
# all cells stay in the page, so that one below the visible part can be looked at
SETTINGS = {"notebook-extension/tracker": '{"windowingMode": "none"}'}
ERRORS = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
# ready = every cell with code has been numbered and none waits, or an error stopped them, for a second
DONE = """() => {
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
        .filter(cell => cell.querySelector('.cm-content')?.innerText.trim());
    const prompts = cells.map(cell => cell.querySelector('.jp-InputPrompt')?.textContent ?? '');
    const failed = document.querySelector(`ERRORS`);
    const ready = prompts.length && !prompts.some(text => text.includes('[*]'))
        && (failed || prompts.every(text => /\\[\\d+\\]/.test(text)));
    if (!ready) { window.readySince = 0; return false; }
    window.readySince ||= Date.now();
    return Date.now() - window.readySince > 1000;
}""".replace("ERRORS", ERRORS)


def browser() -> str:
    """The program of a browser; the test is skipped where there is none, or nothing that steers it."""
    pytest.importorskip("playwright", reason="no playwright: pip install -e .[browser]")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or pytest.skip(f"no browser ({', '.join(BROWSERS)}): apt-get install chromium")


def fresh_copy(folder: Path) -> Path:
    """The files of this checkout that git knows or would add, and nothing that it ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (source := REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    return folder


class Lab:
    """The server that ``make lab`` starts, in ``project``, with its own settings; and pages of one browser."""

    def __init__(self, project: Path, own: Path):
        self.project, self.own, self.token = project, own, secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> Lab:
        from playwright.sync_api import sync_playwright  # an extra

        for name, text in SETTINGS.items():
            path = self.own / f"settings/@jupyterlab/{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True)
            path.write_text(text)
        self._start_server()
        self.playwright = sync_playwright().start()
        self.context = self.playwright.chromium.launch_persistent_context(
            self.own / "profile", executable_path=browser(), args=FLAGS, viewport={"width": 1400, "height": 1000}
        )
        self.context.set_default_timeout(60_000)
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        self.playwright.stop()
        self.server.terminate()  # which ends the kernels too
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()

    def _start_server(self) -> None:
        made = ["make", "-n", "-s", "lab", "INSTALLED=", f"BIN={Path(sys.executable).parent}"]
        command = subprocess.run(made, cwd=self.project, capture_output=True, text=True, check=True).stdout.strip()
        command += f" --no-browser --port={self.port} --ServerApp.port_retries=0 --IdentityProvider.token={self.token}"
        homes = {"JUPYTER_CONFIG_DIR": "config", "JUPYTERLAB_SETTINGS_DIR": "settings", "IPYTHONDIR": "ipython"}
        homes |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
        environment = {**os.environ, **{name: str(self.own / folder) for name, folder in homes.items()}}
        environment |= {"PYTHONPATH": str(self.project), "OMP_NUM_THREADS": "1"}
        log = self.own / "server.log"
        with open(log, "wb") as output:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.project, env=environment, stdout=output, stderr=output
            )
        for _ in range(480):
            try:
                urllib.request.urlopen(f"{self.url()}/api?token={self.token}", timeout=2)
                return
            except OSError:
                time.sleep(0.25)
        raise RuntimeError(log.read_text())

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @contextmanager
    def opened(self, notebook: str) -> Iterator[Page]:
        """The page of a notebook, by its name under ``notebooks/``; its kernel is shut down afterwards."""
        page = self.context.new_page()
        try:
            page.goto(self.url(f"/doc/tree/notebooks/{notebook}.ipynb?token={self.token}&reset"))
            page.wait_for_selector(".jp-NotebookPanel-toolbar [data-status=idle]", timeout=120_000)
            yield page
        finally:
            page.close()
            self._shut_kernels_down()

    def _shut_kernels_down(self) -> None:
        allowed = {"Authorization": f"token {self.token}"}
        listed = urllib.request.Request(self.url("/api/kernels"), headers=allowed)
        for kernel in json.load(urllib.request.urlopen(listed, timeout=20)):
            place = self.url(f"/api/kernels/{kernel['id']}")
            urllib.request.urlopen(urllib.request.Request(place, headers=allowed, method="DELETE"), timeout=60)


def run_all(page: Page) -> None:
    """Click Run, Run All Cells; returns once the first cell has its turn."""
    first = "document.querySelector('.jp-CodeCell .jp-InputPrompt').textContent"
    before = page.evaluate(first)
    page.click("div.lm-MenuBar-itemLabel:text-is('Run')")
    page.click("li[data-command='runmenu:run-all']")
    page.wait_for_function(f"before => {first} != before", arg=before, polling=20)
    page.evaluate("window.readySince = 0")


def wait_until_done(page: Page, seconds: float = 600) -> None:
    """Wait until all cells have run, or one failed."""
    page.wait_for_function(DONE, timeout=1000 * seconds, polling=200)


def wait_for_text(page: Page, text: str, seconds: float = 300) -> None:
    """Wait until ``text`` stands in the output of a cell."""
    shown = "text => [...document.querySelectorAll('.jp-OutputArea-output')].some(o => o.textContent.includes(text))"
    page.wait_for_function(shown, arg=text, timeout=1000 * seconds, polling=100)


def errors(page: Page) -> list[str]:
    """What cells wrote to stderr, or failed with."""
    return page.locator(ERRORS).all_inner_texts()


def widths(page: Page) -> list[int]:
    """Pixels across each picture in the output of cells."""
    return page.eval_on_selector_all(".jp-OutputArea-output img", "all => all.map(image => image.naturalWidth)")
