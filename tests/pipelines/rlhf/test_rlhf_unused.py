"""What is given is used, or it is said that it is not: files of comparisons, keys of other sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.pipelines.rlhf.config import FeedbackConfig, RLHFConfig
from plaudit.pipelines.rlhf.inputs import source_of
from plaudit.pipelines.rlhf.refusals import said_of_unused
from tiny_job import FLAGS, REWARD, run_command, tiny_job

FILE = ("--feedback.file", "pairs.jsonl")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_job(tmp_path_factory.mktemp("unused"))


@pytest.fixture
def folder(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def check(*words):
    return run_command("run", "rlhf", *FLAGS, *words, "--check")


@pytest.mark.parametrize("beside", [(), tuple(REWARD)])
def test_a_file_of_comparisons_is_learned_from_without_naming_the_source(folder, beside):
    said = check(*FILE, *beside)
    assert said.code == 0, said.err
    assert "36 comparisons of pairs.jsonl" in said.out


@pytest.mark.parametrize("beside", [(), tuple(REWARD)])
def test_a_file_of_comparisons_that_is_missing_is_refused_without_naming_the_source(folder, beside):
    said = check("--feedback.file", "pair.jsonl", *beside)
    assert said.code == 2
    assert "did you mean 'pairs.jsonl'" in said.err


@pytest.mark.parametrize("source", ["annotators", "reward", "people"])
def test_a_file_beside_another_source_is_refused(folder, source):
    for words in ((*FILE, *REWARD), ("--feedback.file", "missing.jsonl", *REWARD)):
        said = check("--feedback.source", source, *words)
        assert said.code == 2
        assert said.err == (
            f"plaudit: feedback.source is {source}, so the comparisons of feedback.file, "
            f"{words[1]}, would not be used: leave out one of the two\n"
        )


def test_the_source_that_is_left_open_is_what_was_given():
    for given, source in (
        ({}, "annotators"),
        ({"reward": "r.py:f"}, "reward"),
        ({"feedback": FeedbackConfig(file="a.jsonl")}, "file"),
        ({"reward": "r.py:f", "feedback": FeedbackConfig(file="a.jsonl")}, "file"),
        ({"feedback": FeedbackConfig(source="people")}, "people"),
    ):
        assert source_of(RLHFConfig(**given)) == source


def test_keys_that_nothing_uses_are_named():
    def unused(source, **keys):
        return [line.split()[1] for line in said_of_unused(RLHFConfig(**keys), source)]

    votes = FeedbackConfig(votes_per_pair=3, pairs_per_prompt=8)
    assert unused("annotators", feedback=votes) == []
    assert unused("reward", feedback=votes) == ["feedback.votes_per_pair"]
    assert unused("file", feedback=votes) == [
        "feedback.pairs_per_prompt",
        "feedback.votes_per_pair",
    ]
    assert unused("annotators", sft={"lr": 1e-3}) == ["sft.lr"]
    assert unused("annotators", sft={"lr": 1e-3}, demonstrations="wanted.jsonl") == []
    assert unused("annotators", ppo={"kl_horizon": 5}) == []
    assert unused("annotators", ppo={"kl_horizon": 5, "kl_target": None}) == ["ppo.kl_horizon"]
    for source in ("annotators", "reward", "file", "people"):
        assert unused(source) == []


def test_a_key_that_nothing_uses_is_named_to_who_runs_the_job(folder):
    said = check(*REWARD, "--feedback.num_annotators", "5")
    note = "feedback.num_annotators is not used, as comparisons come from feedback.source=reward"
    assert f"Note: {note}\n" in said.out
    assert not Path("runs").exists()
