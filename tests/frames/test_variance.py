"""Components of variance: exact where effects are additive, and told apart only by designs that can."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from research.errors import UsageError
from research.frames import load_runs
from research.frames.variance import REST, components, decomposed, levels, moments

INIT, ORDER, MASK = [0.0, 1.0, 5.0], [2.0, -1.0, 0.5, 0.0], [0.0, 3.0]


def crossed(*effects: list[float]) -> tuple[pd.Series, pd.DataFrame]:
    """The sum of one effect of each source, for every combination."""
    rows = list(itertools.product(*map(range, map(len, effects))))
    values = [sum(effect[level] for effect, level in zip(effects, row, strict=True)) for row in rows]
    return pd.Series(values), pd.DataFrame(rows, columns=["a", "b", "c"][: len(effects)])


def one_at_a_time(*effects: list[float]) -> tuple[pd.Series, pd.DataFrame]:
    """The same, with one source away from its first level at a time."""
    values, found = crossed(*effects)
    kept = (found > 0).sum(axis=1) <= 1
    return values[kept], found[kept]


def test_crossed_additive_effects_come_out_as_their_sample_variances():
    table = components(*crossed(INIT, ORDER, MASK))
    assert table["variance"].to_dict() == pytest.approx(
        {"a": np.var(INIT, ddof=1), "b": np.var(ORDER, ddof=1), "c": np.var(MASK, ddof=1), REST: 0.0}, abs=1e-12
    )
    assert table["levels"].tolist() == [3, 4, 2, 24]


def test_what_varies_alone_has_its_sample_variance_also_when_one_varies_at_a_time():
    for design in (crossed, one_at_a_time):
        table = components(*design(INIT, ORDER))
        assert table["alone"].tolist()[:2] == pytest.approx([np.var(INIT, ddof=1), np.var(ORDER, ddof=1)])


def test_components_are_unbiased_when_one_varies_at_a_time():
    random = np.random.default_rng(0)
    codes = one_at_a_time([0.0] * 4, [0.0] * 4)[1].to_numpy()
    effects = [sd * random.standard_normal((20_000, 4))[:, codes[:, at]] for at, sd in enumerate((2.0, 1.0))]
    assert moments(sum(effects), codes).mean(axis=0) == pytest.approx([4.0, 1.0, 0.0], abs=0.05)


def test_what_sources_do_together_is_the_rest():
    found = pd.DataFrame(list(itertools.product(range(2), range(2))), columns=["a", "b"])
    table = components(pd.Series([1.0, -1.0, -1.0, 1.0]), found)  # no mean effect of either
    # half the squared differences: 2 where one differs, 0 where both do; 2 = a + rest = b + rest, 0 = a + b + rest
    assert table["variance"].to_dict() == pytest.approx({"a": -2.0, "b": -2.0, REST: 4.0})
    assert table["sd"].tolist() == pytest.approx([0.0, 0.0, 2.0])


def test_known_components_are_found_and_intervals_are_as_wide_as_studies_scatter():
    random = np.random.default_rng(3)
    values, found = crossed([0.0] * 6, [0.0] * 6)
    codes = found.to_numpy()
    drawn = [sd * random.standard_normal((2000, 6))[:, codes[:, at]] for at, sd in enumerate((2.0, 1.0))]
    studies = sum(drawn) + 0.5 * random.standard_normal((2000, 36))
    estimates = moments(studies, codes)
    assert estimates.mean(axis=0) == pytest.approx([4.0, 1.0, 0.25], rel=0.05)
    nearest = studies[np.abs(estimates - [4.0, 1.0, 0.25]).sum(axis=1).argmin()]
    table = components(pd.Series(nearest, index=values.index), found)
    scatter = np.quantile(estimates, [0.025, 0.975], axis=0)
    assert table["low"].to_numpy() == pytest.approx(scatter[0], rel=0.25)
    assert table["high"].to_numpy() == pytest.approx(scatter[1], rel=0.25)


@pytest.mark.parametrize(
    ("values", "found", "told"),
    [
        ([1.0, 2.0, 3.0], {"a": [0, 1, 2], "b": [0, 2, 1]}, "cannot tell a, b apart"),
        ([1.0, 2.0], {"a": [0, 1]}, "three runs or more"),
        ([1.0, 2.0, 3.0], {"a": [0, 0, 0]}, "something that varies"),
    ],
)
def test_designs_that_cannot_tell_are_refused(values, found, told):
    with pytest.raises(UsageError, match=told):
        components(pd.Series(values), pd.DataFrame(found))


def test_the_seed_decides_what_no_own_seed_does():
    static = {"static_sparse.sparsity": 0.5}
    runs = [{}, {"seed": 1}, {"seed": 1, "order_seed": 0}, {"order_seed": 2}]
    assert levels(runs, list("abcd")).to_dict("list") == {"initial weights": [0, 1, 1, 0], "order": [0, 1, 0, 2]}
    masked = [static, static | {"mask_seed": 5}, static | {"seed": 1, "mask_seed": 5}]
    assert levels(masked, list("abc")).to_dict("list") == {"initial weights with order": [0, 0, 1], "masks": [0, 1, 1]}
    linked = [{"model": "dense_mlp"}, {"model": "dense_mlp", "model_args.link_seed": 3}]
    assert levels(linked, list("ab")).columns.tolist() == ["initial weights with order", "links"]


def test_runs_are_decomposed_that_are_alike_but_for_their_seeds_and_teachers(tmp_path):
    distill = {"distill": {"teacher": "t0"}}
    base = write_run(tmp_path, "base", order_seed=0, hooks=distill) / "metrics.jsonl"
    base.write_text(base.read_text() + json.dumps({"kind": "val", "step": 30, "epoch": 2, "images": 359}) + "\n")
    for seed in (1, 2):
        write_run(tmp_path, f"init-{seed}", seed=seed, order_seed=0, hooks=distill)
        write_run(tmp_path, f"order-{seed}", order_seed=seed, hooks=distill)
        write_run(tmp_path, f"teacher-{seed}", order_seed=0, hooks={"distill": {"teacher": f"t{seed}"}})
        write_run(tmp_path, f"t{seed}", seed=seed)  # of which only the seed varies
    ((_, table),) = decomposed(load_runs(tmp_path))
    assert table["levels"].to_dict() == {
        "initial weights": 3, "order": 3, "teacher": 3, REST: 7, "test set": 359
    }  # fmt: skip
    assert table.loc["test set", "variance"] == pytest.approx(28.0 * 72.0 / 359)  # top-1 of 72 % on the digits
    assert table["variance"].iloc[:4].tolist() == [0.0] * 4
