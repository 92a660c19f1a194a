"""``research data``: data sets written as FFCV files, adopted, verified, listed."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands
from research.cli.text import print_table

ROOT = {"default": "", "metavar": "FOLDER", "help": "where the data lies (default: $RESEARCH_DATA, else ./data)"}
MODES = ("raw", "jpg", "smart")


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    data = Commands(commands.add("data", None, "write, adopt, verify and list data"))
    write = data.add("write", write_data, "write a data set as FFCV files (.beton)")
    write.add_argument("dataset")
    write.add_argument("--root", **ROOT)
    write.add_argument("--out", metavar="FOLDER", help="where the files go (default: ./data)")
    write.add_argument("--split", action="append", choices=("train", "val"), help="only this split")
    write.add_argument("--mode", default="raw", choices=MODES, help="how pixels are kept")
    write.add_argument("--max-resolution", type=int, metavar="PIXELS", help="bound of the longer side")
    write.add_argument("--quality", type=int, default=90, help="of JPEG (default 90)")
    write.add_argument("--skip-bad", action="store_true", help="leave unreadable images out instead of stopping")
    write.add_argument("--download", action="store_true", help="fetch the data set first")
    adopt = data.add("adopt", adopt_data, "use an FFCV file that another program wrote, as it is")
    adopt.add_argument("beton", help="as FFCV's own writer and ffcv-imagenet's script write them")
    adopt.add_argument("--dataset", required=True, metavar="NAME", help="the data set that it holds")
    adopt.add_argument("--split", choices=("train", "val"), help="what it holds (default: what its name says)")
    adopt.add_argument("--root", default="", metavar="FOLDER", help="data root that it is for (default: ./data)")
    data.add("verify", verify_data, "read an FFCV file again, every sample").add_argument("beton")
    data.add("list", list_data, "list data sets and FFCV files").add_argument("--root", **ROOT)


def write_data(options: argparse.Namespace) -> None:
    from research.data.ffcv.beton import write

    written = write(
        options.dataset,
        root=options.root,
        out=options.out,
        splits=tuple(options.split or ("train", "val")),
        mode=options.mode,
        max_resolution=options.max_resolution,
        quality=options.quality,
        skip_bad=options.skip_bad,
        download=options.download,
    )
    print(*written, sep="\n")


def adopt_data(options: argparse.Namespace) -> None:
    from research.data.ffcv.adopt import adopt
    from research.data.ffcv.beton import summary

    found = adopt(options.beton, options.dataset, options.root, options.split or "")
    print_table((), (summary(found) | {"classes": len(found.classes), "mode": found.mode}).items())


def verify_data(options: argparse.Namespace) -> None:
    from research.data.ffcv.beton import verify

    print_table((), verify(options.beton).items())


def list_data(options: argparse.Namespace) -> None:
    from research.data.datasets import DATASETS, data_root
    from research.data.ffcv.beton import HERE, list_betons

    root = data_root(options.root)
    print_table(("data set", "classes", "shape", ""), [
        (d.name, d.classes or "", "x".join(map(str, d.shape)), d.summary) for d in DATASETS.values()
    ])  # fmt: skip
    betons, places = list_betons(options.root), " and ".join(dict.fromkeys(map(str, (root, HERE))))
    print(f"\nFFCV files in {places}:" if betons else f"\nno FFCV files in {places} (`research data write` makes them)")
    if betons:
        columns = list(dict.fromkeys(column for beton in betons for column in beton))
        print_table(columns, [[beton.get(column, "") for column in columns] for beton in betons])
