"""CSV and TSV: RFC 4180 as written, against Python's csv module, and every fault with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.records.columns import read_rows
from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError
from plaudit.records.rows import file_stem

cells = st.text(st.sampled_from('ab,"\t\r\n é;'), max_size=6)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4), st.sampled_from(",\t"))
def test_what_pythons_csv_writes_comes_back(tmp_path_factory, rows, separator):
    """Fields with separators, quotes and line breaks; \\r\\n ends a record, as RFC 4180 has it."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "note"), *rows])
    path = tmp_path_factory.mktemp("csv") / ("t.csv" if separator == "," else "t.tsv")
    path.write_bytes(text.getvalue().encode())
    assert [tuple(row.values()) for row in read_rows(path)] == rows


def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(
        b'\xef\xbb\xbfprompt,note\r\n"two\r\nlines, and ""quotes""",1\r\n\r\nplain,\n"x",y'
    )
    rows = read_rows(path)
    assert rows == [
        {"prompt": 'two\r\nlines, and "quotes"', "note": "1"},
        {"prompt": "plain", "note": ""},
        {"prompt": "x", "note": "y"},
    ]
    assert [rows.where(i) for i in range(3)] == [f"{path}, line {n}" for n in (2, 5, 6)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('prompt,note\nx,y\n"open,y\nz', "line 3: the quote before 'open,y' is never closed"),
        ("prompt,note\nx\n", "line 2 has 1 field, but the header has 2$"),
        ("prompt,note\n\n\nx,y,z\n", "line 4 has 3 fields, .*needs quotes around it"),
        ('prompt,note\nsay "hi",y\n', r"line 2: a quote stands inside a field .*at '\"hi"),
        ('prompt,note\n"hi" there,y\n', "line 2: ' there,y' follows a closing quote"),
        ("prompt,note,prompt\nx,y,z\n", "line 1: the header names 'prompt' twice"),
        ("prompt;note\nx;y\n", "line 1: the header 'prompt;note' is one column; .*by commas"),
        ("prompt,note\n", "holds no rows"),
        ("", "holds no rows"),
        (b"prompt,note\nx,\xe9\n", "line 2 is not UTF-8 text$"),
        ("prompt\nx".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
    ],
)
def test_faults_have_their_line(tmp_path, text, message):
    path = tmp_path / "d.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read_rows(path)


def test_a_tab_separated_text_may_hold_quotes_and_an_index_has_no_name(tmp_path):
    (tmp_path / "d.tsv").write_text('\tprompt\n0\tsay "hi", twice\n')
    assert read_rows(tmp_path / "d.tsv") == [{"column 1": "0", "prompt": 'say "hi", twice'}]


def test_an_empty_line_of_one_column_is_an_empty_value(tmp_path):
    (tmp_path / "d.csv").write_text("prompt\nx\n\ny\n\n")
    with pytest.raises(UserError, match="line 3: 'prompt' is empty"):
        read_dataset(tmp_path / "d.csv")


def test_numbers_and_truths_of_a_table_are_read_strictly(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("prompt,chosen,rejected,margin,id\np,1,2,1.50,007\np,3,4,-2,x\n")
    rows, kind = read_dataset(path)
    assert kind == "preference"
    assert [row["margin"] for row in rows] == [1.5, -2]
    assert rows[0] == {"prompt": "p", "chosen": "1", "rejected": "2", "margin": 1.5, "id": "007"}
    path.write_text("prompt,completion,label\np,a,True\np,b,0\n")
    assert [row["label"] for row in read_dataset(path, kinds=("unpaired",))[0]] == [True, False]
    path.write_text('prompt,completions,scores\np,"[""a"", ""b""]","[1, 0.5]"\n')
    [row] = read_dataset(path, kinds=("scored",))[0]
    assert (row["completions"], row["scores"]) == (["a", "b"], [1, 0.5])
    for margin in ("", "1,5", "1_000", "nan", "inf", "0x1", "one", "1 2"):
        path.write_text(f'prompt,chosen,rejected,margin\np,a,b,"{margin}"\n')
        with pytest.raises(UserError, match=r"line 2: 'margin' is .*expected a number"):
            read_dataset(path)
    path.write_text("prompt,completion,label\np,a,yes\n")
    with pytest.raises(UserError, match=r"line 2: 'label' is 'yes' .*expected true or false"):
        read_dataset(path, kinds=("unpaired",))


def test_messages_in_a_cell_are_messages_and_never_a_text_that_looks_like_them(tmp_path):
    talk = [{"role": "user", "content": "hi, you"}]
    path = tmp_path / "d.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], [json.dumps(talk)], ["[1] a plain text"]])
    assert [row["prompt"] for row in read_dataset(path)[0]] == [talk, "[1] a plain text"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], [str(talk)]])
    with pytest.raises(UserError, match="line 2: 'prompt' is a list as Python prints it"):
        read_dataset(path)


def test_packed_files_are_read_with_their_lines(tmp_path):
    contents = {
        "d.jsonl": b'{"text": "a"}\n\n{"text": 5}\n',
        "d.json": b'[{"text": "a"}, {"text": 5}]',
        "d.csv": b"text,n\na,1\n\n ,2\n",
        "d.tsv": b"text\tn\na\t1\n\n \t2\n",
    }
    for name, data in contents.items():
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(data))
        assert read_rows(path)[0]["text"] == "a"
        assert file_stem(path) == "d"
        unit = "entry 2" if ".json." in path.name else "line " + ("3" if "jsonl" in name else "4")
        with pytest.raises(UserError, match=f"{name}.gz, {unit}: 'text' is"):
            read_dataset(path)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(contents["d.jsonl"])[:-9])
    (tmp_path / "plain.jsonl.gz").write_bytes(contents["d.jsonl"])
    for name in ("cut.jsonl.gz", "plain.jsonl.gz"):
        with pytest.raises(UserError, match=f"{name} cannot be read as gzip"):
            read_rows(tmp_path / name)
    (tmp_path / "d.jsonl").write_bytes(gzip.compress(contents["d.jsonl"]))
    with pytest.raises(UserError, match=r"packed by gzip; let its name end in \.gz"):
        read_rows(tmp_path / "d.jsonl")
    (tmp_path / "d.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(UserError, match=r"files of type '\.gz' cannot be read"):
        read_rows(tmp_path / "d.gz")


def test_an_object_around_the_list_is_named(tmp_path):
    (tmp_path / "d.json").write_text('{"version": 1, "data": [{"text": "a"}]}')
    with pytest.raises(UserError, match="save the list under 'data' as a file of its own"):
        read_rows(tmp_path / "d.json")
