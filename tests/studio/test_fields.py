"""Attacks from inside: an annotator who looks where they must not, or speaks for somebody else."""

from __future__ import annotations

import logging

import pytest

from plaudit.feedback.store import FeedbackStore
from studio.conftest import SECRET, pairs
from studio.serving import running


def vote(offer: str, key: str = "a" * 32, **more):
    value = {"preference": "first"}
    return {"key": key, "offer": offer, "kind": "comparison", "value": value} | more


@pytest.fixture
def up(tmp_path):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.add_items(pairs(12))
        with running(store) as up:
            yield up


def test_an_offer_holds_nothing_that_decides_or_tells(up):
    with up.entered("ann") as client:
        said = client.post("/api/v1/offers", json={"n": 5})
        assert SECRET not in said.text
        for offer in said.json()["offers"]:
            assert offer.keys() == {"key", "ask", "prompt", "segments", "expires"}
            for segment in offer["segments"]:
                assert segment.keys() == {"text", "media"}
        me = client.get("/api/v1/me")
        assert SECRET not in me.text
        assert me.json()["settings"].keys() == {"strength", "prefetch", "guidelines"}


def test_an_offer_of_somebody_else_cannot_be_voted_on_or_given_back(up):
    with up.entered("ann") as ann, up.entered("mallory") as mallory:
        offer = ann.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]["key"]
        said = mallory.post("/api/v1/votes", json={"votes": [vote(offer)]}).json()["results"][0]
        assert said["status"] == "refused"
        mallory.post(f"/api/v1/offers/{offer}/release", json={})
        held = ann.post("/api/v1/offers", json={"n": 1}).json()["offers"]
        assert [one["key"] for one in held] == [offer]
        kept = ann.post("/api/v1/votes", json={"votes": [vote(offer)]}).json()["results"][0]
        assert kept["status"] == "kept"


def test_the_key_of_somebody_elses_vote_takes_nothing_back_and_replaces_nothing(up):
    with up.entered("ann") as ann, up.entered("mallory") as mallory:
        offer = ann.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]["key"]
        ann.post("/api/v1/votes", json={"votes": [vote(offer)]})
        own = mallory.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]["key"]
        undo = {"key": "b" * 32, "offer": own, "kind": "undo", "value": {"vote": "a" * 32}}
        said = mallory.post("/api/v1/votes", json={"votes": [undo]}).json()["results"][0]
        assert said["status"] == "refused"
        said = mallory.post("/api/v1/votes", json={"votes": [vote(own)]}).json()["results"][0]
        assert said["status"] == "refused", "a key that is taken"
        assert mallory.post("/api/v1/undo", json={}).json()["undone"] is None
    standing = up.store.votes()
    assert [(v.rater, v.key) for v in standing] == [("ann", "a" * 32)]


def test_the_rater_is_who_is_signed_in_whatever_the_body_says(up):
    with up.entered("mallory") as client:
        offer = client.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]["key"]
        for extra in ({"rater": "ann"}, {"annotator": "ann"}, {"item_key": "x"}, {"time": 1.0}):
            said = client.post("/api/v1/votes", json={"votes": [vote(offer, **extra)]}).json()
            assert said["results"][0]["status"] == "refused"
        client.post("/api/v1/votes", json={"votes": [vote(offer)]})
    assert [v.rater for v in up.store.votes()] == ["mallory"]


@pytest.mark.parametrize("offer", ["0" * 32, "item-3", "1", "../1", "-1"])
def test_what_was_never_offered_cannot_be_voted_on(up, offer):
    with up.entered("ann") as client:
        said = client.post("/api/v1/votes", json={"votes": [vote(offer)]}).json()["results"][0]
    assert said["status"] == "refused"
    assert "offer" in said["detail"]
    assert up.store.votes() == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("comparison", {"preference": "a"}),
        ("comparison", {"preference": "first", "strength": 0}),
        ("comparison", {"preference": "tie", "strength": 3}),
        ("comparison", {"preference": "first", "a": 0, "b": 1}),
        ("score", {"segment": 2, "score": 0.5}),
        ("score", {"segment": 0, "score": 1.01}),
        ("ranking", {"ranking": [[0], [0]]}),
        ("ranking", {"ranking": [[0], [7]]}),
        ("ranking", {"ranking": [[], [0]]}),
        ("words", {"segment": 0, "text": " "}),
        ("edit", {"segment": 9, "text": "x"}),
        ("undo", {"vote": "f" * 32}),
    ],
)
def test_a_value_that_its_kind_cannot_have_is_refused_in_a_sentence(up, kind, value):
    with up.entered("ann") as client:
        offer = client.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]["key"]
        sent = {"key": "c" * 32, "offer": offer, "kind": kind, "value": value}
        said = client.post("/api/v1/votes", json={"votes": [sent]}).json()["results"][0]
    assert said["status"] == "refused"
    assert len(said["detail"]) > 10
    assert up.store.votes() == []


@pytest.mark.parametrize("preference", ["first", "second", "tie", "both_bad"])
def test_a_preference_is_kept_for_the_answer_it_was_said_of(up, preference):
    with up.entered("ann") as client:
        for n, offer in enumerate(client.post("/api/v1/offers", json={"n": 6}).json()["offers"]):
            sent = vote(offer["key"], f"{n:032x}", value={"preference": preference})
            assert client.post("/api/v1/votes", json={"votes": [sent]}).json()["results"][0][
                "status"
            ] in ("kept", "surplus")
            kept = up.store.votes()[-1]
            item = next(i for i in up.store.items() if i.key == kept.item_key)
            shown = [s["text"]["plain"] for s in offer["segments"]]
            assert [item.segments[p].text for p in kept.shown] == shown
            said = kept.value["preference"]
            if preference in ("tie", "both_bad"):
                assert said == preference
            else:
                chosen = item.segments[kept.value[said]].text
                assert chosen == shown[0 if preference == "first" else 1]


def test_who_only_looks_on_writes_nothing_and_who_works_administers_nothing(up):
    writes = [("post", "offers", {"n": 1}), ("post", "votes", {"votes": [vote("x")]}),
              ("post", "undo", {})]  # fmt: skip
    acts = [("post", "people", {"name": "x"}), ("post", "people/ann/pause", {"paused": True}),
            ("post", "people/ann/token", {}), ("post", "people/ann/erase", {}),
            ("post", "invitations", {"name": "y", "role": "admin"}), ("put", "settings", {})]  # fmt: skip
    reads = ["people", "items", "settings"]
    with up.entered("ann") as ann, up.entered("vera", "viewer") as viewer:
        for method, path, body in [*writes, *acts]:
            assert viewer.request(method, f"/api/v1/{path}", json=body).status_code == 403, path
        for method, path, body in acts:
            assert ann.request(method, f"/api/v1/{path}", json=body).status_code == 403, path
        for path in reads:
            assert ann.get(f"/api/v1/{path}").status_code == 403, path
            assert viewer.get(f"/api/v1/{path}").status_code == 200, path
        for client in (ann, viewer):
            said = client.post("/api/v1/imports", content=b"x",
                               headers={"Content-Type": "application/octet-stream"})  # fmt: skip
            assert said.status_code == 403
    assert {one.name for one in up.store.people.annotators()} == {"ann", "vera"}


def test_nobody_is_nobody_everywhere(up):
    with up.client() as client:
        paths = client.get("/api/v1/openapi.json").json()["paths"]
        for path, methods in paths.items():
            for method in methods:
                if path == "/api/v1/join":
                    continue
                kind = "octet-stream" if path.endswith("imports") else "json"
                said = client.request(method, path.replace("{", "").replace("}", ""), content=b"{}",
                                      headers={"Content-Type": f"application/{kind}"})  # fmt: skip
                assert said.status_code == 401, (method, path)


def test_no_log_and_no_error_holds_a_token(up, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    invitation = up.store.people.invite("logged")
    with up.client() as client:
        client.post("/api/v1/join", json={"token": invitation})
        session = client.cookies[up.studio.serving.cookie]
        client.get("/api/v1/me")
        client.get("/api/v1/nothing")
        wrong = client.post("/api/v1/join", json={"token": invitation})
    bearer = up.bearer("logged")
    with up.client(Authorization=f"Bearer {bearer}") as client:
        client.get("/api/v1/me")
        client.post("/api/v1/votes", json={"votes": [{"key": 1}]})
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("httpcore")]
    said = "".join([*ours, *capfd.readouterr(), wrong.text])
    for token in (invitation, session, bearer):
        assert token not in said
