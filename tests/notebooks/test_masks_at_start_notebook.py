"""The notebook of numbers at initialisation: its tables and figure, and one entry."""

import re

from conftest import cells

from research.runs.run import Run
from research.training.loop import fit


def test_static_masks_become_a_figure_tables_and_one_entry(here, tiny, monkeypatch):
    for power in (0, 1, 2):
        for sparsity in (0.9, 0.98):
            hooks = {"static_sparse": {"sparsity": sparsity, "distribution": "er", "er_power": power}}
            fit(Run.create(tiny(name=f"m-{power}-{sparsity}", epochs=1, hooks=hooks)))
    hooks = {"static_sparse": {"sparsity": 0.9, "copy_mask_from": "m-1-0.9", "shuffle": "layer"}}
    fit(Run.create(tiny(name="copied", epochs=1, hooks=hooks)))
    left = cells("analysis/masks_at_start", monkeypatch, log="log.md")
    assert len(left["made"]) == 6 and list(left["foreign"]["run"]) == ["copied"]
    log = (here / "log.md").read_text()
    assert re.search(r"^\| ldi \| 6 \| ", log, re.M) and re.search(r"^\| weights, LDI \| copied \| 1 \| ", log, re.M)
    assert log.count("![") == 1
