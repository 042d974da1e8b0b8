"""Files read a few rows at a time give the rows, places and refusals of the whole file."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.records import slices
from plaudit.records.errors import UserError
from plaudit.records.row_files import defused, without_apostrophe, write_rows
from plaudit.records.rows import read_rows, write_parquet
from plaudit.records.slices import row_slices, sniffed_ending

ROWS = [{"n": n, "text": f'é "{n}",\r\n[{{'} for n in range(7)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(slices, "_BLOCK", 16)


def places(rows):
    return [(row, rows.where(index)) for index, row in enumerate(rows)]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "json.gz", "csv", "csv.gz", "tsv", "parquet"])  # fmt: skip
def test_slices_are_the_file(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    if ending == "tsv":
        path.write_text("n\ttext\n" + "".join(f'{n}\t"a {n}"\n' for n in range(7)))
    elif ending == "parquet":
        write_parquet(path, ROWS)
    else:
        write_rows(path, ROWS)
    found = list(row_slices(path, size=3))
    assert len(found) >= 3 or ending == "csv.gz"
    assert [one for rows in found for one in places(rows)] == places(read_rows(path))


def test_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"a": 1}\n\n\r\n{"a": 2}')
    assert [one for rows in row_slices(path, size=1) for one in places(rows)] == places(
        read_rows(path)
    )


BROKEN = {
    "cut.json": b'[{"a": 1}, {"a": ',
    "comma.json": b'[{"a": 1} {"a": 2}]',
    "more.json": b'[{"a": 1}] x',
    "number.json": b'[{"a": 1}, 3]',
    "object.json": b'{"a": []}',
    "twice.json": b'[{"a": 1, "a": 2}]',
    "empty.json": b"[]",
    "empty.jsonl": b"\n",
    "bad.jsonl": b'{"a": 1}\n{"a": NaN}\n',
    "cut.jsonl.gz": gzip.compress(b'{"a": 1}\n' * 999)[:-9],
    "no.json.gz": b"[]",
    "quote.csv": b'a,b\n1,2\n"3,4\n5,6\n',
    "short.csv": b"a,b\n" + b"1,2\n" * 9 + b"3\n" + b"4,5\n" * 9,
    "latin.csv": "a,b\n1,ü\n".encode("latin-1"),
    "bad.parquet": b"PAR1....",
    "what.txt": b"a",
}


@pytest.mark.parametrize("name", BROKEN)
def test_refusals_are_those_of_the_whole_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(UserError) as expected:
        read_rows(path)
    with pytest.raises(UserError) as refused:
        list(row_slices(path))
    if name != "bad.parquet":  # Arrow names the kind of source
        assert str(refused.value) == str(expected.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), min_size=1, max_size=6))
def test_any_rows_as_a_json_list(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("json") / "rows.json"
    path.write_text(json.dumps(rows, indent=1))
    assert [row for some in row_slices(path, size=2) for row in some] == rows


@given(st.text())
def test_a_defused_text_comes_back(text):
    assert without_apostrophe(defused(text)) == text
    assert not defused(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_the_type_of_a_file_without_a_name(tmp_path):
    path = tmp_path / "upload"
    for ending, data in {
        ".jsonl": b' {"a": 1}\n', ".json": b"[{}]", ".csv": b"a,b\n1,2\n", ".parquet": b"PAR1",
        ".jsonl.gz": gzip.compress(b'{"a": 1}\n'), ".csv.gz": gzip.compress(b"a,b\n"),
    }.items():  # fmt: skip
        path.write_bytes(data)
        assert sniffed_ending(path) == ending


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_rows(path, rows())
    assert read_rows(path) == [{"a": 1}]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
    assert write_rows(path, []) == 0  # and nothing is written
    assert read_rows(path) == [{"a": 1}]
