"""Clean rows: an answer never repeats its prompt, and columns nobody uses never stop a reading."""

from __future__ import annotations

import datetime
import decimal
import json

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError

RIVER = {"role": "user", "content": "Name a river."}
WESER = {"role": "assistant", "content": "The Weser."}
NO = {"role": "assistant", "content": "No."}
PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}

turns = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "assistant", "system"]),
    st.sampled_from(["a", "b"]),
)
prompts = st.lists(turns, max_size=4).map(lambda some: [*some, RIVER])


@given(prompts)
def test_an_answer_given_with_its_prompt_equals_the_answer_alone(prompt):
    alone = {"prompt": prompt, "chosen": [WESER], "rejected": "No."}
    whole = {"prompt": prompt, "chosen": [*prompt, WESER], "rejected": "No."}
    both = {"chosen": [*prompt, WESER], "rejected": [*prompt, NO]}
    assert read_dataset([whole])[0] == [alone]
    apart = {"prompt": prompt, "chosen": [WESER], "rejected": [NO]}
    assert read_dataset([both], kinds=("preference",))[0] == [apart]
    demonstration = {"prompt": prompt, "completion": [*prompt, WESER]}
    assert read_dataset([demonstration])[0] == [{"prompt": prompt, "completion": [WESER]}]
    messages = {"messages": [*prompt, WESER]}
    assert read_dataset([messages], kinds=("prompt-completion",))[0] == [
        {"prompt": prompt, "completion": [WESER]}
    ]


def test_a_plain_prompt_is_one_turn_of_the_user():
    row = {"prompt": "Name a river.", "chosen": [RIVER, WESER], "rejected": [RIVER, NO]}
    rows, _ = read_dataset([row] * 2)
    assert rows[0] == {"prompt": "Name a river.", "chosen": [WESER], "rejected": [NO]}
    assert "whole conversations in 2 of 2 rows" in rows.notes[0]
    scored = {"prompt": "Name a river.", "completions": [[RIVER, WESER], "No."], "scores": [1, 0]}
    assert read_dataset([scored])[0][0]["completions"] == [[WESER], "No."]
    labelled = {"prompt": "Name a river.", "completion": [RIVER, WESER], "label": True}
    assert read_dataset([labelled])[0][0]["completion"] == [WESER]


def test_null_fields_of_messages_count_as_absent():
    filled = RIVER | {"tool_calls": None, "name": None}
    rows, _ = read_dataset([{"prompt": [RIVER], "chosen": [filled, WESER], "rejected": "No."}])
    assert rows[0]["chosen"] == [WESER]


def test_equal_conversations_keep_their_last_turn_as_the_answer():
    [row], _ = read_dataset(
        [{"chosen": [RIVER, NO], "rejected": [RIVER, NO]}], kinds=("preference",)
    )
    assert row == {"prompt": [RIVER], "chosen": [NO], "rejected": [NO]}


LAKE = {"role": "user", "content": "Name a lake."}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": [LAKE, WESER]}, "'chosen' contradicts 'prompt' in turn 1: user 'Name a lake.'"),
        ({"chosen": [RIVER]}, "'chosen' is one turn of 'user', expected"),
        ({"rejected": [RIVER, LAKE]}, "'rejected' after the prompt is a turn of 'user'"),
        ({"rejected": [RIVER, WESER, LAKE, NO]}, "'rejected' has 3 turns after the prompt"),
        ({"chosen": [WESER, LAKE, WESER]}, "'chosen' contradicts 'prompt' in turn 1: assistant"),
        ({"prompt": [RIVER, WESER]}, "'prompt': the last turn is the assistant's"),
        ({"prompt": [RIVER, LAKE], "chosen": [RIVER, WESER]}, "'chosen' contradicts .* turn 2"),
    ],
)
def test_a_conversation_that_is_no_answer_is_named(row, message):
    good = {"prompt": "Name a river.", "chosen": [RIVER, WESER], "rejected": "No."}
    with pytest.raises(UserError, match=f"the dataset, row 2: {message}"):
        read_dataset([good, good | row])


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ([RIVER, WESER], [LAKE, NO], "'chosen' and 'rejected' share no turn"),
        ([RIVER, WESER, LAKE, NO], [RIVER, NO], "'chosen' has 3 turns after the 1 that both share"),
        ([RIVER, WESER, WESER], [RIVER, WESER, NO], "share: the last turn is the assistant's"),
        ([RIVER, LAKE], [RIVER, NO], "'chosen' after the 1 that both share is a turn of 'user'"),
    ],
)
def test_conversations_that_differ_in_more_than_an_answer_are_named(chosen, rejected, message):
    with pytest.raises(UserError, match=f"the dataset, row 1: .*{message}"):
        read_dataset([{"chosen": chosen, "rejected": rejected}], kinds=("preference",))


def test_columns_that_json_cannot_hold_are_left_out_and_named(tmp_path):
    table = {
        **{name: [value] * 3 for name, value in PAIR.items()},
        "image": [b"\x89PNG"] * 3,
        "when": [datetime.datetime(2026, 1, 2)] * 3,
        "price": [decimal.Decimal("1.5")] * 3,
        "nested": [{"a": [1], "b": {"c": None}}] * 3,
        "weight": [1.0, float("nan"), 2.0],
        "id": [1, 2, 3],
    }
    nanoseconds = pyarrow.array([1, 2, 3], pyarrow.timestamp("ns"))
    far = pyarrow.array([10**15] * 3, pyarrow.timestamp("s"))
    made = pyarrow.table(table).append_column("ns", nanoseconds).append_column("far", far)
    parquet.write_table(made, tmp_path / "d.parquet")
    for kinds in (("preference",), ("prompt",)):
        rows, _ = read_dataset(tmp_path / "d.parquet", kinds=kinds)
        assert rows[1] == PAIR | {"nested": {"a": [1], "b": {"c": None}}, "id": 2}
        assert list(rows.left_out) == ["image", "when", "price", "weight", "ns", "far"]
        assert len(rows.notes) == 6
        assert "'image' is left out: in" in rows.notes[0]
        assert "row 2 it is nan" in rows.left_out["weight"]
    with pytest.raises(UserError, match=r"row 1: 'chosen' is b'.*\(bytes\), expected a text"):
        read_dataset(tmp_path / "d.parquet", columns={"old": "chosen", "chosen": "image"})
    with pytest.raises(UserError, match=r"row 1: 'chosen' is a value of type timestamp"):
        read_dataset(tmp_path / "d.parquet", columns={"old": "chosen", "chosen": "far"})


def test_extra_columns_of_some_rows_are_kept_for_comparisons_and_left_out_of_prompts():
    rows = [PAIR | {"id": 1}, PAIR, PAIR | {"id": None}, PAIR]
    kept, _ = read_dataset(rows)
    assert kept == rows
    said = "the dataset, row 2 and 1 more have no 'id'"
    assert kept.notes == (f"column 'id' is kept where it is: {said}",)
    asked, _ = read_dataset([{"prompt": "p", "n": 0} | row for row in rows], kinds=("prompt",))
    assert asked == [{"n": 0} | PAIR] * 4
    assert asked.left_out == {"id": f"{said}; give it in every row (null will do)"}


def test_a_used_column_is_needed_in_every_row_and_an_unused_one_is_not_checked():
    with pytest.raises(UserError, match="row 2 has a column 'margin', which row 1 has not"):
        read_dataset([PAIR, PAIR | {"margin": 1}])
    with pytest.raises(UserError, match=r"row 2: 'rater' is 7 \(int\)"):
        read_dataset([PAIR | {"rater": "x"}, PAIR | {"rater": 7}])
    rows, _ = read_dataset([{"prompt": "p", "margin": "wide", "rater": 7}], kinds=("prompt",))
    assert rows == [{"prompt": "p", "margin": "wide", "rater": 7}]


@pytest.mark.parametrize("name", ["chosen", "rejected"])
@pytest.mark.parametrize("empty", ["", " \n", [{"role": "assistant", "content": " "}]])
def test_an_answer_of_nothing_is_refused_with_its_line(tmp_path, name, empty):
    (tmp_path / "d.jsonl").write_text(json.dumps(PAIR) + "\n" + json.dumps(PAIR | {name: empty}))
    with pytest.raises(
        UserError, match=rf"d\.jsonl, line 2: '{name}' is empty, expected an answer"
    ):
        read_dataset(tmp_path / "d.jsonl", kinds=("preference",))


def test_an_answer_of_nothing_behind_its_prompt_or_in_another_format_is_refused():
    whole = {
        "prompt": [RIVER],
        "chosen": [RIVER, {"role": "assistant", "content": ""}],
        "rejected": "r",
    }
    alpaca = {"instruction": "Name a river.", "chosen": "", "rejected": "Sea"}
    for row in (whole, alpaca):
        with pytest.raises(UserError, match="row 1: 'chosen' is empty"):
            read_dataset([row], kinds=("preference",))
    with pytest.raises(UserError, match="row 1: 'completion' is empty"):
        read_dataset([{"prompt": "p", "completion": ""}], kinds=("prompt-completion",))
    label = {"prompt": "p", "completion": "", "label": False}  # said of an answer, not trained on
    assert read_dataset([label])[0] == [label]
