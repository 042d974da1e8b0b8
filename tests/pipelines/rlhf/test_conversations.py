"""Conversations keep their turns on every way into a job: as PPO's prompts, comparisons, examples."""

from __future__ import annotations

import functools
import re

import pytest

from plaudit.feedback.exchange import import_comparisons
from plaudit.feedback.store import FeedbackStore
from plaudit.models.text import TextCodec
from plaudit.pipelines.rlhf.opinions import opinions_of_texts
from plaudit.pipelines.rlhf.sources import examples_of, prompts_of, read_sources
from plaudit.records.columns import write_jsonl
from plaudit.records.errors import UserError
from tiny_job import FLAGS, run_command, tiny_job, write_rows
from tiny_models import tiny_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
RIVER = {"role": "user", "content": "Name a river."}
WESER = {"role": "assistant", "content": "The Weser."}
NO = {"role": "assistant", "content": "No."}
TALK = [SYSTEM, *HI, RIVER]


@functools.cache
def codec():
    return TextCodec.build(tiny_tokenizer(), context=256)


def opinions(*rows, path):
    """Opinions of a store that holds these rows, each imported from a file of its own."""
    with FeedbackStore("sqlite://") as store:
        for row in rows:
            write_jsonl(path / "pairs.jsonl", [row])
            import_comparisons(store, path / "pairs.jsonl")
        return opinions_of_texts(store.comparisons(), codec())


def sources(path, rows, use, kind):
    write_jsonl(path / "d.jsonl", rows)
    return read_sources({use: (str(path / "d.jsonl"), kind)}, {})[use].rows


def test_a_prompt_of_a_comparison_is_rendered_as_the_same_prompt_of_ppo(tmp_path):
    made = opinions({"prompt": TALK, "chosen": [WESER], "rejected": "No."}, path=tmp_path).batch
    [asked] = prompts_of(
        sources(tmp_path, [{"prompt": TALK}], "p", "prompt"), codec(), max_new_tokens=8
    )
    assert made.prompts == (asked,)
    assert made.texts == ("The Weser.", "No.")
    assert asked.text == "system: Be brief.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Name a river."
    rendered = codec().tokenizer.decode(asked.ids)
    assert rendered.count("<|im_start|>") == 5  # system, user, assistant, user, and the answer's


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a river.", "chosen": [RIVER, WESER], "rejected": [RIVER, NO]},
        {"prompt": [RIVER], "chosen": [WESER], "rejected": [NO]},
        {"chosen": [RIVER, WESER], "rejected": [RIVER, NO]},
        {"chosen": "\n\nHuman: Name a river.\n\nAssistant: The Weser.",
         "rejected": "\n\nHuman: Name a river.\n\nAssistant: No."},
    ],
)  # fmt: skip
def test_whole_conversations_teach_what_the_plain_pair_teaches(tmp_path, row):
    plain = {"prompt": "Name a river.", "chosen": "The Weser.", "rejected": "No."}
    other = {"prompt": "Name a lake.", "chosen": "Como.", "rejected": "No."}
    expected = opinions(plain, other, path=tmp_path)
    made = opinions(row, other, path=tmp_path)
    assert made.batch.texts == expected.batch.texts == ("The Weser.", "No.", "Como.", "No.")
    assert made.batch.token.equal(expected.batch.token)
    assert made.batch.group.tolist() == [0, 0, 1, 1]
    assert [p.ids for p in made.batch.prompts] == [p.ids for p in expected.batch.prompts]
    assert made.pairs == expected.pairs


def test_prompts_are_one_group_where_their_messages_are_equal(tmp_path):
    pair = {"chosen": "The Weser.", "rejected": "No."}
    asked = ["Name a river.", [RIVER], [RIVER | {"name": None}], [SYSTEM, RIVER], TALK]
    flat = "Be brief.\nName a river."  # what the second last looked like without its turns
    made = opinions(*({"prompt": p} | pair for p in [*asked, flat]), path=tmp_path)
    assert len(made.batch.prompts) == 4
    assert made.groups() == [0, 0, 0, 1, 2, 3]
    assert len({prompt.ids for prompt in made.batch.prompts}) == 4


def test_a_store_filled_by_a_program_is_read_in_the_same_way():
    with FeedbackStore("sqlite://") as store:
        store.add_item("one", [RIVER], [[RIVER, WESER], [NO]])
        store.add_comparison("one", "ann", "a")
        assert opinions_of_texts(store.comparisons(), codec()).batch.texts == ("The Weser.", "No.")
        store.add_item("two", [RIVER], [[*HI, WESER], [NO]])
        store.add_comparison("two", "ann", "a")
        with pytest.raises(UserError, match="item 'two': 'answer' contradicts 'prompt' in turn 1"):
            opinions_of_texts(store.comparisons(), codec())


def test_messages_are_demonstrations_and_prompts(tmp_path):
    rows = sources(tmp_path, [{"messages": [*TALK, WESER]}], "d", "prompt-completion")
    [(prompt, ids)] = examples_of(rows, codec())
    assert prompt.ids == codec().prompt(TALK).ids
    assert ids == codec().completion_ids(TALK, "The Weser.")
    rows = sources(tmp_path, [{"messages": TALK, "topic": "water"}], "p", "prompt")
    [asked] = prompts_of(rows, codec(), max_new_tokens=8)
    assert (asked.ids, asked.columns) == (prompt.ids, {"topic": "water"})
    good = {"messages": [RIVER, WESER]}
    for bad, kind in (([RIVER], "prompt-completion"), ([RIVER, WESER], "prompt")):
        first = good if kind == "prompt-completion" else {"messages": [RIVER]}
        with pytest.raises(UserError, match=r"d\.jsonl, line 2: 'messages'"):
            sources(tmp_path, [first, {"messages": bad}], "x", kind)


def test_a_rename_reaches_into_a_format(tmp_path):
    rows = [{"talk": [RIVER, WESER]}, {"talk": [RIVER, NO]}]
    write_jsonl(tmp_path / "d.jsonl", rows)
    made = read_sources(
        {"d": (str(tmp_path / "d.jsonl"), "prompt-completion")}, {"messages": "talk"}
    )
    assert [row["completion"] for row in made["d"].rows] == [[WESER], [NO]]
    assert made["d"].renames == {"messages": "talk"}


def test_a_job_reads_conversations_of_every_kind_and_says_so(tmp_path, monkeypatch):
    tiny_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = [[SYSTEM, {"role": "user", "content": f"Write about cart {i}."}] for i in range(12)]
    write_rows(tmp_path / "prompts.jsonl", [{"messages": talk} for talk in asked])
    write_rows(tmp_path / "wanted.jsonl", [{"messages": [*talk, WESER]} for talk in asked])
    pairs = [
        {"chosen": [*talk, {"role": "assistant", "content": f"Good {n}"}],
         "rejected": [*talk, {"role": "assistant", "content": f"Bad {n}"}]}
        for talk in asked for n in range(3)
    ]  # fmt: skip
    write_rows(tmp_path / "pairs.jsonl", pairs)
    done = run_command(
        "run", "rlhf", *FLAGS, "--demonstrations", "wanted.jsonl", "--feedback.source", "file",
        "--feedback.file", "pairs.jsonl", "--name", "talks",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert "prompts.jsonl is read as OpenAI's messages" in done.out
    assert "wanted.jsonl is read as OpenAI's messages" in done.out
    assert "pairs.jsonl is read as pairs of whole conversations" in done.out
    with FeedbackStore(tmp_path / "runs/talks/feedback.sqlite", create=False) as store:
        said = store.comparisons()
        texts = opinions_of_texts(said, codec()).batch.texts
    assert {c.prompt[-1]["content"] for c in said} == {talk[-1]["content"] for talk in asked}
    assert all(re.fullmatch(r"(Good|Bad) \d", text) for text in texts)
    write_rows(
        tmp_path / "pairs.jsonl", [{"prompt": "Hi", "chosen": [RIVER, WESER], "rejected": "x"}]
    )
    said = run_command(
        "run", "rlhf", *FLAGS, "--feedback.source", "file", "--feedback.file", "pairs.jsonl",
        "--name", "wrong",
    )  # fmt: skip
    assert said.code == 2
    assert said.err.startswith(
        "plaudit: pairs.jsonl, line 1: 'chosen' contradicts 'prompt' in turn 1"
    )
