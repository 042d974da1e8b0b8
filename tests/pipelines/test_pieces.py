"""Samples that a page can show: pieces of text whose joint is the answer, each with its distance."""

from __future__ import annotations

import pytest

from plaudit.pipelines.pieces import pieces_of
from plaudit.records.files import read_jsonl
from tiny_job import FLAGS, REWARD, run_command, tiny_job
from tiny_models import FAMILIES, tiny_tokenizer

TEXTS = ("The cart keeps its pole upright.", "  two spaces", "你好，世界 😀!", "a\n\nb", "é")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(family, text):
    tokenizer = tiny_tokenizer(family=family)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = pieces_of(ids, tokenizer)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids)


def test_a_run_keeps_what_each_token_is_away_from_the_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_job(tmp_path / "job"))
    done = run_command("run", "rlhf", *FLAGS, *REWARD, "--name", "one")
    assert done.code == 0, done.err
    rows = [r for r in read_jsonl(tmp_path / "job/runs/one/samples.jsonl") if r["stage"] == "ppo"]
    assert len(rows) == 3 * 4
    for row in rows:
        assert "tokens" not in row
        assert len(row["pieces"]) == len(row["token_kl"]) > 0
        assert "".join(row["pieces"]).startswith(row["completion"])
        assert sum(row["token_kl"]) == pytest.approx(row["kl"], abs=1e-3)
    assert max(abs(row["kl"]) for row in rows if row["step"] == 1) < 1e-4
    assert any(row["kl"] for row in rows if row["step"] == 3)
