"""Datasets as rows: every format, every kind, and every way a file can be wrong."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.records.columns import (
    check_rows,
    parse_renames,
    read_rows,
    rename_columns,
    require_columns,
    write_jsonl,
    write_parquet,
)
from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError

PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
KIND_ROWS = {
    "text": {"text": "words"},
    "messages": {"messages": TALK},
    "prompt-completion": {"prompt": "p", "completion": TALK[1:]},
    "preference": PAIR,
    "unpaired": {"prompt": TALK[:1], "completion": "c", "label": True},
    "labelled": {"prompt": "p", "completions": ["x", "y"], "labels": [True, False]},
    "scored": {"prompt": "p", "completions": ["x", "y"], "scores": [1, -0.5]},
    "prompt": {"prompt": "p", "answer": "4"},
}


class HubDataset:
    """The part of `datasets.Dataset` that is used: named columns, iteration over rows."""

    def __init__(self, rows):
        self.rows, self.column_names = rows, list(rows[0])

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize("kind", KIND_ROWS)
def test_each_kind_is_known_by_its_columns_in_each_format(kind, tmp_path):
    rows = [KIND_ROWS[kind] | {"extra": n} for n in range(3)]
    write_jsonl(tmp_path / "d.jsonl", rows)
    write_parquet(tmp_path / "d.parquet", rows)
    (tmp_path / "d.json").write_text(json.dumps(rows))
    for source in (
        *(tmp_path / f"d.{ending}" for ending in ("jsonl", "parquet", "json")),
        rows,
        HubDataset(rows),
    ):
        found, found_kind = read_dataset(source)
        assert found_kind == kind
        assert found == rows


def test_kinds_can_be_demanded():
    assert read_dataset([PAIR], kinds=("prompt",))[1] == "prompt"
    with pytest.raises(UserError, match="row 1: no column 'label'"):
        read_dataset([PAIR | {"completion": "c"}], kinds=("unpaired",))


lines = st.dictionaries(
    st.text(min_size=1),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()
    ).filter(lambda value: not isinstance(value, float) or abs(value) != float("inf")),
    min_size=1,
)


@given(st.lists(lines, min_size=1, max_size=5))
def test_json_lines_come_back_exactly(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "r.jsonl"
    write_jsonl(path, rows)
    assert read_rows(path) == rows
    assert path.read_bytes().count(b"\n") == len(rows)


def test_half_a_surrogate_pair_survives(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [{"text": "\ud83d é"}])
    assert read_rows(tmp_path / "r.jsonl") == [{"text": "\ud83d é"}]


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n   \n{"text": 5}')
    assert [row["text"] for row in read_rows(path)] == ["a", 5]
    with pytest.raises(UserError, match=r"d\.jsonl, line 4: 'text' is 5 \(int\)"):
        read_dataset(path)


def test_renaming(tmp_path):
    rows = read_rows([{"question": "q", "good": "g", "bad": "b", "id": 1}])
    names = parse_renames(["prompt=question", "chosen=good", "rejected=bad"])
    assert rename_columns(rows, names) == [{"prompt": "q", "chosen": "g", "rejected": "b", "id": 1}]
    swapped = rename_columns(read_rows([PAIR]), {"chosen": "rejected", "rejected": "chosen"})
    assert swapped == [{"prompt": "p", "chosen": "r", "rejected": "c"}]
    with pytest.raises(UserError, match=r"no 'godo' .did you mean 'good'"):
        rename_columns(rows, {"chosen": "godo"})
    with pytest.raises(UserError, match="there is a column 'id' already"):
        rename_columns(rows, {"id": "good"})
    some = read_rows([PAIR | {"note": 1}, PAIR])
    assert rename_columns(some, {"other": "note"}) == [PAIR | {"other": 1}, PAIR]
    with pytest.raises(UserError, match="row 2: --columns margin=note: no 'note'"):
        rename_columns(some, {"margin": "note"})
    for wrong in ("chosen", "=good", "chosen="):
        with pytest.raises(UserError, match="expected NEW=OLD"):
            parse_renames([wrong])
    with pytest.raises(UserError, match="names 'a' twice"):
        parse_renames(["a=b", "a=c"])


def test_required_columns_name_file_line_and_the_way_out(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "p", "chosen_answer": "x"}\n{"prompt": null, "chosen_answer": "x"}')
    rows = read_rows(path)
    with pytest.raises(
        UserError,
        match=r"d\.jsonl, line 1: no column 'chosen' \(did you mean 'chosen_answer'\?\); "
        "rename with --columns chosen=chosen_answer",
    ):
        require_columns(rows, ["prompt", "chosen"], path)
    with pytest.raises(UserError, match=r"d\.jsonl, line 2: 'prompt' is null"):
        require_columns(rows, ["prompt"], path)
    require_columns(rows, ["chosen_answer"], path)
    with pytest.raises(UserError, match="the dataset, row 1: no column 'x'"):
        require_columns([{"prompt": "p"}], ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"text": "a"}\n{"text": "b"',
            "line 2: broken JSON at column 13: Expecting ',' delimiter",
        ),
        ('{"text": "a"}\n[1]', r"line 2 is \[1\] \(list\), expected an object"),
        ('{"text": "a"}\nnull', "line 2 is null, expected an object"),
        ('{"text": "a", "text": "b"}', "line 1: 'text' is given twice"),
        ('{"text": NaN}', "line 1: NaN is not a finite number"),
        ("", "holds no rows"),
        ("\n \n", "holds no rows"),
        ("[" * 100_000, "line 1: the JSON is nested too deeply"),
    ],
)
def test_broken_lines(tmp_path, text, message):
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR | {"prompt": " "}, "'prompt' is empty"),
        (PAIR | {"prompt": None}, "'prompt' is null"),
        (PAIR | {"prompt": []}, "'prompt' is an empty list"),
        (PAIR | {"prompt": 3}, r"'prompt' is 3 \(int\), expected a text or a list of messages"),
        (PAIR | {"chosen": ["hi"]}, r"'chosen' message 1 is 'hi' \(str\), expected an object"),
        (PAIR | {"chosen": [{"role": "user"}]}, "'chosen' message 1: 'content' is missing"),
        (PAIR | {"chosen": [{"role": "", "content": "x"}]}, "message 1: 'role' is empty"),
        (PAIR | {"chosen": [{"role": "user", "content": None}]}, "'content' is null"),
        (PAIR | {"margin": "big"}, r"'margin' is 'big' \(str\), expected a number"),
        (PAIR | {"margin": float("inf")}, "'margin' is inf, expected a finite number"),
        (PAIR | {"margin": True}, r"'margin' is True \(bool\)"),
        (KIND_ROWS["unpaired"] | {"label": "yes"}, "'label' is 'yes' .*expected true or false"),
        (KIND_ROWS["unpaired"] | {"label": 2}, "'label' is 2"),
        (KIND_ROWS["unpaired"] | {"label": 1.0}, r"'label' is 1\.0"),
        (KIND_ROWS["scored"] | {"scores": [1.0]}, "2 completions but 1 scores"),
        (KIND_ROWS["scored"] | {"scores": [1.0, float("nan")]}, "'scores' 2 is nan"),
        (KIND_ROWS["scored"] | {"scores": 1.0}, r"'scores' is 1\.0 \(float\), expected a list"),
        (KIND_ROWS["scored"] | {"completions": []}, "'completions' is .*expected a list of texts"),
        (KIND_ROWS["scored"] | {"completions": ["x", 4]}, "'completions' 2 is 4"),
        (KIND_ROWS["labelled"] | {"labels": [True, None]}, "'labels' 2 is null"),
        ({"messages": "hello"}, "'messages' is a text, expected a list of messages"),
        ({"text": ""}, "'text' is empty"),
    ],
)
def test_wrong_values_name_file_line_and_column(tmp_path, row, message):
    good = next(r for r in KIND_ROWS.values() if r.keys() <= row.keys() <= r.keys() | {"margin"})
    rows = read_rows([good | ({"margin": 1} if "margin" in row else {}), row])
    rows.source, rows.unit = "data.jsonl", "line"
    with pytest.raises(UserError, match=f"data.jsonl, line 2: .*{message}"):
        read_dataset(rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"txt": "a"}], "row 1: columns txt are no kind of data; expected one of: prompt, chosen"),
        ([{"prompt": "p", "chosen": "c"}], None),
        ([PAIR, {"prompt": "p", "chosen": "c"}], "row 2: no column 'rejected'"),
        ([PAIR, PAIR | {"margin": 1}], "row 2 has a column 'margin', which row 1 has not"),
        ([PAIR | {"rater": "x"}, PAIR], "row 2 has no column 'rater', which row 1 has"),
        ([], "holds no rows"),
        ([PAIR, "text"], "row 2 is 'text' .*expected an object"),
        (5, "a dataset is a path, a list of dicts or a datasets.Dataset, got int"),
    ],
)
def test_wrong_columns(rows, message):
    if message is None:
        assert read_dataset(rows)[1] == "prompt"
        return
    with pytest.raises(UserError, match=message):
        read_dataset(rows)


def test_a_demanded_pair_with_near_names_hints_at_the_renaming():
    with pytest.raises(UserError, match=r"no column 'rejected' .did you mean 'rejected_text'"):
        read_dataset([{"prompt": "p", "chosen": "c", "rejected_text": "r"}], kinds=("preference",))


def test_places_that_hold_no_dataset(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}")
    (tmp_path / "pairs.xlsx").write_text("a,b")
    (tmp_path / "table.parquet").write_bytes(b"PAR1 is not enough")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    (tmp_path / "lines.json").write_text('{"a": 1}\n{"a": 2}')
    (tmp_path / "object.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[{}, 3]")
    cases = {
        "pair.jsonl": r"no such file .did you mean 'pairs\.jsonl'",
        "no/pairs.jsonl": "there is no folder",
        "": "is a folder, expected one file",
        "pairs.xlsx": r"files of type '\.xlsx' cannot be read",
        "table.parquet": "cannot be read as Parquet",
        "latin.jsonl": "line 1: byte 11 is not UTF-8",
        "lines.json": r"broken JSON at line 2: Extra data; is it JSON lines\? then name it \.jsonl",
        "object.json": r"holds one object \(a\), expected a list of objects",
        "list.json": "entry 2 is 3",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            read_rows(tmp_path / name)


def test_a_dataset_with_splits_asks_for_one():
    class Splits(dict):
        column_names = {"train": ["text"], "test": ["text"]}  # noqa: RUF012

    with pytest.raises(UserError, match="has splits train, test; give one"):
        read_rows(Splits())


def test_check_rows_takes_plain_lists_with_a_path():
    check_rows([PAIR], "preference")
    with pytest.raises(UserError, match=r"x\.jsonl, row 1: no column 'text'"):
        check_rows([PAIR], "text", "x.jsonl")


def test_writers_replace_whole_files_or_none(tmp_path):
    for ending, write in {"jsonl": write_jsonl, "parquet": write_parquet}.items():
        path = tmp_path / f"d.{ending}"
        write(path, [PAIR])
        before = path.read_bytes()
        for wrong in ([PAIR, {"prompt": {1, 2}, "chosen": 1, "rejected": 1}],):
            with pytest.raises(UserError, match=f"d.{ending}"):
                write(path, wrong)
        assert path.read_bytes() == before
        with pytest.raises(UserError, match="there is no folder"):
            write(tmp_path / "no" / f"d.{ending}", [PAIR])
    with pytest.raises(UserError, match="differ in having a column 'margin'"):
        write_parquet(tmp_path / "d.parquet", [PAIR, PAIR | {"margin": 1}])
    with pytest.raises(UserError, match="line 1 cannot be written as JSON"):
        write_jsonl(tmp_path / "d.jsonl", [{"x": float("nan")}])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.jsonl", "d.parquet"]


def test_parquet_without_pyarrow_gives_the_install_line(tmp_path, monkeypatch):
    write_parquet(tmp_path / "d.parquet", [PAIR])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        read_rows(tmp_path / "d.parquet")


def test_a_line_that_alone_lacks_a_column_is_told_its_own_fault(tmp_path):
    """To rename a column would break the lines that have the right one."""
    right = '{"prompt": "p", "chosen": "c", "rejected": "r"}\n'
    for first, wrong, line, said in (
        (right, right.replace("chosen", "choosen"), 2, r"\(did you mean 'choosen'\?\); line 1 "),
        (right.replace("chosen", "choosen"), right, 1, r"\(did you mean 'choosen'\?\); line 2 "),
        (
            right,
            '{"prompt": "p", "rejected": "r"}',
            2,
            r"\(columns are prompt, rejected\); line 1 ",
        ),
        (right, "{}", 2, r"\(it is empty\); line 1 "),
    ):
        (tmp_path / "d.jsonl").write_text(first + wrong)
        with pytest.raises(UserError, match=rf"line {line}: no column '\w+' {said}has it") as found:
            read_dataset(tmp_path / "d.jsonl", kinds=("preference",))
        assert "--columns" not in str(found.value)
