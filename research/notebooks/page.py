"""An executed notebook as one HTML file to send around: figures are in it, and it asks no server for anything."""

from __future__ import annotations

import re
from pathlib import Path

MATH = re.compile(r"\$[^$\n]+\$|\\\(|\\\[|\\begin\{")  # as MathJax looks for it
ALONE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""
NO_MATH = "{%- block html_head_js_mathjax -%}{%- endblock -%}\n"


def page_of(notebook: Path, title: str, folder: Path) -> str:
    """``notebook`` as HTML; images that its texts name are looked for in ``folder``.

    Only formulas in texts make it look for MathJax; without a network they are shown as they were typed.
    """
    import nbformat
    from nbconvert import HTMLExporter

    read = nbformat.read(notebook, as_version=4)
    texts = (cell.source for cell in read.cells if cell.cell_type == "markdown")
    template = ALONE if any(map(MATH.search, texts)) else ALONE + NO_MATH
    exporter = HTMLExporter(raw_template=template, embed_images=True)
    return exporter.from_notebook_node(read, {"metadata": {"name": title, "path": str(folder)}})[0]
