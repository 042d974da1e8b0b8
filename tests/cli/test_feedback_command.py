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
    assert out.splitlines()[1:] == [
        "  hh.jsonl is read as HH-RLHF transcripts (it has chosen, rejected)"
    ]


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


@pytest.mark.parametrize("store", ["s.sqlite", "sqlite:///s.sqlite", None])
def test_an_import_that_is_refused_leaves_no_new_store(plaudit, tmp_path, store):
    """A missing file, a wrong line, and a raw log that the store itself refuses."""
    where = () if store is None else ("--store", store)
    (tmp_path / "wrong.jsonl").write_text('{"prompt": "p", "chosen": "", "rejected": "r"}\n')
    assert plaudit("import", "votes.jsonl", "--store", "full.sqlite", *COLUMNS)[0] == 0
    assert plaudit("export", "log.jsonl", "--store", "full.sqlite", "--form", "votes")[0] == 0
    log = (tmp_path / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(log + log.replace("Goodbye!", "Another"))
    before = sorted(tmp_path.iterdir())
    for file in ("missing.jsonl", "wrong.jsonl", "log.jsonl"):
        code, _, err = plaudit("import", file, *where)
        assert (code, err.count("\n")) == (2, 1)
        assert sorted(tmp_path.iterdir()) == before


def test_an_import_that_is_refused_leaves_a_store_that_was_there(plaudit, tmp_path):
    plaudit("import", "votes.jsonl", *COLUMNS)
    before = (tmp_path / "feedback.sqlite").read_bytes()
    assert plaudit("import", "missing.jsonl")[0] == 2
    assert (tmp_path / "feedback.sqlite").read_bytes() == before
