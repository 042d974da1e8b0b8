"""Files in and out by the API: the same rows as by the command, sent while they are made."""

from __future__ import annotations

import json

import pytest

from plaudit.feedback.exchange import export_rows
from plaudit.feedback.store import FeedbackStore
from studio.serving import running

PAIRS = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(40)]


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with FeedbackStore(tmp_path_factory.mktemp("studio") / "feedback.sqlite") as store, running(store) as up:  # fmt: skip
        yield up


def send(client, rows, **query):
    data = "".join(json.dumps(row) + "\n" for row in rows)
    kind = {"Content-Type": "application/octet-stream"}
    return client.post("/api/v1/imports", params=query, content=data, headers=kind)


def test_a_file_in_and_out_again(up):
    with up.entered("boss", role="admin") as admin:
        said = send(admin, PAIRS, rater="ann").json()
        assert (said["rows"], said["items"], said["votes"]) == (40, 40, 40)
        assert said["notes"] == ["the file.jsonl is read as comparisons (prompt, chosen, rejected)"]
        for form in ("votes", "preference", "pairs", "arena", "label-studio"):
            got = admin.get(f"/api/v1/exports/{form}.jsonl")
            assert got.headers["content-type"].startswith("application/x-ndjson")
            assert got.headers["content-disposition"] == f'attachment; filename="{form}.jsonl"'
            name = "preference" if form == "pairs" else form
            assert [json.loads(line) for line in got.text.splitlines()] == json.loads(
                json.dumps(list(export_rows(up.store, name)))
            )
        nobody = admin.get("/api/v1/exports/preference.jsonl", params={"rater": "nobody"})
        assert (nobody.status_code, nobody.text) == (200, "")


def test_what_is_wrong_names_the_file_as_the_user_knows_it(up):
    with up.entered("chief", role="admin") as admin:
        wrong = send(admin, [{"prompt": "q"}], form="arena")
        assert wrong.status_code in (400, 422)
        assert wrong.json()["detail"].startswith("the file.jsonl, line 1 is not Chatbot Arena's")
        assert "/tmp" not in wrong.text


def test_exports_are_for_admins_and_viewers_and_only_of_forms_that_there_are(up):
    with up.entered("worker") as annotator:
        assert annotator.get("/api/v1/exports/votes.jsonl").status_code == 403
    with up.entered("looker", role="viewer") as viewer:
        assert viewer.get("/api/v1/exports/votes.jsonl").status_code == 200
        for form in ("nothing", "..%2f..%2fetc%2fpasswd", "votes%00"):
            assert viewer.get(f"/api/v1/exports/{form}.jsonl").status_code in (404, 422)
    with up.client() as nobody:
        assert nobody.get("/api/v1/exports/votes.jsonl").status_code == 401
