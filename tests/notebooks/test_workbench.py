"""Folders to work in: what is shipped, and nothing of what was there is changed."""

from conftest import REPOSITORY

from research.cli import main
from research.notebooks.execute import find
from research.notebooks.workbench import SHIPPED
from research.studies.study import find_study


def test_the_repository_is_the_one_source():
    assert SHIPPED == REPOSITORY / "notebooks"
    assert (REPOSITORY / "research" / "shipped" / "notebooks").is_symlink()


def test_a_workbench_has_every_notebook_and_study_a_log_and_a_place_for_runs(here, capsys):
    assert main(["init", "bench"]) == 0
    wanted = {p.relative_to(SHIPPED) for ending in ("ipynb", "yaml") for p in SHIPPED.rglob(f"[!.]*.{ending}")}
    wanted = {path for path in wanted if ".ipynb_checkpoints" not in path.parts}
    made = here / "bench" / "notebooks"
    assert {p.relative_to(made) for p in made.rglob("*") if p.is_file()} == wanted
    assert all((made / name).read_bytes() == (SHIPPED / name).read_bytes() for name in wanted)
    assert (here / "bench" / "research-log.md").read_text() == "# Research log\n" and (here / "bench" / "runs").is_dir()
    assert f"{here / 'bench'}: {len(wanted) + 1} files made" in capsys.readouterr().out


def test_what_was_there_stays_as_it_is(here, monkeypatch, capsys):
    mine = {"notebooks/train.ipynb": "{}", "research-log.md": "# Mine\n", "notebooks/own.ipynb": "x"}
    (here / "notebooks").mkdir()
    for name, text in mine.items():
        (here / name).write_text(text)
    assert main(["init"]) == 0
    assert {name: (here / name).read_text() for name in mine} == mine
    said = capsys.readouterr().out.splitlines()
    assert said[1:-1] == ["yours, which differs from the one that is shipped: notebooks/train.ipynb"]
    assert main(["init", "."]) == 0 and f"{here}: 0 files made" in capsys.readouterr().out


def test_a_place_that_is_no_folder_is_refused(here, capsys):
    (here / "taken").write_text("mine")
    assert main(["init", "taken"]) == 2
    assert capsys.readouterr().err == "error: taken: cannot be written (Not a directory); name another folder\n"
    assert (here / "taken").read_text() == "mine"


def test_a_folder_of_ones_own_comes_before_what_is_shipped(here):
    assert find("train") == SHIPPED / "train.ipynb"
    assert find_study("gram-k-small") == SHIPPED / "studies" / "gram-k-small.yaml"
    main(["init"])
    assert find("train") == here / "notebooks" / "train.ipynb"
    assert find_study("gram-k-small").resolve() == here / "notebooks" / "studies" / "gram-k-small.yaml"
