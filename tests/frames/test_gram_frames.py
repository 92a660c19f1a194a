import json

import numpy as np
import pytest
from synthetic_runs import LAYERS, write_run

from research.config import Config
from research.errors import UsageError
from research.frames import load_runs
from research.frames.gram import at_k, gram_cost, gram_epochs, gram_taps, load_gram, results_against_k
from research.hooks import HOOKS


def test_gram_record_reads_back(tmp_path):
    run = write_run(tmp_path, "g", epochs=2, gram=True)
    record = load_gram(run)
    assert gram_epochs(run) == [0, 1] and record.epoch == 1 and record.k == 8.0 and record.variant == "center"
    assert [layer.name for layer in record.layers] == list(LAYERS)
    assert record.layers[0].nmi.shape == (8, 3, 3) and record.layers[-1].corr.shape == (7, 7)
    frame = gram_taps(*(load_gram(run, epoch) for epoch in gram_epochs(run)))
    assert len(frame) == 2 * (4 * 9 + 49)
    assert (frame[frame["distance"] == 0]["corr"] == 1).all()
    sums = frame.groupby(["epoch", "layer"])["multiplier"].sum()
    np.testing.assert_allclose(sums.xs("stem7", level="layer"), 49)


def test_missing_gram_record_says_which_exist(tmp_path):
    with pytest.raises(UsageError, match="gram=true"):
        load_gram(write_run(tmp_path, "plain"))
    with pytest.raises(UsageError, match=r"epoch 7.*\[0, 1\]"):
        load_gram(write_run(tmp_path, "g", epochs=2, gram=True), epoch=7)


def test_every_k_comes_from_the_stored_measurement(tmp_path):
    record = load_gram(write_run(tmp_path, "g", gram=True))
    assert at_k(record, 2).k == 2
    for stored, redone in zip(record.layers, at_k(record, record.k).layers, strict=True):
        np.testing.assert_allclose(redone.corr, stored.corr, rtol=1e-6)
        np.testing.assert_allclose(redone.multiplier, stored.multiplier, rtol=1e-6)
    np.testing.assert_allclose(at_k(record, 1).layers[0].corr, np.nanmean(record.layers[0].nmi, axis=0), rtol=1e-6)
    with pytest.raises(UsageError, match="k=0"):
        at_k(record, 0)


def finished(runs, name, top1, k=None, **config):
    """A run that ended with this top-1, plain or with GraM at ``k``; its best epoch had a point more."""
    run = write_run(runs, name, **config)
    stored = json.loads((run / "config.json").read_text())
    stored["hooks"] = {} if k is None else {"gram": {"k": k, "variant": "center"}}
    (run / "config.json").write_text(json.dumps(stored))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"last_top1": top1, "best_top1": top1 + 1}))


def test_results_pair_every_run_with_the_plain_one_of_its_seed(tmp_path):
    for seed, (plain, gram) in enumerate([(70.0, 71.0), (72.0, 75.0)]):
        finished(tmp_path, f"plain{seed}", plain, seed=seed)
        finished(tmp_path, f"gram{seed}", gram, k=8.0, seed=seed)
    finished(tmp_path, "gram2", 79.0, k=8.0, seed=2)  # no plain run of this seed
    gram, plain = results_against_k(load_runs(tmp_path)).to_dict("records")
    assert (gram["k"], gram["n"], gram["mean"], gram["sd"], gram["values"]) == (8.0, 3, 75.0, 4.0, (71.0, 75.0, 79.0))
    assert (gram["pairs"], gram["difference"], gram["test"]) == (2, 2.0, "paired t")
    assert gram["high"] - gram["difference"] == pytest.approx(12.7062 * np.std([1.0, 3.0], ddof=1) / np.sqrt(2))
    assert (plain["n"], plain["mean"], plain["pairs"], plain["verdict"]) == (2, 71.0, 0, "")
    assert np.isnan([plain["k"], plain["difference"]]).all()
    best = results_against_k(load_runs(tmp_path), "best_top1")
    assert best["mean"].tolist() == [76.0, 72.0]


def test_results_of_two_networks_do_not_mix(tmp_path):
    for model, top1, epochs in (("resnet8", 70.0, 3), ("resnet20", 90.0, 5)):  # the network alone names both
        finished(tmp_path, f"{model}-plain", top1, model=model, epochs=epochs)
        finished(tmp_path, f"{model}-gram", top1 + 1, k=2.0, model=model, epochs=epochs)
    finished(tmp_path, "all", 95.0, k=2.0, model="resnet20", epochs=5)
    stored = json.loads((tmp_path / "all" / "config.json").read_text())
    stored["hooks"]["gram"]["variant"] = "allpairs"
    (tmp_path / "all" / "config.json").write_text(json.dumps(stored))
    results = results_against_k(load_runs(tmp_path))
    differences = results.dropna(subset="k").set_index(["setup", "method"])["difference"].to_dict()
    assert differences == {
        ("resnet8 epochs=3", ""): 1.0,
        ("resnet20 epochs=5", ""): 1.0,
        ("resnet20 epochs=5", "gram.variant=allpairs"): 5.0,
    }


@pytest.mark.parametrize("hook", [name for name in HOOKS if name != "gram"])
def test_another_method_at_its_defaults_is_not_plain_training(tmp_path, hook):
    defaults = Config.load({hook: True}).to_dict()["hooks"]
    for name, top1, hooks in (
        ("plain", 70.0, {}),
        ("gram", 71.0, {"gram": {"k": 8.0}}),
        ("other", 80.0, defaults),
        ("both", 83.0, defaults | {"gram": {"k": 8.0}}),
    ):
        finished(tmp_path, name, top1)
        stored = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(stored | {"hooks": hooks}))
    results = results_against_k(load_runs(tmp_path)).set_index(["setup", "k"])
    assert results["mean"].dropna().tolist() == results["mean"].tolist() and len(results) == 4
    differences = results["difference"].dropna()
    assert sorted(differences) == [1.0, 3.0]  # each against the runs of its own setup


def test_cost_is_the_share_of_measuring_in_an_epoch(tmp_path):
    run = write_run(tmp_path, "g", epochs=2)  # 1.5 s of training an epoch
    rows = [{"kind": "gram", "step": 10, "epoch": 1, "layer": layer, "seconds": 0.25} for layer in ("a", "b")]
    twice = [{**row, "seconds": 9.0} for row in rows]  # a run killed before its checkpoint measures again
    (run / "metrics.jsonl").open("a").write("".join(json.dumps(row) + "\n" for row in twice + rows))
    write_run(tmp_path, "plain", epochs=2)
    (cost,) = gram_cost(load_runs(tmp_path)).to_dict("records")
    assert cost == {"run": "g", "epoch": 1, "seconds": 0.5, "training": 1.5, "share": 0.25}
