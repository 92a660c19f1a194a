"""What has to work on a GPU, in under eight minutes, and how fast it is: one JSON and a table.

    python tests/gpu/check.py                    # on a machine with an NVIDIA GPU
    python tests/gpu/check.py --device cpu       # the same checks, small, on a pretended GPU or the CPU

It runs from a checkout with PyTorch, torchvision and timm (numba if there is one), without a network and without what
else the project depends on. Every check is a process with a time limit: whatever happens in one, the others run. The
JSON is written after each, so that it is whole however this ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "gpu")]

import absent  # noqa: E402 - after the path; before all that imports what may be missing

TOTAL = 470  # seconds for everything


def main(words: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options.add_argument("--only", default="*", help="pattern of checks, such as 'speed*'")
    name = Path(f"gpu-check-{time.strftime('%Y%m%d-%H%M%S')}.json")
    options.add_argument("--out", type=Path, default=name, help=f"such as {name}")
    options.add_argument("--seconds", type=float, default=TOTAL, help="for everything; the rest is skipped")
    given = options.parse_args(words)
    if given.out.exists():
        print(f"error: {given.out} exists; give another --out", file=sys.stderr)
        return 2
    missing = absent.missing()
    if missing:
        print(f"error: {', '.join(missing)} cannot be imported here, and nothing stands in for it", file=sys.stderr)
        return 2
    stood_in = absent.stand_in()

    from checks import CHECKS
    from isolated import Check, run

    chosen: dict[str, Check] = {name: check for name, check in CHECKS.items() if fnmatch(name, given.only)}
    if not chosen:
        print(f"error: --only={given.only!r}: expected a pattern of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    given.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.time()
    told: dict[str, Any] = {"device": given.device, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    told |= {"stood in for": stood_in, "hardware": {}, "checks": {}}
    for name, check in {"hardware": CHECKS["hardware"], **chosen}.items():
        left = given.seconds - (time.time() - started)
        result = run(check, given.device, left)
        if name == "hardware":
            told["hardware"] = result.pop("numbers", {})
        told["checks"][name] = result
        told["seconds"] = round(time.time() - started, 1)
        write(given.out, told)
        print(line(name, result), flush=True)
        if name == "hardware" and result["outcome"] == "failed":
            break
    outcomes = [result["outcome"] for result in told["checks"].values()]
    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))
    print(f"{counts} in {told['seconds']:.0f} s; {given.out}")
    return 1 if "failed" in outcomes else 0


def write(path: Path, told: Mapping[str, Any]) -> None:
    from research.files import write_atomic

    write_atomic(path, json.dumps(told, indent=1) + "\n")


def line(name: str, result: Mapping[str, Any]) -> str:
    """A row of the table, and below it what was measured."""
    first = f"{name:28} {result['outcome']:8} {result['seconds']:6.1f} s  {result.get('reason', '')}"
    numbers = result.get("numbers", {})
    return "\n".join([first.rstrip(), *(f"    {key:42} {value}" for key, value in numbers.items())])


if __name__ == "__main__":
    sys.exit(main())
