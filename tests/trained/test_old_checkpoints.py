"""Checkpoints of finished runs go by a rule; nothing else of a run ever does, and none that another run needs."""

import pytest

from research import cli
from research.runs.run import Run
from research.trained.old_checkpoints import find_checkpoints, remove_checkpoint


@pytest.fixture
def run(tiny):
    """``run(name, status, **parameters)``: a run as training leaves it, with two checkpoints."""

    def make(name: str, status: str, **parameters) -> Run:
        made = Run.create(tiny(name=name, **parameters))
        made.set_status(status, step=22, epoch=2, epochs=2)
        made.paths.checkpoints.mkdir()
        for step in (11, 22):
            (made.paths.checkpoints / f"{step:09d}-00.pt").write_bytes(b"state")
        for path in (made.paths.metrics, made.paths.best, made.paths.average, made.paths.notebook):
            path.write_bytes(b"kept")
        return made

    return make


def left(run: Run) -> list[str]:
    return sorted(path.name for path in run.paths.checkpoints.iterdir())


def test_of_finished_runs_the_older_or_all_go_and_of_others_none(run, capsys):
    runs = [run("done", "finished"), run("stopped", "interrupted"), run("failed", "failed")]
    folder = str(runs[0].dir.parent)
    before = {path for path in runs[0].dir.parent.rglob("*") if path.is_file()}
    assert cli.main(["clean", folder, "--checkpoints", "all"]) == 0  # looks only
    assert before == {path for path in runs[0].dir.parent.rglob("*") if path.is_file()}
    assert capsys.readouterr().out.count("a checkpoint of a finished run") == 2
    assert cli.main(["clean", folder, "--checkpoints", "older", "--yes"]) == 0
    assert left(runs[0]) == ["000000022-00.pt"]
    assert cli.main(["clean", folder, "--checkpoints", "all", "--yes"]) == 0
    gone = before - {path for path in runs[0].dir.parent.rglob("*") if path.is_file()}
    assert gone == {runs[0].paths.checkpoints / f"{step:09d}-00.pt" for step in (11, 22)}


def test_last_weights_stay_while_another_run_is_to_start_from_them(run):
    source = run("source", "finished")
    copy = run("copy", "interrupted", **{"static_sparse.sparsity": 0.5, "static_sparse.copy_mask_from": "source"})
    found = [each.path.name for each in find_checkpoints(source.dir.parent, "all")]
    assert found == ["000000011-00.pt"]
    copy.set_status("finished")
    assert len(find_checkpoints(source.dir.parent, "all")) == 4


def test_a_run_that_is_trained_again_meanwhile_keeps_its_checkpoints(run):
    done = run("done", "finished")
    found = find_checkpoints(done.dir.parent, "all")
    with done.alone():
        for each in found:
            remove_checkpoint(each)
    assert len(left(done)) == 2
