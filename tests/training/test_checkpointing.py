"""What a run continues from: whole checkpoints of its own, and the rows of metrics that there are."""

import json
import os
import shutil
import signal
from contextlib import nullcontext

import pytest
import torch
from conftest import Killed, assert_same_run, rows

from research import launch, processes
from research.checkpoints import checkpoint
from research.data.memory_loader import MemoryLoader
from research.errors import UsageError
from research.files import write_atomic
from research.hooks import HOOKS, Hook
from research.runs.run import Run
from research.training import loop
from research.training.loop import fit


@pytest.fixture
def cut(tiny, power_cut):
    """A run of 3 epochs that lost power in the last one; and the same run without."""
    given = {"power_cut": True, "checkpoint_minutes": 0, "epochs": 3}
    whole = fit(Run.create(tiny(name="whole", **given)))
    power_cut.at = 27
    config = tiny(name="cut", **given)
    with pytest.raises(Killed):
        fit(Run.create(config))
    return Run(Run.create(config).dir, config), whole


def again(run: Run, **given) -> Run:
    """The run as a new process finds it."""
    return fit(Run.create(type(run.config).load(run.config.to_dict(), given)))


def files(run: Run) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.dir.rglob("*") if p.is_file() and p.suffix in (".pt", ".safetensors")}


def notes(run: Run) -> str:
    lines = map(json.loads, run.paths.metrics.read_text().splitlines())
    return "\n".join(row["text"] for row in lines if row["kind"] == "note")


def spoil(*paths) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:-7] + b"damaged")


def test_one_damaged_checkpoint_is_told_and_set_aside(cut):
    run, whole = cut
    newest = max(run.paths.checkpoints.glob("*.pt"))
    spoil(newest)
    again(run)
    assert_same_run(whole, run)
    assert f"checkpoint {newest.name} is damaged" in notes(run)
    assert (run.paths.checkpoints / f"damaged-{newest.name}").exists()


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew_only_when_asked(cut):
    run, whole = cut
    best, kept = run.paths.best.read_bytes(), run.paths.metrics.read_bytes()
    spoil(*run.paths.checkpoints.glob("*.pt"))
    for _ in range(2):  # asking again is no word either
        with pytest.raises(UsageError, match=r"damaged \(damaged-0.*start_over=true, which sets aside"):
            again(run)
        assert run.paths.best.read_bytes() == best and run.paths.metrics.read_bytes() == kept
    again(run, start_over=True)
    assert_same_run(whole, run)
    aside = run.dir / "before-start-over"
    assert (aside / "best.safetensors").read_bytes() == best and (aside / "metrics.jsonl").read_bytes() == kept
    assert len(list((aside / "checkpoint").glob("damaged-*.pt"))) == 2
    before = files(run)
    again(run, start_over=True)
    assert files(run) == before, "the word does nothing where there is a checkpoint"


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew_unasked(cut):
    run, _ = cut
    shutil.rmtree(run.paths.checkpoints)
    run.paths.status.unlink()
    with pytest.raises(UsageError, match="its checkpoint is gone"):
        again(run)


def test_whole_checkpoint_under_the_name_of_another_step_is_not_trusted(cut):
    run, whole = cut
    oldest, _ = sorted(run.paths.checkpoints.glob("*.pt"))
    oldest.rename(oldest.with_name(f"000000099-{oldest.name.partition('-')[2]}"))
    again(run)
    assert_same_run(whole, run)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError(), torch.OutOfMemoryError()])
def test_what_cannot_be_read_now_is_not_damaged(cut, monkeypatch, error):
    run, whole = cut
    before = files(run)
    with monkeypatch.context() as patch:

        def refuse(*_, **__):
            raise error

        patch.setattr(*(torch, "load") if not isinstance(error, OSError) else (type(run.dir), "read_bytes"), refuse)
        with pytest.raises(UsageError, match="cannot read checkpoint .*nothing was changed"):
            checkpoint.find_newest(run.paths.checkpoints)
    assert files(run) == before
    again(run)
    assert_same_run(whole, run)


def test_newer_checkpoints_than_the_one_saved_are_never_dropped(tmp_path):
    for step in (30, 10, 11, 12):
        checkpoint.save(tmp_path, step, {"step": step})
    assert [int(p.name[:9]) for p in sorted(tmp_path.glob("*.pt"))] == [11, 12, 30]


def test_checkpoint_of_another_seed_is_refused(cut, tiny):
    run, _ = cut
    other = Run.create(tiny(name="other", power_cut=True, checkpoint_minutes=0, epochs=3, seed=1))
    shutil.copytree(run.paths.checkpoints, other.paths.checkpoints)
    before = files(other)
    with pytest.raises(UsageError, match=r"belongs to another configuration \(seed: 0 there, 1 asked\)"):
        fit(other)
    assert files(other) == before


@pytest.mark.parametrize("left", ["a half", "no whole row", "nothing", "no file", "zeros at the end", "a row is torn"])
def test_lost_rows_are_told_and_none_is_made_up(cut, left):
    run, whole = cut
    path, content = run.paths.metrics, run.paths.metrics.read_bytes()
    newest = max(run.paths.checkpoints.glob("*.pt"))
    state = torch.load(newest, weights_only=True)
    length = state["metrics_bytes"]
    path.write_bytes({
        "a half": content[: length // 2],
        "no whole row": content[:5],
        "nothing": b"",
        "zeros at the end": content[: length - 300] + bytes(300),
        "a row is torn": content[:100] + b"\0\xff" + content[102:],
    }.get(left, b""))  # fmt: skip
    if left == "no file":
        path.unlink()
    again(run)
    assert b"\0" not in path.read_bytes()
    found, expected = rows(run), rows(whole)
    assert found == [row for row in expected if row in found] and found[-1] == expected[-1]
    assert "metrics.jsonl is not what it was at the checkpoint of step" in notes(run)
    assert all(row in found for row in expected if row["step"] > state["step"])


@pytest.mark.parametrize(
    ("blind", "said"),
    [
        (1, "continues from .*, but rank 1 on .*: it is not there"),
        pytest.param(0, "finds no checkpoint, but .* a later step", marks=pytest.mark.slow),
    ],
)
def test_ranks_that_see_different_folders_are_refused(tiny, monkeypatch, in_workers, tmp_path, blind, said):
    """One of two ranks sees another folder in the place of the checkpoints, as on a node that does not share them."""

    def cut(run, meter, evaluate=loop.evaluate_epoch):
        if run.epoch == 1:
            raise Killed
        return evaluate(run, meter)

    monkeypatch.setattr(loop, "evaluate_epoch", cut)
    with pytest.raises(Killed):
        fit(run := Run.create(tiny(name="cut")))
    in_workers(
        f"""
        import os, pathlib
        from research.runs import paths
        def elsewhere(self, directory, init=paths.RunPaths.__init__):
            init(self, directory)
            if os.environ.get("RANK") == "{blind}":
                self.checkpoints = pathlib.Path("{tmp_path / "elsewhere"}")
        paths.RunPaths.__init__ = elsewhere
        """
    )
    before = files(run)
    with pytest.raises(UsageError, match=f"^run cut cannot go on: rank 0 on .* {said}[^\n]*$"):
        launch(tiny(name="cut", processes=2))
    assert files(run) == before


def test_rows_reach_the_disk_before_a_checkpoint_names_their_length(tiny, monkeypatch):
    synced, lengths = [], []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle)))
    save = checkpoint.save

    def look(folder, step, state):
        lengths.append((state["metrics_bytes"], [s.st_size for s in synced if s.st_ino == inode(run)][-1:]))
        return save(folder, step, state)

    monkeypatch.setattr(checkpoint, "save", look)
    run = Run.create(tiny())
    fit(run)
    assert lengths and all(synced == [named] for named, synced in lengths)


def inode(run: Run) -> int:
    return run.paths.metrics.stat().st_ino


@pytest.mark.parametrize("interval", [1, 3, 50])
def test_another_log_interval_on_continuing_changes_no_weight(tiny, monkeypatch, interval):
    """Stopped between two rows, with more micro-batches counted than a shorter row would have."""

    class StopOnce(Hook):
        def step_end(self, run):
            if run.step == 6 and not run.paths.checkpoints.exists():
                processes._stops.add(signal.SIGTERM)

    monkeypatch.setitem(HOOKS, "stop_once", StopOnce)
    given = {"accumulation": 2, "stop_once": True}
    with pytest.raises(SystemExit):
        fit(Run.create(tiny(name="cut", log_interval=7, **given)))
    processes._stops.clear()
    cut = fit(Run.create(tiny(name="cut", log_interval=interval, **given)))
    whole = fit(Run.create(tiny(name="whole", log_interval=7, **given | {"stop_once": False})))
    assert [row for row in rows(cut) if row["kind"] == "val"] == [row for row in rows(whole) if row["kind"] == "val"]


def test_stop_at_the_last_batch_of_an_epoch_comes_before_a_long_evaluation(tiny, monkeypatch):
    """And one inside the evaluation finds the checkpoint that began it."""
    monkeypatch.setattr(loop, "LONG_EVALUATION", -1.0)
    whole = fit(Run.create(tiny(name="whole", batch_size=64)))
    for name, moment in (("before", 0), ("inside", 2)):
        config, evaluate = tiny(name=name, batch_size=64), loop.evaluate

        def stopping(run, model, between, moment=moment, evaluate=evaluate):
            def look(batch):
                if batch == moment and run.epoch == 1:
                    processes._stops.add(signal.SIGTERM)
                between(batch)

            return evaluate(run, model, look)

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(loop, "evaluate", stopping)
            fit(Run.create(config))
        processes._stops.clear()
        state = checkpoint.load_newest(Run.create(config).paths.checkpoints)
        assert (state["epoch"], state["batch"]) == (1, state["step"] // 2)
        assert_same_run(whole, fit(Run.create(config)))


def test_damaged_list_of_sessions_is_set_aside(tiny):
    run = Run.create(tiny())
    run.paths.environment.write_text("not JSON")
    fit(run)
    assert (run.dir / "damaged-env.json").read_text() == "not JSON" and "env.json was damaged" in notes(run)
    assert len(json.loads(run.paths.environment.read_text())) == 1


@pytest.mark.parametrize("name", [".lock", ".launcher.lock"])
def test_lock_that_is_a_link_is_one_line(tiny, tmp_path, name):
    config = tiny(name="linked")
    (Run.create(config).dir / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot lock .*it is a link; remove it"):
        launch(config)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("text", ['{"status": "finished"}', '{"status": "failed"}', "{}", "[]", "5", "", "\0\0"])
def test_any_status_file_leads_to_a_line_and_no_loss(cut, text, capsys):
    run, whole = cut
    run.paths.status.write_text(text)
    with pytest.warns() if "status" not in text else nullcontext():
        if "finished" in text:
            launch(run.config)
            assert "cut: already finished, see " in capsys.readouterr().out
        else:
            again(run)
            assert_same_run(whole, run)


def test_permissions_of_what_is_written_follow_the_umask(tiny):
    before = os.umask(0o027)
    try:
        run = fit(Run.create(tiny(epochs=1)))
        write_atomic(run.dir / "other", b"")
    finally:
        os.umask(before)
    for path in (
        run.paths.status,
        run.paths.best,
        run.paths.config,
        *run.paths.checkpoints.iterdir(),
        run.dir / "other",
    ):
        assert path.stat().st_mode & 0o777 == 0o640, path


def test_loaders_are_closed_however_training_ends(tiny, power_cut, monkeypatch):
    closed = []
    power_cut.at = 3
    monkeypatch.setattr(MemoryLoader, "close", lambda loader: closed.append(loader.share.split))
    with pytest.raises(Killed):
        fit(Run.create(tiny(power_cut=True)))
    assert sorted(closed) == ["train", "val"]


@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl", "env.json", "checkpoint"])
def test_folder_in_the_place_of_a_file_is_one_line(tiny, name):
    run = Run.create(tiny(name="odd"))
    (run.dir / name).mkdir() if name != "checkpoint" else (run.dir / name).write_text("mine")
    if name == "env.json":
        assert fit(run).status["status"] == "finished" and (run.dir / "damaged-env.json").is_dir()
        return
    with pytest.raises(UsageError, match=name) as refused:
        launch(run.config)
    assert "\n" not in str(refused.value) and (run.dir / name).exists()
