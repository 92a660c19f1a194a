"""One odd folder among the runs ends no analysis of the others: every notebook, and an entry of the log."""

import json
import shutil

import pytest
from conftest import REPOSITORY
from synthetic_runs import write_run

from research.config import Config
from research.errors import UsageError
from research.frames import budgets, gram, load_runs, masks, power_grad, sparse, topology
from research.frames.published import load_published
from research.log import entries
from research.notebooks.execute import execute
from research.runs.paths import RunPaths
from research.runs.plans import record
from research.runs.run import Run
from research.studies.mlp_grid import mlp_configs
from research.studies.population import fit_population
from research.training.loop import fit

MASS = "mass-linear-model-args-width-4-model-args-depth-5-model-args-tc-2-data-args-num-seg-4-seed-0"


def config(**changes):
    def change(paths):
        told = json.loads(paths.config.read_text())
        paths.config.write_text(json.dumps(told | {name: each(told) for name, each in changes.items()}))

    return change


def more_rows(text):
    def change(paths):
        with open(paths.metrics, "a") as file:
            file.write(text)

    return change


def parameter(told):
    return {name: {**given, "novel": 1} for name, given in told["hooks"].items()} or {"ema": {"novel": 1}}


def damage(paths):
    for path in [paths.best, *paths.multipliers.glob("*.npz")]:
        path.write_bytes(b"x")


ODD = {
    "status": lambda paths: paths.status.write_text("{}"),
    "no-status": lambda paths: paths.status.unlink(),
    "no-hooks": config(hooks=lambda told: None),
    "no-maps": config(model_args=lambda told: None),
    "rows": more_rows('5\nnull\n{"kind": "val", "step": 1, "epoch": 0, "loss": "low", "top1": [1]}\n{"kind": "val"}\n'),
    "huge": more_rows('{"kind": "val", "step": 1, "epoch": 0, "loss": 1' + "0" * 400 + "}\n"),
    "no-rows": lambda paths: paths.metrics.unlink(),
    "no-environment": lambda paths: paths.environment.write_text(""),
    "environment": lambda paths: paths.environment.write_text('{"started": 5}'),
    "sessions": lambda paths: paths.environment.write_text('[5, {}, {"started": null}]'),
    "newer-method": config(hooks=lambda told: {"novel": {"strength": 2}}),
    "newer-parameter": config(hooks=parameter),
    "method-text": config(hooks=lambda told: {"power_grad": {"alpha": "half"}, "gram": {"k": "four"}}),
    "newer-network": config(model=lambda told: "novel"),
    "newer-data": config(dataset=lambda told: "novel"),
    "newer-field": config(novel=lambda told: 1),
    "damaged": damage,
    "newer-file": lambda paths: (
        paths.multipliers.mkdir(exist_ok=True) or (paths.multipliers / "epoch_last.npz").write_bytes(b"")
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Runs for every notebook: dense, sparse, with PowerGrad and GraM, and networks of several masses."""
    folder = tmp_path_factory.mktemp("project") / "runs"
    base = {"dataset": "digits", "model": "mnist_mlp", "epochs": 1, "lr": 0.05, "device": "cpu", "threads": 1}
    base |= {"runs": str(folder), "model_args": {"batch_norm": False}}
    methods = {
        "dense": {},
        "dsr": {"dsr": {"sparsity": 0.9, "period": "3", "k": 200, "threshold": 0.01}},
        "static": {"static_sparse": {"sparsity": 0.9}},
        "power": {"power_grad": {"alpha": 0.5}},
    }
    for name, hooks in methods.items():
        fit(Run.create(Config.load(base, {"name": name, "hooks": hooks})))
    for seed in (0, 1):
        write_run(folder, f"gram{seed}", gram=True, seed=seed)
        write_run(folder, f"plain{seed}", seed=seed)
    grid = {"dataset": "linear", "width": 4, "depth": 5, "tc": [0, 2, 6], "num_seg": 4, "seeds": [0]}
    fit_population(mlp_configs("mass", **grid, batch_size=2000, device="cpu", runs=str(folder)), ["exact"])
    return folder


def project(sound, here, kind):
    """A copy of the sound runs in ``here``, beside every odd run of the ``kind``; those come first by name."""
    shutil.copytree(sound, here / "runs")
    for odd, change in ODD.items():
        change(RunPaths(shutil.copytree(sound / kind, here / "runs" / f"a-{odd}")))


KINDS = {"budgets": "dsr", "correlation": "gram0", "curves": "gram0", "ldi": MASS, "nn_mass": MASS}
KINDS |= {"power_grad": "power", "sparsity": "dsr", "masks_at_start": "static", "two_runs": "dsr"}
KINDS |= {"interactions": "dsr", "errors": "dsr"}  # what each is about
UNKNOWN = {"newer-method", "newer-parameter", "method-text", "newer-network", "newer-data", "newer-field"}
TABLES = {  # what notebooks read of runs, and what no version has to understand
    "budgets": [budgets.budget_points, budgets.training_losses],
    "correlation": [gram.results_against_k, gram.gram_cost, gram.with_gram],
    "curves": [lambda runs: runs.assign(label=runs.labels()), lambda runs: runs.metrics],
    "masks_at_start": [masks.mask_numbers],
    "nn_mass": [topology.topology_points],
    "power_grad": [power_grad.with_alpha, lambda runs: power_grad.against_published(runs, PUBLISHED)],
    "sparsity": [sparse.sparse_points, sparse.densities_over_time, sparse.events, sparse.network_history],
}
MEASURED = {gram.gram_cost, gram.with_gram, *TABLES["curves"]}  # read of any version
PUBLISHED = load_published("power-grad-imagenet")


def test_every_notebook_is_tried():
    of_a_study = {"predict"}  # reads of runs no more than their status: tests/studies/test_prediction.py
    assert set(KINDS) | of_a_study == {path.stem for path in (REPOSITORY / "notebooks" / "analysis").glob("*.ipynb")}


@pytest.mark.parametrize("notebook", TABLES)
def test_odd_runs_end_no_table(notebook, sound, here, recwarn):
    kind = KINDS[notebook]
    project(sound, here, kind)
    runs = load_runs("runs")
    told = "".join(f"{warning.message}\n" for warning in recwarn)
    assert "a-no-hooks cannot be read and is left out" in told and "a-status/status.json has no status" in told
    for table in TABLES[notebook]:
        found = table(runs)
        names = next((set(found[column].dropna()) for column in ("run", "name") if column in found), set())
        assert not names or {kind, "a-rows"} <= names and not {"a-no-hooks", "a-no-maps"} & names
        assert table in MEASURED or not {f"a-{name}" for name in UNKNOWN} & names
    told = "".join(f"{warning.message}\n" for warning in recwarn)
    assert notebook == "curves" or all(f"a-{name} is left out: " in told for name in UNKNOWN)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", KINDS)
def test_odd_runs_end_no_notebook(notebook, sound, here):
    project(sound, here, KINDS[notebook])
    arms = {"dense": "plain", "dsr": "dsr", "static": "static"}  # of a study, which one notebook is about
    record(here / "runs", "s", {"contrasts": [], "margin": None, "arms": arms, "confirming": {}}, [])
    more = {"ldi": {"inits": 1, "images": 20}, "two_runs": {"ours": "dsr", "theirs": "dense"}}
    more |= {"errors": {"run": "dsr", "other": "dense"}}
    given = {"runs": "runs", "log": "log.md"} | more.get(notebook, {})
    assert execute(f"analysis/{notebook}", given, progress=False).is_file()
    assert (here / "log.md").is_file()


def test_odd_runs_end_no_entry(sound, here, recwarn):
    project(sound, here, "dsr")
    text = entries.append(load_runs("runs")).read_text()
    assert "`a-status` unreadable after 0 epochs" in text
    told = "".join(f"{warning.message}\n" for warning in recwarn)
    for name in UNKNOWN:
        assert f"`a-{name}`" not in text and f"a-{name} is left out: " in told
    with pytest.raises(UsageError, match="this version knows the parameters of none of a-newer-method"):
        entries.append(load_runs("runs", "a-newer-method"))
