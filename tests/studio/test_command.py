"""`plaudit studio` as a user has it: a process of its own, its lines, its end, what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2
import pytest

from plaudit.cli.main import main
from plaudit.feedback.store import FeedbackStore

LINK = re.compile(r"(http://[^/\s]+)/join#(\S+)")


@contextmanager
def studio(folder, *words):
    """The command in a folder, with what it says; ended if it has not ended."""
    command = [sys.executable, "-m", "plaudit.cli.main", "studio", "--port", "0", *words]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_link_of(process, name: str) -> tuple[list[str], str, str]:
    """(lines so far, address, token) once the link of `name` was printed."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        found = LINK.search(line)
        if found and name in line:
            return lines, found[1], found[2]
    raise AssertionError("".join(lines))


@contextmanager
def enter(address: str, token: str):
    headers = {"Origin": address, "X-Plaudit": "1"}
    with httpx2.Client(base_url=address, headers=headers, trust_env=False) as client:
        said = client.post("/api/v1/join", json={"token": token})
        assert said.status_code == 200, said.text
        yield client


def test_from_a_file_of_pairs_to_the_first_vote_and_a_clean_end(tmp_path):
    rows = [{"prompt": f"q{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with studio(tmp_path, "--import", "pairs.jsonl", "--invite", "ann", "ben") as process:
        lines, address, token = until_link_of(process, "open as admin")
        said = "".join(lines)
        assert "feedback.sqlite: 3 items" in said
        assert LINK.search(next(line for line in lines if "for ann" in line))
        with enter(address, token) as client:
            assert client.get("/api/v1/me").json()["role"] == "admin"
            offer = client.post("/api/v1/offers", json={"n": 1}).json()
        assert offer["open"] is (len(offer["offers"]) > 0)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 0
        assert (
            rest == "The studio is closed; every vote that was confirmed is in feedback.sqlite.\n"
        )


def test_it_ends_at_once_though_a_request_is_under_way(tmp_path):
    with studio(tmp_path) as process:
        _, address, token = until_link_of(process, "admin")
        port = int(address.rpartition(":")[2])
        with enter(address, token), socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /api/v1/votes HTTP/1.1\r\nHost: localhost\r\n")
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_nothing_that_it_prints_holds_a_token_but_the_links(tmp_path):
    with studio(tmp_path, "--invite", "ann") as process:
        lines, address, token = until_link_of(process, "admin")
        with enter(address, token) as client:
            session = next(iter(client.cookies.values()))
            bearer = client.post("/api/v1/people/ann/token").json()["token"]
            client.post("/api/v1/join", json={"token": token})
            client.get("/api/v1/nothing", headers={"Authorization": f"Bearer {bearer}"})
            client.post("/api/v1/votes", content=b"{", headers={"Content-Type": "text/plain"})
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        for secret in (session, bearer, token):
            assert secret not in rest
        assert "".join(lines).count(token) == 1
        digests = (tmp_path / "feedback.sqlite").read_bytes()
        for secret in (session, bearer, token):
            assert secret.encode() not in digests


def test_the_first_pages_need_no_torch(tmp_path):
    code = """
import sys
from plaudit.cli.main import main
from plaudit.feedback.store import FeedbackStore
from studio.serving import running
with FeedbackStore("f.sqlite") as store, running(store) as up, up.entered("ann", "admin") as client:
    assert client.get("/").status_code == 200
    assert client.post("/api/v1/offers", json={"n": 1}).status_code == 200
    heavy = {"torch", "transformers", "numpy", "scipy", "numba", "pyarrow", "matplotlib", "gymnasium"}
    print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}" + code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def refused(*words) -> str:
        assert main(["studio", *words]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} is taken" in refused("--port", port)
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    assert "not an SQLite database" in refused("--port", "0", "--store", "notes.txt")
    assert "does not exist" in refused("--port", "0", "--store", "no/where.sqlite")
    assert "--insecure-http" in refused("--port", "0", "--host", "0.0.0.0")
    said = refused("--port", "0", "--host", "0.0.0.0", "--insecure-http")
    assert "nobody has an account yet" in said
    assert "expected an address" in refused("--public", "studio.example.org")
    assert "no address of this machine" in refused("--host", "no such host", "--insecure-http")
    assert "expected 0" in refused("--port", "70000")
    assert "absent.jsonl" in refused("--port", "0", "--import", "absent.jsonl")


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "markdown_it"])
def test_without_its_packages_it_says_how_to_get_them(tmp_path, missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from plaudit.cli.main import main
sys.exit(main(["studio", "--port", "0"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'plaudit[studio]'" in done.stderr
    assert missing in done.stderr


def test_the_store_of_the_last_run_is_taken(tmp_path):
    for name, when in (("old", 1), ("new", 2)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("pipeline: rlhf\n")
        with FeedbackStore(folder / "feedback.sqlite") as store:
            store.add_item(f"{name} item", "q", ["a", "b"])
        os.utime(folder / "config.yaml", (when, when))
    with studio(tmp_path) as process:
        lines, _, _ = until_link_of(process, "admin")
        assert "runs/new/feedback.sqlite: 1 item" in "".join(lines)
