"""Attacks with what is sent: too much, too slowly, too deep, no numbers, no text, bits of SQL."""

from __future__ import annotations

import json
import socket
import time

import pytest

from plaudit.feedback.store import FeedbackStore
from plaudit.studio.bodies import DEEPEST, Patience, check_depth
from plaudit.studio.problems import Refused
from studio.conftest import pairs
from studio.serving import running

JSON = {"Content-Type": "application/json"}


def raw(up, head: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back on a plain socket."""
    with socket.create_connection(("127.0.0.1", up.studio.serving.port), timeout=20) as line:
        line.sendall(head.encode())
        for part in parts:
            time.sleep(pause)
            try:
                line.sendall(part)
            except OSError:
                break
        answer = b""
        try:
            while part := line.recv(65536):
                answer += part
        except OSError:
            pass
        return answer


def head_of(up, token: str, *fields: str, path: str = "votes") -> str:
    lines = [
        f"POST /api/v1/{path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        *(fields or ("Content-Type: application/json",)),
    ]
    return "\r\n".join(lines) + "\r\n\r\n"


def test_a_hundred_megabytes_are_refused_before_they_are_read(studio):
    token = studio.bearer("big")
    said = raw(studio, head_of(studio, token, *[f"{k}: {v}" for k, v in JSON.items()],
                               "Content-Length: 100000000"))  # fmt: skip
    assert b" 413 " in said
    part = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    chunked = head_of(studio, token, "Content-Type: application/json", "Transfer-Encoding: chunked")
    assert b" 413 " in raw(studio, chunked, *[part] * 40)


def test_a_slow_body_is_given_up(tmp_path):
    with (
        FeedbackStore(tmp_path / "f.sqlite") as store,
        running(store, patience=Patience(whole=0.3, silent=0.3)) as up,
    ):
        token = up.bearer("slow", "admin")
        fields = ("Content-Type: application/json", "Content-Length: 100")
        said = raw(up, head_of(up, token, *fields), *[b"x"] * 8, pause=0.1)
        assert b" 408 " in said
        fields = ("Content-Type: application/octet-stream", "Content-Length: 100")
        said = raw(up, head_of(up, token, *fields, path="imports"), b"{")
        assert b" 408 " in said
        with up.entered("other") as client:
            assert client.get("/api/v1/me").status_code == 200


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"votes":' + b"[" * 99_999])
def test_json_nested_a_hundred_thousand_deep_is_refused(studio, body):
    with studio.entered("deep") as client:
        said = client.post("/api/v1/votes", content=body, headers=JSON)
    assert said.status_code == 400
    assert str(DEEPEST) in said.json()["detail"]


def test_brackets_in_texts_are_not_depth():
    check_depth(json.dumps({"text": "[" * 1000 + '\\"' + "{" * 1000}).encode())
    with pytest.raises(Refused):
        check_depth(b'"' + b'\\"' + b'"' + b"[" * (DEEPEST + 1))


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "-1", "1" * 5000, '"1"']
)
@pytest.mark.parametrize("field", ["seconds", "score"])
def test_what_is_no_number_is_refused_and_the_vote_beside_it_kept(tmp_path, field, number):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.add_item("one", "q", ["answer"])
        store.add_item("two", "q", ["answer"])
        with running(store) as up, up.entered("nan") as client:
            one, two = client.post("/api/v1/offers", json={"n": 2}).json()["offers"]
            bad, good = (
                {"key": key, "offer": offer["key"], "kind": "score", "seconds": 1.0,
                 "value": {"segment": 0, "score": 0.5}}
                for key, offer in (("a" * 32, one), ("b" * 32, two))
            )  # fmt: skip
            place = bad if field == "seconds" else bad["value"]
            place[field] = "HERE"
            body = json.dumps({"votes": [bad, good]}).replace('"HERE"', number)
            said = client.post("/api/v1/votes", content=body, headers=JSON)
            if said.status_code == 400:  # Python reads no number of 5,000 digits
                assert number == "1" * 5000
                return
            first, second = said.json()["results"]
            assert (first["status"], second["status"]) == ("refused", "kept")
            assert field in first["detail"] or "score" in first["detail"]
            assert "NaN" not in said.text


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"x"', b"{}", b"{", b"\xff\xfe", b'{"votes":[]}', b'{"votes":{}}',
     b'{"votes":[1]}', b'{"votes":null}', json.dumps({"votes": [{}] * 101}).encode()],
)  # fmt: skip
def test_what_is_no_batch_of_votes_is_said_to_be_none(studio, body):
    with studio.entered("odd") as client:
        said = client.post("/api/v1/votes", content=body, headers=JSON)
    assert said.status_code in (400, 422)
    assert said.headers["content-type"] == "application/problem+json"
    assert said.json()["detail"]


NASTY = [
    "'; DROP TABLE votes; --", '" OR ""="', "%' UNION SELECT hash FROM sessions --", "\\", "{{7*7}}",
    "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "a" * 5000, "\u202eevil", "\ud800", "\0",
    "../../etc/passwd", "${jndi:x}", "\u200b", "\r\nSet-Cookie: a=b",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_bits_of_sql_and_of_markup_are_words_and_nothing_else(tmp_path, text):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.add_items(pairs(3))
        with running(store) as up, up.entered("boss", "admin") as client:
            offer = client.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]
            vote = {"key": "a" * 32, "offer": offer["key"], "kind": "flag", "value": {"text": text}}
            for body in (
                {"votes": [vote]},
                {"votes": [vote | {"offer": text}]},
                {"votes": [vote | {"key": text}]},
                {"votes": [vote | {"kind": text}]},
            ):
                said = client.post("/api/v1/votes", content=json.dumps(body), headers=JSON)
                assert said.status_code == 200, said.text
            for path, body in (
                ("people", {"name": text}),
                ("invitations", {"name": text}),
                ("join", {"token": text}),
                (f"offers/{offer['key']}/release", {"why": text}),
            ):
                said = client.post(f"/api/v1/{path}", content=json.dumps(body), headers=JSON)
                assert said.status_code < 500, said.text
                assert "html" not in said.headers.get("content-type", "")
                assert "a=b" not in said.headers.get("set-cookie", "")
            assert client.get("/api/v1/me").status_code == 200
        kept = store.votes()
        assert len(kept) <= 1
        assert all(vote.value == {"text": text} for vote in kept)


def test_a_line_of_a_megabyte_and_marks_that_turn_text_come_through_as_they_are(tmp_path):
    prompt = "x" * 1_000_000
    answers = ["\u202ereversed\u202c \u200b\ufeff", "<img src=x onerror=alert(1)>"]
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.add_item("long", prompt, answers)
        with running(store) as up, up.entered("reader") as client:
            said = client.post("/api/v1/offers", json={"n": 1})
    offer = said.json()["offers"][0]
    assert said.headers["content-type"] == "application/json"
    assert offer["prompt"]["plain"] == prompt
    assert sorted(s["text"]["plain"] for s in offer["segments"]) == sorted(answers)
    kinds = {node["t"] for s in offer["segments"] for node in s["text"]["tokens"]}
    assert kinds == {"p"}
