"""Run directories as a training leaves them, without training: for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from research.config import Config

LAYERS = {"conv1": 3, "layer1.0.conv1": 3, "layer1.0.conv2": 3, "layer2.0.conv1": 3, "stem7": 7}
GRAM = {"k": 8.0, "variant": "center"}


def write_run(runs: Path, name: str, epochs: int = 3, gram: bool = False, **config: Any) -> Path:
    """A finished run of ``epochs`` epochs of 10 steps; validation loss of epoch e is 1 / (e + 1 + seed)."""
    directory = runs / name
    directory.mkdir(parents=True)
    stored = Config().to_dict() | {"epochs": epochs} | config
    if gram:
        stored["hooks"] = {"gram": dict(GRAM)}
    (directory / "config.json").write_text(json.dumps(stored))
    rows = []
    for epoch in range(epochs):
        at = {"step": 10 * (epoch + 1), "epoch": epoch}
        loss = 1 / (epoch + 1 + stored["seed"])
        rows.append({"kind": "train", **at, "loss": 2 * loss, "top1": 50.0, "lr": 0.1, "images_per_second": 1e3})
        rows.append({"kind": "train_epoch", **at, "loss": 2 * loss, "top1": 60.0 + epoch, "lr": 0.1, "seconds": 1.5})
        rows.append({"kind": "val", **at, "loss": loss, "top1": 70.0 + epoch, "top5": 99.0, "seconds": 0.5})
        rows.append({"kind": "note", **at, "text": "something to say"})
        if gram:
            rows += [{"kind": "gram", **at, "layer": layer, "centre": 2.0} for layer in LAYERS]
            write_gram(directory, epoch)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = {"status": "finished", "epoch": epochs, "epochs": epochs, "step": 10 * epochs, "seconds": 4.5}
    status |= {"best_top1": 69.0 + epochs, "last_top1": 69.0 + epochs}
    (directory / "status.json").write_text(json.dumps(status))
    return directory


def write_gram(directory: Path, epoch: int) -> None:
    """NMI that falls with tap distance, with depth and over epochs; 8 channels, one of them undefined off centre."""
    draw = np.random.default_rng(epoch)
    arrays: dict[str, Any] = {"names": np.array(list(LAYERS)), "epoch": epoch, **GRAM}
    for depth, side in enumerate(LAYERS.values()):
        offset = np.arange(side) - (side - 1) // 2
        distance = np.hypot(offset[:, None], offset[None])
        nmi = np.exp(-distance * (0.7 + 0.3 * depth) - 0.2 * epoch) * draw.uniform(0.5, 1, (8, 1, 1))
        nmi[0] = np.nan
        nmi[:, distance == 0] = 1.0
        nmi_k = GRAM["k"] * nmi / ((GRAM["k"] - 1) * nmi + 1)
        corr = np.nanmean(nmi_k, axis=0)
        samples = max(200, 50000 // 4**depth)
        arrays |= {f"nmi_{depth}": nmi, f"corr_{depth}": corr, f"multiplier_{depth}": corr / corr.mean()}
        arrays |= {
            f"n_{depth}": samples,
            f"bins_{depth}": 1 + int(np.ceil(np.log2(samples))),
            f"nan_channels_{depth}": 1,
        }
    (directory / "gram").mkdir(exist_ok=True)
    np.savez(directory / "gram" / f"epoch_{epoch:03d}.npz", **arrays)
