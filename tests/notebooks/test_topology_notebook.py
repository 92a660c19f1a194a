"""The notebook of populations: the published flags, its table, log lines and LDI, executed through papermill."""

import pytest
from conftest import cells

from research.config import Config
from research.errors import UsageError
from research.frames import load_runs
from research.measures.ldi import ldi
from research.measures.nn_mass import mlp_topology
from research.models import create_model
from research.notebooks.execute import find, read_parameters
from research.runs.run import Run
from research.studies.mlp_grid import append_lines, mlp_configs, networks, result_lines, sigma_lines, train_lines
from research.studies.population import fit_population, measure_ldi

FLAGS = set(
    "batch_size epochs lr depth width num_seg tc dataset make_dataset train_log_file res_log_file sigma_log_file "
    "iter_times".split()
)


@pytest.fixture
def small(tmp_path):
    """Two networks on circles and two on a line, one epoch of six steps, with LDI in two modes."""
    given = {"dataset": ["circle", "linear"], "width": 4, "depth": 4, "tc": [0, 3], "num_seg": 4, "seeds": [5]}
    configs = mlp_configs(**given, batch_size=2000, runs=str(tmp_path / "runs"), device="cpu")
    return fit_population(configs, ["exact", "reference"])


def test_the_notebook_takes_the_published_flags_and_adds_to_their_logs(here, monkeypatch):
    assert set(read_parameters(find("topology"))) >= FLAGS
    given = {
        "dataset": "circle",
        "width": 4,
        "depth": 5,
        "tc": [0, 2],
        "num_seg": 4,
        "iter_times": 2,
        "batch_size": 2000,
    }
    logs = {f"{kind}_log_file": f"logs/mlp_{kind}.logs" for kind in ("train", "res", "sigma")}
    left = cells("topology", monkeypatch, **given, epochs=2, make_dataset=True, data_root=str(here / "data"), **logs)
    assert (left["means"]["networks"] == 2).all() and len(left["table"]) == 4
    assert sorted(path.name for path in (here / "data").iterdir()) == [
        f"{split}_{kind}.csv" for split in ("test", "train") for kind in ("circle", "linear")
    ]
    columns = {"train": (8, 2), "res": (4, 9), "sigma": (4, 9)}
    for kind, (lines, width) in columns.items():
        told = [line.split(" ") for line in (here / f"logs/mlp_{kind}.logs").read_text().splitlines()]
        assert [len(line) for line in told] == [width] * lines
        assert all(float(cell) == float(cell) for line in told for cell in line)
    again = cells("topology", monkeypatch, **given, epochs=2, data_root=str(here / "data"), **logs)
    assert again["table"].equals(left["table"])
    assert len((here / "logs/mlp_res.logs").read_text().splitlines()) == 8


def test_ldi_alone_trains_nothing(here, monkeypatch):
    left = cells("topology", monkeypatch, dataset="linear", width=4, tc=2, iter_times=1, train=False, ldi_mode="post")
    (row,) = left["table"].to_dict("records")
    assert row["ldi_mean"] > 0 and row["top1"] != row["top1"] and row["epoch"] == 0
    assert Run.open(here / "runs" / row["run"]).status == {"status": "created"}


def test_log_lines_are_those_of_the_published_programs(small):
    runs = load_runs(small[0].dir.parent)
    table, shapes = networks(runs), {tc: mlp_topology(4, 4, tc, 2, 2) for tc in (0, 3)}
    for row, result, sigma in zip(table.itertuples(), result_lines(runs), sigma_lines(runs), strict=True):
        shape = shapes[row.tc]
        end = f"{float(shape.params)} {shape.flops} 4 4 {row.tc} 4"
        assert result == f"{shape.nn_mass} {row.top1} {row.top1} {end}"  # no loss of generated data, as published
        assert sigma == f"{shape.nn_mass} {row.ldi_mean} {row.ldi_std} {end}"
    assert sigma_lines(runs, ldi_mode="reference") != sigma_lines(runs)
    assert train_lines(runs) == [f"{row.train_top1} {row.train_loss}" for row in table.itertuples()]


def test_lines_are_appended_in_folders_that_are_made(tmp_path):
    for lines in (["a"], [], ["b", "c"]):
        append_lines(tmp_path / "new" / "log.txt", lines)
    assert (tmp_path / "new" / "log.txt").read_text() == "a\nb\nc\n"


def test_ldi_is_that_of_the_initial_network_and_is_measured_once(small):
    run = small[1]
    metrics = load_runs(run.dir).metrics.query("kind == 'ldi' and mode == 'reference'")
    fresh = Run(run.dir, run.config)
    fresh.seed_everything("initial weights")
    model = create_model("dense_mlp", 2, (2,), **run.config.model_args)
    inputs = small[1].val_loader.inputs
    found = ldi(model, inputs, "reference")
    total = metrics[metrics["layer"].isna()].set_index("metric")["value"]
    assert (total["mean"], total["std"], total["pooled_std"]) == (found.mean, found.std, found.pooled_std)
    assert tuple(metrics[metrics["layer"].notna()]["value"]) == found.layers
    before = run.paths.metrics.read_bytes()
    measure_ldi(small, ["exact", "reference"])
    assert run.paths.metrics.read_bytes() == before


def test_flags_become_the_published_training(tmp_path):
    mnist, linear = mlp_configs(dataset=["MNIST", "linear.csv"], seeds=[0], num_seg=6, depth=8, tc=10, lr=0.01)
    assert (mnist.dataset, mnist.batch_size, mnist.data_args) == ("mnist", 64, {"normalize": False})
    assert (linear.dataset, linear.batch_size, linear.data_args) == ("linear", 100, {"num_seg": 6})
    for config in (mnist, linear):
        assert config.model_args == {"act": "elu", "width": 8, "depth": 8, "tc": 10}
        assert (config.optimizer, config.weight_decay, config.betas, config.eps) == ("adamw", 0, (0.9, 0.999), 1e-8)
        assert (config.schedule, config.lr, config.epochs) == ("constant", 0.01, 1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"dataset": "mnist2"}, "dataset='mnist2': expected MNIST, linear or circle"),
        ({"depth": 2}, "model_args.depth=2: must be >= 3"),
        ({"tc": [1, -1]}, "model_args.tc=-1: must be >= 0"),
        ({"width": "wide"}, "model_args.width='wide': expected int"),
        ({"epochs": 0}, "epochs=0: must be >= 1"),
        ({"seeds": [0, 0]}, "this run is in the study twice"),
        ({"dataset": ["linear", "lines", "x"]}, "dataset='x': expected MNIST"),
    ],
)
def test_mistakes_are_told_at_once_and_by_name(given, told):
    with pytest.raises(UsageError) as refused:
        mlp_configs(**given)
    assert told in str(refused.value)


def test_networks_of_other_kinds_are_left_out_of_the_table(small):
    Run.create(Config(name="other", model="resnet8", runs=str(small[0].dir.parent)))
    assert set(networks(load_runs(small[0].dir.parent))["run"]) == {run.name for run in small}
