"""Files as their makers write them: small ones made by hand, read without a word about the format."""

from __future__ import annotations

import csv
import gzip
import json

import pytest

from plaudit.feedback.exchange import import_feedback
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        yield opened


@pytest.fixture
def take(store, tmp_path):
    """Import rows from a file of this name; what was said about it, without the path."""

    def call(rows, name="file.jsonl", **how):
        path = tmp_path / name
        if name.endswith(".json"):
            path.write_text(json.dumps(rows))
        else:
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
            path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return [
            note.replace(f"{tmp_path}/", "") for note in import_feedback(store, path, **how).notes
        ]

    return call


def said(store):
    return [(c.prompt, c.a, c.b, c.preference, c.rater) for c in store.comparisons()]


# --- Chatbot Arena -----------------------------------------------------------------------------


def battle(winner, content=lambda text: text, **more):
    def talk(answer):
        return [{"role": "user", "content": content("Hi")}, {"role": "assistant", "content": content(answer)}]  # fmt: skip

    return {"model_a": "vicuna", "model_b": "koala", "winner": winner, "conversation_a": talk("A"),
            "conversation_b": talk("B")} | more  # fmt: skip


BATTLE = {"question_id": "q", "judge": "arena_user_973", "turn": 1, "anony": True,
          "language": "English", "tstamp": 1682351591.1}  # fmt: skip


@pytest.mark.parametrize(
    ("winner", "means"),
    [("model_a", "a"), ("model_b", "b"), ("tie", "tie"), ("tie (bothbad)", "both_bad")],
)
def test_battles(store, take, winner, means):
    notes = take([battle(winner, **BATTLE)])
    assert notes == ["file.jsonl is read as Chatbot Arena's battles (it has model_a, model_b, winner, conversation_a, conversation_b)"]  # fmt: skip
    [c] = store.comparisons()
    assert said(store) == [("Hi", "A", "B", means, "arena_user_973")]
    assert (c.model_a, c.model_b, c.order_shown, c.time) == ("vicuna", "koala", "ab", 1682351591.1)


@pytest.mark.parametrize("winner", ["both_bad", "bothbad"])
def test_typed_parts_and_the_other_spellings_of_both_bad(store, take, winner):
    def parts(text):
        return [{"type": "text", "text": text, "image": None, "mimeType": None}]

    def picture(text):
        return [{"type": "image", "text": None, "image": "x.png", "mimeType": "image/png"}]

    more = {"id": "1", "evaluation_session_id": "s1", "evaluation_order": 1, "timestamp": None,
            "conv_metadata": {"sum_assistant_a_tokens": 3}, "is_code": False}  # fmt: skip
    notes = take([battle(winner, parts, **more), battle("tie", picture, **more)])
    assert notes[0].startswith("file.jsonl is read as Chatbot Arena's 140k preferences")
    assert notes[1:] == ["left out: 1 battles with pictures or files"]
    assert said(store) == [("Hi", "A", "B", "both_bad", "s1")]


def test_one_hot_winners_as_csv(store, take, tmp_path):
    names = ["id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a",
             "winner_model_b", "winner_tie"]  # fmt: skip
    rows = [
        ["1", "x", "y", '["Hi", "And?"]', '["A", "A2"]', '["B", "B2"]', "0", "1", "0"],
        ["2", "x", "y", '["Hi"]', '["A"]', '["B"]', "0", "0", "1"],
        ["3", "x", "y", '["Hi"]', "[null]", '["B"]', "0", "1", "0"],
    ]
    with open(tmp_path / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    taken = import_feedback(store, tmp_path / "train.csv")
    assert taken.notes[1:] == ("left out: 1 battles in which a model said nothing",)
    first, second = store.comparisons()
    assert [(m["role"], m["content"]) for m in first.b] == [
        ("assistant", "B"),
        ("user", "And?"),
        ("assistant", "B2"),
    ]
    assert (first.preference, second.preference, second.rater) == ("b", "tie", "train")


# --- OpenAI ------------------------------------------------------------------------------------

POST = {"id": "t3", "post": "I lost my keys.", "title": "Keys", "subreddit": "help"}


def summaries(choice, confidence, worker="w1"):
    return {
        "info": POST | {"site": None, "article": None},
        "summaries": [{"text": " Keys lost.", "policy": "sup1", "note": "ok"},
                      {"text": " No idea.", "policy": "ref", "note": None}],
        "choice": choice, "worker": worker, "batch": "batch5", "split": "train",
        "extra": {"confidence": confidence},
    }  # fmt: skip


def test_comparisons_of_summaries_by_several_workers_are_of_one_item(store, take):
    notes = take([summaries(0, 2), summaries(1, 9, "w2"), summaries(0, 5, "w3")])
    assert notes[1] == "confidence is read as a scale from the first (1) to the second (9) summary"
    assert [(c.preference, c.strength, c.rater) for c in store.comparisons()] == [
        ("a", 3, "w1"),
        ("b", 4, "w2"),
        ("a", None, "w3"),
    ]
    [item] = store.items()
    assert item.prompt == "SUBREDDIT: r/help\n\nTITLE: Keys\n\nPOST: I lost my keys.\n\nTL;DR:"
    assert [s.model for s in item.segments] == ["sup1", "ref"]


def test_a_confidence_that_contradicts_the_scale_is_the_strength(store, take):
    notes = take([summaries(0, 8), summaries(1, 9, "w2")])
    assert notes[1] == "confidence (1 to 9) is read as the strength of the preference"
    assert [c.strength for c in store.comparisons()] == [8, 9]


def test_axes(store, take):
    axes = {"overall": 6, "accuracy": 7, "coverage": None, "coherence": 5}
    summary = {"text": "Short.", "policy": "ppo", "note": "", "axes": axes}
    article = {"id": "c", "site": "cnn", "title": "News", "article": "Much happened.", "post": None}
    take([{"info": article, "summary": summary, "worker": "w", "batch": "b", "split": "test"}])
    assert [(s.score, s.columns["axis"], s.rater) for s in store.scores()] == [
        (6, "overall", "w"),
        (7, "accuracy", "w"),
        (5, "coherence", "w"),
    ]
    assert store.items()[0].prompt == "Title: News\n\nArticle: Much happened.\n\nTL;DR:"


# --- UltraFeedback, HH-RLHF, OpenAssistant -----------------------------------------------------


def test_ratings_are_texts(store, take):
    def rated(*numbers):
        return {name: {"Rating": number, "Rationale": "r"} for name, number in
                zip(("honesty", "helpfulness"), numbers, strict=True)}  # fmt: skip

    completions = [
        {"model": "gpt-4", "principle": "honesty", "custom_system_prompt": "s", "response": "A",
         "annotations": rated("5", "4")},
        {"model": "llama", "principle": "honesty", "custom_system_prompt": "s", "response": "B",
         "annotations": rated("2", "N/A")},
        {"model": "mpt", "principle": "honesty", "custom_system_prompt": "s", "response": "C",
         "annotations": rated("N/A", "N/A")},
    ]  # fmt: skip
    row = {"source": "evol", "instruction": "Do it.", "models": ["gpt-4", "llama", "mpt"],
           "correct_answers": ["None"], "incorrect_answers": ["None"], "completions": completions}  # fmt: skip
    notes = take([row])
    assert notes[1:] == ["left out: 1 answers without a rating"]
    assert [(s.answer, s.score, s.model) for s in store.scores()] == [("A", 4.5, "gpt-4"), ("B", 2, "llama")]  # fmt: skip
    assert store.items()[0].columns["source"] == "evol"


def test_transcripts_are_split_before_the_last_answer_and_must_share_the_rest(store, take):
    asked = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go"
    take([{"chosen": asked + "\n\nAssistant: A", "rejected": asked + "\n\nAssistant: B"}])
    [c] = store.comparisons()
    assert ([m["content"] for m in c.prompt], c.chosen, c.rejected) == (
        ["Hi", "Yes?", "Go"],
        "A",
        "B",
    )
    other = asked.replace("Yes?", "No?")
    with pytest.raises(UserError, match=r"bad.jsonl, line 1: 'chosen' has 3 turns after the 1"):
        take([{"chosen": asked + "\n\nAssistant: A", "rejected": other + "\n\nAssistant: B"}], "bad.jsonl")  # fmt: skip
    assert len(store.comparisons()) == 1


def message(name, parent, role, text, rank=None, replies=(), **more):
    one = {"message_id": name, "parent_id": parent, "user_id": f"u{name}", "created_date": "2023",
           "text": text, "role": role, "lang": "en", "review_count": 3, "review_result": True,
           "deleted": False, "rank": rank, "synthetic": False, "model_name": None,
           "detoxify": None, "message_tree_id": "1", "tree_state": "ready_for_export",
           "emojis": {}, "labels": None} | more  # fmt: skip
    return one | {"replies": list(replies)}


def tree():
    last = [message("5", "3", "assistant", "Elbe", 1), message("6", "3", "assistant", "Oder", 0),
            message("7", "3", "assistant", "gone", 2, deleted=True)]  # fmt: skip
    more = [
        message("3", "2", "prompter", "Another?", 0, last),
        message("8", "2", "prompter", "?", 1),
    ]
    first = [message("2", "1", "assistant", "Weser", 0, more), message("4", "1", "assistant", "No", 1),
             message("9", "1", "assistant", "late")]  # fmt: skip
    return message("1", None, "prompter", "A river?", None, first)


def flat(one):
    rest = {name: value for name, value in one.items() if name != "replies"}
    return [rest, *(row for reply in one["replies"] for row in flat(reply))]


@pytest.mark.parametrize("shape", ["trees", "messages", "messages backwards"])
def test_replies_are_ranked_among_siblings(store, take, shape):
    whole = {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": tree()}
    rows = [whole] if shape == "trees" else flat(tree())[:: -1 if "back" in shape else 1]
    notes = take(rows, "oasst.jsonl.gz")
    assert notes[1:] == ["left out: 1 replies without a rank"]
    items = {item.key: item for item in store.items()}
    found = set()
    for vote in store.votes():
        item = items[vote.item_key]
        ranked = tuple(item.segments[n].text for [n] in vote.value["ranking"])
        asked = item.prompt if isinstance(item.prompt, str) else item.prompt[-1]["content"]
        found.add((asked, ranked, vote.rater))
    assert found == {
        ("A river?", ("Weser", "No"), "oasst"),
        ("Another?", ("Oder", "Elbe"), "oasst"),
    }


def test_a_message_whose_parent_is_not_there(store, take):
    rows = flat(tree())
    with pytest.raises(UserError, match=r"line 3: its 'parent_id' leads to '3', which is not in"):
        take([row for row in rows if row["message_id"] != "3"])
    rows[0]["parent_id"] = "5"
    with pytest.raises(UserError, match="which answers itself"):
        take(rows)
    with pytest.raises(UserError, match=r"line 10: message '1' is there already"):
        take([*flat(tree()), flat(tree())[0]])


# --- tools -------------------------------------------------------------------------------------

CONFIG = """<View><!-- two answers -->
  <Text name="q" value="$question"/><Text name="l" value="$first"/><Text name="r" value="$other"/>
  <Pairwise name="better" toName="r,l"/></View>"""


def task(*annotations):
    data = {"question": "Which?", "first": "A", "other": "B", "source": "web"}
    return {"id": 1, "data": data, "annotations": list(annotations), "predictions": []}


def annotation(selected, **more):
    result = [] if selected is None else [
        {"from_name": "better", "to_name": "r,l", "id": "x", "type": "pairwise", "value": {"selected": selected}}]  # fmt: skip
    return {"id": 2, "result": result, "was_cancelled": False, "ground_truth": False,
            "created_at": "2024-05-01T10:00:00.000000Z", "lead_time": 4.5, "completed_by": 7} | more  # fmt: skip


def test_label_studio_needs_its_configuration_or_the_names(store, take, tmp_path):
    rows = [task(annotation("left"), annotation(None), annotation(None, was_cancelled=True, completed_by={"id": 8, "email": "b@x"}))]  # fmt: skip
    with pytest.raises(UserError, match=r"entry 1: which of the task's fields .*--config FILE"):
        take(rows, "tasks.json")
    (tmp_path / "view.xml").write_text(CONFIG)
    notes = take(rows, "tasks.json", config=tmp_path / "view.xml")
    assert notes[1:] == ["left out: 1 annotations without an answer (a tie looks the same)"]
    [c] = store.comparisons()
    assert (c.prompt, c.chosen, c.rejected, c.rater) == (
        "Which?",
        "B",
        "A",
        "7",
    )  # left shows $other
    assert (c.seconds, c.time, c.order_shown, c.columns) == (
        4.5,
        1714557600,
        "ab",
        {"source": "web"},
    )
    assert [v.rater for v in store.votes(kind="skip")] == ["b@x"]
    names = {"prompt": "question", "left": "other", "right": "first"}
    assert take(rows, "tasks.json", columns=names) == notes
    assert store.size() == (1, 2)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("<View>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View/>', "DOCTYPE or entities"),
        ("<View/>", "0 tags Pairwise"),
        (
            '<View><Pairwise toName="a,b"/></View>',
            "Pairwise of the labelling configuration is of a, b",
        ),
    ],
)
def test_a_wrong_configuration_is_a_sentence(take, tmp_path, config, says):
    (tmp_path / "view.xml").write_text(config)
    with pytest.raises(UserError, match=says):
        take([task(annotation("left"))], "tasks.json", config=tmp_path / "view.xml")


def record(**columns):
    return {"id": "1", "status": "completed", "_server_id": "s", "prompt": "Hi", "response1": "A",
            "response2": "B"} | columns  # fmt: skip


def test_argilla_drafts_and_discarded_responses_are_no_votes(store, take):
    notes = take([record(**{
        "preference.responses": ["response2", "response1", None, "tie"],
        "preference.responses.users": ["u1", "u2", "u3", "u4"],
        "preference.responses.status": ["submitted", "draft", "discarded", "submitted"],
        "preference.suggestion": "response1", "preference.suggestion.agent": "gpt",
        "stars_response1.responses": [4], "stars_response1.responses.users": ["u1"],
        "stars_response1.responses.status": ["submitted"],
    })])  # fmt: skip
    assert notes == ["file.jsonl is read as an Argilla export", "left out: 1 draft responses", "left out: 1 discarded responses"]  # fmt: skip
    assert said(store) == [("Hi", "A", "B", "b", "u1"), ("Hi", "A", "B", "tie", "u4")]
    assert [(s.answer, s.score, s.rater) for s in store.scores()] == [("A", 4, "u1")]


def test_older_argilla_exports_list_their_responses(store, take):
    answers = [{"user_id": "u1", "value": [{"value": "response2", "rank": 1}, {"value": "response1", "rank": 1}], "status": "submitted"}]  # fmt: skip
    take([record(ranking=answers)])
    [vote] = store.votes()
    assert (vote.kind, vote.value, vote.rater) == ("ranking", {"ranking": [[1, 0]]}, "u1")


# --- what is wrong is one sentence -------------------------------------------------------------

BAD = {
    "an unknown winner": ([battle("model_c")], "'winner' is 'model_c'.*did you mean"),
    "no winner, though named": ([{k: v for k, v in battle("tie").items() if k != "winner"}
                                 | {"winer": "tie"}], "no field 'winner'.*did you mean 'winer'"),
    "no shared turn": ([battle("tie", conversation_b=[{"role": "user", "content": "Else"}])],
                       "share no turn"),
    "a conversation that is a number": ([battle("tie"), battle("tie", conversation_a=3)],
                                        "line 2: 'conversation_a' is 3 .int., expected a list"),
    "a third choice": ([summaries(2, 3)], "'choice' is 2 .int., expected 0 or 1"),
    "a confidence of ten": ([summaries(1, 10)], "'confidence' is 10, expected 1 to 9"),
    "half an annotation": ([task(annotation("left") | {"result": [{"type": "choices", "value": {}}]})],
                           "1 answers of type choices"),
    "an answer without a name": ([record(**{"preference.responses": ["response3"]})],
                                 "expected one of response1, response2, tie or both_bad"),
    "as many users as responses": ([record(**{"q.responses": [1], "q.responses.users": []})],
                                   "the responses of 'q', their users and status differ"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_their_line_and_nothing_is_kept(store, take, tmp_path, name):
    rows, says = BAD[name]
    how = {"form": "arena"} if "named" in name else {}
    how |= {"columns": {"prompt": "question", "left": "first", "right": "other"}} if "half" in name else {}  # fmt: skip
    with pytest.raises(UserError, match=says) as refused:
        take(rows, **how)
    assert f"{tmp_path}/file.jsonl, line {len(rows)}" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert store.size() == (0, 0)


def test_a_format_that_is_not_the_files(take):
    with pytest.raises(UserError, match=r"line 1 is not HH-RLHF transcripts: no field 'chosen'"):
        take([battle("tie")], form="hh")
    with pytest.raises(UserError, match=r"there is no format 'aren'.*did you mean 'arena'"):
        take([battle("tie")], form="aren")
    both = battle("tie") | {"info": {}, "summaries": [], "choice": 0}
    with pytest.raises(
        UserError, match=r"can be read as .*\(openai\) and as .*\(arena\): say which"
    ):
        take([both])
