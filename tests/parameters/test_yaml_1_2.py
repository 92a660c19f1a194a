"""What a person writes is what arrives: YAML 1.2, in assignments, studies and recipes alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.config import Config
from research.config.recipes import load_recipe, recipe_names
from research.errors import UsageError
from research.parameters.assignments import parse_assignments
from research.parameters.yaml_1_2 import parse, plain, read, typed
from research.studies.study import expand, read_study


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("1e-4", 1e-4),
        ("+5", 5),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2026-01-02", "2026-01-02"),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("=", "="),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("{1: 2}", {1: 2}),
        ("[010, 1:30]", [10, "1:30"]),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}", {"a": {"b": 1}, "c": {"b": 2}}),
    ],
)
def test_values_are_read_by_the_rules_of_1_2(text, value):
    assert parse(text) == value and type(plain(parse(text))) is type(value)


@pytest.mark.parametrize(
    "text",
    ["{a: 1, a: 2}", "a: 1\nb:\n  c: 1\n  c: 2", "{1: a, 1: b}", "? [a]\n: 1", "&a [*a]", "!!binary x", "!!int x", "[["]
    + ["!!python/object:os.system x", "*absent", "\x00", "[" * 5000, "9" * 5000, "!!timestamp 2026-01-01"],
    ids=lambda text: text[:20],
)
def test_what_cannot_be_meant_is_refused(text):
    with pytest.raises(UsageError, match="not valid YAML"):
        parse(text)


def test_numbers_are_text_as_written_where_a_text_is_expected():
    for name in ("3.10", "007", "1e3", "0.10"):
        assert Config.load(parse_assignments([f"name={name}"])).name == name
    assert Config.load(parse_assignments(["epochs=010", "lr=5.0e-2"])).to_dict()["lr"] == 0.05
    assert Config.load({"epochs": parse("010")}).epochs == 10


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
))  # fmt: skip
def test_typed_values_are_read_back(value):
    assert parse(typed(value)) == value


def test_written_numbers_are_typed_as_they_were():
    assert [typed(parse(text)) for text in ("3.10", "007", "5")] == ["3.10", "007", "5"]


def test_switches_written_as_numbers_are_the_same_run():
    for where in ({"data_args.flip": 0}, {"model_args.zero_init": 0, "model": "resnet18", "dataset": "cifar10"}):
        as_switch = {key: False if value == 0 else value for key, value in where.items()}
        assert Config.load(where).identity == Config.load(as_switch).identity


def test_recipes_and_files_are_read_by_the_same_rules(tmp_path):
    assert all(isinstance(load_recipe(name), dict) for name in recipe_names())
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    for name, told in (("latin.yaml", "UTF-8"), ("absent.yaml", "cannot be read"), (".", "cannot be read")):
        with pytest.raises(UsageError, match=told):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "folders"),
    [
        ("runs: {no: {lr: 0.1}, yes: {lr: 0.2}}", ["a-no", "a-yes"]),
        ("runs: {10: {lr: 0.1}, 1.50: {lr: 0.2}}", ["a-10", "a-1.50"]),
        ("runs: {2026-01-02: {lr: 0.1}}", ["a-2026-01-02"]),
        ("base: {epochs: 010}\nseeds: [1]", ["a-seed-1"]),
    ],
)
def test_a_study_takes_names_as_written(text, folders, tmp_path):
    (tmp_path / "study.yaml").write_text(f"name: a\n{text}\n")
    assert [point.dir.name for point in expand(read_study(tmp_path / "study.yaml"))] == folders


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: {lr: 1}\nbase: {lr: 2}", "the key 'base' is given twice"),
        ("base: {gram: {k: 4}, gram.k: 8}", "gram.k=4 and gram.k=8: they contradict each other"),
        ("runs: [{lr: 0.1}]\ngrid: {lr: [0.2]}", "lr=0.1 and lr=0.2: both decide lr"),
        ("runs: [{c_type: nmi4}]\ngrid: {gram.k: [3]}", "both decide gram.k"),
        ("seeds: [1]\ngrid: {seed: [2]}", "both decide seed"),
        ("grid: {seed: [2026-01-02]}", "seed='2026-01-02': expected int"),
        ("grid: {epochs: [1:30]}", "epochs='1:30': expected int"),
        ("base: {1: 2}", "base: 1: expected the name of a parameter"),
        ("grid: {yes: [1]}", "unknown parameter 'yes'"),
        ("runs: {null: {}}", "expected a name for folders"),
        ("1: 2", "unknown parameter '1'"),
    ],
)
def test_what_a_study_says_twice_or_wrongly_is_named(text, told, tmp_path):
    (tmp_path / "study.yaml").write_text(f"name: a\n{text}\n")
    with pytest.raises(UsageError) as refused:
        expand(read_study(tmp_path / "study.yaml"))
    assert told in str(refused.value)


def test_what_varies_wins_over_the_base_of_a_study(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "name: a\nbase: {gram.k: 4, ema: true}\nruns: {off: {gram: false}, more: {gram.k: 8}, alias: {c_type: nmi9}}\n"
    )
    off, more, alias = expand(read_study(tmp_path / "study.yaml"))
    assert list(off.config.hooks) == ["ema"] and list(more.config.hooks) == list(alias.config.hooks) == ["gram", "ema"]
    assert (more.config.hooks["gram"]["k"], alias.config.hooks["gram"]["k"]) == (8, 9)
    for point in (off, more, alias):  # as the sweep gives it to a process of its own
        assert Config.load(point.parameters) == point.config
