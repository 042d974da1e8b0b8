"""Trunk states are their trunk's own: found by what was read, and by nobody else."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from plaudit.engine.local import ROLLOUT, LocalActor, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.models.answers import given_answers
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.records.sampling import Sampling
from tiny_models import tiny_llama

PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("models")
    return [tiny_llama(place / str(seed), layers=4, seed=seed) for seed in (0, 1)]


def backbone_of(folder, top: int = 2) -> SharedBackbone:
    lm = load_language_model(folder, dtype=torch.float64)
    return SharedBackbone(lm, num_top_layers=top)


def drawn(backbone: SharedBackbone):
    prompts = [backbone.lm.codec.prompt(text) for text in PROMPTS]
    sampling = Sampling(max_new_tokens=8)
    return LocalActor(backbone).generate(prompts, num_answers=3, sampling=sampling, seed=0)


def score_of(backbone: SharedBackbone) -> LocalRewardModel:
    model = LocalRewardModel(backbone)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        weight = torch.randn(model.head.weight.shape, generator=generator, dtype=torch.float64)
        model.head.weight.copy_(weight)
    return model


def plain_scores(lm: LanguageModel, batch, weight: torch.Tensor) -> torch.Tensor:
    """w · last hidden state of each conversation alone, by transformers."""
    scores = []
    for row in range(len(batch)):
        ids = batch.token[row][batch.there[row]].tolist()
        whole = torch.tensor([[*batch.prompts[int(batch.group[row])].ids, *ids]])
        with torch.no_grad():
            scores.append(lm.model.base_model(whole).last_hidden_state[0, -1] @ weight[0])
    return torch.stack(scores)


@pytest.mark.parametrize("top", [1, 2, 3])
@pytest.mark.parametrize("other", [0, 1])
def test_another_trunk_of_equal_width_never_reads_them(folders, other, top) -> None:
    """A reward model on another backbone, or on the same model cut elsewhere."""
    batch = drawn(backbone_of(folders[0], top=2))
    judge = backbone_of(folders[other], top=top)
    model = score_of(judge)
    wanted = plain_scores(judge.lm, batch, model.head.weight.detach())
    torch.testing.assert_close(model.scores(batch), wanted, rtol=1e-7, atol=1e-7)


def test_states_are_found_in_any_selection_order_and_padding(folders) -> None:
    backbone = backbone_of(folders[0])
    batch = drawn(backbone)
    part = batch.select([7, 2, 2, 0])
    pad = torch.nn.functional.pad
    wide = replace(
        part,
        token=pad(part.token, (0, 3)),
        there=pad(part.there, (0, 3)),
        chosen=pad(part.chosen, (0, 3)),
        logp=pad(part.logp, (0, 3)),
    )
    for some in (batch, part, wide):
        for layout in backbone.layouts(some):
            kept = backbone.states.find(layout, some)
            assert kept is not None
            assert backbone.trunk is not None
            real = layout.segment >= 0
            fresh = backbone.trunk(layout.token, layout)
            torch.testing.assert_close(kept[real], fresh[real], rtol=0, atol=1e-10)


def test_one_unknown_answer_means_a_fresh_pass(folders) -> None:
    backbone = backbone_of(folders[0])
    batch = drawn(backbone)
    token = batch.token.clone()
    token[0, 0] = (token[0, 0] + 1) % 250
    changed = replace(batch, token=token)
    [layout] = backbone.layouts(changed)
    assert backbone.states.find(layout, changed) is None
    model = score_of(backbone)
    wanted = plain_scores(backbone.lm, changed, model.head.weight.detach())
    torch.testing.assert_close(model.scores(changed), wanted, rtol=1e-7, atol=1e-7)


def test_the_next_rollout_takes_the_place_of_the_last(folders) -> None:
    backbone = backbone_of(folders[0])
    actor = LocalActor(backbone)
    prompts = [backbone.lm.codec.prompt(text) for text in PROMPTS]
    batches = [
        actor.generate(prompts, num_answers=2, sampling=Sampling(max_new_tokens=6), seed=seed)
        for seed in (0, 1)
    ]
    assert backbone.states.arrays(batches[0]) == {}
    assert set(backbone.states.arrays(batches[1])) == {"prompt_hidden", "answer_hidden"}
    backbone.states.drop(ROLLOUT)
    assert backbone.states.arrays(batches[1]) == {}


def test_one_long_answer_costs_the_short_ones_nothing(folders) -> None:
    """What is kept is the number of real tokens, not rows times the longest."""
    backbone = backbone_of(folders[0])
    codec = backbone.lm.codec
    texts = ["yes", "no", "the cart " * 40, "a river"]
    examples = []
    for text in texts:
        prompt = codec.prompt("hi")
        examples.append((prompt, codec.completion_ids(prompt, text)))
    batch = given_answers(examples, pad_id=codec.pad_id)
    backbone.remember("data", batch)
    [block] = backbone.states._blocks.values()
    kept = sum(x.untyped_storage().nbytes() for x in block.answers.values())
    tokens = sum(len(ids) for _, ids in examples)
    assert kept == tokens * backbone.width * 8


def test_a_model_trained_whole_keeps_no_states(folders) -> None:
    backbone = backbone_of(folders[0], top=4)
    batch = drawn(backbone)
    backbone.remember("data", copy.copy(batch))
    assert backbone.states.arrays(batch) == {}


def test_keeping_states_reads_each_answer_once(folders, monkeypatch) -> None:
    """However many micro-batches there are: cost is linear in the answers."""
    from plaudit.engine import trunk_states

    backbone = backbone_of(folders[0])
    backbone.max_tokens = 60
    codec = backbone.lm.codec
    prompts = [codec.prompt(f"Write about number {i}.") for i in range(24)]
    batch = given_answers(
        [(p, codec.completion_ids(p, "yes")) for p in prompts], pad_id=codec.pad_id
    )
    read: list[int] = []
    plain = trunk_states._digest
    monkeypatch.setattr(trunk_states, "_digest", lambda ids: read.append(1) or plain(ids))
    backbone.remember("data", batch)
    assert len(read) <= 6 * len(batch)  # prompt, and prompt with answer, when looked for and put
    assert backbone.states.arrays(batch)
