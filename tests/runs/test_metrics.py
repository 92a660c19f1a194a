"""Rows of metrics: read from the end as they are from the start, whatever stands between them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.runs import metrics

LINES = st.one_of(
    st.builds(
        lambda step, text: json.dumps({"kind": "val", "step": step, "epoch": 0, "text": text}), st.integers(), st.text()
    ),
    st.sampled_from(['{"kind": "val", "step": 1', "5", "null", "", "[[", '{"split": "epoch", "step": 1, "epoch": 2}']),
)


@given(st.lists(LINES, max_size=12), st.booleans(), st.sampled_from([1, 7, 64, 4096]))
def test_newest_rows_are_all_rows_backwards(tmp_path_factory, lines, ended, block):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n" * ended)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "BLOCK", block)
        assert list(metrics.newest_rows(path)) == metrics.read_rows(path)[::-1]


def test_only_lines_that_say_what_is_sought_are_parsed(tmp_path, monkeypatch):
    path, parsed, read = tmp_path / "metrics.jsonl", [], metrics.read_row
    rows = [{"kind": kind, "step": step, "epoch": 0} for step in range(200) for kind in ("train", "val")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(metrics, "read_row", lambda line: (parsed.append(line), read(line))[1])
    assert list(metrics.newest_rows(path, saying=b'"val"')) == rows[:0:-2]
    assert len(parsed) == 200


def test_of_a_long_file_only_the_end_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = json.dumps({"kind": "val", "step": 1, "epoch": 0}) + "\n"
    path.write_bytes(b"\xff" * 10_000 + b"\n" + row.encode() * 200)
    assert next(metrics.newest_rows(path)) == json.loads(row)
    assert list(metrics.newest_rows(tmp_path / "none")) == []
