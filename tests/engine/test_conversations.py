"""Conversations of two turns through sampler, PPO, fine-tuning and reward model, and what must not
matter to any of them: how a batch is split, padded, joined or ordered."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.engine.learner import AdamConfig
from plaudit.engine.local import LocalActor, LocalCritic, LocalReference, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.lm.loop import CrossEntropy
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.lm.steps import credit, token_steps
from plaudit.models.answers import Given, given_answers, turns
from plaudit.models.formats.load import load_language_model
from plaudit.ops import last_step, outcome_reward
from plaudit.records.errors import UserError
from plaudit.records.events import Step
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.records.types import join
from plaudit.rewards.model import BradleyTerry
from simple_losses import weighted_step
from tiny_models import tiny_llama

LAYERS = 3
PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi")
SAMPLING = Sampling(max_new_tokens=6)


class Asking:
    """Asks once more, about the row's number; conversations of even rows then come to their end."""

    max_turns = 2

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def __call__(self, conversations):
        self.seen += [tuple(m["role"] for m in talk.messages) for talk in conversations]
        return [
            {"role": "user", "content": f"And {talk.row}?"}
            if len(talk.messages) == 1 or talk.row % 2
            else None
            for talk in conversations
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", layers=LAYERS)


def backbone_of(folder, top: int = 2, *, stops_often: bool = True, **how) -> SharedBackbone:
    lm = load_language_model(folder, dtype=torch.float64)
    if not stops_often:
        return SharedBackbone(lm, num_top_layers=top, **how)
    # A random model seldom draws the one token that ends a turn; here every fourth token does.
    stops = lm.codec.stop_ids | set(range(0, len(lm.codec.tokenizer), 4))
    codec = replace(lm.codec, stop_ids=frozenset(stops))
    return SharedBackbone(replace(lm, codec=codec), num_top_layers=top, **how)


def talk(actor, *, num_answers: int = 6, seed: int = 3, replier=None):
    prompts = [actor.backbone.lm.codec.prompt(text) for text in PROMPTS]
    return actor.generate(
        prompts, num_answers=num_answers, sampling=SAMPLING, seed=seed, replier=replier or Asking()
    )


@pytest.fixture(scope="module")
def batch(folder):
    found = talk(LocalActor(backbone_of(folder)))
    spans = [turns(*pair) for pair in zip(found.there.tolist(), found.chosen.tolist(), strict=True)]
    assert {len(s) for s in spans} == {1, 2}, "some conversations must have two turns, some one"
    return found


def test_a_reply_is_what_the_template_writes_between_two_turns(folder, batch) -> None:
    """ids = the template's rendering of the whole conversation, where the policy's text survives
    encoding; the reply is there, and not chosen."""
    codec = load_language_model(folder).codec
    checked = 0
    for row in range(len(batch)):
        real, own = batch.there[row].tolist(), batch.chosen[row].tolist()
        spans = turns(real, own)
        if len(spans) < 2:
            continue
        ids = batch.token[row].tolist()
        between = ids[spans[0][1] : spans[1][0]]
        if ids[spans[0][1] - 1] != codec.end_of_turn:
            assert between.pop(0) == codec.end_of_turn
        written = codec.tokenizer.decode(between)
        assert written == f"\n<|im_start|>user\nAnd {row}?<|im_end|>\n<|im_start|>assistant\n"
        assert not any(own[spans[0][1] : spans[1][0]])
        checked += 1
    assert checked >= 3


def test_log_probabilities_are_the_models_own_on_chosen_tokens(folder, batch) -> None:
    backbone = backbone_of(folder)
    logp = LocalReference(backbone).logprobs(batch)
    model = backbone.lm.model
    for row in range(len(batch)):
        prompt = batch.prompts[int(batch.group[row])].ids
        ids = batch.token[row][batch.there[row]]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids.tolist()]])).logits[0, len(prompt) - 1 : -1]
        each = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
        own = batch.chosen[row][: len(ids)]
        torch.testing.assert_close(logp[row, : len(ids)][own], each[own], rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.logp[row, : len(ids)][own], each[own], rtol=0, atol=1e-6)
    assert not logp[~batch.chosen].any()


def test_ends_and_cuts_are_told_apart(batch) -> None:
    """An even row of two turns came to its end; an odd one was cut by the number of turns, and a
    turn without its stop token by its length."""
    assert not (batch.terminated & batch.truncated).any()
    for row in range(len(batch)):
        spans = turns(batch.there[row].tolist(), batch.chosen[row].tolist())
        whole = spans[-1][1] - spans[-1][0] < SAMPLING.max_new_tokens
        if len(spans) == 2 and whole:
            assert bool(batch.terminated[row]) == (row % 2 == 0)
        if len(spans) == 1:
            assert bool(batch.truncated[row])


@pytest.mark.parametrize("top", [1, LAYERS])
def test_how_a_batch_is_laid_out_changes_no_number(folder, batch, top) -> None:
    """Splits into micro-batches, order of rows, padding, and joining of two halves."""
    pad = torch.nn.functional.pad
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)).tolist()
    wide = replace(
        batch,
        token=pad(batch.token, (0, 4), value=9),
        there=pad(batch.there, (0, 4)),
        chosen=pad(batch.chosen, (0, 4)),
        logp=pad(batch.logp, (0, 4)),
    )
    halves = join([batch.select(range(7)), batch.select(range(7, len(batch)))])
    ways = {
        "whole": (batch, list(range(len(batch))), 4096),
        "split": (batch, list(range(len(batch))), 40),
        "order": (batch.select(order), order, 60),
        "padded": (wide, list(range(len(batch))), 4096),
        "joined": (halves, list(range(len(batch))), 4096),
    }
    grads, values = {}, {}
    weight = torch.linspace(-1, 1, batch.chosen.numel(), dtype=torch.float64)
    weight = weight.view(batch.chosen.shape)
    for name, (some, rows, max_tokens) in ways.items():
        backbone = backbone_of(folder, top, max_tokens=max_tokens)
        actor = LocalActor(backbone, adam=AdamConfig(max_grad_norm=1e9))
        model, critic = LocalRewardModel(backbone), LocalCritic(backbone)
        with torch.no_grad():
            for head in (model.head, critic.head):
                head.weight.normal_(generator=torch.Generator().manual_seed(1))
        back = torch.tensor(rows).argsort()
        width = batch.chosen.shape[1]
        values[name] = [
            model.scores(some)[back],
            critic.values(some)[back][:, :width],
            actor.logprobs(some)[back][:, :width],
        ]
        weighted_step(actor, some, pad(weight[rows], (0, some.chosen.shape[1] - width)), lr=0.0)
        grads[name] = [
            p.grad.clone() for p in actor.learner.parameters.values() if p.grad is not None
        ]
    for name in ways:
        for a, b in zip(values[name], values["whole"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        for a, b in zip(grads[name], grads["whole"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_score_is_read_at_the_last_chosen_token(folder, batch) -> None:
    """What others say after the policy's last turn changes no score."""
    model = LocalRewardModel(backbone_of(folder))
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    scores, rewards = model.scores(batch), model(batch)
    assert torch.equal(rewards.sum(1), scores)
    assert torch.equal(rewards != 0, last_step(batch.chosen))
    there, chosen = batch.there.clone(), batch.chosen.clone()
    row = next(
        r for r in range(len(batch)) if len(turns(there[r].tolist(), chosen[r].tolist())) > 1
    )
    first = turns(there[row].tolist(), chosen[row].tolist())[0]
    chosen[row, first[1] :] = False
    cut = replace(batch, chosen=chosen)
    alone = there.clone()
    alone[row, first[1] :] = False
    short = replace(batch, there=alone, chosen=chosen)
    torch.testing.assert_close(model.scores(cut)[row], model.scores(short)[row])
    assert float((model.scores(cut)[row] - scores[row]).abs()) > 1e-6


@pytest.mark.parametrize("max_tokens", [4096, 40])
def test_fine_tuning_learns_the_policys_turns_alone(folder, max_tokens) -> None:
    """The loss is the mean −log π of the tokens to be learned; the others' values change nothing
    but what stands before."""
    backbone = backbone_of(folder, stops_often=False, max_tokens=max_tokens)
    codec, model = backbone.lm.codec, backbone.lm.model
    examples, wanted = [], []
    for text in PROMPTS:
        prompt = codec.prompt(text)
        first = codec.completion_ids(prompt, "a great day")
        said = [{"role": "assistant", "content": "a great day"}, {"role": "user", "content": "So?"}]
        reply = codec.reply_ids(prompt, said, last=first[-1])
        second = (*codec.completion_ids("So?", "good"),)
        ids = (*first, *reply, *second)
        chosen = (*[True] * len(first), *[False] * len(reply), *[True] * len(second))
        examples.append((prompt, Given(ids, chosen)))
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt.ids, *ids]])).logits[0, len(prompt.ids) - 1 : -1]
        each = -logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        wanted.append(each[torch.tensor(chosen)])
    data = given_answers(examples, pad_id=codec.pad_id)
    count = int(data.chosen.sum())
    told = LocalActor(backbone).update(data, CrossEntropy(), denominator=count, lr=0.0)
    assert count == sum(len(w) for w in wanted)
    assert told["loss"] == pytest.approx(float(torch.cat(wanted).mean()), abs=1e-6)


def test_comparisons_of_conversations_teach_the_reward_model(folder, batch) -> None:
    """Loss by hand from the scores, and a step that lowers it."""
    model = LocalRewardModel(backbone_of(folder))
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    group = batch.group.tolist()
    rows = [[r for r in range(len(batch)) if group[r] == g][:2] for g in set(group)]
    pairs = Pairs(tuple(a for a, _ in rows), tuple(b for _, b in rows), (1.0,) * len(rows))
    scores = model.scores(batch)
    by_hand = torch.nn.functional.softplus(scores[list(pairs.b)] - scores[list(pairs.a)]).mean()
    losses = []
    for _ in range(3):
        told = model.update(
            batch, BradleyTerry(0.0), fields={"pairs": pairs}, denominator=len(pairs), lr=1e-2
        )
        losses.append(told["loss"])
    assert losses[0] == pytest.approx(float(by_hand), rel=1e-9)
    assert losses[2] < losses[0]


def test_ppo_learns_from_conversations(folder) -> None:
    """A reward for tokens of even number rises; the KL starts at 0."""
    backbone = backbone_of(folder)
    with torch.no_grad():  # random embeddings are too short for any logit to stand out
        backbone.lm.model.get_input_embeddings().weight.mul_(8)
    actor, reference = LocalActor(backbone), LocalReference(backbone)

    def reward(batch):
        even = (batch.token % 2 == 0) & batch.chosen
        return outcome_reward(even.sum(1).double() / batch.chosen.sum(1), batch.chosen)

    config = PPOConfig(
        num_steps=12, prompts_per_step=3, answers_per_prompt=24, num_epochs=2, num_minibatches=1,
        lr=3e-2, critic_lr=3e-2, kl_coef=0.01, kl_target=None, missing_eos_penalty=0.0,
        max_policy_kl=1.0,
    )  # fmt: skip
    asking = Asking()
    events = ppo(
        config,
        actor=actor,
        critic=LocalCritic(backbone),
        reference=reference,
        reward=reward,
        prompts=[backbone.lm.codec.prompt(text) for text in PROMPTS],
        sampling=SAMPLING,
        seed=0,
        replier=asking,
    )
    steps = [event.metrics for event in events if isinstance(event, Step)]
    assert steps[0]["objective/kl"] == pytest.approx(0.0, abs=1e-6)
    assert steps[-1]["objective/scores"] > steps[0]["objective/scores"] + 0.15
    assert ("assistant", "user", "assistant") in asking.seen


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_observations_change_no_credit_of_chosen_tokens(batch, data) -> None:
    """Inserted tokens that were not chosen: with γ = λ = 1 every advantage is what it was, and
    where they stand there is none."""
    row = data.draw(st.integers(0, len(batch) - 1))
    one = batch.select([row])
    length = int(one.there.sum())
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))

    def noise(n: int) -> torch.Tensor:
        return torch.randn((1, n), generator=generator, dtype=torch.float64)

    value, ref = noise(length) * one.chosen[:, :length], noise(length)
    reward = noise(length) * one.chosen[:, :length]
    plain = replace(
        one,
        **{n: getattr(one, n)[:, :length] for n in ("token", "there", "chosen", "logp")},
    )
    place = data.draw(st.integers(0, length))
    extra = data.draw(st.integers(1, 4))

    def inserted(x: torch.Tensor, fill) -> torch.Tensor:
        gap = torch.full((1, extra), fill, dtype=x.dtype)
        return torch.cat([x[:, :place], gap, x[:, place:]], 1)

    longer = replace(
        plain,
        token=inserted(plain.token, 5),
        there=inserted(plain.there, True),
        chosen=inserted(plain.chosen, False),
        logp=inserted(plain.logp, 0.0),
    )
    before = credit(
        token_steps(plain, value=value, reward=reward, logp_ref=ref, kl_coef=0.3),
        gamma=1.0,
        lam=1.0,
    )
    after = credit(
        token_steps(
            longer,
            value=inserted(value, 7.0),
            reward=inserted(reward, 3.0),
            logp_ref=inserted(ref, -2.0),
            kl_coef=0.3,
        ),
        gamma=1.0,
        lam=1.0,
    )
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b[longer.chosen], a[plain.chosen], rtol=0, atol=1e-12)
        assert not b[~longer.chosen].any()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda talks: [], "gave 0 replies to"),
        (lambda talks: ["go on"] * len(talks), "gave 'go on'"),
    ],
)
def test_replies_of_another_form_are_refused(folder, reply, said) -> None:
    class Replying:
        max_turns = 2

        def __call__(self, conversations):
            return reply(conversations)

    with pytest.raises(UserError, match=said):
        talk(LocalActor(backbone_of(folder)), replier=Replying())


def test_joined_batches_share_equal_prompts_and_refuse_other_sampling(folder) -> None:
    actor = LocalActor(backbone_of(folder))
    first, second = talk(actor, num_answers=1), talk(actor, num_answers=2, seed=9)
    both = join([first, second])
    assert len(both.prompts) == len(PROMPTS)
    assert both.group.tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 2]
    again = both.select(range(len(first), len(both)))
    assert again.texts == second.texts
    torch.testing.assert_close(actor.logprobs(again)[:, : second.logp.shape[1]], second.logp)
    cold = replace(first, sampling=SAMPLING.model_copy(update={"temperature": 0.5}))
    with pytest.raises(ValueError, match="cannot be joined"):
        join([first, cold])
    with pytest.raises(ValueError, match="no batches"):
        join([])


def test_a_copy_of_the_backbone_keeps_batches_apart(folder, batch) -> None:
    """Versions are of rows: a joined batch says which weights drew which of them."""
    actor = LocalActor(backbone_of(folder))
    old = talk(actor, num_answers=1)
    weighted_step(actor, old, torch.ones(old.chosen.shape, dtype=torch.float64), lr=1e-3)
    new = talk(actor, num_answers=1)
    assert join([old, new]).version.tolist() == [0] * len(old) + [1] * len(new)
    assert copy.copy(batch).to("cpu").token.equal(batch.token)
