"""A saved reward model judges as the one that saved it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from plaudit.engine.local import LocalActor, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.models.formats.load import load_language_model
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.rewards import model_judge
from plaudit.rewards.judges import ModelJudge, ScoredReward, load_judge
from tiny_models import tiny_llama


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy's answers of several lengths, a reward model of some weights, and its folder."""
    folder = tmp_path_factory.mktemp("judge")
    lm = load_language_model(tiny_llama(folder / "tiny", seed=3))
    backbone = SharedBackbone(lm, num_top_layers=1)
    model = LocalRewardModel(backbone)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    model.save(folder / "judges" / "warm")
    prompts = [lm.codec.prompt(text) for text in ("Hi", "Write one sentence about a river.")]
    sampling = Sampling(max_new_tokens=9)
    batch = LocalActor(backbone).generate(prompts, num_answers=6, sampling=sampling, seed=1)
    return lm, model, folder / "judges" / "warm", batch


def cut(batch, ends):
    """Each row with its last chosen tokens taken for somebody else's, behind its answer."""
    chosen = batch.chosen.clone()
    for row, end in enumerate(ends):
        chosen[row, end:] = False
    return replace(batch, chosen=chosen)


@pytest.mark.parametrize("most", [1, 60, 8192])
def test_its_scores_are_those_of_the_model_that_saved_it(world, monkeypatch, most):
    """In one pass, in several, and row by row."""
    _, model, folder, batch = world
    monkeypatch.setattr(model_judge, "MOST_TOKENS", most)
    judge = ModelJudge(folder)
    assert (judge.names, judge.weights) == (("warm",), (1.0,))
    for one in (batch, cut(batch, [1 + row % 3 for row in range(len(batch))])):
        scores = judge(one)["warm"]
        assert scores.dtype == torch.float64
        assert scores.std() > 0.01
        torch.testing.assert_close(scores, model.scores(one).double(), rtol=1e-4, atol=1e-5)
        reward = ScoredReward(judge)(one)
        torch.testing.assert_close(reward, model(one), rtol=1e-4, atol=1e-5)


def test_it_stands_among_functions_in_the_order_given(world, tmp_path):
    lm, model, folder, batch = world
    (tmp_path / "mine.py").write_text("def warm(completion):\n    return len(completion)\n")
    judge = load_judge([f"{tmp_path}/mine.py:warm", str(folder), "sentiment"], [1, 2, 0])
    judge.check(["prompt"], "rows.jsonl", lm.codec.tokenizer)
    scores = judge(batch)
    assert list(scores) == list(judge.names) == ["warm", "warm_2", "sentiment"]
    assert scores["warm"].tolist() == [len(text) for text in batch.texts]
    torch.testing.assert_close(scores["warm_2"].float(), model.scores(batch), rtol=1e-4, atol=1e-5)


def test_another_models_tokens_are_refused(world, tmp_path):
    _, _, folder, _ = world
    other = load_language_model(tiny_llama(tmp_path / "other", family="bos"))
    with pytest.raises(UserError, match="reads other tokens than the policy writes"):
        ModelJudge(folder).check_tokenizer(other.codec.tokenizer)
    with pytest.raises(UserError, match="learned from the same model"):
        load_judge([str(folder)]).check([], "rows.jsonl", other.codec.tokenizer)


def test_a_score_that_is_not_finite_does_not_pass_for_an_abstention(world):
    _, _, folder, batch = world
    judge = ModelJudge(folder, name="broken")
    judge._classifier.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="the reward broken scored answer 0 of a batch nan"):
        judge(batch)
