"""Every figure function with one, ten and three hundred of what it draws: all of it inside the saved picture.

What is drawn many times differs: runs, configurations, layers, networks, epochs or classes.
"""

import inspect
import io
import itertools
import json
from importlib import import_module
from pkgutil import walk_packages

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from research import figures
from research.data.seen import Seen
from research.figures.layer import LayerView
from research.figures.style import PAGE, TALLEST
from research.frames import load_runs
from research.frames.candidates import MEASURES
from research.frames.gram import GramLayer, GramRecord, gram_taps
from research.frames.iso_mass import cifar_families, iso_mass_curves, mobilenets
from research.frames.masks import PREDICTORS
from research.frames.topology import correlations, over_seeds
from research.layers.cost import Cost, Row
from research.measures.calibration import reliability
from research.measures.mistakes import by_class, confusion

METHODS = ("static_sparse", "set", "rigl", "dsr", "tied", "deepr", "prune", "itop", "snfs", "l3")
WORDS = "lr=0.1 distribution=er period=0:50 2:100"  # what labels are like


def named(n):
    return [f"{METHODS[place % len(METHODS)]} {WORDS} k={place}" for place in range(n)]


def frame(n, seeds=2, epochs=3, **columns):
    """A row a configuration, seed and epoch; ``columns``: functions of the place, the seed and the epoch."""
    rows = itertools.product(range(n), range(seeds), range(epochs))
    names = named(n)
    return pd.DataFrame(
        {"configuration": names[i], "method": METHODS[i % len(METHODS)], "run": f"r{i}-{seed}", "seed": seed}
        | {"trained": e + 1}
        | {name: value(i, seed, e) for name, value in columns.items()}
        for i, seed, e in rows
    )


def wave(i, seed=0, e=0):
    return 1.5 + np.sin(3.0 * i + 0.3 * seed) + 0.5 / (e + 1)


def loss_curves(draw, n, tmp_path, epochs=2):
    for place in range(n):
        write_run(tmp_path, f"r{place}", lr=0.001 * (place + 1), epochs=epochs)
    return draw(load_runs(tmp_path))


def logit_growth(draw, n, tmp_path):
    for place in range(n):
        hooks = {"power_grad": {"alpha": 1 / (1 + place), "final_alpha": 0.0}, "logit_stats": {}}
        run = write_run(tmp_path, f"r{place}", hooks=hooks, epochs=2)
        rows = [{"kind": "val_logits", "step": 10 * e, "epoch": e, "norm": (e + 1.0) * (place + 1)} for e in range(2)]
        with open(run / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return draw(load_runs(tmp_path))


def record(layers, epoch=0, side=3):
    rng = np.random.default_rng(epoch)
    made = []
    for place in range(layers):
        nmi = rng.uniform(0.1, 0.9, (4, side, side))
        corr = nmi.mean(0)
        made.append(GramLayer(f"layer{place // 20}.{place % 20}.conv1", nmi, corr, corr / corr.mean(), 1000, 11))
    return GramRecord(epoch, 8.0, "center", tuple(made))


def points(n):
    rows = [
        {"population": "p", "network": f"n{i}", "width": 8, "depth": 4 + i, "nn_mass": 10.0 * i, "nn_density": 0.1}
        | {"params": 10_000 * (i + 1), "mult_adds": 1e6, "seed": seed, "status": "finished", "top1": 90 + wave(i, seed)}
        | {"ldi_exact": 0.5 + 0.1 * wave(i, seed), "ldi_reference": 0.3}
        for i in range(n)
        for seed in range(2)
    ]
    return pd.DataFrame(rows)


def cost(place):
    return Cost([Row(f"layer{part}", "Conv2d", 1000 + place, 1000, 1e5 * (part + 1)) for part in range(4)], 4000)


def priced(n):
    table = frame(n, epochs=1, top1_err=wave, params=lambda i, *_: 1000.0 * (i + 1), inference=lambda i, *_: 1e6 + i)
    return table.assign(training=1e9, cpu_seconds=table["top1_err"])


def trials(n):
    rows = [
        ("s", name, "lr", rate, 0, 80 * wave(i, int(9 * rate)), rate == 0.1)
        for i, name in enumerate(named(n))
        for rate in (0.05, 0.1, 0.2)
    ]
    return pd.DataFrame(rows, columns=["study", "arm", "over", "value", "seed", "top1", "chosen"])


def results(n):
    rows = [
        {"setup": name, "method": "", "k": k, "values": (70.0, 71.0), "n": 2, "p_holm": 0.04}
        | {"mean": 70 + wave(i), "mean_low": 69.0, "mean_high": 73.0, "difference": wave(i), "low": 0.0, "high": 3.0}
        for i, name in enumerate(named(n))
        for k in (np.nan, 1.0, 8.0)
    ]
    return pd.DataFrame(rows)


def logits(n=400):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, n)
    return rng.normal(size=(n, 3)) + 2 * np.eye(3)[targets], targets


def interval_table(names, column):
    """What tables of comparisons have of each of ``names``."""
    table = pd.DataFrame({column: names, "n": 20, "p_holm": 0.04})
    low, middle, high = ([value + 0.1 * wave(i) for i in range(len(names))] for value in (0.1, 0.3, 0.5))
    table = table.assign(difference=middle, mean=middle, mean_against=low, alone=middle, given_size=middle)
    return table.assign(low=low, high=high, given_low=low, given_high=high)


def alphas(n):
    return [round(1 / (1 + place), 4) for place in range(n)]


def reliabilities(n):
    return {alpha: reliability(*logits()) for alpha in alphas(n)}


def classified(classes):
    """A confusion matrix in which a twentieth of the images of a class is taken for another one."""
    targets = np.repeat(np.arange(classes), 40)
    return confusion(np.where(np.arange(len(targets)) % 20, targets, (7 * targets + 3) % classes), targets, classes)


def distribution(i, *_):
    return ("uniform", "er")[i % 2]


def seen(images):
    """The images of a data set, each of which augmentation left as it was for three epochs."""
    plain = np.zeros((images, 8, 8, 1))
    augmented = np.broadcast_to(plain[:, None], (images, 3, 8, 8, 1))
    labels = np.full(images, 7)
    return Seen(tuple(range(images)), (0, 1, 2), labels, plain, augmented, np.ones((images, 3)))


CASES = {
    "arms.candidates.scores_against_accuracy": lambda draw, n, _: draw(
        frame(n, epochs=1, top1=wave, **dict.fromkeys(MEASURES, wave)).rename(columns={"configuration": "arm"})
    ),
    "arms.candidates.trust_intervals": lambda draw, n, _: draw(
        {f"study {place}": interval_table(list(MEASURES)[:6], "measure") for place in range(min(n, 4))}
    ),  # of a few studies
    "arms.interactions.effects_together": lambda draw, n, _: draw(
        interval_table(named(n), "arm"), interval_table(named(n), "arm")
    ),
    "layer.layer_views": lambda draw, n, _: draw(
        [LayerView(f"run {name}", no_state="no weights were kept", no_gram="no GraM") for name in range(min(n, 2))]
    ),
    "pictures.augmented_images": lambda draw, n, _: draw(seen(min(n, 10))),  # rows are chosen: of many, a page full
    "curves.loss_curves": loss_curves,
    "budgets.error_against_cost": lambda draw, n, _: draw(
        frame(
            n, epochs=1, top1_err=wave, params=lambda i, *_: 1e4 * (i + 1), mult_adds=lambda i, *_: 1e6 * (i + 1)
        ).assign(network="wrn", dataset="cifar10", family=["tt", "hashed"][n % 2], distilled=True, setting="4")
    ),
    "budgets.teacher_curves": lambda draw, n, _: draw(
        pd.concat(
            frame(n, seeds=1, mean=wave).assign(quantity=quantity, distilled=False, seeds=2, std=0.1)
            for quantity in ("loss", "ce", "top1_err")
        )
    ),
    "budgets.cost_by_layer": lambda draw, n, _: draw({name: cost(place) for place, name in enumerate(named(n))}),
    "sparsity.error_against_density": lambda draw, n, _: draw(
        frame(
            n,
            epochs=1,
            top1=lambda i, seed, e: 97 - wave(i, seed),
            density=lambda i, *_: 1.0 + i // 4,
            distribution=distribution,
        ).assign(dataset="mnist", epochs=3)
    ),
    "sparsity.density_by_layer": lambda draw, n, _: draw(
        pd.concat(frame(n, density=lambda i, seed, e: 0.1 / (1 + e)).assign(layer=layer) for layer in ("1", "2"))
    ),
    "sparsity.reallocation": lambda draw, n, _: draw(
        frame(
            n,
            threshold=lambda i, seed, e: 10.0**-e,
            pruned=lambda i, seed, e: 100 * wave(i),
            step=lambda i, seed, e: 50 * e,
        ).assign(k=300.0, method="dsr")
    ),
    "sparsity.coverage_and_survival": lambda draw, n, _: draw(
        frame(
            n,
            coverage=lambda i, seed, e: 0.1 * (e + 1),
            kept=lambda i, *_: 0.3 * wave(i),
            survived=lambda i, *_: 0.2 * wave(i),
        )
    ),
    "masks.seeds_by_arm": lambda draw, n, _: draw(
        frame(n, epochs=1, top1=lambda i, seed, e: 97 - wave(i, seed), living_1=lambda i, *_: 100 + i)
        .assign(fresh=False)
        .rename(columns={"configuration": "arm"})
    ),
    "masks.numbers_at_start": lambda draw, n, _: draw(
        frame(n, epochs=1, power=lambda i, *_: i / 2, log_odds=wave, **dict.fromkeys(PREDICTORS, wave))
    ),
    "pareto.pareto_fronts": lambda draw, n, _: draw(priced(n)),
    "study.accuracy_against_value": lambda draw, n, _: draw(trials(n)),
    "power_grad.gradient_profile": lambda draw, n, _: draw(alphas(n), alphas(n), 0.25),
    "power_grad.logit_growth": logit_growth,
    "power_grad.intervals": lambda draw, n, _: draw(
        pd.DataFrame(
            {"label": named(n), "difference": [wave(i) for i in range(n)], "low": 0.0, "high": 3.0, "p_holm": 0.2}
        ),
        "difference (points)",
    ),
    "calibration.reliability_diagram": lambda draw, n, _: draw(reliabilities(n), reliabilities(n)),
    "calibration.calibration_by_alpha": lambda draw, n, _: draw(
        frame(
            n,
            epochs=1,
            alpha=lambda i, seed, e: 1 / (1 + seed),
            **dict.fromkeys(["loss", "loss_scaled", "ece", "ece_scaled"], wave),
        ).rename(columns={"configuration": "network"})
    ),
    "calibration.confidence_and_accuracy": lambda draw, n, _: draw(dict.fromkeys(named(n), reliability(*logits()))),
    "mistakes.accuracy_by_class": lambda draw, n, _: draw(by_class(classified(n))),
    "mistakes.confusion_matrix": lambda draw, n, _: draw(classified(n)),
    "mistakes.mistaken_pictures": lambda draw, n, _: draw(
        np.zeros((min(n, 24), 8, 8)), [7] * n, [10] * n, [0.987] * n, [f"class {label}" for label in range(11)]
    ),
    "topology.accuracy_against_mass": lambda draw, n, _: draw(
        points(n), correlations(points(n), [("nn_mass", "top1")])
    ),
    "topology.ldi_against_mass": lambda draw, n, _: draw(over_seeds(points(n))),
    "topology.accuracy_against_ldi": lambda draw, n, _: draw(over_seeds(points(n))),
    "topology.singular_values": lambda draw, n, _: draw(
        {depth: {float(m): np.random.default_rng(m).random(50) for m in range(n)} for depth in (8, 24)}
    ),
    "topology.closed_forms": lambda draw, n, _: draw(
        iso_mass_curves(np.linspace(15, 50, n), 8, range(4, 9)), cifar_families(), mobilenets([1.0, 1.4])
    ),
    "correlation.nmi_matrices": lambda draw, n, _: draw(record(n)),
    "correlation.wide_kernels": lambda draw, n, _: draw(record(min(n, 2), side=7)),  # stems: a network has one or two
    "correlation.multipliers_of_ks": lambda draw, n, _: draw(record(3), range(1, min(n, 12) + 1)),  # ks are chosen
    "correlation.multipliers_of_epochs": lambda draw, n, _: draw([record(3, epoch) for epoch in range(n)]),
    "taps.multiplier_over_epochs": lambda draw, n, _: draw(gram_taps(record(n), record(n, 1))),
    "taps.multiplier_over_k": lambda draw, n, _: draw(gram_taps(record(n))),
    "taps.tap_profile": lambda draw, n, _: draw(gram_taps(record(n))),
    "taps.horizontal_and_vertical": lambda draw, n, _: draw(gram_taps(record(n))),
    "taps.nmi_histogram": lambda draw, n, _: draw(record(n)),
    "study.against_k": lambda draw, n, _: draw(results(n)),
    "study.measuring_cost": lambda draw, n, _: draw(
        frame(n, epochs=2, seconds=wave, share=lambda i, *_: 0.1 * wave(i)).assign(epoch=lambda f: f["trained"] - 1)
    ),
}


def drawing_functions():
    """``module.function`` of every public function that makes a Figure."""
    found = set()
    for module in walk_packages(figures.__path__, "research.figures."):
        inside = import_module(module.name)
        found |= {
            f"{module.name.removeprefix('research.figures.')}.{name}"
            for name, function in inspect.getmembers(inside, inspect.isfunction)
            if function.__module__ == inside.__name__
            and not name.startswith("_")
            and str(inspect.signature(function).return_annotation) == "Figure"
        }
    return found


def test_every_figure_function_is_tried():
    assert drawing_functions() == set(CASES)


SIZES = [pytest.param(n, marks=[pytest.mark.slow] * (n > 10)) for n in (1, 10, 300)]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_all_that_is_drawn_lies_inside_the_picture_and_nothing_on_the_data(name, n, tmp_path):
    module, _, function = name.rpartition(".")
    figure = CASES[name](getattr(import_module(f"research.figures.{module}"), function), n, tmp_path)
    figure.savefig(io.BytesIO(), dpi=figure.dpi)  # lays it out as a saved one
    assert figure.get_figwidth() <= PAGE + 1e-6
    assert figure.get_figheight() <= TALLEST + 0.5
    around = figure.get_tightbbox()
    assert min(around.x0, around.y0) >= -0.03 and around.x1 <= figure.get_figwidth() + 0.03
    assert around.y1 <= figure.get_figheight() + 0.03
    drawn = [axis for axis in figure.axes if axis.axison]
    legends = [*figure.legends, *(axis.get_legend() for axis in drawn if axis.get_legend())]
    for legend, axis in itertools.product(legends, drawn):
        assert overlap(legend.get_window_extent(), axis.get_window_extent()) < 1
    for axis in drawn:
        assert not covering(axis.get_xticklabels(), axis) and not covering(axis.get_yticklabels(), axis)
    plt.close(figure)


def overlap(a, b):
    """Pixels that two boxes share."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0, width) * max(0, height)


def covering(labels, axis):
    """The pairs of neighbouring labels of an axis, of those within its limits, that cover each other."""
    inside = axis.get_window_extent().expanded(1.01, 1.01)
    shown = [label for label in labels if label.get_text() and label.get_visible() and not label.get_rotation()]
    boxes = [(label.get_text(), label.get_window_extent()) for label in shown]
    boxes = [(text, box) for text, box in boxes if overlap(box.expanded(3, 3), inside)]
    return [(a, b) for (a, one), (b, other) in itertools.pairwise(boxes) if overlap(one, other) > 2]
