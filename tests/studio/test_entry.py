"""Attacks on the way in: links, cookies, other sites' pages, other names for this address."""

from __future__ import annotations

import time

import pytest

from plaudit.feedback.store import FeedbackStore
from plaudit.studio.limits import Buckets
from plaudit.studio.settings import Serving
from studio.conftest import pairs
from studio.serving import running


def test_a_link_lets_in_once_and_never_again(studio):
    token = studio.store.people.invite("once")
    with studio.client() as first, studio.client() as second:
        assert first.post("/api/v1/join", json={"token": token}).status_code == 200
        again = second.post("/api/v1/join", json={"token": token})
        assert again.status_code == 403
        assert "used already" in again.json()["detail"]
        assert second.get("/api/v1/me").status_code == 401


def test_a_link_that_ran_out_lets_nobody_in(studio):
    token = studio.store.people.invite("late", days=1e-9)
    time.sleep(0.01)
    with studio.client() as client:
        said = client.post("/api/v1/join", json={"token": token})
    assert said.status_code == 403
    assert "expired" in said.json()["detail"]


def test_guessing_links_is_slowed_down_and_entering_is_not(tmp_path):
    with FeedbackStore(tmp_path / "f.sqlite") as store, running(store) as up, up.client() as client:
        for n in range(15):
            good = client.post("/api/v1/join", json={"token": store.people.invite(f"p{n}")})
            assert good.status_code == 200
        codes = [
            client.post("/api/v1/join", json={"token": f"x{n}"}).status_code for n in range(12)
        ]
        assert codes == [403] * 10 + [429] * 2
        refused = client.post("/api/v1/join", json={"token": "x"})
        assert 1 <= int(refused.headers["retry-after"]) <= 7
        late = client.post(
            "/api/v1/join", json={"token": "x"}, headers={"X-Forwarded-For": "10.1.2.3"}
        )
        assert late.status_code == 429, "an address that anybody can claim"


def test_a_cookie_set_before_entering_is_not_the_one_had_afterwards(studio):
    name = studio.studio.serving.cookie
    with studio.client(Cookie=f"{name}=known-to-the-attacker") as client:
        said = client.post("/api/v1/join", json={"token": studio.store.people.invite("fixed")})
    given = said.headers["set-cookie"]
    assert "known-to-the-attacker" not in given
    assert len(given.partition("=")[2].partition(";")[0]) >= 22, "128 bits in base64"
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part.lower() in given.lower()
    with studio.client(Cookie=f"{name}=known-to-the-attacker") as attacker:
        assert attacker.get("/api/v1/me").status_code == 401


def test_entering_as_another_ends_the_session_before(studio):
    with studio.entered("one") as client:
        before = client.cookies[studio.studio.serving.cookie]
        token = studio.store.people.invite("two")
        assert client.post("/api/v1/join", json={"token": token}).json()["name"] == "two"
    with studio.client(Cookie=f"{studio.studio.serving.cookie}={before}") as old:
        assert old.get("/api/v1/me").status_code == 401


def test_who_left_is_out(studio):
    with studio.entered("leaver") as client:
        kept = dict(client.cookies)
        assert client.post("/api/v1/leave").status_code == 204
        client.cookies.update(kept)
        assert client.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Plaudit": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
    ids=lambda h: ":".join(*h.items()) if h else "",
)
@pytest.mark.parametrize("path", ["offers", "join", "leave", "undo"])
def test_a_page_of_another_site_can_do_nothing(studio, path, headers):
    with studio.entered("victim") as client:
        kind = {"Content-Type": "application/json"}
        body = {"offers": b'{"n":1}', "undo": b"{}", "leave": b"{}", "join": b'{"token":"x"}'}[path]
        said = client.post(f"/api/v1/{path}", content=body, headers=kind | headers)
        assert said.status_code in (403, 415)
        assert client.get("/api/v1/me").status_code == 200
        assert studio.store.offers.mine("victim") == []


def test_no_other_site_is_told_that_it_may_read(studio):
    with studio.entered("victim") as client:
        said = client.request(
            "OPTIONS", "/api/v1/me",
            headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"},
        )  # fmt: skip
        read = client.get("/api/v1/me", headers={"Origin": "http://evil.example"})
    for answer in (said, read):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example",
     "localhost@evil.example", "", "[", "0x7f.1", "2130706433"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/join", "/api/v1/me", "/static/css/studio.css"])
def test_a_name_that_was_led_here_is_not_answered(studio, path, host):
    """DNS rebinding: the browser believes that evil.example is this address."""
    with studio.entered("victim") as client:
        said = client.get(path, headers={"Host": host, "Origin": f"http://{host}"})
    assert said.status_code == 421
    assert "victim" not in said.text


def test_which_names_lead_to_a_studio():
    local, public = Serving(), Serving(public="https://studio.example.org")
    everywhere = Serving(host="0.0.0.0")
    assert all(local.answers_to(h) for h in ("localhost:8080", "127.0.0.1:9", "[::1]:8080"))
    assert not any(local.answers_to(h) for h in ("192.168.1.5:8080", "studio.example.org", "a:b:c"))
    assert public.answers_to("studio.example.org")
    assert not public.answers_to("studio.example.org.evil.example")
    assert everywhere.answers_to("192.168.1.5:8080")
    assert not everywhere.answers_to("evil.example")


def test_behind_tls_the_cookie_is_for_this_host_alone(tmp_path):
    with (
        FeedbackStore(tmp_path / "f.sqlite") as store,
        running(store, public="https://studio.example.org") as up,
        up.client(Host="studio.example.org", Origin="https://studio.example.org") as client,
    ):
        said = client.post("/api/v1/join", json={"token": store.people.invite("tls")})
    given = said.headers["set-cookie"]
    assert given.startswith("__Host-plaudit=")
    assert "; Secure" in given
    assert "domain" not in given.lower()


def test_every_answer_carries_what_keeps_pages_apart(studio):
    with studio.entered("looker") as client:
        for path in ("/", "/join", "/nothing", "/api/v1/me", "/api/v1/nothing", "/static/nothing"):
            headers = client.get(path).headers
            csp = headers["content-security-policy"]
            assert "unsafe" not in csp
            assert "default-src 'none'" in csp
            assert "require-trusted-types-for 'script'" in csp
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            if path.startswith("/api"):
                assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd",
     "/static/%00", "/static/js/%2e%2e/%2e%2e/app.py", "/static/..\\app.py"],
)  # fmt: skip
def test_no_path_leads_out_of_the_pages_folder(studio, path):
    import socket

    with socket.create_connection(("127.0.0.1", studio.studio.serving.port)) as line:
        line.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := line.recv(65536):
            answer += part
    assert answer.split(b" ", 2)[1] in (b"404", b"400")
    assert b"create_app" not in answer
    assert b"root:" not in answer


def test_a_paused_person_gets_no_work_at_once(tmp_path):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.add_items(pairs(5))
        with running(store) as up, up.entered("boss", "admin") as boss, up.entered("ann") as ann:
            offer = ann.post("/api/v1/offers", json={"n": 1}).json()["offers"][0]
            assert boss.post("/api/v1/people/ann/pause", json={"paused": True}).status_code == 200
            said = ann.post("/api/v1/offers", json={"n": 1})
            assert said.status_code == 403
            assert "paused" in said.json()["detail"]
            vote = {"key": "ab" * 16, "offer": offer["key"], "kind": "skip", "value": {}}
            kept = ann.post("/api/v1/votes", json={"votes": [vote]}).json()["results"][0]
            assert kept["status"] in ("kept", "surplus"), "what was already said is never lost"


def test_buckets_fill_again():
    now = [0.0]
    buckets = Buckets(5, 10, clock=lambda: now[0])
    assert buckets.take("a", 10) == 0
    assert buckets.take("a", 1) == pytest.approx(0.2)
    assert buckets.take("b", 1) == 0
    now[0] = 1.0
    assert buckets.take("a", 5) == 0
    assert buckets.take("a", 1) == pytest.approx(0.2)
