"""Formats of others: each from a row as its source publishes it, by hand what must come out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plaudit.records.columns import write_jsonl
from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
HH = "\n\nHuman: Hi\n\nAssistant: Hello \n\nHuman: Name a river.\n\nAssistant: "
ASKED = [user("Hi"), assistant("Hello"), user("Name a river.")]
RATINGS = ("instruction_following", "honesty", "truthfulness", "helpfulness")

COMPARISONS = {
    "HH-RLHF transcripts": (
        {"chosen": HH + "The Weser.", "rejected": HH + "No."},
        (ASKED, "The Weser.", "No."),
    ),
    "pairs of whole conversations": (
        {"chosen": [*ASKED, assistant("The Weser.")], "rejected": [*ASKED, assistant("No.")]},
        (ASKED, [assistant("The Weser.")], [assistant("No.")]),
    ),
    "ShareGPT comparisons": (
        {
            "conversations": [HUMAN, GPT, {"from": "human", "value": "Name a river."}],
            "system": "Be brief.",
            "chosen": {"from": "gpt", "value": "The Weser."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        ([SYSTEM, *ASKED], "The Weser.", "No."),
    ),
    "OpenAI's format of preferences": (
        {
            "input": {"messages": ASKED, "tools": [], "parallel_tool_calls": True},
            "preferred_output": [assistant("The Weser.")],
            "non_preferred_output": [assistant("No.")],
        },
        (ASKED, [assistant("The Weser.")], [assistant("No.")]),
    ),
    "Alpaca comparisons": (
        {"instruction": "Translate.", "input": "Fluss", "chosen": "River", "rejected": "Sea"},
        ("Translate.\nFluss", "River", "Sea"),
    ),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_read_and_named(tmp_path, name):
    row, expected = COMPARISONS[name]
    write_jsonl(tmp_path / "d.jsonl", [row | {"id": n} for n in range(2)])
    rows, kind = read_dataset(tmp_path / "d.jsonl", kinds=("preference", "unpaired", "scored"))
    assert kind == "preference"
    named = dict(zip(("prompt", "chosen", "rejected"), expected, strict=True))
    assert rows == [named | {"id": n} for n in range(2)]
    assert rows.notes == (f"{tmp_path / 'd.jsonl'} is read as {name}",)
    prompts, kind = read_dataset(tmp_path / "d.jsonl", kinds=("prompt",))
    assert kind == "prompt"
    assert prompts[0]["prompt"] == expected[0]


DEMONSTRATIONS = {
    "OpenAI's messages": ({"messages": [SYSTEM, *ASKED]}, [SYSTEM, *ASKED]),
    "ShareGPT conversations": ({"conversations": [HUMAN], "system": "Be brief."}, [SYSTEM, user("Hi")]),
    "Alpaca": ({"instruction": "Translate.", "input": "Fluss"}, "Translate.\nFluss"),
}  # fmt: skip


ODD = [None, True, 0, 1.5, "", "x", "[", [], [0], [[]], [None], {}, {"role": "user"}, [{}], [{"role": 1, "content": "x"}],
       [{"from": "human", "value": None}], [user("x"), {}], {"messages": [1]}, [["a"]], b"x"]  # fmt: skip
RAW = {
    "instruction": "q",
    "completions": [{"response": "a", "overall_score": 1, "annotations": {}}],
}
TASK = {"data": {"prompt": "q"}, "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "left"}}]}]}  # fmt: skip
WHOLE = [row for row, _ in (*COMPARISONS.values(), *DEMONSTRATIONS.values())]


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_demonstrations_and_prompts_are_read_and_named(name):
    row, prompt = DEMONSTRATIONS[name]
    [asked], _ = read_dataset([row], kinds=("prompt",))
    assert asked["prompt"] == prompt
    if name == "Alpaca":
        answered, completion = row | {"output": "River"}, "River"
    else:
        column, answer = next(iter(row)), GPT if name.startswith("Share") else assistant("Hello")
        answered, completion = row | {column: [*row[column], answer]}, [assistant("Hello")]
    rows, kind = read_dataset([answered], kinds=("prompt-completion",))
    assert kind == "prompt-completion"
    assert (rows[0]["prompt"], rows[0]["completion"]) == (prompt, completion)
    assert rows.notes == (f"the dataset is read as {name}",)


def test_alpaca_keeps_its_history_and_a_wanted_answer_beside_prompts():
    row = {"instruction": "Name a river.", "input": "", "output": "The Weser.",
           "system": "Be brief.", "history": [["Hi", "Hello"]]}  # fmt: skip
    assert read_dataset([row], kinds=("prompt",))[0] == [
        {"prompt": [SYSTEM, *ASKED], "output": "The Weser."}
    ]


def test_raw_ultrafeedback_is_scores_by_the_whole_score_or_the_mean_rating():
    def one(text, ratings, **more):
        rated = {name: {"Rating": r} for name, r in zip(RATINGS, ratings, strict=True)}
        return {"response": text, "model": "m", "annotations": rated, **more}

    row = {
        "source": "sharegpt",
        "instruction": "Name a river.",
        "models": ["m", "m"],
        "completions": [one("The Weser.", "5543"), one("No.", "1234")],
    }
    [read], kind = read_dataset([row], kinds=("preference", "unpaired", "scored"))
    assert kind == "scored"
    assert read == {
        "prompt": "Name a river.",
        "completions": ["The Weser.", "No."],
        "scores": [4.25, 2.5],  # (5+5+4+3)/4 and (1+2+3+4)/4
        "source": "sharegpt",
        "models": ["m", "m"],
    }
    whole = [one("a", "1111", overall_score=8.5), one("b", "5555", overall_score=2)]
    [read], _ = read_dataset([row | {"completions": whole}], kinds=("scored",))
    assert read["scores"] == [8.5, 2]
    [read], _ = read_dataset([row], kinds=("prompt",))  # its completions would be an argument
    assert read == {"prompt": "Name a river.", "source": "sharegpt", "models": ["m", "m"]}
    bad = row | {"completions": [one("a", ["1", "2", "N/A", "4"])]}
    with pytest.raises(UserError, match="row 2: 'completions' 1 truthfulness is 'N/A'"):
        read_dataset([row, bad], kinds=("scored",))
    with pytest.raises(UserError, match=r"UltraFeedback \(raw\), which holds scores, not compar"):
        read_dataset([row], kinds=("preference",))


def test_label_studios_answers_are_comparisons_once_the_fields_are_named(tmp_path):
    def said(selected, who=1, **more):
        result = [{"from_name": "c", "to_name": "x,y", "type": "pairwise",
                   "value": {"selected": selected}}]  # fmt: skip
        return {"id": 1, "result": result if selected else [], "completed_by": who, **more}

    tasks = [
        {"id": 1, "data": {"question": "q1", "x": "good", "y": "bad"},
         "annotations": [said("left"), said("right", {"id": 7, "email": "a@b.c"})]},
        {"id": 2, "data": {"question": "q2", "x": "worse", "y": "better"},
         "annotations": [said("right"), said(None), said("left", was_cancelled=True)]},
    ]  # fmt: skip
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    with pytest.raises(UserError, match=r"entry 1: this is Label Studio's .*\(question, x, y\)"):
        read_dataset(path, kinds=("preference",))
    names = {"prompt": "question", "left": "x", "right": "y"}
    rows, _ = read_dataset(path, columns=names, kinds=("preference",))
    assert [(r["prompt"], r["chosen"], r["rejected"], r["rater"]) for r in rows] == [
        ("q1", "good", "bad", "1"),
        ("q1", "bad", "good", "a@b.c"),
        ("q2", "better", "worse", "1"),
    ]
    assert [rows.where(i)[-7:] for i in range(3)] == ["entry 1", "entry 1", "entry 2"]
    assert rows.notes[0].endswith("left out: 1 without an answer and 1 cancelled")
    tasks[1]["annotations"] = [said("both")]
    path.write_text(json.dumps(tasks))
    with pytest.raises(UserError, match="entry 2: the annotation selects 'both'"):
        read_dataset(path, columns=names, kinds=("preference",))
    tasks[1]["annotations"] = [{"result": [{"type": "choices", "value": {"choices": ["A"]}}]}]
    path.write_text(json.dumps(tasks))
    with pytest.raises(
        UserError, match="entry 2: this Label Studio annotation holds 1 answers of type choi"
    ):
        read_dataset(path, columns=names, kinds=("preference",))


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (
            {"prompt": "q", "a": "x", "best.responses": ["a"], "best.responses.users": ["u"],
             "best.responses.status": ["submitted"]},
            r"an Argilla export.*questions \(best\).*submitted",
        ),
        (
            {"instruct": "q", "rating": [{"user_id": "u", "value": 4, "status": "submitted"}]},
            "an Argilla export.*rating",
        ),
        (
            {"id": 1, "question": "q", "comparison": "left", "annotator": 1, "annotation_id": 5,
             "lead_time": 3.5},
            "Label Studio's flat export.*export the project as JSON",
        ),
        (
            {"model_a": "a", "model_b": "b", "winner": "tie (bothbad)", "conversation_a": [],
             "conversation_b": []},
            "Chatbot Arena's battles",
        ),
        (
            {"message_id": "1", "parent_id": None, "text": "hi", "role": "prompter"},
            "OpenAssistant's messages.*rank",
        ),
        (
            {"info": {"post": "p"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 1},
            "OpenAI's comparisons of summaries",
        ),
        ({"messages": [user("Hi"), assistant("Hello")]}, "OpenAI's messages, which holds demonst"),
        ({"instruction": "q", "output": "a"}, "Alpaca, which holds demonstrations, not compar"),
        ({"conversations": [HUMAN, GPT]}, "ShareGPT conversations, which holds demonstrations"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_and_never_told_to_rename_at_random(row, name):
    with pytest.raises(UserError, match=f"row 1: this is {name}") as refused:
        read_dataset([row], kinds=("preference",))
    assert "OLD" not in str(refused.value)


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            "prompt",
            "'messages' message 1 is",
        ),
        ({"chosen": HH + "a", "rejected": "b"}, "preference", "'rejected' does not begin with"),
        (
            {"conversations": [HUMAN, {"from": "gpt", "value": None}]},
            "prompt-completion",
            "'conversations' turn 2 is",
        ),
        ({"conversations": [HUMAN, {"value": "x"}]}, "prompt", "no column 'prompt'"),
        ({"chosen": [user("a"), {"role": "assistant"}], "rejected": [user("a"), assistant("b")]},
         "preference", "'chosen' message 2 is"),
        (TASK, "prompt", r"this is Label Studio's export of tasks.*fields of its data \(prompt\)"),
    ],
)  # fmt: skip
def test_a_first_row_that_is_wrong_is_still_of_its_format(row, kind, message):
    with pytest.raises(UserError, match=f"row 1: {message}"):
        read_dataset([row], kinds=(kind,))


def test_a_format_is_known_by_its_whole_shape():
    for row in (
        {"instruction": "q", "response": "a"},
        {"conversations": "a text"},
        {"chosen": "a", "rejected": "b"},
        {"input": {"messages": ASKED}, "preferred_output": [assistant("a")]},
        {"completions": [{"response": "a"}], "question": "q"},
        {"data": {"x": "y"}, "prompt_text": "q"},
    ):
        with pytest.raises(UserError, match=r"row 1: no column|are no kind of data"):
            read_dataset([row], kinds=("preference", "prompt-completion"))


def test_two_formats_that_fit_are_refused():
    row = {"instruction": "q", "input": "", "output": "a", "conversations": [HUMAN, GPT]}
    with pytest.raises(
        UserError, match=r"can be read as Alpaca and as ShareGPT .*--columns other="
    ):
        read_dataset([row], kinds=("prompt-completion",))
    assert read_dataset([row], columns={"talk": "conversations"}, kinds=("prompt-completion",))


@pytest.mark.parametrize(
    ("good", "bad", "kind", "message"),
    [
        (
            COMPARISONS["HH-RLHF transcripts"][0],
            {"chosen": HH + "a", "rejected": HH.replace("Hello", "Hey") + "b"},
            "preference",
            "'chosen' has 3 turns after the 1 that both share, expected one",
        ),
        (
            COMPARISONS["HH-RLHF transcripts"][0],
            {"chosen": "The Weser.", "rejected": "No."},
            "preference",
            "'chosen' does not begin with 'Human:'",
        ),
        (
            COMPARISONS["ShareGPT comparisons"][0],
            {"conversations": [{"from": "tool", "value": "x"}], "chosen": GPT, "rejected": GPT},
            "preference",
            "'conversations' turn 1 is from 'tool'",
        ),
        (
            COMPARISONS["OpenAI's format of preferences"][0],
            {"input": None, "preferred_output": [], "non_preferred_output": []},
            "preference",
            "is not OpenAI's format of preferences, as row 1 is: expected input, preferred_output",
        ),
        (
            {"messages": [user("Hi"), assistant("Hello")]},
            {"messages": [user("Hi")]},
            "prompt-completion",
            "'messages' ends with a turn of 'user', expected the assistant's answer",
        ),
        (
            {"messages": [user("Hi")]},
            {"messages": [user("Hi"), assistant("Hello")]},
            "prompt",
            "'messages': the last turn is the assistant's, expected one to answer",
        ),
        (
            {"messages": [user("Hi"), assistant("Hello")]},
            {"messages": [assistant("Hello")]},
            "prompt-completion",
            "'messages' before its last turn: there is no turn",
        ),
        (
            {"messages": [user("Hi"), assistant("Hello")]},
            {"messages": [user("Hi"), {"role": "assistant", "content": None}]},
            "prompt-completion",
            "'messages' message 2 is .*expected a role and a content that",
        ),
        (
            {"messages": [user("Hi"), assistant("Hello")], "prompt": "Hi"},
            {"messages": [user("Hi"), assistant("Hello")], "prompt": "Bye"},
            "prompt-completion",
            "'prompt' is 'Bye' .*, which 'messages' contradicts",
        ),
    ],
)
def test_a_row_that_is_unlike_the_first_is_named(good, bad, kind, message):
    with pytest.raises(UserError, match=f"row 2:? {message}"):
        read_dataset([good, bad], kinds=(kind,))


def test_transcripts_and_turns_in_our_own_columns():
    asked = HH.rstrip(" ")
    row = {"prompt": asked, "chosen": " The Weser.", "rejected": HH + "No."}
    rows, _ = read_dataset([row], kinds=("preference",))
    assert rows == [{"prompt": ASKED, "chosen": "The Weser.", "rejected": [assistant("No.")]}]
    mixed = [{"prompt": asked}, {"prompt": "Human: is that a word?"}]
    assert read_dataset(mixed, kinds=("prompt",))[0] == mixed
    turns = {"prompt": [HUMAN], "chosen": [HUMAN, GPT], "rejected": "No."}
    rows, _ = read_dataset([turns], kinds=("preference",))
    assert rows == [{"prompt": [user("Hi")], "chosen": [assistant("Hello")], "rejected": "No."}]


def test_a_missing_column_names_only_columns_that_could_be_it():
    with pytest.raises(UserError, match="if 'question' is it, rename with --columns prompt=quest"):
        read_dataset([{"question": "q", "n": 3}], kinds=("prompt",))
    with pytest.raises(UserError, match=r"no column 'prompt' \(columns are n\), and no other"):
        read_dataset([{"n": 3}], kinds=("prompt",))
    with pytest.raises(UserError, match=r"no column 'prompt' .*, and no other column could be it"):
        read_dataset([{"chosen": "a", "rejected": "b"}], kinds=("preference",))


@pytest.mark.parametrize("kind", ["preference", "scored", "prompt-completion", "prompt"])
def test_odd_values_are_read_or_refused_in_one_sentence(kind):
    """Every odd value in every column and every part of it, in the first row or a later one."""
    refused = []
    for good in [*WHOLE, RAW, TASK, {"prompt": "q", "chosen": ASKED, "rejected": "x"}]:
        for place in places(good):
            for odd in ODD:
                bad = replaced(good, place, odd)
                for rows in ([bad], [good, bad]):
                    try:
                        read_dataset(rows, kinds=(kind,))
                    except UserError as error:
                        refused.append(str(error))
    assert len(refused) > 100
    assert not [said for said in refused if "\n" in said or "OLD" in said]


def places(value):
    """The ways to every part of a nested value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for name, inner in items:
        yield (name,)
        yield from ((name, *rest) for rest in places(inner))


def replaced(value, place, odd):
    if not place:
        return odd
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = replaced(value[place[0]], place[1:], odd)
    return changed


DATA_PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_examples_of_the_page_are_read_as_the_page_says(tmp_path):
    kinds = {"comparisons": "preference", "scores": "scored", "demonstrations": "prompt-completion"}
    page = DATA_PAGE.read_text()
    table = page.partition("| format | used as |")[2].partition("\n\n")[0].splitlines()[2:]
    examples = page.split("```json\n")[1:]
    assert len(table) == len(examples) == 10
    for line, example in zip(table, examples, strict=True):
        text, name = example.partition("```")[0], line.split("|")[1].strip()
        path = tmp_path / ("d.json" if text.startswith("[") else "d.jsonl")
        path.write_text(text)
        for use in line.split("|")[2].split(","):
            names = {"prompt": "question", "left": "a", "right": "b"} if "Label" in name else {}
            kind = kinds.get(use.strip(), "prompt")
            if kind == "prompt" and name in ("ShareGPT", "OpenAI's `messages`"):
                continue  # these end with an answer: see test_demonstrations_and_prompts
            rows, found = read_dataset(path, columns=names, kinds=(kind,))
            assert (len(rows), found) == (2, kind)
            assert rows.notes or kind == "prompt"
            asked = [row["prompt"] for row in rows]
            lake = asked[1] if isinstance(asked[1], str) else asked[1][-1]["content"]
            assert lake == "Name a lake."
            if "chosen" in rows[1] and kind == "preference":
                chosen = rows[1]["chosen"]
                assert chosen in ("Como.", [assistant("Como.")])
