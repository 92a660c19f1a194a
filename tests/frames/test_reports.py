"""Tables for papers, and two configurations side by side."""

import io
import json
import re

import pandas as pd
import pytest
from synthetic_runs import write_run

from research import cli
from research.errors import UsageError
from research.frames import load_runs
from research.frames.reports import paper_table, side_by_side
from research.frames.reports.text import escaped

ERRORS = {0.4: [10.0, 10.2, 9.9], 0.2: [5.0, 5.3, 4.8], 0.3: [5.1, 5.2, 5.0]}  # by lr, over seeds 0 to 2


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three configurations that differ in lr, three seeds each, with the last error of ``ERRORS``."""
    monkeypatch.chdir(tmp_path)
    for lr, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            reach(write_run(tmp_path / "runs", f"lr{lr:g}-{seed}", lr=lr, seed=seed, model="mnist_mlp"), error)
    return tmp_path / "runs"


def reach(run, error):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[-2]["top1"] = 100 - error
    assert rows[-2]["kind"] == "val"
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def cells(table):
    return table.cells.set_index("row")


def test_a_best_that_cannot_be_told_from_the_next_is_not_bold_and_this_is_said(runs):
    table = paper_table(load_runs(runs), baseline="lr=0.4")
    found = cells(table)
    assert found["mean"].round(4).to_dict() == {"lr=0.4": 10.0333, "lr=0.2": 5.0333, "lr=0.3": 5.1}
    assert found["sd"].round(4).to_dict() == {"lr=0.4": 0.1528, "lr=0.2": 0.2517, "lr=0.3": 0.1}
    assert not found["best"].any() and found["differs"].to_dict() == {"lr=0.2": True, "lr=0.3": True, "lr=0.4": False}
    assert "| lr=0.2 | 5.03 ± 0.25\\* |" in table.markdown() and "**" not in table.markdown()
    assert "lr=0.2 cannot be told from lr=0.3 (p = 0.53)" in table.markdown()
    assert "\\*: differs from lr=0.4" in table.markdown()


def test_a_best_that_is_shown_is_bold(runs):
    two = load_runs(runs, ["lr0.4-*", "lr0.2-*"])
    table = paper_table(two)
    assert cells(table)["best"].to_dict() == {"lr=0.4": False, "lr=0.2": True}
    assert "| lr=0.2 | **5.03 ± 0.25** |" in table.markdown() and "No best" not in table.markdown()
    assert r"lr=0.2 & \textbf{5.03 $\pm$ 0.25} \\" in table.latex()


def test_one_seed_is_no_best(runs):
    table = paper_table(load_runs(runs, "lr*-0"))
    assert not table.cells["best"].any() and "too few seeds for a test" in table.markdown()


def test_parameters_lie_side_by_side(runs):
    table = paper_table(load_runs(runs), rows=["model"], columns=["lr", "top1_err"])
    assert (
        table.markdown().splitlines()[0].count("lr=") == 3
        and "| model=mnist_mlp | 5.03 ± 0.25 | 5.10 ± 0.10 | 10.03 ± 0.15 |" in table.markdown()
    )
    with pytest.raises(UsageError, match=r"two configurations are in row 'model=mnist_mlp'.*: lr$"):
        paper_table(load_runs(runs), rows=["model"])
    with pytest.raises(UsageError, match="'modle' is neither a result nor a parameter.*model"):
        paper_table(load_runs(runs), rows=["modle"])
    with pytest.raises(UsageError, match="no row is called 'lr=1'"):
        paper_table(load_runs(runs), baseline="lr=1")


def test_latex_is_escaped_and_whole(runs):
    text = paper_table(load_runs(runs)).latex()
    rules = " ".join(re.findall(r"\\(begin|end|toprule|midrule|bottomrule|caption)\b", text))
    assert rules == "begin begin toprule midrule bottomrule end caption end"
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    assert body[1] == r" & top-1 error (\%), last epoch \\" and all(
        line.count(" & ") == 1 for line in body if "&" in line
    )
    assert (
        escaped("a_b & 5% {x} \\ ~^#$") == r"a\_b \& 5\% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#\$"
    )


def test_csv_has_numbers_in_full(runs):
    again = pd.read_csv(io.StringIO(paper_table(load_runs(runs)).csv()))
    assert again["mean"].tolist() == pytest.approx([sum(errors) / 3 for _, errors in sorted(ERRORS.items())], abs=1e-9)


def test_published_values_stand_beside_and_other_settings_are_told(tmp_path):
    write_run(tmp_path, "own", dataset="imagenet", model="resnet18", schedule="cosine", smoothing=0.0, epochs=3)
    text = paper_table(load_runs(tmp_path), published="power-grad-imagenet").markdown()
    assert "28.00 | 29.79 |" in text and "its runs differ in" in text and "epochs" in text
    with pytest.raises(UsageError, match="cannot be matched"):
        paper_table(load_runs(tmp_path), published="sparse")


def test_two_configurations_side_by_side_are_paired_over_seeds(runs):
    found = side_by_side(load_runs(runs, "lr0.4-*"), load_runs(runs, "lr0.2-*"))
    assert found["Configuration"].values.tolist() == [["lr", "0.4", "0.2"], ["seeds", "0 1 2", "0 1 2"]]
    row = found["Results"].iloc[0]
    assert (row["A"], row["B"], row["over"]) == ("10.03 ± 0.15", "5.03 ± 0.25", "3 pairs, r = 1.00")
    assert row["A - B [95 %]"].startswith("+5.00 [") and row["verdict"] == "higher"
    last = found["Curves"].query("curve == 'top-1 (%)'").iloc[-1]
    assert last["after epoch"] == "3" and last["A - B [95 %]"].startswith("-5.000 [")
    with pytest.raises(UsageError, match="A has to be runs of one configuration.*'lr=0.2', 'lr=0.3', 'lr=0.4'"):
        side_by_side(load_runs(runs), load_runs(runs))


def test_the_commands_print_tables(runs, capsys):
    assert cli.main(["table", "runs", "--baseline", "lr=0.4", "--latex"]) == 0
    assert r"lr=0.2 & 5.03 $\pm$ 0.25$^{*}$ \\" in capsys.readouterr().out
    assert cli.main(["compare", "lr0.4-*", "runs/lr0.2-*"]) == 0
    assert "| lr | 0.4 | 0.2 |" in capsys.readouterr().out
    assert cli.main(["table", "--rows", "modle"]) == 2
