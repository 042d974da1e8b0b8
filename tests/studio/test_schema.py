"""Requests made from the OpenAPI by schemathesis, against a real server: whatever is sent, the answer
is one that the schema names, never a fault of ours, and nobody is let in without a token."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from plaudit.feedback.store import FeedbackStore
from studio.conftest import pairs
from studio.serving import running

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method"
)


def searched(tmp_path, role: str, examples: int, phases: str) -> None:
    """Fails with what schemathesis says, if it finds anything."""
    if find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed")
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.add_items(pairs(500))
        with running(store) as up:
            up.studio.rates.votes.rate = up.studio.rates.offers.rate = 1e6
            up.studio.rates.joins.rate = 1e6
            up.studio.jobs.room = 0  # a job that is asked for is refused, not started
            token = up.bearer("schema", role)
            store.people.add("somebody")
            command = [
                sys.executable, "-m", "schemathesis.cli", "run",
                f"{up.address}/api/v1/openapi.json", "-H", f"Authorization: Bearer {token}",
                "--checks", CHECKS, "--phases", phases, "--max-examples", str(examples), "--seed", "1",
                "--exclude-path", "/api/v1/leave", "--no-color", "--generation-database", "none",
                "--suppress-health-check", "all", "--continue-on-failure",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
            with up.client(Authorization=f"Bearer {token}") as client:
                assert client.get("/api/v1/me").status_code == 200, "it stayed signed in throughout"


@pytest.mark.parametrize("role", ["admin", "annotator"])
def test_no_request_of_a_few_finds_a_fault(tmp_path, role):
    searched(tmp_path, role, 3, "fuzzing,stateful")


@pytest.mark.nightly
@pytest.mark.parametrize("role", ["admin", "annotator", "viewer"])
def test_no_request_of_many_finds_a_fault(tmp_path, role):
    searched(tmp_path, role, 100, "coverage,fuzzing,stateful")
