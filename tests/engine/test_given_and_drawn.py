"""A batch knows the distribution its tokens are of: given answers are scored at temperature 1."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone
from plaudit.lm.sft import SFTConfig, held_out_loss, sft
from plaudit.models.answers import given_answers
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.records.errors import UserError
from plaudit.records.events import Step
from plaudit.records.sampling import Sampling
from tiny_models import tiny_llama

ANSWERS = ("A river is water.", "Yes", "The cart keeps its pole upright while it writes.", "no no")
PROMPTS = ("What is a river?", "What is a river?", "Write one sentence about a cart.", "hi")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tiny_llama(tmp_path_factory.mktemp("model") / "tiny", layers=4)
    return load_language_model(folder, dtype=torch.float64)


def data_of(lm: LanguageModel, *, as_groups: bool):
    """Demonstrations, one prompt each, or with answers to one prompt in one group (packed)."""
    examples = []
    for text, answer in zip(PROMPTS, ANSWERS, strict=True):
        prompt = lm.codec.prompt(text)
        examples.append((prompt, lm.codec.completion_ids(prompt, answer)))
    data = given_answers(examples, pad_id=lm.codec.pad_id)
    if as_groups:
        data = replace(
            data,
            prompts=(data.prompts[0], data.prompts[2], data.prompts[3]),
            group=torch.tensor([0, 0, 1, 2]),
        )
    return data, examples


def plain_cross_entropy(lm: LanguageModel, examples) -> float:
    """Mean over completion tokens of −log softmax, each conversation alone, by transformers."""
    total, count = 0.0, 0
    for prompt, ids in examples:
        whole = torch.tensor([[*prompt.ids, *ids]])
        with torch.no_grad():
            logits = lm.model(whole).logits[0, len(prompt.ids) - 1 : -1]
        total += float(
            torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum")
        )
        count += len(ids)
    return total / count


@pytest.mark.parametrize("top", [2, 4])
@pytest.mark.parametrize("as_groups", [False, True])
@pytest.mark.parametrize("max_tokens", [4096, 40])
def test_the_loss_of_fine_tuning_is_the_plain_cross_entropy(lm, top, as_groups, max_tokens) -> None:
    """Packed, padded or in micro-batches, whatever the policy was drawn under before."""
    backbone = SharedBackbone(
        replace(lm, model=lm.model), num_top_layers=top, max_tokens=max_tokens
    )
    actor = LocalActor(backbone)
    cool = Sampling(max_new_tokens=4, temperature=0.7, top_k=5)
    actor.generate([lm.codec.prompt("hi")], num_answers=2, sampling=cool, seed=0)
    data, examples = data_of(lm, as_groups=as_groups)
    config = SFTConfig(num_epochs=1, batch_size=len(data), lr=1e-30)
    [first] = [e for e in sft(config, actor=actor, data=data, seed=0) if isinstance(e, Step)]
    wanted = plain_cross_entropy(lm, examples)
    assert first.metrics["loss"] == pytest.approx(wanted, abs=1e-6)
    figures = held_out_loss(actor, data)
    assert figures["eval/loss"] == pytest.approx(wanted, abs=1e-6)
    assert figures["eval/perplexity"] == pytest.approx(math.exp(wanted), rel=1e-6)


def test_drawn_answers_read_as_given_have_the_models_own_log_probabilities(lm) -> None:
    """At temperature 0.7 with filters they were drawn elsewhere; perplexity is of neither."""
    actor = LocalActor(SharedBackbone(lm, num_top_layers=2))
    cool = Sampling(max_new_tokens=8, temperature=0.7, top_p=0.9)
    batch = actor.generate([lm.codec.prompt("hi")], num_answers=4, sampling=cool, seed=1)
    own = actor.logprobs(batch.as_given())
    for row in range(len(batch)):
        ids = batch.token[row][batch.there[row]]
        prompt = batch.prompts[0].ids
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*prompt, *ids.tolist()]])).logits[0]
        each = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
        torch.testing.assert_close(own[row][batch.there[row]], each, rtol=0, atol=1e-9)
    assert float((own - actor.logprobs(batch)).abs().max()) > 1e-3


def test_a_row_with_holes_is_refused(lm) -> None:
    """A real token behind padding would shift all that follows; that is refused, not computed."""
    actor = LocalActor(SharedBackbone(lm, num_top_layers=2))
    drawn = Sampling(max_new_tokens=8)
    batch = actor.generate([lm.codec.prompt("hi")], num_answers=3, sampling=drawn, seed=0)
    row = int(batch.there.sum(1).argmax())
    mask = batch.there.clone()
    mask[row, 1] = False
    with pytest.raises(UserError, match=rf"row {row} of the batch has a hole"):
        actor.logprobs(replace(batch, there=mask))
