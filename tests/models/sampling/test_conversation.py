"""Turns that go on from a kept cache against whole conversations read by the model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plaudit.models.sampling.conversation import Conversations
from plaudit.models.sampling.fused_answers import FusedAnswers
from plaudit.models.sampling.hosted import HostedAnswers, HostedDecoder
from plaudit.models.sampling.kernel_answers import KernelAnswers
from plaudit.models.sampling.sampler import Sampler
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from sampled_models import FUSED, HOSTED, KERNELED, PAD, PROMPTS, STOPS, VOCABULARY, make

SAMPLING = Sampling(max_new_tokens=6, temperature=0.8)
TURNS = 3


def reply(row: int, turn: int) -> list[int]:
    """What others say: of one to four tokens, some of them stop tokens."""
    return [(7 * row + 3 * turn + k) % VOCABULARY for k in range(1 + (row + turn) % 4)]


def talk_of(
    model: Any, num_answers: int, *, split: int | None = None
) -> tuple[list[list[int]], list[list[tuple[int, float]]]]:
    """Whole conversations of some turns, and the place and log-probability of each drawn token.

    In the second turn two rows close."""
    sampler = Sampler(model, stop_ids=STOPS, pad_id=PAD, split=split)
    talk = Conversations(sampler, PROMPTS, num_answers=num_answers)
    drawn: list[list[tuple[int, float]]] = [[] for _ in talk.ids]
    for turn in range(TURNS):
        out = talk.draw(SAMPLING, seed=11)
        for i, row in enumerate(talk.open):
            n = int(out.mask[i].sum())
            begin = len(talk.ids[row]) - n
            drawn[row] += [(begin + k, float(out.logp[i, k])) for k in range(n)]
        closing = talk.open[1:3] if turn == 1 else []
        if turn + 1 < TURNS:
            talk.go_on({row: reply(row, turn) for row in talk.open if row not in closing})
    return talk.ids, drawn


@pytest.mark.parametrize("num_answers", [1, 3])
@pytest.mark.parametrize(
    "name", ["llama", "one query a key", "qwen3", "gpt2", "sliding mistral", *KERNELED]
)
def test_every_turn_is_drawn_from_the_whole_conversation(name: str, num_answers: int) -> None:
    model = make(name, torch.float32 if name in KERNELED else torch.float64)
    ids, drawn = talk_of(model, num_answers)
    lengths = {len(d) for d in drawn}
    assert len(lengths) > 1, "turns must end at different times"
    for row, found in zip(ids, drawn, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([row])).logits[0] / SAMPLING.temperature
        logp = logits.log_softmax(-1)
        for place, value in found:
            # The model's own RMSNorm rounds to float32 inside, whatever the dtype of the rest.
            assert value == pytest.approx(
                float(logp[place - 1, row[place]]), abs=1e-4 if name in KERNELED else 1e-5
            )


@pytest.mark.parametrize("name", [*FUSED, *HOSTED])
def test_a_kept_cache_draws_what_reading_again_draws(name: str, monkeypatch: Any) -> None:
    dtype = torch.float32 if name in KERNELED else torch.float64
    kept, _ = talk_of(make(name, dtype), 2)
    for answers in (FusedAnswers, HostedAnswers, KernelAnswers):
        monkeypatch.setattr(answers, "as_prefix", lambda self, rows, counts: None)
    again, _ = talk_of(make(name, dtype), 2)
    assert kept == again


def test_plain_attention_is_never_read_again(monkeypatch: Any) -> None:
    """Once the prompts are read, the model is asked for new tokens alone."""
    for name, cls in (("llama", None), ("gpt2", HostedDecoder)):
        model = make(name)
        sampler = Sampler(model, stop_ids=STOPS, pad_id=PAD)
        assert cls is None or isinstance(sampler.decoder, cls)
        prefills = []
        plain = sampler.decoder.prefill

        def counted(prompts: Any, plain: Any = plain, prefills: Any = prefills) -> Any:
            prefills.append(len(prompts))
            return plain(prompts)

        monkeypatch.setattr(sampler.decoder, "prefill", counted)
        talk = Conversations(sampler, PROMPTS, num_answers=2)
        for turn in range(TURNS):
            talk.draw(SAMPLING, seed=0)
            talk.go_on({row: reply(row, turn) for row in talk.open})
        assert prefills == [len(PROMPTS)]


def test_the_first_turn_is_what_the_sampler_draws_without_turns() -> None:
    model = make("llama")
    sampler = Sampler(model, stop_ids=STOPS, pad_id=PAD)
    whole = sampler.generate(PROMPTS, num_answers=3, sampling=SAMPLING, seed=4)
    turn = Conversations(sampler, PROMPTS, num_answers=3).draw(SAMPLING, seed=4)
    assert torch.equal(whole.answer, turn.answer)
    torch.testing.assert_close(whole.logp, turn.logp, rtol=1e-5, atol=1e-6)


def test_hidden_states_of_a_trunk_change_nothing() -> None:
    model = make("llama", torch.float64)
    assert talk_of(model, 2, split=2) == talk_of(model, 2)


def test_a_conversation_longer_than_the_context_is_refused() -> None:
    talk = Conversations(
        Sampler(make("llama"), stop_ids=(), pad_id=PAD), [list(range(30))], num_answers=1
    )
    talk.draw(Sampling(max_new_tokens=40), seed=0)
    talk.go_on({0: list(range(20))})
    with pytest.raises(UserError, match="a conversation has 90 tokens and max_new_tokens is 8"):
        talk.draw(Sampling(max_new_tokens=8), seed=0)
