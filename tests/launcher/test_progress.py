"""What a person sees of a run, also when its numbers are none."""

from research.launcher.progress import Progress
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
