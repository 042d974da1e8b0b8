"""`plaudit feedback` on real stores: in, counted, and out again."""

from __future__ import annotations

import json

import pytest

from plaudit.cli.main import main

ROWS = [
    {"question": "Say hello.", "good": "Hello!", "bad": "No."},
    {"question": "Say bye.", "good": "Goodbye!", "bad": "Hm."},
]


@pytest.fixture
def plaudit(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(*words):
        try:
            code = main(["feedback", *words])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


COLUMNS = ["--columns", "prompt=question", "chosen=good", "rejected=bad"]


def test_in_counted_and_out_again(plaudit, tmp_path):
    code, out, err = plaudit("import", "votes.jsonl", "--rater", "ann", *COLUMNS)
    assert (code, err) == (0, "")
    assert out.startswith("votes.jsonl: 2 rows read; 2 items and 2 votes are new in ")
    assert "0 items and 0 votes are new" in plaudit("import", "votes.jsonl", "--rater", "ann", *COLUMNS)[1]  # fmt: skip
    code, out, _ = plaudit("stats")
    assert code == 0
    assert "ann" in out
    code, out, _ = plaudit("export", "out.jsonl")
    assert (code, out.partition(" from ")[0]) == (0, "out.jsonl: 2 rows written")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in rows] == [
        (row["question"], row["good"], row["bad"]) for row in ROWS
    ]


def test_the_format_that_was_recognised_is_said(plaudit, tmp_path):
    talk = "\n\nHuman: Say hello.\n\nAssistant: "
    row = {"chosen": talk + "Hello!", "rejected": talk + "No."}
    (tmp_path / "hh.jsonl").write_text(json.dumps(row) + "\n")
    code, out, err = plaudit("import", "hh.jsonl")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == ["  hh.jsonl is read as HH-RLHF transcripts"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stats"], "feedback.sqlite"),
        (["export", "out.jsonl", "--store", "none.sqlite"], "none.sqlite"),
        (["import", "no.jsonl"], "no.jsonl"),
        (["import", "votes.jsonl"], "chosen"),
        (["import", "votes.jsonl", "--columns", "chosen"], "names as chosen=good, not 'chosen'"),
        (["stats", "--run", "nothing"], "no run at runs/nothing"),
    ],
)
def test_what_is_not_there_is_a_sentence(plaudit, words, sentence):
    code, out, err = plaudit(*words)
    assert (code, out) == (2, "")
    assert err.startswith("plaudit: ")
    assert sentence in err
    assert err.count("\n") == 1
