"""PPO against closed forms, hand work, and the credit of ordinary control."""

from __future__ import annotations

import math

import pytest
import torch

from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.lm.steps import credit, token_steps
from plaudit.ops import gae, outcome_reward
from plaudit.records.events import Checkpoint, Done, Step
from plaudit.records.types import Prompt, Trajectories
from tabular_roles import (
    ONE_TOKEN,
    TableActor,
    TableCritic,
    TableReference,
    TableReward,
    prompts_of,
)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reaches_the_optimum_of_the_kl_regularised_bandit(seed: int) -> None:
    """π* ∝ π_ref·exp(r/β) (Ziegler et al. 2019, section 2): total variation below 0.02."""
    generator = torch.Generator().manual_seed(100 + seed)
    num_prompts, num_tokens, beta = 3, 6, 0.7
    ref = torch.randn(num_prompts, num_tokens, generator=generator, dtype=torch.float64)
    reward = torch.randn(num_prompts, num_tokens, generator=generator, dtype=torch.float64)
    actor = TableActor(ref)
    config = PPOConfig(
        num_steps=150,
        prompts_per_step=3,
        answers_per_prompt=512,
        num_epochs=4,
        num_minibatches=1,
        lr=0.05,
        critic_lr=0.2,
        kl_coef=beta,
        kl_target=None,
        value_clip=10.0,
        max_policy_kl=1.0,
        save_every=1000,
    )
    events = ppo(
        config,
        actor=actor,
        critic=TableCritic(num_prompts),
        reference=TableReference(ref),
        reward=TableReward(reward),
        prompts=prompts_of(num_prompts),
        sampling=ONE_TOKEN,
        seed=seed,
    )
    assert isinstance(list(events)[-1], Done)
    optimum = (ref.log_softmax(-1) + reward / beta).softmax(-1)
    learned = actor.logits.detach().softmax(-1)
    total_variation = 0.5 * (learned - optimum).abs().sum(-1)
    assert float(total_variation.max()) < 0.02


def test_a_larger_kl_coefficient_stays_nearer_to_the_reference() -> None:
    """At the optimum KL(π*‖π_ref) falls with β; PPO's reported KL must agree with that order."""
    ref = torch.zeros(1, 4, dtype=torch.float64)
    reward = torch.tensor([[0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
    measured, exact = [], []
    for beta in (0.5, 2.0):
        actor = TableActor(ref)
        config = PPOConfig(
            num_steps=60,
            prompts_per_step=1,
            answers_per_prompt=512,
            num_minibatches=1,
            lr=0.1,
            critic_lr=0.2,
            kl_coef=beta,
            kl_target=None,
            value_clip=10.0,
            max_policy_kl=1.0,
        )
        events = ppo(
            config,
            actor=actor,
            critic=TableCritic(1),
            reference=TableReference(ref),
            reward=TableReward(reward),
            prompts=prompts_of(1),
            sampling=ONE_TOKEN,
            seed=0,
        )
        last = [e for e in events if isinstance(e, Step)][-1]
        measured.append(last.metrics["objective/kl"])
        optimum = (reward / beta).softmax(-1)
        exact.append(float((optimum * (optimum.log() - math.log(0.25))).sum()))
    assert measured == pytest.approx(exact, abs=0.06)


def steps_of(batch, value, score, logp_ref, kl_coef: float):
    reward = outcome_reward(score, batch.chosen)
    return token_steps(batch, value=value, reward=reward, logp_ref=logp_ref, kl_coef=kl_coef)


def _batch(lengths: list[int], *, seed: int = 0, dtype: torch.dtype = torch.float64):
    """Answers of the given lengths with random log-probabilities, values and scores."""
    generator = torch.Generator().manual_seed(seed)
    num, steps = len(lengths), max(lengths)
    mask = torch.arange(steps)[None] < torch.tensor(lengths)[:, None]

    def noise() -> torch.Tensor:
        return torch.randn(num, steps, generator=generator, dtype=dtype) * mask

    logp, logp_ref, value = -noise().abs(), -noise().abs(), noise()
    score = torch.randn(num, generator=generator, dtype=dtype)
    batch = Trajectories.of_answers(
        prompts=(Prompt("x", (1, 2)),),
        group=torch.zeros(num, dtype=torch.int64),
        token=torch.randint(0, 50, (num, steps), generator=generator) * mask,
        mask=mask,
        logp=logp,
        terminated=torch.ones(num, dtype=torch.bool),
        texts=("",) * num,
        sampling=ONE_TOKEN,
    )
    return batch, logp_ref, value, score


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.97, 0.9), (1.0, 1.0), (0.9, 0.0)])
def test_the_token_mdp_gives_control_and_language_the_same_credit(gamma: float, lam: float) -> None:
    """An answer stepped as an episode in a control rollout has the advantages of `lm`'s credit.

    Control lays episodes end to end in one stream [1, ΣT], with each step's own next value and
    its flags; `lm` lays them in padded rows [B, T]. The token MDP is stepped here one token at a
    time: state = tokens so far, reward = KL penalty and, at the end, the score.
    """
    lengths = [5, 1, 8, 3, 8]
    batch, logp_ref, value, score = _batch(lengths)
    beta = 0.3
    steps = steps_of(batch, value, score, logp_ref, beta)
    adv, ret = credit(steps, gamma=gamma, lam=lam)

    stream: dict[str, list[float]] = {k: [] for k in ("reward", "value", "next", "end")}
    for row, length in enumerate(lengths):
        for t in range(length):
            is_last = t == length - 1
            penalty = beta * float(batch.logp[row, t] - logp_ref[row, t])
            stream["reward"].append(-penalty + (float(score[row]) if is_last else 0.0))
            stream["value"].append(float(value[row, t]))
            stream["next"].append(0.0 if is_last else float(value[row, t + 1]))
            stream["end"].append(float(is_last))
    as_row = {k: torch.tensor(v, dtype=torch.float64)[None] for k, v in stream.items()}
    end = as_row["end"].bool()
    flat = gae(as_row["reward"], as_row["value"], as_row["next"], end, end, gamma=gamma, lam=lam)
    torch.testing.assert_close(adv[batch.chosen], flat[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(ret[batch.chosen], (flat + as_row["value"])[0], rtol=0, atol=1e-10)
    assert bool((adv[~batch.chosen] == 0).all())


def test_rewards_of_a_row_sum_to_its_score_less_the_kl_penalty() -> None:
    batch, logp_ref, value, score = _batch([4, 2, 7])
    steps = steps_of(batch, value, score, logp_ref, 0.25)
    kl = ((batch.logp - logp_ref) * batch.chosen).sum(1)
    torch.testing.assert_close(steps.reward.sum(1), score - 0.25 * kl)


def test_the_score_sits_on_the_last_real_token() -> None:
    """Not one slot after it, and not on padding that shares the stop token's id (trl#3750)."""
    batch, logp_ref, value, score = _batch([4, 2, 7])
    steps = steps_of(batch, value, score, logp_ref, 0.0)
    assert steps.reward.nonzero().tolist() == [[0, 3], [1, 1], [2, 6]]
    assert steps.reward[[0, 1, 2], [3, 1, 6]].tolist() == score.tolist()


def test_the_longest_answer_counts_as_finished_if_it_is() -> None:
    """An answer as long as the batch's longest is not thereby cut (AReaL's no-EOS test)."""
    batch, logp_ref, value, score = _batch([4, 7])
    steps = steps_of(batch, value, score, logp_ref, 0.0)
    assert bool(steps.terminated[1, 6])
    assert float(steps.next_value[1, 6]) == 0.0


def test_padding_changes_no_credit() -> None:
    batch, logp_ref, value, score = _batch([4, 2, 7])
    pad = torch.nn.functional.pad
    wide = Trajectories.of_answers(
        prompts=batch.prompts,
        group=batch.group,
        token=pad(batch.token, (0, 5), value=9),
        mask=pad(batch.chosen, (0, 5)),
        logp=pad(batch.logp, (0, 5)),
        terminated=batch.terminated,
        texts=batch.texts,
        sampling=batch.sampling,
    )
    narrow = steps_of(batch, value, score, logp_ref, 0.1)
    wider = steps_of(wide, pad(value, (0, 5)), score, pad(logp_ref, (0, 5)), 0.1)
    for a, b in zip(
        credit(narrow, gamma=1.0, lam=0.9), credit(wider, gamma=1.0, lam=0.9), strict=True
    ):
        assert torch.equal(a, b[:, :7])
        assert not b[:, 7:].any()


def test_continuing_from_a_checkpoint_is_the_uninterrupted_run() -> None:
    """Stopped after step 3 of 6 and continued in new objects, the weights are bit for bit equal."""
    ref = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reward = TableReward(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double())
    config = PPOConfig(
        num_steps=6,
        prompts_per_step=4,
        answers_per_prompt=8,
        save_every=1,
        kl_target=0.5,
        score_scaling="running_std",
    )

    class SGDActor(TableActor):  # Adam's moments are the learner's business, tested with it
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__(logits)
            self.optimiser = torch.optim.SGD([self.logits], lr=0.1)

    class SGDCritic(TableCritic):
        def __init__(self, num: int) -> None:
            super().__init__(num)
            self.optimiser = torch.optim.SGD([self.value], lr=0.1)

    def start(saved=None):
        actor = SGDActor(ref)
        events = ppo(
            config,
            actor=actor,
            critic=SGDCritic(4),
            reference=TableReference(ref),
            reward=reward,
            prompts=prompts_of(4),
            sampling=ONE_TOKEN,
            seed=5,
            saved=saved,
        )
        return actor, events

    whole, events = start()
    metrics = [dict(e.metrics) for e in events if isinstance(e, Step)]
    _, events = start()
    for event in events:
        if isinstance(event, Checkpoint) and event.step == 3:
            arrays, facts = event.state()
            saved = ({k: v.clone() for k, v in arrays.items()}, facts)
            break
    resumed, events = start(saved)
    assert [dict(e.metrics) for e in events if isinstance(e, Step)] == metrics[3:]
    assert torch.equal(resumed.logits, whole.logits)
