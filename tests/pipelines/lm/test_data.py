"""From rows to batches: what is shared, what is left out and said, what is held out."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import torch

from plaudit.models.text import TextCodec
from plaudit.pipelines.lm.data import (
    compared,
    examples,
    labelled,
    said_of_equal,
    said_of_long,
    split_examples,
)
from plaudit.pipelines.rlhf.opinions import split_opinions
from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError
from plaudit.records.rows import Rows
from tiny_models import tiny_tokenizer

CONTEXT = 120


@functools.cache
def codec() -> TextCodec:
    return TextCodec.build(tiny_tokenizer("chatml"), context=CONTEXT)


def rows_of(*rows: dict[str, Any], kind: str) -> Rows:
    return read_dataset(list(rows), kinds=(kind,))[0]


def chat(*texts: str) -> dict[str, Any]:
    """A conversation in which the user begins."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}


def pair(prompt: Any, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def answer_ids(batch: Any, row: int) -> tuple[int, ...]:
    return tuple(batch.token[row][batch.there[row]].tolist())


def test_wanted_answers_are_rows_of_their_own_and_equal_prompts_one():
    asked = [{"role": "user", "content": "Hi"}]
    rows = rows_of(
        {"prompt": "Hi", "completion": "Ho"},
        {"prompt": "Well?", "completion": "So"},
        {"prompt": asked, "completion": "Hm"},
        {"prompt": "Hi", "completion": "Ho"},
        kind="prompt-completion",
    )
    batch, left_out = examples(rows, "prompt-completion", codec(), max_length=None)
    assert batch.prompts == (codec().prompt("Hi"), codec().prompt("Well?"))
    assert batch.group.tolist() == [0, 1, 0, 0]
    assert batch.texts == ("Ho", "So", "Hm", "Ho")  # a row that is there twice counts twice
    assert left_out == []
    for row, text in enumerate(batch.texts):
        prompt = batch.prompts[int(batch.group[row])]
        assert answer_ids(batch, row) == codec().completion_ids(prompt, text)
    assert torch.equal(batch.chosen, batch.there)


def test_conversations_that_begin_alike_share_their_prompt():
    rows = rows_of(
        chat("Hi", "Ho", "Well?", "So"), chat("Hi", "Hm"), chat("Ho", "Hi"), kind="messages"
    )
    batch, _ = examples(rows, "messages", codec(), max_length=None)
    assert batch.group.tolist() == [0, 0, 1]
    assert batch.texts == ("Ho\n\nSo", "Hm", "Hi")
    learned = batch.token[0][batch.chosen[0]].tolist()
    assert codec().tokenizer.decode(learned) == "Ho<|im_end|>So<|im_end|>"
    assert int(batch.chosen[0].sum()) < int(batch.there[0].sum())


def test_texts_are_prompts_of_their_own_unless_they_are_equal():
    rows = rows_of({"text": "good a"}, {"text": "good b"}, {"text": "good a"}, kind="text")
    batch, _ = examples(rows, "text", codec(), max_length=None)
    assert batch.group.tolist() == [0, 1, 0]
    assert batch.texts == ("good a", "good b", "good a")


@pytest.mark.parametrize(
    ("kind", "short", "long"),
    [
        ("prompt-completion", {"prompt": "a", "completion": "b"}, {"prompt": "a"}),
        ("messages", chat("a", "b"), None),
        ("text", {"text": "a b"}, None),
    ],
)
def test_rows_that_are_too_long_are_left_out_whole_and_told(tmp_path, kind, short, long):
    """Lengths are the prompt's and what follows together; the limit itself still fits."""
    words = "good " * 40
    name = {"prompt-completion": "completion", "text": "text"}.get(kind)
    longer = [{**(long or {}), name: words * n} if name else chat("a", words * n) for n in (1, 2)]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (short, longer[0], short, longer[1])))
    rows, _ = read_dataset(path, kinds=(kind,))
    whole = TextCodec.build(tiny_tokenizer("chatml"), context=9999)
    batch, none = examples(rows, kind, whole, max_length=None)
    assert none == []
    assert said_of_long(rows, none) is None
    tokens = [
        len(batch.prompts[g].ids) + n
        for g, n in zip(batch.group.tolist(), batch.there.sum(1).tolist(), strict=True)
    ]
    for limit, lost in ((tokens[1], [3]), (tokens[1] - 1, [1, 3]), (tokens[3], [])):
        kept, left_out = examples(rows, kind, whole, max_length=limit)
        assert left_out == lost
        assert [left_out.tokens(i) for i in range(4)] == tokens
        rest = [i for i in range(4) if i not in lost]
        for row, i in enumerate(rest):
            assert answer_ids(kept, row) == answer_ids(batch, i)
    said = said_of_long(rows, examples(rows, kind, whole, max_length=tokens[1] - 1)[1])
    assert said == (
        f"2 of 4 rows are longer than max_length, {tokens[1] - 1} tokens, and left out "
        f"(the longest is {path}, line 4: {tokens[3]} tokens)"
    )
    said = said_of_long(rows, examples(rows, kind, whole, max_length=tokens[1])[1])
    assert said is not None
    assert said.startswith("1 of 4 rows is longer than max_length")
    least = min(tokens)
    with pytest.raises(UserError) as refused:
        examples(rows, kind, whole, max_length=least - 1)
    assert str(refused.value) == (
        f"{path}: all 4 rows are longer than {least - 1} tokens (max_length); the shortest is "
        f"{path}, line 1: {least} tokens"
    )


def test_the_models_context_is_the_limit_where_none_is_given():
    rows = rows_of({"text": "good"}, {"text": "good " * 200}, kind="text")
    batch, left_out = examples(rows, "text", codec(), max_length=None)
    assert (len(batch), left_out) == (1, [1])
    said = said_of_long(rows, left_out)
    assert said is not None
    assert f"longer than the model's context, {CONTEXT} tokens" in said
    with pytest.raises(UserError, match=r"max_length is 121, but the model's context is 120"):
        examples(rows, "text", codec(), max_length=121)


def test_a_row_that_cannot_be_read_is_named_with_its_line(tmp_path):
    path = tmp_path / "d.jsonl"
    bad = chat("Hi", "a<|im_end|>b", "c", "d")
    path.write_text("".join(json.dumps(row) + "\n" for row in (chat("Hi", "Ho"), bad)))
    rows, _ = read_dataset(path, kinds=("messages",))
    with pytest.raises(UserError, match=r"d\.jsonl, line 2: message 2 .* holds <\|im_end\|>"):
        examples(rows, "messages", codec(), max_length=None)


def test_comparisons_are_pairs_of_rows_each_answer_once():
    rows = rows_of(
        pair("Hi", "a", "b", margin=1),
        pair("Hi", "a", "c", margin=0.5),
        pair("Ho", "a", "a", margin=2),
        pair("Hi", "c", "b", margin=3),
        pair("Well?", "a", "b", margin=4),
        kind="preference",
    )
    opinions, left_out = compared(rows, codec(), max_length=None)
    batch, pairs = opinions.batch, opinions.pairs
    assert left_out == []
    assert [p.text for p in batch.prompts] == ["Hi", "Well?"]  # nothing is compared behind "Ho"
    assert batch.texts == ("a", "b", "c", "a", "b")
    assert (pairs.a, pairs.b) == ((0, 0, 2, 3), (1, 2, 1, 4))
    assert pairs.share == (1.0,) * 4
    assert pairs.margin == (1.0, 0.5, 3.0, 4.0)
    assert opinions.groups() == [0, 0, 0, 1]
    assert said_of_equal(rows) == (
        "1 of 5 rows compares an answer with itself and is left out, the first in the dataset, row 3"
    )
    assert said_of_equal(rows_of(pair("Hi", "a", "b"), kind="preference")) is None
    learn, judge = split_opinions(opinions, share=0.5, seed=0)
    assert len(learn.pairs) + len(judge.pairs) == 4
    for part in (learn, judge):
        told = {1.0, 0.5, 3.0} if part.batch.prompts[0].text == "Hi" else {4.0}
        assert set(part.pairs.margin) == told


def test_an_answer_that_only_a_left_out_pair_has_is_not_in_the_batch():
    long = "good " * 200
    rows = rows_of(
        pair("Hi", "a", long), pair("Ho", "a", "b"), pair("Well?", "c", long), kind="preference"
    )
    opinions, left_out = compared(rows, codec(), max_length=None)
    assert left_out == [0, 2]
    ids = functools.partial(codec().completion_ids, "Hi")
    answers = (len(ids("a")), len(ids(long)))
    assert left_out.lengths[0] == (len(codec().prompt("Hi").ids), *answers)
    assert left_out.tokens(0) == len(codec().prompt("Hi").ids) + max(answers)
    assert opinions.batch.texts == ("a", "b")
    assert [p.text for p in opinions.batch.prompts] == ["Ho"]
    assert (opinions.pairs.a, opinions.pairs.b, opinions.pairs.margin) == ((0,), (1,), ())


def test_shares_are_read_from_a_column_and_from_csv(tmp_path):
    rows = rows_of(
        pair("Hi", "a", "b", share=0.75), pair("Hi", "a", "c", share=0), kind="preference"
    )
    assert compared(rows, codec(), max_length=None)[0].pairs.share == (0.75, 0.0)
    path = tmp_path / "d.csv"
    path.write_text("prompt,chosen,rejected,share,margin\nHi,a,b,0.5,2\nHi,a,c,1,-1\n")
    pairs = compared(read_dataset(path, kinds=("preference",))[0], codec(), max_length=None)[
        0
    ].pairs
    assert (pairs.share, pairs.margin) == ((0.5, 1.0), (2.0, -1.0))


@pytest.mark.parametrize("share", [1.5, -0.1, True, "most", None])
def test_a_share_that_is_none_is_refused(share):
    rows = rows_of(
        pair("Hi", "a", "b", share=1), pair("Hi", "a", "c", share=share), kind="preference"
    )
    with pytest.raises(UserError, match=r"row 2: 'share' is .*from 0 to 1.*--columns other=share"):
        compared(rows, codec(), max_length=None)


def test_a_share_must_be_in_every_row():
    rows = rows_of(pair("Hi", "a", "b", share=1), pair("Hi", "a", "c"), kind="preference")
    with pytest.raises(UserError, match="row 2: 'share' is missing"):
        compared(rows, codec(), max_length=None)


def test_nothing_compared_is_refused():
    rows = rows_of(pair("Hi", "a", "a"), kind="preference")
    with pytest.raises(UserError, match="both answers of every row are equal"):
        compared(rows, codec(), max_length=None)


def test_labels_keep_their_rows_and_opinions_that_differ_both_count():
    rows = rows_of(
        {"prompt": "Hi", "completion": "a", "label": True},
        {"prompt": "Hi", "completion": "good " * 200, "label": True},
        {"prompt": "Hi", "completion": "a", "label": False},
        {"prompt": "Ho", "completion": "", "label": 0},
        kind="unpaired",
    )
    batch, is_good, left_out = labelled(rows, codec(), max_length=None)
    assert batch.texts == ("a", "a", "")
    assert is_good.tolist() == [True, False, False]
    assert is_good.dtype == torch.bool
    assert left_out == [1]
    assert batch.group.tolist() == [0, 0, 1]
    assert answer_ids(batch, 2) == (codec().end_of_turn,)


def test_whole_prompts_are_held_out_with_what_belongs_to_their_rows():
    rows = rows_of(
        *(
            {"prompt": f"Say {i // 2}", "completion": f"x{i}", "label": i % 3 == 0}
            for i in range(40)
        ),
        kind="unpaired",
    )
    batch, is_good, _ = labelled(rows, codec(), max_length=None)
    (learn, own), (judge, theirs) = split_examples(batch, {"is_good": is_good}, share=0.2, seed=1)
    mine = {p.text for p in learn.prompts}
    held = {p.text for p in judge.prompts}
    assert (len(mine), len(held), mine & held) == (16, 4, set())
    for part, good in ((learn, own["is_good"]), (judge, theirs["is_good"])):
        assert good.tolist() == [int(text[1:]) % 3 == 0 for text in part.texts]
    assert sorted([*learn.texts, *judge.texts]) == sorted(batch.texts)
    again = split_examples(batch, {}, share=0.2, seed=1)[1][0]
    assert {p.text for p in again.prompts} == held
    other = split_examples(batch, {}, share=0.2, seed=2)[1][0]
    assert {p.text for p in other.prompts} != held


def test_nothing_is_held_out_where_the_share_is_0():
    rows = rows_of(pair("Hi", "a", "b"), kind="preference")
    opinions, _ = compared(rows, codec(), max_length=None)
    learn, judge = split_opinions(opinions, share=0, seed=0)
    assert (len(learn.pairs), len(judge.pairs), len(judge.batch)) == (1, 0, 0)
    (kept, extra), (none, no) = split_examples(
        opinions.batch, {"x": torch.arange(2)}, share=0, seed=0
    )
    assert (len(kept), len(none)) == (2, 0)
    assert (extra["x"].tolist(), no["x"].tolist()) == ([0, 1], [])
