"""A GPU trains, measures and continues as the CPU does; each check returns how far they were apart."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_cases import METHODS, SETTINGS, VARIANTS, Waits, gpu, table, train
from gpu_computations import COMPUTATIONS, LARGE
from isolated import Skip, Wrong
from overflow import SKIPPED, Overflow, Scaled, Watch
from plain_network import ACTING, PlainNetwork

from research.config import Config
from research.devices import use_tf32
from research.hooks import HOOKS, Hook
from research.hooks.power_grad import power_grad_cross_entropy
from research.models import MODELS
from research.runs.run import Run
from research.studies.population import fit_population
from research.trained.evaluate_weights import evaluate_weights
from research.training.loop import fit

# of what is compared, relative to its largest number: sums of float32 come in another order on a GPU
TOLERANCES = {"network": 1e-3, "substitute": 1e-3, "event": 1e-6, "images": 1e-5, "vectors": 0.0, "nmi": 1e-5}
TOLERANCES |= {"ldi": 1e-3, "multipliers": 1e-3, "loss": 0.02, "half": 0.05, "gradient": 1e-5}
FEW = ("plain training", "rigl", "gram", "ema", "power_grad", "amp=fp16")  # of the cases, on a CPU
HOOKS |= {"scaled": Scaled, "overflow": Overflow, "watch": Watch}
MODELS["plain"] = PlainNetwork
BASE = {"dataset": "digits", "model": "resnet8", "epochs": 1, "batch_size": 128, "lr": 0.05, "log_interval": 4}
BASE |= {"threads": 1, "tf32": "nothing"}


@contextmanager
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as path:
        yield path


def cases_on(device: str) -> str:
    """Where the cases of the suite run: on the GPU that is there, or on the pretended one."""
    return "cuda:0" if device == "cuda" else "pretended"


def trained(runs: str, device: str, **given: Any) -> Run:
    """A run of BASE and ``given``."""
    return fit(Run.create(Config.load(BASE, {"device": device, "runs": runs}, given)))


def rows(run: Run, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, run.paths.metrics.read_text().splitlines())
    return [row for row in found if row["kind"] == kind]


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest number; inf where shapes or whole numbers differ."""
    found, expected = found.detach().cpu(), expected.detach().cpu()
    if found.shape != expected.shape or not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else float("inf")
    if not expected.numel():
        return 0.0
    if not torch.equal(found.isnan(), expected.isnan()):
        return float("inf")
    found, expected = found.double().nan_to_num(), expected.double().nan_to_num()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def judged(differences: dict[str, float], tolerance: float) -> dict[str, Any]:
    """The numbers of a check, or that some differ by more."""
    worst = max(differences, key=differences.get)
    numbers = {"compared": len(differences), "tolerance": tolerance, "largest": f"{differences[worst]:.2g} ({worst})"}
    if wrong := [name for name, difference in differences.items() if not difference <= tolerance]:
        raise Wrong(f"{len(wrong)} of {len(differences)} differ: {', '.join(wrong[:5])}", numbers)
    return numbers


def computations(kind: str, device: str) -> dict[str, Any]:
    """Networks, substitutes, events, batches or measures against the CPU's."""
    use_tf32("nothing")
    chosen = COMPUTATIONS | (LARGE if device == "cuda" else {})
    differences: dict[str, float] = {}
    for name, compute in chosen.items():
        if name.split()[0] != kind:
            continue
        expected = compute("cpu")
        if device == "cuda":
            found = compute("cuda:0")
        else:
            with gpu("pretended"):
                found = {key: value.cpu() for key, value in compute("cuda:0").items()}
        differences[name] = max(apart(found[key], value) for key, value in expected.items())
    return judged(differences, TOLERANCES[kind])


def cases(device: str) -> dict[str, Any]:
    """Every method and setting trains; how often the host waits, against the table in hooks/README.md."""
    every = {"plain training": {}} | METHODS | VARIANTS | SETTINGS
    chosen = every if device == "cuda" else {name: every[name] for name in FEW}
    document = (Path(__file__).parents[2] / "research/hooks/README.md").read_text().split("## Waiting for the GPU")[1]
    told = {row.split(" | ")[0].removeprefix("| "): row for row in re.findall(r"^\| .* \|$", document, re.M)}
    wrong, numbers, plain = [], {}, 0
    for name, given in chosen.items():
        given = dict(given)
        try:
            with folder() as runs:
                waits: Waits = train(runs, cases_on(device), **given)[1].waits
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
            continue
        plain = plain or waits.epoch
        row = table({name: waits if name == "plain training" else waits._replace(epoch=waits.epoch - plain)})[0]
        if name in told and row != told[name]:
            numbers[name] = f"waits {tuple(waits)}; the document says {told[name]}"
        if waits.step and name != "deepr":
            wrong.append(f"{name}: the host waits {waits.step} times a step")
    numbers = {"trained": len(chosen) - len(wrong), "waits as in the document": len(chosen) - len(numbers)} | numbers
    if wrong:
        raise Wrong("; ".join(wrong), numbers)
    return numbers


def skipped_steps(device: str) -> dict[str, Any]:
    """Under fp16 a step whose gradients overflow moves no weight, no momentum and no average."""
    names = [n for n in ACTING if n in ("gram", "rigl", "power_grad", "logit_stats")]
    moving = {}
    for optimizer in ("sgd", "adamw"):
        hooks = {name: ACTING[name] for name in names} | {"ema": ACTING["ema"], "overflow": {}, "watch": {}}
        with folder() as runs:
            run = trained(runs, device, model="plain", batch_size=256, amp="fp16", optimizer=optimizer, hooks=hooks)
        before, skipped = run.hooks["watch"].moved[SKIPPED - 1 : SKIPPED + 1]
        moving |= {f"{optimizer}: {name}": apart(skipped[name], before[name]) for name in before}
    return judged(moving, 0.0)


def loss_scales(device: str) -> dict[str, Any]:
    """A loss scale changes no weight of any method; convolutions are deterministic."""
    differences, broken = {}, {}
    given = {"model": "plain", "batch_size": 256, "deterministic": True, "clip_norm": 0.5, "accumulation": 2}
    for name, parameters in ACTING.items() if device == "cuda" else list(ACTING.items())[:3]:
        hooks = {name: parameters}
        try:
            with folder() as runs:
                plain = trained(runs, device, name="plain", hooks=hooks, **given)
                scaled = trained(runs, device, name="scaled", hooks=hooks | {"scaled": {}}, **given)
        except RuntimeError as error:  # such as an operator that has no deterministic kernel
            broken[name] = str(error).strip().partition("\n")[0][:200]
            continue
        pairs = zip(plain.model.parameters(), scaled.model.parameters(), strict=True)
        differences[name] = max(apart(b, a) for a, b in pairs)
    if broken:
        raise Wrong(f"{', '.join(broken)} did not train", broken | {"compared": len(differences)})
    return judged(differences, 1e-6)


def precisions(compiled: bool, device: str) -> dict[str, Any]:
    """The loss of the first steps under bf16, fp16 and channels_last against the CPU's in float32."""
    network = {"model": "mnist_mlp"} if compiled and device == "cpu" else {}  # or it compiles for minutes
    with folder() as runs:
        expected = rows(trained(runs, "cpu", name="cpu", channels_last=False, **network), "train")[0]["loss"]
        settings = {"float32": {}, "channels_last": {"channels_last": True}, "bf16": {"amp": "bf16"}}
        settings |= {"fp16": {"amp": "fp16"}, "bf16 channels_last": {"amp": "bf16", "channels_last": True}}
        if compiled:
            settings = {f"{name}, compiled": settings[name] | {"compile": True} for name in ("float32", "bf16")}
        differences = {}
        for name, given in settings.items():
            own = trained(runs, device, name=name, **{"channels_last": False} | network | given)
            differences[name] = abs(rows(own, "train")[0]["loss"] / expected - 1)
    return judged(differences, TOLERANCES["half"])


def multipliers(device: str) -> dict[str, Any]:
    """GraM's multipliers, measured before the first step."""
    with folder() as runs:
        ours, expected = (
            trained(runs, where, name=name, hooks={"gram": {"warmup": 0}}).hooks["gram"].multipliers
            for name, where in (("there", device), ("cpu", "cpu"))
        )
    return judged({name: apart(ours[name], value) for name, value in expected.items()}, TOLERANCES["multipliers"])


def power_gradients(device: str) -> dict[str, Any]:
    """PowerGrad's gradient and value, for logits of every precision."""
    differences = {}
    for kind in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        found = []
        for where in (device, "cpu"):
            torch.manual_seed(0)
            z = torch.randn(64, 100).to(kind).to(where).requires_grad_()
            loss = power_grad_cross_entropy(z, torch.arange(64).to(where), 0.25, 0.1)
            loss.backward()
            found.append((loss.detach(), z.grad.float()))
        half = 1e-5 if kind in (torch.float64, torch.float32) else 1e-2
        differences[f"{kind} value"] = apart(found[0][0], found[1][0])
        differences[f"{kind} gradient / allowed"] = apart(found[0][1], found[1][1]) / half * TOLERANCES["gradient"]
    return judged(differences, TOLERANCES["gradient"])


def population(device: str) -> dict[str, Any]:
    """A stack of MLPs: validation loss and LDI of each."""
    with folder() as runs:
        base = {"dataset": "digits", "model": "dense_mlp", "epochs": 1, "batch_size": 256, "threads": 1, "runs": runs}
        base |= {"lr": 1e-2, "schedule": "constant"}
        found = {}
        for where in (device, "cpu"):
            shapes = [{"width": 6, "depth": 5, "tc": tc} for tc in (2, 8)]
            own = [{"model_args": shape, "device": where, "name": f"{where}-{shape['tc']}"} for shape in shapes]
            made = [Config.load(base, given) for given in own]
            found[where] = [
                {"loss": rows(run, "val")[-1]["loss"], "ldi": rows(run, "ldi")[-1]["mean"]}
                for run in fit_population(made, ldi_modes=["exact"])
            ]
    pairs = list(zip(found[device], found["cpu"], strict=True))
    return judged({f"{k} {i}": abs(a[k] / b[k] - 1) for i, (a, b) in enumerate(pairs) for k in b}, TOLERANCES["ldi"])


class Cut(Hook):
    """The end of training after step 6, once."""

    armed = False

    def step_end(self, run: Run) -> None:
        if Cut.armed and run.step == 6:
            Cut.armed = False
            raise KeyboardInterrupt


def resuming(device: str) -> dict[str, Any]:
    """Deterministic runs are equal bit for bit, also one that was cut off and continued."""
    HOOKS["cut"] = Cut
    differences = {}
    hooks = {"rigl": {"period": 2}, "ema": {"decay": 0.9}, "logit_stats": {}, "cut": {}}
    given = {"deterministic": True, "amp": "bf16", "hooks": hooks, "checkpoint_minutes": 0, "log_interval": 1}
    with folder() as runs:
        whole, again = (trained(runs, device, name=name, **given) for name in ("whole", "again"))
        Cut.armed = True
        try:
            trained(runs, device, name="cut", **given)
            raise Wrong("it was not cut off")
        except KeyboardInterrupt:
            cut = trained(runs, device, name="cut", **given)
    for name, other in (("again", again), ("cut off and continued", cut)):
        for (key, a), (_, b) in zip(whole.model.named_parameters(), other.model.named_parameters(), strict=True):
            differences[f"{name}: {key}"] = apart(b, a)
    return judged(differences, 0.0)


def evaluation(device: str) -> dict[str, Any]:
    """Weights of a run evaluate as they did in training, on the GPU and on the CPU."""
    with folder() as runs:
        run = trained(runs, device)
        (told,) = rows(run, "val")
        (found,) = evaluate_weights([run.dir])
    return judged({"loss": abs(found["loss"] / told["loss"] - 1)}, 1e-3) | {"top1": found["top1"]}


def two_of_four(device: str) -> dict[str, Any]:
    """A network with 2 zeros in 4 neighbours, in PyTorch's semi-structured format."""
    if device == "cpu" or torch.cuda.get_device_capability() < (8, 0):
        raise Skip("needs an NVIDIA GPU of compute capability 8.0 or newer")
    from research.trained.compressed import to_two_of_four

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
    with torch.no_grad():
        for linear in (model[0], model[2]):
            linear.weight.view(-1, 4)[:, ::2] = 0
        x = torch.randn(64, 512)
        expected = model(x)
        found = to_two_of_four(model)(x.half().cuda()).float()
    return judged({"outputs": apart(found, expected)}, 0.02)


EQUAL = {
    **{f"equal {kind}": partial(computations, kind) for kind in ("network", "substitute", "event", "images")},
    **{f"equal {kind}": partial(computations, kind) for kind in ("vectors", "nmi", "ldi")},
    "equal multipliers": multipliers,
    "equal power_grad": power_gradients,
    "equal population": population,
    "methods train, and wait": cases,
    "fp16 skips a step": skipped_steps,
    "loss scales": loss_scales,
    "precisions": partial(precisions, False),
    "precisions, compiled": partial(precisions, True),
    "resuming": resuming,
    "evaluation": evaluation,
    "export 2:4": two_of_four,
}
