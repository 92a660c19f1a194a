"""The notebook of interactions: a study of two methods, on its first and its fresh seeds, becomes one entry."""

import json
import re

from conftest import cells
from synthetic_runs import write_run

from research.runs.plans import record

TOP1 = {"plain": 60.0, "gram": 62.0, "rigl": 59.0, "gram+rigl": 64.0}  # 3 more than both add up to
SAID = {"contrasts": [["gram", "plain"]], "margin": 1.0, "confirm_seeds": [10, 11, 12], "select": {}}


def with_top1(directory, top1: float) -> None:
    """Let every evaluation of a written run have this accuracy."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"top1": top1} if row["kind"] == "val" else row for row in rows]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = json.loads((directory / "status.json").read_text()) | {"last_top1": top1}
    (directory / "status.json").write_text(json.dumps(status))


def test_a_study_of_two_methods_becomes_tables_figures_and_one_entry(here, monkeypatch):
    arms, fresh = {}, {}
    for arm, top1 in TOP1.items():
        for seeds, first, names in ((range(4), "", arms), ((10, 11, 12), "confirm-", fresh)):
            for seed in seeds:
                name = f"{first}s-{arm}-seed-{seed}"
                with_top1(write_run(here / "runs", name, seed=seed), top1 + 0.1 * ((seed + len(arm)) % 3))
                names[name] = arm
    record(here / "runs", "s", SAID | {"arms": arms, "confirming": fresh}, [])
    left = cells("analysis/interactions", monkeypatch, log="log.md", margin=1)
    assert list(left["samples"]) == ["s, first seeds", "s, fresh seeds"]
    assert [name for name, _ in left["drawn"]] == [f"effects together, {sample}" for sample in left["samples"]]
    log = (here / "log.md").read_text()
    rows = re.findall(r"^\| gram with rigl \| gram without rigl \| \+(\d\.\d+) ", log, re.M)
    assert len(rows) == 2 and all(abs(float(row) - 3) < 0.3 for row in rows)
    assert len(re.findall(r"^\| gram\+rigl \| gram and rigl \| \+[23]\.\d+ ", log, re.M)) == 2
    assert "| gram | plain | planned |" in log and log.count("![") == 2
    alone = cells("analysis/interactions", monkeypatch, methods=["gram"])
    assert alone["averaged"].empty and list(alone["together"]["arm"]) == ["gram+rigl"]
