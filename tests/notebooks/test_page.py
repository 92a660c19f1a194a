"""A notebook as a page: all of it in one file, beside the executed copy."""

import base64
import re

import nbformat
import pytest

from research.cli import main
from research.notebooks import execute as notebooks

PIXEL = base64.b64encode(b"a picture").decode()


def executed(path, *texts):
    """A notebook with a figure and a printed line in its outputs, and ``texts`` in Markdown cells."""
    outputs = [
        nbformat.v4.new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"}),
        nbformat.v4.new_output("stream", text="top-1 97.5 %"),
    ]
    cells = [nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell("draw()", outputs=outputs, execution_count=1)]
    nbformat.write(nbformat.v4.new_notebook(cells=[*cells, *map(nbformat.v4.new_markdown_cell, texts)]), path)
    return path


@pytest.fixture
def finished(here, monkeypatch):
    """A notebook whose execution gives what it holds."""
    monkeypatch.setattr(notebooks, "_execute", lambda source, output, *_: output.write_bytes(source.read_bytes()))
    return executed(here / "a.ipynb", "costs $3")


def asked_for(page: str) -> list[str]:
    """What a browser fetches to show the page."""
    return re.findall(r"<(?:script|link|img)\b[^>]*?(?:src|href)=[\"'](?!data:)([^\"']+)", page)


def test_a_page_has_code_output_and_figures_and_asks_no_server(finished, here):
    assert main(["run", "a.ipynb", "html=true"]) == 0
    notebook, page = sorted((here / "runs" / "analysis").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert (notebook.stem, notebook.suffix, page.suffix) == (page.stem, ".ipynb", ".html")
    text = page.read_text()
    assert f"data:image/png;base64,{PIXEL}" in text and "top-1 97.5 %" in text and "draw" in text
    assert f"<title>{page.stem}</title>" in text
    assert asked_for(text) == [] and "cdn" not in text


def test_formulas_in_texts_are_set_where_there_is_a_network(here):
    source = executed(here / "b.ipynb", "loss $-\\log p$")
    assert ["mathjax" in url for url in asked_for(notebooks.page_of(source, "b", here))] == [True]


def test_without_html_there_is_no_page(finished, here):
    assert main(["run", "a.ipynb"]) == 0 and main(["run", "a.ipynb", "html=false"]) == 0
    assert {path.suffix for path in (here / "runs" / "analysis").iterdir()} == {".ipynb"}


def test_a_page_replaces_nothing(finished, here):
    (here / "out.html").write_text("mine")
    kept = notebooks.execute("a.ipynb", output=here / "out.ipynb", html=True)
    assert kept == here / "out.ipynb" and (here / "out.html").read_text() == "mine"
    assert (here / "out-2.html").is_file()


def test_only_true_and_false_are_meant(finished, capsys):
    assert main(["run", "a.ipynb", "html=report.html"]) == 2
    assert capsys.readouterr().err == "error: html='report.html': expected true or false\n"


def test_a_notebook_may_have_a_parameter_of_that_name(here, monkeypatch):
    passed = {}

    def execute(source, output, parameters, progress):
        passed.update(parameters)
        output.write_bytes(source.read_bytes())

    monkeypatch.setattr(notebooks, "_execute", execute)
    cells = [nbformat.v4.new_code_cell("html = ''", metadata={"tags": ["parameters"]})]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), here / "own.ipynb")
    assert main(["run", "own.ipynb", "html=x"]) == 0
    assert passed == {"html": "x"} and not list(here.rglob("*.html"))
