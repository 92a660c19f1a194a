"""Event files for TensorBoard, made of the rows of metrics that runs write anyway: training knows nothing of it.

``FOLDER/RUN/events.out.tfevents.….research`` are ours, by their suffix; files of others beside them stay as they are.
``.written.json`` says how far they go, so that a later call adds what is new. What was written of rows that a run has
dropped since, because it went back to a checkpoint, is written anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from research.config import Config
from research.config.identity import NOT_IDENTITY
from research.errors import UsageError
from research.files import read_json, write_atomic
from research.runs.metrics import read_row
from research.runs.paths import RunPaths
from research.runs.status import held, recorded
from research.runs.summaries import number, read_summaries

SUFFIX = ".research"
COMPARED = ("val/top1", "val/loss")  # what the table of hyperparameters shows of each run
TAIL = 4096  # bytes by which rows that were written are known again: they have times in them
POLL_SECONDS = 2.0


class Written(NamedTuple):
    """The folder to give to TensorBoard, and how many rows this call added to how many runs."""

    folder: Path
    runs: int
    rows: int


def write_events(runs: Path | str, out: Path | str = "", follow: bool = False) -> Written:
    """Write or bring up to date the event files of ``runs`` (as :func:`research.load_runs` takes them).

    They are in ``out``, a folder a run (default: ``tensorboard`` beside the runs). With ``follow`` new rows are added
    as they come, also of runs that begin meanwhile, until none of them is being trained.

    Raises:
        UsageError: tensorboard is not installed; no such runs; another process writes the same files.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("event files need tensorboard; pip install 'research[tensorboard]'")
    events: dict[Path, EventFiles] = {}
    with ExitStack() as stack:
        while True:
            summaries = {Path(summary["dir"]): summary for summary in read_summaries(runs)[0]}
            trained = [home for home in summaries if follow and is_trained(home)]  # looked at before its last rows
            for home, summary in summaries.items():
                if home not in events:
                    events[home] = EventFiles(home, Path(out or home.parent / "tensorboard") / home.name)
                    stack.enter_context(closing(events[home]))
                events[home].update(hyperparameters(summary))
                if home not in trained:
                    events[home].close()
            if not trained:
                break
            time.sleep(POLL_SECONDS)
    added = [each.rows for each in events.values() if each.rows]
    return Written(next(iter(events.values())).folder.parent, len(added), sum(added))


def is_trained(home: Path) -> bool:
    """Whether a process trains the run, or is about to."""
    return recorded(home)["status"] in ("created", "running") and held(home)


def hyperparameters(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What defines a run, of its row of :func:`read_summaries`, in the types that TensorBoard knows."""
    names = (name for name in summary if ("." in name or name in Config.parameters()) and name not in NOT_IDENTITY)
    values = {name: summary[name] for name in names}
    return {name: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for name, v in values.items()}


class EventFiles:
    """What TensorBoard is shown of the run in ``run``, kept in ``folder`` by one process at a time."""

    rows = 0  # that were added

    def __init__(self, run: Path, folder: Path):
        self.folder, self._metrics, self._state = folder, RunPaths(run).metrics, folder / ".written.json"
        self._lock, self._writer = FileLock(folder / ".lock", timeout=0), None

    def update(self, parameters: Mapping[str, Any]) -> None:
        """Add the rows that are not there yet; where there are none, ``parameters`` first.

        Raises:
            UsageError: another process is writing.
        """
        self._hold()
        start = self._written()
        before, lines = self._read(start or 0)
        purge = start is None and self._remove()
        if not lines:
            return
        if self._writer is None:
            self._open(parameters if start is None else None, purge)
        rows = [row for line in lines.splitlines() if (row := read_row(line))]
        for row in rows:
            self._add(row)
        self._writer.flush()
        said = {"bytes": (start or 0) + len(lines), "tail": digest(before + lines), "files": self._sizes()}
        write_atomic(self._state, json.dumps(said))
        self.rows += len(rows)

    def close(self) -> None:
        """Let others write; a later update begins another file."""
        if self._writer:
            self._writer.close()
            self._writer = None
        self._lock.release()

    def _hold(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if not self._lock.is_locked:
                self._lock.acquire()
        except Timeout:
            raise UsageError(f"{self.folder}: is being written by another process") from None

    def _written(self) -> int | None:
        """The bytes of rows that the files hold; none where rows or files are not as they were."""
        known = read_json(self._state, {})
        if not known or known["files"] != self._sizes():
            return None
        return known["bytes"] if known["tail"] == digest(self._read(known["bytes"])[0]) else None

    def _read(self, start: int) -> tuple[bytes, bytes]:
        """The end of what the metrics have before ``start``, and the whole lines from there on."""
        if not self._metrics.exists():
            return b"", b""
        with open(self._metrics, "rb") as file:
            file.seek(max(0, start - TAIL))
            before, lines = file.read(min(start, TAIL)), file.read()
        return before, lines[: lines.rfind(b"\n") + 1]

    def _remove(self) -> bool:
        """Remove our files; whether there were any."""
        if self._writer:
            self._writer.close()
            self._writer = None
        ours = self._sizes()
        for name in ours:
            (self.folder / name).unlink()
        return bool(ours)

    def _open(self, parameters: Mapping[str, Any] | None, purge: bool) -> None:
        """Begin a file; with ``purge`` a TensorBoard that has read those which are gone forgets what they said."""
        from torch.utils.tensorboard import SummaryWriter  # imports torch
        from torch.utils.tensorboard.summary import hparams

        self._writer = SummaryWriter(self.folder, purge_step=0 if purge else None, filename_suffix=SUFFIX)
        if parameters is not None:
            for part in hparams(dict(parameters), dict.fromkeys(COMPARED)):
                self._writer.file_writer.add_summary(part)

    def _add(self, row: Mapping[str, Any]) -> None:
        if row["kind"] == "note":
            self._writer.add_text("note", str(row.get("text")), row["step"])
        for tag, value in scalars(row):
            self._writer.add_scalar(tag, value, row["step"])

    def _sizes(self) -> dict[str, int]:
        """Our files in the folder, and their bytes."""
        return {path.name: path.stat().st_size for path in sorted(self.folder.glob(f"events.out.tfevents.*{SUFFIX}"))}


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a row of metrics by what TensorBoard calls them: ``val/top1``, ``gram/centre/layer1.0.conv1``."""
    texts = [value for name, value in row.items() if name != "kind" and isinstance(value, str)]
    for name, value in row.items():
        if name not in ("step", "epoch") and (value is None or isinstance(value, (int, float))):
            yield "/".join([row["kind"], name, *texts]), number(value)


def digest(content: bytes) -> str:
    """A digest of the end of ``content``."""
    return hashlib.blake2b(content[-TAIL:], digest_size=8).hexdigest()
