"""What a person sees of a run, also when its numbers are none."""

from research.launcher import progress
from research.launcher.progress import Progress
from research.runs.pulse import DONE, STARTING, Pulse
from research.runs.run import Run


def test_a_loss_that_is_not_finite_is_said_and_ends_nothing(tiny, capsys):
    rows = (
        {"kind": "train", "step": 4, "epoch": 0, "loss": None, "top1": 10.0, "images_per_second": 5.0},
        {"kind": "val", "step": 11, "epoch": 0, "loss": None, "top1": 9.5},
        {"kind": "note", "step": 11, "epoch": 0},
        {"kind": "train", "step": 12, "epoch": 1},
    )
    with Progress(Run.create(tiny()), images=1437) as progress:
        for row in rows:
            progress.show(row)
    assert "train loss not finite top-1 10.00 %  val loss not finite top-1 9.50 %" in capsys.readouterr().out


def test_progress_follows_steps_between_rows_and_counts_no_start(tiny, monkeypatch):
    """The one that is behind is shown; what came before the first step of this session is in no rate."""
    monkeypatch.setattr(progress, "output_kind", lambda: "terminal")
    clock = iter([0.0, 100.0, 104.0, 104.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    run = Run.create(tiny())
    run.set_status("running", step=4)
    ranks = [Pulse(run.paths.session / f"rank{rank}") for rank in range(2)]
    with Progress(run, images=1437) as shown:
        for rank in ranks:
            rank.beat(4, STARTING)
        shown.show({})
        assert shown.bar.n == shown.bar.initial == 4 and shown.begun is None
        for step in (5, 6, 7):
            for rank in ranks[: 2 if step < 7 else 1]:
                rank.beat(step, DONE)
            shown.show({})
            assert (shown.bar.n, shown.bar.initial) == (min(step, 6), 5)
        assert shown.rates(7) == "left 0:00:30"  # 2 steps in 4 s, and 15 are left
